"""Stage hyperparameters: the trainings that Figure 3 is drawn from, one a point of its grids (section 3.2.3)."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.base.parameters import Params
from pipeline.predict.study import Variation, measure_all

KEYS = {"epsilon": "epsilons", "alpha": "alphas", "beta": "betas"}  # parameter -> its grid in group study


def sweep(params: Params, workspace: Path, *, progress: bool = True) -> pd.DataFrame:
    """Train every point of the grids that has not been trained yet, and measure all on the validation set.

    One value is changed at a time; the others are those of group ``models``. Non-ART is the reference. All are attacked
    with the one epsilon of group ``attack``, so the one-step GAP of two points can be compared.

    Returns:
        A row per model, key (``epsilon``, ``alpha``, ``beta``; ``reference`` for Non-ART), value and seed: alpha,
        epsilon, beta and steps of the training, and whether it was ``shortened`` against ``train.max_steps``;
        ``clean`` and ``one_step`` GAP in percent with their bootstrap ``_error`` over videos; ``attention_mse`` and
        ``uniform_mse``, means over modalities.
    """
    params.check_swept()
    points = list(_points(params))
    variations = [Variation(changed, name, seed) for name, _, _, seed, changed in points]
    rows = []
    for (name, key, value, seed, changed), measured in zip(
        points, measure_all(variations, workspace, "Figure 3", progress=progress), strict=True
    ):
        loss = changed.models[name]
        row = {"model": name, "key": key, "value": value, "seed": seed, "alpha": loss.alpha, "epsilon": loss.epsilon,
               "beta": loss.beta, "steps": int(measured["steps"]),
               "shortened": changed.train.max_steps < params.train.max_steps}  # fmt: skip
        for column, split in (("clean", "test"), ("one_step", "adversarial")):
            row[column], row[f"{column}_error"] = (100 * measured[f"{split}_gap{end}"] for end in ("", "_error"))
        for number in ("mse", "uniform_mse"):
            values = [value for at, value in measured.items() if at.endswith(f"_attention_{number}")]
            row[f"attention_{number}" if number == "mse" else number] = float(np.mean(values))
        rows.append(row)
    return pd.DataFrame(rows)


def _points(params: Params) -> Iterator[tuple[str, str, float, int, Params]]:
    """Model, key, value, seed and the parameters that train it."""
    train = dataclasses.replace(params.train, max_steps=params.study.max_steps or params.train.max_steps)
    params = dataclasses.replace(params, train=train)
    for seed in params.study.seeds:
        yield "non_art", "reference", float("nan"), seed, params
    for key, grid in KEYS.items():
        for name in getattr(params.study.models, key):
            for value in getattr(params.study, grid):
                loss = dataclasses.replace(params.models[name], **{key: value})
                changed = dataclasses.replace(params, models={**params.models, name: loss})
                for seed in params.study.seeds:
                    yield name, key, value, seed, changed
