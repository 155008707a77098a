"""What every reader yields, whatever format it reads: videos, in pieces that the prepare stage can do one by one."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8


@dataclass(frozen=True)
class Modality:
    """One kind of frame feature: its name in this project, where a source keeps it, numbers a frame.

    ``feature`` is the feature list of a TFRecord, or the folder or HDF5 file of one's own arrays.
    """

    name: str
    feature: str
    width: int


@dataclass(frozen=True)
class Video:
    """One video: its id, label indices as stored, and frames (frames, dim), the modalities side by side."""

    id: str
    labels: tuple[int, ...]
    frames: UInt8[np.ndarray, "frames dim"] | Float32[np.ndarray, "frames dim"]


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
