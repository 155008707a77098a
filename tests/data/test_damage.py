"""Damaged shards among good ones, and frames that change after they were prepared."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.base.errors import ConfigError, DataError
from pipeline.base.parameters import Params, build, load_params
from pipeline.data.store import FrameStore
from pipeline.predict.files import describe
from pipeline.prepare import units
from pipeline.prepare.prepare import prepare
from pipeline.prepare.verify import verify
from pipeline.records.tfrecord import YT8M_MODALITIES, Video, write_videos
from tests.data.worlds import folder_bytes, make_videos, params, write_world

SPLITS = ("train", "validation", "test")
CUT = "record 7: the file ends inside this record (truncated): download that shard again"


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[Path, set[str]]:
    """A data set whose second shard of each partition is damaged, and the ids of its good shards."""
    data = tmp_path / "data"
    videos = write_world(data, train=3, validate=3, videos=8)
    for name in ("train0001", "validate0001"):
        path = data / f"{name}.tfrecord"
        path.write_bytes(path.read_bytes()[:-5])
    return data, {name for name in videos if not name.startswith(("t1-", "v1-"))}


def ids(work: Path) -> list[str]:
    return [name for split in SPLITS for name in FrameStore(work / "frames" / split).ids]


@pytest.mark.parametrize("unit", [1, 1 << 26], ids=["a shard a unit", "all shards in one"])
def test_a_damaged_shard_is_left_out_whole_and_named(damaged, tmp_path, monkeypatch, capsys, unit):
    data, good = damaged
    monkeypatch.setattr(units, "UNIT_BYTES", unit)
    with pytest.raises(DataError, match=r"train0001\.tfrecord: record 7: the file ends"):
        prepare(params(data), tmp_path / "fail", progress=False)
    summary = prepare(params(data, damaged="skip"), tmp_path / "skip", progress=False)
    told = [{"partition": name, "shard": f"{name}0001.tfrecord", "reason": CUT} for name in ("train", "validate")]
    assert summary["damaged"] == told
    assert json.loads((tmp_path / "skip" / "frames" / "summary.json").read_text())["damaged"] == told
    assert summary["partitions"]["train"]["videos_read"] == 16
    said = capsys.readouterr().err
    assert "left out 2 damaged of 6 shards" in said
    assert f"validate: validate0001.tfrecord: {CUT}" in said
    found = ids(tmp_path / "skip")
    assert len(found) == len(set(found))
    assert set(found) == good
    for split in SPLITS:
        assert FrameStore(tmp_path / "skip/frames" / split).damaged == [
            "train: train0001.tfrecord", "validate: validate0001.tfrecord"
        ]  # fmt: skip


def test_where_it_breaks_and_how_it_was_run_changes_no_byte(damaged, tmp_path, monkeypatch):
    data, _ = damaged
    skip = params(data, damaged="skip")
    prepare(skip, tmp_path / "at once", progress=False)
    monkeypatch.setattr(units, "UNIT_BYTES", 1)
    prepare(skip, tmp_path / "alone", progress=False)
    with pytest.raises(DataError):
        prepare(params(data), tmp_path / "resumed", progress=False)  # stops at the second shard
    assert len([*(tmp_path / "resumed").glob(".resume/prepare-*/listings/*")]) == 1
    prepare(skip, tmp_path / "resumed", progress=False)
    assert folder_bytes(tmp_path / "resumed" / "frames") == folder_bytes(tmp_path / "alone" / "frames")
    for name, size in (("train0001", 30), ("validate0001", 9000)):  # broken elsewhere
        path = data / f"{name}.tfrecord"
        path.write_bytes(path.read_bytes()[:size])
    prepare(skip, tmp_path / "elsewhere", progress=False)
    assert ids(tmp_path / "elsewhere") == ids(tmp_path / "at once")
    for split in SPLITS:
        one, other = (FrameStore(tmp_path / name / "frames" / split) for name in ("elsewhere", "alone"))
        assert one.fingerprint == other.fingerprint


def test_what_one_run_skipped_another_that_must_not_refuses(damaged, tmp_path, monkeypatch):
    """Units are finished with a shard left out; then the parameter is set back before the stage is done."""
    data, _ = damaged
    monkeypatch.setattr(units, "UNIT_BYTES", 1)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.prepare.prepare.read_listings", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(params(data, damaged="skip"), tmp_path, progress=False)
    with pytest.raises(DataError, match=r"train0001\.tfrecord: record 7: .*or set data\.damaged to skip"):
        prepare(params(data), tmp_path, progress=False)
    assert not (tmp_path / "frames").exists()


def test_every_shard_damaged(tmp_path):
    data = tmp_path / "data"
    write_world(data, train=2, validate=1, videos=8)
    for path in data.glob("train*"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"split train is empty.*2 damaged shards were left out: download them again"):
        prepare(params(data, damaged="skip"), tmp_path, progress=False)


def test_predictions_and_nothing_else_say_what_was_left_out(damaged, tmp_path):
    data, _ = damaged
    prepare(params(data, damaged="skip"), tmp_path, progress=False)
    prepare(params(data.parent / "data", damaged="skip"), tmp_path, progress=False)
    note = {"best_step": 1, "best_validation_gap": 0.5}
    store = FrameStore(tmp_path / "frames/test")
    assert describe(Params(), "art", 0, note, store)["damaged_shards"] == store.damaged
    store.damaged = []
    assert "damaged_shards" not in describe(Params(), "art", 0, note, store)


def test_arrays_are_mended_in_their_own_list():
    with pytest.raises(ConfigError, match=r"damaged 'skip' is for shards; .*remove the video's row from labels\.csv"):
        build(Params, {"data": {"source": "arrays", "label_space": "given", "damaged": "skip"}}, "test")
    assert load_params("profiles/paper.yaml").data.damaged == "fail"


@pytest.fixture
def made(tmp_path: Path) -> tuple[Params, Path]:
    write_world(tmp_path / "data", train=2, validate=2, videos=8)
    prepare(params(tmp_path / "data"), tmp_path / "work", progress=False)
    return params(tmp_path / "data"), tmp_path / "work"


def test_a_changed_shard_is_noticed(made):
    config, work = made
    assert verify(config, work, progress=False) == (
        "2 shards are as they were written; 4 shards of the source have the size they had"
    )
    path = work / "frames" / "shards" / "train-00000.arrow"
    whole = path.read_bytes()
    path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    with pytest.raises(DataError, match=r"^\S+train-00000\.arrow: other bytes than were written\nbring them back with"):
        verify(config, work, progress=False)
    path.write_bytes(whole + b"x" * 8)
    with pytest.raises(DataError, match=r"train-00000\.arrow: has [\d,]+ bytes, [\d,]+ were written"):
        verify(config, work, progress=False)
    store = FrameStore(work / "frames" / "train")
    with pytest.raises(DataError, match=r"train-00000\.arrow: missing or damaged shard \([\d,]+ bytes, [\d,]+ were"):
        store[0]
    path.unlink()
    with pytest.raises(DataError, match=r"train-00000\.arrow: is gone"):
        verify(config, work, progress=False)


def test_hashes_are_those_of_the_files(made):
    import hashlib

    _, work = made
    known = json.loads((work / "frames" / "shards.json").read_text())["shards"]
    shards = {path.name: path for path in (work / "frames" / "shards").iterdir()}
    assert known == {
        name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for name, path in shards.items()
    }


def test_a_changed_source_is_noticed(made):
    config, work = made
    source = Path(config.data.path)
    (source / "train0000.tfrecord").unlink()
    with pytest.raises(DataError, match=r"train: train0000\.tfrecord: \d+ bytes when it was prepared, none now"):
        verify(config, work, progress=False)


def test_a_store_of_before_there_were_hashes_still_opens(made):
    config, work = made
    before = FrameStore(work / "frames" / "train").fingerprint
    (work / "frames" / "shards.json").unlink()
    store = FrameStore(work / "frames" / "train")
    assert store[0].id
    assert store.fingerprint == before
    with pytest.raises(DataError, match=r"shards\.json: nothing to compare with .*run the prepare stage again"):
        verify(config, work, progress=False)


def test_labels_of_another_vocabulary_are_no_damage(damaged, tmp_path):
    """They are the parameters' fault, and would empty every shard."""
    data, _ = damaged
    foreign = Video("far", (4000,), (np.zeros((1, 1152), np.uint8),))
    write_videos(data / "train0002.tfrecord", [*make_videos(["ok"]), foreign], YT8M_MODALITIES)
    with pytest.raises(DataError, match=r"train0002\.tfrecord: record 1 \(id far\): label 4000 is outside"):
        prepare(params(data, damaged="skip"), tmp_path, progress=False)
