"""GAP at the size of the paper's test set, beside the reference implementation."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from artpaper.metrics import gap
from benchmarks.measure import Line, take_turns
from benchmarks.straightforward import global_average_precision

VIDEOS, CLASSES, TOP, ROWS = 1_048_356, 317, 20, 1_654


def metric_rate(videos: int = VIDEOS, rounds: int = 5) -> list[Line]:
    """The line about GAP, and what its two first parts would reach alone.

    Args:
        videos: of the test set.
        rounds: how often each is timed.
    """
    scores, labels = make_input(videos, CLASSES)
    values: dict[str, float] = {}

    def ours() -> None:
        values["gap_ours"] = gap(scores, labels)

    def reference() -> None:
        values["gap_reference"] = global_average_precision(scores, labels)

    def in_pieces(call: Callable[[np.ndarray, np.ndarray], object]) -> None:
        pieces = [slice(start, start + ROWS) for start in range(0, videos, ROWS)]
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            list(threads.map(lambda piece: call(scores[piece], labels[piece]), pieces))

    calls = {
        "ours": ours,
        "partition": lambda: in_pieces(lambda scores, _: np.partition(scores, CLASSES - TOP, axis=1)),
        "one read": lambda: in_pieces(lambda scores, labels: (scores.max(), labels.any())),
        "reference": reference,
    }
    times = take_turns(calls, rounds, warm_up=False)
    details = times.details() | values | {"videos": videos, "classes": CLASSES}
    ratio, partition, read = (times.ratio("reference", name) for name in ("ours", "partition", "one read"))
    bound = f"NumPy's partition into the {TOP} best and the rest, alone, {partition:.0f} x; one read, {read:.0f} x"
    return [Line("GAP, videos a second", ratio, 50, True, "x", "the reference, a video at a time", details, bound)]


def make_input(videos: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores float32 (videos, classes) and labels bool (videos, classes), filled in place to leave no peak behind."""
    random = np.random.default_rng(0)
    scores = np.empty((videos, classes), dtype=np.float32)
    labels = np.empty((videos, classes), dtype=bool)
    for start in range(0, videos, 4096):
        part = slice(start, min(start + 4096, videos))
        size = (part.stop - start, classes)
        labels[part] = random.random(size, dtype=np.float32) < 3 / classes
        logits = random.standard_normal(size, dtype=np.float32) - 4 + 5 * labels[part]
        scores[part] = 1 / (1 + np.exp(-logits))
    return scores, labels
