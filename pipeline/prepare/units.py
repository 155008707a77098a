"""The work units of the prepare stage: whole pieces of the input that become one shard of the frame store.

A unit is finished when its listing is there; listings hold one row a video read, with or without a class, and the
damaged pieces that were left out.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from pipeline.base.atomic import atomic_file
from pipeline.base.errors import DataError
from pipeline.base.groups import Compute
from pipeline.data.labels import LabelSpace
from pipeline.data.store import BATCH_ROWS, PLACE
from pipeline.data.store_writer import write_shard, write_table
from pipeline.data.video import Modality, Piece, Video
from pipeline.scale.engine import each

UNIT_BYTES = 64 << 20
PROCESS_BYTES = 1 << 30  # a process spends its first seconds on imports, and another would read this much meanwhile
LEFT_OUT = -1  # record batch of a video without a class

LISTING = pa.schema({"id": pa.string(), "hash": pa.uint64(), **dict.fromkeys(("piece", "number", *PLACE), pa.int32())})


@dataclass(frozen=True)
class Unit:
    """Pieces of the input, and where the shard made of them and the list of their videos go."""

    inputs: tuple[Piece, ...]
    shard: Path
    listing: Path
    modalities: tuple[Modality, ...]
    dtype: str
    seed: int
    skip: bool = False  # leave out a damaged piece instead of stopping at it

    @property
    def size(self) -> int:
        """Bytes of the shard, about."""
        return sum(piece.size for piece in self.inputs)

    @property
    def done(self) -> bool:
        """Whether an earlier run finished this unit; a shard that a loss of power cut off is none."""
        if not (self.listing.is_file() and self.shard.is_file()):
            return False
        return self.shard.stat().st_size == self.notes["written"][0]

    @property
    def notes(self) -> dict[str, Any]:
        """What the listing says of a finished unit as a whole.

        ``positives``: videos of each class; ``damaged``: name and reason of each piece that was left out; ``written``:
        size in bytes and SHA-256 of the shard.
        """
        with pa.OSFile(str(self.listing)) as file:
            metadata = pa.ipc.open_file(file).schema.metadata
        return {name.decode(): json.loads(value) for name, value in metadata.items()}


def group_inputs(inputs: Sequence[Piece]) -> list[tuple[Piece, ...]]:
    """Consecutive pieces in groups of about ``UNIT_BYTES``; a larger piece is a group of its own."""
    groups: list[list[Piece]] = []
    room = 0
    for piece in inputs:
        if room <= 0:
            groups.append([])
            room = UNIT_BYTES
        groups[-1].append(piece)
        room -= piece.size
    return [tuple(group) for group in groups]


def make_units(units: Sequence[Unit], label_space: LabelSpace, compute: Compute, progress: bool) -> None:
    """Make every unit, in as many processes as pay for their start, or on a cluster; the result is the same."""
    total = sum(unit.size for unit in units)
    with tqdm(total=total, unit="B", unit_scale=True, desc="prepare", disable=not progress) as bar:
        work = partial(make_unit, label_space=label_space)
        for unit, _ in each(work, units, compute, most=1 + total // PROCESS_BYTES):
            bar.update(unit.size)


def make_unit(unit: Unit, label_space: LabelSpace) -> None:
    """Turn the pieces of one unit into one shard, then write its listing, which marks it as finished.

    A damaged piece that is to be skipped is left out as a whole, so that the result does not hang on where it breaks;
    what was written of it is written again without it.
    """
    try:
        _make_unit(unit, label_space, {})
    except DataError:
        pieces = enumerate(unit.inputs if unit.skip else ())
        damaged = {number: reason for number, piece in pieces if (reason := _damage(piece)) is not None}
        if not damaged:  # the labels do not fit the vocabulary, say
            raise
        _make_unit(unit, label_space, damaged)


def _damage(piece: Piece) -> str | None:
    """What is wrong with a piece; None if it can be read to its end."""
    try:
        for _ in piece.read():
            pass
    except DataError as error:
        return str(error).partition(f"{piece.name}: ")[2] or str(error)
    return None


def _make_unit(unit: Unit, label_space: LabelSpace, damaged: dict[int, str]) -> None:
    columns: dict[str, list[str | int]] = {name: [] for name in LISTING.names}
    positives = np.zeros(len(label_space), np.int64)  # (classes,)

    def videos() -> Iterator[tuple[Video, tuple[int, ...]]]:
        kept = 0
        for position, piece in enumerate(unit.inputs):
            for number, video in piece.read() if position not in damaged else ():
                classes = label_space.map(video.labels, where=f"{piece.place(number)} (id {video.id})")
                place = (kept // BATCH_ROWS, kept % BATCH_ROWS) if classes else (LEFT_OUT, LEFT_OUT)
                row: tuple[str | int, ...] = (video.id, _hash(video.id, unit.seed), position, number, *place)
                row += (len(video.parts[0]), _check(video))
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
                if classes:
                    kept += 1
                    positives[list(classes)] += 1
                    yield video, classes

    with atomic_file(unit.shard, durable=False) as temporary:  # waiting for the disk would halve the rate
        widths = {modality.name: modality.width for modality in unit.modalities}
        written = write_shard(temporary, videos(), widths, unit.dtype)
    left_out = [[unit.inputs[position].name, reason] for position, reason in damaged.items()]
    notes = {"positives": positives.tolist(), "damaged": left_out, "written": written}
    schema = LISTING.with_metadata({name: json.dumps(value) for name, value in notes.items()})
    with atomic_file(unit.listing) as temporary:
        write_table(temporary, pa.table(columns, schema=schema))


def read_listings(units: Sequence[Unit]) -> pa.Table:
    """The videos of several finished units, in order.

    Columns id, hash (seeded), piece (which of the unit's) and number in it, batch and row in the unit's shard
    (``LEFT_OUT`` without a class), frames, check (of the content), and unit, its number.
    """
    tables = []
    for number, unit in enumerate(units):
        with pa.OSFile(str(unit.listing)) as file:
            table = pa.ipc.open_file(file).read_all().replace_schema_metadata(None)
        tables.append(table.append_column("unit", pa.array(np.full(len(table), number, np.int32))))
    return pa.concat_tables(tables).combine_chunks()


def _hash(name: str, seed: int) -> int:
    """A number that orders the ids by chance, the same wherever they are stored."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, key=str(seed).encode()).digest(), "little")


def _check(video: Video) -> int:
    """Tells apart videos of the same id and length: a checksum of labels and first frame, as int32."""
    first = b"".join(part[0].tobytes() for part in video.parts)
    return zlib.crc32(first, zlib.crc32(repr(video.labels).encode())) - (1 << 31)
