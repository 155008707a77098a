"""The frame store: memory-mapped Arrow shards of frames, an index for each split, and batches from them.

A split is a folder with ``index.arrow`` (one row a video: id, shard, record batch, row, frames, check value) and
``store.json``. Shards are Arrow IPC files of small record batches; two splits may share them.
"""

import functools
import hashlib
import itertools
import json
import resource
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Bool, Float32, Integer, UInt8
from torch import Tensor

from pipeline.base.errors import DataError
from pipeline.data.labels import LabelSpace

FORMAT = 1
SHARDS = "shards.json"  # beside the splits: size and hash of every shard, as pipeline.prepare.verify keeps them
BATCH_ROWS = 32
PLACE = ("batch", "row", "frames", "check")
OPEN_BATCHES = 64  # record batches that are remembered


@dataclass(frozen=True)
class StoredVideo:
    """One video of a store: frames (frames, dim), a read-only view of the mapped shard; labels are classes."""

    id: str
    frames: UInt8[np.ndarray, "frames dim"] | Float32[np.ndarray, "frames dim"]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """Videos side by side, zero padded to the longest of them; ``mask`` is True on real frames."""

    ids: list[str]
    frames: UInt8[Tensor, "batch time dim"] | Float32[Tensor, "batch time dim"]
    mask: Bool[Tensor, "batch time"]
    labels: Float32[Tensor, "batch classes"]


@dataclass(frozen=True)
class _Columns:
    """One record batch as NumPy views of the mapped file; ends of video i in ``frames`` are offsets i and i + 1."""

    ids: pa.StringArray
    frame_offsets: np.ndarray
    frames: np.ndarray
    labels: pa.ListArray


class FrameStore:
    """One split of the videos, such as ``frames/train``, read in any order without loading it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            described = json.loads((self.path / "store.json").read_text(encoding="utf-8"))
            with pa.memory_map(str(self.path / "index.arrow")) as file:
                index = pa.ipc.open_file(file).read_all()
        except (OSError, ValueError, pa.ArrowException) as error:
            raise DataError(f"{self.path}: no frame store ({error}); run the prepare stage") from None
        if described.get("format") != FORMAT:
            raise DataError(
                f"{self.path}: format {described.get('format')}, expected {FORMAT}; run the prepare stage again"
            )
        self.modalities: dict[str, int] = described["modalities"]  # widths, in the order of the columns of a frame
        self.dtype: str = described.get("dtype", "uint8")  # of the frames: bytes, quantised as YouTube-8M's; or float32
        self.damaged: list[str] = described.get("damaged", [])  # shards of the source, of any split, that were left out
        self.label_space = LabelSpace.load(self.path / described["label_space"])
        shards = index["shard"].combine_chunks()
        self._shards: list[str] = shards.dictionary.to_pylist()
        self._ids = index["id"].combine_chunks()
        places = [shards.indices, *(index[name].combine_chunks() for name in PLACE)]
        self._places = np.stack([column.to_numpy() for column in places], axis=1)  # (videos, 5), int32
        self._written = _written(self.path.parent / SHARDS)
        self._remember()

    def _remember(self) -> None:
        # a shuffled pass jumps between all shards, and to open one costs more than to read a video; each holds a
        # descriptor, and the three splits may be open at once
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = None if descriptors == resource.RLIM_INFINITY else descriptors // 4
        self._open = functools.lru_cache(most)(self._open_shard)
        self._columns = functools.lru_cache(OPEN_BATCHES)(self._read_columns)

    def __getstate__(self) -> dict[str, Any]:
        """All but the mapped files, which another process opens for itself."""
        return {name: value for name, value in vars(self).items() if name not in ("_open", "_columns")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._remember()

    def __len__(self) -> int:
        return len(self._places)

    @property
    def ids(self) -> list[str]:
        """The id of each video, in the order of the store."""
        return self._ids.to_pylist()

    @property
    def lengths(self) -> Integer[np.ndarray, " videos"]:
        """How many frames each video has, in the order of the store."""
        return self._places[:, 3]

    @property
    def fingerprint(self) -> str:
        """Changes with the videos, their order, their classes and (by a sample of each) their content."""
        digest = hashlib.sha256(self._places[:, 1:].tobytes())
        for first in range(0, len(self), 1 << 16):  # not all names at once: the paper's training set has 3.9 million
            digest.update(b"\n" * bool(first) + "\n".join(self._ids.slice(first, 1 << 16).to_pylist()).encode())
        digest.update(repr((self.label_space, self.modalities)).encode())
        if self.dtype != "uint8":  # stores of bytes keep the name they had before there were others
            digest.update(self.dtype.encode())
        return digest.hexdigest()[:16]

    @property
    def content(self) -> str:
        """Changes with any frame: a hash of those that ``prepare`` recorded of the shards, if it recorded them."""
        hashes = [self._written.get(Path(shard).name, {}).get("sha256") for shard in self._shards]
        return hashlib.sha256(repr(hashes).encode()).hexdigest()[:16]

    def __getitem__(self, index: int) -> StoredVideo:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.path}: no video {index}, it holds {len(self)}")
        shard, batch, row = self._places[index, :3].tolist()
        columns = self._columns(shard, batch)
        start, end = columns.frame_offsets[row], columns.frame_offsets[row + 1]
        labels = tuple(columns.labels[row].as_py())
        return StoredVideo(columns.ids[row].as_py(), columns.frames[start:end], labels)

    def subset(self, indices: Sequence[int]) -> "FrameStore":
        """A store of some of the videos, by their positions in this one; nothing is copied but the index."""
        part = FrameStore.__new__(FrameStore)
        vars(part).update(vars(self))  # with the mapped files, which copy.copy would leave behind
        rows = np.asarray(indices, np.int64)
        part._places, part._ids = self._places[rows], self._ids.take(pa.array(rows))
        return part

    def with_labels(self, classes: Sequence[int]) -> list[int]:
        """Positions of the videos that have at least one of ``classes``, in the order of the store."""
        has_one = np.zeros(len(self), bool)
        order = np.lexsort((self._places[:, 1], self._places[:, 0]))
        blocks = np.split(order, np.flatnonzero(np.diff(self._places[order, :2], axis=0).any(axis=1)) + 1)
        for block in blocks if len(order) else ():  # the videos of one record batch
            labels = self._columns(*self._places[block[0], :2].tolist()).labels
            owners = pc.list_parent_indices(labels).to_numpy()  # (labels,) video of each label
            has_one[block] = np.isin(self._places[block, 2], owners[np.isin(labels.flatten(), list(classes))])
        return np.flatnonzero(has_one).tolist()

    def batches(
        self, batch_size: int, *, max_frames: int, seed: int | None = None, epoch: int = 0, start: int = 0,
        ahead: int = 0, share: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:  # fmt: skip
        """One pass over the videos; the time of a batch is its longest video's, at most ``max_frames``.

        Args:
            seed: shuffles, with ``epoch``, and nothing else; None keeps the order of the store.
            start: number of the first batch; those before it are not read, so a run resumes at once.
            ahead: this many batches are made, by as many threads, while the one before them is worked on.
            share: (rank, size): only the rank-th of so many parts of each batch is read, for as many processes that
                work on one batch; the first parts are a video larger, and of a small batch the last ones are empty.
        Source: google/youtube-8m, readers.py (truncation to the first max_frames, zero padding).
        """
        count = len(self)
        order = np.arange(count) if seed is None else np.random.default_rng((seed, epoch)).permutation(count)
        rank, size = share
        wholes = (order[at : at + batch_size] for at in range(start * batch_size, count, batch_size))
        parts = (np.array_split(whole, size)[rank] for whole in wholes)
        if not ahead:
            yield from (self._batch(part, max_frames) for part in parts)
            return
        with ThreadPoolExecutor(ahead) as threads:
            waiting = deque(threads.submit(self._batch, part, max_frames) for part in itertools.islice(parts, ahead))
            while waiting:
                batch = waiting.popleft().result()
                waiting.extend(threads.submit(self._batch, part, max_frames) for part in itertools.islice(parts, 1))
                yield batch

    def _batch(self, indices: np.ndarray, max_frames: int) -> Batch:
        lengths = np.minimum(self._places[indices, 3], max_frames)  # (batch,)
        shape = (len(indices), int(lengths.max(initial=0)), sum(self.modalities.values()))
        pinned = torch.cuda.is_available()  # a GPU fetches it by itself
        room = torch.empty(shape, dtype=getattr(torch, self.dtype), pin_memory=pinned)
        frames = room.numpy()  # (batch, time, dim)
        labels = torch.zeros(len(indices), len(self.label_space), pin_memory=pinned)  # (batch, classes)
        ids = []
        for row, (index, length) in enumerate(zip(indices.tolist(), lengths.tolist(), strict=True)):
            video = self[index]
            ids.append(video.id)
            frames[row, :length] = video.frames[:length]
            frames[row, length:] = 0
            labels.numpy()[row, list(video.labels)] = 1
        mask = torch.empty(shape[:2], dtype=torch.bool, pin_memory=pinned)  # (batch, time)
        np.less(np.arange(shape[1]), lengths[:, None], out=mask.numpy())
        return Batch(ids, room, mask, labels)

    def _open_shard(self, shard: int) -> pa.ipc.RecordBatchFileReader:
        path = (self.path / self._shards[shard]).resolve()
        try:
            size = self._written.get(path.name, {}).get("bytes")
            if size is not None and path.stat().st_size != size:
                raise OSError(f"{path.stat().st_size:,} bytes, {size:,} were written")
            return pa.ipc.open_file(pa.memory_map(str(path)))
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{path}: missing or damaged shard ({error}); bring it back with `dvc checkout`, or run the prepare "
                "stage again"
            ) from None

    def _read_columns(self, shard: int, batch: int) -> _Columns:
        read = self._open(shard).get_batch(batch)
        listed = read.column("frames")
        frames = listed.values.values.to_numpy(zero_copy_only=True).reshape(-1, sum(self.modalities.values()))
        return _Columns(read.column("id"), listed.offsets.to_numpy(), frames, read.column("labels"))


def _written(path: Path) -> dict[str, dict[str, Any]]:
    """Bytes and SHA-256 of each shard; none are known of a store of a former version."""
    if not path.is_file():
        return {}
    try:
        shards = json.loads(path.read_text(encoding="utf-8"))["shards"]
        return {name: {"bytes": int(shard["bytes"]), "sha256": shard["sha256"]} for name, shard in shards.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error}); run the prepare stage again") from None
