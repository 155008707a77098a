"""The labels of one's own videos: ``labels.csv``, row by row in constant memory, and the optional ``classes.csv``."""

import csv
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.arrays.separator import check_names, find_separator, split, tidy
from pipeline.base.errors import DataError
from pipeline.base.explain import nearest
from pipeline.data.labels import LabelSpace

PARTITIONS = ("train", "validate", "test")
VALIDATE_SHARE = 0.3  # without a column partition; about the share that YouTube-8M keeps from training
SEPARATOR = ";"
PARTITION_ALSO = ("split", "set", "subset", "fold", "partitions")  # what others call the column partition
PARTITIONS_ALSO = {*PARTITIONS, "training", "val", "valid", "validation", "dev", "eval", "testing"}
GROUPS_ALSO = ("group",)


@dataclass(frozen=True)
class LabelRow:
    """One video of ``labels.csv``."""

    line: int  # that it begins on
    start: int  # its first byte
    stop: int  # the byte after its last
    id: str
    labels: tuple[str, ...]
    partition: str


@dataclass(frozen=True)
class LabelFile:
    """``labels.csv``: columns id, labels and, if wanted, partition."""

    path: Path
    seed: int  # with the id it decides the partition of each video where there is no such column
    separator: str = "semicolon"  # between the labels of a cell, as pipeline.arrays.separator.find_separator gives it

    def columns(self) -> list[str]:
        """The header; one that lacks id or labels, or has another column in place of ours, is refused."""
        return _header(self.path, ("id", "labels"), "partition", PARTITION_ALSO)

    def unread(self) -> list[str]:
        """The columns that are passed over."""
        return [name for name in self.columns() if name not in ("id", "labels", "partition")]

    @property
    def partitions_from(self) -> str:
        """Where the partitions come from, in words."""
        return "column" if "partition" in self.columns() else "drawn from id and base.seed"

    def refuse_partitions_unread(self) -> None:
        """Refuse a column whose cells all say train, val and the like, where none is called partition."""
        columns, said = self.columns(), dict[str, set[str]]((name, set()) for name in self.unread())
        if "partition" in columns or not said:
            return
        for record in _records(self.path, columns):
            for name, values in said.items():
                values.update(filter(None, [tidy(record.cells[name]).casefold()]))
            said = {name: values for name, values in said.items() if values <= PARTITIONS_ALSO}
            if not said:
                return
        for name, values in said.items():
            if len(values) > 1:
                raise DataError(
                    f"{self.path}: column {name!r} says {', '.join(sorted(values))} and would be passed over; call it "
                    f"partition, with {', '.join(PARTITIONS)} in it, or remove it: they are then drawn from the ids"
                )

    def cells(self) -> Iterator[tuple[int, str]]:
        """Line and labels of each video, not yet taken apart."""
        return ((record.line, record.cells["labels"]) for record in _records(self.path, self.columns()))

    def rows(self, start: int = 0, stop: int | None = None, line: int = 1) -> Iterator[LabelRow]:
        """The rows, checked one by one, between two bytes as :class:`LabelRow` tells them; ``line`` is the first's."""
        return map(self._row, _records(self.path, self.columns(), start, stop, line))

    def _row(self, record: "_Record") -> LabelRow:
        cells, where = record.cells, f"{self.path}: line {record.line}"
        name = unicodedata.normalize("NFC", cells["id"])
        if not name or name.startswith(".") or re.search(r"[/\\]", name) or not name.isprintable():
            last = re.split(r"[/\\]", name)[-1]
            remedy = f"leave out the folder: {last}" if last not in ("", name) else "use letters, digits, - and _"
            raise DataError(f"{where}: id {name!r} cannot be the name of a file; {remedy}")
        where += f": id {name}"
        try:
            labels = split(cells["labels"], self.separator)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
        if not labels:
            raise DataError(f"{where} has no label; name at least one class, or remove the row")
        partition = tidy(cells["partition"]) if "partition" in cells else self._drawn(name)
        if partition not in PARTITIONS:
            near = nearest(partition, list(PARTITIONS))
            raise DataError(f"{where} has the unknown partition {partition!r}{near}")
        return LabelRow(record.line, record.start, record.stop, name, labels, partition)

    def _drawn(self, name: str) -> str:
        digest = hashlib.blake2b(name.encode(), digest_size=8, key=f"train or validate {self.seed}".encode()).digest()
        return "validate" if int.from_bytes(digest, "little") < VALIDATE_SHARE * 2**64 else "train"


def read_classes(path: Path) -> LabelSpace:
    """The classes of ``classes.csv``, in its order: columns class and, if wanted, groups, ``;`` between them."""
    classes: dict[str, tuple[str, ...]] = {}
    lines: dict[str, int] = {}
    columns = _header(path, ("class",), "groups", GROUPS_ALSO)
    rows = [(record.line, record.cells["class"], record.cells.get("groups", "")) for record in _records(path, columns)]
    separator = find_separator(path, ((line, cell) for line, _, cell in rows), declared=False)
    for line, cell, listed in rows:
        try:
            name, groups = next(iter(split(cell, "none")), ""), split(listed, separator)
        except ValueError as error:
            raise DataError(f"{path}: line {line}: {error}") from None
        if not name or SEPARATOR in name or name in classes:
            why = "is there twice" if name in classes else f"must be a name without {SEPARATOR!r}"
            raise DataError(f"{path}: line {line}: class {name!r} {why}; correct this line")
        classes[name] = groups
        for group in groups:
            lines.setdefault(group, line)
    check_names(path, lines, separator, declared=False)
    return given_space(classes, classes.values(), f"The {len(classes)} classes of classes.csv as they are")


def given_space(names: Iterable[str], groups: Iterable[tuple[str, ...]], note: str) -> LabelSpace:
    """A label space of one's own, each label a class; ``note`` says where they come from."""
    classes = tuple(names)
    if len(classes) < 2:
        raise DataError(
            f"{note}: only {', '.join(classes) or 'none'}; a classifier needs two classes or more, "
            f"separate the names of several labels by {SEPARATOR!r}"
        )
    entities = tuple((index,) for index in range(len(classes)))
    return LabelSpace("given", classes, tuple(groups), entities, f"{note}; not the paper's data set.")


def _header(path: Path, needed: tuple[str, ...], optional: str, also: tuple[str, ...]) -> list[str]:
    """The names of the columns; others than ours are passed over, unless they look as if one of ours was meant."""
    head = next(_lines(path), None)
    columns = [tidy(name) for name in head[3]] if head else []
    below = head[0] if head else 1
    rest = f"; write such a line above line {below}: those that begin with # are passed over" if below > 1 else ""
    for name in (*needed, optional):
        if columns.count(name) > 1 or (name in needed and name not in columns):
            raise DataError(
                f"{path}: needs one column {name}, its first line has {', '.join(columns) or 'none'}; the columns are "
                f"{', '.join(needed)} and, if wanted, {optional}, with commas between them{rest}"
            )
    meant = {name: name for name in (*needed, optional)} | dict.fromkeys(also, optional)
    for column in columns:
        name = meant.get(column.casefold(), column)
        if column != name:
            raise DataError(
                f"{path}: column {column!r} would be passed over; call it {name}, or rename it if it is not"
            )
    return columns


class _Record(NamedTuple):
    """As :class:`LabelRow`, with the cells by their columns."""

    line: int
    start: int
    stop: int
    cells: dict[str, str]


def _records(
    path: Path, columns: list[str], start: int = 0, stop: int | None = None, line: int = 1
) -> Iterator[_Record]:
    """The records below the header that begin between two bytes."""
    lines = _lines(path, start, stop, line)
    if not start:
        next(lines, None)  # the header
    for number, begin, end, cells in lines:
        if not cells:  # an empty line
            continue
        if len(cells) != len(columns):
            raise DataError(
                f"{path}: line {number} has {len(cells)} cells, the header {len(columns)}; put a name that holds a "
                'comma into quotes ("a, b")'
            )
        yield _Record(number, begin, end, dict(zip(columns, map(str.strip, cells), strict=True)))


def _lines(
    path: Path, start: int = 0, stop: int | None = None, line: int = 1
) -> Iterator[tuple[int, int, int, list[str]]]:
    """As :class:`_Record`, with the cells in a list: quoted ones may span lines.

    Lines above the header that are empty or begin with ``#`` are passed over.
    """
    end, number, first = start, line - 1, line

    def lines() -> Iterator[str]:
        nonlocal start, end, number, first
        above = not start
        for raw in file:
            end, number = end + len(raw), number + 1
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            above = above and (not text.strip() or text.startswith("#"))
            if above:
                start, first = end, number + 1
            else:
                yield text

    try:
        with open(path, "rb") as file:
            file.seek(start)
            for cells in csv.reader(lines(), strict=True, skipinitialspace=True):
                yield first, start, end, cells
                start, first = end, number + 1
                if stop is not None and start >= stop:
                    return
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; it lists the videos, docs/own_data.md shows how") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: line {number} is not UTF-8 ({error.reason}); save it as CSV in UTF-8") from None
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: line {first}: cannot be read as CSV ({error}); save it as CSV in UTF-8") from None
