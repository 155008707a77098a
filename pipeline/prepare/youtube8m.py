"""YouTube-8M: where its shards and its vocabulary lie, and where they are fetched from.

Its servers hold 3,844 shards a split, named ``train`` or ``validate``, two characters and ``.tfrecord``. The first
character counts 62, the second 1, in the order a-z, A-Z, 0-9: ``trainaa`` is train0000, ``trainab`` train0001,
``trainba`` train0062 and ``train99`` train3843. A part ``X,Y`` holds the shards whose name's MD5, as a number, leaves
X - 1 when divided by Y: it follows from the names alone, so that every download of a part is of the same videos.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Any

from pipeline.base.atomic import atomic_file
from pipeline.base.errors import DataError, DownloadError
from pipeline.base.parameters import Params
from pipeline.base.sources import SOURCES
from pipeline.data.labels import Vocabulary, youtube8m_space
from pipeline.data.video import Dataset, first_file, given_path, provenance
from pipeline.prepare.fetcher import BETWEEN, Fetcher, Remote
from pipeline.records.tfrecord import YT8M_MODALITIES, Shard, find_shards, remote_folder

ENTITIES = 3862
PAGE = SOURCES["yt8m"].page
PARTITIONS = ("train", "validate")
GOOGLES = ("2/frame", "frame", ".")  # below a copy of Google's bucket, of its 2/, of its 2/frame/: train/ and validate/
SUFFIXES = map("".join, product(ascii_lowercase + ascii_uppercase + digits, repeat=2))
PLACES = {f"{suffix}.tfrecord": f"{place:04d}.tfrecord" for place, suffix in enumerate(SUFFIXES)}


def resolve(params: Params, workspace: Path, progress: bool) -> Dataset:
    """The shards below ``data.path``, side by side or as Google lays them out."""
    shards, vocabulary = look_at(params)
    space = youtube8m_space(params.data.label_space, Vocabulary.read(vocabulary, ENTITIES))
    return Dataset(YT8M_MODALITIES, shards, space, provenance(params, shards))


def look_at(params: Params) -> tuple[dict[str, tuple[Shard, ...]], Path]:
    """The shards of both partitions and the vocabulary, found but not read."""
    expected = f"the folder with train*.tfrecord and validate*.tfrecord; {PAGE} says how to get them"
    folder = remote_folder(params.data) or given_path(params, expected)
    if not folder.is_dir():
        raise DataError(f"{folder}: is a file; set data.path to the folder with train*.tfrecord and validate*.tfrecord")
    places: dict[str, Any] = dict.fromkeys(PARTITIONS, folder)
    vocabularies = [Path("vocabulary.csv")]
    if isinstance(folder, Path):
        places = _folders(folder)
        way = [places["train"], *places["train"].parents]  # the vocabulary lies in the folder or further down
        vocabularies = [place / "vocabulary.csv" for place in reversed(way[: way.index(folder) + 1])]
    shards = {
        name: find_shards(params.data, place, f"{name}*.tfrecord", YT8M_MODALITIES, PAGE)
        for name, place in places.items()
    }
    if params.data.vocabulary:
        vocabularies = [Path(params.data.vocabulary)]
    vocabulary = first_file(
        vocabularies,
        f"no such vocabulary; get vocabulary.csv (3,862 entities, 2018) from {PAGE} and put it beside the shards, or "
        "set data.vocabulary to its path (needed where those are remote)",
    )
    return shards, vocabulary


def _folders(folder: Path) -> dict[str, Path]:
    """Where the shards of each partition lie: side by side in ``folder``, or as Google lays them out."""
    layouts = {str(folder): dict.fromkeys(PARTITIONS, folder)}
    layouts |= {f"{folder / inner}/train": {name: folder / inner / name for name in PARTITIONS} for inner in GOOGLES}
    filled = {
        name: places
        for name, places in layouts.items()
        if any(any(place.glob(f"{partition}*.tfrecord")) for partition, place in places.items())
    }
    if len(filled) > 1:
        raise DataError(
            f"{folder}: shards lie in {' and in '.join(filled)}; move one away, or set data.path to the other"
        )
    if not filled and any(folder.iterdir()):
        raise DataError(f"{folder}: no train*.tfrecord (other files only), nor {GOOGLES[0]}/train below it; {PAGE}")
    return next(iter((filled or layouts).values()))


def remote_files(
    fetcher: Fetcher,
    server: str,
    mirror: str,
    part: tuple[int, int] = (1, 1),
    splits: Sequence[str] = PARTITIONS,  # the labels of the third, test, were never released
) -> tuple[list[Remote], str]:
    """The shards of a part; the vocabulary is fetched at once, or what to do by hand is said where it cannot be had."""
    files = [file for split in splits for file in yt8m_files(fetcher.text, split, part, mirror, server)]
    return files, _fetch_vocabulary(server or "https://research.google.com", fetcher)


def yt8m_files(
    text: Callable[[str, int], bytes], split: str, part: tuple[int, int], mirror: str, server: str
) -> list[Remote]:
    """The files of a part, with the MD5 of the published plan, in the order of their names here.

    ``text`` gives what an address holds, up to a number of bytes; ``server`` may be empty. A plan that names what no
    split has, such as a file outside the folder, is refused as a whole.
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


def _fetch_vocabulary(server: str, fetcher: Fetcher) -> str:
    path = fetcher.folder / "vocabulary.csv"
    if path.exists():
        return ""
    url = f"{server}/youtube8m/csv/2/vocabulary.csv"
    try:
        content = fetcher.text(url, 64 << 20)  # it has about 2 MB
        with atomic_file(path) as temporary:
            temporary.write_bytes(content)
            Vocabulary.read(temporary, ENTITIES)
        return ""
    except DownloadError as error:
        reason = str(error).partition(";")[0]
    except DataError:
        reason = f"{url}: what came is no vocabulary of {ENTITIES} entities"
    return (
        f"vocabulary.csv is still to be had: {reason}. The pipeline needs the one of 2018 with {ENTITIES} entities, "
        f"linked on {PAGE}: put it at {path}, or name its place with artpaper use paper --vocabulary FILE "
        "(data.vocabulary)"
    )
