"""The predictions file of the one-step attack: its columns, and what tables need of it, checked."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from artpaper.attacks.result import FLAGS
from artpaper.attention import NUMBERS
from pipeline.base.errors import DataError
from pipeline.predict.files import DAMAGED, DIAGNOSED, Lists, read_file, read_lists

LISTS = {"test": "clean", "adversarial": "adversarial"}  # split -> prefix of its columns
COLUMNS = ["id", "labels", *(f"{name}_{kind}" for name in LISTS.values() for kind in ("classes", "scores"))]
DIAGNOSTICS = ["relative_norm", "zero_gradient", "fooled", *FLAGS]
SETTINGS = {
    "data source": "source",
    "label space": "label_space",
    "classes": "classes",
    "epsilon": "epsilon",
    "scope": "scope",
    "attack labels": "labels",
    "feature norm": "feature_norm",
    "frames at most": "max_frames",
}  # what all files of one table must share -> where a file says it


def schema(modalities: Iterable[str] = ()) -> pa.Schema:
    """Columns of a predictions file: one row a video, the numbers of every modality's attention maps last."""
    columns = {"id": pa.string(), "labels": pa.list_(pa.int32()), "frames": pa.int32()}
    for name in LISTS.values():
        columns |= {f"{name}_classes": pa.list_(pa.int32()), f"{name}_scores": pa.list_(pa.float32())}
    columns |= DIAGNOSED
    columns |= {attention_column(modality, name): pa.float64() for modality in modalities for name in NUMBERS}
    return pa.schema(columns)


def attention_column(modality: str, number: str) -> str:
    """Where a predictions file keeps a number of :data:`artpaper.attention.NUMBERS` of a modality's maps."""
    return f"{modality}_attention_{number}"


@dataclass(frozen=True)
class Predictions:
    """One predictions file in memory."""

    path: Path
    model: str
    seed: int
    vertical: str | None  # the only one that the model was trained on; None: on all
    settings: dict[str, Any]  # what all files of one table must share
    ids: pa.Array
    labels: pa.ListArray
    lists: dict[str, Lists]  # by split
    diagnostics: pd.DataFrame


def read_predictions(path: str | Path) -> Predictions:
    """Read one predictions file, which must have each video once, with descending lists that are long enough."""
    path, whole = Path(path), schema()
    wanted = pa.schema([whole.field(name) for name in (*COLUMNS, *DIAGNOSTICS)])
    table, note = read_file(path, wanted, ("model", "seed", *SETTINGS.values()))
    settings = {name: note[place] for name, place in SETTINGS.items()} | {"damaged shards": note.get(DAMAGED, [])}
    ids, labels = table["id"].combine_chunks(), table["labels"].combine_chunks()
    if len(ids.unique()) < len(ids):
        raise DataError(f"{path}: holds a video twice; delete it and make it anew with `dvc repro`")
    lists = {split: read_lists(path, table, f"{name}_", settings["classes"]) for split, name in LISTS.items()}
    diagnostics = table.select(DIAGNOSTICS).to_pandas()
    vertical = note.get("loss", {}).get("vertical")
    return Predictions(path, note["model"], note["seed"], vertical, settings, ids, labels, lists, diagnostics)
