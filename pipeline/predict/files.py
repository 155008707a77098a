"""What all files of predictions share: the lists in them, what they say of themselves, and how they are read."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Float32, Int32, Int64
from torch import Tensor

from artpaper import __version__
from artpaper.attacks.result import FLAGS
from artpaper.metrics import TOP_K
from pipeline.base.errors import DataError
from pipeline.base.parameters import Params, as_dict
from pipeline.data.store import FrameStore
from pipeline.train.checkpoints import Note

DAMAGED = "damaged_shards"  # in a note only where some were left out
DIAGNOSED = (  # columns for what an attack says of each video
    dict.fromkeys(("norm", "relative_norm", "gradient_norm"), pa.float64())
    | {"zero_gradient": pa.bool_(), "iterations": pa.int64()}
    | dict.fromkeys(("already_wrong", "fooled", *FLAGS), pa.bool_())
)
# scores and hits of each video's best classes, best first (no hits beyond a list's end), and how many labels it has
Lists = tuple[Float[np.ndarray, "videos top"], Bool[np.ndarray, "videos listed"], Int64[np.ndarray, " videos"]]


def describe(params: Params, name: str, seed: int, note: Note, store: FrameStore) -> Note:
    """What a file says of itself, JSON-ready: the model, its checkpoint's ``note``, and the data it was asked about."""
    space = store.label_space
    left_out = {DAMAGED: store.damaged} if store.damaged else {}
    return left_out | {
        "model": name, "seed": seed, "loss": as_dict(params.models[name]), "version": __version__,
        "best_step": note["best_step"], "best_validation_gap": note["best_validation_gap"],
        "source": params.data.source, "split": store.path.name, "modalities": store.modalities,
        "label_space": space.name, "label_space_note": space.note, "classes": len(space.classes),
        "feature_norm": params.features.norm, "max_frames": params.features.max_frames,
    }  # fmt: skip


def best_classes(
    logits: Float[Tensor, "batch classes"], listed: list[int]
) -> tuple[list[Int32[np.ndarray, " _"]], list[Float32[np.ndarray, " _"]]]:
    """Each video's ``listed`` best classes and their logits, best first, the lower class first among ties."""
    order = logits.argsort(dim=-1, descending=True, stable=True)[:, : max(listed)]  # (B, most)
    scores = logits.gather(-1, order).numpy()
    classes = order.int().numpy()
    best, values = ([row[:k] for row, k in zip(part, listed, strict=True)] for part in (classes, scores))
    return best, values


def read_file(
    path: str | Path, schema: pa.Schema | Callable[[Note], pa.Schema], note: Iterable[str],
    kind: str = "predictions file", maker: str = "`dvc repro`", columns: Iterable[str] | None = None,
) -> tuple[pa.Table, Note]:  # fmt: skip
    """The ``columns`` (default: all of ``schema``) of a file of the pipeline, in one chunk, and what it says of itself.

    The one place where such a file is opened to be read: ``schema``, which may depend on what the file says of itself,
    has the columns that it must have, ``note`` what it must say.

    Raises:
        DataError: it is missing, damaged or no ``kind``, or holds no video; ``maker`` is the command that makes it.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such {kind}; make it with {maker}")
    try:
        with pq.ParquetFile(path) as file:
            said: Note = json.loads(file.schema_arrow.metadata[b"artpaper"])
            missing = [name for name in note if name not in said]
            fields = schema(said) if callable(schema) else schema
            missing += [field.name for field in fields if field.name not in file.schema_arrow.names]
            if missing:
                raise ValueError(f"it lacks {', '.join(missing)}")
            for field in fields:
                if (kept := file.schema_arrow.field(field.name).type) != field.type:
                    raise ValueError(f"column {field.name} holds {kept}, not {field.type}")
            table = file.read([*(fields.names if columns is None else columns)])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a {kind}: {error}; make it anew with {maker}") from None
    if not len(table):
        raise DataError(f"{path}: holds no video; delete it and make it anew with {maker}")
    return table.combine_chunks(), said


def read_lists(path: Path, table: pa.Table, prefix: str, classes: int) -> Lists:
    """Each video's best classes, best first, of columns ``<prefix>classes`` and ``<prefix>scores`` of a file.

    Raises:
        DataError: lists that are too short, hold NaN, are out of order, or name classes beyond ``classes``.
    """
    names = ("labels", f"{prefix}classes", f"{prefix}scores")
    labels, listed, scored = (table[name].combine_chunks() for name in names)
    positives = labels.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)  # (videos,)
    lengths = listed.value_lengths().to_numpy(zero_copy_only=False)  # (videos,)
    index, scores = listed.flatten().to_numpy(), scored.flatten().to_numpy(zero_copy_only=False)  # (pairs,) each
    wanted = np.minimum(classes, np.maximum(TOP_K, positives))  # (videos,)
    kind = prefix.replace("_", " ")
    if not listed.value_lengths().equals(scored.value_lengths()) or (lengths < wanted).any():
        raise DataError(
            f"{path}: {kind}lists are shorter than {TOP_K} classes, or than a video's labels, or differ in length"
        )
    rows = np.repeat(np.arange(len(lengths)), lengths)  # (pairs,) video of each pair
    starts = np.cumsum(lengths) - lengths  # (videos,)
    if np.isnan(scores).any():
        video = table["id"][int(rows[np.isnan(scores).argmax()])].as_py()
        raise DataError(f"{path}: {kind}scores of video {video} are NaN; the model has diverged")
    if ((np.diff(scores) > 0) & (np.diff(rows) == 0)).any() or index.min() < 0 or index.max() >= classes:
        raise DataError(f"{path}: {kind}lists are not in descending order, or name classes beyond {classes}")
    # (labels,): video and class of each label as one number
    truth = np.repeat(np.arange(len(lengths)), positives) * classes + labels.flatten().to_numpy(zero_copy_only=False)
    hits = np.zeros((len(lengths), lengths.max()), dtype=bool)
    hits[rows, np.arange(len(rows)) - starts[rows]] = np.isin(rows * classes + index, truth)
    return scores[starts[:, None] + np.arange(min(TOP_K, classes))], hits, positives


def check_comparable(files: Iterable[tuple[Path, Note, Any]], settings: Iterable[str]) -> None:
    """Refuse files (path, note, ids of the rows) that say another of these ``settings``, or hold other videos."""
    (first_path, first_note, first_ids), *others = files
    for path, note, ids in others:
        for name in settings:
            if note[name] != first_note[name]:
                raise DataError(
                    f"{path} and {first_path} cannot be compared: {name} {note[name]} against {first_note[name]}; "
                    "make both anew with `dvc repro`"
                )
        if not ids.equals(first_ids):
            raise DataError(f"{path} and {first_path} hold different videos; make both anew with `dvc repro`")
