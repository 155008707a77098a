"""One's own frame features: a folder of arrays, one of frames by width for each video and modality.

``labels.csv`` lists the videos. A modality is a folder of ``<id>.npy`` files, or an ``.h5`` file with a dataset
``<id>``, and is called by its name; modalities stand in alphabetical order. docs/own_data.md shows the layout.
"""

import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from tqdm import tqdm

from pipeline.arrays.files import Array, Files, kind, open_files
from pipeline.arrays.labels import PARTITIONS, LabelFile, LabelRow, given_space, read_classes
from pipeline.arrays.rates import align
from pipeline.arrays.separator import check_names, describe, doubts, find_separator, refuse_multi_hot
from pipeline.base.errors import DataError
from pipeline.base.explain import nearest
from pipeline.base.parameters import Params
from pipeline.data.batches import dequantise
from pipeline.data.labels import LabelSpace
from pipeline.data.video import Dataset, Modality, Video, given_path

LAYOUT = (
    "a folder with labels.csv and, for each modality, a folder of .npy files or an .h5 file; docs/own_data.md shows it"
)
PIECE_BYTES = 64 << 20


@dataclass(frozen=True)
class Reading:
    """How the videos of a folder are read; ``kinds`` says of each modality whether it is uint8 or float."""

    labels: LabelFile
    modalities: tuple[Modality, ...]
    kinds: tuple[str, ...]
    dtype: str
    rates: str
    classes: dict[str, int] = field(default_factory=dict)  # index of each, once they are known

    @classmethod
    def like(cls, labels: LabelFile, places: dict[str, Path], samples: dict[str, Array], rates: str) -> "Reading":
        """That of a folder whose arrays are all like the ``samples`` of one video (frames, width), by modality."""
        modalities = tuple(Modality(name, places[name].name, array.shape[1]) for name, array in samples.items())
        kinds = tuple(kind(array.dtype) for array in samples.values())
        dtype = "uint8" if set(kinds) == {"uint8"} and rates != "mean" else "float32"
        return cls(labels, modalities, kinds, dtype, rates)


class Span(NamedTuple):
    """A stretch of labels.csv: its bytes, its first line, bytes of a store it takes, state of its rows and arrays."""

    start: int
    stop: int
    line: int
    size: int
    state: str


@dataclass(frozen=True)
class Rows:
    """The rows of one partition in a span, a :class:`pipeline.data.video.Piece`: numbers are line numbers."""

    reading: Reading
    partition: str
    span: Span

    @property
    def name(self) -> str:
        """The file and the lines it begins with."""
        return f"{self.reading.labels.path.name} from line {self.span.line}"

    @property
    def size(self) -> int:
        """Bytes that the frames take in a store."""
        return self.span.size

    @property
    def state(self) -> tuple[str, ...]:
        """Changes with a row or its line, and with the size or the time of change of an array."""
        return (self.span.state, *self.reading.kinds, self.reading.rates)

    def place(self, number: int) -> str:
        """The file and the line."""
        return f"{self.reading.labels.path}: line {number}"

    def read(self) -> Iterator[tuple[int, Video]]:
        """The videos in the order of labels.csv, numbered by their lines."""
        reading = self.reading
        with ExitStack() as stack:
            folder = reading.labels.path.parent
            opened = [stack.enter_context(open_files(folder / modality.feature)) for modality in reading.modalities]
            for row in reading.labels.rows(self.span.start, self.span.stop, self.span.line):
                if row.partition == self.partition:
                    labels = tuple(reading.classes[name] for name in row.labels)
                    yield row.line, Video(row.id, labels, (read_frames(row, reading, opened),))


def resolve(params: Params, workspace: Path, progress: bool) -> Dataset:
    """Look through ``data.path``: each row of labels.csv is checked, its arrays looked up; only the first is read.

    The pieces hold about :data:`PIECE_BYTES` of frames each, and follow from the files alone. The provenance says where
    the partitions come from, how labels are told apart, and how many arrays no row names.
    """
    labels, space, places = look_at(params)
    known, first = None if space is None else list(space.classes), next(labels.rows())
    tqdm.write(f"{labels.path}: {describe(labels.separator)}")
    with ExitStack() as stack:
        opened = {name: stack.enter_context(open_files(path)) for name, path in places.items()}
        samples = {name: files.array(first) for name, files in opened.items()}
        reading = Reading.like(labels, places, samples, params.data.rates)
        growth = [np.dtype(reading.dtype).itemsize / array.dtype.itemsize for array in samples.values()]
        spans, lines, count = _look_through(labels, list(opened.values()), growth, known, progress)
        unlisted = {name: max(0, files.count - count) for name, files in opened.items()}
    for partition in PARTITIONS[:2]:
        if not spans[partition]:
            raise DataError(
                f"{labels.path}: none of its {count} videos is of partition {partition}; name some in the column "
                "partition, or leave that column out: about three in ten are then drawn for validation and test"
            )
    if space is None:
        # what is left in a name where the separator was declared belongs there
        check_names(labels.path, lines, labels.separator if params.data.separator == "auto" else "none")
        for doubt in doubts(lines, count):
            tqdm.write(f"{labels.path}: {doubt}")
        space = given_space(sorted(lines), [()] * len(lines), f"The {len(lines)} classes of labels.csv, by name")
    reading = replace(reading, classes={name: index for index, name in enumerate(space.classes)})
    rows = {name: tuple(Rows(reading, name, span) for span in found) for name, found in spans.items() if found}
    provenance: dict[str, str | int] = {
        "source": params.data.source, "path": str(params.data.path), "videos": count,
        "partitions": labels.partitions_from,
        "labels": describe(labels.separator), "rates": params.data.rates,
        "arrays": ", ".join(f"{name} {array.dtype}" for name, array in samples.items()),
        "arrays_without_a_row": ", ".join(f"{name} {number}" for name, number in unlisted.items()),
    }  # fmt: skip
    return Dataset(reading.modalities, rows, space, provenance, reading.dtype)


def look_at(params: Params) -> tuple[LabelFile, LabelSpace | None, dict[str, Path]]:
    """labels.csv and how its labels are told apart, classes.csv if there is one, and where each modality lies."""
    folder, declared = given_path(params, LAYOUT), params.data.separator
    if not folder.is_dir():
        raise DataError(f"{folder}: is a file; set data.path to {LAYOUT}")
    labels, listed = LabelFile(folder / "labels.csv", params.base.seed), folder / "classes.csv"
    for path in folder.iterdir():
        if path.name.casefold() == listed.name and not listed.exists():
            raise DataError(f"{path}: would be passed over; call it {listed.name}")
    if next(labels.cells(), None) is None:
        raise DataError(f"{labels.path}: lists no video; give it a line for each")
    labels.refuse_partitions_unread()
    space = read_classes(listed) if listed.is_file() else None
    known = () if space is None else space.classes
    separator = find_separator(labels.path, labels.cells(), known) if declared == "auto" else declared
    if space is None:
        refuse_multi_hot(labels.path, labels.cells(), separator)
    return replace(labels, separator=separator), space, _modalities(folder)


def check_labels(labels: LabelFile, row: LabelRow, known: Collection[str] | None) -> None:
    """A DataError for a label that a given classes.csv does not have."""
    if known is not None and (odd := next((name for name in row.labels if name not in known), None)):
        raise DataError(
            f"{labels.path}: line {row.line}: id {row.id} has the label {odd!r}, which classes.csv does not list"
            f"{nearest(odd, list(known))}"
        )


def _look_through(
    labels: LabelFile, opened: Sequence[Files], growth: Sequence[float], known: list[str] | None, progress: bool
) -> tuple[dict[str, list[Span]], dict[str, int], int]:
    """The spans of each partition, the line that first names each class, and the number of rows."""
    spans: dict[str, list[Span]] = {name: [] for name in PARTITIONS}
    filling = {name: _Filling() for name in PARTITIONS}
    lines, count = dict.fromkeys(known or (), 0), 0
    for row in tqdm(labels.rows(), "labels.csv", unit="video", disable=not progress):
        count += 1
        check_labels(labels, row, known and lines)
        for name in row.labels:
            lines.setdefault(name, row.line)
        states = [files.look(row) for files in opened]
        grown = sum(size * factor for (size, _), factor in zip(states, growth, strict=True))
        if full := filling[row.partition].add(row, round(grown), repr(states)):
            spans[row.partition].append(full)
    for name, rest in filling.items():
        spans[name] += [rest.span()] if rest.size else []
    return spans, lines, count


class _Filling:
    """The span of one partition that rows are being added to."""

    def __init__(self) -> None:
        self.size = 0

    def add(self, row: LabelRow, size: int, state: str) -> Span | None:
        """Add a row; the span, once it is full."""
        if not self.size:
            self.first, self.digest = row, hashlib.blake2b(digest_size=16)
        self.digest.update(f"{row.line} {row.id} {row.labels} {state}\n".encode())
        self.last, self.size = row, self.size + max(1, size)
        return self.span() if self.size >= PIECE_BYTES else None

    def span(self) -> Span:
        """What has been added since the last one."""
        span = Span(self.first.start, self.last.stop, self.first.line, self.size, self.digest.hexdigest())
        self.size = 0
        return span


def _modalities(folder: Path) -> dict[str, Path]:
    """Name and place of each, in alphabetical order."""
    places: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.stem if _is_hdf5(path) else path.name):
        if path.name.startswith((".", "_")) or not (path.is_dir() or _is_hdf5(path)):
            continue
        name = path.name if path.is_dir() else path.stem
        if name in places:
            raise DataError(f"{folder}: {places[name].name} and {path.name} are both modality {name}; remove one")
        if not name.replace("-", "_").isidentifier() or hasattr(torch.nn.ModuleDict(), name):
            plain = re.sub(r"\W", "_", name, flags=re.ASCII)
            raise DataError(
                f"{path}: a modality cannot be called {name!r}; use letters, digits and _, and no word that PyTorch's "
                f"modules use, such as {'' if plain[0].isalpha() else 'my_'}{plain}_features; if it is none, put _ "
                "before its name"
            )
        places[name] = path
    if not places:
        loose = next((path for path in folder.iterdir() if path.suffix == ".npy"), None)
        remedy = f"{loose.name} lies in it directly: move such files to {folder / 'frames'}" if loose else LAYOUT
        raise DataError(f"{folder}: holds no modality; {remedy}")
    return places


def _is_hdf5(path: Path) -> bool:
    return path.suffix.lower() in (".h5", ".hdf5")


def read_frames(
    row: LabelRow, reading: Reading, opened: Sequence[Files]
) -> UInt8[np.ndarray, "frames dim"] | Float32[np.ndarray, "frames dim"]:
    """A video's arrays side by side, as the store keeps them; a DataError where they are not like the first video's."""
    parts, lengths = [], {}
    for modality, expected, files in zip(reading.modalities, reading.kinds, opened, strict=True):
        array, where = files.array(row), files.where(row)  # (frames, width)
        if array.shape[1] != modality.width:
            raise DataError(
                f"{where}: {array.shape[1]} numbers a frame, but the first video's {modality.name} has "
                f"{modality.width}; make them alike: each is (frames, width), and where it is not, save array.T"
            )
        if kind(array.dtype) != expected:
            raise DataError(
                f"{where}: is {array.dtype}, but the first video's {modality.name} is {expected}; make them alike"
            )
        lengths[modality.name] = len(array)
        parts.append(array if reading.dtype == "uint8" else _values(array, where))
    if len(set(lengths.values())) > 1 and reading.rates == "refuse":
        counts = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(
            f"{reading.labels.path}: line {row.line}: id {row.id}: modalities of different lengths, in frames: "
            f"{counts}; sample them at the same times, or set data.rates to repeat (the frames of the shorter) or mean "
            "(of the longer), which take both to span the same time"
        )
    if reading.dtype == "float32" and not any(part.any() for part in parts):
        raise DataError(
            f"{reading.labels.path}: line {row.line}: id {row.id}: every number of its arrays is 0 as float32; if they "
            "were never written, write them, otherwise remove the row: of such a video no share of its norm can be told"
        )
    return np.concatenate(align(parts, reading.rates), axis=1)  # (frames, dim)


def _values(array: Array, where: str) -> Float32[np.ndarray, "frames width"]:
    if array.dtype == np.uint8:  # beside floats, bytes stand for what they stand for alone
        frames = torch.from_numpy(array)[None]
        return dequantise(frames, torch.ones(frames.shape[:2], dtype=torch.bool))[0].numpy()
    with np.errstate(over="ignore"):
        values = array.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        frame, column = np.argwhere(~finite)[0].tolist()
        raise DataError(
            f"{where}: frame {frame}, column {column} is {array[frame, column]}, no finite float32; replace it, or "
            "remove the video's row"
        )
    return values
