"""Label spaces: from the entities stored in a record to the classes a model is trained on.

The paper's 317 and 431 classes come from a mapping that was never published, so ``h317`` and ``h431`` are a declared
surrogate with the same numbers of classes: the 24 verticals and the most frequent entities, closed upward.
"""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.base.atomic import save_json
from pipeline.base.errors import DataError
from pipeline.base.explain import nearest
from pipeline.base.sources import SOURCES

# "Knowledge Graph entities, organized into 24 top-level verticals" (research.google.com/youtube8m), alphabetical
VERTICALS = (
    *("Arts & Entertainment", "Autos & Vehicles", "Beauty & Fitness", "Books & Literature", "Business & Industrial"),
    *("Computers & Electronics", "Finance", "Food & Drink", "Games", "Health", "Hobbies & Leisure", "Home & Garden"),
    *("Internet & Telecom", "Jobs & Education", "Law & Government", "News", "People & Society", "Pets & Animals"),
    *("Real Estate", "Reference", "Science", "Shopping", "Sports", "Travel"),
)
NO_VERTICAL = "(Unknown)"
HIERARCHICAL = {"h317": 317, "h431": 431}
SEGMENT_ROWS = 1000
SHOWN = 5  # classes

WHERE_VOCABULARY = f"get vocabulary.csv from {SOURCES['yt8m'].page} and set data.vocabulary"


@dataclass(frozen=True)
class Entity:
    """One row of vocabulary.csv."""

    index: int  # in the records
    name: str
    train_videos: int
    verticals: tuple[str, ...]


class Vocabulary(tuple[Entity, ...]):
    """The entities of a vocabulary.csv in the order of their Index column, whatever the order of the rows."""

    @classmethod
    def read(cls, path: str | Path, expected_rows: int) -> "Vocabulary":
        """Read and check a vocabulary file; entity i is at position i, one without a name is called after its id."""
        columns = ("Index", "TrainVideoCount", "KnowledgeGraphId", "Name", "Vertical1", "Vertical2", "Vertical3")
        rows = read_rows(path, columns, WHERE_VOCABULARY)
        if len(rows) != expected_rows:
            message = f"{path}: {len(rows)} entities, expected {expected_rows}"
            if len(rows) == SEGMENT_ROWS:
                message += "; this is the vocabulary of the 2019 segments, the one of the 2018 videos is needed"
            raise DataError(f"{message}; {WHERE_VOCABULARY}")
        return cls(
            Entity(
                index,
                row["Name"] or f"entity {index} ({row['KnowledgeGraphId']})",
                _number(path, row, "TrainVideoCount"),
                tuple(row[column] for column in columns[4:] if row[column] and row[column] != NO_VERTICAL),
            )
            for index, row in enumerate(in_index_order(path, rows, "Index"))
        )


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a run, and how the labels of a record map to them."""

    name: str  # one of the label_spaces of the source
    classes: tuple[str, ...]  # names in the order of the model's outputs
    groups: tuple[tuple[str, ...], ...]  # per class the verticals (AudioSet: families) that it counts for
    entity_classes: tuple[tuple[int, ...], ...]  # per label of the records the classes that it switches on, ascending
    note: str  # what a reader of a table must know about this space

    def __len__(self) -> int:
        return len(self.classes)

    def map(self, entities: Iterable[int], where: str = "labels") -> tuple[int, ...]:
        """The classes of one record, ascending, each once; ``where`` is its place, for a message."""
        classes: set[int] = set()
        for entity in entities:
            if not 0 <= entity < len(self.entity_classes):
                raise DataError(
                    f"{where}: label {entity} is outside the vocabulary of {len(self.entity_classes)} entities; "
                    "the vocabulary and the shards are of different releases"
                )
            classes.update(self.entity_classes[entity])
        return tuple(sorted(classes))

    @cached_property
    def group_names(self) -> tuple[str, ...]:
        """Every vertical or family that some class counts for, sorted."""
        return tuple(sorted({group for groups in self.groups for group in groups}))

    def members(self, group: str) -> tuple[int, ...]:
        """The classes that count for a vertical or family: a video belongs to it when it has one of them."""
        classes = tuple(index for index, groups in enumerate(self.groups) if group in groups)
        if not classes:
            raise DataError(f"label space {self.name} has no group {group!r}; it has {', '.join(self.group_names)}")
        return classes

    @property
    def content(self) -> dict[str, Any]:
        """What JSON takes; ``asdict`` would copy each of some thousand entities."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def save(self, path: str | Path) -> None:
        """Write the space as JSON."""
        save_json(self.content, path, ensure_ascii=False)

    @classmethod
    def load(cls, path: str | Path) -> "LabelSpace":
        """Read what :meth:`save` wrote."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            groups, entity_classes = (tuple(map(tuple, values[name])) for name in ("groups", "entity_classes"))
            return cls(values["name"], tuple(values["classes"]), groups, entity_classes, values["note"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: no label space ({error}); run the prepare stage again") from None


def youtube8m_space(name: str, vocabulary: Vocabulary) -> LabelSpace:
    """The label space ``name`` over a YouTube-8M vocabulary.

    ``h317`` and ``h431`` are the 24 verticals, then the most frequent entities (ties by index), the largest of each
    vertical always among them, closed upward: every entity, kept or not, switches on the nodes of its verticals. With
    ``k3862`` every entity is a class.
    Source: section 3.1 names 317 and 431 classes; the mapping is this project's, "(Unknown)" is no node.
    """
    groups = tuple(entity.verticals for entity in vocabulary)
    if name not in HIERARCHICAL:
        names = tuple(entity.name for entity in vocabulary)
        note = (
            f"All {len(vocabulary)} entities as they are, without a mapping (control, comparable with YouTube-8M work)."
        )
        return LabelSpace(name, names, groups, tuple((entity.index,) for entity in vocabulary), note)
    for entity in vocabulary:
        for vertical in set(entity.verticals) - set(VERTICALS):
            hint = nearest(vertical, list(VERTICALS))
            raise DataError(f"entity {entity.index} ({entity.name}) has the unknown vertical {vertical!r}{hint}")
    ranked = sorted(vocabulary, key=lambda entity: (-entity.train_videos, entity.index))
    largest = (next((entity for entity in ranked if vertical in entity.verticals), None) for vertical in VERTICALS)
    reserved = {entity.index for entity in largest if entity is not None}
    others = [entity.index for entity in ranked if entity.index not in reserved]
    chosen = reserved.union(others[: HIERARCHICAL[name] - len(VERTICALS) - len(reserved)])
    kept = [entity for entity in ranked if entity.index in chosen]
    node = {vertical: index for index, vertical in enumerate(VERTICALS)}
    switched_on = [{node[vertical] for vertical in entity.verticals} for entity in vocabulary]
    for position, entity in enumerate(kept, start=len(VERTICALS)):
        switched_on[entity.index].add(position)
    note = (
        f"Declared surrogate of the paper's {HIERARCHICAL[name]} classes, whose mapping is unpublished: "
        f"{len(VERTICALS)} verticals and the {len(kept)} most frequent entities (at least one per vertical), "
        "closed upward."
    )
    return LabelSpace(
        name,
        VERTICALS + tuple(entity.name for entity in kept),
        tuple((vertical,) for vertical in VERTICALS) + tuple(entity.verticals for entity in kept),
        tuple(tuple(sorted(classes)) for classes in switched_on),
        note,
    )


def read_rows(path: str | Path, columns: Sequence[str], remedy: str) -> list[dict[str, str]]:
    """These columns of a CSV file; ``remedy`` says where to get one that can be read and has them."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            rows = [{column: (row.get(column) or "").strip() for column in columns} for row in reader if not missing]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; {remedy}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error}); {remedy}") from None
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; {remedy}")
    return rows


def in_index_order(path: str | Path, rows: list[dict[str, str]], column: str) -> list[dict[str, str]]:
    """The rows in the order of their index column, which must be 0, 1, ... without gap or repetition."""
    by_index: dict[int, dict[str, str]] = {}
    for row in rows:
        index = _number(path, row, column)
        if index in by_index:
            raise DataError(f"{path}: {column} {index} is given twice; take an unchanged copy of the file")
        by_index[index] = row
    for index in range(len(rows)):
        if index not in by_index:
            raise DataError(f"{path}: {column} {index} is missing; take an unchanged copy of the file")
    return [by_index[index] for index in range(len(rows))]


def _number(path: str | Path, row: dict[str, str], column: str) -> int:
    try:
        return int(row[column])
    except ValueError:
        raise DataError(f"{path}: {column} {row[column]!r} is no whole number, in row {row}") from None


def most_frequent(classes: Sequence[str], videos: Sequence[int]) -> str:
    """How many classes there are and which have the most videos, in words, so that a wrong separator is seen."""
    most = sorted(range(len(classes)), key=lambda index: -videos[index])[:SHOWN]
    names = ", ".join(f"{classes[index]} ({videos[index]:,})" for index in most)
    return f"{len(classes):,} classes; most videos have: {names}"
