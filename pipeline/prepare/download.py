"""Download YouTube-8M or AudioSet into a folder: in parallel, checked, and resumable however it was stopped.

YouTube-8M's servers hold 3,844 shards a split, named ``train`` or ``validate``, two characters and ``.tfrecord``. The
first character counts 62, the second 1, in the order a-z, A-Z, 0-9: ``trainaa`` is train0000, ``trainab`` train0001,
``trainba`` train0062 and ``train99`` train3843. A part ``X,Y`` holds the shards whose name's MD5, as a number, leaves
X - 1 when divided by Y: it follows from the names alone, so that every download of a part is of the same videos.
"""

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Any

from tqdm import tqdm
from urllib3.util import Retry

from pipeline.base.alone import alone
from pipeline.base.atomic import atomic_file, writing
from pipeline.base.errors import DataError, DownloadError
from pipeline.data.labels import Vocabulary
from pipeline.prepare.download_file import BETWEEN, RETRY, Fetcher, Remote
from pipeline.prepare.sources import YT8M_ENTITIES, YT8M_PAGE
from pipeline.scale.workers import in_threads

ASKED = 64  # files whose size is asked; where there are more, their mean stands for the others
SUFFIXES = map("".join, product(ascii_lowercase + ascii_uppercase + digits, repeat=2))
PLACES = {f"{suffix}.tfrecord": f"{place:04d}.tfrecord" for place, suffix in enumerate(SUFFIXES)}
_amount = partial(tqdm.format_sizeof, suffix="B")


def download(
    source: str,
    folder: str | Path,
    part: tuple[int, int] = (1, 1),
    *,
    splits: Sequence[str] = ("train", "validate"),
    mirror: str = "us",
    server: str | None = None,
    workers: int = 4,
    retry: Retry = RETRY,
    timeout: float = 30.0,
    progress: bool = True,
) -> str:
    """Download YouTube-8M's frame-level shards and its vocabulary, if that can be had, or AudioSet's two files.

    Args:
        source: ``yt8m`` or ``audioset``.
        folder: receives ``train0000.tfrecord`` and so on; made if missing.
        part: (X, Y), the X-th of Y parts of YouTube-8M's shards; (1, 1) is all, 1.2 TB, and (1, 100) a hundredth.
        splits: of YouTube-8M; the labels of its third, the test split, were never released.
        mirror: ``us``, ``eu`` or ``asia``.
        server: http or https address of a server with the layout of Google's, instead of the mirror.
        workers: files at a time.
        retry: tries in a row without progress before a file counts as failed, and the pauses between them.
        timeout: seconds without a byte, or at less than 1 kB a second, after which a connection is given up.
        progress: show a bar and what is tried again.
    Returns:
        What it did, in a sentence, and what is still to be done by hand.
    Raises:
        ValueError: the source is another.
        DownloadError: the plan is damaged, the disk has too little room, or some files failed; the others are there,
            and the same call goes on.
        BusyError, OutputError: another download is at work in the folder; it cannot be written, or its disk is full.
    """
    if source not in ("yt8m", "audioset"):
        raise ValueError(f"source {source!r}: expected 'yt8m' or 'audioset'")
    if server and not re.fullmatch(r"https?://([^/?#\[\]]+|\[[\da-fA-F:.]+\](:\d+)?)(/[^?#]*)?", server):
        raise DownloadError(f"--server {server}: no address of a server; expected such as http://localhost:8000")
    folder, server, note, failures = Path(folder), (server or "").rstrip("/"), "", {}
    fetcher = Fetcher(folder, partial(tqdm.write, file=sys.stderr) if progress else lambda text: None, retry, timeout)
    with alone(folder, "download"):
        if source == "yt8m":
            files = [file for split in splits for file in yt8m_files(fetcher.text, split, part, mirror, server)]
            note = _vocabulary(folder / "vocabulary.csv", server or "https://research.google.com", fetcher)
        else:  # the first server alone has the list of classes
            hosts = [server or f"https://storage.googleapis.com/{at}_audioset" for at in ("us", mirror)]
            paths = ["csv/class_labels_indices.csv", "features/features.tar.gz"]
            urls = [f"{host}/youtube_corpus/v1/{path}" for host, path in zip(hosts, paths, strict=True)]
            files = [Remote(url, url.rpartition("/")[2]) for url in urls]
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
        told = f"{len(failed)} of {len(files)} files failed, the others are in {folder}"
        raise DownloadError("\n".join([f"{told}; run the same command again for these alone:", *failed]))
    came = _amount(sum((folder / file.name).stat().st_size for file in rest) - held)
    return f"{folder}: {len(rest)} files fetched ({came}), {len(files) - len(rest)} were there already\n{note}".strip()


def yt8m_files(
    text: Callable[[str, int], bytes], split: str, part: tuple[int, int], mirror: str, server: str
) -> list[Remote]:
    """The files of a part of YouTube-8M, with the MD5 of the published plan, in the order of their names here.

    Args:
        text: gives what an address holds, up to a number of bytes.
        split, part, mirror, server: as for :func:`download`; the last may be empty.
    Raises:
        DownloadError: the plan is none, or names what no split has, such as a file outside the folder; or no file is
            in this part.
    """
    where = f"{server or 'http://data.yt8m.org'}/2/download_plans/frame_{split}.json"
    base, files = f"{server or f'http://{mirror}.data.yt8m.org'}/2/frame/{split}", []
    try:
        plan: Any = json.loads(text(where, 4 << 20))  # a real plan has 0.2 MB
        if not isinstance(plan, dict) or not isinstance(plan.get("files"), dict) or not plan["files"]:
            raise ValueError('no {"files": {name: MD5}}')
        for name, md5 in plan["files"].items():
            if not name.startswith(split) or (place := PLACES.get(name.removeprefix(split))) is None:
                raise ValueError(f"{name[:80]!r} is no shard of {split}")
            if not isinstance(md5, str) or not re.fullmatch("[0-9a-fA-F]{32}", md5):
                raise ValueError(f"{name!r} has no MD5 of 32 hex digits")
            if int(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(), 16) % part[1] == part[0] - 1:
                files.append(Remote(f"{base}/{name}", split + place, md5.lower()))
    except (ValueError, RecursionError) as error:
        raise DownloadError(f"{where}: not a plan of YouTube-8M: {error}; nothing was fetched; {BETWEEN}") from None
    if not files:
        raise DownloadError(
            f"part {part[0]},{part[1]} has none of the {len(plan['files'])} shards of {split}; lower the {part[1]}"
        )
    return sorted(files, key=lambda file: file.name)


def _vocabulary(path: Path, server: str, fetcher: Fetcher) -> str:
    """Fetch the vocabulary if it is not there; what to do by hand where it cannot be had."""
    url, why = f"{server}/youtube8m/csv/2/vocabulary.csv", ""
    if not path.exists():
        try:
            content = fetcher.text(url, 64 << 20)  # it has about 2 MB
            with atomic_file(path) as temporary:
                temporary.write_bytes(content)
                Vocabulary.read(temporary, YT8M_ENTITIES)
        except DownloadError as error:
            why = str(error).partition(";")[0]
        except DataError:
            why = f"{url}: what came is no vocabulary of {YT8M_ENTITIES} entities"
    return why and (
        f"vocabulary.csv is still to be had: {why}. The pipeline needs the one of 2018 with {YT8M_ENTITIES} entities, "
        f"linked on {YT8M_PAGE}: put it at {path}, or name its place with artpaper use paper --vocabulary FILE "
        "(data.vocabulary)"
    )


def _missing(files: list[Remote], record: "_Record", fetcher: Fetcher, workers: int, progress: bool) -> list[Remote]:
    """The files that are not there or not right, with their sizes as far as those were asked."""

    def look(file: Remote) -> tuple[Remote, bool]:
        file, path = file if file.md5 else fetcher.ask(file), fetcher.folder / file.name
        flaw = path.exists() and not record.holds(file) and file.flaw(path)
        if flaw:
            fetcher.say(f"{path}: not the file that was published ({flaw}); it is fetched, and replaced then")
        return file, path.exists() and not flaw

    rest, looked = {}, in_threads(look, files, workers, fetcher.stop)
    for file, (asked, right) in tqdm(looked, "checking", len(files), unit=" files", delay=1, disable=not progress):
        if not right:
            rest[file] = asked
        elif not record.holds(asked):
            record.add(asked)
    missing = [rest[file] for file in files if file in rest]
    sample = [file for file in missing[:: -(-len(missing) // ASKED) or 1] if file.size is None]
    told = dict(in_threads(fetcher.ask, sample, workers, fetcher.stop))
    return [told.get(file, file) for file in missing]


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
        with atomic_file(self._path, durable=False) as temporary:
            temporary.write_text(json.dumps(self._known, indent=1, sort_keys=True), encoding="utf-8")
