"""Figures 1 and 2: the attention maps and attention profiles of one test video and of its adversary."""

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.base.errors import DataError
from pipeline.base.sources import SOURCES
from pipeline.paper.attention import attention_files
from pipeline.paper.style import ADVERSARIAL, DATA, model_title, panels, plain, wrapped
from pipeline.predict.one_video import Example, Seen


def choose_video(predictions: Mapping[str, Sequence[str | Path]], named: str | None = None) -> tuple[str, str]:
    """The id of the test video that Figures 1 and 2 show, the one that is ``named`` or one by rule; and how, in words.

    The rule: of the videos with the most frames on which the attack fools Non-ART's first seed, the one whose maps
    change by the median amount under the attack on ART (``mse``, averaged over modalities, then over seeds); of an even
    number of videos the lower of the middle two, equal ones in the order of their ids. A typical video on which there
    is something to see, whatever it looks like; the figure says so. Where none of the longest is fooled, all of them
    are asked; without a model the first one takes its place.
    """
    opened = attention_files(predictions)
    first = next(iter(opened))
    art, non_art = (name if name in opened else first for name in ("art", "non_art"))
    files = opened[art]
    ids = files[0].ids.to_pylist()
    if named is not None:
        if named not in set(ids):
            close = difflib.get_close_matches(named, ids, n=3, cutoff=0)
            raise DataError(f"figures.video: no test video {named!r}; the nearest ids are {', '.join(close)}")
        return named, "named in the parameters"
    frames = files[0].column("frames").to_numpy()
    change = np.mean([file.change() for file in files], axis=0)  # (videos,)
    rows = np.flatnonzero(frames == frames.max())
    fooled = rows[opened[non_art][0].column("fooled").to_numpy()[rows]]
    asked = sorted((float(change[row]), ids[row]) for row in (fooled if len(fooled) else rows))
    which = f" on which {model_title(non_art)} is fooled" if len(fooled) else ""
    how = f"of the longest test videos{which} the one with the median change of {model_title(art)}'s maps"
    return asked[(len(asked) - 1) // 2][1], f"chosen by rule: {how}"


def attention_maps_figure(shown: Example) -> Figure:
    """Figure 1: a row per model; per modality the clean map, the adversarial one and their difference.

    Within a modality all maps share one colour scale, of the square root, so that flat maps are no dark slabs beside
    peaked ones; and all differences another one around 0. Over the first modality's maps stand the top classes.
    """
    modalities = shown.modalities
    rows, size = len(shown.models), (6.6 * len(modalities), 2.1 * len(shown.models) + 1.9)
    figure, grid = panels(rows, 3 * len(modalities), size, "white", squeeze=False, sharex=True, sharey=True)
    for place, modality in enumerate(modalities):
        columns = grid[:, 3 * place : 3 * place + 3]
        pairs = [(seen.clean[modality], seen.adversarial[modality]) for seen in shown.models.values()]
        most = max(float(attention.max()) for pair in pairs for attention in pair)
        widest = max(float(np.abs(after - before).max()) for before, after in pairs) or 1.0  # no change at all
        for row, (seen, (before, after)) in enumerate(zip(shown.models.values(), pairs, strict=True)):
            for axes, attention in zip(columns[row], (before, after), strict=False):
                weights = axes.imshow(attention, cmap="viridis", norm=PowerNorm(0.5, 0, most), interpolation="nearest")
            changes = columns[row, 2].imshow(
                after - before, cmap="PuOr_r", vmin=-widest, vmax=widest, interpolation="nearest"
            )
            columns[row, 2].set_title(f"MSE {((after - before) ** 2).mean():.1e}", fontsize=9)
            for axes, top in zip(columns[row], _tops(seen, 22) if not place else (), strict=False):
                axes.set_title(f"top: {top}", fontsize=9)
        for axes, kind in zip(columns[0], ("clean", "adversarial", "difference"), strict=True):
            axes.set_title(f"{modality}, {kind}" + (f"\n{axes.get_title()}" if axes.get_title() else ""), fontsize=9)
        for axes in columns[-1]:
            axes.set_xlabel(f"attended frame{SOURCES[shown.source].frame_unit}", fontsize=9)
        bars: dict[str, Any] = {"location": "bottom", "shrink": 0.8, "pad": 0.02}
        label = "attention weight (colours: square root)"
        figure.colorbar(weights, ax=columns[:, :2], aspect=40, label=label, ticks=MaxNLocator(4), **bars)
        power = math.floor(math.log10(widest))
        power = power if power < -2 else 0
        label = rf"difference ($10^{{{power}}}$ weight)" if power else "difference (weight)"
        change = figure.colorbar(changes, ax=columns[:, 2], aspect=20, label=label, **bars)
        change.locator = MaxNLocator(4, symmetric=True)
        change.formatter = FuncFormatter(lambda value, _, unit=10.0**power: f"{value / unit:.3g}")
    for axes, model in zip(grid[:, 0], shown.models, strict=True):
        axes.set_ylabel(f"{model_title(model)}\nattending frame{SOURCES[shown.source].frame_unit}", fontsize=9)
    for axes in grid.flat:
        _seconds(axes)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.suptitle(_head("Attention maps", shown, figure), fontsize=10)
    figure.supxlabel(_note(shown, figure), fontsize=8)
    return figure


def attention_profiles_figure(shown: Example) -> Figure:
    """Figure 2: a row per modality, a column per model; attention received by each frame, clean and under attack."""
    table = shown.profiles
    rows, columns = len(shown.modalities), len(shown.models)
    figure, grid = panels(rows, columns, (3.7 * columns, 2.1 * rows + 1.4), squeeze=False, sharex=True, sharey="row")
    for (model, modality), profile in table.groupby(["model", "modality"], sort=False):
        axes = grid[shown.modalities.index(str(modality)), list(shown.models).index(str(model))]
        uniform = 1 / len(profile)
        axes.axhline(uniform, color="0.35", linestyle=":", linewidth=1.8, label="uniform, 1/T")
        axes.plot(profile["frame"], profile["clean"], color="black", linewidth=2.2, label="clean")
        axes.plot(profile["frame"], profile["adversarial"], "--", color=ADVERSARIAL, linewidth=1.6, label="adversarial")
        most = profile[["clean", "adversarial"]].max() / uniform
        peaks = f"{modality}, most: {most['clean']:.2f}/T clean, {most['adversarial']:.2f}/T adversarial"
        tops = " → ".join(_tops(shown.models[str(model)], 17))
        above = f"{model_title(model)}: {tops}\n" if axes in grid[0] else ""
        axes.set_title(above + peaks, fontsize=9)
        _seconds(axes)
    for axes in grid[:, 0]:
        axes.set_ylabel("attention received\n(weight)")
        axes.set_ylim(0, None)
    for axes in grid[-1]:
        axes.set_xlabel(f"frame{SOURCES[shown.source].frame_unit}")
    handles, names = grid[0, 0].get_legend_handles_labels()
    note = {"title": _note(shown, figure), "title_fontsize": 8}
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, **note)
    figure.suptitle(_head("Attention profiles", shown, figure), fontsize=10)
    return figure


def _seconds(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))  # frames come at one a second
    axes.tick_params(labelsize=8)


def _head(what: str, shown: Example, figure: Figure) -> str:
    """Two lines: which video it is, and its true classes, as far as there is room."""
    room = _room(figure)
    video, labels = _cut(shown.video, room - 50), _cut(", ".join(shown.labels) or "none", room - 14)
    return f"{what} of test video {plain(video)} ({DATA[shown.source]})\ntrue classes: {plain(labels)}"


def _note(shown: Example, figure: Figure) -> str:
    """What stands small below: how the video was attacked and chosen."""
    note = (
        f"Clean and under the one-step attack, $\\epsilon$ = {shown.epsilon:g}, training seed {shown.seed}; above the "
        f"maps and profiles the top class, ✗: no true one. The video was {shown.how}."
    )
    return wrapped([note], int(1.2 * _room(figure)))


def _room(figure: Figure) -> int:
    """How many characters a line of the head has."""
    return int(12 * figure.get_figwidth())


def _tops(seen: Seen, width: int) -> tuple[str, str]:
    """The top class before and after the attack, marked where it is wrong."""
    both = ((seen.top, seen.right), (seen.attacked_top, seen.attacked_right))
    before, after = (plain(_cut(name, width)) + ("" if right else " ✗") for name, right in both)
    return before, after


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
