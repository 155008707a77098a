"""Writing the frame store: shards of frames, and the index of each split; :mod:`pipeline.data.store` reads them."""

import gzip
import hashlib
import itertools
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from pipeline.base.atomic import atomic_file, save_json
from pipeline.data.store import BATCH_ROWS, FORMAT, PLACE
from pipeline.data.video import Video


def shard_schema(modalities: dict[str, int], dtype: str = "uint8") -> pa.Schema:
    """Columns of a shard, with the modalities in the metadata."""
    name, number = {"uint8": ("byte", pa.uint8()), "float32": ("value", pa.float32())}[dtype]
    frame = pa.list_(pa.field(name, number, nullable=False), sum(modalities.values()))
    columns = {"id": pa.string(), "frames": pa.list_(pa.field("frame", frame, nullable=False))}
    columns |= dict.fromkeys(("labels", "entities"), pa.list_(pa.int32()))
    return pa.schema(columns, metadata={"modalities": json.dumps(modalities)})


def write_shard(
    path: str | Path, videos: Iterable[tuple[Video, Sequence[int]]], modalities: dict[str, int], dtype: str = "uint8"
) -> tuple[int, str]:
    """Write one shard, of videos and their classes, in constant memory.

    Video i of it is row ``i % BATCH_ROWS`` of record batch ``i // BATCH_ROWS``.
    The file's size in bytes and its SHA-256 are returned. A second thread hashes and writes a record batch while the
    next one is read; both let go of the interpreter's lock.
    """
    schema = shard_schema(modalities, dtype)
    width, remaining = sum(modalities.values()), iter(videos)
    rooms = deque(np.empty((BATCH_ROWS * 300, width), dtype) for _ in range(2))  # (frames, dim), one is being written
    with open(path, "wb") as file:
        sink = _Hashed(file)
        # the thread within the writer: where reading fails, it ends what it writes before the writer is closed
        with pa.ipc.new_file(pa.PythonFile(sink, mode="w"), schema) as writer, ThreadPoolExecutor(1) as behind:
            writing = behind.submit(lambda: None)
            while (batch := _record_batch(remaining, schema, rooms)) is not None:
                writing.result()
                writing = behind.submit(writer.write_batch, batch)
                rooms.rotate()
            writing.result()
    return sink.size, sink.hash.hexdigest()


def _record_batch(
    videos: Iterator[tuple[Video, Sequence[int]]], schema: pa.Schema, rooms: deque[np.ndarray]
) -> pa.RecordBatch | None:
    """The next ``BATCH_ROWS`` videos, their frames in the first of the rooms; None after the last."""
    ids, ends, labels, entities = [], [0], [], []
    # one video at a time: 32 of them freed at once would make the allocator fault their pages in anew
    for video, classes in itertools.islice(videos, BATCH_ROWS):
        ends.append(ends[-1] + len(video.parts[0]))
        if ends[-1] > len(rooms[0]):
            rooms[0] = np.concatenate([rooms[0][: ends[-2]], np.empty((ends[-1], rooms[0].shape[1]), rooms[0].dtype)])
        np.concatenate(video.parts, axis=1, out=rooms[0][ends[-2] : ends[-1]])
        ids.append(video.id)
        labels.append(classes)
        entities.append(video.labels)
    if not ids:
        return None
    listed = schema.field("frames").type
    frames = pa.FixedSizeListArray.from_arrays(pa.array(rooms[0][: ends[-1]].reshape(-1)), type=listed.value_type)
    frames = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), frames, type=listed)
    return pa.record_batch([ids, frames, labels, entities], schema=schema)


class _Hashed:
    """A file that Arrow writes from its first byte to its last, hashed on the way: it need not be read again."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.hash, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes | pa.Buffer) -> int:
        """Take some more bytes."""
        self.file.write(data)
        self.hash.update(data)
        self.size += len(data)
        return len(data)


def write_split(
    path: Path, listing: pa.Table, shards: list[str], modalities: dict[str, int], dtype: str, damaged: Sequence[str]
) -> None:
    """Write the index of one split, and ``ids.txt.gz``; ``damaged`` shards of the source, of any split, were left out.

    A row of ``listing`` is a video: id, unit (the position of its shard in ``shards``, whose paths are relative to
    ``path``), and :data:`pipeline.data.store.PLACE`.
    """
    named = pa.DictionaryArray.from_arrays(listing["unit"].combine_chunks(), pa.array(shards))
    with atomic_file(path / "index.arrow") as temporary:
        write_table(temporary, listing.append_column("shard", named).select(["id", "shard", *PLACE]))
    described = {"format": FORMAT, "modalities": modalities, "label_space": "../label_space.json"}
    described |= {} if dtype == "uint8" else {"dtype": dtype}
    save_json(described | ({"damaged": list(damaged)} if damaged else {}), path / "store.json")
    with atomic_file(path / "ids.txt.gz") as temporary:
        text = "".join(f"{name}\n" for name in listing["id"].to_pylist())
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as one Arrow IPC file."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
