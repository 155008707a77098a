"""One's own arrays through prepare: every number arrives, in any order and after a kill, and bad input is named."""

import csv
import hashlib
import io
import json
import re
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pipeline.arrays import reader as arrays
from pipeline.arrays.check import faults
from pipeline.base.errors import DataError
from pipeline.base.groups import Compute, Data, Features
from pipeline.base.parameters import Params
from pipeline.data.batches import features
from pipeline.data.store import FrameStore
from pipeline.data.video import resolve
from pipeline.prepare import units
from pipeline.prepare.prepare import prepare
from pipeline.run.cli import main
from pipeline.train.checkpoints import run_identity
from tests.data.worlds import folder_bytes

SPLITS = ("train", "validation", "test")
CLASSES = ("cat", "dog", "oiseau été, hiver", "zoo")
ROOT = Path(__file__).parents[2]


def config(folder: Path, workers: int = 1, **data: str) -> Params:
    own = Data(source="arrays", label_space="given", path=str(folder), **data)
    return Params(data=own, compute=Compute(workers=workers))


def contents(videos: int = 60, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """rgb of 6 floats and audio of 3 bytes a frame, by id."""
    random = np.random.default_rng(seed)
    made = {}
    for number in range(videos):
        frames = int(random.integers(1, 9))
        rgb = random.normal(0, 3, (frames, 6)).astype(np.float32)
        made[f"v{number:03d}"] = {"rgb": rgb, "audio": random.integers(0, 256, (frames, 3), dtype=np.uint8)}
    return made


def labels_of(name: str) -> tuple[str, ...]:
    number = int(name[1:])
    return (CLASSES[number % 3], *(CLASSES[3:] if number % 5 == 0 else ()))


def write_labels(folder: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("id", "labels")) -> None:
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def write_folder(folder: Path, videos: dict[str, dict[str, np.ndarray]], hdf5: tuple[str, ...] = ()) -> Path:
    """A folder of arrays, the modalities named in ``hdf5`` as .h5 files."""
    folder.mkdir(parents=True)
    for name in next(iter(videos.values())):
        if name in hdf5:
            with h5py.File(folder / f"{name}.h5", "w") as file:
                for video, parts in videos.items():
                    file[video] = parts[name]
        else:
            (folder / name).mkdir()
            for video, parts in videos.items():
                np.save(folder / name / f"{video}.npy", parts[name])
    write_labels(folder, [(video, ";".join(labels_of(video))) for video in videos])
    return folder


def stored(work: Path) -> dict[str, tuple[str, np.ndarray, tuple[str, ...]]]:
    """Split, frames and names of the classes of every stored video, by id."""
    found = {}
    for split in SPLITS:
        store = FrameStore(work / "frames" / split)
        for index in range(len(store)):
            video = store[index]
            assert video.id not in found
            found[video.id] = (split, video.frames, tuple(store.label_space.classes[label] for label in video.labels))
    return found


def values(audio: np.ndarray) -> np.ndarray:
    """What YouTube-8M's bytes stand for, in float64."""
    return audio.astype(np.float64) * (4 / 255) + (4 / 512 - 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The arrays, the folder they were written to, the workspace they were prepared in, and the summary."""
    folder = tmp_path_factory.mktemp("arrays")
    videos = contents()
    data = write_folder(folder / "data", videos, hdf5=("audio",))
    return videos, data, folder / "work", prepare(config(data), folder / "work", progress=False)


def test_every_number_arrives(made):
    videos, _, work, summary = made
    assert summary["modalities"] == {"audio": 3, "rgb": 6}  # in alphabetical order
    assert FrameStore(work / "frames" / "train").dtype == "float32"
    found = stored(work)
    assert found.keys() == videos.keys()
    for name, (_, frames, classes) in found.items():
        assert frames.dtype == np.float32
        assert frames[:, 3:].tobytes() == videos[name]["rgb"].tobytes()
        np.testing.assert_allclose(frames[:, :3], values(videos[name]["audio"]), rtol=0, atol=4e-7)
        assert classes == labels_of(name)
    assert summary["label_space_note"] == "The 4 classes of labels.csv, by name; not the paper's data set."
    assert FrameStore(work / "frames" / "test").label_space.classes == CLASSES


def test_batches_and_features_of_floats(made):
    videos, _, work, _ = made
    store = FrameStore(work / "frames" / "train")
    for batch in store.batches(7, max_frames=4):
        assert batch.frames.dtype == torch.float32
        raw = features(batch.frames, batch.mask, Features(norm="none"), store.modalities)
        unit = features(batch.frames, batch.mask, Features(norm="l2_frame_per_modality"), store.modalities)
        for row, name in enumerate(batch.ids):
            rgb = videos[name]["rgb"][:4]
            np.testing.assert_array_equal(raw[row, : len(rgb), 3:], rgb)
            np.testing.assert_allclose(
                unit[row, : len(rgb), 3:], rgb / np.linalg.norm(rgb, axis=1, keepdims=True), atol=1e-6
            )
            assert not raw[row, len(rgb) :].any()


def test_bytes_stay_bytes_and_mean_the_same_beside_floats(made, tmp_path):
    videos, _, work, _ = made
    alone = {name: {"audio": parts["audio"]} for name, parts in videos.items()}
    prepare(config(write_folder(tmp_path / "data", alone)), tmp_path, progress=False)
    assert "dtype" not in json.loads((tmp_path / "frames" / "train" / "store.json").read_text())
    for name, (split, frames, _) in stored(tmp_path).items():
        assert frames.dtype == np.uint8
        assert frames.tobytes() == videos[name]["audio"].tobytes()
        batch = torch.from_numpy(frames.copy())[None]
        x = features(batch, torch.ones(batch.shape[:2], dtype=torch.bool), Features(norm="none"), {"audio": 3})
        beside = stored(work)[name]
        assert beside[0] == split
        np.testing.assert_array_equal(x[0].numpy(), beside[1][:, :3])


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
@pytest.mark.parametrize("hdf5", [(), ("rgb",)])
def test_any_float_in_any_order_of_bytes(tmp_path, dtype, hdf5):
    videos = {name: {"rgb": np.asfortranarray(parts["rgb"].astype(dtype))} for name, parts in contents().items()}
    prepare(config(write_folder(tmp_path / "data", videos, hdf5)), tmp_path, progress=False)
    for name, (_, frames, _) in stored(tmp_path).items():
        np.testing.assert_array_equal(frames, videos[name]["rgb"].astype(np.float32))


def test_files_or_datasets_make_the_same_store(made, tmp_path):
    videos, _, work, _ = made
    prepare(config(write_folder(tmp_path / "data", videos, hdf5=("rgb",))), tmp_path, progress=False)
    here, there = folder_bytes(work / "frames"), folder_bytes(tmp_path / "frames")
    assert here.keys() == there.keys()
    assert {name for name in here if here[name] != there[name]} == {"summary.json"}  # the path and the kinds of files


def test_order_of_rows_changes_no_split(made, tmp_path):
    videos, data, work, _ = made
    (tmp_path / "data").mkdir()
    for path in data.iterdir():
        (tmp_path / "data" / path.name).symlink_to(path)
    (tmp_path / "data" / "labels.csv").unlink()
    rows = [(";".join(reversed(labels_of(name))), " ", f" {name} ") for name in reversed(videos)]
    write_labels(tmp_path / "data", rows, header=("labels", "remark", "id"))
    prepare(config(tmp_path / "data"), tmp_path, progress=False)
    before, after = stored(work), stored(tmp_path)
    assert {name: (split, frames.tobytes(), classes) for name, (split, frames, classes) in before.items()} == {
        name: (split, frames.tobytes(), classes) for name, (split, frames, classes) in after.items()
    }
    spaces = [(place / "frames" / "label_space.json").read_bytes() for place in (work, tmp_path)]
    assert spaces[0] == spaces[1]


def drawn(name: str) -> str:
    """The partition by the documented rule, seed 0."""
    digest = hashlib.blake2b(name.encode(), digest_size=8, key=b"train or validate 0").digest()
    return "train" if int.from_bytes(digest, "little") / 2**64 >= 0.3 else "validate"


def test_partitions_are_drawn_from_id_and_seed(made):
    _, _, work, summary = made
    assert summary["provenance"]["partitions"] == "drawn from id and base.seed"
    for name, (split, _, _) in stored(work).items():
        assert (split == "train") == (drawn(name) == "train")


def test_partitions_of_ones_own(made, tmp_path):
    videos, data, _, _ = made
    (tmp_path / "data").mkdir()
    for name in ("rgb", "audio.h5"):
        (tmp_path / "data" / name).symlink_to(data / name)
    named = {name: ("train", "validate", "test", "train")[number % 4] for number, name in enumerate(videos)}
    rows = [(name, partition, "cat;dog") for name, partition in named.items()]
    write_labels(tmp_path / "data", rows, header=("id", "partition", "labels"))
    summary = prepare(config(tmp_path / "data"), tmp_path, progress=False)
    assert {name: split for name, (split, _, _) in stored(tmp_path).items()} == {
        name: {"validate": "validation"}.get(partition, partition) for name, partition in named.items()
    }
    assert summary["provenance"]["partitions"] == "column"
    assert summary["partitions"]["test"] == {"videos_read": 15, "left_out_without_class": 0}
    rows = [(name, partition if partition == "train" else "validate", "cat;dog") for name, partition, _ in rows]
    write_labels(tmp_path / "data", rows, header=("id", "partition", "labels"))
    splits = prepare(config(tmp_path / "data"), tmp_path, progress=False)["splits"]
    assert [splits[split]["videos"] for split in SPLITS] == [30, 6, 24]  # a fifth of `validate` is for validation


def test_classes_in_an_order_and_groups_of_ones_own(made, tmp_path):
    _, data, _, _ = made
    (tmp_path / "data").mkdir()
    for path in data.iterdir():
        (tmp_path / "data" / path.name).symlink_to(path)
    (tmp_path / "data" / "classes.csv").write_text(
        'class,groups\nzoo,Out;Big\ncat,\n"oiseau été, hiver",Out\ndog,\nyak,Big\n', encoding="utf-8"
    )
    summary = prepare(config(tmp_path / "data"), tmp_path, progress=False)
    space = FrameStore(tmp_path / "frames" / "test").label_space
    assert space.classes == ("zoo", "cat", "oiseau été, hiver", "dog", "yak")
    assert space.groups == (("Out", "Big"), (), ("Out",), (), ("Big",))
    assert summary["classes_without_train_video"] == 1
    for name, (_, _, classes) in stored(tmp_path).items():
        assert set(classes) == set(labels_of(name))


def test_arrays_without_a_row_are_counted(made, tmp_path):
    videos, _, _, _ = made
    data = write_folder(tmp_path / "data", videos, hdf5=("audio",))
    write_labels(data, [(name, ";".join(labels_of(name))) for name in list(videos)[:-3]])
    (data / "rgb" / "v059.npy").unlink()
    summary = prepare(config(data), tmp_path, progress=False)
    assert summary["provenance"]["arrays_without_a_row"] == "audio 3, rgb 2"
    assert len(stored(tmp_path)) == 57


def test_a_changed_later_frame_is_another_training(tmp_path):
    """The fault it alone catches: what is kept of trainings on old arrays is taken for that of mended ones."""
    videos = contents()
    identities = []
    for factor in (1.0, 2.0):
        for video in videos.values():
            video["rgb"][1:] *= factor
        params = config(write_folder(tmp_path / f"data {factor}", videos))
        prepare(params, tmp_path / f"{factor}", progress=False)
        stores = [FrameStore(tmp_path / f"{factor}" / "frames" / split) for split in ("train", "validation")]
        identities.append(run_identity(params, "art", 0, stores))
    assert identities[0]["frames"] == identities[1]["frames"]  # which know the first frame of each video alone
    assert identities[0] != identities[1]
    prepare(params, tmp_path / "again", progress=False)
    assert FrameStore(tmp_path / "again" / "frames" / "train").content == identities[1]["content"][0]


def test_a_video_of_nothing_but_zeros_is_refused(tmp_path):
    """Were all its modalities never written? One that is 0 beside another that is not may be a silent film."""
    videos = {
        name: video | {"audio": np.ones((len(video["rgb"]), 3), np.float32)} for name, video in contents(30).items()
    }
    videos["v003"]["rgb"][:] = 0
    assert list(faults(config(write_folder(tmp_path / "data", videos)), progress=False)) == []
    videos["v003"]["audio"][:] = 0
    (told,) = faults(config(write_folder(tmp_path / "nothing", videos)), progress=False)
    assert re.search(r"labels\.csv: line \d+: id v003: every number of its arrays is 0 as float32; .* remove", told)


def test_a_column_of_other_words_is_no_partition(tmp_path, capsys):
    """Nor is one that says one word alone: a folder of training videos has nothing to be divided by."""
    rows = [(name, ";".join(labels_of(name)), "train", "train", "") for name in contents(30)]
    rows[-1] = (*rows[-1][:3], "bus", "")
    data = write_folder(tmp_path / "data", contents(30))
    write_labels(data, rows, header=("id", "labels", "source", "what", "note"))
    assert list(faults(config(data), progress=False)) == []
    assert "columns passed over: source, what, note" in capsys.readouterr().out


def test_a_changed_array_is_not_taken_from_an_unfinished_run(tmp_path):
    data = write_folder(tmp_path / "data", contents(), ("audio",))
    before, again = (resolve(config(data), tmp_path, progress=False).partitions["train"][0] for _ in range(2))
    assert before.state == again.state
    _, video = next(before.read())
    np.save(data / "rgb" / f"{video.id}.npy", np.zeros((len(video.frames), 6), np.float32))
    assert resolve(config(data), tmp_path, progress=False).partitions["train"][0].state != before.state


def test_a_remedy_keeps_finished_work(tmp_path, monkeypatch):
    """A bad array saved again, a row edited, a row removed: what no file of changed is not made again, same bytes."""
    videos = contents(40)
    data, work, made = write_folder(tmp_path / "data", videos, ("audio",)), tmp_path / "work", []
    monkeypatch.setattr(arrays, "PIECE_BYTES", 1)  # a piece a row, and a unit a piece
    monkeypatch.setattr(units, "UNIT_BYTES", 1)
    make = units.make_unit

    def noted(unit, label_space):
        make(unit, label_space)
        made.append([piece.span.line for piece in unit.inputs])

    monkeypatch.setattr(units, "make_unit", noted)

    def fails():
        made.clear()
        with pytest.raises(DataError):
            prepare(config(data), work, progress=False)
        return [line for [line] in made]

    names = list(videos)
    train = [number for number, name in enumerate(names) if drawn(name) == "train"]
    bad, broken = train[15], save(videos[names[train[15]]]["rgb"][:, :5])
    (data / "rgb" / f"{names[bad]}.npy").write_bytes(broken)
    assert fails() == [2 + number for number in train[:15]]
    assert fails() == []
    rows = {name: ";".join(labels_of(name)) for name in names}
    rows[names[train[3]]] = "zoo"
    write_labels(data, list(rows.items()))
    assert fails() == [2 + train[3]]
    del rows[names[bad]]
    write_labels(data, list(rows.items()))
    made.clear()
    prepare(config(data), work, progress=False)
    assert [line for [line] in made][: len(train) - 16] == [1 + number for number in train[16:]]
    prepare(config(data), tmp_path / "undisturbed", progress=False)
    assert folder_bytes(work / "frames") == folder_bytes(tmp_path / "undisturbed" / "frames")
    assert stored(work)[names[train[3]]][2] == ("zoo",)


def test_arrays_of_another_kind_are_looked_at_again(tmp_path, monkeypatch):
    """Bytes become floats in the first video alone: the finished units, of bytes, are at fault now."""
    videos = contents(40)
    data = write_folder(tmp_path / "data", videos)
    monkeypatch.setattr(arrays, "PIECE_BYTES", 1)
    monkeypatch.setattr(units, "UNIT_BYTES", 1)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.prepare.prepare.read_listings", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(config(data), tmp_path / "work", progress=False)
    np.save(data / "audio" / "v000.npy", videos["v000"]["audio"].astype(np.float32))
    with pytest.raises(DataError, match=r"is uint8, but the first video's audio is float"):
        prepare(config(data), tmp_path / "work", progress=False)


def test_long_quoted_cells_and_pieces(tmp_path, monkeypatch):
    """Rows of several lines, an empty line, CRLF and a mark of UTF-8 at the start, cut into pieces at every row."""
    videos = contents(40)
    data = write_folder(tmp_path / "data", videos)
    rows = [f'{name},"a\r\nremark","{";".join(labels_of(name))}"\r\n' for name in videos]
    text = "\ufeffid,remark,labels\r\n" + "\r\n".join(rows)
    (data / "labels.csv").write_bytes(text.encode())
    prepare(config(data), tmp_path / "whole", progress=False)
    monkeypatch.setattr(arrays, "PIECE_BYTES", 1)
    dataset = resolve(config(data), tmp_path, progress=False)
    lines = {}
    for piece in (*dataset.partitions["train"], *dataset.partitions["validate"]):
        [(line, video)] = piece.read()
        lines[video.id] = line
    assert lines == {name: 2 + 3 * number for number, name in enumerate(videos)}
    prepare(config(data), tmp_path / "cut", progress=False)
    assert folder_bytes(tmp_path / "cut" / "frames") == folder_bytes(tmp_path / "whole" / "frames")


def save(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


GOOD = np.ones((4, 6), np.float32)
BROKEN = [
    (save(GOOD)[:-5], r"bytes, its header promises \d+; it was cut off or written twice, save it again"),
    (save(GOOD) + save(GOOD), r"its header promises \d+"),
    (b"", r"cannot be read as \.npy"),
    (b"<html>404</html>", r"cannot be read as \.npy .*save it with numpy\.save"),
    (save(np.array([{}, {}]), allow_pickle=True), r"holds object, expected floats or uint8; convert it"),
    (save(GOOD.astype(np.int64)), r"holds int64, expected floats or uint8"),
    (save(GOOD.astype(complex)), r"holds complex128, expected floats or uint8"),
    (save(GOOD[0]), r"is of shape \(6,\), expected \(frames, width\); reshape it"),
    (save(GOOD[None]), r"is of shape \(1, 4, 6\), expected \(frames, width\)"),
    (save(GOOD[:0]), r"has no frames; remove the video's row"),
    (save(GOOD[:, :5]), r"5 numbers a frame, but the first video's rgb has 6; make them alike"),
    (save(GOOD.astype(np.uint8)), r"is uint8, but the first video's rgb is float; make them alike"),
    (save(np.where(np.arange(6) == 2, np.nan, GOOD)), r"frame 0, column 2 is nan, no finite float32; replace it"),
    (save(np.where(np.arange(4)[:, None] == 3, -np.inf, GOOD)), r"frame 3, column 0 is -inf"),
    (save(np.where(np.arange(6) == 5, 1e300, GOOD.astype(float))), r"frame 0, column 5 is 1e\+300, no finite float32"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN, ids=[message[:30] for _, message in BROKEN])
def test_a_bad_array_is_named(tmp_path, content, message):
    videos = {f"v{number:03d}": {"rgb": GOOD} for number in range(12)}
    data = write_folder(tmp_path / "data", videos)
    (data / "rgb" / "v007.npy").write_bytes(content)
    with pytest.raises(DataError, match=rf"rgb/v007\.npy \(line 9 of labels\.csv\): .*{message}"):
        prepare(config(data), tmp_path / "work", progress=False)
    assert not (tmp_path / "work" / "frames").exists()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (None, r"dataset v007 \(line 9 of labels\.csv\): no such dataset; add it, or remove the row"),
        ("group", r"dataset v007 .*is a group; a dataset of frames by width is needed"),
        (GOOD[:0], r"dataset v007 .*has no frames"),
        (GOOD[:, 0], r"dataset v007 .*is of shape \(4,\)"),
        (h5py.Empty("f4"), r"dataset v007 .*is of shape None"),
        (np.array(["a", "b"], dtype=object), r"dataset v007 .*holds object"),
        (GOOD * np.nan, r"dataset v007 .*frame 0, column 0 is nan"),
        (GOOD[:3], r"line 9: id v007: modalities of different lengths, in frames: audio 4, rgb 3; sample them"),
    ],
)
def test_a_bad_dataset_is_named(tmp_path, array, message):
    videos = {f"v{number:03d}": {"rgb": GOOD, "audio": GOOD[:, :3]} for number in range(12)}
    data = write_folder(tmp_path / "data", videos, hdf5=("rgb",))
    with h5py.File(data / "rgb.h5", "a") as file:
        del file["v007"]
        if isinstance(array, str):
            file.create_group("v007")
        elif array is not None:
            file["v007"] = array
        file["extra"] = GOOD
    with pytest.raises(DataError, match=message):
        prepare(config(data), tmp_path / "work", progress=False)


def test_a_dataset_whose_numbers_lie_elsewhere_is_refused(tmp_path):
    """HDF5 gives zeros for what is not there; each of these would be read as such, or could change unseen."""
    data = write_folder(tmp_path / "data", {f"v{number:03d}": {"rgb": GOOD} for number in range(40)}, hdf5=("rgb",))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["there"] = GOOD

    def virtual(file, source):
        layout = h5py.VirtualLayout(GOOD.shape, GOOD.dtype)
        layout[:] = h5py.VirtualSource(source, "there", GOOD.shape)
        file.create_virtual_dataset("v007", layout)

    def link(kind):
        return lambda file: file.__setitem__("v007", kind)

    elsewhere = "has its numbers in another file; write the array itself into this one"
    cases = [
        (lambda file: virtual(file, str(tmp_path / "gone.h5")), elsewhere),
        (lambda file: virtual(file, str(tmp_path / "other.h5")), elsewhere),
        (lambda file: file.create_dataset("v007", data=GOOD, external=[(tmp_path / "raw", 0, GOOD.nbytes)]), elsewhere),
        (link(h5py.ExternalLink(str(tmp_path / "other.h5"), "/there")), elsewhere),
        (link(h5py.ExternalLink(str(tmp_path / "gone.h5"), "/there")), r"leads nowhere \(.*\); write the array itself"),
        (lambda file: file.create_dataset("v007", GOOD.shape, "f4"), "was made, but never written; write the array"),
        (lambda file: file.create_dataset("v007", GOOD.shape, "f4", chunks=(2, 6)), "was made, but never written"),
    ]
    for spoil, message in cases:
        with h5py.File(data / "rgb.h5", "a") as file:
            del file["v007"]
            spoil(file)
        with pytest.raises(DataError, match=rf"dataset v007 \(line 9 of labels\.csv\): {message}"):
            prepare(config(data), tmp_path / "work", progress=False)
    with h5py.File(data / "rgb.h5", "a") as file:
        del file["v007"]
        file["v007"] = h5py.SoftLink("/v001")
    prepare(config(data), tmp_path / "work", progress=False)
    np.testing.assert_array_equal(stored(tmp_path / "work")["v007"][1], GOOD)


def test_datasets_are_counted_once(made, tmp_path, monkeypatch):
    """Counting takes HDF5 a time that grows with the number of datasets; reading the pieces must not."""
    _, data, _, _ = made
    count, counted = h5py.File.__len__, []
    monkeypatch.setattr(h5py.File, "__len__", lambda file: counted.append(1) or count(file))
    monkeypatch.setattr(arrays, "PIECE_BYTES", 1)
    assert prepare(config(data), tmp_path, progress=False)["provenance"]["arrays_without_a_row"] == "audio 0, rgb 0"
    assert len(counted) == 1


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    videos = {f"v{number:03d}": {"rgb": GOOD} for number in range(12)}
    data = write_folder(tmp_path / "data", videos)
    path = data / "rgb" / "v007.npy"
    path.unlink()
    where = r"rgb/v007\.npy \(line 9 of labels\.csv\): cannot be read"
    for spoil, reason in ((lambda: path.symlink_to(path.name), "symbolic links"), (path.mkdir, "Is a directory")):
        spoil()
        with pytest.raises(DataError, match=rf"{where} \(.*{reason}.*\); .*or see to the file and its permissions"):
            prepare(config(data), tmp_path / "work", progress=False)
        path.rmdir() if path.is_dir() else path.unlink()
    for first in (True, False):
        names = [name for name in videos if name != "v007"]
        write_labels(data, [(name, "cat;dog") for name in (["v" * 300, *names] if first else [*names, "v" * 300])])
        with pytest.raises(
            DataError, match=r"v\.npy \(line \d+ of labels\.csv\): cannot be read \(.*\); shorten the id"
        ):
            prepare(config(data), tmp_path / "work", progress=False)


def text(content: str):
    return lambda data: (data / "labels.csv").write_bytes(content.encode("latin-1"))


def classes(content: str):
    return lambda data: (data / "classes.csv").write_text(content)


LABELS = [
    (lambda data: (data / "labels.csv").unlink(), r"labels\.csv: no such file; it lists the videos, docs/own_data\.md"),
    (text(""), r"labels\.csv: needs one column id, its first line has none"),
    (text("id;labels\nv000;cat\n"), r"needs one column id, its first line has id;labels; .*with commas"),
    (text("id,label\nv000,cat\n"), r"needs one column labels, its first line has id, label;"),
    (text("id,labels,id\nv000,cat,v1\n"), r"needs one column id, its first line has id, labels, id"),
    (text("id,labels,partition,partition\nv000,cat,train,test\n"), r"needs one column partition, its first line has"),
    (text("id,labels,Partition\nv000,cat,train\n"), r"column 'Partition' would be passed over; call it partition, or"),
    (text("id,labels,Labels\nv000,cat,dog\n"), r"column 'Labels' would be passed over; call it labels"),
    (text("id,split,labels\nv000,train,cat\n"), r"column 'split' would be passed over; call it partition, or rename"),
    (text("id,labels,Set\nv000,cat,1\n"), r"column 'Set' would be passed over; call it partition"),
    (text("id,labels,phase\nv000,cat,train\nv001,dog,\nv002,cat,Val\n"), r"column 'phase' says train, val and would be "
        "passed over; call it partition, with train, validate, test in it, or remove it"),
    (lambda data: (data / "Classes.csv").write_text("class\ncat\n"), r"Classes\.csv: would be passed over; call it c"),
    (text("id,labels\n"), r"labels\.csv: lists no video"),
    (text("id,labels\nv000,cat,dog\n"), r"line 2 has 3 cells, the header 2; put a name that holds a comma into quotes"),
    (text('id,labels\nv000,"cat\n'), r"line 2: cannot be read as CSV"),
    (text("id,labels\nv000,\xe9t\xe9\n"), r"line 2 is not UTF-8"),
    (text("id,labels\nv000, ; \n"), r"line 2: id v000 has no label; name at least one class"),
    (text("id,labels\n../v000,cat\n"), r"line 2: id '\.\./v000' cannot be the name of a file"),
    (text("id,labels\n,cat\n"), r"line 2: id '' cannot be the name of a file"),
    (text("id,labels,partition\nv000,cat,valid\n"), r"unknown partition 'valid'; did you mean validate\?"),
    (text("id,labels,partition\nv000,cat,train\n"), r"none of its 1 videos is of partition validate; name some"),
    (text("id,labels\nv000,cat\nw,dog\n"), r"rgb/w\.npy \(line 3 of labels\.csv\): no such file; add it, or remove"),
    (classes("class\nzoo\ncat\ndogs\n"), r"line 3: id v001 has the label 'dog', "
        r"which classes\.csv does not list; did you mean dogs\?"),
    (classes("name\ncat\n"), r"classes\.csv: needs one column class"),
    (classes("class,Groups\ncat,a\ndog,b\n"), r"classes\.csv: column 'Groups' would be passed over; call it groups"),
    (classes("class,group\ncat,a\ndog,b\n"), r"classes\.csv: column 'group' would be passed over; call it groups"),
    (classes("class,groups,groups\ncat,a,b\n"), r"classes\.csv: needs one column groups"),
    (classes("class\ncat\ndog, small\n"), r"classes\.csv: line 3 has 2 cells, the header 1; put a name that holds"),
    (classes("class\ncat\ncat\n"), r"line 3: class 'cat' is there twice"),
    (classes("class\ncat;dog\n"), r"class 'cat;dog' must be a name without ';'"),
    (classes("class\ncat\n"), r"classes\.csv .*only cat; .*two classes or more"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), LABELS, ids=[message[:40] for _, message in LABELS])
def test_bad_labels_are_named(tmp_path, spoil, message):
    data = write_folder(tmp_path / "data", {name: {"rgb": GOOD} for name in contents(12)})
    spoil(data)
    with pytest.raises(DataError, match=message):
        prepare(config(data), tmp_path / "work", progress=False)


def test_only_one_class(tmp_path):
    data = write_folder(tmp_path / "data", {name: {"rgb": GOOD} for name in contents(12)})
    write_labels(data, [(name, "cat") for name in contents(12)])
    with pytest.raises(DataError, match=r"labels\.csv, by name: only cat; a classifier needs two classes or more"):
        prepare(config(data), tmp_path / "work", progress=False)


def test_too_few_to_divide(tmp_path):
    """The remedy is one that arrays have: they have no other label space."""
    data = write_folder(tmp_path / "data", {name: {"rgb": GOOD} for name in contents(12)})
    rows = [(name, "cat;dog", "train" if number else "validate") for number, name in enumerate(contents(12))]
    write_labels(data, rows, header=("id", "labels", "partition"))
    with pytest.raises(DataError, match=r"split validation is empty; .*or say in the column partition of labels\.csv"):
        prepare(config(data), tmp_path / "work", progress=False)


def test_one_id_twice(tmp_path):
    data = write_folder(tmp_path / "data", {name: {"rgb": GOOD} for name in contents(12)})
    with open(data / "labels.csv", "a") as file:
        file.write("v003,dog\n")
    with pytest.raises(DataError, match=r"id v003 appears twice: .*labels\.csv: line 5, and .*labels\.csv: line 14;"):
        prepare(config(data), tmp_path / "work", progress=False)


@pytest.mark.parametrize(("video", "line"), [("v000", 2), ("v004", 6), ("v008", 10), ("v011", 13)])
def test_one_id_in_two_partitions(tmp_path, video, line):
    """Also the first and the last video of a partition."""
    names = list(contents(12))
    data = write_folder(tmp_path / "data", {name: {"rgb": GOOD} for name in names})
    rows = [(name, "cat;dog", ("train", "validate", "test")[number // 4]) for number, name in enumerate(names)]
    rows.append((video, "cat", "validate" if video == "v000" else "train"))
    write_labels(data, rows, header=("id", "labels", "partition"))
    with pytest.raises(DataError) as caught:
        prepare(config(data), tmp_path / "work", progress=False)
    assert f"id {video} appears twice: " in str(caught.value)
    for number in (line, 14):
        assert f"labels.csv: line {number}" in str(caught.value)


def test_bad_folders_are_named(tmp_path):
    def refused(folder, message):
        with pytest.raises(DataError, match=message):
            prepare(config(folder), tmp_path / "work", progress=False)

    empty = tmp_path / "empty"
    refused(empty, r"no such file or folder; set it to a folder with labels\.csv and, for each modality")
    empty.mkdir()
    refused(empty, r"empty/labels\.csv: no such file")
    write_labels(empty, [("v1", "cat"), ("v2", "dog")])
    refused(empty / "labels.csv", r"labels\.csv: is a file; set data\.path to a folder with labels\.csv")
    refused(empty, r"empty: holds no modality; a folder with labels\.csv")
    (empty / "v1.npy").write_bytes(save(GOOD))
    refused(empty, r"holds no modality; v1\.npy lies in it directly: move such files to .*empty/frames")
    (empty / "rgb.h5").write_bytes(b"none")
    refused(empty, r"rgb\.h5: cannot be read as HDF5 \(.*\); write it with h5py")
    (empty / "rgb").mkdir()
    refused(empty, r"rgb and rgb\.h5 are both modality rgb; remove one|rgb\.h5 and rgb are both")
    (empty / "rgb.h5").unlink()
    refused(empty, r"rgb/v1\.npy \(line 2 of labels\.csv\): no such file")
    (empty / "training").mkdir()
    refused(empty, r"training: a modality cannot be called 'training'; .*such as training_features")
    (empty / "training").rmdir()
    for name in ("two words", "2d", "+1", "a²", "+", "rgb.v2", "été 1"):
        (empty / name).mkdir()
        refused(
            empty, rf"{re.escape(name)}: a modality cannot be called '{re.escape(name)}'; .*, put _ before its name"
        )
        with pytest.raises(DataError) as caught:
            prepare(config(empty), tmp_path / "work", progress=False)
        [suggested] = re.findall(r"such as (\w+_features);", str(caught.value))
        (empty / name).rename(empty / suggested)
        refused(
            empty, r"v1\.npy \(line 2 of labels\.csv\): no such file; add it, or remove the row, or, if .* _ before"
        )
        (empty / suggested).rmdir()


def test_suffixes_in_capitals(made, tmp_path):
    """A modality in RGB.H5 must not be passed over in silence."""
    _, data, _, _ = made
    (tmp_path / "data").mkdir()
    for path, name in ((data / "labels.csv", "labels.csv"), (data / "audio.h5", "audio.H5"), (data / "rgb", "rgb")):
        (tmp_path / "data" / name).symlink_to(path)
    assert prepare(config(tmp_path / "data"), tmp_path, progress=False)["modalities"] == {"audio": 3, "rgb": 6}


def test_all_faults_are_told_at_once(tmp_path):
    """The fault it alone catches: one fault that hides the next, or an array that is not looked at."""
    folder = write_folder(tmp_path / "data", contents(30), hdf5=("audio",))
    assert list(faults(config(folder), progress=False)) == []
    (folder / "rgb" / "v001.npy").unlink()
    np.save(folder / "rgb" / "v003.npy", np.zeros((2, 5), np.float32))
    np.save(folder / "rgb" / "v004.npy", np.full_like(np.load(folder / "rgb" / "v004.npy"), np.nan))
    rows = [(name, ";".join(labels_of(name)), "train") for name in sorted(contents(12))]
    rows[6] = (rows[6][0], "", "train")
    rows[8] = (rows[8][0], "zoo", "training")
    write_labels(folder, [*rows, rows[0]], ("id", "labels", "partition"))
    told = list(faults(config(folder), progress=False))
    for line, words in zip(
        told,
        (
            r"v001\.npy \(line 3 of labels\.csv\): no such file",
            r"v003\.npy \(line 5 .*5 numbers a frame, but the first video's rgb has 6; .*save array\.T",
            r"v004\.npy \(line 6 .*no finite float32",
            r"line 8: id v006 has no label",
            r"line 10: id v008 has the unknown partition 'training'; did you mean",
            r"line 14: id v000 stands on line 2 too",
        ),
        strict=True,
    ):
        assert re.search(words, line), line
    with pytest.raises(DataError, match=r"v001\.npy"):  # which stops at the first
        prepare(config(folder), tmp_path / "work", progress=False)


def test_what_is_wrong_with_all_rows_together_is_told_too(tmp_path):
    folder = write_folder(tmp_path / "data", contents(12))
    write_labels(folder, [(name, "zoo", "train") for name in sorted(contents(12))], ("id", "labels", "partition"))
    told = list(faults(config(folder), progress=False))
    assert [bool(re.search(words, line)) for words, line in zip(
        ("no video is of partition validate", "a classifier needs two classes"), told, strict=True
    )] == [True, True]  # fmt: skip


def test_what_nothing_can_be_read_without_is_told_alone(tmp_path):
    folder = write_folder(tmp_path / "data", contents(3))
    (folder / "labels.csv").write_text("id;labels\nv000;cat\n")
    (told,) = faults(config(folder), progress=False)
    assert "needs one column id" in told


def test_the_command_tells_faults_and_how_many(tmp_path, capsys):
    folder = write_folder(tmp_path / "data", contents(12))
    names = enumerate(sorted(contents(12)))
    rows = [(name, ";".join(labels_of(name)), ("train", "validate")[number % 2]) for number, name in names]
    write_labels(folder, rows, ("id", "labels", "partition"))
    assert main(["check", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "nothing to mend; next: artpaper use arrays --path" in told
    frames = [len(video["rgb"]) for video in contents(12).values()]
    assert f"12 videos of {min(frames)} to {max(frames)} frames; audio 3 numbers a frame, rgb 6 numbers a frame" in told
    assert "train 6, validation 1, test 5 (partitions: column)" in told
    counts = Counter(label for _, labels, _ in rows for label in labels.split(";"))
    most = ", ".join(f"{name} ({counts[name]})" for name in sorted(counts, key=lambda name: (-counts[name], name)))
    assert f'labels are separated by ";"; 4 classes; most videos have: {most}\n' in told
    (folder / "rgb" / "v001.npy").unlink()
    np.save(folder / "rgb" / "v002.npy", np.zeros((40, 6), np.float32))
    assert main(["check", str(folder)]) == 1
    told = capsys.readouterr()
    assert "modalities of different lengths" in told.out
    assert told.err.endswith("2 to mend\n")
    assert main(["check", str(folder), "--set", "data.rates=mean"]) == 1
    told = capsys.readouterr()
    assert "v001.npy" in told.out
    assert told.err.endswith("1 to mend\n")
    assert main(["check", str(folder), "--set", "train.max_steps=3"]) == 1
    assert "depends on data.rates and data.separator alone" in capsys.readouterr().err
