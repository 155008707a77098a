"""Frame-level TFRecords, in and out.

A file is one record after another: length, its checksum, content, its checksum (tensorflow, record_writer.h). The
content is a ``tf.train.SequenceExample``: context ``id`` (or ``video_id``) and ``labels``; one feature list a modality
with one byte string a frame (google/youtube-8m, readers.py).
"""

import os
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import google_crc32c
import numpy as np
from google.protobuf.message import DecodeError
from jaxtyping import UInt8

from pipeline.base.errors import DataError
from pipeline.base.groups import Data
from pipeline.base.sources import SOURCES
from pipeline.data.video import Modality, Video
from pipeline.records.sequence_example import parse, serialise, unpack

if TYPE_CHECKING:
    from pipeline.records.tensorflow_files import RemotePath

AGAIN = "download that shard again"
HEAD = 12  # bytes before a record's content: its length and the length's checksum
FRAMING = HEAD + 4
PIECE = 1 << 24
GZIP = b"\x1f\x8b"

YT8M_MODALITIES = tuple(Modality(name, name, width) for name, width in SOURCES["yt8m"].widths.items())

Reader = Literal["native", "tensorflow"]


@dataclass(frozen=True)
class Shard:
    """One TFRecord file, a :class:`pipeline.data.video.Piece`: its records are numbered from 0."""

    path: "Path | RemotePath"
    modalities: tuple[Modality, ...]
    reader: Reader = "native"

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
        """The records in file order, numbered from 0."""
        return enumerate(read_videos(self.path, self.modalities, self.reader))

    def place(self, number: int) -> str:
        """The file and the record."""
        return f"{self.path}: record {number}"


def remote_folder(data: Data) -> "RemotePath | None":
    """The folder, if ``data.path`` is a URL and TensorFlow is to read it."""
    if data.reader != "tensorflow" or "://" not in (data.path or ""):
        return None
    from pipeline.records.tensorflow_files import RemotePath

    return RemotePath(str(data.path))


def find_shards(
    data: Data, folder: "Path | RemotePath", pattern: str, modalities: tuple[Modality, ...], remedy: str
) -> tuple[Shard, ...]:
    """The shards of a folder in the order of their names, one at least."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {remedy}")
    paths: list[Path | RemotePath] = sorted(folder.glob(pattern), key=str)
    if not paths:
        state = "other files only" if any(folder.glob("*")) else "the folder is empty"
        raise DataError(f"{folder}: no {pattern} ({state}); {remedy}")
    return tuple(Shard(path, modalities, data.reader) for path in paths)


def read_videos(
    path: "str | Path | RemotePath", modalities: tuple[Modality, ...], reader: Reader = "native"
) -> Iterator[Video]:
    """Read one shard, record by record, in constant memory; ``tensorflow`` also reads gzip and ``gs://...``.

    DataError names the file and the record, counted from 0, that lacks its id, labels or a modality, or is damaged.
    Source: google/youtube-8m, readers.py, YT8MFrameFeatureReader.
    """
    for number, (start, record) in enumerate(_records(path, reader)):
        yield _video(record, modalities, f"{path}: record {number}", start)


def write_videos(
    path: str | Path, videos: Iterable[Video], modalities: tuple[Modality, ...], id_key: str = "id"
) -> int:
    """Write videos as one frame-level shard, byte for byte as YouTube-8M's are, and return their number.

    ``id_key`` is the context key of the id, ``id`` in YouTube-8M, ``video_id`` in AudioSet.
    """
    ends = np.cumsum([modality.width for modality in modalities]).tolist()
    count = 0
    with open(path, "wb") as file:
        for video in videos:
            frames = video.frames
            if frames.ndim != 2 or frames.shape[1] != ends[-1] or frames.dtype != np.uint8:
                raise DataError(
                    f"{path}: video {video.id}: frames of shape {frames.shape} and type {frames.dtype}, "
                    f"expected (n, {ends[-1]}) and uint8"
                )
            parts = np.split(frames, ends[:-1], axis=1)
            lists = {modality.feature: part for modality, part in zip(modalities, parts, strict=True)}
            record = serialise(id_key, video.id, video.labels, lists)
            head = struct.pack("<Q", len(record))
            file.write(head + struct.pack("<I", masked_crc32c(head)))
            file.write(record)
            file.write(struct.pack("<I", masked_crc32c(record)))
            count += 1
    return count


def masked_crc32c(data: bytes) -> int:
    """The checksum of TFRecords: CRC-32C, rotated and shifted.

    Source: tensorflow/core/lib/hash/crc32c.h.
    """
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def split_records(read: Callable[[int], bytes], size: int, path: object) -> Iterator[tuple[int, bytes]]:
    """The records of a file, and at which byte each one's content begins.

    ``read`` gives the next so many bytes; what a record promises beyond ``size`` of them is not read.
    """
    number = end = 0
    while head := read(HEAD):
        where = f"{path}: record {number}"
        if len(head) < HEAD and number == 0:
            break
        length, checksum = struct.unpack("<QI", head) if len(head) == HEAD else (size, masked_crc32c(head[:8]))
        if masked_crc32c(head[:8]) != checksum:
            if number == 0 and head.startswith(GZIP):
                raise DataError(f"{path}: is compressed with gzip; unpack it, or set data.reader to tensorflow")
            if number == 0:
                raise DataError(f"{where}: no TFRecord at all, or damaged from its first bytes on: {AGAIN}")
            raise DataError(f"{where}: checksum does not match (corrupt), of its length at byte {end}: {AGAIN}")
        content = tail = b""
        if end + FRAMING + length <= size:
            content, tail = _gather(read, length), read(4)
        if len(tail) < 4:  # the file may also have become shorter meanwhile
            raise DataError(f"{where}: the file ends inside this record (truncated): {AGAIN}")
        if masked_crc32c(content) != int.from_bytes(tail, "little"):
            where = f"{where}: checksum does not match (corrupt)"
            raise DataError(f"{where}, of the {length} bytes from byte {end + HEAD} on: {AGAIN}")
        yield end + HEAD, content
        number, end = number + 1, end + FRAMING + length
    if number == 0:
        raise DataError(f"{path}: holds no record ({end + len(head)} bytes); it is empty or was cut off: {AGAIN}")


def _gather(read: Callable[[int], bytes], size: int) -> bytes:
    """So many bytes, or what there is; memory is taken for what comes, not for what was promised."""
    if size <= PIECE:
        return read(size)
    pieces = []
    while size and (piece := read(min(size, PIECE))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _records(path: "str | Path | RemotePath", reader: Reader) -> Iterator[tuple[int, bytes]]:
    """The records of one file; a damaged one, like a missing file, raises DataError."""
    if reader == "tensorflow":
        from pipeline.records.tensorflow_files import read_records

        yield from read_records(str(path))
        return
    path = Path(str(path))
    if path.is_dir():
        raise DataError(f"{path}: is a folder; a TFRecord shard is a file")
    if not path.is_file():
        raise DataError(f"{path}: no such file; {AGAIN}")
    try:
        with open(path, "rb") as file:
            yield from split_records(file.read, os.fstat(file.fileno()).st_size, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); see to the file and its permissions") from None


def _video(record: bytes, modalities: tuple[Modality, ...], where: str, start: int = 0) -> Video:
    """What a record holds; ``start`` is where in its file it does."""
    try:
        context, lists = parse(record)
        known = [modality for modality in modalities if modality.feature in lists]
        frames = {modality.feature: unpack(lists[modality.feature], modality.width) for modality in known}
    except DecodeError as error:
        raise DataError(
            f"{where}: is no tf.train.SequenceExample (from byte {start} on: {error}); "
            "frame-level YouTube-8M shards are needed"
        ) from None
    means = sorted({"mean_rgb", "mean_audio"} & set(context))
    if means:
        raise DataError(
            f"{where}: holds {' and '.join(means)}, so this is a video-level shard; frame-level shards are needed "
            "(on the download page: partition 2/frame instead of 2/video)"
        )
    ids = [value for key in ("id", "video_id") if key in context for value in context[key].bytes_list.value]
    name = ids[0].decode(errors="backslashreplace") if ids else ""
    if not name:
        keys = ", ".join(sorted(context)) or "nothing"
        raise DataError(f"{where}: has no id; its context holds {keys}, expected id or video_id: {AGAIN}")
    where = f"{where} (id {name})"
    labels = tuple(context["labels"].int64_list.value) if "labels" in context else ()
    if not labels:
        raise DataError(f"{where}: has no labels; use partitions train and validate, those of test are withheld")
    parts = []
    for modality in modalities:
        if modality.feature not in frames:
            features = ", ".join(sorted(lists)) or "none"
            raise DataError(
                f"{where}: has no feature list {modality.feature}, found {features}; "
                "download frame-level shards with it"
            )
        parts.append(_of_width(frames[modality.feature], modality, where))  # (frames, width)
    lengths = {len(part) for part in parts}
    if len(lengths) != 1 or 0 in lengths:
        counts = ", ".join(f"{modality.feature} {len(part)}" for modality, part in zip(modalities, parts, strict=True))
        if len(lengths) != 1:
            raise DataError(f"{where}: modalities of different lengths, in frames: {counts}; {AGAIN}")
        raise DataError(f"{where}: has no frames ({counts}); {AGAIN}")
    return Video(name, labels, tuple(parts))


def _of_width(frames: np.ndarray | list[bytes], modality: Modality, where: str) -> UInt8[np.ndarray, "frames width"]:
    if isinstance(frames, np.ndarray):
        return frames
    for index, size in enumerate(map(len, frames)):
        if size != modality.width:
            raise DataError(
                f"{where}: frame {index} of {modality.feature} holds {size} bytes, expected {modality.width}: {AGAIN}"
            )
    return np.frombuffer(b"".join(frames), np.uint8).reshape(-1, modality.width)
