"""The arrays of one modality: a folder of ``<id>.npy`` files, or an HDF5 file with a dataset ``<id>``."""

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy.lib import format as npy

from artpaper.data.arrays_labels import Row
from artpaper.errors import DataError

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
Array = UInt8[np.ndarray, "frames width"] | Float[np.ndarray, "frames width"]


@dataclass(frozen=True)
class NpyFolder:
    """One ``.npy`` file a video; nothing that has to be unpickled is read."""

    path: Path

    def where(self, row: Row) -> str:
        """File, and line of labels.csv, for a message."""
        return f"{self.path / row.id}.npy (line {row.line} of labels.csv)"

    def count(self) -> int:
        """How many arrays there are, listed or not."""
        with os.scandir(self.path) as entries:
            return sum(entry.name.endswith(".npy") and not entry.name.startswith(".") for entry in entries)

    def look(self, row: Row) -> tuple[int, int]:
        """Bytes of a video's array and the time of its last change.

        Raises:
            DataError: the video has no file.
        """
        try:
            state = os.stat(f"{self.path}/{row.id}.npy")
        except FileNotFoundError:
            raise DataError(f"{self.where(row)}: no such file; add it, or remove the row") from None
        return state.st_size, state.st_mtime_ns

    def array(self, row: Row) -> Array:
        """A video's array (frames, width).

        Raises:
            DataError: it is missing, damaged, or holds no frames of numbers.
        """
        self.look(row)
        where = self.where(row)
        try:
            with open(f"{self.path}/{row.id}.npy", "rb") as file:
                shape, by_columns, dtype = HEADERS[npy.read_magic(file)](file)
                _check(shape, dtype, where)
                promised = file.tell() + math.prod(shape) * dtype.itemsize
                if os.fstat(file.fileno()).st_size != promised:
                    raise DataError(
                        f"{where}: {os.fstat(file.fileno()).st_size} bytes, its header promises {promised}; it was cut "
                        "off or written twice, save it again"
                    )
                return np.fromfile(file, dtype).reshape(shape, order="F" if by_columns else "C")
        except (ValueError, KeyError, OSError) as error:
            raise DataError(f"{where}: cannot be read as .npy ({error}); save it with numpy.save") from None


@dataclass(frozen=True)
class Hdf5File:
    """One dataset a video, at the top of the file."""

    path: Path
    file: Any  # h5py.File
    state: tuple[int, int]  # bytes of an array, on average, and the time of the file's last change

    def where(self, row: Row) -> str:
        """File and dataset, and line of labels.csv, for a message."""
        return f"{self.path}: dataset {row.id} (line {row.line} of labels.csv)"

    def count(self) -> int:
        """How many arrays there are, listed or not."""
        return len(self.file)

    def look(self, row: Row) -> tuple[int, int]:
        """Bytes of an array, on average, and the time of the file's last change.

        Raises:
            DataError: the video has no dataset.
        """
        if row.id not in self.file:  # a tenth of the time that opening a dataset takes
            raise DataError(f"{self.where(row)}: no such dataset; add it, or remove the row")
        return self.state

    def array(self, row: Row) -> Array:
        """A video's array (frames, width).

        Raises:
            DataError: it is missing, damaged, or holds no frames of numbers.
        """
        from h5py import Dataset

        self.look(row)
        dataset = self.file[row.id]
        if not isinstance(dataset, Dataset):
            raise DataError(f"{self.where(row)}: is a group; a dataset of frames by width is needed")
        _check(dataset.shape, dataset.dtype, self.where(row))
        try:
            return dataset[()]
        except OSError as error:
            raise DataError(f"{self.where(row)}: is damaged ({error}); write the file again") from None


Files = NpyFolder | Hdf5File


@contextlib.contextmanager
def open_files(path: Path) -> Iterator[Files]:
    """The arrays of a modality, a folder or an HDF5 file; the file is closed afterwards.

    Raises:
        DataError: it is no HDF5 file, or is damaged.
    """
    if path.is_dir():
        yield NpyFolder(path)
        return
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: cannot be read as HDF5 ({error}); write it with h5py") from None
    with file:
        state = path.stat()
        yield Hdf5File(path, file, (state.st_size // max(1, len(file)), state.st_mtime_ns))


def kind(dtype: np.dtype) -> str:
    """``uint8`` or ``float``, of any width; other types have no meaning as features."""
    return "uint8" if dtype == np.uint8 else "float" if dtype.kind == "f" else str(dtype)


def _check(shape: tuple[int, ...] | None, dtype: np.dtype, where: str) -> None:
    if kind(dtype) not in ("uint8", "float"):
        raise DataError(f"{where}: holds {dtype}, expected floats or uint8; convert it with .astype('float32')")
    if shape is None or len(shape) != 2 or shape[1] == 0:
        raise DataError(f"{where}: is of shape {shape}, expected (frames, width); reshape it")
    if shape[0] == 0:
        raise DataError(f"{where}: has no frames; remove the video's row")
