"""The prepare stage: videos of any source in, the three splits of the frame store out.

Finished units of work are kept under ``.resume`` until the stage is done, so a run that was killed, or stopped at a bad
file, goes on where it stopped, and ends with the same bytes as one that was not. Only the units whose own files changed
meanwhile are made again; other parameters, classes or code begin anew, and what was unfinished under those is deleted.
"""

import errno
import hashlib
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64
from tqdm import tqdm

from pipeline.base.alone import alone
from pipeline.base.atomic import replace_folder, save_json, writing
from pipeline.base.errors import DataError
from pipeline.base.identity import code, resume_key
from pipeline.base.parameters import Params
from pipeline.base.sources import SOURCES
from pipeline.data.labels import most_frequent
from pipeline.data.splits import validation_size
from pipeline.data.store import BATCH_ROWS, FORMAT, SHARDS
from pipeline.data.store_writer import write_split
from pipeline.data.video import Dataset, Piece, resolve
from pipeline.prepare.units import LEFT_OUT, UNIT_BYTES, Unit, group_inputs, make_units, read_listings
from pipeline.prepare.verify import write_record


def prepare(params: Params, workspace: Path, progress: bool = True) -> dict[str, Any]:
    """Make ``workspace/frames``: splits train, validation and test, their shards, and the label space.

    The number of classes, and those that most videos have, are printed. The summary is also ``frames/summary.json``:
    provenance, label space, per partition the videos read and those left out because none of their labels belongs to a
    class, per split its videos and frames, and the ``damaged`` shards, if any were left out. Where this fails, a former
    ``frames`` stays as it was, and finished units are kept.

    Source: section 3.1: 64,000 videos of the official validate partition are the validation set, its rest the test set.
    A source that names a test set of its own keeps it.
    """
    # one at a time, by whatever parameters: a run clears away what others have left unfinished
    with writing(workspace), alone(workspace / ".resume", "prepare"):
        return _prepare(params, workspace, progress)


def _prepare(params: Params, workspace: Path, progress: bool) -> dict[str, Any]:
    dataset = resolve(params, workspace, progress)
    work = workspace / ".resume" / f"prepare-{_key(params, dataset)}"
    frames = work / "frames"
    units = {name: _units(inputs, name, work, dataset, params) for name, inputs in dataset.partitions.items()}
    every = [unit for partition in units.values() for unit in partition]
    _clear(work, every)
    waiting = [unit for unit in every if not unit.done]
    needed, free = sum(unit.size for unit in waiting), shutil.disk_usage(work).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")
    make_units(waiting, dataset.label_space, params.compute, progress)
    damaged = [
        (name, shard, reason)
        for name, partition in units.items()
        for unit in partition
        for shard, reason in unit.notes["damaged"]
    ]
    _report_damage(damaged, params, sum(map(len, dataset.partitions.values())))

    listings = {name: read_listings(partition) for name, partition in units.items()}
    _refuse_duplicates(units, listings)
    tqdm.write(most_frequent(dataset.label_space.classes, _positives(every).tolist()))
    labelled = {name: np.flatnonzero(listing["batch"].to_numpy() != LEFT_OUT) for name, listing in listings.items()}
    modalities = {modality.name: modality.width for modality in dataset.modalities}
    left_out = [f"{name}: {shard}" for name, shard, _ in damaged]
    splits = {}
    for split, (partition, rows) in _split_rows(listings, labelled, params.data.validation_videos).items():
        if not len(rows):
            raise DataError(
                f"{params.data.path or params.data.source}: split {split} is empty; partition {partition} has "
                f"{len(listings[partition])} videos, {len(labelled[partition])} of them with a class of label space "
                f"{dataset.label_space.name}; {_remedy(params, len(left_out))}"
            )
        shards = [f"../shards/{unit.shard.name}" for unit in units[partition]]
        listing = listings[partition].take(rows)
        write_split(frames / split, listing, shards, modalities, dataset.dtype, left_out)
        count = int(listing["frames"].to_numpy().sum(dtype=np.int64))
        splits[split] = {"videos": len(listing), "frames": count}
    dataset.label_space.save(frames / "label_space.json")
    # of arrays the size in bytes is an estimate
    inputs = dataset.partitions if SOURCES[params.data.source].shards else {}
    sizes = {name: {piece.name: piece.size for piece in pieces} for name, pieces in inputs.items()}
    write_record(frames / SHARDS, {unit.shard.name: unit.notes["written"] for unit in every}, sizes)
    summary = {
        "provenance": dataset.provenance,
        "seed": params.base.seed,
        "label_space": dataset.label_space.name,
        "label_space_note": dataset.label_space.note,
        "classes": len(dataset.label_space),
        "classes_without_train_video": int((_positives(units["train"]) == 0).sum()),
        "modalities": modalities,
        "partitions": {
            name: {"videos_read": len(listing), "left_out_without_class": len(listing) - len(labelled[name])}
            for name, listing in listings.items()
        },
        "splits": splits,
    }
    if damaged:
        summary["damaged"] = [dict(zip(("partition", "shard", "reason"), damage, strict=True)) for damage in damaged]
    save_json(summary, frames / "summary.json")
    replace_folder(frames, workspace / "frames")
    shutil.rmtree(work)
    return summary


def _key(params: Params, dataset: Dataset) -> str:
    """Changes with everything that each unit depends on, its own files aside."""
    reader = code(SOURCES[params.data.source].reader)  # which nothing here imports by its name
    modalities = [asdict(modality) for modality in dataset.modalities]
    content = [modalities, dataset.dtype, dataset.label_space.content]
    data = [params.base.seed, params.data.source, params.data.path]
    return resume_key(__name__, reader, content, data, FORMAT, BATCH_ROWS, UNIT_BYTES)


def _positives(units: list[Unit]) -> Int64[np.ndarray, " classes"]:
    """How many videos each class has."""
    return np.sum([unit.notes["positives"] for unit in units], axis=0)


def _report_damage(damaged: list[tuple[str, str, str]], params: Params, pieces: int) -> None:
    """Say what was left out; refuse what an earlier run left out if this one is not to."""
    lines = [": ".join(damage) for damage in damaged]
    if lines and params.data.damaged == "fail":
        raise DataError(f"{params.data.path or params.data.source}: {lines[0]}; or set data.damaged to skip")
    if lines:
        head = f"left out {len(lines)} damaged of {pieces} shards (data.damaged is skip):"
        tqdm.write("\n".join([head, *lines]), file=sys.stderr)


def _split_rows(
    listings: dict[str, pa.Table], labelled: dict[str, np.ndarray], wanted: int
) -> dict[str, tuple[str, np.ndarray]]:
    """Per split its partition, and which rows of that partition's listing are in it."""
    train, validate = ("train", labelled["train"]), labelled["validate"]
    if "test" in labelled:
        return {"train": train, "validation": ("validate", validate), "test": ("test", labelled["test"])}
    order = np.argsort(listings["validate"]["hash"].to_numpy()[validate], kind="stable")
    size = validation_size(len(listings["validate"]), wanted)
    parts = {"validation": order[:size], "test": order[size:]}
    return {"train": train} | {split: ("validate", validate[np.sort(part)]) for split, part in parts.items()}


def _remedy(params: Params, left_out: int) -> str:
    """What to do about an empty split."""
    if not SOURCES[params.data.source].shards:
        return "give it more videos, or say in the column partition of labels.csv which are train, validate and test"
    if left_out:
        return f"{left_out} damaged shards were left out: download them again"
    return "give it more videos or another label space"


def _units(inputs: Sequence[Piece], partition: str, work: Path, dataset: Dataset, params: Params) -> list[Unit]:
    units = []
    for number, group in enumerate(group_inputs(inputs)):
        name = f"{partition}-{number:05d}"
        state = hashlib.sha256(repr([piece.state for piece in group]).encode()).hexdigest()[:16]
        shard, listing = work / "frames" / "shards" / f"{name}.arrow", work / "listings" / f"{name}-{state}.arrow"
        skip = params.data.damaged == "skip"
        units.append(Unit(group, shard, listing, dataset.modalities, dataset.dtype, params.base.seed, skip))
    return units


def _clear(work: Path, units: list[Unit]) -> None:
    """Leave nothing under ``.resume`` of earlier runs but the finished units of this one."""
    for other in work.parent.glob("prepare-*"):
        if other != work:
            shutil.rmtree(other)
    kept = {path for unit in units if unit.done for path in (unit.shard, unit.listing)}
    for folder in (work / "listings", work / "frames" / "shards"):  # listings first: they vouch for shards
        folder.mkdir(parents=True, exist_ok=True)
        for left in set(folder.iterdir()) - kept:
            left.unlink()


def _refuse_duplicates(units: dict[str, list[Unit]], listings: dict[str, pa.Table]) -> None:
    """Ids of the same hash are compared themselves; sorting hashes takes less memory than a set of ids."""
    every = pa.concat_tables(
        listing.append_column("partition", pa.DictionaryArray.from_arrays(np.zeros(len(listing), np.int8), [name]))
        for name, listing in listings.items()
    )
    hashes = every["hash"].to_numpy()
    order = np.argsort(hashes, kind="stable")
    again = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    places: dict[str, str] = {}
    for video in every.take(np.unique(order[np.concatenate([again, again + 1])])).to_pylist():
        place = units[video["partition"]][video["unit"]].inputs[video["piece"]].place(video["number"])
        if video["id"] in places:
            raise DataError(
                f"id {video['id']} appears twice: {places[video['id']]}, and {place}; remove one of the two, perhaps "
                "one shard copied under two names"
            )
        places[video["id"]] = place
