"""Download YouTube-8M or AudioSet into a folder: in parallel, checked, and resumable however it was stopped."""

import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from artpaper.alone import alone
from artpaper.atomic import atomic_file
from artpaper.data.download_file import Fetcher, Patience, Remote, md5_of
from artpaper.data.download_plan import (
    PLAN_LIMIT,
    SPLITS,
    audioset_files,
    checked_server,
    plan_url,
    read_plan,
    vocabulary_url,
)
from artpaper.data.labels import Vocabulary
from artpaper.data.sources import YT8M_ENTITIES, YT8M_PAGE
from artpaper.errors import DataError, DownloadError
from artpaper.workers import in_threads

RECORD = ".download.json"
ASKED = 64  # files whose size is asked; where there are more, their mean stands for the others
VOCABULARY_LIMIT = 64 << 20  # bytes; the file has about 2 MB


@dataclass(frozen=True)
class Downloaded:
    """What a finished download did; ``str()`` says it in a sentence.

    Attributes:
        folder: where everything is.
        kept: files that were there already.
        fetched: files that came, or whose rest did.
        received: bytes that came in this run.
        notes: what is still to be done by hand.
    """

    folder: Path
    kept: int
    fetched: int
    received: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = f"{self.folder}: {self.fetched} files fetched ({_amount(self.received)}), {self.kept} were there already"
        return "\n".join([told, *self.notes])


def download_yt8m(
    folder: str | Path,
    part: tuple[int, int],
    *,
    splits: Sequence[str] = SPLITS,
    mirror: str = "us",
    server: str | None = None,
    workers: int = 4,
    patience: Patience | None = None,
    progress: bool = True,
) -> Downloaded:
    """Download YouTube-8M's frame-level shards and its vocabulary, if that can be had.

    Args:
        folder: receives ``train0000.tfrecord`` and so on; made if missing.
        part: (X, Y), the X-th of Y parts of the shards; (1, 1) is all, 1.2 TB, and (1, 100) a hundredth.
        splits: of ``train`` and ``validate``.
        mirror: ``us``, ``eu`` or ``asia``.
        server: http or https address of a server with the layout of Google's, instead of the mirror.
        workers: files at a time.
        patience: with a server that does not answer.
        progress: show a bar and what is tried again.
    Raises:
        DownloadError: the plan is damaged, the disk has too little room, or some files failed; the others are there,
            and the same call goes on.
        BusyError: another download is at work in the folder.
        OutputError: the folder cannot be written.
    """
    server, folder, patience = checked_server(server), Path(folder), patience or Patience()
    with alone(folder, "download"):
        fetcher = Fetcher(patience, threading.Event(), say=_say(progress))
        files = [
            file
            for split in splits
            for file in read_plan(fetcher.text(plan_url(split, server), PLAN_LIMIT), split, part, mirror, server)
        ]
        note = _vocabulary(folder, vocabulary_url(server), fetcher)
        done = _bring(files, folder, workers, patience, progress)
    return replace(done, notes=(note,) if note else ())


def download_audioset(
    folder: str | Path,
    *,
    mirror: str = "us",
    server: str | None = None,
    workers: int = 4,
    patience: Patience | None = None,
    progress: bool = True,
) -> Downloaded:
    """Download AudioSet's ``features.tar.gz`` (2.4 GB) and ``class_labels_indices.csv``.

    No MD5 of them was published. They are checked against the one that Google's storage states, if it states one, else
    against the stated size alone; the archive's own checksum is checked when ``prepare`` unpacks it.

    Args:
        folder: receives both; made if missing.
        mirror: ``us``, ``eu`` or ``asia``.
        server: http or https address of a server with the layout of Google's bucket, instead of the mirror.
        workers: files at a time.
        patience: with a server that does not answer.
        progress: show a bar and what is tried again.
    Raises:
        DownloadError, BusyError, OutputError: as for :func:`download_yt8m`.
    """
    with alone(Path(folder), "download"):
        files = audioset_files(mirror, checked_server(server))
        return _bring(files, Path(folder), workers, patience or Patience(), progress)


def _bring(files: list[Remote], folder: Path, workers: int, patience: Patience, progress: bool) -> Downloaded:
    """Look what is there, then fetch the rest, each file at once noted in the record."""
    stop, say, record = threading.Event(), _say(progress), _Record(folder)
    rest = _missing(files, folder, record, workers, Fetcher(patience, stop, say=say))
    total = _room(rest, folder, say)
    held = sum(file.held(folder) for file in rest)
    failed: dict[Remote, DownloadError] = {}
    with tqdm(total=total, initial=held, unit="B", unit_scale=True, desc=folder.name, disable=not progress) as bar:
        turn, came = threading.Lock(), [0]

        def moved(count: int) -> None:
            with turn:
                came[0] += max(count, 0)
                bar.update(count)

        fetcher = Fetcher(patience, stop, moved, say)

        def fetch(file: Remote) -> DownloadError | None:
            try:
                fetcher.fetch(file, folder)
            except DownloadError as error:
                return error
            return None

        try:
            for done, (file, error) in enumerate(in_threads(fetch, rest, workers, stop), start=1):
                bar.set_postfix_str(f"{done}/{len(rest)} files")
                if error is None:
                    record.add(file)
                else:
                    failed[file] = error
        except OSError as error:
            raise DownloadError(
                f"{error.filename or folder}: {error.strerror}; {_amount(shutil.disk_usage(folder).free)} are free; "
                "make room there, or mend the folder, and run the same command again: it goes on where it stopped"
            ) from None
    if failed:
        lines = [f"  {failed[file]}" for file in rest if file in failed]
        raise DownloadError(
            f"{len(failed)} of {len(files)} files failed, the others are in {folder}; run the same command again for "
            "these alone:\n" + "\n".join(lines)
        )
    return Downloaded(folder, len(files) - len(rest), len(rest), came[0])


def _missing(files: list[Remote], folder: Path, record: "_Record", workers: int, fetcher: Fetcher) -> list[Remote]:
    """The files that are not there or not right, with their sizes as far as those were asked."""

    def each(work: Callable[[Remote], Any], items: Iterable[Remote]) -> dict[Remote, Any]:
        return dict(in_threads(work, list(items), workers, fetcher.stop))

    told = each(fetcher.ask, (file for file in files if not file.md5))
    files = [told.get(file, file) for file in files]
    strange = [file for file in files if (folder / file.name).exists() and not record.holds(file)]
    if strange:
        fetcher.say(f"{folder}: checking {len(strange)} files that are there already")
    right = each(lambda file: _is_right(file, folder / file.name), strange)
    for file in strange:
        if right[file]:
            record.add(file)
        else:
            fetcher.say(f"{folder / file.name}: not the file that was published; it is fetched, and replaced then")
    rest = [file for file in files if not right.get(file) and not record.holds(file)]
    told = each(fetcher.ask, (file for file in rest[:: -(-len(rest) // ASKED) or 1] if file.size is None))
    return [told.get(file, file) for file in rest]


def _room(rest: list[Remote], folder: Path, say: Callable[[str], None]) -> int | None:
    """The size of all these files in bytes, None if no server tells; refuses what the disk cannot take."""
    free = shutil.disk_usage(folder).free
    sizes = [file.size for file in rest if file.size is not None]
    if not sizes:
        if rest:
            say(f"{folder}: {len(rest)} files to fetch; the server does not say how large; {_amount(free)} are free")
        return None if rest else 0
    total = round(sum(sizes) * len(rest) / len(sizes))
    lacking = total - sum(file.held(folder) for file in rest)
    about = "" if len(sizes) == len(rest) else f", going by {len(sizes)} of them"
    amounts = f"{len(rest)} files to fetch, {_amount(lacking)}{about}; {_amount(free)} are free"
    if lacking > free:
        raise DownloadError(
            f"{folder}: {amounts}; make room, take another --folder, or of YouTube-8M a smaller part (--shard 1,100)"
        )
    say(f"{folder}: {amounts}")
    return total


def _vocabulary(folder: Path, url: str, fetcher: Fetcher) -> str:
    """Fetch vocabulary.csv if it is not there; what to do by hand where it cannot be had."""
    path = folder / "vocabulary.csv"
    if path.exists():
        return ""
    try:
        content = fetcher.text(url, VOCABULARY_LIMIT, tries=2)
        with atomic_file(path) as temporary:
            temporary.write_bytes(content)
            Vocabulary.read(temporary, YT8M_ENTITIES)
        return ""
    except DownloadError as error:
        why = str(error).partition(";")[0]
    except DataError:
        why = f"{url}: what came is no vocabulary of {YT8M_ENTITIES} entities"
    return (
        f"vocabulary.csv is still to be had: {why}. The pipeline needs the one of 2018 with {YT8M_ENTITIES} entities, "
        f"linked on {YT8M_PAGE}: put it at {path}, or name its place with artpaper use paper --vocabulary FILE "
        "(data.vocabulary)"
    )


class _Record:
    """Which files were found right, with size and time, so that a terabyte is not read again by every run."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / RECORD
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}  # the files are checked again
        self._known: dict[str, Any] = known if isinstance(known, dict) else {}

    def holds(self, file: Remote) -> bool:
        return file.identity is not None and self._known.get(file.name) == self._state(file)

    def add(self, file: Remote) -> None:
        self._known[file.name] = self._state(file)
        with atomic_file(self._path, durable=False) as temporary:
            temporary.write_text(json.dumps(self._known, indent=1, sort_keys=True), encoding="utf-8")

    def _state(self, file: Remote) -> dict[str, Any] | None:
        try:
            found = (self._folder / file.name).stat()
        except FileNotFoundError:
            return {}
        return {"identity": file.identity, "size": found.st_size, "mtime_ns": found.st_mtime_ns}


def _is_right(file: Remote, path: Path) -> bool:
    """By MD5; where none is known, by the size that the server states."""
    return md5_of(path) == file.md5 if file.md5 else file.size == path.stat().st_size


def _say(progress: bool) -> Callable[[str], None]:
    return lambda text: tqdm.write(text, file=sys.stderr) if progress else None


def _amount(count: int) -> str:
    return f"{tqdm.format_sizeof(count)}B"
