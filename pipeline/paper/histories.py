"""The training curves of all models in one table and one figure, for a look at once and for ``dvc plots``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.base.errors import DataError
from pipeline.paper.paper import MODELS
from pipeline.paper.style import model_styles

# column of history.csv -> what the curve is called, in the order of the panels; GAP in percent
QUANTITIES = {
    "validation_gap": "validation GAP (%)",
    "cross_entropy": "cross-entropy, clean videos",
    "loss": "loss that is minimised",
}


def histories(runs: Mapping[str, Sequence[Path]]) -> pd.DataFrame:
    """All training curves in long format, so that any number of models and seeds fits the same columns.

    Args:
        runs: per model its folders (``models/<model>/seed<k>``), one a seed.
    Returns:
        Columns quantity, model, seed, step, value; one row a point, none where nothing was measured.
    Raises:
        DataError: a folder has no readable history.csv.
    """
    parts = []
    for model, folders in runs.items():
        for folder in folders:
            path = Path(folder) / "history.csv"
            try:
                history = pd.read_csv(path)[["step", *QUANTITIES]]
            except (OSError, ValueError, KeyError) as error:
                raise DataError(f"{path}: no training history ({error}); make it with `dvc repro`") from None
            history["validation_gap"] *= 100
            long = history.rename(columns=QUANTITIES).melt("step", var_name="quantity").dropna(subset="value")
            parts.append(long.assign(model=model, seed=int(folder.name.removeprefix("seed"))))
    return pd.concat(parts, ignore_index=True)[["quantity", "model", "seed", "step", "value"]]


def histories_figure(table: pd.DataFrame, title: str) -> Figure:
    """One panel a quantity, one line a model and seed, losses on a logarithmic axis.

    Args:
        table: as :func:`histories` returns it.
        title: which data.
    """
    styles = model_styles(table["model"].unique())
    with sns.axes_style("whitegrid"):
        figure, panels = plt.subplots(1, len(QUANTITIES), figsize=(11, 3.4), sharex=True, layout="constrained")
    for axes, quantity in zip(panels, QUANTITIES.values(), strict=True):
        shown = table[table["quantity"] == quantity]
        first = shown.groupby("model")["seed"].first()  # a model's lines share one entry of the legend
        for (model, seed), run in shown.groupby(["model", "seed"], sort=False):
            style = styles[str(model)]
            label = MODELS.get(str(model), str(model)) if seed == first[model] else None
            axes.plot(run["step"], run["value"], **style.line, linewidth=1.4, label=label)
        axes.set(xlabel="step", ylabel=quantity, yscale="linear" if "GAP" in quantity else "log")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panels[1].legend()
    figure.suptitle(title)
    return figure
