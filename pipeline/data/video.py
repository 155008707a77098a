"""What the reader of a source gives, whatever it reads: videos, in pieces that the prepare stage can do one by one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from pipeline.base.errors import DataError
from pipeline.base.parameters import Params
from pipeline.base.sources import SOURCES
from pipeline.data.labels import LabelSpace


@dataclass(frozen=True)
class Modality:
    """One kind of frame feature."""

    name: str  # in this project
    feature: str  # where the source keeps it: a feature list of TFRecords, the folder or HDF5 file of one's own arrays
    width: int  # numbers a frame


@dataclass(frozen=True)
class Video:
    """One video: its id, label indices as stored, and frames, in parts (frames, width) that are laid side by side."""

    id: str
    labels: tuple[int, ...]
    parts: tuple[UInt8[np.ndarray, "frames _"] | Float32[np.ndarray, "frames _"], ...]

    @property
    def frames(self) -> UInt8[np.ndarray, "frames dim"] | Float32[np.ndarray, "frames dim"]:
        """The parts side by side, a copy."""
        return np.concatenate(self.parts, axis=1)


@runtime_checkable
class Piece(Protocol):
    """Some videos of a source, read together; another process can read them too."""

    @property
    def name(self) -> str:
        """What it is called where it is left out for being damaged."""

    @property
    def size(self) -> int:
        """Bytes that their frames take in a store, about."""

    @property
    def state(self) -> tuple[str, ...]:
        """Changes with the files that are read."""

    def read(self) -> Iterator[tuple[int, Video]]:
        """The videos, each with its number; DataError names file and number of one that is at fault."""

    def place(self, number: int) -> str:
        """Where video ``number`` stands, for a message."""


Partitions = Mapping[str, tuple[Piece, ...]]


@dataclass(frozen=True)
class Dataset:
    """The videos of a source, found but not read; the pieces follow from the files alone."""

    modalities: tuple[Modality, ...]  # in the order of the columns of a frame
    partitions: Partitions  # train, validate and, if the source names a test set, test; else that comes of validate
    label_space: LabelSpace
    provenance: dict[str, str | int]  # source, path as given, what was found there
    dtype: str = "uint8"  # of the stored frames, or float32


def resolve(params: Params, workspace: Path, progress: bool = True) -> Dataset:
    """Find the videos that ``params.data`` names, by its source's reader, at least one piece a partition.

    What has to be unpacked or generated goes to ``workspace/.resume``, where a second call finds it.
    """
    return import_module(SOURCES[params.data.source].reader).resolve(params, workspace, progress)


def look_at(params: Params) -> None:
    """Refuse what the source's reader would not find where ``data.path`` says; nothing is unpacked or read through."""
    look = getattr(import_module(SOURCES[params.data.source].reader), "look_at", None)
    if look:
        look(params)


def given_path(params: Params, expected: str) -> Path:
    """``data.path``, which must be there; ``expected`` says what it is to be."""
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


def first_file(places: list[Path], remedy: str) -> Path:
    """The first of these places where a file is; ``remedy`` says how to get one."""
    path = next((path for path in places if path.is_file()), None)
    if path is None:
        raise DataError(f"{places[0]}: {remedy}")
    return path


def provenance(params: Params, partitions: Partitions) -> dict[str, str | int]:
    """Source, path and numbers of shards, licence and attribution."""
    record = SOURCES[params.data.source]
    counts = {f"{name}_shards": len(pieces) for name, pieces in partitions.items()}
    where = {"source": params.data.source, "path": params.data.path or "built in"}
    return where | counts | {"licence": record.licence, "attribution": record.attribution}
