"""Training curves: drawn afterwards from a history, or live while a model trains."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import seaborn as sns
from IPython.display import DisplayHandle, display
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.base.atomic import atomic_file
from pipeline.paper.style import legible

Row = dict[str, float | int]


def training_curves(history: Sequence[Row], title: str) -> Figure:
    """Loss terms and validation GAP over steps.

    Args:
        history: rows as :mod:`pipeline.train.training` keeps them; a term that is missing from all rows is not drawn.
        title: what was trained.
    Returns:
        A figure of two panels; line styles and markers tell the curves apart without colour.
    """
    with sns.axes_style("whitegrid"):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    terms = {"loss": "total", "cross_entropy": "clean $L_{CE}$", "adversarial": "adversarial", "attention": "attention"}
    styles = zip(terms.items(), ("-", "--", "-.", ":"), sns.color_palette("colorblind"), strict=False)
    for (key, label), style, colour in styles:
        points = [(row["step"], row[key]) for row in history if key in row]
        if points and not (key == "loss" and not any("adversarial" in row for row in history)):
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
    """Redraws :func:`training_curves` in place in a notebook, and as a PNG that any image viewer can watch.

    Args:
        title: what is being trained.
        path: the PNG; replaced at every call.
    """

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
