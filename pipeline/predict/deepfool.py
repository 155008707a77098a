"""How far a video must move to fool a model: DeepFool on a seeded subset of the test set (section 3.2.4)."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from artpaper.attacks import Attack, deepfool, multilabel_deepfool
from artpaper.attacks.deepfool import Criterion
from artpaper.models import FrameTransformer
from pipeline.base.groups import DeepFool
from pipeline.base.memory import lower_if_short
from pipeline.base.parameters import Params, as_dict
from pipeline.data.batches import model_inputs
from pipeline.data.store import FrameStore
from pipeline.predict.files import DIAGNOSED, describe
from pipeline.predict.resumable import write_resumable
from pipeline.train.checkpoints import trained_model
from pipeline.train.device import best_device

BOUNDARIES: tuple[Criterion, ...] = ("top1_change", "hit1_loss", "threshold")
CRITERIA = (*BOUNDARIES, "multilabel")
SCHEMA = pa.schema({"id": pa.string(), "frames": pa.int32(), "criterion": pa.string()} | DIAGNOSED)


def minimal_perturbations(params: Params, name: str, seed: int, workspace: Path, *, progress: bool = True) -> Path:
    """Put a subset of the test set to DeepFool, under each definition of "predicted incorrectly".

    The subset depends on ``base.seed`` and the videos alone, so all models are asked about the same ones. A killed run
    goes on where it was and ends with the same bytes.

    Returns:
        ``workspace/robustness/<name>/seed<seed>/deepfool.parquet``: a row per video and criterion of
        :data:`CRITERIA`, columns as in :data:`SCHEMA`; ``relative_norm`` is the paper's rho.
    """
    model, note = trained_model(params, name, seed, workspace)
    whole = FrameStore(workspace / "frames" / "test")
    store = whole.subset(subset(whole.ids, params.deepfool.videos, params.base.seed))
    path = workspace / "robustness" / name / f"seed{seed}" / "deepfool.parquet"
    details = {"attack": "deepfool", "deepfool": as_dict(params.deepfool), "test_videos": len(whole)}
    sizes = {f"deepfool.{key}": getattr(params.deepfool, key) for key in ("batch_size", "memory")}
    with lower_if_short(f"deepfool on {name} seed {seed}", sizes | {"features.max_frames": params.features.max_frames}):
        return write_resumable(
            path, partial(_rows, model, store, params), SCHEMA, describe(params, name, seed, note, store) | details,
            store, params.deepfool.batch_size, note, workspace / ".resume", f"deepfool {name} seed {seed}", progress,
            params.compute,
        )  # fmt: skip


def subset(ids: Sequence[str], count: int, seed: int) -> list[int]:
    """Positions of at most ``count`` of the videos, chosen by a seeded hash of their ids, in their order."""
    key = f"deepfool {seed}".encode()
    digests = [hashlib.blake2b(name.encode(), key=key, digest_size=16).digest() for name in ids]
    return sorted(sorted(range(len(ids)), key=digests.__getitem__)[:count])


def _rows(model: FrameTransformer, store: FrameStore, params: Params, start: int) -> Iterator[dict[str, Any]]:
    config: DeepFool = params.deepfool
    device = best_device()  # another machine's, perhaps
    model = model.to(device)
    done = start * config.batch_size
    for batch in store.batches(config.batch_size, max_frames=params.features.max_frames, start=start):
        x, y, mask = model_inputs(batch, params.features, model.modalities, device)
        few = min(len(x), max(0, config.multilabel_videos - done))  # it costs a backward pass for every class
        done += len(x)
        how = {key: getattr(config, key) for key in ("candidates", "steps", "overshoot", "memory")}
        attacks: dict[str, Attack] = {
            criterion: deepfool(model, x, y, mask, criterion=criterion, **how) for criterion in BOUNDARIES
        }
        if few:
            # logits: the sigmoid's flat ends would send a confident model's videos far beyond the boundary
            attacks["multilabel"] = multilabel_deepfool(
                model, x[:few], y[:few], mask[:few], outputs="logits", overshoot=config.overshoot, memory=config.memory
            )
        columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
        for name, attack in attacks.items():
            count = len(attack.perturbation)
            columns["id"] += batch.ids[:count]
            columns["frames"] += mask[:count].sum(dim=1).tolist()
            columns["criterion"] += [name] * count
            for diagnostic, values in attack.diagnostics.items():
                columns[diagnostic] += values.tolist()
        yield columns
