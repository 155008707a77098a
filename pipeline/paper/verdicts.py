"""Verdicts by rule: what a run's numbers say about a claim of the paper."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.paper import paper
from pipeline.paper.evidence import Evidence, Number
from pipeline.paper.paper import METRICS
from pipeline.paper.render import FEW_VIDEOS

HOLDS, DIRECTION, FAILS, OPEN = "holds", "holds in direction", "does not hold", "cannot be tested here"
WORST_FIRST = (FAILS, OPEN, DIRECTION, HOLDS)


@dataclass(frozen=True)
class Finding:
    """What a run says about a claim: its numbers by name, a verdict, and why."""

    numbers: dict[str, Number]
    verdict: str
    reason: str


@dataclass(frozen=True)
class Check:
    """A rule in words, and the function that applies it to a run."""

    rule: str
    judge: Callable[[Evidence], Finding]


def judge(difference: float, error: float, expected: float) -> str:
    """A difference that the paper reports as positive.

    Args:
        difference: ours, in the paper's direction, any unit.
        error: its standard error, same unit; NaN makes it untestable.
        expected: the paper's, same unit; NaN asks for the direction alone.
    Returns:
        "holds" or "holds in direction" (less than half of what is expected) if it exceeds twice its error; else "cannot
        be tested here" if what is expected is no further away than that, and "does not hold" if it is.
    """
    if np.isnan(difference) or np.isnan(error):
        return OPEN
    if difference > 2 * error:
        return HOLDS if np.isnan(expected) or difference >= expected / 2 else DIRECTION
    return OPEN if difference + 2 * error >= expected else FAILS


def worst(verdicts: list[str]) -> str:
    """The verdict on a claim of several parts."""
    return min(verdicts, key=WORST_FIRST.index)


def beyond(table: int, split: str, low: str, highs: tuple[str, ...], metrics: tuple[str, ...] = METRICS) -> Check:
    """Each of the models ``highs`` scores above model ``low``, on each metric.

    Args:
        table: 1, 2 or 3.
        split: "test" or "adversarial".
        low, highs: names in group ``models``.
        metrics: which metrics count; the worst verdict stands.
    """

    def check(evidence: Evidence) -> Finding:
        numbers: dict[str, Number] = {}
        verdicts, told = [], []
        for metric in metrics:
            numbers[f"{metric} {paper.MODELS[low]}"] = evidence.score(table, metric, split, low)
            for high in highs:
                printed = paper.row(table, metric, split)
                gain = evidence.gain(table, metric, split, high, low)
                verdicts.append(judge(gain.value, gain.error, getattr(printed, high) - getattr(printed, low)))
                numbers[f"{metric} {paper.MODELS[high]}"] = evidence.score(table, metric, split, high)
                numbers[f"{metric} {paper.MODELS[high]} over {paper.MODELS[low]}"] = gain
                told.append(f"{metric} {gain.value:+.2f} ± {gain.error:.2f}")
        verdict, reason = worst(verdicts), ", ".join(told)
        group = evidence.group(table)
        if table in paper.GROUPS and group != paper.GROUPS[table]:
            verdict = DIRECTION if verdict == HOLDS else verdict
            reason = f"on {group}, which takes the vertical's place, at most in direction: {reason}"
        if evidence.videos(table) < FEW_VIDEOS:
            verdict, reason = OPEN, f"only {evidence.videos(table)} test videos; {reason}"
        return Finding(numbers, verdict, reason)

    return Check("the difference between the models, as said above", check)


def loses(model: str) -> Check:
    """The attack takes at least half as many points of GAP as the paper reports."""

    def check(evidence: Evidence) -> Finding:
        clean, attacked = (evidence.score(1, "GAP", split, model) for split in paper.SPLITS)
        printed = [getattr(paper.row(1, "GAP", split), model) for split in paper.SPLITS]
        fall, error = clean.value - attacked.value, float(np.hypot(clean.error, attacked.error))
        verdict = judge(fall, error, printed[0] - printed[1])
        reason = f"GAP falls by {fall:.2f} ± {error:.2f}, {100 * fall / clean.value:.1f} % of it"
        return Finding({"GAP clean": clean, "GAP attacked": attacked}, verdict, reason)

    return Check("the fall from clean to attacked, as said above", check)


def keeps(model: str) -> Check:
    """The attack takes little of GAP."""

    def check(evidence: Evidence) -> Finding:
        numbers = {
            f"GAP {paper.MODELS[name]} {paper.SPLITS[split].lower()}": evidence.score(1, "GAP", split, name)
            for name in (model, "non_art")
            for split in paper.SPLITS
        }
        clean, attacked, plain_clean, plain_attacked = (number.value for number in numbers.values())
        lost, plain = 1 - attacked / clean, 1 - plain_attacked / plain_clean
        printed = [getattr(paper.row(1, "GAP", split), model) for split in paper.SPLITS]
        theirs = 1 - printed[1] / printed[0]
        verdict = HOLDS if lost <= 2 * theirs else DIRECTION if lost <= plain / 2 else FAILS
        reason = f"the attack takes {100 * lost:.1f} % of its GAP, {100 * plain:.1f} % of Non-ART's"
        return Finding(numbers, verdict, f"{reason} (the paper: {100 * theirs:.1f} %)")

    return Check(
        "holds if the share of GAP lost is at most twice the paper's, in direction if at most half of Non-ART's", check
    )


def similar(evidence: Evidence) -> Finding:
    """A-ART and ART differ on clean videos by no more than twice what they do in the paper."""
    numbers = {f"GAP {paper.MODELS[model]}": evidence.score(1, "GAP", "test", model) for model in ("art", "a_art")}
    gain = evidence.gain(1, "GAP", "test", "a_art", "art")
    row = paper.row(1, "GAP", "test")
    verdict = HOLDS if abs(gain.value) <= 2 * abs(row.a_art - row.art) else FAILS
    return Finding({**numbers, "A-ART over ART": gain}, verdict, f"GAP {gain.value:+.2f} ± {gain.error:.2f}")


def maps_still_change(evidence: Evidence) -> Finding:
    """ART's maps change under attack by a sizeable part of what the maps of two unrelated videos differ by."""
    numbers = {
        f"{paper.MODELS[model]} {name}": evidence.attention(model, name)
        for model in ("non_art", "art")
        for name in ("mse", "unrelated_mse")
    }
    share = numbers["ART mse"].value / numbers["ART unrelated_mse"].value
    plain = numbers["Non-ART mse"].value / numbers["Non-ART unrelated_mse"].value
    reason = f"the change is {share:.3g} of the difference between unrelated videos (Non-ART: {plain:.3g})"
    return Finding(numbers, HOLDS if share >= 0.1 else DIRECTION if share >= 0.01 else FAILS, reason)


def mse_falls(evidence: Evidence) -> Finding:
    """A-ART's MSE is far below ART's, for every seed."""
    numbers = {f"{paper.MODELS[model]} mse": evidence.attention(model, "mse") for model in ("art", "a_art")}
    factors = evidence.attention_by_seed("art", "mse") / evidence.attention_by_seed("a_art", "mse")
    theirs = paper.ATTENTION_MSE["art"] / paper.ATTENTION_MSE["a_art"]
    verdict = HOLDS if factors.min() >= theirs**0.5 else DIRECTION if factors.min() > 1 else FAILS
    span = f"{factors.min():.2f}" + (f" to {factors.max():.2f} over seeds" if len(factors) > 1 else "")
    return Finding(numbers, verdict, f"ART's is {span} times A-ART's (the paper: {theirs:.0f})")


def robust_or_flat(evidence: Evidence) -> Finding:
    """If the maps change less because they became robust, the change falls more than the distance to uniform does."""
    numbers = {
        f"{paper.MODELS[model]} {name}": evidence.attention(model, name)
        for model in ("art", "a_art")
        for name in ("mse", "uniform_mse")
    }
    change, distance = (
        numbers[f"A-ART {name}"].value / numbers[f"ART {name}"].value for name in ("mse", "uniform_mse")
    )
    verdict = FAILS if change >= 0.95 or distance <= 2 * change else HOLDS if change <= 0.1 else DIRECTION
    reason = f"from ART to A-ART the change is multiplied by {change:.3g}, the distance to uniform by {distance:.3g}"
    return Finding(numbers, verdict, reason)


def flatter(evidence: Evidence) -> Finding:
    """The largest attention that a frame receives is lower for every seed."""
    numbers = {f"{paper.MODELS[m]} profile_max": evidence.attention(m, "profile_max") for m in ("art", "a_art")}
    art, a_art = (evidence.attention_by_seed(model, "profile_max") for model in ("art", "a_art"))
    factor = float((art / a_art).min())
    verdict = HOLDS if factor >= 10**0.5 else DIRECTION if factor > 1 else FAILS
    above = f"above the uniform 1/T, {float(((art - 1) / (a_art - 1)).min()):.2f} times"
    return Finding(numbers, verdict, f"ART's largest is {factor:.2f} times A-ART's; {above}")


def peak(model: str, key: str) -> Check:
    """A curve of Figure 3 rises above Non-ART, peaks inside its grid, and falls again."""

    def check(evidence: Evidence) -> Finding:
        grid = evidence.grid(model, key)
        points = [evidence.point(model, key, value) for value in grid]
        reference = evidence.point("non_art", "reference", None)
        best = int(np.argmax([point.value for point in points]))
        others = {"Non-ART": reference, f"{key} {grid[0]:g}": points[0], f"{key} {grid[-1]:g}": points[-1]}
        numbers = {**others, f"best, {key} {grid[best]:g}": points[best]}
        if len(grid) < 3:
            return Finding(numbers, OPEN, f"only {len(grid)} points")
        held = [
            judge(points[best].value - other.value, float(np.hypot(points[best].error, other.error)), float("nan"))
            for other in others.values()
        ].count(HOLDS)
        above = ", ".join(f"{points[best].value - other.value:+.2f} over {name}" for name, other in others.items())
        reason = f"highest at {key} {grid[best]:g} ({above})"
        if evidence.shortened():
            return Finding(numbers, OPEN, f"trainings of {evidence.shortened()} steps are too short to tell: {reason}")
        return Finding(numbers, HOLDS if held == 3 else DIRECTION if held == 2 else FAILS, reason)

    return Check(
        "holds if the highest point exceeds Non-ART, the first and the last point of the grid beyond twice the error, "
        "in direction if two of the three; the highest was chosen by these numbers, which favours the claim",
        check,
    )


def beta(evidence: Evidence) -> Finding:
    """The clean validation GAP alone would choose the paper's beta among those tried."""
    grid = evidence.grid("a_art", "beta")
    points = [evidence.point("a_art", "beta", value) for value in grid]
    attacked = [evidence.point("a_art", "beta", value, "one_step") for value in grid]
    best, strongest = (int(np.argmax([point.value for point in line])) for line in (points, attacked))
    numbers = {f"beta {value:g}": point for value, point in zip(grid, points, strict=True)}
    numbers |= {f"attacked, beta {value:g}": point for value, point in zip(grid, attacked, strict=True)}
    reason = f"clean GAP is highest at beta {grid[best]:g}, attacked GAP at {grid[strongest]:g}"
    if 0.001 not in grid or len(grid) < 2:
        return Finding(numbers, OPEN, "beta 0.001 was not tried beside others")
    if evidence.shortened():
        return Finding(numbers, OPEN, f"trainings of {evidence.shortened()} steps are too short to tell: {reason}")
    at = points[grid.index(0.001)]
    behind, error = points[best].value - at.value, float(np.hypot(points[best].error, at.error))
    verdict = HOLDS if points[best] is at else DIRECTION if behind <= 2 * error else FAILS
    return Finding(numbers, verdict, f"{reason}; 0.001 is {behind:.2f} ± {error:.2f} behind on clean videos")


def rho(low: str, high: str) -> Check:
    """Fooling ``high`` takes more than fooling ``low``; the paper shows bars without numbers."""

    def check(evidence: Evidence) -> Finding:
        numbers: dict[str, Number] = {}
        told, lows = [], {}
        for criterion in ("top1_change", "hit1_loss"):
            for model in (low, high):
                numbers[f"{criterion} {paper.MODELS[model]}"] = evidence.rho(model, criterion)
            difference, lowest, largest = evidence.rho_difference(low, high, criterion)
            numbers |= {f"{criterion} more": difference, f"{criterion} at least": lowest}
            numbers[f"{criterion} at most"] = largest
            chance = 2 * difference.error if difference.error > 0 else 0.0
            lows[criterion] = min(lowest.value, difference.value - chance)
            interval = f"95 % interval over videos {100 * lowest.value:+.3f} to {100 * largest.value:+.3f}"
            interval += f", ± {100 * difference.error:.3f} over seeds" if difference.error > 0 else ""
            told.append(f"{criterion} {100 * difference.value:+.3f} % of the norm more ({interval})")
        both = lows["hit1_loss"] > 0
        verdict = FAILS if lows["top1_change"] <= 0 else HOLDS if both else DIRECTION
        return Finding(numbers, verdict, "; ".join(told))

    return Check(
        "holds if the paired difference lies above 0 with its bootstrap interval over videos, and by twice its "
        "standard error over training seeds if there are several, for the paper's top1_change and for hit1_loss; in "
        "direction if for the first alone",
        check,
    )
