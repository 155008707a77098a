"""Training curves: of one model while it trains, and of all models in one table and one figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import DisplayHandle, display
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.base.atomic import atomic_file
from pipeline.base.errors import DataError
from pipeline.paper.style import legible, model_styles, model_title, panels

Row = dict[str, float | int]
TERMS = {"loss": "total", "cross_entropy": "clean $L_{CE}$", "adversarial": "adversarial", "attention": "attention"}
# column of history.csv -> what the curve is called, in the order of the panels; GAP in percent
QUANTITIES = {
    "validation_gap": "validation GAP (%)",
    "cross_entropy": "cross-entropy, clean videos",
    "loss": "loss that is minimised",
}


def histories(runs: Mapping[str, Sequence[Path]]) -> pd.DataFrame:
    """All training curves in long format, so that any number of models and seeds fits the same columns.

    ``runs`` has the folders ``models/<model>/seed<k>`` of each model; a row is a point, none where nothing was
    measured.
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
    """:func:`histories` as one panel a quantity, one line a model and seed, losses on a logarithmic axis."""
    styles = model_styles(table["model"].unique())
    figure, row = panels(1, len(QUANTITIES), (11, 3.4), sharex=True)
    for axes, quantity in zip(row, QUANTITIES.values(), strict=True):
        shown = table[table["quantity"] == quantity]
        first = shown.groupby("model")["seed"].first()  # a model's lines share one entry of the legend
        for (model, seed), run in shown.groupby(["model", "seed"], sort=False):
            label = model_title(model) if seed == first[model] else None
            axes.plot(run["step"], run["value"], **styles[str(model)].line, label=label)
        axes.set(xlabel="step", ylabel=quantity, yscale="linear" if "GAP" in quantity else "log")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    row[1].legend()
    figure.suptitle(title)
    return figure


def training_curves(history: Sequence[Row], title: str) -> Figure:
    """Loss terms and validation GAP over steps, of rows as :mod:`pipeline.train.training` keeps them.

    A term that is missing from all rows is not drawn; line styles and markers tell the curves apart without colour.
    """
    figure, (left, right) = panels(1, 2, (9, 3.2))
    several = any("adversarial" in row for row in history)
    styles = zip(TERMS.items(), ("-", "--", "-.", ":"), sns.color_palette("colorblind"), strict=False)
    for (key, label), style, colour in styles:
        points = [(row["step"], row[key]) for row in history if key in row]
        if points and (key != "loss" or several):
            left.plot(*zip(*points, strict=True), style, color=colour, label=label)
    left.set(xlabel="step", ylabel="term of the loss, before its weight", yscale="log")
    left.legend()
    scored = [(row["step"], 100 * row["validation_gap"]) for row in history if "validation_gap" in row]
    if scored:
        right.plot(*zip(*scored, strict=True), "o-", color="black", markersize=4)
        step, best = max(scored, key=lambda point: point[1])
        right.axvline(step, color="grey", linestyle=":", label=f"best: {best:.2f} % at step {step}")
        right.legend(loc="lower right")
    right.set(xlabel="step", ylabel="validation GAP (%)")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    figure.suptitle(title)
    return legible(figure)


class LiveCurves:
    """Redraws :func:`training_curves` in place in a notebook, and as a PNG at ``path`` that any viewer can watch."""

    def __init__(self, title: str, path: Path) -> None:
        self.title, self.path = title, path
        self._handle: DisplayHandle | None = None

    def __call__(self, history: Sequence[Row]) -> None:
        """Draw the history so far."""
        figure = training_curves(history, self.title)
        with atomic_file(self.path) as temporary:
            figure.savefig(temporary, dpi=110)
        plt.close(figure)
        if self._handle is None:
            self._handle = display(figure, display_id=True)
        else:
            self._handle.update(figure)
