"""Where the videos come from: YouTube-8M, AudioSet's released features, one's own arrays, or synthetic data."""

import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline.base.atomic import replace_folder
from pipeline.base.errors import DataError
from pipeline.base.identity import fingerprint
from pipeline.base.parameters import Params, as_dict
from pipeline.data.labels import LabelSpace, Vocabulary, read_audioset_labels, youtube8m_space
from pipeline.data.video import Modality, Piece

if TYPE_CHECKING:
    from pipeline.records.tensorflow_files import RemotePath

YT8M_ENTITIES = 3862
YT8M_PAGE = "https://research.google.com/youtube8m/download.html"
GOOGLES = ("2/frame", "frame", ".")  # below a copy of Google's bucket, of its 2/, of its 2/frame/: train/ and validate/
AUDIOSET_PAGE = "https://research.google.com/audioset/download.html"
AUDIOSET_TRAIN, AUDIOSET_VALIDATE = "bal_train", "eval"


@dataclass(frozen=True)
class Source:
    """Everything prepare needs to know about the videos.

    Attributes:
        modalities: what a video holds, in the order of the columns of a frame.
        train: the training partition, in pieces that follow from its files alone.
        validate: the partition that validation and test set are split from.
        label_space: the classes, and how the labels of a video map to them.
        provenance: source, path as given, numbers of shards, licence and attribution.
        test: the test set, where the source names it; ``validate`` is the validation set then.
        dtype: of the stored frames, ``uint8`` or ``float32``.
    """

    modalities: tuple[Modality, ...]
    train: tuple[Piece, ...]
    validate: tuple[Piece, ...]
    label_space: LabelSpace
    provenance: dict[str, str | int]
    test: tuple[Piece, ...] = ()
    dtype: str = "uint8"

    @property
    def partitions(self) -> dict[str, tuple[Piece, ...]]:
        """By name, without a ``test`` that the source does not name."""
        named = {"train": self.train, "validate": self.validate, "test": self.test}
        return {name: pieces for name, pieces in named.items() if pieces or name != "test"}


def resolve(params: Params, workspace: Path, progress: bool = True) -> Source:
    """Find the shards that ``params.data`` names; unpack or generate them where needed.

    Args:
        params: groups ``base``, ``data``, ``synthetic`` and ``compute`` are read.
        workspace: its ``.resume`` folder receives what is unpacked or generated; a second call finds it there.
        progress: show a bar while generating.
    Returns:
        Source: with at least one shard in each partition.
    Raises:
        DataError: ``data.path`` is not given, missing, a folder without the shards, a file where a folder is expected,
            or another archive; or the vocabulary is missing or of another release; or one's own arrays are at fault.
    """
    if params.data.source == "arrays":
        return _arrays(params, progress)
    if params.data.source == "yt8m":
        return _youtube8m(params)
    return _audioset(params, workspace) if params.data.source == "audioset" else _synthetic(params, workspace, progress)


def _arrays(params: Params, progress: bool) -> Source:
    from pipeline.arrays.labels import PARTITIONS
    from pipeline.arrays.reader import LAYOUT, open_arrays

    folder = _given(params, LAYOUT)
    found = open_arrays(folder, params.base.seed, progress, params.data.separator, params.data.rates)
    provenance: dict[str, str | int] = {"source": params.data.source, "path": str(params.data.path), **found.told}
    train, validate, test = (found.pieces[name] for name in PARTITIONS)
    return Source(found.modalities, train, validate, found.label_space, provenance, test, found.dtype)


def _youtube8m(params: Params) -> Source:
    from pipeline.records.tfrecord import YT8M_MODALITIES

    told = f"the folder with train*.tfrecord and validate*.tfrecord; {YT8M_PAGE} says how to get them"
    folder = _remote(params) or _given(params, told)
    if not folder.is_dir():
        raise DataError(f"{folder}: is a file; set data.path to the folder with train*.tfrecord and validate*.tfrecord")
    places: dict[str, Any] = dict.fromkeys(("train", "validate"), folder)
    beside = [Path("vocabulary.csv")]
    if isinstance(folder, Path):
        places = _youtube8m_folders(folder)
        beside = _vocabularies(folder, places["train"])
    train, validate = (
        _shards(params, place, f"{name}*.tfrecord", YT8M_MODALITIES, YT8M_PAGE) for name, place in places.items()
    )
    vocabularies = [Path(params.data.vocabulary)] if params.data.vocabulary else beside
    vocabulary = next((path for path in vocabularies if path.is_file()), vocabularies[0])
    if not vocabulary.is_file():
        raise DataError(
            f"{vocabulary}: no such vocabulary; get vocabulary.csv (3,862 entities, 2018) from {YT8M_PAGE} and put it "
            "beside the shards, or set data.vocabulary to its path (needed where those are remote)"
        )
    space = youtube8m_space(params.data.label_space, Vocabulary.read(vocabulary, YT8M_ENTITIES))
    credit = "YouTube-8M, Google LLC, https://research.google.com/youtube8m"
    return Source(YT8M_MODALITIES, train, validate, space, _provenance(params, train, validate, "CC BY 4.0", credit))


def _youtube8m_folders(folder: Path) -> dict[str, Path]:
    """Where the shards of each partition lie: side by side in ``folder``, or as Google lays them out."""
    layouts = {str(folder): {"train": folder, "validate": folder}}
    layouts |= {f"{folder / inner}/train": _in_two(folder / inner) for inner in GOOGLES}
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
        raise DataError(
            f"{folder}: no train*.tfrecord (other files only), nor {GOOGLES[0]}/train below it; {YT8M_PAGE}"
        )
    return next(iter((filled or layouts).values()))


def _vocabularies(folder: Path, train: Path) -> list[Path]:
    """Where vocabulary.csv may lie: in the folder, or on the way from it to the shards."""
    way = [train, *train.parents]
    return [place / "vocabulary.csv" for place in reversed(way[: way.index(folder) + 1])]


def _in_two(folder: Path) -> dict[str, Path]:
    return {name: folder / name for name in ("train", "validate")}


def _audioset(params: Params, workspace: Path) -> Source:
    from pipeline.records.tfrecord import AUDIOSET_MODALITIES

    given = _given(params, f"features.tar.gz or the folder unpacked from it; {AUDIOSET_PAGE} has it")
    folder = given if given.is_dir() else _unpack(given, workspace)
    inner = folder / "audioset_v1_embeddings"
    folder = inner if inner.is_dir() else folder
    train, validate = (
        _shards(params, folder / name, "*.tfrecord", AUDIOSET_MODALITIES, AUDIOSET_PAGE)
        for name in (AUDIOSET_TRAIN, AUDIOSET_VALIDATE)
    )
    name = "class_labels_indices.csv"
    beside = [place / name for place in ((given, given.parent) if given.is_dir() else (given.parent,))]
    places = [Path(params.data.vocabulary)] if params.data.vocabulary else beside
    labels = next((path for path in places if path.is_file()), None)
    if labels is None:
        raise DataError(
            f"{places[0]}: no such class list; get {name} from {AUDIOSET_PAGE} and put it there, "
            "or set data.vocabulary to its path"
        )
    credit = "AudioSet, Google LLC, https://research.google.com/audioset; ontology CC BY-SA 4.0"
    provenance = _provenance(params, train, validate, "CC BY 4.0", credit)
    return Source(AUDIOSET_MODALITIES, train, validate, read_audioset_labels(labels), provenance)


def _synthetic(params: Params, workspace: Path, progress: bool) -> Source:
    from pipeline.records.tfrecord import YT8M_MODALITIES
    from pipeline.synthetic.generator import write_synthetic

    key = fingerprint([as_dict(params.synthetic), params.base.seed])
    folder = workspace / ".resume" / f"synthetic-{key}"
    write_synthetic(folder, params.synthetic, seed=params.base.seed, compute=params.compute, progress=progress)
    train, validate = (
        _shards(params, folder, f"{name}*.tfrecord", YT8M_MODALITIES, "remove the folder")
        for name in ("train", "validate")
    )
    vocabulary = Vocabulary.read(folder / "vocabulary.csv", params.synthetic.entities)
    space = youtube8m_space(params.data.label_space, vocabulary)
    provenance = _provenance(params, train, validate, "the project's own", "generated by artpaper, no real video")
    return Source(YT8M_MODALITIES, train, validate, space, provenance)


def _remote(params: Params) -> "RemotePath | None":
    """The folder, if ``data.path`` is a URL and TensorFlow is to read it."""
    if params.data.reader != "tensorflow" or "://" not in (params.data.path or ""):
        return None
    from pipeline.records.tensorflow_files import RemotePath

    return RemotePath(str(params.data.path))


def _given(params: Params, expected: str) -> Path:
    if not params.data.path:
        raise DataError(f"data.path is not given; for source {params.data.source} set it to {expected}")
    if "://" in params.data.path:
        raise DataError(
            f"data.path {params.data.path}: is a URL; a folder of YouTube-8M's shards is read there if data.reader is "
            "tensorflow, other data must be copied to this machine"
        )
    path = Path(params.data.path)
    if not path.exists():
        raise DataError(f"data.path {path}: no such file or folder; set it to {expected}")
    return path


def _shards(
    params: Params, folder: "Path | RemotePath", pattern: str, modalities: tuple[Modality, ...], remedy: str
) -> tuple[Piece, ...]:
    from pipeline.records.tfrecord import Shard

    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {remedy}")
    found: list[Path | RemotePath] = [*folder.glob(pattern)]
    shards = tuple(Shard(path, modalities, params.data.reader) for path in sorted(found, key=str))
    if not shards:
        state = "other files only" if any(folder.iterdir()) else "the folder is empty"
        raise DataError(f"{folder}: no {pattern} ({state}); {remedy}")
    return shards


def _provenance(
    params: Params, train: tuple[Piece, ...], validate: tuple[Piece, ...], licence: str, attribution: str
) -> dict[str, str | int]:
    return {
        "source": params.data.source,
        "path": params.data.path or "built in",
        "train_shards": len(train),
        "validate_shards": len(validate),
        "licence": licence,
        "attribution": attribution,
    }


def _unpack(archive: Path, workspace: Path) -> Path:
    """Unpack the two partitions of AudioSet's archive once; the folder has its name only when it is whole."""
    state = archive.stat()
    folder = (
        workspace / ".resume" / f"audioset-{fingerprint([str(archive.resolve()), state.st_size, state.st_mtime_ns])}"
    )
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(left)  # a run that was killed while it unpacked
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in _members(tar):
                tar.extract(member, made, filter="data")
        if not any(made.rglob("*.tfrecord")):
            raise DataError(
                f"{archive}: holds no {AUDIOSET_TRAIN}/*.tfrecord; AudioSet's features.tar.gz from {AUDIOSET_PAGE} is "
                "needed"
            )
        replace_folder(made, folder)
    except tarfile.FilterError as error:
        raise DataError(
            f"{archive}: refused, it would write outside its folder ({error}); get it from {AUDIOSET_PAGE}"
        ) from None
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{archive}: no whole tar archive ({error}); download features.tar.gz again") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        name = PurePosixPath(member.name)
        if member.isfile() and name.parent.name in (AUDIOSET_TRAIN, AUDIOSET_VALIDATE) and name.suffix == ".tfrecord":
            yield member
