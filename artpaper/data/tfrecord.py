"""Frame-level TFRecords, in and out. The only module that imports TensorFlow.

A record is a ``tf.train.SequenceExample``: context ``id`` (or ``video_id``) and ``labels``; one feature list per modality
with one byte string per frame (google/youtube-8m, readers.py).
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from artpaper.errors import DataError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow greets every worker process otherwise
import tensorflow as tf


@dataclass(frozen=True)
class Modality:
    """One kind of frame feature: its name in this project, its feature list in the record, bytes a frame."""

    name: str
    feature: str
    width: int


YT8M_MODALITIES = (Modality("rgb", "rgb", 1024), Modality("audio", "audio", 128))
AUDIOSET_MODALITIES = (Modality("audio", "audio_embedding", 128),)


@dataclass(frozen=True)
class Video:
    """One record: its id, label indices as stored, and frames uint8 (frames, dim), the modalities side by side."""

    id: str
    labels: tuple[int, ...]
    frames: UInt8[np.ndarray, "frames dim"]


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
            different lengths. The message names the file and the record.
    """
    raise DataError("not yet")  # pragma: no cover


def write_videos(path: str | Path, videos: Iterable[Video], modalities: tuple[Modality, ...], id_key: str = "id") -> int:
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
    width = sum(modality.width for modality in modalities)
    ends = np.cumsum([modality.width for modality in modalities])
    count = 0
    with tf.io.TFRecordWriter(str(path)) as writer:
        for video in videos:
            if video.frames.ndim != 2 or video.frames.shape[1] != width:
                raise DataError(f"{path}: video {video.id}: frames of shape {video.frames.shape}, expected (n, {width})")
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
