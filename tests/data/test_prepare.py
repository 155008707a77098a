"""The prepare stage end to end: contents, splits, resuming after a kill, errors, and a former result left alone."""

import contextlib
import dataclasses
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.base.errors import DataError, OutputError
from pipeline.base.groups import Base, Compute, Data
from pipeline.base.parameters import Params
from pipeline.data.splits import validation_size
from pipeline.data.store import FrameStore
from pipeline.prepare import units
from pipeline.prepare.prepare import prepare
from pipeline.records.tfrecord import YT8M_MODALITIES, Video, write_videos
from tests.data.worlds import UNKNOWN, folder_bytes, make_videos, params, write_world

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set, its videos by id, the workspace it was prepared in, and the summary."""
    folder = tmp_path_factory.mktemp("world")
    videos = write_world(folder / "data")
    return folder / "data", videos, folder / "work", prepare(params(folder / "data"), folder / "work", progress=False)


def test_every_video_arrives(made):
    _, videos, work, summary = made
    paths = (work / "frames" / "shards").iterdir()
    shards = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in paths]
    entities = {row["id"]: row["entities"] for shard in shards for row in shard.select(["id", "entities"]).to_pylist()}
    found = {}
    for split in SPLITS:
        store = FrameStore(work / "frames" / split)
        assert len(store) == summary["splits"][split]["videos"] == len(store.ids)
        for index, name in enumerate(store.ids):
            stored = store[index]
            assert stored.id == name
            np.testing.assert_array_equal(stored.frames, videos[name].frames)
            assert tuple(entities[name]) == videos[name].labels
            verticals = {entity % 24 for entity in entities[name]}  # the world's rule
            assert {label for label in stored.labels if label < 24} == verticals
            found[name] = split
    assert found.keys() == videos.keys()
    assert all((split == "train") == name.startswith("t") for name, split in found.items())
    assert summary == json.loads((work / "frames" / "summary.json").read_text())
    assert summary["splits"]["validation"]["videos"] == 16  # a fifth of 80
    assert not list((work / ".resume").iterdir())


def test_split_is_the_smallest_keyed_hashes(made):
    """Recomputed here from the id and the seed alone."""
    import hashlib

    _, videos, work, _ = made
    names = [name for name in videos if name.startswith("v")]

    def value(name):
        return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, key=b"0").digest(), "little")

    chosen = set(sorted(names, key=value)[:16])
    assert set(FrameStore(work / "frames" / "validation").ids) == chosen
    with gzip.open(work / "frames" / "validation" / "ids.txt.gz", "rt") as file:
        assert set(file.read().split()) == chosen


def test_split_ignores_file_order(made, tmp_path):
    data, _, work, _ = made
    for path in data.iterdir():
        os.link(path, tmp_path / path.name.replace("validate0000", "validate9999"))
    prepare(params(tmp_path), tmp_path / "work", progress=False)
    before, after = (FrameStore(place / "frames" / "validation").ids for place in (work, tmp_path / "work"))
    assert sorted(before) == sorted(after)


@pytest.mark.parametrize(
    ("videos", "wanted", "expected"),
    [(1_112_356, 64_000, 64_000), (500_000, 64_000, 64_000), (10_000, 64_000, 2_000), (4, 64_000, 0), (80, 10, 10)],
)
def test_validation_size(videos, wanted, expected):
    assert validation_size(videos, wanted) == expected


def test_a_second_run_changes_no_byte(made, tmp_path, monkeypatch):
    data, _, work, _ = made
    assert prepare(params(data), tmp_path / "again", progress=False)
    expected = folder_bytes(work / "frames")
    assert folder_bytes(tmp_path / "again" / "frames") == expected
    monkeypatch.setattr(units, "UNIT_BYTES", 1)  # one shard a unit
    prepare(params(data), tmp_path / "alone", progress=False)
    alone = folder_bytes(tmp_path / "alone" / "frames")
    assert len(alone) == len(expected) + 3  # five shards instead of two
    prepare(params(data), tmp_path / "alone", progress=False)
    assert folder_bytes(tmp_path / "alone" / "frames") == alone


CHILD = """
import sys
from pathlib import Path
from pipeline.prepare import units
from pipeline.prepare.prepare import prepare
from tests.data.worlds import params
units.UNIT_BYTES = units.PROCESS_BYTES = 1
if __name__ == "__main__":
    prepare(params(Path(sys.argv[1]), workers=2), Path(sys.argv[2]), progress=False)
"""


def test_killed_run_goes_on(tmp_path, monkeypatch):
    """kill -9 while two processes write: none is left behind, the second run keeps the finished units, same bytes."""
    data, work, script = tmp_path / "data", tmp_path / "work", tmp_path / "run.py"
    write_world(data, train=6, videos=4)
    long = make_videos([f"long{number}" for number in range(500)], frames=(100, 100))
    write_videos(data / "train9999.tfrecord", long, YT8M_MODALITIES)
    script.write_text(CHILD)
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    child = subprocess.Popen([sys.executable, str(script), str(data), str(work)], cwd=root, env=environment)
    deadline = time.monotonic() + 120
    while not list(work.glob(".resume/prepare-*/frames/shards/.train-00006.arrow.*")):  # the long one is being written
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    workers = [Path("/proc") / number for number in children.read_text().split()] if children.exists() else []
    child.send_signal(signal.SIGKILL)
    child.wait()
    while any(_running(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (work / "frames").exists()
    [resume] = work.glob(".resume/prepare-*")
    finished = {shard_of(path) for path in resume.glob("listings/train-*.arrow")}
    assert len(finished) >= 5
    assert "train-00006.arrow" not in finished
    made = {name: (resume / "frames" / "shards" / name).stat().st_ino for name in finished}

    monkeypatch.setattr(units, "UNIT_BYTES", 1)
    prepare(params(data), work, progress=False)
    prepare(params(data), tmp_path / "undisturbed", progress=False)
    assert folder_bytes(work / "frames") == folder_bytes(tmp_path / "undisturbed" / "frames")
    assert {name: (work / "frames" / "shards" / name).stat().st_ino for name in finished} == made
    assert not list((work / ".resume").iterdir())


def test_finished_units_are_not_made_again(tmp_path, monkeypatch):
    data = tmp_path / "data"
    write_world(data, train=3, validate=2, videos=8)
    monkeypatch.setattr(units, "UNIT_BYTES", 1)
    prepare(params(data), tmp_path / "undisturbed", progress=False)
    assert len(_interrupted(data, tmp_path / "work", monkeypatch, 3)) == 3
    [shards] = tmp_path.glob("work/.resume/prepare-*/frames/shards")
    (shards / ".validate-00000.arrow.x1.arrow").write_bytes(b"half")
    (shards / "train-00001.arrow").write_bytes(b"")  # a loss of power: its listing was on the disk, it was not
    made = _interrupted(data, tmp_path / "work", monkeypatch, 9)
    assert made == ["train-00001.arrow", "validate-00000.arrow", "validate-00001.arrow"]
    assert folder_bytes(tmp_path / "work" / "frames") == folder_bytes(tmp_path / "undisturbed" / "frames")


def shard_of(listing: Path) -> str:
    """A listing carries the state of what it was made from; its shard has the name that stays."""
    return re.sub(r"-[0-9a-f]{16}(?=\.arrow$)", "", listing.name)


def _interrupted(data: Path, work: Path, monkeypatch: pytest.MonkeyPatch, units_made: int) -> list[str]:
    """Prepare until so many units are made; their shards, or all that were made where that many are not needed."""
    make, made = units.make_unit, []

    def counted(unit, label_space):
        if len(made) == units_made:
            raise KeyboardInterrupt
        made.append(unit.shard.name)
        make(unit, label_space)

    with monkeypatch.context() as patch:
        patch.setattr(units, "make_unit", counted)
        with contextlib.suppress(KeyboardInterrupt):
            prepare(params(data), work, progress=False)
    return made


def test_only_units_whose_files_changed_are_made_again(tmp_path, monkeypatch):
    """A shard replaced, put back, added and taken away: what is finished stays, and no byte is of a former file."""
    data, work = tmp_path / "data", tmp_path / "work"
    write_world(data, train=4, validate=2, videos=8)
    monkeypatch.setattr(units, "UNIT_BYTES", 1)
    assert _interrupted(data, work, monkeypatch, 4) == [f"train-0000{number}.arrow" for number in range(4)]
    former = data / "train0001.tfrecord"
    former.rename(tmp_path / "former")
    write_videos(former, make_videos(["other1", "other2"]), YT8M_MODALITIES)
    assert _interrupted(data, work, monkeypatch, 1) == ["train-00001.arrow"]
    former.unlink()
    (tmp_path / "former").rename(former)
    assert _interrupted(data, work, monkeypatch, 1) == ["train-00001.arrow"]
    write_videos(data / "train0009.tfrecord", make_videos(["more"]), YT8M_MODALITIES)
    assert _interrupted(data, work, monkeypatch, 1) == ["train-00004.arrow"]
    (data / "train0009.tfrecord").unlink()
    assert _interrupted(data, work, monkeypatch, 9) == ["validate-00000.arrow", "validate-00001.arrow"]
    prepare(params(data), tmp_path / "undisturbed", progress=False)
    assert folder_bytes(work / "frames") == folder_bytes(tmp_path / "undisturbed" / "frames")


def test_unfinished_work_for_other_parameters_or_of_another_reader_is_deleted(tmp_path, monkeypatch):
    data, work = tmp_path / "data", tmp_path / "work"
    write_world(data, train=3, validate=2, videos=8)
    monkeypatch.setattr(units, "UNIT_BYTES", 1)
    _interrupted(data, work, monkeypatch, 2)
    [before] = work.glob(".resume/prepare-*")
    keep = work / ".resume" / "train-of-another-stage"
    keep.mkdir()
    changed = dataclasses.replace(params(data), base=Base(seed=1))
    with monkeypatch.context() as patch:
        patch.setattr(units, "write_shard", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(changed, work, progress=False)
    [after] = work.glob(".resume/prepare-*")
    assert after != before
    assert keep.is_dir()
    monkeypatch.setattr("pipeline.prepare.prepare.code", lambda module: f"{module}, changed")
    _interrupted(data, work, monkeypatch, 1)
    [read_otherwise] = work.glob(".resume/prepare-*")
    assert read_otherwise not in (before, after)


def _running(process: Path) -> bool:
    try:
        return ") Z" not in (process / "stat").read_text()
    except OSError:
        return False


def test_videos_without_class_are_counted(tmp_path):
    data = tmp_path / "data"
    write_world(data, train=1, validate=1, videos=20)
    odd = [Video(name, (UNKNOWN,), (np.zeros((2, 1152), np.uint8),)) for name in ("u1", "u2")]
    write_videos(data / "train0001.tfrecord", odd, YT8M_MODALITIES)
    summary = prepare(params(data), tmp_path / "work", progress=False)
    assert summary["partitions"]["train"] == {"videos_read": 22, "left_out_without_class": 2}
    assert summary["splits"]["train"]["videos"] == 20
    assert summary["splits"]["validation"]["videos"] == 4
    assert summary["splits"]["test"]["videos"] == 16
    labels = [set(video.labels) for video in map(FrameStore(tmp_path / "work/frames/train").__getitem__, range(20))]
    assert summary["classes_without_train_video"] == 317 - len(set().union(*labels))
    assert "u1" not in FrameStore(tmp_path / "work/frames/train").ids


@pytest.mark.parametrize("partition", ["train", "validate"])
def test_duplicate_ids(tmp_path, partition):
    data = tmp_path / "data"
    write_world(data, train=2, videos=10)
    write_videos(data / f"{partition}0007.tfrecord", make_videos(["new", "t1-3"]), YT8M_MODALITIES)
    with pytest.raises(DataError, match=rf"id t1-3 appears twice: .*train0001\.tfrecord: record 3, and "
                                        rf".*{partition}0007\.tfrecord: record 1; remove"):  # fmt: skip
        prepare(params(data), tmp_path / "work", progress=False)


def test_errors_leave_the_former_frames(made, tmp_path):
    """A damaged shard, a foreign label, an empty split and a full disk: named, and nothing half-made in the way."""
    data, _, _, _ = made
    work = tmp_path / "work"
    prepare(params(data), work, progress=False)
    former = folder_bytes(work / "frames")
    bad = tmp_path / "bad"
    write_world(bad, train=1, validate=1, videos=10)
    whole = (bad / "train0000.tfrecord").read_bytes()

    (bad / "train0000.tfrecord").write_bytes(whole[:-7])
    with pytest.raises(DataError, match=r"train0000\.tfrecord: record 9: .*truncated"):
        prepare(params(bad), work, progress=False)
    foreign = Video("far", (4000,), (np.zeros((1, 1152), np.uint8),))
    write_videos(bad / "train0000.tfrecord", [*make_videos(["ok"]), foreign], YT8M_MODALITIES)
    with pytest.raises(DataError, match=r"train0000\.tfrecord: record 1 \(id far\): label 4000 is outside"):
        prepare(params(bad), work, progress=False)
    unknown = Video("u", (UNKNOWN,), (np.zeros((1, 1152), np.uint8),))
    write_videos(bad / "train0000.tfrecord", [unknown], YT8M_MODALITIES)
    with pytest.raises(DataError, match=r"split train is empty; partition train has 1 videos, 0 of them with a class"):
        prepare(params(bad), work, progress=False)
    (bad / "train0000.tfrecord").write_bytes(whole)
    write_videos(bad / "validate0000.tfrecord", make_videos(["a", "b"]), YT8M_MODALITIES)
    with pytest.raises(DataError, match=r"split validation is empty"):
        prepare(params(bad), work, progress=False)
    assert folder_bytes(work / "frames") == former


def test_full_disk(made, tmp_path, monkeypatch):
    data, _, _, _ = made

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(units, "write_shard", full)
        with pytest.raises(OutputError, match=r"no space left on this disk; free some, or move the folder.*is kept"):
            prepare(params(data), tmp_path, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
        with pytest.raises(OutputError, match=r"0\.0 GB needed, 0\.0 GB free.*no space left on this disk"):
            prepare(params(data), tmp_path, progress=False)
    assert not (tmp_path / "frames").exists()
    assert not list(tmp_path.glob(".resume/*/frames/shards/*"))
    prepare(params(data), tmp_path, progress=False)


def test_audioset_archive(real_data, tmp_path):
    """Every clip of the real archive: none dropped, the label sets as TensorFlow reads them."""
    import tarfile

    import tensorflow as tf

    archive = real_data("audioset/features.tar.gz")
    config = Params(
        data=Data(source="audioset", path=str(archive), label_space="audioset527"), compute=Compute(workers=1)
    )
    summary = prepare(config, tmp_path, progress=False)
    assert summary["partitions"]["train"] == {"videos_read": 22160, "left_out_without_class": 0}
    assert summary["splits"]["train"]["videos"] == 22160
    assert summary["splits"]["validation"]["videos"] + summary["splits"]["test"]["videos"] == 10114
    assert summary["modalities"] == {"audio": 128}
    store = FrameStore(tmp_path / "frames/train")
    at = {name: index for index, name in enumerate(store.ids)}
    assert len(at) == 22160
    with tarfile.open(archive) as tar:
        members = (member for member in tar if member.name.endswith(".tfrecord") and "bal_train" in member.name)
        for member in (next(members) for _ in range(20)):
            tar.extract(member, tmp_path, filter="data")
            for one in tf.data.TFRecordDataset(str(tmp_path / member.name)):
                example = tf.train.SequenceExample.FromString(one.numpy())
                context, lists = example.context.feature, example.feature_lists.feature_list
                stored = store[at[context["video_id"].bytes_list.value[0].decode()]]
                assert list(stored.labels) == sorted(context["labels"].int64_list.value)
                frames = b"".join(frame.bytes_list.value[0] for frame in lists["audio_embedding"].feature)
                assert stored.frames.tobytes() == frames
