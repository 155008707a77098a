"""Every claim of the paper, in order, each with the rule that judges it by a run's numbers."""

from dataclasses import dataclass

from pipeline.paper.verdicts import (
    Check,
    beta,
    beyond,
    flatter,
    keeps,
    loses,
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
        place: where the paper makes it (section, table or figure).
        text: the claim in our words.
        paper: the paper's number.
        stage: the pipeline's stage that makes the numbers.
        check: the rule that judges it.
    """

    place: str
    text: str
    paper: str
    stage: str
    check: Check


CLAIMS = (
    Claim(
        "abstract, 3.2.1", "A Transformer trained plainly (Non-ART) loses much to the one-step attack",
        "GAP 91.97 → 72.89", "tables", loses("non_art"),
    ),
    Claim(
        "abstract, 1", "Adversarial training in the output space alone (ART) improves the worst case",
        "GAP 72.89 → 81.97 (+9.08)", "tables", beyond(1, "adversarial", "non_art", ("art",), ("GAP",)),
    ),
    Claim(
        "abstract, 1", "A-ART's score on its adversarial examples is close to its clean score",
        "GAP 92.00 → 91.04", "tables", keeps("a_art"),
    ),
    Claim(
        "1, 4", "A-ART gains 18 points of adversarial GAP over Non-ART",
        "GAP 72.89 → 91.04 (+18.15)", "tables", beyond(1, "adversarial", "non_art", ("a_art",), ("GAP",)),
    ),
    Claim(
        "1, 3.2.1", "A-ART consistently beats ART under attack, by 9.1 points of GAP",
        "GAP +9.07, PERR +8.23, Hit@1 +5.77", "tables", beyond(1, "adversarial", "art", ("a_art",)),
    ),
    Claim(
        "1, Table 2", "The same on Arts & Entertainment: A-ART beats Non-ART under attack",
        "GAP +13.66, PERR +9.85, Hit@1 +6.57", "tables", beyond(2, "adversarial", "non_art", ("a_art",)),
    ),
    Claim(
        "1, Table 3", "The same on Finance: A-ART beats Non-ART under attack",
        "GAP +16.98, PERR +10.73, Hit@1 +16.35", "tables", beyond(3, "adversarial", "non_art", ("a_art",)),
    ),
    Claim(
        "2.2, Figure 1", "ART's attention maps still change significantly under attack",
        "MSE 4e-5, a picture", "attention",
        Check(
            "holds if ART's change is at least a tenth of the difference between the maps of unrelated videos, in "
            "direction from a hundredth", maps_still_change,
        ),
    ),
    Claim(
        "3.2", "The validation set chooses beta = 0.001",
        "beta 0.001", "hyperparameters",
        Check(
            "holds if clean validation GAP is highest at 0.001 among the values tried, in direction if within twice "
            "the error of the highest", beta,
        ),
    ),
    Claim(
        "3.2.1", "Adversarial regularisation (ART) improves clean performance",
        "GAP 91.97 → 92.38 (+0.41)", "tables", beyond(1, "test", "non_art", ("art",), ("GAP",)),
    ),
    Claim(
        "3.2.1", "A-ART performs on clean videos much as ART does",
        "GAP 92.38 and 92.00", "tables",
        Check("holds if GAP differs by at most twice as much as in the paper (0.76 points)", similar),
    ),
    Claim(
        "3.2.2, Figure 2", "The largest attention that any frame receives is an order of magnitude lower in A-ART",
        "a picture", "attention",
        Check(
            "holds if the largest attention of a frame is lower by a factor of 3.2, half a decade, for every seed; in "
            "direction if lower at all (a clip of T frames allows a factor of T at most)", flatter,
        ),
    ),
    Claim(
        "3.2.2", "A-ART reduces the MSE between clean and adversarial attention maps drastically",
        "MSE 4e-5 → 3e-8", "attention",
        Check(
            "holds if lower, for every seed, by at least the square root of the paper's factor; in direction if lower "
            "at all", mse_falls,
        ),
    ),
    Claim(
        "3.2.2", "So A-ART has learnt attention that is not fooled (and not just: attention that is nearly uniform)",
        "MSE 4e-5 → 3e-8", "attention",
        Check(
            "holds if from ART to A-ART the change of the maps falls at least tenfold, and at least twice as much as "
            "their distance to the uniform map; in direction if the change falls less", robust_or_flat,
        ),
    ),
    Claim(
        "3.2.3, Figure 3", "Validation GAP of ART over epsilon rises above Non-ART's, peaks, then falls",
        "peak at epsilon 0.5", "hyperparameters", peak("art", "epsilon"),
    ),
    Claim(
        "3.2.3, Figure 3", "The same over alpha",
        "peak at alpha 1", "hyperparameters", peak("art", "alpha"),
    ),
    Claim(
        "3.2.4", "Fooling A-ART (DeepFool) takes a larger perturbation than fooling ART",
        "a bar chart", "robustness", rho("art", "a_art"),
    ),
    Claim(
        "Figure 4", "Fooling A-ART takes a larger perturbation than fooling Non-ART",
        "a bar chart", "robustness", rho("non_art", "a_art"),
    ),
    Claim(
        "Figure 4, its bars", "Fooling ART takes a larger perturbation than fooling Non-ART",
        "a bar chart", "robustness", rho("non_art", "art"),
    ),
    Claim(
        "4", "ART and A-ART perform better than Non-ART on the clean test set",
        "GAP +0.41 and +0.03", "tables", beyond(1, "test", "non_art", ("art", "a_art"), ("GAP",)),
    ),
)  # fmt: skip
