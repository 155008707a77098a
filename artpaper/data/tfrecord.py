"""Frame-level TFRecords, in and out. The only module that imports TensorFlow.

A record is a ``tf.train.SequenceExample``: context ``id`` (or ``video_id``) and ``labels``; one feature list per
modality with one byte string per frame (google/youtube-8m, readers.py).
"""

import errno
import functools
import io
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from artpaper.data.video import Modality, Video
from artpaper.errors import DataError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow greets every worker process otherwise
import tensorflow as tf
from google.protobuf.message import DecodeError

tf.get_logger().setLevel("ERROR")  # tf_record_iterator is kept in tf.compat.v1, but announces itself as deprecated

AGAIN = "download that shard again"
FRAMING = 16  # bytes of a record beside its own: its length, the length's checksum, its checksum

WRITE_ERRORS = {tf.errors.ResourceExhaustedError: errno.ENOSPC, tf.errors.PermissionDeniedError: errno.EACCES}

YT8M_MODALITIES = (Modality("rgb", "rgb", 1024), Modality("audio", "audio", 128))
AUDIOSET_MODALITIES = (Modality("audio", "audio_embedding", 128),)


@dataclass(frozen=True)
class Shard:
    """One TFRecord file, a :class:`artpaper.data.video.Piece`: its records are numbered from 0."""

    path: Path
    modalities: tuple[Modality, ...]

    @property
    def name(self) -> str:
        """Of the file, without its folder."""
        return self.path.name

    @property
    def size(self) -> int:
        """Bytes of the file; a shard of the store is about as large."""
        return self.path.stat().st_size

    @property
    def state(self) -> tuple[str, ...]:
        """Name, size and time of change."""
        state = self.path.stat()
        return self.path.name, str(state.st_size), str(state.st_mtime_ns)

    def read(self) -> Iterator[tuple[int, Video]]:
        """The records in file order, numbered from 0.

        Raises:
            DataError: as :func:`read_videos`.
        """
        return enumerate(read_videos(self.path, self.modalities))

    def place(self, number: int) -> str:
        """The file and the record."""
        return f"{self.path}: record {number}"


def read_videos(path: str | Path, modalities: tuple[Modality, ...]) -> Iterator[Video]:
    """Read one shard, record by record, in constant memory.

    Args:
        path: a TFRecord file.
        modalities: what every record must hold, in the order of the columns of ``frames``.
    Yields:
        Video, in file order.
    Raises:
        DataError: the file is missing or holds no record; a record is truncated, fails its checksum, is no frame-level
            SequenceExample, lacks its id, labels or a modality, or holds frames of another width or modalities of
            different lengths. The message names the file and the record, counted from 0.
    Source: google/youtube-8m, readers.py, YT8MFrameFeatureReader.
    """
    number = -1
    for number, record in enumerate(_records(path)):
        yield _video(record, modalities, f"{path}: record {number}")
    if number < 0:
        size = Path(path).stat().st_size
        raise DataError(f"{path}: holds no record ({size} bytes); it is empty or was cut off: {AGAIN}")


def write_videos(
    path: str | Path, videos: Iterable[Video], modalities: tuple[Modality, ...], id_key: str = "id"
) -> int:
    """Write videos as one frame-level shard in the format :func:`read_videos` reads, byte for byte YouTube-8M's.

    Args:
        path: where to write; an existing file is replaced.
        videos: what to write.
        modalities: how the columns of ``frames`` split into feature lists.
        id_key: context key of the id, ``id`` in YouTube-8M, ``video_id`` in AudioSet.
    Returns:
        The number of records written.
    Raises:
        DataError: frames whose width is not the sum of the modalities' widths.
        OSError: the file cannot be written.
    """
    try:
        return _write_videos(path, videos, modalities, id_key)
    except tf.errors.OpError as error:  # not an OSError, whatever the system said
        number = WRITE_ERRORS.get(type(error), errno.EIO)
        raise OSError(number, os.strerror(number), str(path)) from None


def _write_videos(path: str | Path, videos: Iterable[Video], modalities: tuple[Modality, ...], id_key: str) -> int:
    width = sum(modality.width for modality in modalities)
    ends = np.cumsum([modality.width for modality in modalities])
    count = 0
    with tf.io.TFRecordWriter(str(path)) as writer:
        for video in videos:
            if video.frames.ndim != 2 or video.frames.shape[1] != width:
                raise DataError(
                    f"{path}: video {video.id}: frames of shape {video.frames.shape}, expected (n, {width})"
                )
            example = tf.train.SequenceExample()
            example.context.feature[id_key].bytes_list.value.append(video.id.encode())
            example.context.feature["labels"].int64_list.value.extend(video.labels)
            for modality, end in zip(modalities, ends, strict=True):
                features = example.feature_lists.feature_list[modality.feature].feature
                for frame in video.frames[:, end - modality.width : end]:
                    features.add().bytes_list.value.append(frame.tobytes())
            # deterministic: protobuf maps otherwise serialise in an order of their own
            writer.write(example.SerializeToString(deterministic=True))
            count += 1
    return count


def _records(path: str | Path) -> Iterator[bytes]:
    """The records of one file; a damaged one, like a missing file, raises DataError."""
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path}: is a folder; a TFRecord shard is a file")
    if not path.is_file():
        raise DataError(f"{path}: no such file; {AGAIN}")
    number = 0
    end = 0
    try:
        # a tf.data.TFRecordDataset reads large files as fast, but takes 17 ms to open one: AudioSet has thousands
        with open(path, "rb", buffering=0) as file:
            _refuse_overlong(file, end, f"{path}: record {number}")
            for record in tf.compat.v1.io.tf_record_iterator(str(path)):
                yield record
                number += 1
                end += len(record) + FRAMING
                _refuse_overlong(file, end, f"{path}: record {number}")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); see to the file and its permissions") from None
    except tf.errors.DataLossError as error:
        where = f"{path}: record {number}"
        if "truncated" in str(error):
            raise DataError(f"{where}: the file ends inside this record (truncated): {AGAIN}") from None
        if number == 0 and "TFRecord file" in str(error):
            raise DataError(f"{where}: no TFRecord at all, or damaged from its first bytes on: {AGAIN}") from None
        raise DataError(f"{where}: checksum does not match (corrupt): {AGAIN}") from None
    except tf.errors.OpError as error:
        raise DataError(f"{path}: record {number}: cannot be read ({error.message}); see to the disk") from None
    if number and end != path.stat().st_size:  # TensorFlow takes a few stray bytes for the end of the file
        raise DataError(f"{path}: record {number}: the file ends inside this record (truncated): {AGAIN}")


def _refuse_overlong(file: io.FileIO, start: int, where: str) -> None:
    """TensorFlow takes memory for as many bytes as a record promises, and ends the process where there are not so many.

    Only where the length's own checksum is right: else it looks no further.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(start)
    head = file.read(12)
    length, checksum = struct.unpack("<QI", head) if len(head) == 12 else (0, 0)
    if start + FRAMING + length > size and checksum == masked_crc32c(head[:8]):
        raise DataError(f"{where}: the file ends inside this record (truncated): {AGAIN}")


def masked_crc32c(data: bytes) -> int:
    """The checksum of TFRecords: CRC-32C, rotated and shifted; slow, a byte at a time.

    Args:
        data: what is checked.
    Source: tensorflow/core/lib/hash/crc32c.h; RFC 3720, B.4.
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC32C[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _crc32c_table() -> list[int]:
    table = list(range(256))
    for _ in range(8):
        table = [value >> 1 ^ 0x82F63B78 * (value & 1) for value in table]
    return table


CRC32C = _crc32c_table()


def _video(record: bytes, modalities: tuple[Modality, ...], where: str) -> Video:
    try:
        context, lists = _split(record)
        features = tf.train.Features.FromString(context).feature
    except (DecodeError, IndexError, ValueError, UnicodeDecodeError):
        raise DataError(f"{where}: is no tf.train.SequenceExample; frame-level YouTube-8M shards are needed") from None
    means = sorted({"mean_rgb", "mean_audio"} & set(features))
    if means:
        raise DataError(
            f"{where}: holds {' and '.join(means)}, so this is a video-level shard; frame-level shards are needed "
            "(on the download page: partition 2/frame instead of 2/video)"
        )
    ids = [value for key in ("id", "video_id") if key in features for value in features[key].bytes_list.value]
    name = ids[0].decode(errors="backslashreplace") if ids else ""
    if not name:
        found = ", ".join(sorted(features)) or "nothing"
        raise DataError(f"{where}: has no id; its context holds {found}, expected id or video_id: {AGAIN}")
    where = f"{where} (id {name})"
    labels = tuple(features["labels"].int64_list.value)
    if not labels:
        raise DataError(f"{where}: has no labels; use partitions train and validate, those of test are withheld")
    parts = []
    for modality in modalities:
        if modality.feature not in lists:
            found = ", ".join(sorted(lists)) or "none"
            raise DataError(
                f"{where}: has no feature list {modality.feature}, found {found}; download frame-level shards with it"
            )
        parts.append(_frames(lists[modality.feature], modality, where))  # (frames, width)
    lengths = {modality.feature: len(part) for modality, part in zip(modalities, parts, strict=True)}
    told = ", ".join(f"{feature} {length}" for feature, length in lengths.items())
    if len(set(lengths.values())) != 1:
        raise DataError(f"{where}: modalities of different lengths, in frames: {told}; {AGAIN}")
    if 0 in lengths.values():
        raise DataError(f"{where}: has no frames ({told}); {AGAIN}")
    return Video(name, labels, np.concatenate(parts, axis=1))  # (frames, dim)


def _split(record: bytes) -> tuple[bytes, dict[str, memoryview]]:
    """A SequenceExample's serialised context, and each of its feature lists, serialised, by name."""
    context, lists = [], {}
    for number, part in _fields(memoryview(record)):
        if number == 1:
            context.append(part)  # protobuf merges a repeated field
        elif number == 2:
            for _, entry in _fields(part):
                pair = dict(_fields(entry))
                lists[bytes(pair.get(1, b"")).decode()] = pair.get(2, memoryview(b""))
    return b"".join(context), lists


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and payload of each length-delimited field of one serialised protobuf message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 != 2:
            raise ValueError("a field of another kind than bytes")
        length, at = _varint(message, at)
        if at + length > len(message):
            raise ValueError("a field longer than its message")
        yield tag >> 3, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _frames(serialised: memoryview, modality: Modality, where: str) -> UInt8[np.ndarray, "frames width"]:
    """The frames of one feature list, a view where every frame is serialised alike (4 times the speed of protobuf)."""
    head = _frame_head(modality.width)
    stride = len(head) + modality.width
    if len(serialised) % stride == 0:
        rows = np.frombuffer(serialised, np.uint8).reshape(-1, stride)  # (frames, stride)
        if (rows[:, : len(head)] == head).all():
            return rows[:, len(head) :]
    frames = []
    try:
        features = tf.train.FeatureList.FromString(bytes(serialised)).feature
    except DecodeError:
        raise DataError(f"{where}: feature list {modality.feature} is damaged; {AGAIN}") from None
    for index, feature in enumerate(features):
        frame = b"".join(feature.bytes_list.value)
        if len(frame) != modality.width:
            raise DataError(
                f"{where}: frame {index} of {modality.feature} holds {len(frame)} bytes, expected {modality.width}: "
                f"{AGAIN}"
            )
        frames.append(np.frombuffer(frame, np.uint8))
    return np.stack(frames) if frames else np.zeros((0, modality.width), np.uint8)  # (frames, width)


@functools.cache
def _frame_head(width: int) -> Any:
    """The bytes that protobuf puts before each frame of ``width`` bytes in a feature list."""
    frame = tf.train.Feature(bytes_list=tf.train.BytesList(value=[bytes(width)]))
    return np.frombuffer(tf.train.FeatureList(feature=[frame]).SerializeToString()[:-width], np.uint8)
