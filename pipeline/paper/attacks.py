"""A picture of what an attack did to every video."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from pipeline.paper.style import legible, panels, tell_apart


def attack_figure(predictions: pd.DataFrame, title: str) -> Figure:
    """Size of the perturbations, and how far the best true label's logit fell, from the rows of a predictions file."""
    fall = np.array(
        [_best_true(row, "clean") - _best_true(row, "adversarial") for row in predictions.to_dict("records")]
    )
    outcome = np.where(
        predictions["fooled"], "fooled", np.where(predictions["already_wrong"], "already wrong", "not fooled")
    )
    figure, (left, right) = panels(1, 2, (9, 3.2))
    sns.histplot(100 * predictions["relative_norm"], bins=40, color="grey", ax=left)
    left.set(xlabel="perturbation / video (% of the L2 norm)", ylabel="videos")
    order = ["not fooled", "fooled", "already wrong"]
    sns.ecdfplot(
        x=fall, hue=pd.Categorical(outcome, order), hue_order=order, stat="percent", palette="colorblind", ax=right
    )
    tell_apart(right)
    right.set(xlabel="fall of the best true label (logit)", ylabel="videos at or below (%)")
    figure.suptitle(title)
    return legible(figure)


def _best_true(row: Mapping[Any, Any], kind: str) -> float:
    listed = np.isin(row[f"{kind}_classes"], row["labels"])
    # a true label below the list is at most as high as the list's last entry
    return float(row[f"{kind}_scores"][listed].max() if listed.any() else row[f"{kind}_scores"][-1])
