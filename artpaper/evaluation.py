"""Attack a trained model on the test set and keep what the tables need: one Parquet file per model, seed and attack."""

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Float32, Int32
from torch import Tensor

from artpaper import __version__
from artpaper.atomic import atomic_file
from artpaper.attacks import bce, fgm, predicted_bce
from artpaper.checkpoints import expect, load_model, run_identity
from artpaper.config import Params, as_dict
from artpaper.data.batches import model_inputs
from artpaper.data.store import FrameStore
from artpaper.device import best_device
from artpaper.errors import DataError
from artpaper.identity import code, fingerprint
from artpaper.metrics import TOP_K
from artpaper.models import FrameTransformer
from artpaper.training import training_splits

PART = 64  # batches in one part of an unfinished predictions file; a killed run repeats at most one part

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("labels", pa.list_(pa.int32())),
        ("frames", pa.int32()),
        ("clean_classes", pa.list_(pa.int32())),
        ("clean_scores", pa.list_(pa.float32())),
        ("adversarial_classes", pa.list_(pa.int32())),
        ("adversarial_scores", pa.list_(pa.float32())),
        ("norm", pa.float64()),
        ("relative_norm", pa.float64()),
        ("gradient_norm", pa.float64()),
        ("zero_gradient", pa.bool_()),
        ("iterations", pa.int64()),
        ("already_wrong", pa.bool_()),
        ("fooled", pa.bool_()),
    ]
)


def attack(params: Params, name: str, seed: int, workspace: Path, *, progress: bool = True) -> Path:
    """Clean and one-step adversarial predictions of one trained model on the test set.

    White box and per model, in eval mode, in float32 whatever the training used. Finished parts are kept while it runs,
    so a killed run goes on where it was and ends with the same bytes.

    Args:
        params: all parameters; ``attack`` says how.
        name, seed: which model of ``workspace/models``.
        workspace: holds ``frames/test`` and the model; the predictions go to ``predictions/<name>/seed<seed>/``.
        progress: show a progress bar with rate and time left.
    Returns:
        The Parquet file: one row per test video, columns as in :data:`SCHEMA`, lists of the best classes by logit (at
        least 20, at least as many as the video has labels), metadata under the key ``artpaper``.
    Raises:
        CheckpointError: the model is missing or is not the one these parameters make.
        DataError: frames have not been prepared, or the disk is full.
    Source: section 3.2.1, Eq. 4.
    """
    from tqdm import tqdm

    folder = workspace / "models" / name / f"seed{seed}"
    params.model_for(name)  # an unknown name is told first, with the nearest known one
    model, note = load_model(folder)
    trained_on = training_splits(params, name, workspace)
    expect(note, run_identity(params, name, seed, trained_on), folder / "model.safetensors")
    store = FrameStore(workspace / "frames" / "test")
    device = best_device()
    model.to(device)
    metadata = _metadata(params, name, seed, note, store)
    path = workspace / "predictions" / name / f"seed{seed}" / "one_step.parquet"
    size = params.attack.batch_size
    settings = fingerprint([metadata, note, store.fingerprint, size, PART, code()])
    parts = workspace / ".resume" / f"attack-{name}-seed{seed}-{settings}"
    with tqdm(total=len(store), unit="video", desc=f"attack {name} seed {seed}", disable=not progress) as bar:
        finished = {first: parts / f"{first:09d}.parquet" for first in range(0, len(store), PART * size)}
        for first, part in finished.items():
            if not part.exists():
                _write(part, _rows(model, store, params, device, first // size, bar))
            bar.update(min(first + PART * size, len(store)) - bar.n)
    _join(path, list(finished.values()), metadata)
    shutil.rmtree(parts)
    return path


def _rows(
    model: FrameTransformer, store: FrameStore, params: Params, device: torch.device, start: int, bar: Any
) -> Iterator[pa.RecordBatch]:
    """One record batch of predictions for each of the next ``PART`` batches of videos."""
    config = params.attack
    objective = bce if config.labels == "truth" else predicted_bce
    batches = store.batches(config.batch_size, max_frames=params.features.max_frames, start=start)
    for batch in itertools.islice(batches, PART):
        x, y, mask = model_inputs(batch, params.features, model.modalities, device)
        result = fgm(model, x, y, mask, epsilon=config.epsilon, scope=config.scope, objective=objective)
        columns: dict[str, Any] = {name: values.cpu().numpy() for name, values in result.diagnostics.items()}
        columns |= {"id": batch.ids, "frames": mask.sum(dim=1).cpu().numpy()}
        columns["labels"] = [row.nonzero().flatten().tolist() for row in batch.labels]
        listed = [max(TOP_K, len(labels)) for labels in columns["labels"]]
        for name, logits in (("clean", result.clean_logits), ("adversarial", result.adversarial_logits)):
            columns[f"{name}_classes"], columns[f"{name}_scores"] = best_classes(logits.cpu(), listed)
        yield pa.RecordBatch.from_pydict({field.name: columns[field.name] for field in SCHEMA}, SCHEMA)
        bar.update(len(batch.ids))


def best_classes(
    logits: Float[Tensor, "batch classes"], listed: list[int]
) -> tuple[list[Int32[np.ndarray, " _"]], list[Float32[np.ndarray, " _"]]]:
    """Each video's ``listed`` best classes and their logits, best first, the lower class first among ties."""
    order = logits.argsort(dim=-1, descending=True, stable=True)[:, : max(listed)]  # (B, most)
    scores = logits.gather(-1, order).numpy()
    classes = order.int().numpy()
    return [row[:k] for row, k in zip(classes, listed, strict=True)], [
        row[:k] for row, k in zip(scores, listed, strict=True)
    ]


def _metadata(params: Params, name: str, seed: int, note: dict[str, Any], store: FrameStore) -> dict[str, Any]:
    space = store.label_space
    return {
        "model": name,
        "seed": seed,
        "source": params.data.source,
        "label_space": space.name,
        "label_space_note": space.note,
        "classes": len(space.classes),
        "attack": "one_step",
        "epsilon": params.attack.epsilon,
        "scope": params.attack.scope,
        "labels": params.attack.labels,
        "feature_norm": params.features.norm,
        "max_frames": params.features.max_frames,
        "modalities": store.modalities,
        "best_step": note["best_step"],
        "best_validation_gap": note["best_validation_gap"],
        "loss": as_dict(params.models[name]),
        "version": __version__,
    }


def _write(path: Path, batches: Iterator[pa.RecordBatch], metadata: dict[str, Any] | None = None) -> None:
    note = {} if metadata is None else {"artpaper": json.dumps(metadata, sort_keys=True)}
    try:
        with atomic_file(path) as temporary, pq.ParquetWriter(temporary, SCHEMA.with_metadata(note)) as writer:
            for batch in batches:
                writer.write_batch(batch.replace_schema_metadata(note))
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error}; free some disk space and run again") from error


def _join(path: Path, parts: list[Path], metadata: dict[str, Any]) -> None:
    rows = (batch for part in parts for batch in pq.ParquetFile(part).iter_batches(batch_size=4096))
    _write(path, rows, metadata)
