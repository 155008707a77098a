"""One file over HTTP: checked while it comes, resumed after a cut, tried again, never half under its own name."""

import glob
import hashlib
import http.client
import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from artpaper.data.download_http import Failed, range_start, read, refuse, request, stated_md5, stated_size, validator
from artpaper.errors import DownloadError
from artpaper.identity import fingerprint

CHUNK = 1 << 18  # bytes a read; with the threads, all the memory a download takes
LARGEST = 16 << 30  # bytes; no file of either data set comes near, so a stream without an end stops here
STRIDE = 1 << 20  # bytes of progress after which a cut counts as the first again
LONGEST_PAUSE = 60.0  # seconds

Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """How long to put up with a server.

    Attributes:
        tries: how often in a row without progress, before a file counts as failed.
        timeout: seconds without a byte, or at less than 1 kB a second, after which a connection is given up.
        pause: seconds before the second try, doubled before each further one, times a random 0.5 to 1.5.
    """

    tries: int = 6
    timeout: float = 30.0
    pause: float = 1.0


@dataclass(frozen=True)
class Remote:
    """A file on a server.

    Attributes:
        url: http or https.
        name: the name it gets here, without a folder.
        md5: 32 hex digits that its bytes must have; None if none are known.
        size: in bytes; None before a server has told it.
        validator: the server's word for this version of the file (ETag or date), where there is no MD5.
    """

    url: str
    name: str
    md5: str | None = None
    size: int | None = None
    validator: str | None = None

    @property
    def identity(self) -> str | None:
        """What tells this content from another under the same name; None if nothing does."""
        return self.md5 or self.validator

    def part(self, folder: Path) -> Path:
        """Where the bytes wait in ``folder`` until they are all there; another content has another place."""
        return folder / f"{self.name}.{fingerprint(self.identity)}.part"

    def held(self, folder: Path) -> int:
        """Bytes in ``folder`` that a download would go on from."""
        return _size(self.part(folder)) if self.identity else 0


class Stopped(Exception):
    """The download was given up elsewhere; nothing went wrong with this file."""


class Fetcher:
    """Fetches files; several threads may share one.

    Args:
        patience: tries, timeout and back-off.
        stop: when set, every thread in here ends with ``Stopped`` and writes nothing more.
        progress: told the number of bytes that came, below zero for those thrown away.
        say: told in a sentence what went wrong and will be tried again.
    """

    def __init__(
        self,
        patience: Patience,
        stop: threading.Event,
        progress: Callable[[int], None] = lambda count: None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.patience, self.stop, self.progress, self.say = patience, stop, progress, say

    def ask(self, remote: Remote) -> Remote:
        """The same file with what its server says of it without sending it: size and, without an MD5, its identity.

        Google's storage states an MD5 (``x-goog-hash``) for files that were uploaded in one piece.

        Args:
            remote: unchanged where the server does not answer such a question.
        """
        try:
            return self._patiently(remote.url, partial(self._head, remote), 2)
        except DownloadError:
            return remote  # the download itself will tell what is the matter

    def text(self, url: str, limit: int, tries: int | None = None) -> bytes:
        """A small file, whole.

        Args:
            url: http or https.
            limit: its largest size in bytes.
            tries: instead of ``patience.tries``.
        Raises:
            DownloadError: it could not be had, or is larger.
        """
        return self._patiently(url, partial(self._whole, url, limit), tries or self.patience.tries)

    def fetch(self, remote: Remote, folder: Path) -> None:
        """Put the file into ``folder``, from what an earlier download left of it if that is the same content.

        Args:
            remote: with MD5: those are the bytes that come; without: as many bytes as the server says.
            folder: exists.
        Raises:
            DownloadError: it is not there, or every try ended with a cut, a timeout or another MD5.
            OSError: the folder cannot be written or the disk is full; what came stays for the next time.
        """
        part = remote.part(folder)
        for left in folder.glob(f"{glob.escape(remote.name)}.*.part"):
            if left != part or not remote.identity:
                left.unlink()
        what = f"{remote.url} (for {folder / remote.name})"
        self._patiently(what, partial(self._attempt, remote, part), self.patience.tries, partial(_size, part))
        os.replace(part, folder / remote.name)

    def _head(self, remote: Remote) -> Remote:
        with request("HEAD", remote.url, self.patience.timeout) as answer:
            if answer.status != 200:
                refuse(answer)
            asked = replace(remote, size=stated_size(answer))
            return asked if remote.md5 else replace(asked, md5=stated_md5(answer), validator=validator(answer))

    def _whole(self, url: str, limit: int) -> bytes:
        with request("GET", url, self.patience.timeout) as answer:
            if answer.status != 200:
                refuse(answer)
            total, content = answer.length, bytearray()
            while (total is None or len(content) < total) and (chunk := self._read(answer, CHUNK)):
                content += chunk
                if len(content) > limit:
                    raise Failed(f"larger than {limit} bytes", "this is not the file; check the address")
            if total is not None and len(content) < total:
                raise Failed(f"cut after {len(content)} of {total} bytes", again=True)
            return bytes(content)

    def _attempt(self, remote: Remote, part: Path) -> None:
        with open(part, "a+b") as file:
            file.seek(0)
            digest = hashlib.file_digest(file, _md5)
            held = file.tell()
            if held and not remote.identity:  # nothing would tell whether it is of the same version
                self._empty(file, held)
                held, digest = 0, _md5()
            whole = digest.hexdigest() == remote.md5 if remote.md5 else held == remote.size
            if not held or not whole:  # else it was stopped after the last byte
                self._receive(remote, file, held, digest)
            file.flush()
            os.fsync(file.fileno())

    def _receive(self, remote: Remote, file: BinaryIO, held: int, digest: Any) -> None:
        """Append to ``file`` what it lacks; ``digest`` is over the ``held`` bytes it has."""
        headers = {"Range": f"bytes={held}-"} if held else {}
        if held and remote.validator:
            headers["If-Range"] = remote.validator  # another version comes whole, with status 200
        with request("GET", remote.url, self.patience.timeout, headers) as answer:
            if held and answer.status == 200:
                self._empty(file, held)
                held, digest = 0, _md5()
            elif held and (answer.status == 416 or (answer.status == 206 and range_start(answer) != held)):
                self._empty(file, held)
                raise Failed(f"the server did not go on at byte {held}; begun anew", again=True)
            elif answer.status != (206 if held else 200):
                refuse(answer)
            total = None if answer.length is None else held + answer.length
            if (total or 0) > LARGEST:
                raise Failed(f"{total} bytes, and no file of the data set is as large", "check the address")
            while total is None or held < total:
                chunk = self._read(answer, CHUNK if total is None else min(CHUNK, total - held))
                if not chunk:
                    break
                file.write(chunk)
                file.flush()  # what has come is kept even if this process is killed now
                digest.update(chunk)
                held += len(chunk)
                self.progress(len(chunk))
                if held > LARGEST:
                    self._empty(file, held)
                    raise Failed(f"more than {LARGEST} bytes, and no end", "check the address")
        if remote.md5 and digest.hexdigest() == remote.md5:
            return  # whatever the server said of the length
        if total is not None and held < total:
            raise Failed(f"cut after {held} of {total} bytes", again=True)
        if remote.md5:
            self._empty(file, held)
            raise Failed(f"MD5 of the {held} bytes is {digest.hexdigest()}, expected {remote.md5}", again=True)
        if total is None or (remote.size or total) != total:
            self._empty(file, held)
            raise Failed(f"{held} bytes came, and the server said {remote.size or 'neither size nor MD5'}", again=True)

    def _empty(self, file: BinaryIO, held: int) -> None:
        file.truncate(0)
        self.progress(-held)

    def _read(self, answer: http.client.HTTPResponse, count: int) -> bytes:
        """Up to ``count`` bytes as soon as there are any; none at the end."""
        chunk = read(answer, count)
        if self.stop.is_set():
            raise Stopped
        return chunk

    def _patiently(
        self, what: str, attempt: Callable[[], Result], tries: int, reached: Callable[[], int] = lambda: 0
    ) -> Result:
        failures, farthest = 0, reached()
        while True:
            try:
                return attempt()
            except Failed as failure:
                now = reached()
                failures = 1 if now >= farthest + STRIDE else failures + 1
                farthest = max(farthest, now)
                if not failure.again:
                    raise DownloadError(f"{what}: {failure}; {failure.remedy}") from None
                if failures >= tries:
                    raise DownloadError(f"{what}: {failure}; {failures} tries in a row; {failure.remedy}") from None
                pause = min(self.patience.pause * 2 ** (failures - 1), LONGEST_PAUSE) * random.uniform(0.5, 1.5)
                pause = max(pause, failure.wait)
                self.say(f"{what}: {failure}; again in {pause:.0f} s")
            if self.stop.wait(pause):
                raise Stopped


def md5_of(path: Path) -> str:
    """The MD5 of a file, as hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, _md5).hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)  # against accidents; machines that forbid MD5 for secrets allow this
