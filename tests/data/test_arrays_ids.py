"""Ids that nearly match: the same name in another Unicode form is found, any other is named beside what is missing."""

import unicodedata
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.base.errors import DataError
from pipeline.prepare.prepare import prepare
from tests.data.test_arrays import config, stored, write_labels

COMPOSED, DECOMPOSED = "caf\xe9", "cafe\u0301"


def world(folder: Path, written: list[str], there: list[str], hdf5: bool) -> Path:
    """Ids as labels.csv has them, and arrays by their names; video i is filled with i + 1."""
    folder.mkdir()
    write_labels(folder, [(name, ("cat", "dog")[number % 2]) for number, name in enumerate(written)])
    arrays = {name: np.full((2, 3), number + 1, np.float32) for number, name in enumerate(there)}
    if hdf5:
        with h5py.File(folder / "rgb.h5", "w") as file:
            for name, array in arrays.items():
                file[name] = array
        return folder
    (folder / "rgb").mkdir()
    for name, array in arrays.items():
        with open(folder / "rgb" / f"{name}.npy", "wb") as file:
            np.save(file, array)
    return folder


@pytest.mark.parametrize("hdf5", [False, True])
@pytest.mark.parametrize(("written", "there"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED), (DECOMPOSED,) * 2])
def test_another_unicode_form_of_an_id_is_the_same(tmp_path, written, there, hdf5):
    """macOS gives decomposed names; the id is kept composed, so that its partition does not hang on the form."""
    others = [f"v{number}" for number in range(24)]
    prepare(config(world(tmp_path / "data", [written, *others], [there, *others], hdf5)), tmp_path, progress=False)
    found = stored(tmp_path)
    assert found.keys() == {COMPOSED, *others}
    assert (found[COMPOSED][1] == 1).all()


@pytest.mark.parametrize("hdf5", [False, True])
def test_two_forms_of_one_id_are_refused(tmp_path, hdf5):
    assert unicodedata.normalize("NFC", DECOMPOSED) == COMPOSED
    others = [f"v{number}" for number in range(24)]
    both = [COMPOSED, DECOMPOSED]
    data = world(tmp_path / "data", [COMPOSED, *others], [*both, *others], hdf5)
    with pytest.raises(DataError, match=r"\(line 2 of labels\.csv\): is there twice, .*NFC and NFD\); remove one"):
        prepare(config(data), tmp_path, progress=False)
    data = world(tmp_path / "ids", [*both, *others], [DECOMPOSED, *others], hdf5)
    with pytest.raises(DataError, match=r"appears twice: .*line 2, and .*line 3"):
        prepare(config(data), tmp_path, progress=False)


NEAR = {
    "zeros": ("7", "007"),
    "no zeros": ("007", "7"),
    "a number with a point": ("7.0", "7"),
    "capitals": ("Clip_A", "clip_a"),
    "an extension": ("clip.wav", "clip"),
    "the extension": ("clip.npy", "clip"),
    "an extension in the file": ("clip", "clip.mp4"),
    "a letter": ("cilp-one", "clip-one"),
    "a blank inside": ("clip one", "clipone"),
    "a letter that looks alike": ("cl\u0456p", "clip"),  # Cyrillic
    "width": ("clip\uff11", "clip1"),
}


@pytest.mark.parametrize("hdf5", [False, True])
@pytest.mark.parametrize("kind", NEAR)
def test_the_nearest_is_named(tmp_path, kind, hdf5):
    written, there = NEAR[kind]
    data = world(tmp_path / "data", ["other", written], ["other", there, "unlike"], hdf5)
    with pytest.raises(DataError) as caught:
        prepare(config(data), tmp_path, progress=False)
    told = str(caught.value)
    assert "(line 3 of labels.csv): no such " in told
    assert f"; the nearest there is {there if hdf5 else there + '.npy'}: if it is meant, make {there} the id" in told


def test_a_file_of_another_kind_is_named(tmp_path):
    data = world(tmp_path / "data", ["other", "clip"], ["other"], hdf5=False)
    (data / "rgb" / "clip.npz").touch()
    with pytest.raises(DataError, match=r"no such file; add it, .*; the nearest there is clip\.npz, which is no \.npy"):
        prepare(config(data), tmp_path, progress=False)


def test_names_that_look_alike_are_spelt(tmp_path):
    """A zero-width joiner in a file's name cannot be seen."""
    data = world(tmp_path / "data", ["other", "clip"], ["other", "cl\u200dip"], hdf5=False)
    with pytest.raises(DataError, match=r"the nearest there is .* \('cl\\u200dip\.npy'\): if it is meant"):
        prepare(config(data), tmp_path, progress=False)


@pytest.mark.parametrize("written", ["clips/v1", "/data/clips/v1", "..\\v1"])
def test_a_folder_in_an_id(tmp_path, written):
    data = world(tmp_path / "data", ["other", written], ["other", "v1"], hdf5=False)
    with pytest.raises(DataError, match=r"line 3: id '.*' cannot be the name of a file; leave out the folder: v1"):
        prepare(config(data), tmp_path, progress=False)
