"""The rules that judge the paper's claims by a run's numbers: what each asks, and what it makes of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import numpy as np

from pipeline.paper import paper
from pipeline.paper.evidence import Evidence, Number
from pipeline.paper.paper import METRICS, MODELS, SPLITS
from pipeline.paper.render import FEW_VIDEOS

HOLDS, DIRECTION, FAILS, OPEN = "holds", "holds in direction", "does not hold", "cannot be tested here"
WORST_FIRST = (FAILS, OPEN, DIRECTION, HOLDS)
Numbers = TypeVar("Numbers")


@dataclass(frozen=True)
class Judgement(Generic[Numbers]):
    """What numbers say about a claim or a statement: these numbers, a verdict, and why."""

    numbers: Numbers
    verdict: str
    reason: str


ClaimJudgement = Judgement[dict[str, Number]]


@dataclass(frozen=True)
class Rule:
    """A rule in words, and the function that applies it to a run."""

    text: str
    judge: Callable[[Evidence], ClaimJudgement]


def rule(text: str) -> Callable[[Callable[[Evidence], ClaimJudgement]], Rule]:
    """Make the function that it decorates a rule, which says the same in words."""
    return partial(Rule, text)


def decide(difference: float, error: float, expected: float, times: float = 2.0) -> str:
    """The verdict on a difference, in the paper's direction, with its standard error, all of one unit.

    If it exceeds ``times`` its error: "holds", below half of what is expected "holds in direction", below a tenth "does
    not hold". Else "cannot be tested here" if what is expected is no further away than that, and "does not hold" if it
    is. An expected NaN asks for the direction alone; an error of NaN makes it untestable.
    """
    if np.isnan(difference) or np.isnan(error):
        return OPEN
    if difference > times * error:
        if np.isnan(expected) or difference >= expected / 2:
            return HOLDS
        return DIRECTION if difference >= expected / 10 else FAILS
    return OPEN if difference + times * error >= expected else FAILS


def beyond(table: int, split: str, low: str, highs: tuple[str, ...], metrics: tuple[str, ...] = METRICS) -> Rule:
    """Each of the models ``highs`` scores above model ``low``, on each metric; the worst verdict stands."""

    def judge(evidence: Evidence) -> ClaimJudgement:
        numbers: dict[str, Number] = {}
        verdicts, gains = [], []
        for metric in metrics:
            printed = paper.row(table, metric, split)
            scale = _scale(evidence, table, metric) if split == "adversarial" else 1.0
            numbers[f"{metric} {MODELS[low]}"] = evidence.score(table, metric, split, low)
            for high in highs:
                gain = evidence.gain(table, metric, split, high, low)
                expected = scale * (getattr(printed, high) - getattr(printed, low))
                verdicts.append(decide(gain.value, gain.error, expected, evidence.times()))
                numbers[f"{metric} {MODELS[high]}"] = evidence.score(table, metric, split, high)
                numbers[f"{metric} {MODELS[high]} over {MODELS[low]}"] = gain
                gains.append(f"{metric} {gain.value:+.2f} ± {gain.error:.2f}")
        verdict, reason = min(verdicts, key=WORST_FIRST.index), ", ".join(gains)
        group = evidence.group(table)
        if table in paper.GROUPS and group != paper.GROUPS[table]:
            verdict = DIRECTION if verdict == HOLDS else verdict
            reason = f"on {group}, which takes the vertical's place, at most in direction: {reason}"
        if evidence.videos(table) < FEW_VIDEOS:
            verdict, reason = OPEN, f"only {evidence.videos(table)} test videos; {reason}"
        return Judgement(numbers, verdict, reason)

    return Rule("the difference between the models, as said above", judge)


def _scale(evidence: Evidence, table: int, metric: str) -> float:
    """What the attack takes from Non-ART here over what it takes in the paper; NaN if it takes nothing.

    A defence can win back that much at most: where GAP is 38 and not 92, or the attack takes less, the paper's points
    cannot be asked for.
    """
    clean, attacked = (evidence.score(table, metric, split, "non_art").value for split in SPLITS)
    in_paper = paper.row(table, metric, "test").non_art - paper.row(table, metric, "adversarial").non_art
    return (clean - attacked) / in_paper if clean > attacked else np.nan


def loses(model: str) -> Rule:
    """The attack takes at least half of the share of GAP that it takes in the paper."""

    def judge(evidence: Evidence) -> ClaimJudgement:
        clean, attacked = (evidence.score(1, "GAP", split, model) for split in SPLITS)
        printed = [getattr(paper.row(1, "GAP", split), model) for split in SPLITS]
        fall, error = clean.value - attacked.value, float(np.hypot(clean.error, attacked.error))
        verdict = decide(fall, error, (1 - printed[1] / printed[0]) * clean.value, evidence.times())
        reason = f"GAP falls by {fall:.2f} ± {error:.2f}, {100 * fall / clean.value:.1f} % of it"
        return Judgement({"GAP clean": clean, "GAP attacked": attacked}, verdict, reason)

    return Rule("the fall from clean to attacked, as said above", judge)


def keeps(model: str) -> Rule:
    """The attack takes little of GAP."""

    def judge(evidence: Evidence) -> ClaimJudgement:
        numbers = {
            f"GAP {MODELS[name]} {SPLITS[split].lower()}": evidence.score(1, "GAP", split, name)
            for name in (model, "non_art")
            for split in SPLITS
        }
        clean, attacked, plain_clean, plain_attacked = (number.value for number in numbers.values())
        lost, plain = 1 - attacked / clean, 1 - plain_attacked / plain_clean
        printed = [getattr(paper.row(1, "GAP", split), model) for split in SPLITS]
        theirs = 1 - printed[1] / printed[0]
        verdict = HOLDS if lost <= 2 * theirs else DIRECTION if lost <= plain / 2 else FAILS
        reason = f"the attack takes {100 * lost:.1f} % of its GAP, {100 * plain:.1f} % of Non-ART's"
        return Judgement(numbers, verdict, f"{reason} (the paper: {100 * theirs:.1f} %)")

    return Rule(
        "holds if the share of GAP lost is at most twice the paper's, in direction if at most half of Non-ART's", judge
    )


@rule("holds if GAP differs by at most twice as much as in the paper (0.76 points)")
def similar(evidence: Evidence) -> ClaimJudgement:
    """A-ART and ART differ on clean videos by no more than twice what they do in the paper."""
    numbers = {f"GAP {MODELS[model]}": evidence.score(1, "GAP", "test", model) for model in ("art", "a_art")}
    gain = evidence.gain(1, "GAP", "test", "a_art", "art")
    row = paper.row(1, "GAP", "test")
    verdict = HOLDS if abs(gain.value) <= 2 * abs(row.a_art - row.art) else FAILS
    return Judgement({**numbers, "A-ART over ART": gain}, verdict, f"GAP {gain.value:+.2f} ± {gain.error:.2f}")


def peaks(model: str, key: str) -> Rule:
    """A curve of Figure 3 rises above Non-ART, peaks inside its grid, and falls again."""

    def judge(evidence: Evidence) -> ClaimJudgement:
        grid = evidence.grid(model, key)
        points = [evidence.point(model, key, value) for value in grid]
        reference = evidence.point("non_art", "reference", None)
        place = int(np.argmax([point.value for point in points]))
        best = points[place]
        others = {"Non-ART": reference, f"{key} {grid[0]:g}": points[0], f"{key} {grid[-1]:g}": points[-1]}
        numbers = {**others, f"best, {key} {grid[place]:g}": best}
        if len(grid) < 3:
            return Judgement(numbers, OPEN, f"only {len(grid)} points")
        held = [
            decide(best.value - other.value, float(np.hypot(best.error, other.error)), float("nan"))
            for other in others.values()
        ].count(HOLDS)
        above = ", ".join(f"{best.value - other.value:+.2f} over {name}" for name, other in others.items())
        reason = f"highest at {key} {grid[place]:g} ({above})"
        if evidence.shortened():
            return _too_short(numbers, evidence, reason)
        return Judgement(numbers, HOLDS if held == 3 else DIRECTION if held == 2 else FAILS, reason)

    return Rule(
        "holds if the highest point exceeds Non-ART, the first and the last point of the grid beyond twice the error, "
        "in direction if two of the three; the highest was chosen by these numbers, which favours the claim",
        judge,
    )


@rule(
    "holds if clean validation GAP is highest at 0.001 among the values tried and 0, ART at alpha 1; in direction if "
    "within twice the error of the highest"
)
def beta(evidence: Evidence) -> ClaimJudgement:
    """The clean validation GAP alone would choose the paper's beta among those tried, 0 being ART at alpha 1."""
    grid = evidence.grid("a_art", "beta")
    if 0.001 not in grid or len(grid) < 2:
        return Judgement({}, OPEN, "beta 0.001 was not tried beside others")
    clean, attacked = (
        [evidence.without_term(what), *(evidence.point("a_art", "beta", value, what) for value in grid)]
        for what in ("clean", "one_step")
    )
    grid = [0.0, *grid]
    best, strongest = (int(np.argmax([point.value for point in line])) for line in (clean, attacked))
    numbers = {f"beta {value:g}": point for value, point in zip(grid, clean, strict=True)}
    numbers |= {f"attacked, beta {value:g}": point for value, point in zip(grid, attacked, strict=True)}
    reason = f"clean GAP is highest at beta {grid[best]:g}, attacked GAP at {grid[strongest]:g}"
    if evidence.shortened():
        return _too_short(numbers, evidence, reason)
    at = clean[grid.index(0.001)]
    behind, error = clean[best].value - at.value, float(np.hypot(clean[best].error, at.error))
    verdict = HOLDS if clean[best] is at else DIRECTION if behind <= 2 * error else FAILS
    return Judgement(numbers, verdict, f"{reason}; 0.001 is {behind:.2f} ± {error:.2f} behind on clean videos")


def _too_short(numbers: dict[str, Number], evidence: Evidence, reason: str) -> ClaimJudgement:
    return Judgement(numbers, OPEN, f"trainings of {evidence.shortened()} steps are too short to tell: {reason}")


def rho(low: str, high: str) -> Rule:
    """Fooling ``high`` takes more than fooling ``low``; the paper shows bars without numbers."""

    def judge(evidence: Evidence) -> ClaimJudgement:
        numbers: dict[str, Number] = {}
        reasons, ends = [], {}
        for criterion in ("top1_change", "hit1_loss"):
            for model in (low, high):
                numbers[f"{criterion} {MODELS[model]}"] = evidence.rho(model, criterion)
            difference, lowest, largest = evidence.rho_difference(low, high, criterion)
            numbers |= {f"{criterion} more": difference, f"{criterion} at least": lowest}
            numbers[f"{criterion} at most"] = largest
            chance = evidence.times() * difference.error if difference.error > 0 else 0.0
            ends[criterion] = (
                min(lowest.value, difference.value - chance),
                max(largest.value, difference.value + chance),
            )
            interval = f"95 % interval over videos {100 * lowest.value:+.3f} to {100 * largest.value:+.3f}"
            interval += f", ± {100 * difference.error:.3f} over seeds" if difference.error > 0 else ""
            reasons.append(f"{criterion} {100 * difference.value:+.3f} % of the norm more ({interval})")
        low_end, high_end = ends["top1_change"]
        if low_end <= 0:
            return Judgement(numbers, FAILS if high_end <= 0 else OPEN, "; ".join(reasons))
        verdict = HOLDS if ends["hit1_loss"][0] > 0 else DIRECTION
        return Judgement(numbers, verdict, "; ".join(reasons))

    return Rule(
        "holds if the paired difference lies above 0 with its bootstrap interval over videos and, if there are "
        "several, with Student's over training seeds, for the paper's top1_change and for hit1_loss; in "
        "direction if for the first alone; does not hold if that of the first has no end above 0",
        judge,
    )
