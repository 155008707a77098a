"""Stage attack: clean and one-step adversarial predictions of a trained model (section 3.2.1, Eq. 4)."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from artpaper.attacks import Attack, fgm, predicted_labels
from artpaper.attention import attention_numbers
from artpaper.metrics import TOP_K
from artpaper.models import FrameTransformer
from artpaper.shapes import Frames, LabelSets, Mask, PerVideo
from pipeline.base.groups import AttackConfig
from pipeline.base.memory import lower_if_short
from pipeline.base.parameters import Params
from pipeline.data.batches import model_inputs
from pipeline.data.store import FrameStore
from pipeline.predict.files import best_classes, describe
from pipeline.predict.predictions import attention_column, schema
from pipeline.predict.resumable import write_resumable
from pipeline.train.checkpoints import trained_model
from pipeline.train.device import best_device


def attack(
    params: Params, name: str, seed: int, workspace: Path, *, split: str = "test", model: Path | None = None,
    target: Path | None = None, progress: bool = True,
) -> Path:  # fmt: skip
    """Clean and one-step adversarial predictions of one trained model, and what the attack does to its attention.

    White box and per model, in eval mode, in float32 whatever the training used. A killed run goes on where it was and
    ends with the same bytes. ``split`` is "test" or "validation"; ``model`` and ``target`` are the folders of the model
    and of the predictions, by default those of the workspace.

    Returns:
        ``one_step.parquet``: a row a video, columns as in :func:`pipeline.predict.predictions.schema`, lists of the
        best classes by logit (at least 20, at least as many as the video has labels).
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
            describe(params, name, seed, note, store) | details, store, config.batch_size, note,
            workspace / ".resume", f"attack {name} seed {seed}", progress, params.compute,
        )  # fmt: skip


def adversaries(model: FrameTransformer, x: Frames, y: LabelSets, mask: Mask, config: AttackConfig) -> Attack:
    """The attack of group ``attack`` on some videos: the one that predictions hold and that Figures 1 and 2 show."""
    attack = fgm if config.labels == "truth" else predicted_labels
    return attack(model, x, y, mask, epsilon=config.epsilon, scope=config.scope)


@torch.no_grad()
def attention_under_attack(
    model: FrameTransformer, x: Frames, attacked: Frames, mask: Mask
) -> dict[str, dict[str, PerVideo]]:
    """What an attack does to the maps of each modality, as :func:`artpaper.attention.attention_numbers` tells it."""
    clean, moved = (model.attention_heads(frames, mask) for frames in (x, attacked))
    return {name: attention_numbers(heads, moved[name], mask) for name, heads in clean.items()}


def _rows(model: FrameTransformer, store: FrameStore, params: Params, start: int) -> Iterator[dict[str, Any]]:
    """The columns of each batch of videos from batch ``start`` on."""
    config, device = params.attack, best_device()  # another machine's, perhaps
    model = model.to(device)
    for batch in store.batches(config.batch_size, max_frames=params.features.max_frames, start=start):
        x, y, mask = model_inputs(batch, params.features, model.modalities, device)
        result = adversaries(model, x, y, mask, config)
        columns: dict[str, Any] = {name: values.cpu().numpy() for name, values in result.diagnostics.items()}
        columns |= {"id": batch.ids, "frames": mask.sum(dim=1).cpu().numpy()}
        columns["labels"] = [row.nonzero().flatten().tolist() for row in batch.labels]
        listed = [max(TOP_K, len(labels)) for labels in columns["labels"]]
        for name, logits in (("clean", result.clean_logits), ("adversarial", result.adversarial_logits)):
            columns[f"{name}_classes"], columns[f"{name}_scores"] = best_classes(logits.cpu(), listed)
        for modality, numbers in attention_under_attack(model, x, x + result.perturbation, mask).items():
            columns |= {attention_column(modality, name): values.cpu().numpy() for name, values in numbers.items()}
        yield columns
