"""The predictions file of the one-step attack: its columns, and what tables need of it, checked."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Float, Int64

from artpaper import metrics
from artpaper.attacks.result import FLAGS
from artpaper.attention import NUMBERS
from pipeline.base.errors import DataError
from pipeline.predict.files import DAMAGED, DIAGNOSED, read_file

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

# scores and hits of each video's best classes, best first
Lists = tuple[Float[np.ndarray, "videos top"], Bool[np.ndarray, "videos listed"]]


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
    positives: Int64[np.ndarray, " videos"]  # how many labels each has
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
    positives = labels.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)  # (videos,)
    # (labels,): video and class of each label as one number
    truth = np.repeat(np.arange(len(ids)), positives) * settings["classes"] + labels.flatten().to_numpy()
    lists = {
        split: _read_lists(path, table, name, settings["classes"], positives, truth) for split, name in LISTS.items()
    }
    diagnostics = table.select(DIAGNOSTICS).to_pandas()
    vertical = note.get("loss", {}).get("vertical")
    return Predictions(
        path, note["model"], note["seed"], vertical, settings, ids, labels, positives, lists, diagnostics
    )


def _read_lists(
    path: Path, table: pa.Table, name: str, classes: int, positives: np.ndarray, truth: np.ndarray
) -> Lists:
    """Of one test set; hits are False where a list is shorter."""
    listed, scored = (table[f"{name}_{kind}"].combine_chunks() for kind in ("classes", "scores"))
    lengths = listed.value_lengths().to_numpy(zero_copy_only=False)  # (videos,)
    index, scores = listed.flatten().to_numpy(), scored.flatten().to_numpy(zero_copy_only=False)  # (pairs,) each
    wanted = np.minimum(classes, np.maximum(metrics.TOP_K, positives))  # (videos,)
    if not listed.value_lengths().equals(scored.value_lengths()) or (lengths < wanted).any():
        raise DataError(f"{path}: {name} lists are shorter than {metrics.TOP_K} classes, or than a video's labels")
    rows = np.repeat(np.arange(len(lengths)), lengths)  # (pairs,) video of each pair
    starts = np.cumsum(lengths) - lengths  # (videos,)
    if np.isnan(scores).any():
        video = table["id"][int(rows[np.isnan(scores).argmax()])].as_py()
        raise DataError(f"{path}: {name} scores of video {video} are NaN; the model has diverged")
    if ((np.diff(scores) > 0) & (np.diff(rows) == 0)).any() or index.min() < 0 or index.max() >= classes:
        raise DataError(f"{path}: {name} lists are not in descending order, or name classes beyond {classes}")
    hits = np.zeros((len(lengths), lengths.max()), dtype=bool)
    hits[rows, np.arange(len(rows)) - starts[rows]] = np.isin(rows * classes + index, truth)
    top = min(metrics.TOP_K, classes)
    return scores[starts[:, None] + np.arange(top)], hits
