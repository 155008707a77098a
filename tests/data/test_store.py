"""The frame store: zero copy, batches that can be reproduced from any point, and damaged folders."""

import errno
import hashlib
import os
import resource
import shutil
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.base.errors import DataError
from pipeline.data.store import BATCH_ROWS, FrameStore
from pipeline.data.store_writer import write_shard
from pipeline.data.video import Video
from pipeline.prepare import units
from pipeline.prepare.prepare import prepare
from tests.data.worlds import params, write_world


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    write_world(folder / "data", train=3, videos=37)  # 111 videos: several record batches, the last one short
    prepare(params(folder / "data"), folder, progress=False)
    return folder / "frames"


@pytest.fixture(scope="module")
def store(frames):
    return FrameStore(frames / "train")


def test_describes_itself(store):
    assert len(store) == 111
    assert store.modalities == {"rgb": 1024, "audio": 128}
    assert store.label_space.name == "h317"


def test_frames_are_views_of_the_mapped_file(store):
    before = pa.total_allocated_bytes()
    video = store[50]
    assert pa.total_allocated_bytes() == before
    assert not video.frames.flags.owndata
    assert not video.frames.flags.writeable
    assert video.frames.dtype == np.uint8
    again = store[50]
    assert video.frames.__array_interface__["data"] == again.frames.__array_interface__["data"]


def test_negative_and_outside_index(store):
    assert store[-1].id == store.ids[-1]
    with pytest.raises(IndexError, match="no video 111, it holds 111"):
        store[111]


def test_batches_hold_the_videos(store):
    position = 0
    for batch in store.batches(8, max_frames=4):
        assert batch.frames.dtype == torch.uint8
        assert batch.frames.shape[1] == batch.mask.sum(1).max()
        for row, name in enumerate(batch.ids):
            video = store[position]
            kept = video.frames[:4]
            assert name == video.id
            assert batch.mask[row].sum() == len(kept)
            assert batch.mask[row, : len(kept)].all()
            np.testing.assert_array_equal(batch.frames[row, : len(kept)].numpy(), kept)
            assert not batch.frames[row, len(kept) :].any()
            assert batch.labels[row].nonzero().flatten().tolist() == list(video.labels)
            assert batch.labels[row].sum() == len(video.labels)
            position += 1
    assert position == 111


def ids(batches):
    return [batch.ids for batch in batches]


def test_shuffling_is_reproducible_and_complete(store):
    first = ids(store.batches(16, max_frames=300, seed=3, epoch=1))
    assert first == ids(store.batches(16, max_frames=300, seed=3, epoch=1))
    assert [len(batch) for batch in first] == [16] * 6 + [15]
    assert Counter(name for batch in first for name in batch) == Counter(store.ids)
    others = [(None, 0), (3, 0), (3, 2), (4, 1)]
    assert all(ids(store.batches(16, max_frames=300, seed=s, epoch=e)) != first for s, e in others)
    assert ids(store.batches(16, max_frames=300)) == [store.ids[at : at + 16] for at in range(0, 111, 16)]


def test_start(store, monkeypatch):
    whole = ids(store.batches(16, max_frames=300, seed=3))
    reads = []
    monkeypatch.setattr(FrameStore, "_batch", lambda self, indices, _: reads.append(indices) or indices)
    list(store.batches(16, max_frames=300, seed=3, start=5))
    assert len(reads) == 2  # those before are not read
    monkeypatch.undo()
    assert ids(store.batches(16, max_frames=300, seed=3, start=2)) == whole[2:]
    assert ids(store.batches(16, max_frames=300, seed=3, start=6)) == whole[6:]
    assert ids(store.batches(16, max_frames=300, seed=3, start=7)) == []


@pytest.mark.parametrize("ahead", [1, 2, 5, 50])
def test_batches_made_ahead_are_the_same(store, ahead):
    plain = list(store.batches(16, max_frames=300, seed=3, start=1))
    made = list(store.batches(16, max_frames=300, seed=3, start=1, ahead=ahead))
    assert ids(made) == ids(plain)
    for one, other in zip(made, plain, strict=True):
        for part in ("frames", "mask", "labels"):
            assert torch.equal(getattr(one, part), getattr(other, part))


def test_no_more_is_made_ahead_than_asked_for(store, monkeypatch):
    made = []
    monkeypatch.setattr(FrameStore, "_batch", lambda self, indices, _: made.append(indices) or len(made))
    batches = store.batches(16, max_frames=300, ahead=2)
    next(batches)
    batches.close()  # which waits for those begun
    assert 1 <= len(made) <= 3


def test_an_error_ahead_is_raised_in_its_turn(store, monkeypatch):
    make = FrameStore._batch
    bad = store.ids[32]

    def broken(self, indices, most):
        batch = make(self, indices, most)
        if bad in batch.ids:
            raise DataError("damaged")
        return batch

    monkeypatch.setattr(FrameStore, "_batch", broken)
    batches = store.batches(16, max_frames=300, ahead=3)
    assert [len(next(batches).ids), len(next(batches).ids)] == [16, 16]
    with pytest.raises(DataError, match="damaged"):
        next(batches)


def test_subset(store):
    few = store.subset([5, 110, 0])
    assert few.ids == [store.ids[5], store.ids[110], store.ids[0]]
    np.testing.assert_array_equal(few[1].frames, store[110].frames)
    assert ids(few.batches(2, max_frames=9)) == [few.ids[:2], few.ids[2:]]
    assert len(store) == 111


def test_with_labels(store):
    wanted = store[5].labels[:1] + store[70].labels[-1:]
    expected = [place for place in range(len(store)) if set(store[place].labels) & set(wanted)]
    assert store.with_labels(wanted) == expected
    assert {5, 70} <= set(expected)
    assert len(expected) < len(store)
    some = [70, 3, 5]
    assert store.subset(some).with_labels(wanted) == [place for place, video in enumerate(some) if video in expected]
    assert store.with_labels([]) == store.subset([]).with_labels(wanted) == []


def test_fingerprint(frames, store):
    assert FrameStore(frames / "train").fingerprint == store.fingerprint
    others = [
        FrameStore(frames / "test"),
        FrameStore(frames / "validation"),
        store.subset([0, 1]),
        store.subset([1, 0]),
    ]
    assert len({store.fingerprint, *(other.fingerprint for other in others)}) == 5

    large = store.subset((np.arange(70_000) % len(store)).tolist())  # its names are read in parts
    told = hashlib.sha256(np.tile(store._places[:, 1:], (1000, 1))[:70_000].tobytes())
    told.update("\n".join((store.ids * 1000)[:70_000]).encode())
    told.update(repr((store.label_space, store.modalities)).encode())
    assert large.fingerprint == told.hexdigest()[:16]


def test_validation_and_test_share_shards(frames):
    shards = {path.name for path in (frames / "shards").iterdir()}
    assert shards == {"train-00000.arrow", "validate-00000.arrow"}
    assert not set(FrameStore(frames / "validation").ids) & set(FrameStore(frames / "test").ids)


def test_moved_folder_is_read(frames, tmp_path):
    shutil.copytree(frames, tmp_path / "elsewhere")
    assert FrameStore(tmp_path / "elsewhere" / "test")[0].frames.shape[1] == 1152


def test_damaged_folders(frames, tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no frame store .*run the prepare stage"):
        FrameStore(tmp_path / "nowhere")
    copy = tmp_path / "copy"
    shutil.copytree(frames, copy)
    (copy / "shards" / "validate-00000.arrow").write_bytes(b"half")
    with pytest.raises(DataError, match=r"validate-00000\.arrow: missing or damaged shard"):
        FrameStore(copy / "test")[0]
    (copy / "test" / "store.json").write_text('{"format": 0}')
    with pytest.raises(DataError, match=r"format 0, expected 1"):
        FrameStore(copy / "test")
    (copy / "train" / "index.arrow").write_bytes(b"")
    with pytest.raises(DataError, match="no frame store"):
        FrameStore(copy / "train")


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    write_world(folder / "data", train=80, videos=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "UNIT_BYTES", 1)  # no two shards of the source become one
        prepare(params(folder / "data"), folder, progress=False)
    assert len(list((folder / "frames" / "shards").glob("train-*"))) == 80
    return folder / "frames" / "train"


def test_shuffled_passes_open_each_shard_once(many_shards, monkeypatch):
    opened, memory_map = [], pa.memory_map
    store = FrameStore(many_shards)
    monkeypatch.setattr(pa, "memory_map", lambda path: opened.append(path) or memory_map(path))
    for epoch in (0, 1):
        assert sum(len(batch.ids) for batch in store.batches(8, max_frames=4, seed=0, epoch=epoch)) == len(store)
    assert len(opened) == len(set(opened)) == 80


def test_few_descriptors_suffice_for_many_shards(many_shards, monkeypatch):
    """A quarter of those that the process may have, as three splits may be open at once."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    store, before = FrameStore(many_shards), len(os.listdir("/proc/self/fd"))
    read = 0
    for batch in store.batches(8, max_frames=4, seed=0):
        read += len(batch.ids)
        assert len(os.listdir("/proc/self/fd")) <= before + 64 // 4
    assert read == len(store)
    assert len(os.listdir("/proc/self/fd")) > before


def stored(count):
    return ((Video(str(number), (0,), (np.ones((300, 3), np.uint8),)), (0,)) for number in range(count))


def test_a_full_disk_is_told_though_another_thread_writes():
    with pytest.raises(OSError, match="No space left on device") as told:
        write_shard("/dev/full", stored(BATCH_ROWS * 100), {"rgb": 3})
    assert told.value.errno == errno.ENOSPC


def test_what_fails_in_reading_is_told_though_another_thread_writes(tmp_path):
    def videos():
        yield from stored(BATCH_ROWS + 1)
        raise DataError("this video is damaged")

    with pytest.raises(DataError, match="this video is damaged"):
        write_shard(tmp_path / "shard", videos(), {"rgb": 3})
