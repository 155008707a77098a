"""The stress test in two figures: who keeps what, and how it goes with the attack's strength."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anyascii import anyascii
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox, BboxBase

from pipeline.base.errors import DataError
from pipeline.paper.paper import MODELS
from pipeline.paper.style import DATA, HALO, ModelStyle, legible, model_styles, panels, wrapped
from pipeline.stress.attacks.files import MAKER
from pipeline.stress.verdict.predictions import attack_name, counts_text, left_out_note, model_name

STRENGTH = ("clean", "random", "one_step", "pgd", "ensemble")  # from none to all
CONTROL = "#555555"
MAIN = (*MODELS, "uniform_art")  # drawn as lines, and the most robust of the others
SWEPT = {"epsilon": "epsilon (unit of the normalised features), evenly spaced", "steps": "steps of PGD, evenly spaced"}
CONTROL_STYLE = ModelStyle(CONTROL, "s", (0, (1, 1)), "")
OFFSETS = [(reach * np.cos(angle), reach * np.sin(angle)) for reach in (9, 16, 26, 38, 54) for angle in
           np.deg2rad([0, 180, 90, 270, 35, 145, 325, 215])]  # fmt: skip  # points from a marker, the nearest first


def stress_figure(table: pd.DataFrame) -> Figure:
    """Left: clean GAP against GAP under the ensemble; right: GAP from no attack to the ensemble.

    The front of the controls, whose name begins with "uniform", is what attention that nothing can move reaches: a
    model above it or to its right gains something by its attention, one in the shaded region does not.
    """
    gap = table[table["metric"] == "gap"].set_index(["model", "attack"])
    models = list(dict.fromkeys(table["model"]))
    both = [model for model in models if {(model, "clean"), (model, "ensemble")} <= set(gap.index)]
    if not both:
        raise DataError(f"stress test: no model has both clean and ensemble predictions; make them with {MAKER}")
    controls = [model for model in both if model.startswith("uniform")]
    styles = _styles(both)
    points = {model: (gap.loc[(model, "clean"), "mean"], gap.loc[(model, "ensemble"), "mean"]) for model in both}
    figure, (left, right) = panels(1, 2, (12.6, 6), width_ratios=(1.15, 1))
    shown = table[table["attack"].isin(("clean", "ensemble"))]  # sweeps have fewer seeds
    figure.suptitle(_title("Which models are robust, and to what?", shown), fontsize=11)
    best = sorted((m for m in both if m not in MAIN), key=lambda m: -gap.loc[(m, "ensemble"), "mean"])
    _lines(right, gap, [model for model in (*MAIN, *best[:1]) if model in models])
    _trade(left, gap, points, styles, controls)
    labels = _labels(left, points, styles, controls)
    legible(figure).draw_without_rendering()  # names are placed in a settled layout, as they will be read
    _place(left, labels, points)
    return figure


def sweep_figure(epsilon: pd.DataFrame, steps: pd.DataFrame) -> Figure:
    """GAP and loss under PGD, along epsilon and along its steps; one of the two sweeps may be empty."""
    sweeps = [(name, table) for name, table in (("epsilon", epsilon), ("steps", steps)) if len(table)]
    if not sweeps:
        raise DataError(f"stress test: no sweep over epsilon or steps; make one with {MAKER}")
    figure, grid = panels(2, len(sweeps), (5.9 * len(sweeps), 7.4), squeeze=False, sharex="col")
    figure.suptitle(_title("PGD along epsilon and along its steps:", sweeps[0][1]), fontsize=11)
    for column, (name, table) in zip(grid.T, sweeps, strict=True):
        models = _swept(table)
        styles = _styles(models)
        for axes, (metric, label) in zip(column, (("gap", "GAP (%)"), ("loss", "loss (nats)")), strict=True):
            rows = table[table["metric"] == metric]
            values = sorted(rows["value"].unique())
            ends = {}
            for model in models:
                own = rows[rows["model"] == model].sort_values("value")
                at = np.searchsorted(values, own["value"]).astype(float)  # values about double: evenly spaced
                _line(axes, at, own, styles[model])
                ends[model] = (float(at[-1]), float(own["mean"].iloc[-1]))
            axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
            axes.set_ylabel(label)
            if metric == "gap":
                axes.set_ylim(0, None)
            _label_ends(axes, ends, styles)
        column[-1].set_xlabel(SWEPT[name])
    return figure


def _trade(
    axes: Axes, gap: pd.DataFrame, points: dict[str, tuple[float, float]], styles: dict[str, ModelStyle],
    controls: list[str],
) -> None:  # fmt: skip
    for model, (x, y) in points.items():
        rows = gap.loc[[(model, "clean"), (model, "ensemble")]]
        reach = rows[["low", "high"]].sub(rows["mean"], axis=0).abs().to_numpy()[:, :, None]
        ours, control = model in MODELS, model in controls
        color = styles[model].color if ours else CONTROL
        axes.errorbar(x, y, xerr=reach[0], yerr=reach[1], color=color, alpha=0.55 if ours else 0.35, linewidth=1.4)
        axes.plot(
            x, y, styles[model].marker if ours else "s" if control else "o", color=color, zorder=4,
            markerfacecolor=color if ours else "black" if control else "white", markersize=11 if ours else 7,
        )  # fmt: skip
    axes.set(xlabel="GAP, clean (%)", ylabel="GAP under the ensemble of attacks (%)")
    axes.margins(0.1)
    _front(axes, [points[model] for model in controls])
    axes.set_title("better is up and to the right; bars: 95 % over seeds and videos", fontsize=9)


def _front(axes: Axes, points: list[tuple[float, float]]) -> None:
    """The staircase of the best uniform controls; what lies below it is no better than one of them in both."""
    if not points:
        return
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    down = np.array(sorted(points, reverse=True))  # from the best clean GAP down
    steps = down[np.diff(np.maximum.accumulate(down[:, 1]), prepend=-np.inf) > 0]
    corner_x, corner_y = [*np.repeat(steps[:, 0], 2), x0], [y0, *np.repeat(steps[:, 1], 2)]
    axes.fill(
        [*corner_x, x0], [*corner_y, y0], color="#dddddd", alpha=0.45, zorder=0, linewidth=0,
        label="no better than uniform attention",
    )  # fmt: skip
    axes.plot(
        corner_x, corner_y, color=CONTROL, linestyle=(0, (1, 1)), linewidth=1.8, label="front of uniform attention"
    )
    axes.set(xlim=(x0, x1), ylim=(y0, y1))
    axes.legend(loc="lower right", fontsize=8, frameon=True)


def _labels(
    axes: Axes, points: dict[str, tuple[float, float]], styles: dict[str, ModelStyle], controls: list[str]
) -> dict[str, Annotation]:
    """A name on each point, the most important first."""
    labels = {}
    for model in sorted(points, key=lambda name: (name not in MODELS, name not in controls, -points[name][1])):
        ours = model in MODELS
        labels[model] = axes.annotate(
            model_name(model), points[model], (0, 0), textcoords="offset points", va="center", zorder=6,
            color=styles[model].color if ours else "black", fontsize=10 if ours else 8.5,
            fontweight="bold" if ours else "normal", path_effects=HALO,
        )  # fmt: skip
        labels[model].set_in_layout(False)
    return labels


def _place(axes: Axes, labels: dict[str, Annotation], points: dict[str, tuple[float, float]]) -> None:
    """Put each name beside its point where it hides no point and no other name; a thin line leads where it is far."""
    at = {model: axes.transData.transform(point) for model, point in points.items()}
    taken: list[BboxBase] = [Bbox.from_bounds(x - 7, y - 7, 14, 14) for x, y in at.values()]
    solid = len(taken)  # a leader may cross a bar, but no point
    for bars in axes.collections:  # error bars, which a name should not lie on either
        for segment in getattr(bars, "get_segments", list)():
            taken.append(Bbox(axes.transData.transform(segment)).padded(1))
    legend, inside = axes.get_legend(), axes.get_window_extent()
    taken += [legend.get_window_extent()] if legend else []
    for model, label in labels.items():
        costs = []
        for offset in OFFSETS:
            box = _moved(label, offset)
            outside = box.width * box.height - _overlap(box, inside)
            leader = at[model] + np.linspace(0.4, 0.9, 8)[:, None] * (np.array(offset) * axes.figure.dpi / 72)
            crossed = sum(other.contains(*place) for other in taken[:solid] for place in leader)
            costs.append(sum(_overlap(box, other) for other in taken) + 4 * outside + 40 * crossed)
        offset = OFFSETS[int(np.argmin(costs))]
        taken.append(_moved(label, offset).padded(1))
        if np.hypot(*offset) > 12:
            line = {"arrowstyle": "-", "color": CONTROL, "linewidth": 0.6}
            axes.annotate("", points[model], offset, textcoords="offset points", arrowprops=line).set_in_layout(False)


def _moved(label: Annotation, offset: tuple[float, float]) -> Bbox:
    """Put a label at an offset from its point (points), on the side that it lies to; where it is then, in pixels."""
    label.set_position(offset)
    label.set_horizontalalignment("left" if offset[0] > 1 else "right" if offset[0] < -1 else "center")
    return Bbox(label.get_window_extent().get_points())


def _overlap(box: BboxBase, other: BboxBase) -> float:
    common = Bbox.intersection(box, other)
    return 0.0 if common is None else common.width * common.height


def _lines(axes: Axes, gap: pd.DataFrame, models: list[str]) -> None:
    attacks = [attack for attack in STRENGTH if any((model, attack) in gap.index for model in models)]
    styles = _styles(models)
    ends = {}
    for model in models:
        there = [place for place, attack in enumerate(attacks) if (model, attack) in gap.index]
        own = gap.loc[[(model, attacks[place]) for place in there]]
        _line(axes, np.array(there, float), own, styles[model])
        ends[model] = (float(there[-1]), float(own["mean"].iloc[-1]))
    axes.set_xticks(range(len(attacks)), [attack_name(attack) for attack in attacks])
    axes.set(xlabel="attack, from none to the worst of all", ylabel="GAP (%)", ylim=(0, None))
    axes.set_title("what the strength of the attack takes; bands: 95 %", fontsize=9)
    _label_ends(axes, ends, styles)


def _line(axes: Axes, at: np.ndarray, rows: pd.DataFrame, style: ModelStyle) -> None:
    axes.fill_between(at, rows["low"], rows["high"], color=style.color, alpha=0.08, linewidth=0)
    axes.plot(at, rows["mean"], marker=style.marker, markersize=6, **style.line)


def _label_ends(axes: Axes, ends: dict[str, tuple[float, float]], styles: dict[str, ModelStyle]) -> None:
    """Names beside the ends of the lines, pushed apart until none covers another."""
    low, high = axes.get_ylim()
    right = max(x for x, _ in ends.values())
    first, _ = axes.get_xlim()
    inches = 0.2 + 0.065 * max(len(anyascii(model_name(model))) for model in ends)
    share = min(0.6, inches / (axes.bbox.width / axes.figure.dpi))  # of the axes, for the names
    axes.set_xlim(first, right + share / (1 - share) * (right - first))
    apart = 0.045 * (high - low)
    names = sorted(ends, key=lambda model: ends[model][1])
    places = [ends[model][1] for model in names]
    for _ in range(200):
        for lower in range(len(places) - 1):
            short = apart - (places[lower + 1] - places[lower])
            if short > 1e-9:
                places[lower] -= short / 2
                places[lower + 1] += short / 2
    lift = max(0.0, low + apart / 2 - places[0])
    for model, place in zip(names, places, strict=True):
        axes.annotate(
            model_name(model), ends[model], (right + 0.05 * (right - first), place + lift), va="center", fontsize=9,
            color=styles[model].color, fontweight="bold" if model in MODELS else "normal",
            path_effects=HALO,
            arrowprops={"arrowstyle": "-", "color": styles[model].color, "linewidth": 0.6, "relpos": (0, 0.5)},
        ).set_in_layout(False)  # fmt: skip


def _swept(table: pd.DataFrame) -> list[str]:
    models = list(dict.fromkeys(table["model"]))
    return [model for model in MAIN if model in models] + [model for model in models if model not in MAIN][:2]


def _styles(models: Sequence[str]) -> dict[str, ModelStyle]:
    """The paper's models as everywhere; the uniform control in grey."""
    return model_styles(models) | ({"uniform_art": CONTROL_STYLE} if "uniform_art" in models else {})


def _title(text: str, table: pd.DataFrame) -> str:
    alone = "; with one seed bars are about the videos only" if table["seeds"].min() == 1 else ""
    what = f"{text} {DATA[str(table['source'].iloc[0])]}, {counts_text(table)}{alone}"
    return wrapped([". ".join([what, *left_out_note(table)])], 110)
