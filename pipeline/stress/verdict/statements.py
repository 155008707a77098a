"""Is A-ART robust? Statements that a stress test decides, each with its rule; the words come from the numbers.

A statement holds, does not hold, or cannot be told. Which of them is said depends on the numbers in the stress test's
tables and on group ``verdict`` of the parameters (:class:`pipeline.base.groups.Rules`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from pipeline.base.groups import Rules
from pipeline.paper import paper
from pipeline.paper.evidence import NotMeasured
from pipeline.paper.rules import FAILS, HOLDS, Judgement
from pipeline.stress.verdict.evidence import Effect, StressEvidence
from pipeline.stress.verdict.predictions import attack_name, model_name

UNTOLD = "cannot be told"
REFERENCE = "uniform_art"  # attention that no perturbation can move, trained with ART's term
UNIFORM = (REFERENCE, "uniform_wide")  # what a defence must beat, each of them
Verdict = Judgement[tuple[Effect, ...]]
Judge = Callable[[StressEvidence, Rules], Verdict]


@dataclass(frozen=True)
class Statement:
    """A sentence that numbers can decide, the rule in words, and the function that applies it."""

    text: str
    rule: str
    judge: Judge


def verdicts(evidence: StressEvidence, rules: Rules) -> list[Verdict]:
    """What the tables say about each of :data:`STATEMENTS`, in order."""
    return [verdict_on(statement, evidence, rules) for statement in STATEMENTS]


def verdict_on(statement: Statement, evidence: StressEvidence, rules: Rules) -> Verdict:
    """What the tables say about a statement; what was not measured cannot be told."""
    try:
        return statement.judge(evidence, rules)
    except NotMeasured as error:
        return Judgement((), UNTOLD, f"not measured: {error}")


def above(effect: Effect, rules: Rules, margin: float | None = None) -> str:
    """Is a difference, in the direction of the statement, above 0, by more than chance and by enough to matter?

    "does not hold" if the whole interval lies below the margin (that of the rules, in points of GAP, or another in the
    effect's unit); "holds" if not, and the difference is positive, at least the margin, with p at most alpha; "cannot
    be told" otherwise, and with one training seed.
    """
    margin = rules.margin if margin is None else margin
    if np.isnan(effect.p):
        return UNTOLD
    if effect.high < margin:
        return FAILS
    return HOLDS if effect.value > 0 and effect.value >= margin and effect.p <= rules.alpha else UNTOLD


def no_worse(effect: Effect, rules: Rules) -> str:
    """Is a difference of GAP, in the direction of the statement, no lower than minus the margin?

    "holds" if the whole interval lies above minus the margin; "does not hold" if not, and the difference is negative
    with p at most alpha; "cannot be told" otherwise, and with one training seed.
    """
    if np.isnan(effect.p):
        return UNTOLD
    if effect.low > -rules.margin:
        return HOLDS
    return FAILS if effect.value < 0 and effect.p <= rules.alpha else UNTOLD


def all_of(parts: list[str]) -> str:
    """The verdict on a statement all of whose parts must hold."""
    return FAILS if FAILS in parts else UNTOLD if UNTOLD in parts else HOLDS


def any_of(parts: list[str]) -> str:
    """The verdict on a statement one of whose parts must hold."""
    return HOLDS if HOLDS in parts else UNTOLD if UNTOLD in parts else FAILS


def compared(*pair: str, rule: Callable[[Effect, Rules], str], opposite: bool = False) -> Judge:
    """Decided by one of the declared comparisons, or by its ``opposite``; ``pair`` names it."""

    def judge(evidence: StressEvidence, rules: Rules) -> Verdict:
        effect = evidence.difference(*pair)
        return Judgement((effect,), rule(effect.opposite if opposite else effect, rules), str(effect))

    return judge


def more_robust(model: str, over: str, attack: str) -> Statement:
    """One model keeps more GAP than another under an attack; the declared comparisons must have the three."""
    under = {"one_step": "the paper's own one-step attack"}.get(attack, f"the {attack_name(attack)} of attacks")
    return Statement(
        f"{model_name(model)} is more robust than {model_name(over)} under {under}", "above the margin, in GAP",
        compared(model, attack, over, rule=above),
    )  # fmt: skip


def masked(evidence: StressEvidence, rules: Rules) -> Verdict:
    """An attack without A-ART's gradients raises its loss more than one with them."""
    effects, missing = [], []
    for attack in ("square", "transfer"):
        try:
            effects.append(evidence.difference("a_art", attack, "a_art", "pgd", "loss"))
        except NotMeasured as error:
            missing.append(f"not measured: {error}")
    parts = [above(effect, rules, margin=0.0) for effect in effects] + [UNTOLD] * len(missing)
    return Judgement(tuple(effects), any_of(parts), "; ".join([*map(str, effects), *missing]))


def adversarial_term(evidence: StressEvidence, rules: Rules) -> Verdict:
    """ART's term makes models robust with and without attention, and A-ART's attention adds nothing to it."""
    with_attention = evidence.difference("art", "ensemble", "non_art")
    without = evidence.difference(REFERENCE, "ensemble", "uniform")
    attention = evidence.difference("a_art", "ensemble", REFERENCE)
    parts = [above(with_attention, rules), above(without, rules), no_worse(attention.opposite, rules)]
    effects = (with_attention, without, attention)
    return Judgement(effects, all_of(parts), "; ".join(map(str, effects)))


def approaches_uniform(evidence: StressEvidence, rules: Rules) -> Verdict:
    """With a large beta clean attention is close to uniform, for every seed."""
    (strong, by_seed), (art, reference) = evidence.flatness("a_art_strong"), evidence.flatness("art")
    shares = by_seed / reference.mean()
    reason = f"its distance to uniform is {shares.min():.3f} to {shares.max():.3f} of ART's over {len(shares)} seeds"
    flat = shares <= rules.flat
    decided = HOLDS if flat.all() else FAILS if not flat.any() else UNTOLD
    return Judgement((strong, art), decided if len(shares) > 1 else UNTOLD, reason)


def beats_uniform(evidence: StressEvidence, rules: Rules) -> Verdict:
    """Some model that keeps its attention beats every uniform control under the ensemble at no lower clean GAP."""
    _, reference = evidence.flatness("art")
    far = evidence.training.groupby("model")["attention_uniform_rms"].mean() >= rules.kept * reference.mean()
    contests: list[tuple[str, list[tuple[Effect, Effect]]]] = []  # a verdict, and over each control: attacked, clean
    missing: set[str] = set()
    for model in far[far].index:
        duels, untried = [], set()
        for control in UNIFORM:
            try:
                attacked, clean = (
                    evidence.difference(model, attack, control, family="defences") for attack in ("ensemble", "clean")
                )
            except NotMeasured:
                untried.add(control)
                continue
            duels.append((attacked, clean))
        if duels:
            missing |= untried
            parts = [part for attacked, clean in duels for part in (above(attacked, rules), no_worse(clean, rules))]
            contests.append((all_of(parts + [UNTOLD] * len(untried)), duels))
    if not contests:
        raise NotMeasured(f"no model that keeps its attention beside {' or '.join(UNIFORM)}")
    held = [duels for verdict, duels in contests if verdict == HOLDS]
    reasons = ["; ".join(f"{attacked}, {clean}" for attacked, clean in duels) for duels in held]
    if not reasons:
        # of each model the control that it does worst against, and of these the best
        value = attrgetter("value")
        nearest = max((min((attacked for attacked, _ in duels), key=value) for _, duels in contests), key=value)
        reasons = [f"of {len(contests)} models that keep their attention none surely does; the nearest: {nearest}"]
    reasons += [f"not measured: {control}" for control in sorted(missing)]
    effects = tuple(effect for _, duels in contests for duel in duels for effect in duel)
    return Judgement(effects, any_of([verdict for verdict, _ in contests]), "; ".join(reasons))


def keeps_its_score(evidence: StressEvidence, rules: Rules) -> Verdict:
    """The share of its clean GAP that A-ART loses under the ensemble is about what it loses in the paper."""
    clean = evidence.gap("a_art", "clean")
    difference = evidence.difference("a_art", "ensemble", "a_art", "clean")
    fall = difference.opposite
    printed = [paper.row(1, "GAP", split).a_art for split in paper.SPLITS]
    theirs = 1 - printed[1] / printed[0]
    lost = fall.value / clean.value
    least, most = fall.low / clean.high, fall.high / clean.low  # the clean score is not exact either
    allowed = rules.lost * theirs
    decided = HOLDS if most <= allowed else FAILS if least > allowed else UNTOLD
    reason = (
        f"it loses {100 * lost:.1f} % [{100 * least:.1f}, {100 * most:.1f}] of its clean GAP, {100 * theirs:.1f} % "
        f"in the paper; the same share of the paper's clean {printed[0]:.2f} would leave {printed[0] * (1 - lost):.1f}"
    )
    reason += f", not {printed[1]:.2f}" if decided == FAILS else ""
    return Judgement((clean, difference), UNTOLD if fall.seeds == 1 else decided, reason)


STATEMENTS = (
    more_robust("a_art", "art", "one_step"),
    more_robust("a_art", "art", "ensemble"),
    Statement(
        "The one-step attack overstates A-ART's robustness", "GAP falls by more than the margin to the ensemble",
        compared("a_art", "ensemble", "a_art", "one_step", rule=above, opposite=True),
    ),
    Statement(
        "A-ART's gradients are masked: Square or transfer harms it more than PGD does", "the mean loss is higher",
        masked,
    ),
    Statement(
        "Uniform attention with ART's term is at least as robust as A-ART", "no lower by the margin under the ensemble",
        compared("a_art", "ensemble", REFERENCE, rule=no_worse, opposite=True),
    ),
    Statement(
        "What robustness there is comes from the adversarial term, not from attention",
        "under the ensemble ART's term adds more than the margin with softmax and with uniform attention, and uniform "
        "attention with it is no lower than A-ART by the margin", adversarial_term,
    ),
    more_robust("a_art_strong", "random_att", "ensemble"),
    Statement(
        "A large beta approaches uniform attention", "distance to uniform at most `flat` of ART's for every seed",
        approaches_uniform,
    ),
    Statement(
        "A defence that keeps its attention beats uniform attention with ART's term, at no lower clean GAP",
        "distance to uniform at least `kept` of ART's; against each uniform control, at ART's radius and at four times "
        "it, under the ensemble above the margin, and clean no lower "
        "by the margin", beats_uniform,
    ),
    Statement(
        "A-ART keeps its clean score under the ensemble as the paper's does under one step (91.04 of 92.00)",
        "it loses at most `lost` times the share that it loses in the paper", keeps_its_score,
    ),
)  # fmt: skip
