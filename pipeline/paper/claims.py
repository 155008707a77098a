"""Every claim of the paper, in order, each with the rule that judges it by a run's numbers."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.paper import attention_rules, rules
from pipeline.paper.evidence import Evidence, NotMeasured
from pipeline.paper.rules import DIRECTION, HOLDS, OPEN, ClaimJudgement, Judgement, Rule


@dataclass(frozen=True)
class Claim:
    """One claim of the paper."""

    place: str  # where the paper makes it: section, table or figure
    text: str  # the claim in our words
    paper: str  # the paper's number
    stage: str  # of the pipeline, which makes the numbers
    rule: Rule  # that judges it
    kind: Literal["headline", "supporting", "incidental"] = "supporting"  # whether the paper stands or falls with it


def judgements(evidence: Evidence) -> list[ClaimJudgement]:
    """What a run says about each of :data:`CLAIMS`, in order."""
    return [_judgement(claim, evidence) for claim in CLAIMS]


def _judgement(claim: Claim, evidence: Evidence) -> ClaimJudgement:
    try:
        judgement = claim.rule.judge(evidence)
    except NotMeasured as error:
        return Judgement({}, OPEN, f"not measured in this run: {str(error).partition(': ')[2]}")
    missing = [name for name, number in judgement.numbers.items() if np.isnan(number.value)]
    if missing:
        return Judgement(judgement.numbers, OPEN, f"no value for {', '.join(missing)}")
    files = {number.file for number in judgement.numbers.values()}
    if judgement.verdict == HOLDS and min(map(evidence.seeds, files)) == 1:  # another may give half of it, or twice
        return Judgement(judgement.numbers, DIRECTION, f"{judgement.reason}; of one training seed")
    return judgement


CLAIMS = (
    Claim("abstract, 3.2.1", "A Transformer trained plainly (Non-ART) loses much to the one-step attack",
          "GAP 91.97 → 72.89", "tables", rules.loses("non_art")),
    Claim("abstract, 1", "Adversarial training in the output space alone (ART) improves the worst case",
          "GAP 72.89 → 81.97 (+9.08)", "tables", rules.beyond(1, "adversarial", "non_art", ("art",), ("GAP",)),
          kind="headline"),
    Claim("abstract, 1", "A-ART's score on its adversarial examples is close to its clean score",
          "GAP 92.00 → 91.04", "tables", rules.keeps("a_art"), kind="headline"),
    Claim("1, 4", "A-ART gains 18 points of adversarial GAP over Non-ART",
          "GAP 72.89 → 91.04 (+18.15)", "tables", rules.beyond(1, "adversarial", "non_art", ("a_art",), ("GAP",)),
          kind="headline"),
    Claim("1, 3.2.1", "A-ART consistently beats ART under attack, by 9.1 points of GAP",
          "GAP +9.07, PERR +8.23, Hit@1 +5.77", "tables", rules.beyond(1, "adversarial", "art", ("a_art",)),
          kind="headline"),
    Claim("1, Table 2", "The same on Arts & Entertainment: A-ART beats Non-ART under attack",
          "GAP +13.66, PERR +9.85, Hit@1 +6.57", "tables", rules.beyond(2, "adversarial", "non_art", ("a_art",))),
    Claim("1, Table 3", "The same on Finance: A-ART beats Non-ART under attack",
          "GAP +16.98, PERR +10.73, Hit@1 +16.35", "tables", rules.beyond(3, "adversarial", "non_art", ("a_art",))),
    Claim("2.2, Figure 1", "ART's attention maps still change significantly under attack",
          "MSE 4e-5, a picture", "attention", attention_rules.maps_still_change),
    Claim("3.2", "The validation set chooses beta = 0.001",
          "beta 0.001", "hyperparameters", rules.beta, kind="incidental"),
    Claim("3.2.1", "Adversarial regularisation (ART) improves clean performance",
          "GAP 91.97 → 92.38 (+0.41)", "tables", rules.beyond(1, "test", "non_art", ("art",), ("GAP",))),
    Claim("3.2.1", "A-ART performs on clean videos much as ART does",
          "GAP 92.38 and 92.00", "tables", rules.similar),
    Claim("3.2.2, Figure 2",
          "The largest attention that any frame receives is an order of magnitude lower in A-ART",
          "a picture", "attention", attention_rules.flatter, kind="incidental"),
    Claim("3.2.2", "A-ART reduces the MSE between clean and adversarial attention maps drastically",
          "MSE 4e-5 → 3e-8", "attention", attention_rules.mse_falls),
    Claim("3.2.2", "So A-ART has learnt attention that is not fooled (and not just: maps alike for all videos)",
          "MSE 4e-5 → 3e-8", "attention", attention_rules.robust_or_alike, kind="headline"),
    Claim("3.2.3, Figure 3", "Validation GAP of ART over epsilon rises above Non-ART's, peaks, then falls",
          "peak at epsilon 0.5", "hyperparameters", rules.peaks("art", "epsilon"), kind="incidental"),
    Claim("3.2.3, Figure 3", "The same over alpha",
          "peak at alpha 1", "hyperparameters", rules.peaks("art", "alpha"), kind="incidental"),
    Claim("3.2.4", "Fooling A-ART (DeepFool) takes a larger perturbation than fooling ART",
          "a bar chart", "robustness", rules.rho("art", "a_art")),
    Claim("Figure 4", "Fooling A-ART takes a larger perturbation than fooling Non-ART",
          "a bar chart", "robustness", rules.rho("non_art", "a_art")),
    Claim("Figure 4, its bars", "Fooling ART takes a larger perturbation than fooling Non-ART",
          "a bar chart", "robustness", rules.rho("non_art", "art"), kind="incidental"),
    Claim("4", "ART and A-ART perform better than Non-ART on the clean test set",
          "GAP +0.41 and +0.03", "tables", rules.beyond(1, "test", "non_art", ("art", "a_art"), ("GAP",)),
          kind="incidental"),
)  # fmt: skip
