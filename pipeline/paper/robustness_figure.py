"""Figure 4 and its table for people, of what :mod:`pipeline.paper.robustness` makes of DeepFool files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from pipeline.paper.robustness import Robustness, read_robustness
from pipeline.paper.style import (
    DATA,
    ModelStyle,
    count_text,
    left_out,
    markdown_table,
    model_styles,
    model_title,
    number_or_dash,
    panels,
    save_table,
    save_text,
    seeds_text,
    wrapped,
)
from pipeline.predict.files import DAMAGED

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
    criterion with fewer than :data:`FEW` videos is left out. All seeds are pooled in the
    curves.
    """
    results = read_robustness(files)
    videos = {criterion: columns["fooled"].shape[-1] for criterion, columns in results.columns.items()}
    shown = [criterion for criterion, count in videos.items() if count >= FEW] or list(videos)
    styles = model_styles(results.models)
    size = (1.2 + max(3.3, 0.95 * len(results.models)) * len(shown), 7)
    figure, grid = panels(2, len(shown), size, squeeze=False, height_ratios=(1.2, 1))
    for (above, below), criterion in zip(grid.T, shown, strict=True):
        rows = table[table["criterion"] == criterion]
        _bars(above, rows, results, styles)
        above.set_title(f"{criterion} ({videos[criterion]:,} videos)\n" + wrapped([MEANING[criterion]], 44), fontsize=9)
        for place, model in enumerate(results.models):
            own = {name: values[place] for name, values in results.columns[criterion].items()}
            _curve(below, own, styles[model], model_title(model))
        below.set(xscale="log", ylim=(-3, 103), xlabel="perturbation / video (% of the L2 norm)")
        below.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    grid[0, 0].set_ylabel("minimal perturbation / video\n(% of the L2 norm), mean")
    grid[1, 0].set_ylabel("videos wrong at or below (%)")
    handles, names = grid[1, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    settings = results.settings
    dots = "; dots: each seed; counts: mean over seeds" if len(results.seeds) > 1 else ""
    lines = [
        f"Minimal perturbations (DeepFool): {DATA[settings['source']]}, a subset of {settings['test_videos']:,} test "
        f"videos, {seeds_text(results.seeds)}",
        "bars: mean over the videos that were fooled (hit1_loss: those right before), 95 % bootstrap interval over "
        f"videos{dots}",
    ]
    figure.suptitle(wrapped(lines, int(13 * figure.get_figwidth())), fontsize=10)
    return figure


def _bars(axes: Axes, rows: pd.DataFrame, results: Robustness, styles: Mapping[str, ModelStyle]) -> None:
    """Means over seeds as bars; below each how many videos it leaves out."""
    labels = []
    for place, model in enumerate(results.models):
        own = rows[rows["model"] == model].set_index("seed")
        overall, style = own.loc["all"], styles[model]
        mean = 100 * overall["mean_rho"]
        outside = " / ".join(count_text(overall[name]) for name in ("already_wrong", "not_fooled"))
        labels.append(f"{model_title(model)}\n{outside}")
        if np.isnan(mean):
            continue
        axes.bar(place, mean, 0.62, linewidth=1.5, **style.bar)
        reach = [[mean - 100 * overall["ci_low"]], [100 * overall["ci_high"] - mean]]
        axes.errorbar(place, mean, yerr=np.maximum(reach, 0), color="black", capsize=6, linewidth=1.8)
        each = 100 * own.drop("all")["mean_rho"]
        top = np.nanmax([mean, 100 * overall["ci_high"], *each])
        axes.annotate(
            f"{mean:#.3g}".removesuffix("."), (place, top), (0, 6), ha="center",
            textcoords="offset points", fontsize=10, zorder=5, bbox={"facecolor": "white", "linewidth": 0, "pad": 0.5},
        )  # fmt: skip
        if len(results.seeds) > 1:
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


def write_robustness(files: Mapping[str, Sequence[str | Path]], table: pd.DataFrame, folder: str | Path) -> None:
    """Write ``figure4.csv`` (every row) and ``figure4.md`` (means over seeds, how to read each column)."""
    save_table(table, Path(folder) / "figure4.csv")
    save_text(_markdown(read_robustness(files), table), Path(folder) / "figure4.md")


def _markdown(results: Robustness, table: pd.DataFrame) -> str:
    first = model_title(results.models[0])
    reading = {name.replace("FIRST", first): text.replace("FIRST", first) for name, text in READING.items()}
    beside_art = "art" in results.models[1:]
    if not beside_art and first != "ART":
        del reading["more than ART"]
    text = [
        f"**Minimal perturbations by DeepFool** (section 3.2.4, Figure 4). {DATA[results.settings['source']]}: a "
        f"seeded subset of {results.settings['test_videos']:,} test videos, {seeds_text(results.seeds)}"
        f"{', means over seeds; ± over seeds, ddof = 1' if len(results.seeds) > 1 else ''}. rho and "
        f"its differences in percent of the video's L2 norm.{left_out(results.settings[DAMAGED])}",
        "",
    ]
    for criterion, columns in results.columns.items():
        rows = table[(table["criterion"] == criterion) & (table["seed"] == "all")]
        lines = [_line(row, beside_art) for row in rows.to_dict("records")]
        lost = int(columns["no_result"].sum())
        unknown = f" NO RESULT, a gradient or an answer not being a finite number, in {lost} rows." if lost else ""
        text += [f"`{criterion}`: {MEANING[criterion]}.{unknown}", "", markdown_table(["model", *reading], lines)]
    return "\n".join([*text, *(f"- **{name}**: {meaning}" for name, meaning in reading.items())]) + "\n"


def _line(row: Mapping[Any, Any], beside_art: bool) -> list[str]:
    def percent(name: str, form: str = ".3f") -> str:
        return number_or_dash(100 * row[name], form)

    def interval(name: str, low: str, high: str, form: str = ".3f") -> str:
        ends = "" if np.isnan(row[name]) else f" [{percent(low, form)}, {percent(high, form)}]"
        return percent(name, form) + ends

    std = "" if np.isnan(row["seed_std"]) else f" ± {percent('seed_std')}"
    cells = [model_title(row["model"]), number_or_dash(row["videos"], ",.0f")]
    cells += [count_text(row[name]) for name in ("already_wrong", "not_fooled", "zero_gradient")]
    cells += [interval("mean_rho", "ci_low", "ci_high") + std, percent("median_rho"), percent("mean_rho_all")]
    cells += [number_or_dash(row["mean_norm"], ".3g"), number_or_dash(row["mean_iterations"], ".1f")]
    for prefix in ("", "art_") if beside_art else ("",):
        name = f"{prefix}difference"
        cells.append(interval(name, f"{name}_low", f"{name}_high", "+.3f"))
    return cells
