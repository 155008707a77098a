"""Reading and writing: real shards byte for byte, and every way a shard can be wrong. TensorFlow is the oracle."""

import gzip
import os
import random
import re
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import DecodeError

from pipeline.base.errors import ConfigError, DataError
from pipeline.base.parameters import Params, build
from pipeline.prepare import audioset
from pipeline.prepare.prepare import prepare
from pipeline.records.sequence_example import parse, unpack
from pipeline.records.tfrecord import (
    YT8M_MODALITIES,
    Video,
    masked_crc32c,
    read_videos,
    write_videos,
)
from tests.data.worlds import folder_bytes, make_videos, params, write_world

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
    video = Video("a-_b", (3, 500), (np.arange(1280, dtype=np.uint8).reshape(10, 128),))
    write_videos(tmp_path / "a.tfrecord", [video], audioset.MODALITIES, id_key="video_id")
    [found] = read_videos(tmp_path / "a.tfrecord", audioset.MODALITIES)
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


def test_writes_what_tensorflow_writes(tmp_path):
    """Byte for byte, whichever key of the context comes first, and labels of any size or none."""
    videos = make_videos(["v1", "é-2"], frames=(1, 9))
    videos += [
        Video("n", (-1, 0, 127, 128, 2**63 - 1, -(2**63)), videos[0].parts),
        Video("none", (), videos[0].parts),
    ]
    for id_key in ("id", "video_id"):
        write_videos(tmp_path / "ours", videos, YT8M_MODALITIES, id_key=id_key)
        raw = []
        for video in videos:
            example = tf.train.SequenceExample()
            example.context.feature[id_key].bytes_list.value.append(video.id.encode())
            example.context.feature["labels"].int64_list.value.extend(video.labels)
            for name, part in (("rgb", video.frames[:, :1024]), ("audio", video.frames[:, 1024:])):
                for frame in part:
                    features = example.feature_lists.feature_list[name].feature
                    features.add().bytes_list.value.append(frame.tobytes())
            raw.append(example.SerializeToString(deterministic=True))
        assert (tmp_path / "ours").read_bytes() == write_records(tmp_path / "theirs", *raw).read_bytes()
    write_videos(tmp_path / "ours", videos[:3], YT8M_MODALITIES)
    found = read_videos(tmp_path / "ours", YT8M_MODALITIES)
    assert [video.labels for video in found] == [video.labels for video in videos[:3]]


@pytest.mark.parametrize(
    ("video", "error", "message"),
    [
        (
            Video("f", (1,), (np.zeros((2, 1152), np.float32),)),
            DataError,
            r"type float32, expected \(n, 1152\) and uint8",
        ),
        (Video("w", (1,), (np.zeros((2, 1151), np.uint8),)), DataError, r"shape \(2, 1151\)"),
        (Video("l", (2**63,), (np.zeros((2, 1152), np.uint8),)), ValueError, "out of range: 9223372036854775808"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, video, error, message):
    with pytest.raises(error, match=message):
        write_videos(tmp_path / "a.tfrecord", [video], YT8M_MODALITIES)


def sized(number: int, content: bytes) -> bytes:
    """A protobuf field of kind 2."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int, padding: int = 0) -> bytes:
    """Seven bits a byte; ``padding`` bytes longer than need be."""
    found = [value >> 7 * place & 0x7F for place in range(max(1, -(-value.bit_length() // 7)) + padding)]
    return bytes([byte | 0x80 for byte in found[:-1]] + found[-1:])


def context(*entries: bytes) -> bytes:
    return sized(1, b"".join(sized(1, one) for one in entries))


def named(key: bytes, *values: bytes) -> bytes:
    return sized(1, key) + b"".join(sized(2, value) for value in values)


TEXTS = sized(1, sized(1, b"ab") + sized(1, b""))
ONES = sized(3, sized(1, varint(2**64 - 1) + varint(300)))
SINGLY = sized(3, varint(8) + varint(7) + varint(8) + varint(2**63) + sized(1, varint(5)))
FRAME = sized(1, sized(1, sized(1, b"xy")))
GROUP = varint(9 << 3 | 3) + sized(1, b"in it") + varint(7 << 3 | 3) + varint(7 << 3 | 4) + varint(9 << 3 | 4)
UNKNOWN = {
    "number": varint(9 << 3) + varint(2**64 - 1),
    "eight bytes": varint(9 << 3 | 1) + bytes(8),
    "bytes": sized(9, b"\x0a\xff"),
    "group": GROUP,
    "four bytes": varint(9 << 3 | 5) + bytes(4),
    "known number, other kind": varint(1 << 3) + varint(5),
}
ENCODINGS = {
    "packed": context(named(b"labels", ONES)),
    "singly and packed": context(named(b"labels", SINGLY)),
    "the last of a repeated key": context(named(b"a", TEXTS), named(b"a", ONES)),
    "the last of a repeated key, over contexts": context(named(b"a", ONES)) + context(named(b"a", TEXTS)),
    "keys over contexts": context(named(b"a", ONES)) + context(named(b"b", TEXTS)),
    "one value in two parts": context(named(b"a", ONES, ONES)),
    "another kind after the first": context(named(b"a", ONES, TEXTS)),
    "a kind anew": context(named(b"a", ONES + TEXTS + ONES)),
    "floats": context(named(b"a", sized(2, sized(1, bytes(8)) + varint(1 << 3 | 5) + bytes(4)))),
    "floats in three bytes": context(named(b"a", sized(2, sized(1, bytes(3))))),
    "no value": context(named(b"a"), named(b"b", b"")),
    "no key": context(sized(2, TEXTS)),
    "two keys": context(sized(1, b"a") + named(b"b", TEXTS)),
    "value before key": context(sized(2, TEXTS) + sized(1, b"a")),
    "a key that is no text": context(named(b"\xff", TEXTS)),
    "frames alike": sized(2, sized(1, named(b"rgb", FRAME * 3))),
    "frames of two widths": sized(2, sized(1, named(b"rgb", FRAME * 2 + sized(1, TEXTS)))),
    "frames in two parts": sized(2, sized(1, named(b"rgb", FRAME * 2, FRAME))),
    "frames twice": sized(2, sized(1, named(b"rgb", FRAME * 2))) + sized(2, sized(1, named(b"rgb", FRAME))),
    "frames of numbers": sized(2, sized(1, named(b"rgb", sized(1, ONES) * 2))),
    "empty frames": sized(2, sized(1, named(b"rgb", sized(1, b"") * 2))),
    "no frames": sized(2, sized(1, named(b"rgb", b""))),
    "an odd byte among frames": sized(2, sized(1, named(b"rgb", FRAME + FRAME[:-1]))),
    "longer lengths than need be": b"\x0a" + varint(0, 3),
    "too long a length": b"\x0a" + varint(0, 5),
    "too long a tag": varint(10, 5) + b"\x00",
    "a number of ten bytes": context(named(b"a", sized(3, sized(1, b"\xff" * 9 + b"\x7f")))),
    "a number of eleven bytes": context(named(b"a", sized(3, sized(1, b"\x80" * 10 + b"\x00")))),
    "a number cut off": context(named(b"a", sized(3, sized(1, b"\x80")))),
    "a length beyond the message": b"\x0a\x05\x00",
    "a field cut off": b"\x0d\x00",
    "field number 0": b"\x02\x00",
    "kind 6": b"\x0e\x00",
    "a group that does not end": GROUP[:-1],
    "a group that ends as another": GROUP[:-1] + varint(8 << 3 | 4),
    "the end of a group": varint(9 << 3 | 4),
    **{f"unknown {name}": one + context(named(b"a", one + TEXTS + one, ONES)) + one for name, one in UNKNOWN.items()},
}


def kind_and_values(feature) -> tuple:
    kind = feature.WhichOneof("kind")
    return kind, repr(list(getattr(feature, kind).value)) if kind else ""  # nan is not equal to itself


def parse_with_protobuf(raw: bytes) -> tuple[dict, dict] | None:
    """What its own class finds, None where it refuses."""
    try:
        example = tf.train.SequenceExample.FromString(raw)
    except DecodeError:
        return None
    lists = example.feature_lists.feature_list.items()
    return (
        {name: kind_and_values(feature) for name, feature in example.context.feature.items()},
        {name: [b"".join(one.bytes_list.value) for one in frames.feature] for name, frames in lists},
    )


def parse_with_ours(raw: bytes) -> tuple[dict, dict] | None:
    try:
        context, lists = parse(raw)
        frames = {name: [bytes(frame) for frame in unpack(pieces, 2)] for name, pieces in lists.items()}
    except DecodeError:
        return None
    return {name: kind_and_values(feature) for name, feature in context.items()}, frames


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_record_means_what_tensorflow_says(name):
    assert parse_with_ours(ENCODINGS[name]) == parse_with_protobuf(ENCODINGS[name])


def test_changed_records_mean_what_tensorflow_says():
    """Thousands of them, most near a valid one: the same are refused, the others mean the same."""
    source, accepted = random.Random(0), 0
    parts = [*ENCODINGS.values(), context(named(b"id", TEXTS), named(b"labels", ONES), named(b"x", SINGLY))]
    for _ in range(4000):
        raw = bytearray(b"".join(source.choices(parts, k=source.choice((1, 1, 2)))))
        for _ in range(source.choice((0, 1, 1, 2))):
            raw[source.randrange(len(raw))] = source.choice((source.randrange(256), 0, 1, 2, 10, 18, 26, 127, 128))
        expected, found = parse_with_protobuf(bytes(raw)), parse_with_ours(bytes(raw))
        accepted += expected is not None
        if expected is None and raw.count(b"rgb") > 1:
            continue  # of a key that stands twice the first list is not looked at
        if None in (expected, found) or [*map(len, found)] == [*map(len, expected)]:
            assert found == expected, raw.hex()  # its maps lose an entry that has an unknown field
    assert 500 < accepted < 3500


def test_a_malformed_record_is_told_by_its_place(tmp_path):
    """In the file: the second record's content begins 12 bytes after the first record's end."""
    path = write_records(tmp_path / "a.tfrecord", record(), record()[:-1000])
    place = len(record()) + 16 + 12
    with pytest.raises(
        DataError, match=rf"a\.tfrecord: record 1: is no tf\.train\.SequenceExample \(from byte {place} on: .*\); frame"
    ):
        list(read_videos(path, YT8M_MODALITIES))


def test_a_forged_length_takes_no_memory(tmp_path):
    """Its checksum is right: what the file cannot hold is neither read nor allocated."""
    forged = struct.pack("<Q", 1 << 33)
    path = tmp_path / "a.tfrecord"
    path.write_bytes(
        write_records(path, record()).read_bytes() + forged + struct.pack("<I", masked_crc32c(forged)) + b"x" * 99
    )
    for reader in ("native", "tensorflow"):
        videos = read_videos(path, YT8M_MODALITIES, reader)
        assert next(videos).id == "abcd"
        tracemalloc.start()
        with pytest.raises(DataError, match=r"record 1: the file ends inside this record \(truncated\)"):
            next(videos)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 20


def test_a_file_that_becomes_shorter_meanwhile(tmp_path):
    path = write_records(tmp_path / "a.tfrecord", *[record(rgb=(1024,) * 50, audio=(128,) * 50)] * 3)
    videos = read_videos(path, YT8M_MODALITIES)
    next(videos)
    os.truncate(path, path.stat().st_size - 60_000)
    with pytest.raises(DataError, match=r"record [12]: the file ends inside this record \(truncated\)"):
        list(videos)


def test_gzip_is_recognised_and_read_by_tensorflow(tmp_path):
    """What its checksum, or its length, does not bear out is refused, which TensorFlow's own reader would not."""
    videos = make_videos([*"abc"])
    write_videos(tmp_path / "plain.tfrecord", videos, YT8M_MODALITIES)
    plain = (tmp_path / "plain.tfrecord").read_bytes()
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord"), "GZIP") as writer:
        for one in tf.data.TFRecordDataset(str(tmp_path / "plain.tfrecord")):
            writer.write(one.numpy())
    path = tmp_path / "a.tfrecord"
    with pytest.raises(
        DataError, match=r"a\.tfrecord: is compressed with gzip; unpack it, or set data\.reader to tensor"
    ):
        list(read_videos(path, YT8M_MODALITIES))
    for place in (path, tmp_path / "plain.tfrecord", f"file://{path}"):
        found = list(read_videos(place, YT8M_MODALITIES, "tensorflow"))
        assert [(video.id, video.labels) for video in found] == [(video.id, video.labels) for video in videos]
        assert all((one.frames == other.frames).all() for one, other in zip(found, videos, strict=True))
    whole = path.read_bytes()
    wrong = [whole[:end] for end in (1, 11, 30, len(whole) // 2, len(whole) - 9, len(whole) - 1)]
    wrong += [gzip.compress(raw) for raw in (b"", plain[:-1], plain + b"abc", b"no record at all")]
    wrong += [whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:]]
    for raw in wrong:
        path.write_bytes(raw)
        with pytest.raises(DataError, match=r"a\.tfrecord: .*(truncated|cut off|corrupt|no TFRecord).*again"):
            list(read_videos(path, YT8M_MODALITIES, "tensorflow"))


def test_shards_by_url(tmp_path):
    """TensorFlow finds and reads them; the store is the same."""
    write_world(tmp_path / "data", train=2, validate=1, videos=8)
    prepare(params(tmp_path / "data"), tmp_path / "one", progress=False)
    place, vocabulary = f"file://{tmp_path / 'data'}", str(tmp_path / "data/vocabulary.csv")
    values = {"path": place, "reader": "tensorflow", "vocabulary": vocabulary}
    prepare(build(Params, {"data": values}, "test"), tmp_path / "two", progress=False)
    one, two = (folder_bytes(tmp_path / name / "frames") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert {name for name in one if one[name] != two[name]} == {"summary.json"}  # it has the path
    with pytest.raises(DataError, match=r"file://.*: no such folder|is a file|no train"):
        prepare(build(Params, {"data": values | {"path": place + "x"}}, "test"), tmp_path / "three", progress=False)
    with pytest.raises(DataError, match=r"data\.path file://.*is a URL;.* if data\.reader is tensorflow"):
        prepare(build(Params, {"data": values | {"reader": "native"}}, "test"), tmp_path / "three", progress=False)
    with pytest.raises(ConfigError, match=r"reader 'tensorflow' is for shards"):
        build(Params, {"data": {"source": "arrays", "label_space": "given", "reader": "tensorflow"}}, "test")


def test_nothing_imports_tensorflow_unless_it_is_to_read(tmp_path):
    """A fresh process generates, prepares, and can read every source: TensorFlow is not there."""
    code = """
import sys
from importlib import import_module
from pathlib import Path
from pipeline.base.groups import Compute, Data, Synthetic
from pipeline.base.parameters import Params
from pipeline.base.sources import SOURCES
from pipeline.prepare.prepare import prepare
sizes = Synthetic(train_videos=20, validate_videos=20, min_frames=2, max_frames=3, videos_per_shard=10)
prepare(Params(data=Data(source="synthetic"), synthetic=sizes, compute=Compute(workers=1)), Path(sys.argv[1]), False)
for source in SOURCES.values():
    import_module(source.reader)
assert not {name for name in sys.modules if name.partition(".")[0] in ("tensorflow", "keras")}
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "frames/summary.json").is_file()
