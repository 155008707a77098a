"""All faults of a folder of arrays at once; a preparation stops at the first."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from pipeline.arrays.files import open_files
from pipeline.arrays.labels import PARTITIONS, LabelFile, LabelRow, given_space
from pipeline.arrays.reader import Reading, check_labels, look_at, read_frames
from pipeline.arrays.separator import check_names, describe, doubts
from pipeline.base.errors import ConfigError, DataError
from pipeline.base.groups import Data
from pipeline.base.parameters import Params, as_dict, build, load_params
from pipeline.base.project import project_root
from pipeline.data.labels import most_frequent
from pipeline.data.splits import validation_size


def faults_of(folder: Path, changes: Mapping[str, str]) -> Iterator[str]:
    """:func:`faults` of a folder that no parameter file names yet; ``changes`` are those of ``data.rates`` and such."""
    data = {"path": str(folder)}
    for key, value in changes.items():
        if key not in ("data.rates", "data.separator"):
            raise ConfigError(f"--set {key}: how arrays are read depends on data.rates and data.separator alone")
        data[key.removeprefix("data.")] = value
    params = load_params(project_root() / "profiles" / "arrays.yaml")
    return faults(replace(params, data=build(Data, as_dict(params.data) | data, "data")))


def faults(params: Params, progress: bool = True) -> Iterator[str]:
    """What a preparation of ``data.path`` would refuse, a row of labels.csv at most once, every array read.

    What nothing can be read without, such as the header, is told alone; after a line that is no CSV of the header's
    columns, none is looked at. What is wrong with all rows together is told when each is in order; if nothing is, what
    was understood of the folder is printed, for what was read otherwise than meant looks like no fault.
    """
    with ExitStack() as stack:
        try:
            labels, space, places = look_at(params)
            opened = [stack.enter_context(open_files(path)) for path in places.values()]
        except DataError as error:
            yield str(error)
            return
        known = None if space is None else list(space.classes)
        seen: dict[str, int] = {}
        classes = dict.fromkeys(known or (), 0)  # label -> the line that first names it
        partitions, videos, lengths, broken = Counter[str](), Counter[str](), set[int](), False
        reading: Reading | None = None
        rows = labels.rows()
        bar = stack.enter_context(tqdm(desc="labels.csv", unit="video", disable=not progress))
        while True:  # not by for: that would end at the first row at fault
            try:
                row: LabelRow | None = next(rows, None)
                if row is None:
                    break
                bar.update()
                partitions[row.partition] += 1
                videos.update({*row.labels})
                if row.id in seen:
                    raise DataError(
                        f"{labels.path}: line {row.line}: id {row.id} stands on line {seen[row.id]} too; remove one"
                    )
                seen[row.id] = row.line
                check_labels(labels, row, known)
                for name in row.labels:
                    classes.setdefault(name, row.line)
                if reading is None:  # the first whose arrays can be read is what the others are compared with
                    samples = {name: files.array(row) for name, files in zip(places, opened, strict=True)}
                    reading = Reading.like(labels, places, samples, params.data.rates)
                lengths.add(len(read_frames(row, reading, opened)))
            except DataError as error:
                broken = True
                yield str(error)
    if broken or reading is None:  # the rows that are lost may be those that are missed
        return
    told = list(_faults_of_all(params, labels, partitions, None if known else classes))
    yield from told
    if not told:
        splits = _splits(params, partitions)
        widths = ", ".join(f"{modality.name} {modality.width} numbers a frame" for modality in reading.modalities)
        order = sorted(classes) if space is None else space.classes
        sizes = ", ".join(f"{name} {number:,}" for name, number in splits.items())
        unread = f"; columns passed over: {', '.join(names)}" if (names := labels.unread()) else ""
        tqdm.write(f"{len(seen):,} videos of {min(lengths):,} to {max(lengths):,} frames; {widths}")
        tqdm.write(f"{sizes} (partitions: {labels.partitions_from}){unread}")
        tqdm.write(f"{describe(labels.separator)}; {most_frequent(order, [videos[name] for name in order])}")
        if splits["test"] < params.tables.partitions:
            tqdm.write(f"Table 1 divides the test videos by {params.tables.partitions}: set tables.partitions to fewer")
        for doubt in doubts(classes, len(seen)) if space is None else ():
            tqdm.write(f"{labels.path}: {doubt}")


def _faults_of_all(
    params: Params, labels: LabelFile, partitions: Mapping[str, int], classes: Mapping[str, int] | None
) -> Iterator[str]:
    """What is wrong with all rows together; ``classes`` has those of labels.csv and the lines that first name them."""
    missing = [name for name in PARTITIONS[:2] if not partitions[name]]
    for partition in missing:
        yield f"{labels.path}: no video is of partition {partition}; name some in the column partition"
    empty = [name for name, number in _splits(params, partitions).items() if not number and not missing]
    for split in empty:
        yield f"{labels.path}: split {split} is empty; give it more videos, or name the partitions"
    if classes is not None:
        try:
            check_names(labels.path, classes, labels.separator if params.data.separator == "auto" else "none")
            given_space(sorted(classes), [()] * len(classes), f"The {len(classes)} classes of labels.csv")
        except DataError as error:
            yield str(error)


def _splits(params: Params, partitions: Mapping[str, int]) -> dict[str, int]:
    """How many videos each split gets of so many of each partition."""
    validate, test = partitions["validate"], partitions["test"]
    first = validate if test else validation_size(validate, params.data.validation_videos)
    return {"train": partitions["train"], "validation": first, "test": test or validate - first}
