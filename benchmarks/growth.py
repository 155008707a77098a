"""How cost grows: A-ART's step with frames, batch and classes, GAP with the number of videos."""

import math
from collections.abc import Callable

from artpaper.metrics import gap
from artpaper.models import FrameTransformer
from artpaper.settings import Model
from benchmarks.measure import take_turns
from benchmarks.metrics_scale import make_input
from benchmarks.training_step import LOSSES, MODALITIES, step, videos
from pipeline.train.device import best_device

SIZES = {
    "frames": (30, 75, 150, 300),
    "batch": (4, 8, 16, 32),
    "classes": (100, 317, 1000, 3862),
    "videos": (1_000, 5_000, 20_000, 50_000),
}
Point = dict[str, float | str]


def growth(rounds: int = 5) -> list[Point]:
    """Seconds at every size: of A-ART's step, and of GAP over ``videos``; the others stay at 60 frames, 8 videos, 317.

    Args:
        rounds: how often each is timed.
    Returns:
        Rows of ``axis``, ``size``, ``median_s``, and of each axis ``power``: cost grows as size to that, between the
        last two sizes.
    """
    points: list[Point] = []
    for axis, sizes in SIZES.items():
        calls = {str(size): _gap(size) if axis == "videos" else _step(**{axis: size}) for size in sizes}
        times = take_turns(calls, rounds)
        medians = [times.median(str(size)) for size in sizes]
        power = math.log(medians[-1] / medians[-2]) / math.log(sizes[-1] / sizes[-2])
        points += [
            {"axis": axis, "size": size, "median_s": round(median, 5), "power": round(power, 2)}
            for size, median in zip(sizes, medians, strict=True)
        ]
    return points


def _step(frames: int = 60, batch: int = 8, classes: int = 317) -> Callable[[], None]:
    model = FrameTransformer(Model(), MODALITIES, classes).to(best_device()).train()
    return step(model, LOSSES["a_art"], videos(batch, frames, classes))


def _gap(count: int) -> Callable[[], None]:
    scores, labels = make_input(count, 317)
    return lambda: gap(scores, labels) and None
