"""Fetch single files: resumed after a cut, at a least speed, checked, never half a file under its name."""

import base64
import hashlib
import http.client
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError
from urllib3.util import Retry

from pipeline.base.errors import DownloadError
from pipeline.base.identity import fingerprint

LARGEST = 16 << 30  # bytes; no file of either data set comes near, so a stream without an end stops here
STRIDE = 1 << 20  # bytes of progress after which a cut counts as the first again
SLOWEST = 1024  # bytes a second; a server that drips less is as good as one that hangs
LONGEST_WAIT = 600  # seconds that a server may ask to wait
AGAIN = "run the same command again, it goes on where it stopped; if that does not help, take another --mirror"
BETWEEN = "check the address (https is not left for http); is there a proxy or a login page in between?"
AGAIN_AT = {408, 429, *range(500, 600)}  # a second try at once, then after 2, 4, 8, 16 seconds, or when the server says
RETRY = Retry(5, status_forcelist=AGAIN_AT, backoff_factor=1, backoff_jitter=1, backoff_max=60, retry_after_max=1 << 31)


@dataclass(frozen=True)
class Remote:
    """A file on a server."""

    url: str
    name: str  # that it gets here, without a folder
    md5: str | None = None  # 32 hex digits that its bytes must have, if any are known
    size: int | None = None  # in bytes, once a server has told it
    validator: str | None = None  # the server's word for this version (ETag or date), where there is no MD5

    @property
    def identity(self) -> str | None:
        """What tells this content from another under the same name; None if nothing does."""
        return self.md5 or self.validator

    def flaw(self, path: Path) -> str:
        """Why the bytes at ``path`` are not this file, by MD5 or, where none is known, by size; empty if they are."""
        size = path.stat().st_size
        if not self.md5:
            stated = self.size or "neither size nor MD5"
            return "" if size == self.size else f"{size} bytes came, and the server said {stated}"
        with open(path, "rb") as file:  # MD5 is against accidents; machines that forbid it for secrets allow this
            md5 = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
        return "" if md5 == self.md5 else f"MD5 of the {size} bytes is {md5}, expected {self.md5}"


class Failed(requests.RequestException):
    """One attempt failed; another may succeed, after ``wait`` seconds at least."""

    wait = 0.0


class Fetcher:
    """Fetches files into a folder that exists; several threads may share one, and setting ``stop`` ends them all."""

    def __init__(self, folder: Path, say: Callable[[str], None], retry: Retry = RETRY, timeout: float = 30.0) -> None:
        self.folder, self.say, self.retry, self.timeout = folder, say, retry, timeout
        self.stop, self.bar = threading.Event(), tqdm(disable=True)

    def ask(self, remote: Remote) -> Remote:
        """The same file with its size and, without an MD5, what tells its version, as far as the server states them."""
        try:
            answer = self._patiently(remote.url, lambda: self._answer("HEAD", remote.url), self.retry.new(total=1))
        except DownloadError:
            return remote  # the download itself will tell what is the matter
        size = re.fullmatch(r"\d{1,18}", answer.headers.get("Content-Length", ""))
        stated = re.search(r"md5=([A-Za-z0-9+/]{22}==)", answer.headers.get("x-goog-hash", ""))
        md5 = remote.md5 or (stated and base64.b64decode(stated[1]).hex())
        return replace(
            remote, size=size and int(size[0]), md5=md5, validator=None if remote.md5 else _validator(answer)
        )

    def text(self, url: str, limit: int) -> bytes:
        """A small file, whole, of at most ``limit`` bytes."""
        return self._patiently(url, lambda: b"".join(self._chunks(self._answer("GET", url), limit)), self.retry)

    def held(self, remote: Remote) -> int:
        """Bytes that a download of ``remote`` would go on from; those of another content do not count."""
        part = self._part(remote)
        return part.stat().st_size if remote.identity and part.exists() else 0

    def fetch(self, remote: Remote) -> str:
        """Put ``remote`` into the folder, going on from what is there of the same content; or say why it failed."""
        for left in self.folder.glob(f"{remote.name}.*.part"):
            if left != self._part(remote):
                left.unlink()
        what, held = f"{remote.url} (for {self.folder / remote.name})", partial(self.held, remote)
        try:
            self._patiently(what, partial(self._attempt, remote, self._part(remote)), self.retry, held)
        except DownloadError as error:
            return str(error)
        os.replace(self._part(remote), self.folder / remote.name)
        return ""

    def _part(self, remote: Remote) -> Path:
        return self.folder / f"{remote.name}.{fingerprint(remote.identity)}.part"

    def _patiently(self, what: str, attempt: Callable, fresh: Retry, reached: Callable[[], int] = lambda: 0) -> Any:
        retry, farthest, wait = fresh, reached(), 0.0
        while not self.stop.wait(wait):
            try:
                return attempt()
            except (DownloadError, requests.TooManyRedirects, ValueError) as error:
                remedy = "" if isinstance(error, DownloadError) else f"; {BETWEEN}"
                raise DownloadError(f"{what}: {error}{remedy}") from None
            except (requests.RequestException, HTTPError) as error:
                now, failure = reached(), f"{what}: {_reason(error)}"
                try:
                    retry = (fresh if now >= farthest + STRIDE else retry).increment("GET", error=error)
                except MaxRetryError:
                    raise DownloadError(f"{failure}; {len(retry.history) + 1} tries in a row; {AGAIN}") from None
                farthest, wait = max(farthest, now), max(getattr(error, "wait", 0.0), retry.get_backoff_time())
                self.say(f"{failure}; again in {wait:.0f} s")
        raise DownloadError(f"{what}: stopped; {AGAIN}")

    def _attempt(self, remote: Remote, part: Path) -> None:
        held = self.held(remote)
        if held and not remote.flaw(part):
            return  # it was stopped after the last byte
        answer = self._answer("GET", remote.url, held, remote.validator)
        rest = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {held}-")
        if not held or not rest or remote.validator not in (None, _validator(answer) or remote.validator):
            self._discard(part)
            if answer.status_code != 200:
                raise Failed(f"the server did not go on at byte {held}; begun anew")
            held = 0
        length = answer.raw.length_remaining
        remote = replace(remote, size=remote.size or (None if length is None else held + length))
        with open(part, "ab") as file:
            try:
                for chunk in self._chunks(answer, LARGEST, held):
                    file.write(chunk)
                    file.flush()  # what has come is kept even if this process is killed now
                    self.bar.update(len(chunk))
            except DownloadError:
                self._discard(part)
                raise
            except HTTPError:
                if not remote.md5 or remote.flaw(part):  # else it is there, whatever was said of its length
                    raise
            os.fsync(file.fileno())
        if flaw := remote.flaw(part):
            self._discard(part)
            raise Failed(flaw)

    def _discard(self, part: Path) -> None:
        if part.exists():
            self.bar.update(-part.stat().st_size)
            part.unlink()

    def _answer(self, method: str, url: str, held: int = 0, validator: str | None = None) -> requests.Response:
        """An answer with status 200 or, asked for what follows ``held`` bytes, 206 or 416; its body is yet to come."""
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={held}-"} if held else {})
        headers |= {"If-Range": validator} if held and validator else {}  # another version comes whole, with status 200
        schemes = ["https://"] if url.startswith("https:") else ["https://", "http://"]  # no redirection leaves https
        with requests.Session() as session:  # each its own: threads must not share one
            session.max_redirects, session.adapters = 5, dict.fromkeys(schemes, _Adapter())
            session.hooks["response"] = [lambda answer, **_: answer.close() if answer.is_redirect else None]  # unread
            answer = session.request(method, url, headers=headers, stream=True, timeout=self.timeout)
        if answer.ok and answer.headers.get("Content-Type", "").startswith("text/html"):
            raise DownloadError(f"a web page came instead of the file; {BETWEEN}")
        if answer.status_code in ((200, 206, 416) if held else (200,)):
            return answer
        failure = Failed(f"HTTP {answer.status_code} {http.client.responses.get(answer.status_code, '')}".strip())
        if not RETRY.is_retry("GET", answer.status_code):
            raise DownloadError(f"{failure}; this file is not given: check the address, or take another --mirror")
        with suppress(InvalidHeader, ValueError, OverflowError):
            failure.wait = RETRY.get_retry_after(answer.raw) or 0.0
        if failure.wait > LONGEST_WAIT:
            raise DownloadError(f"{failure}, to come back in {failure.wait:.0f} s; run the same command again then")
        raise failure

    def _chunks(self, answer: requests.Response, limit: int, held: int = 0) -> Iterator[bytes]:
        """The body as it was sent, whatever has come at once."""
        with answer:
            while held + (answer.raw.length_remaining or 0) <= limit:
                chunk = answer.raw.read1(1 << 18, decode_content=False)  # with the threads, all the memory that is used
                if self.stop.is_set():
                    raise Failed  # and are not tried again
                if not chunk:
                    return
                held += len(chunk)
                yield chunk
        raise DownloadError(f"larger than {limit} bytes, and no such file is; {BETWEEN}")


class _Adapter(HTTPAdapter):
    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **options)
        pool.ConnectionCls = type("Paced", (pool.ConnectionCls,), {"response_class": staticmethod(_paced)})
        return pool


def _paced(sock: Any, *args: Any, **options: Any) -> http.client.HTTPResponse:
    """An answer whose bytes, headers and all, must come at a minimum speed; a timeout alone is reset by each."""
    response: Any = http.client.HTTPResponse(sock, *args, **options)
    read, seconds, until = response.fp.raw.readinto, sock.gettimeout(), time.monotonic() + sock.gettimeout()

    def readinto(buffer: Any) -> int:
        nonlocal until
        count, now = read(buffer), time.monotonic()
        if now > until:
            raise TimeoutError(f"less than {SLOWEST} bytes a second for {seconds:.0f} s")
        until = min(now + seconds, until + count / SLOWEST)
        return count

    response.fp.raw.readinto = readinto
    return response


def _validator(answer: requests.Response) -> str | None:
    """The word for this version of a file that ``If-Range`` takes: a strong ETag or the date."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified")


def _reason(error: BaseException) -> str:
    """What the system said, under the wrappers of urllib3 and requests."""
    while inner := error.__cause__ or next((arg for arg in error.args if isinstance(arg, BaseException)), None):
        error = inner
    return str(error)[:200] or type(error).__name__
