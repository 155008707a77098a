"""GAP at the size of the paper's test set, beside the reference implementation."""

from artpaper.metrics import gap
from benchmarks.measure import Line, take_turns
from benchmarks.metrics_scale import make_input
from benchmarks.straightforward import global_average_precision

VIDEOS, CLASSES = 1_048_356, 317
FEW = 32_768  # the reference sorts, so its rate only falls with their number


def metric_rate(videos: int = VIDEOS, few: int = FEW, rounds: int = 5) -> list[Line]:
    """The line about GAP.

    Args:
        videos: of the test set.
        few: how many of them the reference is given.
        rounds: how often each is timed.
    """
    scores, labels = make_input(videos, CLASSES)
    part = slice(0, few)
    values: dict[str, float] = {}

    def ours() -> None:
        values["all"] = gap(scores, labels)

    def reference() -> None:
        values["reference"] = global_average_precision(scores[part], labels[part])

    times = take_turns({"ours": ours, "reference": reference}, rounds)
    off = abs(values["reference"] - gap(scores[part], labels[part]))
    details = times.details() | {"videos": videos, "classes": CLASSES, "reference_videos": few, "difference": off}
    ratio = times.ratio("reference", "ours") * videos / few
    return [Line("GAP, videos a second", ratio, 50, True, "x", "the reference, a video at a time", details)]
