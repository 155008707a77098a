"""What the attack does to the attention maps of the test videos, from predictions files alone (section 3.2.2)."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import seaborn as sns
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from artpaper.attention import NUMBERS
from pipeline.base.errors import DataError
from pipeline.paper.paper import ATTENTION_MSE
from pipeline.paper.style import (
    DATA,
    ModelStyle,
    left_out,
    markdown_table,
    model_styles,
    model_title,
    number_or_dash,
    save_table,
    save_text,
    seeds_text,
)
from pipeline.predict.files import DAMAGED, check_comparable, read_file
from pipeline.predict.predictions import attention_column, schema

SHARED = ("source", "split", "label_space", "epsilon", "scope", "labels", "feature_norm", "max_frames", "modalities")
READING = {
    "change": "mean squared difference between the maps of a video and of its adversary, heads averaged first.",
    "paper": "the same figure in section 3.2.2, on YouTube-8M with its longer videos: the modality is not said.",
    "by head": "the change before heads are averaged; far above *change*, heads change and cancel.",
    "unrelated": "mean squared difference between the maps of two unrelated videos of equal length; near 0 the maps do "
    "not depend on the video, and a small change says nothing about robustness.",
    "share": "change over unrelated; near 100 % the attack changes a map as much as another video would.",
    "to uniform": "mean squared distance from the map that weighs every frame 1/T; maps stop depending on the video "
    "before they are flat.",
    "entropy": "of a map's rows, as a share of log T, the most there can be; 1 is uniform.",
    "largest": "largest weight of a map, in multiples of 1/T; 1 is uniform.",
    "profile": "most attention that a frame receives, in multiples of 1/T; 1 is uniform.",
}


@dataclass(frozen=True)
class AttentionFile:
    """The attention numbers of one predictions file, read when asked for; ``settings`` has what all files share."""

    path: Path
    model: str
    seed: int
    settings: dict[str, Any]
    ids: pa.Array

    def numbers(self, modality: str, number: str) -> Float64[np.ndarray, " videos"]:
        """One of :data:`artpaper.attention.NUMBERS` of every video."""
        return self.column(attention_column(modality, number)).to_numpy()

    def change(self) -> Float64[np.ndarray, " videos"]:
        """How much the attack changes each video's maps: their ``mse``, mean over modalities (weight squared)."""
        return np.mean([self.numbers(modality, "mse") for modality in self.settings["modalities"]], axis=0)

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of the file."""
        return pq.read_table(self.path, columns=[name])[name]


def attention_files(predictions: Mapping[str, Sequence[str | Path]]) -> dict[str, list[AttentionFile]]:
    """Open the predictions files of each model, one a seed, and check that they can be compared."""
    opened = {model: [_open(Path(path), model) for path in paths] for model, paths in predictions.items()}
    every = [file for files in opened.values() for file in files]
    if not every:
        raise DataError("no predictions files given; make them with `dvc repro`")
    check_comparable([(file.path, file.settings, file.ids) for file in every], (*SHARED, DAMAGED))
    for model, files in opened.items():
        if len({file.seed for file in files}) < len(files):
            raise DataError(f"the files of model {model} have a seed twice: {[file.seed for file in files]}")
    return opened


def _open(path: Path, model: str) -> AttentionFile:
    fields = ("model", "seed", *SHARED)
    table, note = read_file(path, lambda note: schema(note["modalities"]), fields, columns=["id"])
    if note["model"] != model:
        raise DataError(f"{path}: holds model {note['model']}, expected {model}")
    names = pq.read_schema(path).names  # the note is in the order of the alphabet
    modalities = sorted(note["modalities"], key=lambda name: names.index(attention_column(name, "mse")))
    settings = {name: note[name] for name in SHARED} | {"modalities": modalities, DAMAGED: note.get(DAMAGED, [])}
    return AttentionFile(path, model, note["seed"], settings, table["id"].combine_chunks())


def attention_table(predictions: Mapping[str, Sequence[str | Path]]) -> pd.DataFrame:
    """Means over the test videos of what :func:`artpaper.attention.attention_numbers` measures.

    Returns:
        A row per model, seed and modality: ``videos`` (their number), the means of :data:`artpaper.attention.NUMBERS`
        (weights, squared for the ``mse`` columns), and ``unrelated_videos``, those whose ``unrelated_mse`` is known.
    """
    rows = []
    for model, files in attention_files(predictions).items():
        for file in files:
            for modality in file.settings["modalities"]:
                values = {number: file.numbers(modality, number) for number in NUMBERS}
                known = values["unrelated_mse"][~np.isnan(values["unrelated_mse"])]
                means = {number: float(each.mean()) for number, each in values.items()}
                means["unrelated_mse"] = float(known.mean()) if len(known) else np.nan
                shared = {"model": model, "seed": file.seed, "modality": modality, "videos": len(file.ids)}
                rows.append(shared | means | {"unrelated_videos": len(known)})
    return pd.DataFrame(rows)


def attention_metrics(table: pd.DataFrame) -> dict[str, dict[str, int | float]]:
    """For ``dvc metrics`` the change of the maps in each modality, its mean over seeds, a row a model.

    In millionths, for dvc shows five decimals.
    """
    rows: dict[str, dict[str, int | float]] = {}
    for (model, modality), runs in table.groupby(["model", "modality"], sort=False):
        row = rows.setdefault(str(model), {"videos": int(runs["videos"].iloc[0])})
        row[f"attention_mse_{modality}_e6"] = float(f"{1e6 * runs['mse'].mean():.6g}")
    return rows


def attention_figure(predictions: Mapping[str, Sequence[str | Path]], table: pd.DataFrame) -> Figure:
    """How much the attack changes the maps, beside the two yardsticks that such a change needs, and how flat they are.

    All seeds are pooled; the means over seeds of :func:`attention_table` are the diamonds.
    """
    files = attention_files(predictions)
    settings = next(iter(files.values()))[0].settings
    modalities, styles = settings["modalities"], model_styles(files)
    means = table.groupby(["model", "modality"])[list(NUMBERS)].mean()
    with sns.axes_style("whitegrid"):
        figure = plt.figure(figsize=(6.5 * len(modalities), 2.6 + 1.15 * len(files)), layout="constrained")
        grid = figure.add_gridspec(2, 2 * len(modalities), height_ratios=(2, 1))
    for place, modality in enumerate(modalities):
        with sns.axes_style("whitegrid"):
            above = figure.add_subplot(grid[0, 2 * place : 2 * place + 2])
            below = [figure.add_subplot(grid[1, 2 * place + side]) for side in (0, 1)]
        labels = [model_title(model) for model in files]
        for row, (model, runs) in enumerate(files.items()):
            pooled = {
                number: np.concatenate([run.numbers(modality, number) for run in runs])
                for number in ("mse", "unrelated_mse", "uniform_mse", "entropy", "largest")
            }  # number -> (videos of all seeds,)
            mean = {str(number): float(value) for number, value in means.loc[(model, modality)].items()}
            _changes(above, row, pooled, mean, styles[model])
            for axes, number in zip(below, ("entropy", "largest"), strict=True):
                _box(axes, float(row), pooled[number], mean[number], styles[model], 0.55)
        _finish(above, below, labels, modality)
    handles = [
        Line2D([], [], color="0.3", marker="s", markersize=9, markerfacecolor="white", linestyle="none"),
        Line2D([], [], color="black", marker="D", markersize=5, linestyle="none"),
        Line2D([], [], color="black", marker="v", markersize=6, linestyle=":"),
        Line2D([], [], color="0.45", marker="|", markersize=9, markeredgewidth=2, linestyle="-"),
    ]
    names = ["quartiles, 5 % and 95 % of the videos", "mean"]
    names += ["maps of unrelated videos: median, 5 % to 95 %", "map to uniform map: median, 5 % to 95 %"]
    narrow = len(modalities) == 1
    figure.legend(handles, names, loc="outside lower center", ncols=2 if narrow else 4, frameon=False,
                  fontsize=8 if narrow else 10)  # fmt: skip
    runs = next(iter(files.values()))
    what = f"Attention maps under the one-step attack, $\\epsilon$ = {settings['epsilon']:g}:"
    where = f"{DATA[settings['source']]}, {len(runs[0].ids):,} {settings['split']} videos"
    trained = seeds_text([run.seed for run in runs])
    figure.suptitle(f"{what}{chr(10) if narrow else ' '}{where}, {trained}")
    return figure


def _changes(axes: Axes, row: int, pooled: dict[str, np.ndarray], mean: dict[str, float], style: ModelStyle) -> None:
    """A model's change of the maps as a box, its yardsticks as lines below, and its mean and zeros in words."""
    _box(axes, row - 0.12, pooled["mse"], mean["mse"], style, 0.42)
    yardsticks = (("unrelated_mse", "v", "black", ":", 0.2), ("uniform_mse", "|", "0.45", "-", 0.36))
    for number, marker, color, linestyle, shift in yardsticks:
        shown = pooled[number][pooled[number] > 0]  # a log axis has no 0, and NaN is not known
        if len(shown):
            low, middle, high = np.quantile(shown, (0.05, 0.5, 0.95))
            axes.plot([low, high], [row + shift] * 2, color=color, linestyle=linestyle, linewidth=1.5)
            thick = 2 if marker == "|" else 0
            axes.plot(middle, row + shift, marker, color=color, markersize=7, markeredgewidth=thick)
    zeros = int((pooled["mse"] == 0).sum())
    text = f"mean {mean['mse']:.1e}" + (f"; {zeros:,} of {len(pooled['mse']):,} exactly 0" if zeros else "")
    axes.annotate(text, (0.995, row - 0.36), xycoords=axes.get_yaxis_transform(), ha="right", va="bottom", fontsize=9)


def _box(axes: Axes, at: float, values: np.ndarray, mean: float, style: ModelStyle, width: float) -> None:
    shown = values[values > 0]
    if not len(shown):
        return
    low, first, middle, third, high = np.quantile(shown, (0.05, 0.25, 0.5, 0.75, 0.95))
    line = {"color": style.color, "linewidth": 1.5}
    axes.bxp(
        [{"whislo": low, "q1": first, "med": middle, "q3": third, "whishi": high}], positions=[at], widths=width,
        orientation="horizontal", showfliers=False, patch_artist=True, boxprops=style.bar | {"linewidth": 1.5},
        medianprops={"color": "black", "linewidth": 2}, whiskerprops=line, capprops=line, manage_ticks=False,
    )  # fmt: skip
    if mean > 0:
        axes.plot(mean, at, "D", color="black", markeredgecolor="white", markersize=6, zorder=4)


def _finish(above: Axes, below: Sequence[Axes], labels: Sequence[str], modality: str) -> None:
    for axes in (above, *below):
        named = axes is above or axes is below[0]
        axes.set_yticks(range(len(labels)), labels if named else [""] * len(labels))
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
    above.set(xscale="log", title=f"{modality}: change of the map")
    above.set_xlabel("mean squared difference of attention weights (weight²)")
    entropy, largest = below
    lowest, highest = min(0.9, entropy.dataLim.x0), max(2.0, largest.dataLim.x1)
    entropy.set(xlim=(lowest - 0.05 * (1 - lowest), 1 + 0.05 * (1 - lowest)))
    entropy.set_xlabel("entropy of a row (share of log T)")
    largest.set(xscale="log", xlim=(0.93, highest * 1.15))
    largest.set_xlabel("largest weight (multiples of 1/T)")
    largest.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5) if highest < 6 else (1, 2, 5)))
    largest.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    largest.xaxis.set_minor_locator(NullLocator())
    for axes in below:
        axes.axvline(1.0, color="0.45", linewidth=1.5)


def write_attention(predictions: Mapping[str, Sequence[str | Path]], table: pd.DataFrame, folder: str | Path) -> None:
    """Write ``attention.csv`` (every row) and ``attention.md`` (means over seeds, how to read each column)."""
    settings = next(iter(attention_files(predictions).values()))[0].settings
    save_table(table, Path(folder) / "attention.csv")
    save_text(_markdown(table, settings), Path(folder) / "attention.md")


def _markdown(table: pd.DataFrame, settings: Mapping[str, Any]) -> str:
    lines = []
    groups = table.groupby(["modality", "model"], sort=False)
    for modality, model in itertools.product(table["modality"].unique(), table["model"].unique()):
        rows = groups.get_group((modality, model))
        mean, spread = rows[list(NUMBERS)].mean(), rows["mse"].std(ddof=1)
        share = 100 * mean["mse"] / mean["unrelated_mse"] if mean["unrelated_mse"] > 0 else np.nan
        cells = [
            str(modality),
            model_title(model),
            f"{mean['mse']:.2e}" + (f" ± {spread:.1e}" if len(rows) > 1 else ""),
        ]
        cells += [number_or_dash(ATTENTION_MSE.get(str(model), np.nan), ".0e"), f"{mean['head_mse']:.2e}"]
        cells += [number_or_dash(mean["unrelated_mse"], ".2e"), number_or_dash(share, ".3g", " %")]
        cells += [f"{mean['uniform_mse']:.2e}", f"{mean['entropy']:.4f}"]
        lines.append([*cells, f"{mean['largest']:.2f}", f"{mean['profile_max']:.2f}"])
    seeds = sorted(table["seed"].unique())
    caption = (
        f"**Attention maps under the one-step attack** (section 3.2.2). {DATA[settings['source']]}: means over "
        f"{int(table['videos'].iloc[0]):,} {settings['split']} videos, ε = {settings['epsilon']:g}, "
        f"{seeds_text(seeds)}{'; ± over seeds, ddof = 1' if len(seeds) > 1 else ''}."
        f"{left_out(settings[DAMAGED])}"
    )
    body = markdown_table(["modality", "model", *READING], lines, names=2)
    return "\n".join([caption, "", body, *(f"- **{name}**: {text}" for name, text in READING.items())]) + "\n"
