"""Reading: real shards byte for byte, and every way a shard can be wrong."""

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from artpaper.data.tfrecord import AUDIOSET_MODALITIES, YT8M_MODALITIES, Video, read_videos, write_videos
from artpaper.errors import DataError
from tests.data.worlds import make_videos

GOOD = {"id": [b"abcd"], "labels": [11]}


def record(context=GOOD, rgb=(1024, 1024), audio=(128, 128), raw=None) -> bytes:
    """A SequenceExample with frames of the given numbers of bytes."""
    example = tf.train.SequenceExample()
    for key, values in context.items():
        feature = example.context.feature[key]
        (feature.int64_list if isinstance(values[0], int) else feature.bytes_list).value.extend(values)
    for name, widths in (("rgb", rgb), ("audio", audio)):
        if widths is not None:
            features = example.feature_lists.feature_list[name].feature
            for width in widths:
                features.add().bytes_list.value.append(bytes(width))
    return example.SerializeToString()


def write_records(path: Path, *records: bytes) -> Path:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for one in records:
            writer.write(one)
    return path


def parse_with_tensorflow(path: Path, widths: dict[str, int]) -> list[tuple[bytes, list[int], np.ndarray]]:
    """The independent way: TensorFlow's own parser of sequence examples."""
    found = []
    for one in tf.data.TFRecordDataset(str(path)):
        context, lists = tf.io.parse_single_sequence_example(
            one,
            context_features={"id": tf.io.FixedLenFeature([], tf.string), "labels": tf.io.VarLenFeature(tf.int64)},
            sequence_features={name: tf.io.FixedLenSequenceFeature([], tf.string) for name in widths},
        )
        frames = np.concatenate([tf.io.decode_raw(lists[name], tf.uint8).numpy() for name in widths], axis=1)
        found.append((context["id"].numpy(), context["labels"].values.numpy().tolist(), frames))
    return found


def test_real_video_byte_for_byte(real_data):
    path = real_data("yt8m/frame_level_one_video.tfrecord")
    [video] = read_videos(path, YT8M_MODALITIES)
    [(name, labels, frames)] = parse_with_tensorflow(path, {"rgb": 1024, "audio": 128})
    assert (video.id.encode(), list(video.labels), len(video.frames)) == (name, labels, 170)
    np.testing.assert_array_equal(video.frames, frames)


@pytest.mark.parametrize("shard", ["validate0000.tfrecord", "validate0001.tfrecord"])
def test_real_video_level_shard_is_refused(real_data, shard):
    with pytest.raises(DataError, match=rf"{shard}: record 0: .*video-level shard; frame-level shards are needed"):
        list(read_videos(real_data(f"yt8m/video_level/{shard}"), YT8M_MODALITIES))


def test_written_videos_come_back(tmp_path):
    videos = make_videos([f"v{number}" for number in range(20)], frames=(1, 300))
    assert write_videos(tmp_path / "a.tfrecord", videos, YT8M_MODALITIES) == 20
    reference = parse_with_tensorflow(tmp_path / "a.tfrecord", {"rgb": 1024, "audio": 128})
    for video, found, (_, _, frames) in zip(
        videos, read_videos(tmp_path / "a.tfrecord", YT8M_MODALITIES), reference, strict=True
    ):
        assert (found.id, found.labels) == (video.id, video.labels)
        np.testing.assert_array_equal(found.frames, video.frames)
        np.testing.assert_array_equal(found.frames, frames)


def test_id_key_of_audioset(tmp_path):
    video = Video("a-_b", (3, 500), np.arange(1280, dtype=np.uint8).reshape(10, 128))
    write_videos(tmp_path / "a.tfrecord", [video], AUDIOSET_MODALITIES, id_key="video_id")
    [found] = read_videos(tmp_path / "a.tfrecord", AUDIOSET_MODALITIES)
    assert (found.id, found.labels) == ("a-_b", (3, 500))
    np.testing.assert_array_equal(found.frames, video.frames)


def test_unusual_but_valid_encoding(tmp_path):
    """Frames split in two byte strings and a repeated context are legal protobuf, and take the slow way."""
    example = tf.train.SequenceExample()
    for name, width in (("rgb", 1024), ("audio", 128)):
        feature = example.feature_lists.feature_list[name].feature.add()
        feature.bytes_list.value.extend([bytes([7]) * (width // 2)] * 2)
    first, second = (tf.train.SequenceExample() for _ in range(2))
    first.context.feature["id"].bytes_list.value.append(b"abcd")
    second.context.feature["labels"].int64_list.value.append(5)
    raw = b"".join(part.SerializeToString() for part in (first, example, second))
    [video] = read_videos(write_records(tmp_path / "a.tfrecord", raw), YT8M_MODALITIES)
    assert (video.id, video.labels) == ("abcd", (5,))
    np.testing.assert_array_equal(video.frames, np.full((1, 1152), 7, np.uint8))


BAD = {
    "no id": (record({"labels": [1]}), r"has no id; its context holds labels, expected id or video_id"),
    "empty id": (record({"id": [b""], "labels": [1]}), r"has no id"),
    "no labels": (record({"id": [b"abcd"]}), r"\(id abcd\): has no labels"),
    "no audio": (record(audio=None), r"\(id abcd\): has no feature list audio, found rgb"),
    "narrow frame": (record(rgb=(1024, 1000)), r"\(id abcd\): frame 1 of rgb holds 1000 bytes, expected 1024"),
    "same narrow frames": (record(rgb=(1000, 1000)), r"frame 0 of rgb holds 1000 bytes, expected 1024"),
    "lengths": (record(audio=(128,)), r"\(id abcd\): modalities of different lengths, in frames: rgb 2, audio 1"),
    "no frames": (record(rgb=(), audio=()), r"\(id abcd\): has no frames"),
    "garbage": (b"\x0a\xff\xff\x07 garbage", r"is no tf.train.SequenceExample"),
    "text": (b"hello world", r"is no tf.train.SequenceExample"),
    "video level": (record({**GOOD, "mean_rgb": [b"x"]}), r"video-level shard; frame-level shards are needed"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_record(tmp_path, name):
    bad, message = BAD[name]
    path = write_records(tmp_path / "bad.tfrecord", record(), bad)
    with pytest.raises(DataError, match=rf"bad\.tfrecord: record 1\b.*{message}") as raised:
        list(read_videos(path, YT8M_MODALITIES))
    assert re.search(r"again|needed|use |expected|download", str(raised.value))


def test_every_truncation_is_noticed(tmp_path):
    whole = write_records(tmp_path / "whole.tfrecord", record(), record()).read_bytes()
    path = tmp_path / "cut.tfrecord"
    for end in [*range(1, len(whole) // 2, 97), *range(len(whole) // 2 + 1, len(whole), 61), len(whole) - 1]:
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match=r"cut\.tfrecord: .*(truncated|cut off).*download that shard again"):
            list(read_videos(path, YT8M_MODALITIES))


def test_flipped_bits_are_noticed(tmp_path):
    whole = bytearray(write_records(tmp_path / "whole.tfrecord", record(), record()).read_bytes())
    path = tmp_path / "flipped.tfrecord"
    for at in range(len(whole) // 2 + 12, len(whole), 401):  # in the second record
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"flipped\.tfrecord: record 1: checksum does not match \(corrupt\)"):
            list(read_videos(path, YT8M_MODALITIES))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"holds no record \(0 bytes\)"),
        (b"abc", r"holds no record \(3 bytes\)"),
        (b"<html>404 Not Found</html>" * 9, r"record 0: no TFRecord at all"),
    ],
)
def test_no_tfrecord(tmp_path, content, message):
    (tmp_path / "odd.tfrecord").write_bytes(content)
    with pytest.raises(DataError, match=rf"odd\.tfrecord: {message}"):
        list(read_videos(tmp_path / "odd.tfrecord", YT8M_MODALITIES))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"none\.tfrecord: no such file"):
        list(read_videos(tmp_path / "none.tfrecord", YT8M_MODALITIES))
    with pytest.raises(DataError, match=r"is a folder"):
        list(read_videos(tmp_path, YT8M_MODALITIES))


def test_records_before_the_damage_are_read(tmp_path):
    path = write_records(tmp_path / "a.tfrecord", record(), record())
    path.write_bytes(path.read_bytes()[:-5])
    videos = read_videos(path, YT8M_MODALITIES)
    assert next(videos).id == "abcd"
    with pytest.raises(DataError, match="record 1"):
        next(videos)
