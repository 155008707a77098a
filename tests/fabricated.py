"""Fabricated files of a stress test whose truth is known: tables, figures and verdicts are tried on them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from artpaper.attacks.result import FLAGS
from pipeline.base.atomic import atomic_file
from pipeline.paper.style import save_table

CLASSES = 40
TOP = 20
MAIN = ("clean", "random", "one_step", "pgd", "square", "transfer", "ensemble")
SWEPT = ("epsilon_0.5", "epsilon_1.5", "epsilon_3.0", "steps_1", "steps_5", "steps_20")
# how far labels stand out from other classes, in standard deviations: clean, and what each attack leaves of it
SKILL = {"non_art": 2.0, "art": 2.0, "a_art": 2.0, "a_art_strong": 1.95, "uniform": 1.9, "uniform_art": 2.0}
SKILL |= {"random_att": 2.0, "pgd_at": 1.85}
LEFT = {"clean": 1.0, "random": 0.99, "square": 0.9, "transfer": 0.85, "one_step": 0.6, "pgd": 0.5, "ensemble": 0.45}
TRAINED = {"non_art": 0.0, "uniform": 0.0, "pgd_at": 0.7}  # share of an attack's harm that training takes away
FLATNESS = {"uniform": 0.0, "uniform_art": 0.0, "a_art_strong": 0.03, "a_art": 0.8}  # distance of attention to uniform


def fabricate(
    folder: str | Path,
    models: Sequence[str] = tuple(SKILL),
    attacks: Sequence[str] = (*MAIN, *SWEPT),
    seeds: Sequence[int] = (0, 1, 2),
    videos: int = 150,
    skill: Mapping[tuple[str, str], float] | None = None,
    source: str = "synthetic",
) -> Path:
    """Write ``predictions/<model>/seed<k>/<attack>.parquet`` and ``training.csv`` for models that do not exist.

    Args:
        folder: where the files go.
        models: names; those this module does not know are like ART.
        attacks: names of attacks.
        seeds: training seeds; each shifts its model's skill a little.
        videos: number of test videos.
        skill: (model, attack) -> how far labels stand out, in standard deviations of the other classes' logits.
        source: what the files say of their data.
    Returns:
        The folder.
    """
    folder, skill = Path(folder), skill or {}
    draw = np.random.default_rng(0)
    easy = draw.normal(0, 0.5, videos)  # (videos,): the same for every model
    labels = [np.sort(draw.choice(CLASSES, size=count, replace=False)) for count in draw.integers(1, 5, videos)]
    truth = np.array([np.isin(np.arange(CLASSES), one) for one in labels])  # (videos, classes)
    shared = draw.normal(size=(videos, CLASSES))  # what makes a video hard for everybody
    for place, model in enumerate(models):
        for seed in seeds:
            own = np.random.default_rng([place, seed])
            shift, noise = own.normal(0, 0.03), own.normal(size=(videos, CLASSES))
            for attack in attacks:
                if attack.startswith(("epsilon_", "steps_")) and seed != seeds[0]:
                    continue  # sweeps are on the first seed
                margin = skill.get((model, attack), _skill(model, attack)) + shift
                logits = 0.8 * shared + 0.6 * noise + truth * (margin + easy)[:, None] - 2
                path = folder / "predictions" / model / f"seed{seed}" / f"{attack}.parquet"
                note = {"model": model, "seed": seed, "attack": attack, "source": source, "passes": 1}
                note["classes"] = CLASSES
                clean = skill.get((model, "clean"), _skill(model, "clean")) + shift - margin
                _write(
                    path,
                    logits,
                    logits + truth * clean,
                    truth,
                    labels,
                    note | {"epsilon": 0.0 if attack == "clean" else 1.5, "norm": "l2"},
                )
    save_table(_training(models, seeds), folder / "training.csv")
    return folder


def _skill(model: str, attack: str) -> float:
    """Sweeps: the harm grows with epsilon, and with steps towards PGD's."""
    key, _, value = attack.rpartition("_")
    if key == "epsilon":
        left = 1 - (1 - LEFT["pgd"]) * min(1.8, float(value) / 1.5)
    elif key == "steps":
        left = LEFT["pgd"] + (LEFT["one_step"] - LEFT["pgd"]) / float(value)
    else:
        left = LEFT.get(attack, LEFT["pgd"])
    return SKILL.get(model, SKILL["art"]) * (1 - (1 - left) * (1 - TRAINED.get(model, 0.5)))


def _write(
    path: Path,
    logits: np.ndarray,
    clean: np.ndarray,
    truth: np.ndarray,
    labels: list[np.ndarray],
    note: dict[str, object],
) -> None:
    best = np.argsort(-logits, axis=1, kind="stable")[:, :TOP].astype(np.int32)  # (videos, top)
    scores = np.take_along_axis(logits, best, axis=1).astype(np.float32)
    loss, before = (np.logaddexp(0, np.where(truth, -z, z)).mean(axis=1) for z in (logits, clean))  # (videos,)
    wrong = ~np.take_along_axis(truth, best[:, :1], axis=1)[:, 0]
    ids = [f"v{place:05d}" for place in range(len(loss))]
    rows = pa.table(
        {
            "id": ids,
            "labels": pa.array([one.astype(np.int32) for one in labels], pa.list_(pa.int32())),
            "classes": pa.array(list(best), pa.list_(pa.int32())),
            "scores": pa.array(list(scores), pa.list_(pa.float32())),
            "clean_loss": before,
            "loss": loss,
            **dict.fromkeys(("zero_gradient", *FLAGS), np.zeros(len(loss), bool)),
            "already_wrong": wrong,
            "fooled": wrong,
        }
    )
    with atomic_file(path, durable=False) as temporary:
        pq.write_table(rows.replace_schema_metadata({"artpaper": json.dumps(note)}), temporary)


def _training(models: Sequence[str], seeds: Sequence[int]) -> pd.DataFrame:
    rows = [
        {"model": model, "seed": seed, "steps": 1000, "passes_per_step": 1 if TRAINED.get(model, 1) == 0 else 2,
         "best_validation_gap": 0.5, "attention_uniform_rms": FLATNESS.get(model, 1.0) * (1 + 0.01 * seed),
         "attention_entropy": 2.0, "description": "fabricated"}
        for model in models
        for seed in seeds
    ]  # fmt: skip
    return pd.DataFrame(rows)
