"""Download a data set into a folder: several files at a time, those alone that are not there or not right."""

import json
import re
import shutil
import sys
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from tqdm import tqdm
from urllib3.util import Retry

from pipeline.base.alone import alone
from pipeline.base.atomic import save_json, writing
from pipeline.base.errors import DownloadError
from pipeline.base.sources import SOURCES
from pipeline.prepare.fetcher import RETRY, Fetcher, Remote
from pipeline.scale.workers import in_threads

ASKED = 64  # files whose size is asked; where there are more, their mean stands for the others
_amount = partial(tqdm.format_sizeof, suffix="B")


def download(
    source: str, folder: str | Path, *, mirror: str = "us", server: str = "", workers: int = 4, retry: Retry = RETRY,
    timeout: float = 30.0, progress: bool = True, **parts: Any,
) -> str:  # fmt: skip
    """Fetch the files that the reader of ``source`` names, and say what was done and what is to be done by hand.

    ``server`` has the layout of Google's. ``retry`` has the tries in a row without progress and their pauses; after
    ``timeout`` seconds without a byte, or at less than 1 kB a second, a connection is given up. ``parts`` go to the
    reader's ``remote_files``. Where some files fail, the others are there, and the same call goes on.
    """
    known = [name for name, record in SOURCES.items() if record.download]
    if source not in known:
        raise ValueError(f"source {source!r}: expected {' or '.join(map(repr, known))}")
    if server and not re.fullmatch(r"https?://([^/?#\[\]]+|\[[\da-fA-F:.]+\](:\d+)?)(/[^?#]*)?", server):
        raise DownloadError(f"--server {server}: no address of a server; expected such as http://localhost:8000")
    folder, failures = Path(folder), {}
    fetcher = Fetcher(folder, partial(tqdm.write, file=sys.stderr) if progress else lambda text: None, retry, timeout)
    with alone(folder, "download"):
        files, note = import_module(SOURCES[source].reader).remote_files(fetcher, server.rstrip("/"), mirror, **parts)
        record = _Record(folder)
        rest = _missing(files, record, fetcher, workers, progress)
        held, total = sum(map(fetcher.held, rest)), _room(rest, fetcher)
        bar = partial(tqdm, unit="B", unit_scale=True, desc=folder.name, disable=not progress)
        with writing(folder), bar(total=total, initial=held) as fetcher.bar:
            for file, failure in in_threads(fetcher.fetch, rest, workers, fetcher.stop):
                if not failure:
                    record.add(file)
                failures[file] = failure
                fetcher.bar.set_postfix_str(f"{len(failures)}/{len(rest)} files")
    if failed := [f"  {failures[file]}" for file in rest if failures[file]]:
        count = f"{len(failed)} of {len(files)} files failed, the others are in {folder}"
        raise DownloadError("\n".join([f"{count}; run the same command again for these alone:", *failed]))
    came = _amount(sum((folder / file.name).stat().st_size for file in rest) - held)
    return f"{folder}: {len(rest)} files fetched ({came}), {len(files) - len(rest)} were there already\n{note}".strip()


def _missing(files: list[Remote], record: "_Record", fetcher: Fetcher, workers: int, progress: bool) -> list[Remote]:
    """The files that are not there or not right, with their sizes as far as those were asked."""

    def look(file: Remote) -> tuple[Remote, bool]:
        file, path = file if file.md5 else fetcher.ask(file), fetcher.folder / file.name
        flaw = path.exists() and not record.holds(file) and file.flaw(path)
        if flaw:
            fetcher.say(f"{path}: not the file that was published ({flaw}); it is fetched, and replaced then")
        return file, path.exists() and not flaw

    rest, checked = {}, in_threads(look, files, workers, fetcher.stop)
    for file, (stated, right) in tqdm(checked, "checking", len(files), unit=" files", delay=1, disable=not progress):
        if not right:
            rest[file] = stated
        elif not record.holds(stated):
            record.add(stated)
    missing = [rest[file] for file in files if file in rest]
    sample = [file for file in missing[:: -(-len(missing) // ASKED) or 1] if file.size is None]
    sized = dict(in_threads(fetcher.ask, sample, workers, fetcher.stop))
    return [sized.get(file, file) for file in missing]


def _room(rest: list[Remote], fetcher: Fetcher) -> int | None:
    """The size of all these files in bytes, None if no server tells; refuses what the disk cannot take."""
    sizes, free = [file.size for file in rest if file.size is not None], shutil.disk_usage(fetcher.folder).free
    total = round(sum(sizes) * len(rest) / len(sizes)) if sizes else None
    lacking = (total or 0) - sum(map(fetcher.held, rest))
    about = "" if len(sizes) == len(rest) else f", going by {len(sizes)} of them"
    size = f", {_amount(lacking)}{about}" if sizes else "; the server does not say how large"
    amounts = f"{fetcher.folder}: {len(rest)} files to fetch{size}; {_amount(free)} are free"
    if lacking > free:
        raise DownloadError(
            f"{amounts}; make room, take another --folder, or of YouTube-8M a smaller part (--shard 1,100)"
        )
    if rest:
        fetcher.say(amounts)
    return total


class _Record:
    """Which files were found right, with size and time, so that a terabyte is not read again by every run."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path, self._known = folder, folder / ".download.json", {}
        with suppress(OSError, ValueError, TypeError):  # a damaged one: the files are checked again
            self._known.update(json.loads(self._path.read_bytes()))

    def _state(self, file: Remote) -> dict[str, Any]:
        there = (self._folder / file.name).stat()
        return {"identity": file.identity, "size": there.st_size, "mtime_ns": there.st_mtime_ns}

    def holds(self, file: Remote) -> bool:
        return file.identity is not None and self._known.get(file.name) == self._state(file)

    def add(self, file: Remote) -> None:
        self._known[file.name] = self._state(file)
        save_json(self._known, self._path, durable=False, sort_keys=True)
