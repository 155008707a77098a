"""Predictions are written part by part: a killed run goes on where it was and ends with the same bytes."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pipeline.base.alone import alone
from pipeline.base.atomic import atomic_file
from pipeline.base.groups import Compute
from pipeline.base.identity import fingerprint, resume_key
from pipeline.data.store import FrameStore
from pipeline.scale.cluster import spreads
from pipeline.scale.engine import each
from pipeline.train.checkpoints import Note

PART = 64  # batches in one part of an unfinished file; a killed run repeats at most one part
LOCAL = Compute()
Rows = partial[Iterator[dict[str, Any]]]  # called with the number of a batch: the columns of that one and of each after


def write_resumable(
    path: Path, rows: Rows, schema: pa.Schema, note: Note, store: FrameStore, size: int, made_from: Any, resume: Path,
    title: str, progress: bool, compute: Compute = LOCAL,
) -> Path:  # fmt: skip
    """Write a Parquet file with ``note`` about itself, batch by batch, keeping finished parts below ``resume``.

    ``rows(start)`` gives the columns of every batch, of ``size`` videos of ``store``, from number ``start`` on; what it
    gives beyond ``schema`` is left out. ``made_from`` is what the rows depend on beside all this and their code,
    JSON-ready. On a cluster every part is a task of its own, and ``rows`` must be one that can be pickled.
    """
    videos = len(store)
    key = resume_key(rows.func.__module__, note, made_from, store.fingerprint, store.content, videos, size, PART)
    parts = resume / f"{title.replace(' ', '-')}-{key}"
    finished = {first // size: parts / f"{first:09d}.parquet" for first in range(0, videos, PART * size)}
    with (
        alone(resume, parts.name, f"{path.stem}-to-{fingerprint(str(path.resolve()))}"),
        tqdm(total=videos, unit="video", desc=title, disable=not progress) as bar,
    ):

        def count(batches: int) -> None:
            bar.update(min(batches * size, videos - bar.n))

        missing = [start for start, part in finished.items() if not part.exists()]
        count((len(finished) - len(missing)) * PART)
        if spreads(compute):
            work = partial(_write_part, rows=rows, parts=finished, schema=schema)
            for _ in each(work, missing, compute, gpu=True):
                count(PART)
        else:
            for start in missing:
                _write_part(start, rows, finished, schema, count)
        whole = (pq.ParquetFile(part).iter_batches(batch_size=4096) for part in finished.values())
        _write(path, itertools.chain.from_iterable(whole), schema, note)
        shutil.rmtree(parts)
    return path


def _write_part(
    start: int, rows: Rows, parts: Mapping[int, Path], schema: pa.Schema, done: Callable[[int], None] | None = None
) -> None:
    """The part that begins with batch ``start``; ``done`` is told of every batch."""

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in itertools.islice(rows(start), PART):
            yield pa.RecordBatch.from_pydict({field: batch[field] for field in schema.names}, schema)
            if done:
                done(1)

    _write(parts[start], batches(), schema)


def _write(path: Path, batches: Iterator[pa.RecordBatch], schema: pa.Schema, note: Note | None = None) -> None:
    metadata = {} if note is None else {"artpaper": json.dumps(note, sort_keys=True)}
    with atomic_file(path) as temporary, pq.ParquetWriter(temporary, schema.with_metadata(metadata)) as writer:
        for batch in batches:
            writer.write_batch(batch.replace_schema_metadata(metadata))
