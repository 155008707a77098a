"""Every attack on every model: one Parquet file each, finished ones kept, the ensemble taken from them."""

import json
import os
import shutil
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from tqdm import tqdm

from artpaper.attacks import Attack, bce, fit_universal
from artpaper.attacks.result import FLAGS, ask, attack_result, checked
from artpaper.metrics import TOP_K
from artpaper.models import FrameTransformer
from pipeline.base.alone import alone
from pipeline.base.atomic import atomic_file, replace_folder
from pipeline.base.errors import DataError
from pipeline.base.identity import content, resume_key
from pipeline.base.memory import lower_if_short
from pipeline.base.parameters import Params, as_dict
from pipeline.data.batches import model_inputs
from pipeline.data.store import FrameStore
from pipeline.predict.deepfool import subset
from pipeline.predict.files import best_classes, describe
from pipeline.predict.one_step import attention_under_attack
from pipeline.predict.resumable import write_resumable
from pipeline.predict.study import Variation
from pipeline.scale.engine import each
from pipeline.stress.attacks.files import SCHEMA, read_attacked
from pipeline.stress.attacks.plan import Planned, minimum_norm, plan, radius, sweeps
from pipeline.stress.attacks.trainings import variations
from pipeline.train.checkpoints import trained_model
from pipeline.train.device import best_device

SHORTEST = "fmn"  # the attack without a ball, whose GAP would mean nothing
FITTED = 256  # validation videos that the universal perturbation is fitted on


def attack_all(params: Params, workspace: Path, target: Path, *, progress: bool = True) -> None:
    """Put every trained model to every attack, ``compute.workers`` models at a time.

    Finished files are kept in ``study/`` of the workspace, under a name that tells what they were made from, so that a
    killed run goes on where it was, and what other parameters made is still there; ``target`` gets those of these
    parameters alone: ``predictions/<model>/seed<k>/<attack>.parquet`` and ``minimum_norm/``, each whole or not at all.
    """
    models = variations(params)
    work = partial(attack_model, params=params, workspace=workspace)
    parts = {part: workspace / ".resume" / f"stress-{part}" for part in ("predictions", "minimum_norm")}
    with (
        alone(workspace / ".resume", "stress"),
        tqdm(total=len(models), unit="model", desc="attack", disable=not progress) as bar,
    ):
        for folder in parts.values():
            shutil.rmtree(folder, ignore_errors=True)
        for variation, paths in each(work, models, params.compute, gpu=True):
            bar.set_postfix_str(f"{variation.name} seed {variation.seed}")
            bar.update(1)
            for path in paths:
                place = parts["minimum_norm" if path.stem == SHORTEST else "predictions"]
                _link(path, place / variation.name / f"seed{variation.seed}" / path.name)
        for part, folder in parts.items():
            replace_folder(folder, target / part)


def attack_model(variation: Variation, params: Params, workspace: Path) -> list[Path]:
    """Put one trained model to every attack and, on the first seed, the sweeps; the files, their ensemble the last.

    ``params`` are all parameters, as they are before any model's own, which ``variation`` has.
    """
    sizes = {"attack.batch_size": params.attack.batch_size, "features.max_frames": params.features.max_frames}
    with lower_if_short(f"attacking {variation.name} seed {variation.seed}", sizes):
        return _attack_model(variation, params, workspace)


def _attack_model(variation: Variation, params: Params, workspace: Path) -> list[Path]:
    own, name, seed = variation.params, variation.name, variation.seed
    model, note = trained_model(own, name, seed, workspace, variation.model(workspace))
    whole = FrameStore(workspace / "frames" / "test")
    store = whole.subset(subset(whole.ids, params.stress.videos, params.base.seed))
    others = {other.name: other for other in variations(params) if other.seed == seed}
    chosen = [other for other in params.stress.surrogates if other != name][:2]  # the same number for every model
    folders = {other: others[other].model(workspace) for other in (name, *chosen)}
    nets = {other: trained_model(others[other].params, other, seed, workspace, folders[other])[0] for other in chosen}
    weights = [content(folder / "model.safetensors") for folder in folders.values()]
    settings = [getattr(params.stress, key) for key in ("videos", "epsilon", "steps", "restarts", "queries")]
    settings += [as_dict(params.attack), as_dict(params.features)]
    key = resume_key(__name__, weights, store.fingerprint, store.content, settings)
    kept = workspace / "study" / f"{name}-seed{seed}-attacked-{key}"
    common = cache(partial(_universal, model, params, workspace))
    attacks = {"clean": Planned(_clean, 0.0, 1 / 3)} | plan(params, nets, common, model.modalities)
    attacks[SHORTEST] = minimum_norm(params)
    if seed == params.stress.seeds[0]:
        attacks |= sweeps(params)
    paths = {attack: kept / f"{attack}.parquet" for attack in attacks}
    for attack, planned in attacks.items():
        if paths[attack].is_file():
            continue
        details = {"attack": attack, "epsilon": planned.epsilon, "passes": planned.passes, "member": planned.member}
        write_resumable(
            paths[attack], partial(_rows, model, store, params, planned), SCHEMA,
            describe(own, name, seed, note, store) | details, store, params.attack.batch_size, kept.name,
            workspace / ".resume", f"{attack} {name} seed {seed}", False,
        )  # fmt: skip
    members = [paths[attack] for attack, planned in attacks.items() if planned.member]
    return [*paths.values(), ensemble_of(members, kept)]


def ensemble_of(members: list[Path], folder: Path) -> Path:
    """Of every video the row of the member with the highest loss, ties to the first, as ``ensemble.parquet``."""
    files = {path: read_attacked(path) for path in members}
    tables, notes = [table for table, _ in files.values()], [note for _, note in files.values()]
    for path, table in zip(files, tables, strict=True):
        if table["id"] != tables[0]["id"]:
            raise DataError(f"{path}: not the videos of {members[0].name}; delete the folder {folder} and run again")
    losses = np.stack([table["loss"].to_numpy() for table in tables])  # (members, videos)
    winner = np.where(np.isnan(losses), -np.inf, losses).argmax(axis=0)  # (videos,): a broken answer wins nothing
    row = winner * losses.shape[1] + np.arange(losses.shape[1])
    worst = pa.concat_tables([table.replace_schema_metadata(None) for table in tables]).take(pa.array(row))
    for name in FLAGS:  # a member without a result may have been the worst
        flags = np.any([table[name].to_numpy() for table in tables], axis=0)
        worst = worst.set_column(worst.schema.get_field_index(name), name, pa.array(flags))
    worst = worst.append_column("winner", pa.array([members[index].stem for index in winner]))
    metadata = notes[0] | {"attack": "ensemble", "members": [path.stem for path in members], "member": False}
    metadata |= {"epsilon": max(note["epsilon"] for note in notes), "passes": sum(note["passes"] for note in notes)}
    path = folder / "ensemble.parquet"
    with atomic_file(path) as temporary:
        pq.write_table(worst.replace_schema_metadata({"artpaper": json.dumps(metadata, sort_keys=True)}), temporary)
    return path


def _rows(
    model: FrameTransformer, store: FrameStore, params: Params, planned: Planned, start: int
) -> Iterator[dict[str, Any]]:
    device = best_device()
    for batch in store.batches(params.attack.batch_size, max_frames=params.features.max_frames, start=start):
        x, y, mask = model_inputs(batch, params.features, model.modalities, device)
        result = planned.run(model, x, y, mask)
        columns: dict[str, Any] = {name: values.cpu().numpy() for name, values in result.diagnostics.items()}
        if "loss" not in columns:  # minimum-norm attacks do not tell
            for name, logits in (("clean_loss", result.clean_logits), ("loss", result.adversarial_logits)):
                columns[name] = bce(logits.double(), y.double()).cpu().numpy()
        columns |= {"id": batch.ids, "labels": [row.nonzero().flatten().tolist() for row in batch.labels]}
        listed = [max(TOP_K, len(labels)) for labels in columns["labels"]]
        columns["classes"], columns["scores"] = best_classes(result.adversarial_logits.cpu(), listed)
        attention = _attention(model, x, x + result.perturbation, mask)
        yield columns | {name: values.cpu().numpy() for name, values in attention.items()}


def _attention(model: FrameTransformer, x: Tensor, attacked: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """The columns about the maps, means over modalities (batch,); norms are in those of the uniform map, which is 1."""
    maps = attention_under_attack(model, x, attacked, mask).values()
    frames = mask.sum(dim=1)
    columns = {
        "attention_change": [numbers["mse"].sqrt() * frames for numbers in maps],
        "attention_uniform": [numbers["uniform_mse"].sqrt() * frames for numbers in maps],
        "attention_entropy": [numbers["entropy"] for numbers in maps],
    }
    return {name: torch.stack(values).mean(dim=0) for name, values in columns.items()}


@checked
def _clean(model: FrameTransformer, x: Tensor, y: Tensor, mask: Tensor) -> Attack:
    return attack_result(model, x, y, mask, torch.zeros_like(x), ask(model, x, mask), gradient=None, iterations=0)


def _universal(model: FrameTransformer, params: Params, workspace: Path) -> Tensor:
    """Fitted on validation videos, which the attack is not measured on."""
    store = FrameStore(workspace / "frames" / "validation")
    store = store.subset(subset(store.ids, FITTED, params.base.seed))
    batches = (
        model_inputs(batch, params.features, model.modalities, best_device())
        for batch in store.batches(params.attack.batch_size, max_frames=params.features.max_frames)
    )
    return fit_universal(model, list(batches), epsilon=radius(params), scope=params.attack.scope)


def _link(path: Path, place: Path) -> None:
    """The same file in two places, or a copy where the file system cannot."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, place)
    except OSError:
        shutil.copy2(path, place)
