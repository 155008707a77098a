"""The arrays of one modality: a folder of ``<id>.npy`` files, or an HDF5 file with a dataset ``<id>``."""

import contextlib
import difflib
import errno
import itertools
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from jaxtyping import Float, UInt8
from numpy.lib import format as npy

from pipeline.arrays.labels import LabelRow
from pipeline.base.errors import DataError

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
COMPARED = 10_000  # names; letter by letter takes a millisecond for every ten
TWO_FORMS = "is there twice, with its accents in one letter and in two (Unicode NFC and NFD)"
Array = UInt8[np.ndarray, "frames width"] | Float[np.ndarray, "frames width"]


@dataclass(frozen=True)
class NpyFolder:
    """One ``.npy`` file a video; nothing that has to be unpickled is read."""

    path: Path

    def where(self, row: LabelRow) -> str:
        """File, and line of labels.csv, for a message."""
        return f"{self.path / row.id}.npy (line {row.line} of labels.csv)"

    @cached_property
    def count(self) -> int:
        """How many arrays there are, listed or not."""
        with os.scandir(self.path) as entries:
            return sum(entry.name.endswith(".npy") and not entry.name.startswith(".") for entry in entries)

    def look(self, row: LabelRow) -> tuple[int, int]:
        """Bytes of the file of a video's array, which is not read, and the time of its last change."""
        try:
            state = os.stat(self._file(row))
        except OSError as error:
            raise self._unreached(row, error) from None
        return state.st_size, state.st_mtime_ns

    def array(self, row: LabelRow) -> Array:
        """A video's array (frames, width)."""
        try:
            with open(self._file(row), "rb") as file:
                return _read_npy(file, self.where(row))
        except OSError as error:
            raise self._unreached(row, error) from None

    def _file(self, row: LabelRow) -> str:
        files = {name: f"{self.path}/{name}.npy" for name in _forms(row.id)}
        if len(files) == 1:
            return files[row.id]
        there = {os.stat(file).st_ino: file for file in files.values() if os.path.exists(file)}
        if len(there) > 1:
            raise DataError(f"{self.where(row)}: {TWO_FORMS}; remove one")
        return next(iter(there.values()), files[row.id])

    def _unreached(self, row: LabelRow, error: OSError) -> DataError:
        if isinstance(error, FileNotFoundError):
            with os.scandir(self.path) as entries:
                hint = _hint(row.id, (entry.name for entry in entries), ".npy")
            remedy = f"add it, or remove the row, or, if {self.path.name} is no modality, put _ before its name"
            return DataError(f"{self.where(row)}: no such file; {remedy}{hint}")
        return DataError(
            f"{self.where(row)}: cannot be read ({error.strerror}); shorten the id if that is too long, or see to "
            "the file and its permissions"
        )


@dataclass(frozen=True)
class Hdf5File:
    """One dataset a video, at the top of the file."""

    path: Path
    file: h5py.File

    def where(self, row: LabelRow) -> str:
        """File and dataset, and line of labels.csv, for a message."""
        return f"{self.path}: dataset {row.id} (line {row.line} of labels.csv)"

    @cached_property
    def count(self) -> int:
        """How many arrays there are, listed or not: seconds for millions, so only where it is asked for."""
        return len(self.file)

    def look(self, row: LabelRow) -> tuple[int, int]:
        """Bytes of an array of this file, on average, and the time of the file's last change."""
        self._name(row)
        return self._state

    def array(self, row: LabelRow) -> Array:
        """A video's array (frames, width)."""
        name, where = self._name(row), self.where(row)
        try:
            dataset = self.file[name]
        except (KeyError, OSError) as error:
            raise DataError(f"{where}: leads nowhere ({error}); write the array itself into this file") from None
        if not isinstance(dataset, h5py.Dataset):
            raise DataError(f"{where}: is a group; a dataset of frames by width is needed")
        # HDF5 reads numbers that are not there as zeros, and a change of another file would go unnoticed
        if dataset.is_virtual or dataset.external or dataset.file.filename != self.file.filename:
            raise DataError(f"{where}: has its numbers in another file; write the array itself into this one")
        _check(dataset.shape, dataset.dtype, where)
        if not dataset.id.get_storage_size():
            raise DataError(f"{where}: was made, but never written; write the array")
        try:
            _refuse_missing_chunks(dataset, where)
            array = dataset[()]
        except (OSError, RuntimeError, ValueError) as error:
            if missing := _missing_filters(dataset):
                raise DataError(
                    f"{where}: is compressed with {missing}, which is not installed here; set HDF5_PLUGIN_PATH to the "
                    "folder that hdf5plugin.PLUGIN_PATH names, or write the file again with compression='gzip'"
                ) from None
            raise DataError(f"{where}: is damaged ({error}); write the file again") from None
        _refuse_unwritten_end(array, dataset.fillvalue, where)
        return array

    def _name(self, row: LabelRow) -> str:
        there = [name for name in _forms(row.id) if name in self.file]  # a tenth of the time that opening one takes
        if len(there) > 1:
            raise DataError(f"{self.where(row)}: {TWO_FORMS}; remove one")
        if not there:
            hint = _hint(row.id, self.file)
            raise DataError(f"{self.where(row)}: no such dataset; add it, or remove the row{hint}")
        return there[0]

    @cached_property
    def _state(self) -> tuple[int, int]:
        state = self.path.stat()
        return state.st_size // max(1, self.count), state.st_mtime_ns


Files = NpyFolder | Hdf5File


@contextlib.contextmanager
def open_files(path: Path) -> Iterator[Files]:
    """The arrays of a modality, a folder or an HDF5 file; the file is closed afterwards."""
    if path.is_dir():
        yield NpyFolder(path)
        return
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: {_why_closed(error)}") from None
    with file:
        yield Hdf5File(path, file)


def kind(dtype: np.dtype) -> str:
    """``uint8`` or ``float``, of any width; other types have no meaning as features."""
    return "uint8" if dtype == np.uint8 else "float" if dtype.kind == "f" else str(dtype)


def _why_closed(error: OSError) -> str:
    """Why an HDF5 file cannot be opened, and what to do."""
    if error.errno in (errno.EAGAIN, errno.EACCES) and "lock file" in str(error):
        return (
            "is open elsewhere for writing, or locked; close it there (in a notebook: file.close(), or end its kernel) "
            "and run again"
        )
    if "already open for write" in str(error):
        return (
            "is open elsewhere for writing, or was not closed by the program that wrote it; wait for that one, or, if "
            "it has ended, write the file again, or clear its mark with `h5clear -s` and look whether all is there"
        )
    if "lock file" in str(error):
        return (
            f"cannot be locked on this file system ({error}); set HDF5_USE_FILE_LOCKING=FALSE while nothing writes it"
        )
    if "truncated" in str(error):
        return f"was cut off, or is still being written ({error}); copy or write it again"
    if isinstance(error, FileNotFoundError):
        return "is a link that leads nowhere; put the file there, or remove the link"
    if error.errno is not None:
        return f"cannot be read ({os.strerror(error.errno)}); see to the file and its permissions"
    return f"cannot be read as HDF5 ({error}); write it with h5py"


def _refuse_missing_chunks(dataset: Any, where: str) -> None:
    if dataset.chunks is None:
        return
    promised = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    there = dataset.id.get_num_chunks()
    if there < promised:
        raise DataError(
            f"{where}: was written in part: {there} of the {promised} chunks that its shape {dataset.shape} takes; "
            "write the rest, or make it as long as what was written"
        )


def _refuse_unwritten_end(array: Array, fill: Any, where: str) -> None:
    """HDF5 does not say which numbers of a chunk were written; the others are the dataset's fill value."""
    last = len(array)
    while last and (array[last - 1] == fill).all():
        last -= 1
    if last < len(array):
        raise DataError(
            f"{where}: from frame {last} of {len(array)} on there is nothing but the fill value {fill}: written in "
            "part, enlarged, or padded; make it as long as what was written, or, if these are its frames, write it "
            "with another fillvalue, such as nan for floats"
        )


def _missing_filters(dataset: Any) -> str:
    """The filters of a dataset that this HDF5 does not have, by name or number."""
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(number) for number in range(properties.get_nfilters())]
    named = [(code, text.decode(errors="replace").strip("\0")) for code, _, _, text in filters]
    return ", ".join(f"filter {code} {text}".strip() for code, text in named if not h5py.h5z.filter_avail(code))


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


def _forms(name: str) -> list[str]:
    """A name in Unicode's composed and its decomposed form, where these differ: some systems store the second."""
    return [name] if name.isascii() else list(dict.fromkeys([name, unicodedata.normalize("NFD", name)]))


def _hint(name: str, there: Iterable[str], suffix: str = "") -> str:
    """The end of a message about a missing array: the nearest name of all ``there``, if one is near.

    One that differs in Unicode form, capitals, invisible characters, leading zeros, or extension alone comes first.
    """
    known = sorted(there)
    core = _core(name)
    near = next((other for other in known if _core(other) == core), None)
    if near is None:
        names = {other.removesuffix(".npy"): other for other in itertools.islice(known, COMPARED)}
        near = next((names[close] for close in difflib.get_close_matches(name, names, n=1, cutoff=0.6)), None)
    if near is None:
        return ""
    if not near.endswith(suffix):
        return f"; the nearest there is {_spelt(near)}, which is no {suffix} file"
    return f"; the nearest there is {_spelt(near)}: if it is meant, make {_spelt(near.removesuffix(suffix))} the id"


def _spelt(name: str) -> str:
    """A name, and its letters one by one where they may look like others."""
    return name if name.isascii() and name == name.strip() else f"{name} ({name!a})"


def _core(name: str) -> str:
    """What is left of a name without its way of writing."""
    seen = "".join(letter for letter in unicodedata.normalize("NFKC", name) if letter.isprintable() and letter != " ")
    stem = re.sub(r"(\.[a-z]\w{1,4}|\.0)+$", "", seen.casefold())
    return re.sub(r"0*(\d+)", r"\1", unicodedata.normalize("NFKC", stem))
