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
    """Measure both sides and show them."""
    config, _ = read_marker(synthetic_folder)
    real = REAL if real_root is None else real_statistics(real_root)
    synthetic = synthetic_statistics(synthetic_folder, real)
    return comparison_table(real, synthetic), comparison_figure(real, synthetic, config.rare_vertical_floor)


def comparison_table(real: Statistics, synthetic: Statistics) -> pd.DataFrame:
    """One row a statistic; see :func:`real_beside_synthetic` for the columns."""
    one, other = real.labels, synthetic.labels
    rows: list[tuple[str, float, float, str]] = [
        ("labels a video, mean", one.mean, other.mean, LABELS_FROM),
        ("videos with one label", one.per_video[0], other.per_video[0], LABELS_FROM),
        ("videos with six labels or more", 1 - sum(one.per_video[:5]), 1 - sum(other.per_video[:5]), LABELS_FROM),
    ]
    for position, rank in enumerate(RANKS):
        if rank in (1, 10, 100, 1000) and position < len(other.by_rank):
            name = f"videos with the entity of rank {rank:,}"
            rows.append((name, one.by_rank[position], other.by_rank[position], LABELS_FROM))
    for vertical in ("Arts & Entertainment", "Games", "Travel", "Finance"):
        place = VERTICALS.index(vertical)
        rows.append((f"videos of {vertical}", one.verticals[place], other.verticals[place], LABELS_FROM))
    rows += [
        ("label pairs that share a vertical", one.same_vertical, other.same_vertical, LABELS_FROM),
        ("lift of pairs within a vertical", one.lift_within, other.lift_within, LABELS_FROM),
        ("lift of pairs across verticals", one.lift_across, other.lift_across, LABELS_FROM),
    ]
    for name, frames in real.frames.items():
        made = synthetic.frames[name]
        rows += [
            (f"{name}: norm of the mean frame", frames.mean_norm, made.mean_norm, MEANS_FROM),
            (f"{name}: std between videos, dimension 1", frames.between[0], made.between[0], MEANS_FROM),
            (f"{name}: the same, last octave of dimensions", frames.between[-1], made.between[-1], MEANS_FROM),
            (f"{name}: norm of a frame", frames.one_frame_norm, made.one_frame_norm, FRAMES_FROM),
            (f"{name}: std within a video", frames.one_within, made.one_within, FRAMES_FROM),
            (f"{name}: entries at the clip bounds", frames.one_clipped, made.one_clipped, FRAMES_FROM),
        ]
        for lag in SHOWN_LAGS:
            at = LAGS.index(lag)
            values = frames.one_autocorrelation[at], made.one_autocorrelation[at]
            rows.append((f"{name}: autocorrelation at lag {lag}", *values, FRAMES_FROM))
    return pd.DataFrame(rows, columns=["statistic", "real", "synthetic", "source"])


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
    frames: UInt8[np.ndarray, "frames dim"],
    present: Bool[np.ndarray, "labels frames"],
    prototypes: Float[np.ndarray, "labels dim"],
    names: Sequence[str],
) -> Figure:
    """Where one synthetic video shows its labels: resemblance of each frame to each label's direction."""
    x = frames - frames.mean(axis=0)  # (frames, dim)
    cosine = (
        x @ prototypes.T / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(prototypes, axis=1)
    )  # (frames, labels)
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
    one, other = real.labels, synthetic.labels
    _bars(panels["pairs"], {"same vertical": (100 * one.same_vertical, 100 * other.same_vertical)}, "%.0f")
    panels["pairs"].set(title="Pairs of labels of one video", ylabel="pairs (%)")
    lifts = {"same vertical": (one.lift_within, other.lift_within), "across": (one.lift_across, other.lift_across)}
    _bars(panels["lifts"], lifts, "%.2f")
    panels["lifts"].set(title="Lift of such pairs", ylabel="times as many as by chance")


def _frame_panels(panels: dict[str, Axes], real: dict[str, FrameStatistics], made: dict[str, FrameStatistics]) -> None:
    for panel, key, title, unit, scale, shown in (
        ("norms", "one_frame_norm", "Norm of a frame", "dequantised units", 1, "%.1f"),
        ("means", "mean_norm", "Norm of a video's mean frame", "dequantised units", 1, "%.1f"),
        ("within", "one_within", "Std within a video", "dequantised units", 1, "%.2f"),
        ("clipped", "one_clipped", "Entries at the clip bounds", "entries (%)", 100, "%.1f"),
    ):
        pairs = {name: (scale * getattr(real[name], key), scale * getattr(made[name], key)) for name in real}
        _bars(panels[panel], pairs, shown)
        panels[panel].set(title=title, ylabel=unit)
    for name in real:
        for kind, side in (("real", real[name]), ("synthetic", made[name])):
            centres = [2 ** (octave + 0.5) - 0.5 for octave in range(len(side.between))]
            panels[f"between {name}"].plot(centres, side.between, **STYLES[kind])
            panels[f"memory {name}"].plot(LAGS, side.one_autocorrelation, **STYLES[kind])
        panels[f"between {name}"].set(title=f"Std between videos, {name}", xlabel="dimension (octaves)", xscale="log")
        panels[f"between {name}"].set(ylabel="std (dequantised units)", ylim=(0, 1))
        panels[f"memory {name}"].set(title=f"Autocorrelation over time, {name}", xlabel="lag (frames at 1 a second)")
        panels[f"memory {name}"].set(ylabel="correlation", ylim=(-0.1, 0.6))


def _bars(axes: Axes, pairs: dict[str, tuple[float, float]], shown: str) -> None:
    """Real beside synthetic for each name, with the figures on the bars; hatching tells them apart in grey."""
    places = np.arange(len(pairs))
    for shift, kind, hatch in ((-0.2, "real", ""), (0.2, "synthetic", "///")):
        values = [pair[kind == "synthetic"] for pair in pairs.values()]
        face = STYLES[kind]["color"] if kind == "real" else "white"
        bars = axes.bar(places + shift, values, 0.36, color=face, edgecolor=STYLES[kind]["color"], hatch=hatch)
        axes.bar_label(bars, fmt=shown)
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
