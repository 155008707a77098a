"""HDF5 gives its fill value for what was never written, and reasons in C for what it cannot open: both in words."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.arrays.files import open_files
from pipeline.arrays.labels import LabelRow
from pipeline.base.errors import DataError
from pipeline.prepare.prepare import prepare
from tests.data.test_arrays import GOOD, config, stored, write_folder

LONG = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
ROW = LabelRow(2, 0, 1, "v", ("cat",), "train")


def read(path: Path) -> np.ndarray:
    with open_files(path) as files:
        return files.array(ROW)


def partly(**options):
    def write(file):
        file.create_dataset("v", (20, 6), "f4", **options)[:15] = LONG[:15]

    return write


def enlarged(**options):
    def write(file):
        dataset = file.create_dataset("v", data=LONG[:15], maxshape=(None, 6), **options)
        dataset.resize((20, 6))

    return write


def with_gap(file):
    dataset = file.create_dataset("v", (20, 6), "f4", chunks=(5, 6))
    dataset[:5], dataset[15:] = LONG[:5], LONG[15:]


def without_columns(file):
    file.create_dataset("v", (20, 6), "f4", chunks=(20, 3))[:, :3] = LONG[:, :3]


def early(file):
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    h5py.h5d.create(file.id, b"v", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((20, 6)), made)
    file["v"][:15] = LONG[:15]


CHUNKS, END = r"was written in part: {} of the {} chunks that its shape", r"from frame 15 of 20 on there is nothing but"
PARTLY = {
    "chunks": (partly(chunks=(5, 6)), CHUNKS.format(3, 4)),
    "compressed": (partly(chunks=(5, 6), compression="gzip"), CHUNKS.format(3, 4)),
    "chunks that do not divide": (partly(chunks=(7, 4)), END),
    "one chunk": (partly(chunks=(20, 6)), END),
    "contiguous": (partly(), END),
    "another fill value": (partly(fillvalue=-1), END + r" the fill value -1\.0"),
    "allocated early": (early, END),
    "enlarged": (enlarged(chunks=(5, 6)), CHUNKS.format(3, 4)),
    "enlarged within a chunk": (enlarged(chunks=(32, 6)), END),
    "a gap": (with_gap, CHUNKS.format(2, 4)),
    "columns": (without_columns, CHUNKS.format(1, 2)),
    "bytes": (lambda file: file.create_dataset("v", (20, 6), "u1").__setitem__(slice(15), 7), END),
    "all of it zero": (lambda file: file.create_dataset("v", data=LONG * 0), r"from frame 0 of 20 on there is nothing"),
}


@pytest.mark.parametrize("kind", PARTLY)
def test_a_dataset_written_in_part_is_refused(tmp_path, kind):
    """Frames that were never written were zeros, real frames of a video."""
    write, message = PARTLY[kind]
    with h5py.File(tmp_path / "rgb.h5", "w") as file:
        write(file)
    with pytest.raises(DataError, match=rf"rgb\.h5: dataset v \(line 2 of labels\.csv\): {message}"):
        read(tmp_path / "rgb.h5")


@pytest.mark.parametrize(
    "options",
    [{}, {"chunks": (7, 4)}, {"chunks": (3, 5), "compression": "gzip"}, {"chunks": (30, 6), "maxshape": (None, 6)},
     {"chunks": (5, 6), "fillvalue": np.nan}, {"chunks": (7, 6), "compression": "lzf", "shuffle": True}],
)  # fmt: skip
def test_a_dataset_written_whole_is_read(tmp_path, options):
    """Zeros inside are frames; at the end too, where the fill value is another."""
    values = LONG.copy()
    values[3:5], values[:, 2] = 0, 0
    if "fillvalue" in options:
        values[-1] = 0
    with h5py.File(tmp_path / "rgb.h5", "w") as file:
        file.create_dataset("v", data=values, **options)
    np.testing.assert_array_equal(read(tmp_path / "rgb.h5"), values)


def test_a_dataset_grown_and_filled_is_read(tmp_path):
    with h5py.File(tmp_path / "rgb.h5", "w") as file:
        enlarged(chunks=(8, 6))(file)
        file["v"][15:] = LONG[15:]
    np.testing.assert_array_equal(read(tmp_path / "rgb.h5"), LONG)


def test_a_missing_filter_is_named(tmp_path):
    """It was told as damage, with the remedy to write the file again, which would not have helped."""
    with h5py.File(tmp_path / "rgb.h5", "w") as file:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((4, 6))
        made.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))  # Zstandard
        space = h5py.h5s.create_simple((4, 6))
        h5py.h5d.create(file.id, b"v", h5py.h5t.IEEE_F32LE, space, made).write_direct_chunk((0, 0), b"compressed", 0)
    with pytest.raises(
        DataError, match=r"is compressed with filter 32015, which is not installed here; set HDF5_PLUGIN"
    ):
        read(tmp_path / "rgb.h5")


WRITER = """
import h5py, os, sys
file = h5py.File(sys.argv[1], "w", libver="latest")
file["v"] = [[1.0]]
file.flush()
if sys.argv[2] == "crash":
    os._exit(1)
print("open", flush=True)
sys.stdin.read()
"""


def test_a_file_that_is_open_elsewhere_or_was_never_closed(tmp_path):
    path = tmp_path / "rgb.h5"
    script = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen([*script, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        with pytest.raises(DataError, match=r"rgb\.h5: is open elsewhere for writing, or locked; close it there"):
            read(path)
        child.communicate("")
    assert read(path).tolist() == [[1.0]]
    subprocess.run([*script, "crash"], check=False)
    with pytest.raises(DataError, match=r"rgb\.h5: is open elsewhere for writing, or was not closed .*h5clear -s"):
        read(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b"none"), r"cannot be read as HDF5 \(.*\); write it with h5py"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-100]),
            r"was cut off, or is still being written \(.*\); copy",
        ),
        (lambda path: (path.unlink(), path.symlink_to("gone")), "is a link that leads nowhere; put the file there"),
    ],
)
def test_a_file_that_cannot_be_opened(tmp_path, spoil, message):
    with h5py.File(tmp_path / "rgb.h5", "w") as file:
        file["v"] = LONG
    spoil(tmp_path / "rgb.h5")
    with pytest.raises(DataError, match=rf"rgb\.h5: {message}"):
        read(tmp_path / "rgb.h5")


TYPES = ["int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "bool", "complex64", "complex128"]


@pytest.mark.parametrize("hdf5", [(), ("rgb",)])
@pytest.mark.parametrize("dtype", TYPES)
def test_numbers_without_a_meaning_are_refused(tmp_path, dtype, hdf5):
    """Only floats and YouTube-8M's bytes have one as features."""
    data = write_folder(tmp_path / "data", {"v001": {"rgb": GOOD.astype(dtype)}}, hdf5)
    with pytest.raises(
        DataError, match=rf"holds {dtype}, expected floats or uint8; convert it with \.astype\('float32'"
    ):
        prepare(config(data), tmp_path, progress=False)
    assert not (tmp_path / "frames").exists()


def test_in_the_pipeline(tmp_path):
    """The error names the line, and what was finished is kept; written whole, the run ends."""
    videos = {f"v{number:03d}": {"rgb": LONG} for number in range(24)}
    data = write_folder(tmp_path / "data", {name: {"rgb": LONG[:1]} for name in videos}, ("rgb",))
    with h5py.File(data / "rgb.h5", "w") as file:
        for name in videos:
            file.create_dataset(name, (20, 6), "f4")[: 15 if name == "v007" else 20] = LONG[
                : 15 if name == "v007" else 20
            ]
    with pytest.raises(DataError, match=r"dataset v007 \(line 9 of labels\.csv\): from frame 15 of 20 on"):
        prepare(config(data), tmp_path, progress=False)
    with h5py.File(data / "rgb.h5", "a") as file:
        file["v007"][15:] = LONG[15:]
    prepare(config(data), tmp_path, progress=False)
    np.testing.assert_array_equal(stored(tmp_path)["v007"][1], LONG)
