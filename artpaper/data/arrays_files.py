"""The arrays of one modality: a folder of ``<id>.npy`` files, or an HDF5 file with a dataset ``<id>``."""

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float, UInt8
from numpy.lib import format as npy

from artpaper.data.arrays_labels import LabelRow
from artpaper.errors import DataError

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
Array = UInt8[np.ndarray, "frames width"] | Float[np.ndarray, "frames width"]


@dataclass(frozen=True)
class NpyFolder:
    """One ``.npy`` file a video; nothing that has to be unpickled is read."""

    path: Path

    def where(self, row: LabelRow) -> str:
        """File, and line of labels.csv, for a message."""
        return f"{self.path / row.id}.npy (line {row.line} of labels.csv)"

    def count(self) -> int:
        """How many arrays there are, listed or not."""
        with os.scandir(self.path) as entries:
            return sum(entry.name.endswith(".npy") and not entry.name.startswith(".") for entry in entries)

    def look(self, row: LabelRow) -> tuple[int, int]:
        """How a video's array stands, without reading it.

        Returns:
            Bytes of its file and the time of the last change.
        Raises:
            DataError: the video has no file, or none that can be reached.
        """
        try:
            state = os.stat(f"{self.path}/{row.id}.npy")
        except OSError as error:
            raise self._unreached(row, error) from None
        return state.st_size, state.st_mtime_ns

    def array(self, row: LabelRow) -> Array:
        """A video's array (frames, width).

        Raises:
            DataError: it is missing, damaged, or holds no frames of numbers.
        """
        try:
            with open(f"{self.path}/{row.id}.npy", "rb") as file:
                return _read_npy(file, self.where(row))
        except OSError as error:
            raise self._unreached(row, error) from None

    def _unreached(self, row: LabelRow, error: OSError) -> DataError:
        if isinstance(error, FileNotFoundError):
            remedy = f"add it, or remove the row, or, if {self.path.name} is no modality, put _ before its name"
            return DataError(f"{self.where(row)}: no such file; {remedy}")
        return DataError(
            f"{self.where(row)}: cannot be read ({error.strerror}); shorten the id if that is too long, or see to "
            "the file and its permissions"
        )


@dataclass(frozen=True)
class Hdf5File:
    """One dataset a video, at the top of the file."""

    path: Path
    file: Any  # h5py.File

    def where(self, row: LabelRow) -> str:
        """File and dataset, and line of labels.csv, for a message."""
        return f"{self.path}: dataset {row.id} (line {row.line} of labels.csv)"

    def count(self) -> int:
        """How many arrays there are, listed or not."""
        return self._number

    def look(self, row: LabelRow) -> tuple[int, int]:
        """How a video's array stands, without reading it.

        Returns:
            Bytes of an array of this file, on average, and the time of the file's last change.
        Raises:
            DataError: the video has no dataset.
        """
        self._refuse_missing(row)
        return self._state

    def array(self, row: LabelRow) -> Array:
        """A video's array (frames, width).

        Raises:
            DataError: it is missing, damaged, was never written, lies in another file, or holds no frames of numbers.
        """
        from h5py import Dataset

        self._refuse_missing(row)
        where = self.where(row)
        try:
            dataset = self.file[row.id]
        except (KeyError, OSError) as error:
            raise DataError(f"{where}: leads nowhere ({error}); write the array itself into this file") from None
        if not isinstance(dataset, Dataset):
            raise DataError(f"{where}: is a group; a dataset of frames by width is needed")
        # HDF5 reads numbers that are not there as zeros, and a change of another file would go unnoticed
        if dataset.is_virtual or dataset.external or dataset.file.filename != self.file.filename:
            raise DataError(f"{where}: has its numbers in another file; write the array itself into this one")
        _check(dataset.shape, dataset.dtype, where)
        if not dataset.id.get_storage_size():
            raise DataError(f"{where}: was made, but never written; write the array")
        try:
            return dataset[()]
        except OSError as error:
            raise DataError(f"{where}: is damaged ({error}); write the file again") from None

    def _refuse_missing(self, row: LabelRow) -> None:
        if row.id not in self.file:  # a tenth of the time that opening a dataset takes
            raise DataError(f"{self.where(row)}: no such dataset; add it, or remove the row")

    @cached_property
    def _number(self) -> int:
        return len(self.file)  # seconds for millions, so only where it is asked for

    @cached_property
    def _state(self) -> tuple[int, int]:
        state = self.path.stat()
        return state.st_size // max(1, self._number), state.st_mtime_ns


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
        yield Hdf5File(path, file)


def kind(dtype: np.dtype) -> str:
    """``uint8`` or ``float``, of any width; other types have no meaning as features."""
    return "uint8" if dtype == np.uint8 else "float" if dtype.kind == "f" else str(dtype)


def _read_npy(file: BinaryIO, where: str) -> Array:
    try:
        shape, by_columns, dtype = HEADERS[npy.read_magic(file)](file)
        _check(shape, dtype, where)
        promised, size = file.tell() + math.prod(shape) * dtype.itemsize, os.fstat(file.fileno()).st_size
        if size != promised:
            raise DataError(
                f"{where}: {size} bytes, its header promises {promised}; it was cut off or written twice, save it again"
            )
        return np.fromfile(file, dtype).reshape(shape, order="F" if by_columns else "C")
    except (ValueError, KeyError) as error:
        raise DataError(f"{where}: cannot be read as .npy ({error}); save it with numpy.save") from None


def _check(shape: tuple[int, ...] | None, dtype: np.dtype, where: str) -> None:
    if kind(dtype) not in ("uint8", "float"):
        raise DataError(f"{where}: holds {dtype}, expected floats or uint8; convert it with .astype('float32')")
    if shape is None or len(shape) != 2 or shape[1] == 0:
        raise DataError(f"{where}: is of shape {shape}, expected (frames, width); reshape it")
    if shape[0] == 0:
        raise DataError(f"{where}: has no frames; remove the video's row")
