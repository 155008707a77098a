"""All faults of a folder of arrays at once; a preparation stops at the first."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from pipeline.arrays.files import open_files
from pipeline.arrays.labels import PARTITIONS, LabelRow, given_space
from pipeline.arrays.reader import Reading, check_labels, look_at, read_frames
from pipeline.arrays.separator import check_names
from pipeline.base.errors import ConfigError, DataError
from pipeline.base.groups import Data
from pipeline.base.parameters import Params, as_dict, build, load_params
from pipeline.base.project import project_root


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
    columns, none is looked at. What is wrong with all rows together is told when each is in order.
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
        partitions, broken = set(), False
        reading: Reading | None = None
        rows = labels.rows()
        bar = stack.enter_context(tqdm(desc="labels.csv", unit="video", disable=not progress))
        while True:  # not by for: that would end at the first row at fault
            try:
                row: LabelRow | None = next(rows, None)
                if row is None:
                    break
                bar.update()
                partitions.add(row.partition)
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
                read_frames(row, reading, opened)
            except DataError as error:
                broken = True
                yield str(error)
    if broken:  # the rows that are lost may be those that are missed
        return
    for partition in PARTITIONS[:2]:
        if partition not in partitions:
            yield f"{labels.path}: no video is of partition {partition}; name some in the column partition"
    if space is None:
        try:
            check_names(labels.path, classes, labels.separator if params.data.separator == "auto" else "none")
            given_space(sorted(classes), [()] * len(classes), f"The {len(classes)} classes of labels.csv")
        except DataError as error:
            yield str(error)
