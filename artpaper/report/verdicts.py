"""Verdicts by rule: what a run's numbers say about a claim of the paper."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from artpaper.report import paper
from artpaper.report.evidence import Evidence, Number
from artpaper.report.paper import METRICS
from artpaper.report.render import FEW_VIDEOS

HOLDS, DIRECTION, FAILS, OPEN = "holds", "holds in direction", "does not hold", "cannot be tested here"
WORST_FIRST = (FAILS, OPEN, DIRECTION, HOLDS)


@dataclass(frozen=True)
class Finding:
    """What a run says about a claim: its numbers by name, a verdict, and why."""

    numbers: dict[str, Number]
    verdict: str
    reason: str


Check = Callable[[Evidence], Finding]


def judge(difference: float, error: float, paper_difference: float) -> str:
    """A difference that the paper reports as positive.

    Args:
        difference: ours, in the paper's direction, any unit.
        error: its standard error, same unit; NaN makes it untestable.
        paper_difference: the paper's, same unit; holds needs at least half of it, NaN asks for the direction alone.
    Returns:
        "holds", "holds in direction" or "does not hold" (not beyond twice its standard error, or negative).
    """
    if np.isnan(difference) or np.isnan(error):
        return OPEN
    if difference <= 2 * error:
        return FAILS
    return HOLDS if np.isnan(paper_difference) or difference >= paper_difference / 2 else DIRECTION


def worst(verdicts: list[str]) -> str:
    """The verdict on a claim of several parts."""
    return min(verdicts, key=WORST_FIRST.index)


def beyond(table: int, split: str, low: str, high: str, metrics: tuple[str, ...] = METRICS) -> Check:
    """Model ``high`` scores above model ``low``."""

    def check(evidence: Evidence) -> Finding:
        numbers: dict[str, Number] = {}
        verdicts, told = [], []
        for metric in metrics:
            a, b = (evidence.score(table, metric, split, model) for model in (low, high))
            printed = paper.row(table, metric, split)
            verdicts.append(
                judge(b.value - a.value, np.hypot(a.error, b.error), getattr(printed, high) - getattr(printed, low))
            )
            numbers |= {f"{metric} {paper.MODELS[low]}": a, f"{metric} {paper.MODELS[high]}": b}
            told.append(f"{metric} {b.value - a.value:+.2f} ± {np.hypot(a.error, b.error):.2f}")
        verdict = worst(verdicts)
        reason = ", ".join(told)
        if evidence.videos(table) < FEW_VIDEOS:
            verdict, reason = OPEN, f"only {evidence.videos(table)} test videos; {reason}"
        return Finding(numbers, verdict, reason)

    return check


def falls(model: str, at_least: bool) -> Check:
    """How much of a model's GAP the one-step attack takes: at least (at most) what the paper reports."""

    def check(evidence: Evidence) -> Finding:
        clean, attacked = (evidence.score(1, "GAP", split, model) for split in paper.SPLITS)
        lost = 100 * (1 - attacked.value / clean.value)
        printed = [getattr(paper.row(1, "GAP", split), model) for split in paper.SPLITS]
        theirs = 100 * (1 - printed[1] / printed[0])
        numbers = {"GAP clean": clean, "GAP attacked": attacked}
        reason = f"the attack takes {lost:.1f} % of GAP (the paper: {theirs:.1f} %)"
        if at_least:
            return Finding(
                numbers,
                judge(clean.value - attacked.value, np.hypot(clean.error, attacked.error), (printed[0] - printed[1])),
                reason,
            )
        plain = [evidence.score(1, "GAP", split, "non_art").value for split in paper.SPLITS]
        lost_plain = 100 * (1 - plain[1] / plain[0])
        verdict = HOLDS if lost <= 2 * theirs else DIRECTION if lost <= lost_plain / 2 else FAILS
        return Finding(numbers, verdict, f"{reason}; of Non-ART's it takes {lost_plain:.1f} %")

    return check


def similar(evidence: Evidence) -> Finding:
    """A-ART and ART differ on clean videos by no more than twice what they do in the paper."""
    art, a_art = (evidence.score(1, "GAP", "test", model) for model in ("art", "a_art"))
    row = paper.row(1, "GAP", "test")
    difference, allowed = a_art.value - art.value, 2 * abs(row.a_art - row.art)
    verdict = HOLDS if abs(difference) <= allowed else FAILS
    return Finding(
        {"GAP ART": art, "GAP A-ART": a_art}, verdict, f"GAP {difference:+.2f}; similar: within ± {allowed:.2f}"
    )


def both_better_clean(evidence: Evidence) -> Finding:
    parts = [beyond(1, "test", "non_art", model, ("GAP",))(evidence) for model in ("art", "a_art")]
    verdict = worst([part.verdict for part in parts])
    numbers = {name: number for part in parts for name, number in part.numbers.items()}
    return Finding(numbers, verdict, "; ".join(part.reason for part in parts))


def maps_still_change(evidence: Evidence) -> Finding:
    """ART's maps change under attack by a sizeable part of what the maps of two unrelated videos differ by."""
    numbers = {
        f"{paper.MODELS[model]} {name}": evidence.attention(model, name)
        for model in ("non_art", "art")
        for name in ("mse", "unrelated_mse")
    }
    share = numbers["ART mse"].value / numbers["ART unrelated_mse"].value
    plain = numbers["Non-ART mse"].value / numbers["Non-ART unrelated_mse"].value
    reason = (
        f"the change is {share:.3g} of the difference between unrelated videos (Non-ART: {plain:.3g}); "
        "holds from 0.1, in direction from 0.01"
    )
    return Finding(numbers, HOLDS if share >= 0.1 else DIRECTION if share >= 0.01 else FAILS, reason)


def mse_falls(evidence: Evidence) -> Finding:
    """A-ART's MSE is far below ART's, for every seed; holds needs half of the paper's factor, in decades."""
    numbers = {f"{paper.MODELS[model]} mse": evidence.attention(model, "mse") for model in ("art", "a_art")}
    factors = evidence.attention_by_seed("art", "mse") / evidence.attention_by_seed("a_art", "mse")
    wanted = np.sqrt(paper.ATTENTION_MSE["art"] / paper.ATTENTION_MSE["a_art"])
    verdict = HOLDS if factors.min() >= wanted else DIRECTION if factors.min() > 1 else FAILS
    return Finding(
        numbers,
        verdict,
        f"lower by a factor of {factors.min():.2f} to {factors.max():.2f} over seeds (the paper: {wanted**2:.0f})",
    )


def robust_or_flat(evidence: Evidence) -> Finding:
    """If the maps changed less because they became robust, the change falls more than the distance to uniform does."""
    names = ("mse", "uniform_mse")
    numbers = {
        f"{paper.MODELS[model]} {name}": evidence.attention(model, name) for model in ("art", "a_art") for name in names
    }
    change, distance = (numbers[f"A-ART {name}"].value / numbers[f"ART {name}"].value for name in names)
    reason = (
        f"from ART to A-ART the change is multiplied by {change:.3g}, the distance to a uniform map by {distance:.3g}"
    )
    verdict = FAILS if change >= 0.95 or distance <= 2 * change else HOLDS if change <= 0.1 else DIRECTION
    return Finding(numbers, verdict, reason)


def flatter(evidence: Evidence) -> Finding:
    """The largest attention that a frame receives, above the uniform weight, is lower for every seed."""
    numbers = {
        f"{paper.MODELS[model]} profile_max": evidence.attention(model, "profile_max") for model in ("art", "a_art")
    }
    art, a_art = (evidence.attention_by_seed(model, "profile_max") - 1 for model in ("art", "a_art"))
    factors = art / a_art
    verdict = HOLDS if factors.min() >= 5 else DIRECTION if factors.min() > 1 else FAILS
    reason = (
        f"above uniform it is lower by a factor of {factors.min():.2f} to {factors.max():.2f} over seeds; holds from 5"
    )
    return Finding(numbers, verdict, reason)


def peak(model: str, key: str) -> Check:
    """A curve of Figure 3 rises above Non-ART, peaks inside its grid, and falls again."""

    def check(evidence: Evidence) -> Finding:
        grid = evidence.grid(model, key)
        points = [evidence.point(model, key, value) for value in grid]
        reference = evidence.point("non_art", "reference", None)
        best = int(np.argmax([point.value for point in points]))
        low, high = (
            judge(points[best].value - other.value, np.hypot(points[best].error, other.error), float("nan"))
            for other in (points[0], points[-1])
        )
        above = judge(points[best].value - reference.value, np.hypot(points[best].error, reference.error), float("nan"))
        numbers = {
            "Non-ART": reference,
            f"{key} {grid[0]:g}": points[0],
            f"best, {key} {grid[best]:g}": points[best],
            f"{key} {grid[-1]:g}": points[-1],
        }
        if len(grid) < 3:
            return Finding(numbers, OPEN, "fewer than three points")
        over = [points[best].value - other.value for other in (reference, points[0], points[-1])]
        held = [above, low if best > 0 else FAILS, high if best < len(grid) - 1 else FAILS].count(HOLDS)
        reason = (
            f"highest at {key} {grid[best]:g}; above Non-ART {over[0]:+.2f}, above the lowest {key} {over[1]:+.2f}, "
            f"above the largest {over[2]:+.2f}"
        )
        return Finding(numbers, HOLDS if held == 3 else DIRECTION if held == 2 else FAILS, reason)

    return check


def beta(evidence: Evidence) -> Finding:
    """The clean validation GAP alone would choose the paper's beta among those tried."""
    grid = evidence.grid("a_art", "beta")
    points = [evidence.point("a_art", "beta", value) for value in grid]
    best = int(np.argmax([point.value for point in points]))
    at = int(np.argmin(np.abs(np.array(grid) - 0.001)))
    attacked = [evidence.point("a_art", "beta", value, "one_step") for value in grid]
    strongest = int(np.argmax([point.value for point in attacked]))
    numbers = {f"beta {value:g}": point for value, point in zip(grid, points, strict=True)}
    numbers |= {f"attacked, beta {value:g}": point for value, point in zip(grid, attacked, strict=True)}
    behind = points[best].value - points[at].value
    verdict = (
        HOLDS if best == at else DIRECTION if behind <= 2 * np.hypot(points[best].error, points[at].error) else FAILS
    )
    return Finding(
        numbers, verdict, f"clean GAP is highest at beta {grid[best]:g}, attacked GAP at beta {grid[strongest]:g}"
    )


def rho(low: str, high: str, criterion: str) -> Check:
    """Fooling ``high`` takes more than fooling ``low``; the paper shows bars without numbers."""

    def check(evidence: Evidence) -> Finding:
        a, b, interval = (
            evidence.rho(low, criterion),
            evidence.rho(high, criterion),
            evidence.rho_difference(low, high, criterion),
        )
        numbers = {paper.MODELS[low]: a, paper.MODELS[high]: b}
        verdict = HOLDS if interval[0] > 0 else FAILS
        reason = (
            f"{criterion}: rho {100 * (b.value - a.value):+.3f} points, "
            f"95 % interval {100 * interval[0]:+.3f} to {100 * interval[1]:+.3f}"
        )
        return Finding(numbers, verdict, reason)

    return check
