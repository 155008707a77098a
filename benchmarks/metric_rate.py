"""GAP at the size of the paper's test set, beside the reference implementation."""

from artpaper.metrics import gap
from benchmarks.measure import Line, take_turns
from benchmarks.metrics_scale import make_input
from benchmarks.straightforward import global_average_precision

VIDEOS, CLASSES = 1_048_356, 317


def metric_rate(videos: int = VIDEOS, rounds: int = 5) -> list[Line]:
    """The line about GAP.

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

    times = take_turns({"ours": ours, "reference": reference}, rounds, warm_up=False)
    details = times.details() | values | {"videos": videos, "classes": CLASSES}
    ratio = times.ratio("reference", "ours")
    return [Line("GAP, videos a second", ratio, 50, True, "x", "the reference, a video at a time", details)]
