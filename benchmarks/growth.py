"""How cost grows, in time and memory: A-ART's step with frames, batch and classes, a store's index with its videos."""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns

from artpaper.models import FrameTransformer
from artpaper.settings import Model
from benchmarks.full_size import make_index
from benchmarks.measure import apart, peak_bytes, take_turns
from benchmarks.training_step import LOSSES, MODALITIES, peak, step, videos
from pipeline.base.groups import Data, Synthetic
from pipeline.base.parameters import Params
from pipeline.data.store import FrameStore
from pipeline.prepare.prepare import prepare
from pipeline.train.device import best_device

SIZES = {
    "frames": (30, 100, 300, 1_000),
    "batch": (1, 4, 16, 64),
    "classes": (100, 317, 1_000, 10_000),
    "videos": (10_000, 100_000, 1_000_000, 10_000_000),
}
BASE = {"batch": 2, "time": 60, "classes": 317}  # of a step, but for what grows
COSTS = {"seconds": "seconds", "megabytes": "MB at most"}
Point = dict[str, float | str]


def growth(rounds: int = 3) -> list[Point]:
    """Seconds, medians over ``rounds`` in turns, and megabytes on top of what was held before, at every size.

    Of videos only the index is there: to open it, to tell its fingerprint, and to shuffle it for the first batch.
    """
    points: list[Point] = []
    for axis, sizes in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            if axis == "videos":
                splits = apart(_splits, Path(folder), sizes)
                calls = {str(size): _read(split) for size, split in zip(sizes, splits, strict=True)}
                held = [apart(_index_peak, split) for split in splits]
            else:
                shapes = [BASE | {"time" if axis == "frames" else axis: size} for size in sizes]
                calls = {str(size): _step(**shape) for size, shape in zip(sizes, shapes, strict=True)}
                held = [apart(peak, True, *shape.values()) for shape in shapes]
            times = take_turns(calls, rounds)
        points += [
            {
                "axis": axis,
                "size": size,
                "seconds": round(times.median(str(size)), 4),
                "megabytes": round(most / 1e6, 1),
            }
            for size, most in zip(sizes, held, strict=True)
        ]
    return points


def _step(batch: int, time: int, classes: int) -> Callable[[], None]:
    model = FrameTransformer(Model(), MODALITIES, classes).to(best_device()).train()
    return step(model, LOSSES["a_art"], videos(batch, time, classes))


def _splits(folder: Path, sizes: tuple[int, ...]) -> list[Path]:
    few = Synthetic(train_videos=64, validate_videos=16, min_frames=5, max_frames=10)
    prepare(Params(data=Data(source="synthetic"), synthetic=few), folder, progress=False)
    return [make_index(folder / "frames", size) for size in sizes]


def _read(split: Path) -> Callable[[], object]:
    def call() -> object:
        store = FrameStore(split)
        return store.fingerprint, next(store.batches(64, max_frames=300, seed=0))

    return call


def _index_peak(split: Path) -> int:
    return peak_bytes(_read(split))


def draw(points: list[dict[str, Any]], path: Path) -> None:
    """Time above memory, a panel an axis, all logarithmic, beside what would grow as the size does.

    Args:
        points: as :func:`growth` returns them.
        path: of the picture.
    """
    with sns.axes_style("whitegrid"):
        figure, rows = plt.subplots(2, len(SIZES), figsize=(3.5 * len(SIZES), 6.2), layout="constrained", sharex="col")
    for (cost, label), panels in zip(COSTS.items(), rows, strict=True):
        for axis, panel in zip(SIZES, panels, strict=True):
            own = [point for point in points if point["axis"] == axis]
            sizes, values = ([point[key] for point in own] for key in ("size", cost))
            as_size = [values[-1] * size / sizes[-1] for size in sizes]
            panel.loglog(sizes, as_size, "--", color="0.6", lw=1, label="in proportion")
            panel.loglog(sizes, values, marker="o", color="0.15")
            for size, value in zip(sizes, values, strict=True):
                panel.annotate(f"{value:,.0f}" if value >= 100 else f"{value:.2g}", (size, value), (0, 8),
                               textcoords="offset points", ha="right", fontsize=8,
                               bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})  # fmt: skip
            middle = math.sqrt(min(values) * max(values))  # at least a decade, or noise would look like growth
            panel.set_ylim(min(0.5 * min(values), middle / 4), max(2.5 * max(values), 4 * middle))
            powers = [
                math.log(values[at] / values[at - 1]) / math.log(sizes[at] / sizes[at - 1])
                for at in (1, len(sizes) - 1)
            ]
            panel.set_title("power {:.2f} at first, {:.2f} at last".format(*powers), fontsize=9)
            panel.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=8)
            panel.minorticks_off()
            panel.margins(x=0.15)
            if cost == "megabytes":
                panel.set_xlabel("videos in the index" if axis == "videos" else f"{axis}, A-ART's step")
        panels[0].set_ylabel(label)
    rows[0, 0].legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
