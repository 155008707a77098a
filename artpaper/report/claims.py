"""Every claim of the paper, in order, each with the rule that judges it by a run's numbers."""

from dataclasses import dataclass

from artpaper.report.verdicts import (
    Check,
    beta,
    beyond,
    both_better_clean,
    falls,
    flatter,
    maps_still_change,
    mse_falls,
    peak,
    rho,
    robust_or_flat,
    similar,
)


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        place: where the paper makes it.
        text: the claim in our words.
        paper: the paper's number.
        stage: the pipeline's stage that makes the numbers.
        check: reads the numbers of a run and judges them.
    """

    place: str
    text: str
    paper: str
    stage: str
    check: Check


CLAIMS = (
    Claim(
        "abstract, 3.2.1", "A Transformer trained plainly (Non-ART) loses much to the one-step attack",
        "GAP 91.97 → 72.89", "tables", falls("non_art", at_least=True),
    ),
    Claim(
        "abstract, 1", "Adversarial training in the output space alone (ART) improves the worst case",
        "GAP 72.89 → 81.97 (+9.08)", "tables", beyond(1, "adversarial", "non_art", "art", ("GAP",)),
    ),
    Claim(
        "abstract, 3.2.1", "A-ART's score on its adversarial examples is close to its clean score",
        "GAP 92.00 → 91.04", "tables", falls("a_art", at_least=False),
    ),
    Claim(
        "abstract, 1", "A-ART gains 18 points of adversarial GAP over Non-ART",
        "GAP 72.89 → 91.04 (+18.15)", "tables", beyond(1, "adversarial", "non_art", "a_art", ("GAP",)),
    ),
    Claim(
        "abstract, 3.2.1", "A-ART consistently beats ART under attack, by 9.1 points of GAP",
        "GAP +9.07, PERR +8.23, Hit@1 +5.77", "tables", beyond(1, "adversarial", "art", "a_art"),
    ),
    Claim(
        "1, 3.2.1, Table 2", "The same on Arts & Entertainment: A-ART beats Non-ART under attack",
        "GAP +13.66, PERR +9.85, Hit@1 +6.57", "tables", beyond(2, "adversarial", "non_art", "a_art"),
    ),
    Claim(
        "1, 3.2.1, Table 3", "The same on Finance: A-ART beats Non-ART under attack",
        "GAP +16.98, PERR +10.73, Hit@1 +16.35", "tables", beyond(3, "adversarial", "non_art", "a_art"),
    ),
    Claim(
        "2.2, Figure 1", "ART's attention maps still change significantly under attack",
        "MSE 4e-5, a picture", "attention", maps_still_change,
    ),
    Claim(
        "3.2.1", "Adversarial regularisation (ART) improves clean performance",
        "GAP 91.97 → 92.38 (+0.41)", "tables", beyond(1, "test", "non_art", "art", ("GAP",)),
    ),
    Claim(
        "3.2.1", "A-ART performs on clean videos much as ART does",
        "GAP 92.38 and 92.00", "tables", similar,
    ),
    Claim(
        "3.2.2, Figure 2", "A-ART's attention profile peaks an order of magnitude lower than ART's",
        "a picture", "attention", flatter,
    ),
    Claim(
        "3.2.2", "A-ART reduces the MSE between clean and adversarial attention maps drastically",
        "MSE 4e-5 → 3e-8", "attention", mse_falls,
    ),
    Claim(
        "3.2.2", "So A-ART has learnt attention that is not fooled (and not just: attention that is nearly uniform)",
        "MSE 4e-5 → 3e-8", "attention", robust_or_flat,
    ),
    Claim(
        "3.2.3, Figure 3", "Validation GAP over epsilon rises above Non-ART's, peaks at the chosen value, then falls",
        "peak at epsilon 0.5", "hyperparameters", peak("art", "epsilon"),
    ),
    Claim(
        "3.2.3, Figure 3", "The same over alpha",
        "peak at alpha 1", "hyperparameters", peak("art", "alpha"),
    ),
    Claim(
        "3.2", "The validation set chooses beta = 0.001",
        "beta 0.001", "hyperparameters", beta,
    ),
    Claim(
        "3.2.4, Figure 4", "Fooling ART (DeepFool) takes a larger perturbation than fooling Non-ART",
        "a bar chart", "robustness", rho("non_art", "art", "top1_change"),
    ),
    Claim(
        "3.2.4, 4, Figure 4", "Fooling A-ART takes a larger perturbation than fooling ART",
        "a bar chart", "robustness", rho("art", "a_art", "top1_change"),
    ),
    Claim(
        "4", "ART and A-ART perform better than Non-ART on the clean test set",
        "GAP +0.41 and +0.03", "tables", both_better_clean,
    ),
)  # fmt: skip
