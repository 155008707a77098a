"""Figure 3: validation GAP over epsilon and over alpha, and, beyond the paper, over A-ART's beta."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.base.parameters import Params
from pipeline.paper.paper import MODELS
from pipeline.paper.style import DATA, ModelStyle, model_styles, model_title, panels
from pipeline.predict.sweep import KEYS

LABELS = {"epsilon": r"$\epsilon$ (radius of the ball)", "alpha": r"$\alpha$ (weight of the adversarial loss)",
          "beta": r"$\beta$ (weight of the attention term)"}  # fmt: skip


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of every point of :func:`pipeline.predict.sweep.sweep` with an error bar.

    A row per model, key and value: ``seeds``, ``clean``, ``one_step`` and their ``_bar``: the standard deviation over
    seeds, or with a single seed the bootstrap standard error over the validation videos.
    """
    rows = []
    for (model, key, value), points in table.groupby(["model", "key", "value"], dropna=False, sort=False):
        row = {"model": model, "key": key, "value": value, "seeds": len(points)}
        for column in ("clean", "one_step"):
            row[column] = points[column].mean()
            row[f"{column}_bar"] = points[column].std(ddof=1) if len(points) > 1 else points[f"{column}_error"].iloc[0]
        row |= {column: points[column].mean() for column in ("attention_mse", "uniform_mse")}
        rows.append(row)
    return pd.DataFrame(rows)


def hyperparameter_figure(table: pd.DataFrame, params: Params) -> Figure:
    """Figure 3: one column a parameter, the clean GAP (the paper's) above, the one-step GAP below.

    Where group ``study`` has no values, a sentence that says so.
    """
    points = summary(table)
    keys = [key for key in KEYS if (points["key"] == key).any()]
    if not keys:
        figure = plt.figure(figsize=(7.2, 0.6))
        figure.text(0.5, 0.5, "Figure 3 was not asked for: `artpaper use figure3` gives its values", ha="center")
        return figure
    size = (3.6 * len(keys) + 0.6, 5.6)
    figure, grid = panels(2, len(keys), size, sharex="col", sharey="row", squeeze=False)
    reference = points[points["key"] == "reference"].iloc[0]
    styles = model_styles(dict.fromkeys(points["model"]))
    for column, key in enumerate(keys):
        for axes, what in zip(grid[:, column], ("clean", "one_step"), strict=True):
            _panel(axes, points[points["key"] == key], reference, what, styles)
            used = {getattr(params.models[name], key) for name in getattr(params.study.models, key)}
            for value in used:
                axes.axvline(value, color="0.6", linewidth=0.8, zorder=0)
        shown, *_ = getattr(params.study.models, key)
        held = [other for other in ("epsilon", "alpha") if other != key]
        fixed = ", ".join(rf"$\{other}$ = {getattr(params.models[shown], other):g}" for other in held)
        grid[0, column].set_title(fixed, fontsize=10)
        grid[1, column].set_xlabel(LABELS[key])
    grid[0, 0].set_ylabel("validation GAP, clean (%)")
    grid[1, 0].set_ylabel(f"validation GAP, one-step\nattack, $\\epsilon$ = {params.attack.epsilon:g} (%)")
    named = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in grid[0]]  # a panel may lack a model
    lines = {label: handle for panel in named for handle, label in panel}
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=len(lines), frameon=False)
    seeds = int(points["seeds"].max())
    one = "bootstrap error over the validation videos, one seed"
    bars = f"standard deviation over {seeds} seeds" if seeds > 1 else one
    steps = f"at most {params.study.max_steps or params.train.max_steps} steps each"
    figure.suptitle(
        f"Figure 3 on {DATA[params.data.source]}; bars: {bars}; {steps}; grey: the value in use", fontsize=10
    )
    return figure


def _panel(axes: Axes, points: pd.DataFrame, reference: pd.Series, what: str, styles: Mapping[str, ModelStyle]) -> None:
    level, bar = reference[what], reference[f"{what}_bar"]
    axes.axhline(level, label=MODELS["non_art"], **styles["non_art"].line)
    axes.axhspan(level - bar, level + bar, color=styles["non_art"].color, alpha=0.15, linewidth=0)
    for model, line in points.groupby("model", sort=False):
        line = line.sort_values("value")
        style = styles[str(model)]
        axes.errorbar(
            line["value"], line[what], yerr=line[f"{what}_bar"], capsize=3, label=model_title(model),
            marker=style.marker, **style.line,
        )  # fmt: skip
    values = sorted(set(points["value"]))
    axes.set_xscale("symlog", linthresh=min((value for value in values if value > 0), default=1.0))  # 0 has a place too
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()


def peak(table: pd.DataFrame, model: str, key: str, what: str = "clean") -> tuple[float, bool]:
    """The value of ``key`` where a curve of Figure 3 is highest, and whether that is inside its grid."""
    points = summary(table)
    line = points[(points["model"] == model) & (points["key"] == key)].sort_values("value")
    best = int(np.argmax(line[what].to_numpy()))
    return float(line["value"].iloc[best]), 0 < best < len(line) - 1
