"""The prepare stage: videos of any source in, the three splits of the frame store out.

Finished units of work are kept under ``.resume`` until the stage is done, so a run that was killed, or stopped at a bad
file, goes on where it stopped, and ends with the same bytes as one that was not. Only the units whose own files changed
meanwhile are made again; other parameters, classes or code begin anew, and what was unfinished under those is deleted.
"""

import errno
import gzip
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64
from tqdm import tqdm

from pipeline.base.alone import alone
from pipeline.base.atomic import atomic_file, replace_folder, writing
from pipeline.base.errors import DataError
from pipeline.base.identity import code
from pipeline.base.parameters import Params
from pipeline.data.store import BATCH_ROWS, FORMAT, SHARDS
from pipeline.data.store_writer import write_split
from pipeline.data.video import Piece
from pipeline.prepare.sources import Source, resolve
from pipeline.prepare.units import (
    LEFT_OUT,
    UNIT_BYTES,
    Damage,
    Unit,
    count_positives,
    group_inputs,
    make_units,
    read_damage,
    read_listings,
    read_written,
)
from pipeline.prepare.verify import write_record

YT8M_VALIDATE_VIDEOS = 1_112_356
SHOWN = 5  # classes


def prepare(params: Params, workspace: Path, progress: bool = True) -> dict[str, Any]:
    """Make ``workspace/frames``: splits train, validation and test, their shards, and the label space.

    The number of classes, and those that most videos have, are printed.

    Args:
        params: groups ``base``, ``data``, ``synthetic`` and ``compute`` are read.
        workspace: where ``frames`` is put, and ``.resume`` while it is being made.
        progress: show a bar.
    Returns:
        The summary, also kept as ``frames/summary.json``: provenance, label space, per partition the videos read and
        those left out because none of their labels belongs to a class, per split its videos and frames, and, if any
        were left out, the ``damaged`` shards with partition, name and reason.
    Raises:
        DataError: the source or one of its records is at fault, an id appears twice, or a split stays empty; a former
            ``frames`` folder is left as it was.
        OutputError: the workspace cannot be written, or its disk is full; finished units are kept.
        OSError: the disk fails in another way.
        BusyError: another run is preparing in this workspace.
    Source: section 3.1: 64,000 videos of the official validate partition are the validation set, its rest the test set.
    A source that names a test set of its own keeps it.
    """
    workspace = Path(workspace)
    # one at a time, by whatever parameters: a run clears away what others have left unfinished
    with writing(workspace), alone(workspace / ".resume", "prepare"):
        return _prepare(params, workspace, progress)


def validation_size(videos: int, wanted: int) -> int:
    """How many of the ``videos`` of the validate partition become validation videos; the rest is the test set.

    Args:
        videos: size of the partition.
        wanted: ``data.validation_videos``, meant for the full partition of 1,112,356 videos.
    Returns:
        ``wanted`` for the full partition; for a part of it the same share, but at least a fifth of the part (never more
        than ``wanted``), as a small copy would otherwise be left with a handful.
    """
    return min(wanted, max(round(wanted * videos / YT8M_VALIDATE_VIDEOS), videos // 5))


def _prepare(params: Params, workspace: Path, progress: bool) -> dict[str, Any]:
    source = resolve(params, workspace, progress)
    work = workspace / ".resume" / f"prepare-{_key(params, source)}"
    made = work / "frames"
    units = {name: _units(inputs, name, work, source, params) for name, inputs in source.partitions.items()}
    _clear(work, units)
    waiting = [unit for partition in units.values() for unit in partition if not unit.done]
    _check_space(work, sum(unit.size for unit in waiting))
    make_units(waiting, source.label_space, params.compute, progress)
    damaged = [(name, one) for name, partition in units.items() for one in read_damage(partition)]
    _tell(damaged, params, sum(map(len, source.partitions.values())))

    listings = {name: read_listings(partition) for name, partition in units.items()}
    _refuse_duplicates(units, listings)
    _tell_classes(source, np.sum([count_positives(partition) for partition in units.values()], axis=0))
    modalities = {modality.name: modality.width for modality in source.modalities}
    labelled = {name: np.flatnonzero(listing["batch"].to_numpy() != LEFT_OUT) for name, listing in listings.items()}
    rows = {"train": ("train", labelled["train"])}
    if "test" in labelled:
        rows |= {"validation": ("validate", labelled["validate"]), "test": ("test", labelled["test"])}
    else:
        order = np.argsort(listings["validate"]["hash"].to_numpy()[labelled["validate"]], kind="stable")
        size = validation_size(len(listings["validate"]), params.data.validation_videos)
        rows["validation"] = ("validate", labelled["validate"][np.sort(order[:size])])
        rows["test"] = ("validate", labelled["validate"][np.sort(order[size:])])
    left_out = [f"{name}: {one.name}" for name, one in damaged]
    splits, remedy = {}, "give it more videos or another label space"
    if left_out:
        remedy = f"{len(left_out)} damaged shards were left out: download them again"
    if params.data.source == "arrays":
        remedy = "give it more videos, or say in the column partition of labels.csv which are train, validate and test"
    for split, (partition, chosen) in rows.items():
        if not len(chosen):
            raise DataError(
                f"{params.data.path or params.data.source}: split {split} is empty; partition {partition} has "
                f"{len(listings[partition])} videos, {len(labelled[partition])} of them with a class of label space "
                f"{source.label_space.name}; {remedy}"
            )
        shards = [f"../shards/{unit.shard.name}" for unit in units[partition]]
        listed = listings[partition].take(chosen)
        splits[split] = _write_split(made / split, listed, shards, modalities, source.dtype, left_out)
    source.label_space.save(made / "label_space.json")
    every = [unit for partition in units.values() for unit in partition]
    given = source.partitions if params.data.source != "arrays" else {}  # what those are worth in bytes is estimated
    sizes = {name: {piece.name: piece.size for piece in pieces} for name, pieces in given.items()}
    write_record(made / SHARDS, read_written(every), sizes)
    summary = {
        "provenance": source.provenance,
        "seed": params.base.seed,
        "label_space": source.label_space.name,
        "label_space_note": source.label_space.note,
        "classes": len(source.label_space),
        "classes_without_train_video": int((count_positives(units["train"]) == 0).sum()),
        "modalities": modalities,
        "partitions": {
            name: {"videos_read": len(listing), "left_out_without_class": len(listing) - len(labelled[name])}
            for name, listing in listings.items()
        },
        "splits": splits,
    }
    if damaged:
        summary["damaged"] = [{"partition": name, "shard": one.name, "reason": one.reason} for name, one in damaged]
    with atomic_file(made / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    replace_folder(made, workspace / "frames")
    shutil.rmtree(work)
    return summary


def _key(params: Params, source: Source) -> str:
    """Changes with everything that each unit depends on, its own files aside."""
    fixed = (FORMAT, BATCH_ROWS, UNIT_BYTES, source.modalities, source.dtype, source.label_space)
    told = repr((code(), fixed, params.base.seed, params.data.source, params.data.path))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _tell(damaged: list[tuple[str, Damage]], params: Params, pieces: int) -> None:
    """Say what was left out; refuse what an earlier run left out if this one is not to."""
    told = [f"{name}: {one.name}: {one.reason}" for name, one in damaged]
    if told and params.data.damaged == "fail":
        raise DataError(f"{params.data.path or params.data.source}: {told[0]}; or set data.damaged to skip")
    if told:
        lines = [f"left out {len(told)} damaged of {pieces} shards (data.damaged is skip):", *told]
        tqdm.write("\n".join(lines), file=sys.stderr)


def _tell_classes(source: Source, videos: Int64[np.ndarray, " classes"]) -> None:
    """Print how many classes there are and which are the most frequent, so that a wrong separator is seen."""
    most = np.argsort(-videos, kind="stable")[:SHOWN]
    named = ", ".join(f"{source.label_space.classes[index]} ({videos[index]:,})" for index in most)
    tqdm.write(f"{len(videos):,} classes; most videos have: {named}")


def _units(inputs: Sequence[Piece], partition: str, work: Path, source: Source, params: Params) -> list[Unit]:
    units = []
    for number, group in enumerate(group_inputs(inputs)):
        name = f"{partition}-{number:05d}"
        state = hashlib.sha256(repr([piece.state for piece in group]).encode()).hexdigest()[:16]
        shard, listing = work / "frames" / "shards" / f"{name}.arrow", work / "listings" / f"{name}-{state}.arrow"
        skip = params.data.damaged == "skip"
        units.append(Unit(group, shard, listing, source.modalities, source.dtype, params.base.seed, skip))
    return units


def _clear(work: Path, units: dict[str, list[Unit]]) -> None:
    """Leave nothing under ``.resume`` of earlier runs but the finished units of this one."""
    for other in work.parent.glob("prepare-*"):
        if other != work:
            shutil.rmtree(other)
    kept = {
        path for partition in units.values() for unit in partition if unit.done for path in (unit.shard, unit.listing)
    }
    for folder in (work / "listings", work / "frames" / "shards"):  # listings first: they vouch for shards
        folder.mkdir(parents=True, exist_ok=True)
        for left in set(folder.iterdir()) - kept:
            left.unlink()


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")


def _refuse_duplicates(units: dict[str, list[Unit]], listings: dict[str, pa.Table]) -> None:
    """Ids of the same hash are compared themselves; sorting hashes takes less memory than a set of ids."""
    hashes = np.concatenate([listing["hash"].to_numpy() for listing in listings.values()])
    names = list(listings)
    starts = np.cumsum([0, *(len(listing) for listing in listings.values())])[:-1].tolist()  # of each partition
    order = np.argsort(hashes, kind="stable")
    again = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    places: dict[str, str] = {}
    for position in np.unique(order[np.concatenate([again, again + 1])]).tolist():
        partition = names[np.searchsorted(starts, position, side="right") - 1]
        row = position - starts[names.index(partition)]
        video = {name: listings[partition][name][row].as_py() for name in ("id", "unit", "piece", "number")}
        place = units[partition][video["unit"]].inputs[video["piece"]].place(video["number"])
        if video["id"] in places:
            raise DataError(
                f"id {video['id']} appears twice: {places[video['id']]}, and {place}; remove one of the two, perhaps "
                "one shard copied under two names"
            )
        places[video["id"]] = place


def _write_split(
    folder: Path, listing: pa.Table, shards: list[str], modalities: dict[str, int], dtype: str, left_out: list[str]
) -> dict[str, int]:
    ids = listing["id"].combine_chunks()
    table = listing.select(["id", "batch", "row", "frames", "check"])
    named = pa.DictionaryArray.from_arrays(listing["unit"].combine_chunks(), pa.array(shards))
    write_split(folder, table.append_column("shard", named), modalities, dtype, left_out)
    text = "".join(f"{name}\n" for name in ids.to_pylist())
    with atomic_file(folder / "ids.txt.gz") as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))
    return {"videos": len(listing), "frames": int(listing["frames"].to_numpy().sum(dtype=np.int64))}
