"""AudioSet's released features: the archive or the folder unpacked from it, and where it is fetched from."""

import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath

from pipeline.base.atomic import replace_folder
from pipeline.base.errors import DataError
from pipeline.base.groups import Data
from pipeline.base.identity import fingerprint
from pipeline.base.parameters import Params
from pipeline.base.sources import SOURCES
from pipeline.data.labels import LabelSpace, in_index_order, read_rows
from pipeline.data.video import Dataset, Modality, first_file, given_path, provenance
from pipeline.prepare.fetcher import Fetcher, Remote
from pipeline.records.tfrecord import Shard, find_shards

MODALITIES = (Modality("audio", "audio_embedding", SOURCES["audioset"].widths["audio"]),)
PAGE = SOURCES["audioset"].page
ARCHIVE, UNPACKED = "features.tar.gz", "audioset_v1_embeddings"
CLASSES = "class_labels_indices.csv"
TRAIN, VALIDATE = "bal_train", "eval"
# the classes are listed depth first, so a family is a run of them: group -> first and last display name
FAMILIES = {"Music": ("Music", "Scary music"), "Speech": ("Speech", "Speech synthesizer")}


def resolve(params: Params, workspace: Path, progress: bool) -> Dataset:
    """The two partitions of the released features; an archive is unpacked first."""
    given, labels = look_at(params)
    shards = _shards(params.data, given if given.is_dir() else _unpack(given, workspace))
    return Dataset(MODALITIES, shards, read_classes(labels), provenance(params, shards))


def look_at(params: Params) -> tuple[Path, Path]:
    """The archive, for which its folder may stand, or what was unpacked from it; and the class list."""
    given = given_path(params, f"{ARCHIVE} or the folder unpacked from it; {PAGE} has it")
    if (given / ARCHIVE).is_file() and not any((given / name).is_dir() for name in (TRAIN, UNPACKED)):
        given /= ARCHIVE
    if given.is_dir():
        _shards(params.data, given)
    elif not tarfile.is_tarfile(given):
        raise DataError(f"{given}: no whole tar archive; download {ARCHIVE} again")
    places = [place / CLASSES for place in ((given, given.parent) if given.is_dir() else (given.parent,))]
    if params.data.vocabulary:
        places = [Path(params.data.vocabulary)]
    remedy = f"get {CLASSES} from {PAGE} and put it there, or set data.vocabulary to its path"
    return given, first_file(places, f"no such class list; {remedy}")


def _shards(data: Data, folder: Path) -> dict[str, tuple[Shard, ...]]:
    inner = folder / UNPACKED
    folder = inner if inner.is_dir() else folder
    places = {"train": folder / TRAIN, "validate": folder / VALIDATE}
    return {name: find_shards(data, place, "*.tfrecord", MODALITIES, PAGE) for name, place in places.items()}


def read_classes(path: str | Path) -> LabelSpace:
    """The 527 classes of ``class_labels_indices.csv`` as they are, with the families Music and Speech as groups."""
    remedy = f"get {CLASSES} from {PAGE}"
    rows = in_index_order(path, read_rows(path, ("index", "mid", "display_name"), remedy), "index")
    if len(rows) != 527:
        raise DataError(f"{path}: {len(rows)} classes, expected 527; {remedy}")
    names = tuple(row["display_name"] for row in rows)
    groups: list[tuple[str, ...]] = [()] * len(names)
    for group, (first, last) in FAMILIES.items():
        if first not in names or last not in names:
            raise DataError(f"{path}: family {group} needs the classes {first!r} and {last!r}; {remedy}")
        for index in range(names.index(first), names.index(last) + 1):
            groups[index] += (group,)
    note = "AudioSet's 527 classes as they are; not the paper's data set."
    return LabelSpace("audioset527", names, tuple(groups), tuple((index,) for index in range(len(names))), note)


def _unpack(archive: Path, workspace: Path) -> Path:
    """Unpack the two partitions of the archive once; the folder has its name only when it is whole."""
    state = archive.stat()
    key = fingerprint([str(archive.resolve()), state.st_size, state.st_mtime_ns])
    folder = workspace / ".resume" / f"audioset-{key}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(left)  # a run that was killed while it unpacked
    unpacked = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                if member.isfile() and name.parent.name in (TRAIN, VALIDATE) and name.suffix == ".tfrecord":
                    tar.extract(member, unpacked, filter="data")
        if not any(unpacked.rglob("*.tfrecord")):
            raise DataError(f"{archive}: holds no {TRAIN}/*.tfrecord; AudioSet's {ARCHIVE} from {PAGE} is needed")
        replace_folder(unpacked, folder)
    except tarfile.FilterError as error:
        raise DataError(
            f"{archive}: refused, it would write outside its folder ({error}); get it from {PAGE}"
        ) from None
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{archive}: no whole tar archive ({error}); download {ARCHIVE} again") from None
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    return folder


def remote_files(fetcher: Fetcher, server: str, mirror: str) -> tuple[list[Remote], str]:
    """The class list, which the first of Google's servers alone has, and the archive."""
    urls = [
        f"{server or f'https://storage.googleapis.com/{place}_audioset'}/youtube_corpus/v1/{path}"
        for place, path in (("us", f"csv/{CLASSES}"), (mirror, f"features/{ARCHIVE}"))
    ]
    return [Remote(url, url.rpartition("/")[2]) for url in urls], ""
