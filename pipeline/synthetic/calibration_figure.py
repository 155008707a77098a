"""The table and the figure that put the synthetic data beside YouTube-8M."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.data.labels import VERTICALS
from pipeline.synthetic.calibration import (
    LAGS,
    RANKS,
    REAL,
    FrameStatistics,
    Statistics,
    real_statistics,
    synthetic_statistics,
)
from pipeline.synthetic.generator import read_marker

LABELS_FROM = "57,975 released label sets"
MEANS_FROM = "means of 57,975 released videos"
FRAMES_FROM = "one released video, 170 frames"
SHOWN_LAGS = (1, 2, 5, 10, 20)
# black or the colour-blind palette's orange; marker and line differ too, so that a grey print is read as easily
STYLES: dict[str, dict[str, Any]] = {
    "real": {"color": "black", "marker": "o", "linestyle": "-", "markersize": 4},
    "synthetic": {"color": "#de8f05", "marker": "s", "linestyle": "--", "markerfacecolor": "none", "markersize": 7},
}


def real_beside_synthetic(real_root: Path | None, synthetic_folder: Path) -> tuple[pd.DataFrame, Figure]:
    """Measure both sides: a table with the columns statistic, real, synthetic and source, and a figure.

    A row is a statistic that both sides have. Without a ``real_root`` the real side is what was measured once and is
    kept in this project.
    """
    config, _ = read_marker(synthetic_folder)
    real = REAL if real_root is None else real_statistics(real_root)
    synthetic = synthetic_statistics(synthetic_folder, real)
    theirs, ours = _figures(real), _figures(synthetic)
    rows = [(key[0], value, ours[key], key[1]) for key, value in theirs.items() if key in ours]
    table = pd.DataFrame(rows, columns=["statistic", "real", "synthetic", "source"])
    return table, comparison_figure(real, synthetic, config.rare_vertical_floor)


def _figures(side: Statistics) -> dict[tuple[str, str], float]:
    """The statistics by their names and by what the real ones were measured on."""
    labels, ranks = side.labels, dict(zip(RANKS, side.labels.by_rank, strict=False))  # small vocabularies lack some
    values = {
        "labels a video, mean": labels.mean,
        "videos with one label": labels.per_video[0],
        "videos with six labels or more": 1 - sum(labels.per_video[:5]),
    }
    values |= {f"videos with the entity of rank {rank:,}": ranks[rank] for rank in (1, 10, 100, 1000) if rank in ranks}
    for vertical in ("Arts & Entertainment", "Games", "Travel", "Finance"):
        values[f"videos of {vertical}"] = labels.verticals[VERTICALS.index(vertical)]
    values["label pairs that share a vertical"] = labels.same_vertical
    values["lift of pairs within a vertical"] = labels.lift_within
    values["lift of pairs across verticals"] = labels.lift_across
    figures = {(name, LABELS_FROM): value for name, value in values.items()}
    for name, frames in side.frames.items():
        figures[f"{name}: norm of the mean frame", MEANS_FROM] = frames.mean_norm
        figures[f"{name}: std between videos, dimension 1", MEANS_FROM] = frames.between[0]
        figures[f"{name}: the same, last octave of dimensions", MEANS_FROM] = frames.between[-1]
        figures[f"{name}: norm of a frame", FRAMES_FROM] = frames.one_frame_norm
        figures[f"{name}: std within a video", FRAMES_FROM] = frames.one_within
        figures[f"{name}: entries at the clip bounds", FRAMES_FROM] = frames.one_clipped
        for lag, value in zip(LAGS, frames.one_autocorrelation, strict=True):
            if lag in SHOWN_LAGS:
                figures[f"{name}: autocorrelation at lag {lag}", FRAMES_FROM] = value
    return figures


def comparison_figure(real: Statistics, synthetic: Statistics, floor: float) -> Figure:
    """Real and synthetic in every panel."""
    with sns.axes_style("whitegrid"), sns.plotting_context("paper"):
        figure, panels = plt.subplot_mosaic(
            [
                ["labels", "ranks", "verticals", "verticals"],
                ["pairs", "lifts", "norms", "means"],
                ["between rgb", "between audio", "within", "clipped"],
                ["memory rgb", "memory audio", "text", "text"],
            ],
            figsize=(13, 12),
            layout="constrained",
            height_ratios=[1.3, 1, 1, 1],
        )
        _label_panels(panels, real, synthetic)
        _frame_panels(panels, real.frames, synthetic.frames)
        handles, names = panels["labels"].get_legend_handles_labels()
        panels["text"].axis("off")
        panels["text"].legend(handles, names, loc="upper left", fontsize=9)
        panels["text"].text(0, 0.62, _caption(floor), transform=panels["text"].transAxes, va="top", fontsize=8)
        figure.suptitle("SYNTHETIC data beside YouTube-8M: what the generator was fitted to")
    return figure


def evidence_figure(
    frames: UInt8[np.ndarray, "frames dim"], present: Bool[np.ndarray, "labels frames"],
    prototypes: Float[np.ndarray, "labels dim"], names: Sequence[str],
) -> Figure:  # fmt: skip
    """Where one synthetic video shows its labels: resemblance of each frame to each label's direction."""
    x = frames - frames.mean(axis=0)  # (frames, dim)
    # (frames, labels)
    cosine = x @ prototypes.T / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(prototypes, axis=1)
    with sns.axes_style("white"):
        figure, panels = plt.subplots(len(names), 1, figsize=(9, 1.8 * len(names)), layout="constrained", sharex=True)
    for axes, name, where, values in zip(np.atleast_1d(panels), names, present, cosine.T, strict=True):
        axes.fill_between(np.arange(len(frames)), 0, 1, where=where, transform=axes.get_xaxis_transform(),
                          step="mid", color="0.85", label="evidence present")  # fmt: skip
        axes.plot(values, color="black", linewidth=1, label="cosine with its direction")
        axes.set(title=f"{name} (synthetic entity)", ylabel="cosine")
    np.atleast_1d(panels)[0].legend(loc="upper right", fontsize=8)
    np.atleast_1d(panels)[-1].set_xlabel("time (frames at 1 a second)")
    figure.suptitle("One SYNTHETIC video: evidence shows in a part of the frames")
    return figure


def _label_panels(panels: dict[str, Axes], real: Statistics, synthetic: Statistics) -> None:
    for name, side in (("real", real.labels), ("synthetic", synthetic.labels)):
        style, label = STYLES[name], {"real": "YouTube-8M", "synthetic": "synthetic"}[name]
        counts = range(1, len(side.per_video) + 1)
        panels["labels"].plot(counts, 100 * np.array(side.per_video), label=label, **style)
        panels["ranks"].plot(RANKS[: len(side.by_rank)], 100 * np.array(side.by_rank), **style)
        order = np.argsort(-np.array(real.labels.verticals))
        points = {**style, "linestyle": "none"}
        panels["verticals"].plot([VERTICALS[i] for i in order], 100 * np.array(side.verticals)[order], **points)
    panels["labels"].set(title="Labels a video", xlabel="labels", ylabel="videos (%)", yscale="log")
    panels["ranks"].set(title="Entities by rank", xlabel="rank of the entity", ylabel="videos with it (%)")
    panels["ranks"].set(xscale="log", yscale="log")
    panels["verticals"].set(title="Verticals", ylabel="videos with it (%)", yscale="log")
    panels["verticals"].tick_params(axis="x", rotation=60)
    for text in panels["verticals"].get_xticklabels():
        text.set(ha="right", rotation_mode="anchor")
    sides = real.labels, synthetic.labels
    _bars(panels["pairs"], {"same vertical": [100 * side.same_vertical for side in sides]}, "%.0f")
    panels["pairs"].set(title="Pairs of labels of one video", ylabel="pairs (%)")
    lifts = {"same vertical": [side.lift_within for side in sides], "across": [side.lift_across for side in sides]}
    _bars(panels["lifts"], lifts, "%.2f")
    panels["lifts"].set(title="Lift of such pairs", ylabel="times as many as by chance")


def _frame_panels(
    panels: dict[str, Axes], real: dict[str, FrameStatistics], synthetic: dict[str, FrameStatistics]
) -> None:
    for panel, key, title, unit, scale, number in (
        ("norms", "one_frame_norm", "Norm of a frame", "dequantised units", 1, "%.1f"),
        ("means", "mean_norm", "Norm of a video's mean frame", "dequantised units", 1, "%.1f"),
        ("within", "one_within", "Std within a video", "dequantised units", 1, "%.2f"),
        ("clipped", "one_clipped", "Entries at the clip bounds", "entries (%)", 100, "%.1f"),
    ):
        pairs = {name: [scale * getattr(side[name], key) for side in (real, synthetic)] for name in real}
        _bars(panels[panel], pairs, number)
        panels[panel].set(title=title, ylabel=unit)
    for name in real:
        for kind, side in (("real", real[name]), ("synthetic", synthetic[name])):
            centres = [2 ** (octave + 0.5) - 0.5 for octave in range(len(side.between))]
            panels[f"between {name}"].plot(centres, side.between, **STYLES[kind])
            panels[f"memory {name}"].plot(LAGS, side.one_autocorrelation, **STYLES[kind])
        panels[f"between {name}"].set(title=f"Std between videos, {name}", xlabel="dimension (octaves)", xscale="log")
        panels[f"between {name}"].set(ylabel="std (dequantised units)", ylim=(0, 1))
        panels[f"memory {name}"].set(title=f"Autocorrelation over time, {name}", xlabel="lag (frames at 1 a second)")
        panels[f"memory {name}"].set(ylabel="correlation", ylim=(-0.1, 0.6))


def _bars(axes: Axes, pairs: dict[str, list[float]], number: str) -> None:
    """Real beside synthetic for each name, with the figures on the bars; hatching tells them apart in grey."""
    places = np.arange(len(pairs))
    for shift, kind, hatch in ((-0.2, "real", ""), (0.2, "synthetic", "///")):
        values = [pair[kind == "synthetic"] for pair in pairs.values()]
        face = STYLES[kind]["color"] if kind == "real" else "white"
        bars = axes.bar(places + shift, values, 0.36, color=face, edgecolor=STYLES[kind]["color"], hatch=hatch)
        axes.bar_label(bars, fmt=number)
    axes.set_xticks(places, list(pairs))
    axes.set_xlim(-0.8, len(pairs) - 0.2)
    axes.margins(y=0.12)
    axes.grid(visible=False, axis="x")


def _caption(floor: float) -> str:
    lines = [
        f"YouTube-8M: labels, pairs and verticals from {LABELS_FROM}; norm of the mean",
        f"frame and std between videos from the {MEANS_FROM};",
        f"everything about single frames from {FRAMES_FROM}, which is held",
        "against the tenth of the synthetic videos whose mean frame has the nearest norm.",
    ]
    if floor:
        lines.append(f"Deliberate deviation: rare verticals were raised to {100 * floor:g} % of the videos or more.")
    else:
        lines.append("Vertical shares as in YouTube-8M (rare_vertical_floor 0).")
    return "\n".join(lines)
