"""The stress test from end to end: train, attack, and tell what was trained and what became of its attention."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.base.atomic import save_text
from pipeline.base.parameters import Params
from pipeline.stress.attacks.files import read_attacked
from pipeline.stress.attacks.predictions import attack_all
from pipeline.stress.attacks.trainings import describe, passes, train_all, variations
from pipeline.train.checkpoints import read_note


def stress(params: Params, workspace: Path, *, target: Path | None = None, progress: bool = True) -> Path:
    """Train what is missing, put every model to every attack, and write ``training.csv``; the folder of all this.

    Everything finished is kept, so a killed run goes on where it was. Trainings are kept in ``study/`` of the
    workspace; ``target`` is ``workspace/stress`` by default.
    """
    target = target or workspace / "stress"
    train_all(params, workspace, progress=progress)
    attack_all(params, workspace, target, progress=progress)
    table = training_table(params, workspace, target)
    save_text(table.to_csv(index=False, lineterminator="\n"), target / "training.csv")
    return target


def training_table(params: Params, workspace: Path, target: Path) -> pd.DataFrame:
    """One row per trained model, in the order of the parameters; ``target`` holds ``predictions/``.

    Returns:
        Columns ``model, seed, steps, passes_per_step, best_validation_gap, attention_uniform_rms, attention_change_rms,
        attention_entropy, minimum_norm_median, minimum_norm_unfooled, description``: the distance of the clean maps to
        uniform attention, their change under PGD (root mean squares over videos, in units of the uniform map's norm)
        and their entropy as a share of log T; FMN's median way to a wrong top label (unit of the features) over the
        videos that were right, those that it did not fool counted as further than any, and the share of these.
    """
    rows = []
    for variation in variations(params):
        name, seed = variation.name, variation.seed
        note = read_note(variation.model(workspace))
        folder = target / "predictions" / name / f"seed{seed}"
        attention = {
            column: read_attacked(folder / f"{attack}.parquet", f"attention_{column}")[0].column(0).to_numpy()
            for column, attack in (("uniform", "clean"), ("change", "pgd"), ("entropy", "clean"))
        }
        row = {"model": name, "seed": seed, "steps": note["steps"]}
        row["passes_per_step"] = passes(variation.params.models[name])
        row["best_validation_gap"] = note["best_validation_gap"]
        row |= {f"attention_{key}_rms": np.sqrt(np.mean(attention[key] ** 2)) for key in ("uniform", "change")}
        row["attention_entropy"] = np.mean(attention["entropy"])
        row |= _shortest(target / "minimum_norm" / name / f"seed{seed}" / "fmn.parquet")
        rows.append(row | {"description": describe(params, name)})
    return pd.DataFrame(rows)


def _shortest(path: Path) -> dict[str, float]:
    rows = read_attacked(path, "norm", "fooled", "already_wrong")[0].to_pandas()
    right = rows[~rows["already_wrong"]]
    norm = right["norm"].where(right["fooled"], np.inf)
    return {"minimum_norm_median": float(norm.median()), "minimum_norm_unfooled": float((~right["fooled"]).mean())}


def quick(params: Params) -> Params:
    """The same stress test in minutes: one seed, a tenth of the training, a few videos and short attacks.

    Nothing follows from its numbers; it shows that everything runs, and how.
    """
    stress = params.stress
    short = dataclasses.replace(
        stress, seeds=stress.seeds[:1], max_steps=max(1, (stress.max_steps or params.train.max_steps) // 10),
        videos=min(64, stress.videos), steps=min(5, stress.steps), restarts=1, queries=min(20, stress.queries),
        step_counts=tuple(count for count in stress.step_counts if count <= 10),
    )  # fmt: skip
    verdict = dataclasses.replace(params.verdict, draws=min(200, params.verdict.draws))
    return dataclasses.replace(params, stress=short, verdict=verdict)
