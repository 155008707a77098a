"""Read predictions files, checked, into what tables and figures need."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from artpaper import metrics
from artpaper.attacks.result import FLAGS
from pipeline.base.errors import DataError

LISTS = {"test": "clean", "adversarial": "adversarial"}  # split -> prefix of its columns
COLUMNS = ["id", "labels", *(f"{name}_{kind}" for name in LISTS.values() for kind in ("classes", "scores"))]
DIAGNOSTICS = ["relative_norm", "zero_gradient", "fooled", *FLAGS]


@dataclass(frozen=True)
class Predictions:
    """One predictions file in memory.

    ``lists[split]`` holds the scores (videos, top) and the hits (videos, listed) of the best classes, best first;
    ``positives`` the number of labels (videos,); ``vertical`` the only one that the model was trained on, None for all;
    ``settings`` what all files of one table must share.
    """

    path: Path
    model: str
    seed: int
    vertical: str | None
    settings: dict[str, Any]
    ids: pa.Array
    labels: pa.ListArray
    positives: np.ndarray
    lists: dict[str, tuple[np.ndarray, np.ndarray]]
    diagnostics: pd.DataFrame


def read_predictions(path: str | Path) -> Predictions:
    """Read and check one predictions file.

    Raises:
        DataError: it is missing, no predictions file, holds NaN scores, or lists that are too short or not descending.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such predictions file; make it with `dvc repro`")
    try:
        table = pq.read_table(path, columns=[*COLUMNS, *DIAGNOSTICS])
        given = json.loads(table.schema.metadata[b"artpaper"])
        settings = {
            "data source": given["source"],
            "label space": given["label_space"],
            "classes": given["classes"],
            "epsilon": given["epsilon"],
            "scope": given["scope"],
            "attack labels": given["labels"],
            "feature norm": given["feature_norm"],
            "frames at most": given["max_frames"],
            "damaged shards": given.get("damaged_shards", []),
        }
        model, seed = given["model"], given["seed"]
        vertical = given.get("loss", {}).get("vertical")
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a predictions file: {error}; make it anew with `dvc repro`") from None
    if not len(table):
        raise DataError(f"{path}: holds no video")
    ids, labels = table["id"].combine_chunks(), table["labels"].combine_chunks()
    if len(ids.unique()) < len(ids):
        raise DataError(f"{path}: holds a video twice; delete it and make it anew with `dvc repro`")
    positives = labels.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)  # (videos,)
    truth = np.repeat(np.arange(len(ids)), positives) * settings["classes"] + labels.flatten().to_numpy()
    truth = np.sort(np.append(truth, -1))  # (labels + 1,): video and class of each label as one number, -1 matches none
    lists = {
        split: _read_lists(path, table, name, settings["classes"], positives, truth) for split, name in LISTS.items()
    }
    diagnostics = table.select(DIAGNOSTICS).to_pandas()
    return Predictions(path, model, seed, vertical, settings, ids, labels, positives, lists, diagnostics)


def _read_lists(
    path: Path, table: pa.Table, name: str, classes: int, positives: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (videos, top) and hits (videos, listed, False where a list is shorter) of one test set."""
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
    pairs = rows * classes + index
    found = truth[np.minimum(np.searchsorted(truth, pairs), len(truth) - 1)] == pairs  # (pairs,)
    hits[rows, np.arange(len(rows)) - starts[rows]] = found
    top = min(metrics.TOP_K, classes)
    return scores[starts[:, None] + np.arange(top)], hits
