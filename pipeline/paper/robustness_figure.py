"""Figure 4 and its table in words."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from pipeline.paper.paper import MODELS
from pipeline.paper.render import left_out
from pipeline.paper.robustness import Robustness, read_robustness
from pipeline.paper.style import DATA, ModelStyle, markdown_table, model_styles, save_table, save_text

FEW = 30  # with fewer videos a criterion is left to the table
POINTS = 500  # of a curve, evenly spaced over the videos
MEANING = {
    "top1_change": "the top label changes, whatever the true ones are (the paper's Figure 4)",
    "hit1_loss": "the top label is no longer a true one (the headline where labels are nested)",
    "threshold": "any label crosses probability 0.5",
    "multilabel": "all true labels leave, the others stay (Song et al. 2018)",
}
READING = {
    "videos": "asked about, the same for every model.",
    "already wrong": "wrong before any attack, so rho is 0; not in *mean rho*.",
    "not fooled": "not fooled when the steps ran out: rho is larger than what was tried; not in *mean rho*.",
    "zero gradient": "videos that had no way to go.",
    "mean rho": "L2 norm of the minimal perturbation over that of the video, mean over the fooled videos, with its "
    "95 % bootstrap interval over videos.",
    "median": "the same, median.",
    "over all": "mean over all videos, the already wrong as 0, the not fooled at what was tried.",
    "norm": "of the perturbation itself, mean over the fooled videos, unit of the normalised features.",
    "steps": "iterations, mean over the fooled videos.",
    "more than FIRST": "rho minus FIRST's, mean over the videos that were fooled for both, in points of percent. An "
    "interval that holds 0 shows no difference. It need not be the difference of the means, which are of other videos.",
    "more than ART": "the same against ART.",
}


def robustness_figure(files: Mapping[str, Sequence[str | Path]], table: pd.DataFrame) -> Figure:
    """Figure 4 for each criterion: above the means with their intervals, below how the videos are spread.

    The curves count every video: they begin at the share that was already wrong and end at the share that was fooled. A
    criterion with fewer than :data:`FEW` videos is left out.

    Args:
        files: per model its DeepFool files, one a seed; all seeds are pooled in the curves.
        table: as :func:`pipeline.paper.robustness.robustness_table` returns it.
    Raises:
        DataError: as :func:`pipeline.paper.robustness.read_robustness`.
    Source: section 3.2.4, Figure 4.
    """
    found = read_robustness(files)
    videos = {criterion: columns["fooled"].shape[-1] for criterion, columns in found.columns.items()}
    shown = [criterion for criterion, count in videos.items() if count >= FEW] or list(videos)
    styles = model_styles(found.models)
    with sns.axes_style("whitegrid"):
        figure, grid = plt.subplots(
            2, len(shown), figsize=(1.2 + max(3.3, 0.95 * len(found.models)) * len(shown), 7), squeeze=False,
            height_ratios=(1.2, 1), layout="constrained",
        )  # fmt: skip
    for (above, below), criterion in zip(grid.T, shown, strict=True):
        rows = table[table["criterion"] == criterion]
        _bars(above, rows, found, styles)
        above.set_title(f"{criterion} ({videos[criterion]:,} videos)\n" + _wrapped(MEANING[criterion]), fontsize=9)
        for place, model in enumerate(found.models):
            _curve(below, {name: values[place] for name, values in found.columns[criterion].items()}, styles[model],
                   MODELS.get(model, model))  # fmt: skip
        below.set(xscale="log", ylim=(-3, 103), xlabel="perturbation / video (% of the L2 norm)")
        below.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    grid[0, 0].set_ylabel("minimal perturbation / video\n(% of the L2 norm), mean")
    grid[1, 0].set_ylabel("videos wrong at or below (%)")
    handles, names = grid[1, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    settings, several = found.settings, len(found.seeds) > 1
    dots = "; dots: each seed; counts: mean over seeds" if several else ""
    lines = [
        f"Minimal perturbations (DeepFool): {DATA[settings['source']]}, a subset of {settings['test_videos']:,} test "
        f"videos, training {'seeds' if several else 'seed'} {', '.join(map(str, found.seeds))}",
        "bars: mean over the videos that were fooled (hit1_loss: those right before), 95 % bootstrap interval over "
        f"videos{dots}",
    ]
    width = int(13 * figure.get_figwidth())
    figure.suptitle("\n".join(part for line in lines for part in textwrap.wrap(line, width)), fontsize=10)
    return figure


def _bars(axes: Axes, rows: pd.DataFrame, found: Robustness, styles: Mapping[str, ModelStyle]) -> None:
    """Means over seeds as bars; below each how many videos it leaves out."""
    labels = []
    for place, model in enumerate(found.models):
        own = rows[rows["model"] == model].set_index("seed")
        one, style = own.loc["all"], styles[model]
        mean = 100 * one["mean_rho"]
        left_out = [f"{one[name]:,.1f}".removesuffix(".0") for name in ("already_wrong", "not_fooled")]
        labels.append(f"{MODELS.get(model, model)}\n{' / '.join(left_out)}")
        if np.isnan(mean):
            continue
        axes.bar(place, mean, 0.62, linewidth=1.5, **style.bar)
        reach = [[mean - 100 * one["ci_low"]], [100 * one["ci_high"] - mean]]
        axes.errorbar(place, mean, yerr=np.maximum(reach, 0), color="black", capsize=6, linewidth=1.8)
        axes.annotate(
            f"{mean:#.3g}".removesuffix("."), (place, np.fmax(mean, 100 * one["ci_high"])), (0, 6), ha="center",
            textcoords="offset points", fontsize=10, zorder=5, bbox={"facecolor": "white", "linewidth": 0, "pad": 0.5},
        )  # fmt: skip
        if len(found.seeds) > 1:
            each = 100 * own.drop("all")["mean_rho"]
            spread = place + np.linspace(-0.18, 0.18, len(each))
            axes.plot(spread, each, "o", color="white", markeredgecolor="black", markersize=5, zorder=4)
    axes.set_xticks(range(len(labels)), labels, fontsize=9)
    axes.set_xlabel(f"already wrong / not fooled, of {int(rows['videos'].iloc[0]):,}", fontsize=9)
    axes.set_xlim(-0.55, len(labels) - 0.45)
    axes.margins(y=0.12)
    axes.set_ylim(0, None)
    axes.grid(visible=False, axis="x")


def _curve(axes: Axes, columns: Mapping[str, np.ndarray], style: ModelStyle, label: str) -> None:
    """Share of the videos (of all seeds) that are wrong once moved by so much."""
    rho = np.sort(100 * columns["relative_norm"][columns["fooled"]])  # (fooled,)
    total, wrong = columns["fooled"].size, int(columns["already_wrong"].sum())
    at = np.unique(np.linspace(0, len(rho) - 1, POINTS).round().astype(int)) if len(rho) else np.array([], int)
    marks: dict[str, Any] = {"marker": style.marker, "markersize": 5, "markevery": max(1, len(at) // 6)}
    shares = 100 * (wrong + at + 1) / total
    if len(at):  # from the level of those already wrong up to the first that is fooled
        axes.plot([rho[0], rho[0]], [100 * wrong / total, shares[0]], **style.line)
    axes.plot(rho[at], shares, label=label, **style.line, **marks)


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 44))


def write_robustness(files: Mapping[str, Sequence[str | Path]], table: pd.DataFrame, folder: str | Path) -> None:
    """Write ``figure4.csv`` (every row) and ``figure4.md`` (means over seeds, how to read each column).

    Args:
        files: as the table was made from; only what they say of themselves is used.
        table: as :func:`pipeline.paper.robustness.robustness_table` returns it.
        folder: where the files go.
    Raises:
        DataError: as :func:`pipeline.paper.robustness.read_robustness`.
        OSError: the folder cannot be written, or the disk is full.
    """
    save_table(table, Path(folder) / "figure4.csv")
    save_text(_markdown(read_robustness(files), table), Path(folder) / "figure4.md")


def _markdown(found: Robustness, table: pd.DataFrame) -> str:
    first = MODELS.get(found.models[0], found.models[0])
    reading = {name.replace("FIRST", first): text.replace("FIRST", first) for name, text in READING.items()}
    beside_art = "art" in found.models[1:]
    if not beside_art and first != "ART":
        del reading["more than ART"]
    several = len(found.seeds) > 1
    text = [
        f"**Minimal perturbations by DeepFool** (section 3.2.4, Figure 4). {DATA[found.settings['source']]}: a seeded "
        f"subset of {found.settings['test_videos']:,} test videos, training {'seeds' if several else 'seed'} "
        f"{', '.join(map(str, found.seeds))}{', means over seeds; ± over seeds, ddof = 1' if several else ''}. rho and "
        f"its differences in percent of the video's L2 norm.{left_out(found.settings['damaged_shards'])}",
        "",
    ]
    for criterion in found.columns:
        rows = table[(table["criterion"] == criterion) & (table["seed"] == "all")]
        lines = [_line(row, beside_art) for row in rows.to_dict("records")]
        lost = int(found.columns[criterion]["no_result"].sum())
        unknown = f" NO RESULT, a gradient or an answer not being a finite number, in {lost} rows." if lost else ""
        text += [f"`{criterion}`: {MEANING[criterion]}.{unknown}", "", markdown_table(["model", *reading], lines)]
    return "\n".join([*text, *(f"- **{name}**: {meaning}" for name, meaning in reading.items())]) + "\n"


def _line(row: Mapping[str, Any], beside_art: bool) -> list[str]:
    def number(name: str, form: str, scale: int = 1) -> str:
        value = float(row[name])
        return "–" if np.isnan(value) else f"{scale * value:{form}}"

    def interval(name: str, low: str, high: str, form: str) -> str:
        ends = f" [{number(low, form, 100)}, {number(high, form, 100)}]"
        return number(name, form, 100) + (ends if not np.isnan(float(row[name])) else "")

    std = f" ± {number('seed_std', '.3f', 100)}" if not np.isnan(float(row["seed_std"])) else ""
    cells = [MODELS.get(str(row["model"]), str(row["model"])), number("videos", ",.0f")]
    cells += [number(name, ",.1f").removesuffix(".0") for name in ("already_wrong", "not_fooled", "zero_gradient")]
    cells += [interval("mean_rho", "ci_low", "ci_high", ".3f") + std]
    cells += [number("median_rho", ".3f", 100), number("mean_rho_all", ".3f", 100)]
    cells += [number("mean_norm", ".3g"), number("mean_iterations", ".1f")]
    for prefix in ("", "art_") if beside_art else ("",):
        name = f"{prefix}difference"
        cells.append(interval(name, f"{name}_low", f"{name}_high", "+.3f"))
    return cells
