"""Attack a trained model and keep what tables and figures need: one Parquet file per model, seed and attack."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Float32, Int32
from torch import Tensor

from artpaper import __version__
from artpaper.attacks import bce, fgm, predicted_bce
from artpaper.attacks.result import FLAGS
from artpaper.attention import NUMBERS, attention_numbers
from artpaper.metrics import TOP_K
from artpaper.models import FrameTransformer
from pipeline.base.alone import alone
from pipeline.base.atomic import atomic_file
from pipeline.base.groups import Compute
from pipeline.base.identity import code, fingerprint
from pipeline.base.memory import lower_if_short
from pipeline.base.parameters import Params, as_dict
from pipeline.data.batches import model_inputs
from pipeline.data.splits import training_splits
from pipeline.data.store import FrameStore
from pipeline.scale.engine import each, spreads
from pipeline.train.checkpoints import expect, load_model, run_identity
from pipeline.train.device import best_device

PART = 64  # batches in one part of an unfinished predictions file; a killed run repeats at most one part
LOCAL = Compute()
Rows = Callable[[int], Iterator[dict[str, Any]]]  # from a batch on, the columns of each


def schema(modalities: Iterable[str]) -> pa.Schema:
    """Columns of a predictions file: one row a video, the numbers of every modality's attention maps last."""
    columns = {"id": pa.string(), "labels": pa.list_(pa.int32()), "frames": pa.int32()}
    for name in ("clean", "adversarial"):
        columns |= {f"{name}_classes": pa.list_(pa.int32()), f"{name}_scores": pa.list_(pa.float32())}
    columns |= dict.fromkeys(("norm", "relative_norm", "gradient_norm"), pa.float64())
    columns |= {
        "zero_gradient": pa.bool_(),
        "iterations": pa.int64(),
        "already_wrong": pa.bool_(),
        "fooled": pa.bool_(),
    } | dict.fromkeys(FLAGS, pa.bool_())
    columns |= {attention_column(modality, name): pa.float64() for modality in modalities for name in NUMBERS}
    return pa.schema(columns)


def attention_column(modality: str, number: str) -> str:
    """Where a predictions file keeps a number of :data:`artpaper.attention.NUMBERS` of a modality's maps."""
    return f"{modality}_attention_{number}"


def attack(
    params: Params, name: str, seed: int, workspace: Path, *, split: str = "test", model: Path | None = None,
    target: Path | None = None, progress: bool = True,
) -> Path:  # fmt: skip
    """Clean and one-step adversarial predictions of one trained model, and what the attack does to its attention.

    White box and per model, in eval mode, in float32 whatever the training used. Finished parts are kept while it runs,
    so a killed run goes on where it was and ends with the same bytes.

    Args:
        params: all parameters; ``attack`` says how.
        name, seed: which model.
        workspace: holds ``frames/``.
        split: "test", or "validation".
        model: the model's folder; ``workspace/models/<name>/seed<seed>`` by default.
        target: the folder of the predictions; ``workspace/predictions/<name>/seed<seed>`` by default.
        progress: show a progress bar with rate and time left.
    Returns:
        The Parquet file: one row per video, columns as in :func:`schema`, lists of the best classes by logit (at least
        20, at least as many as the video has labels), metadata under the key ``artpaper``.
    Raises:
        CheckpointError: the model is missing or is not the one these parameters make.
        DataError: frames have not been prepared.
        OutputError: the predictions cannot be written, or the disk is full; finished parts are kept.
        BusyError: another run is making the same predictions.
        MemoryShortError: memory has run out; finished parts are kept.
        ArtpaperError: as :func:`pipeline.scale.engine.each`.
    Source: section 3.2.1, Eq. 4; section 3.2.2 for the attention maps.
    """
    net, note = trained_model(params, name, seed, workspace, model)
    store = FrameStore(workspace / "frames" / split)
    config = params.attack
    details = {"attack": "one_step", "epsilon": config.epsilon, "scope": config.scope, "labels": config.labels}
    path = (target or workspace / "predictions" / name / f"seed{seed}") / "one_step.parquet"
    sizes = {"attack.batch_size": config.batch_size, "features.max_frames": params.features.max_frames}
    with lower_if_short(f"attacking {name} seed {seed}", sizes):
        return write_resumable(
            path, partial(_rows, net, store, params), schema(store.modalities),
            describe(params, name, seed, note, store) | details, len(store), config.batch_size,
            [note, store.fingerprint], workspace / ".resume", f"attack {name} seed {seed}", progress, params.compute,
        )  # fmt: skip


def trained_model(
    params: Params, name: str, seed: int, workspace: Path, folder: Path | None = None
) -> tuple[FrameTransformer, dict[str, Any]]:
    """A trained model on the best device, checked to be the one that ``params`` make, and its note.

    Args:
        params: all parameters.
        name, seed: which model.
        workspace: holds ``frames/``.
        folder: the model's; ``workspace/models/<name>/seed<seed>`` by default.
    Returns:
        The model in eval mode, and the note of its checkpoint.
    Raises:
        ConfigError: no model of that name.
        CheckpointError: the model is missing or is another one.
    """
    folder = folder or workspace / "models" / name / f"seed{seed}"
    params.model_for(name)  # an unknown name is told first, with the nearest known one
    model, note = load_model(folder)
    splits = training_splits(params, name, workspace)
    expect(note, run_identity(params, name, seed, splits), folder / "model.safetensors")
    return model.to(best_device()), note


def _rows(model: FrameTransformer, store: FrameStore, params: Params, start: int) -> Iterator[dict[str, Any]]:
    """The columns of each batch of videos from batch ``start`` on."""
    config, device = params.attack, best_device()  # another machine's, perhaps
    model = model.to(device)
    objective = bce if config.labels == "truth" else predicted_bce
    for batch in store.batches(config.batch_size, max_frames=params.features.max_frames, start=start):
        x, y, mask = model_inputs(batch, params.features, model.modalities, device)
        result = fgm(model, x, y, mask, epsilon=config.epsilon, scope=config.scope, objective=objective)
        columns: dict[str, Any] = {name: values.cpu().numpy() for name, values in result.diagnostics.items()}
        columns |= {"id": batch.ids, "frames": mask.sum(dim=1).cpu().numpy()}
        columns["labels"] = [row.nonzero().flatten().tolist() for row in batch.labels]
        listed = [max(TOP_K, len(labels)) for labels in columns["labels"]]
        for name, logits in (("clean", result.clean_logits), ("adversarial", result.adversarial_logits)):
            columns[f"{name}_classes"], columns[f"{name}_scores"] = best_classes(logits.cpu(), listed)
        with torch.no_grad():
            clean, attacked = (model.attention_heads(frames, mask) for frames in (x, x + result.perturbation))
            for modality, heads in clean.items():
                for name, values in attention_numbers(heads, attacked[modality], mask).items():
                    columns[attention_column(modality, name)] = values.cpu().numpy()
        yield columns


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


def describe(params: Params, name: str, seed: int, note: dict[str, Any], store: FrameStore) -> dict[str, Any]:
    """What a predictions file says of itself: the model, how it was trained, and on which data it was asked.

    Args:
        params: all parameters.
        name, seed: which model.
        note: the model's, as :func:`trained_model` returns it.
        store: the split it was asked about.
    Returns:
        JSON-ready values, kept as the file's metadata.
    """
    space = store.label_space
    left_out = {"damaged_shards": store.damaged} if store.damaged else {}
    return left_out | {
        "model": name,
        "seed": seed,
        "source": params.data.source,
        "split": store.path.name,
        "label_space": space.name,
        "label_space_note": space.note,
        "classes": len(space.classes),
        "feature_norm": params.features.norm,
        "max_frames": params.features.max_frames,
        "modalities": store.modalities,
        "best_step": note["best_step"],
        "best_validation_gap": note["best_validation_gap"],
        "loss": as_dict(params.models[name]),
        "version": __version__,
    }


def write_resumable(
    path: Path, rows: Rows, columns: pa.Schema, metadata: dict[str, Any],
    videos: int, size: int, depends: list[Any], resume: Path, title: str, progress: bool, compute: Compute = LOCAL,
) -> Path:  # fmt: skip
    """Write a Parquet file batch by batch, keeping finished parts so that a killed run goes on where it was.

    Args:
        path: the file to make.
        rows: ``rows(start)`` gives the columns of every batch from number ``start`` on.
        columns: schema of the file; what ``rows`` gives beyond it is left out.
        metadata: goes into the file under the key ``artpaper``.
        videos, size: how many there are, and in one batch.
        depends: what the rows depend on beside ``metadata`` and the code; JSON-ready.
        resume: where unfinished parts lie.
        title: of the progress bar.
        progress: show it.
        compute: where; on a cluster every part is a task of its own, and ``rows`` must be one that can be pickled.
    Raises:
        OutputError: the file cannot be written, or the disk is full; finished parts are kept.
        BusyError: another run is writing the same file, or working on the same parts.
        ArtpaperError: as :func:`pipeline.scale.engine.each`.
    """
    from tqdm import tqdm

    parts = resume / f"{title.replace(' ', '-')}-{fingerprint([metadata, depends, videos, size, PART, code()])}"
    finished = {first // size: parts / f"{first:09d}.parquet" for first in range(0, videos, PART * size)}
    with (
        alone(resume, parts.name, f"{path.stem}-to-{fingerprint(str(path.resolve()))}"),
        tqdm(total=videos, unit="video", desc=title, disable=not progress) as bar,
    ):

        def count(batches: int) -> None:
            bar.update(min(batches * size, videos - bar.n))

        missing = [start for start, part in finished.items() if not part.exists()]
        count((len(finished) - len(missing)) * PART)
        if spreads(compute):
            work = partial(_write_part, rows=rows, parts=finished, columns=columns)
            for _ in each(work, missing, compute, gpu=True):
                count(PART)
        else:
            for start in missing:
                _write_part(start, rows, finished, columns, count)
        _join(path, list(finished.values()), columns, metadata)
        shutil.rmtree(parts)
    return path


def _write_part(
    start: int, rows: Rows, parts: Mapping[int, Path], columns: pa.Schema, done: Callable[[int], None] | None = None
) -> None:
    """The part that begins with batch ``start``; ``done`` is told of every batch."""

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in itertools.islice(rows(start), PART):
            yield pa.RecordBatch.from_pydict({field: batch[field] for field in columns.names}, columns)
            if done:
                done(1)

    _write(parts[start], batches(), columns)


def _join(path: Path, parts: list[Path], columns: pa.Schema, metadata: dict[str, Any]) -> None:
    rows = (batch for part in parts for batch in pq.ParquetFile(part).iter_batches(batch_size=4096))
    _write(path, rows, columns, metadata)


def _write(
    path: Path, batches: Iterator[pa.RecordBatch], columns: pa.Schema, metadata: dict[str, Any] | None = None
) -> None:
    note = {} if metadata is None else {"artpaper": json.dumps(metadata, sort_keys=True)}
    with atomic_file(path) as temporary, pq.ParquetWriter(temporary, columns.with_metadata(note)) as writer:
        for batch in batches:
            writer.write_batch(batch.replace_schema_metadata(note))
