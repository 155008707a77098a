"""Signs in the numbers of an evaluation that its attacks failed where the model was thought to be robust.

All but one check ask in which share of the videos something happened that should happen in none. An event compares two
attacks on the same video, so videos that are hard or easy for both cancel out. The share trips a check beyond what is
tolerated by three standard errors, so a few odd videos of a small sample do not.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from artpaper.attacks import ATTACKS

Losses = Mapping[str, Float[np.ndarray, " videos"]]
Events = Bool[np.ndarray, " videos"]

TOLERATED = 0.01  # share of videos in which a comparison may go the wrong way
ERRORS = 3.0  # standard errors of that share on top
MARGIN = 0.05  # how much more an attack must raise the loss to beat another, a share of the other's rise: steps from a
# random point end some degrees off the gradient even where the loss is a plane, and reach 1 % less than one along it
ROUNDING = 1e-5  # differences below this share of the clean loss are float32's
LEAKING = 0.25  # the same of label leaking: where the loss bends within epsilon, two first-order steps may swap ranks
FLOOR = 0.1  # share of the clean GAP that may be left at the largest epsilon

MESSAGES = {
    "random_model": "two forward passes on the same frames give different losses",
    "zero_gradients": "the gradient is zero or lost in rounding",
    "gradient_not_finite": "a gradient or an answer of the model is not a finite number",
    "noise_as_good_as_gradient": "a random step does as well as a step of its length along the gradient",
    "black_box_beats_white_box": "the black-box attack beats every white-box attack",
    "transfer_beats_white_box": "another model's perturbation beats every white-box attack",
    "more_steps_do_not_help": "the projected gradient does worse than one step, or nothing",
    "loss_below_clean": "an attack on the loss leaves it below the clean loss",
    "label_leaking": "one step with the true labels does worse than one with predicted labels, or lowers the loss",
    "floor_not_reached": "GAP stays up however large epsilon is",
}
PAGES = {check: f"docs/checks/{check}.md" for check in MESSAGES}


class RobustnessWarning(UserWarning):
    """The robustness that was measured is not to be trusted; the message names the number, its threshold and a page."""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: its name, a key of :data:`PAGES`.
        tripped: whether ``value`` is above ``threshold``.
        value: a share of the videos; of ``floor_not_reached`` the share that is left of the clean GAP.
        threshold: the largest value that a model whose attacks work may show.
        message: both in a sentence, and the page to read.
        page: explains the check, relative to the project's folder.
    """

    check: str
    tripped: bool
    value: float
    threshold: float
    message: str
    page: str


def check_results(
    losses: Losses, zero_gradient: Mapping[str, Events], gap_by_epsilon: Mapping[float, float], lowest_gap: float = 0.0,
    not_finite: Mapping[str, Events] | None = None,
) -> list[Finding]:  # fmt: skip
    """Check the numbers of an evaluation that has been made, on the same videos in the same order for every attack.

    A check whose numbers are not given has no finding. If the model answers at random, that is the only finding: no
    comparison of its losses means anything.

    Args:
        losses: the paper's BCE of each video after an attack, nats, by the name that the attack has in
            :data:`artpaper.attacks.ATTACKS`: "clean" and, as far as there are any, "clean_again" (a second forward
            pass), "random", "one_step", "one_step_predicted", "pgd", "square", every other attack listed as a follower
            of the loss or a white box, "attention", and names that begin with "transfer". All at one epsilon, in one
            ball. Other names are left alone.
        zero_gradient: by attack, which videos had no gradient of the BCE to follow; of those that follow the loss.
        gap_by_epsilon: GAP under the projected gradient by the radius of the ball, unit of the features. The smallest
            radius should be 0, the largest twice the longest video's norm: such a ball holds all the other videos, so
            an attacker can show any of them.
        lowest_gap: GAP if all true labels came last, which is above 0 where there are few classes.
        not_finite: by attack, which videos it has no result for, as a gradient or an answer was NaN or infinite; of any
            attack. Their losses are to be those of the clean videos.
    Returns:
        One finding a check that was made, in the order of :data:`PAGES`.
    Raises:
        ValueError: no "clean" losses, losses of unlike numbers of videos or none, or a loss that is not finite.
    Source: Carlini et al. 2019; Croce and Hein 2020 for checks that run by themselves; each check's page.
    """
    _refuse(losses)
    findings = []
    for check, events, tolerated in _events(losses, zero_gradient, not_finite or {}):
        threshold = tolerated + ERRORS * math.sqrt(tolerated * (1 - tolerated) / len(events))
        findings.append(_finding(check, float(events.mean()), threshold, f"for {{:.1%}} of {len(events)} videos"))
        if check == "random_model" and findings[-1].tripped:
            return findings
    radii = sorted(gap_by_epsilon)
    if len(radii) > 1 and gap_by_epsilon[radii[0]] > lowest_gap:
        left = (gap_by_epsilon[radii[-1]] - lowest_gap) / (gap_by_epsilon[radii[0]] - lowest_gap)
        findings.append(_finding("floor_not_reached", left, FLOOR, f"({{:.1%}} of it at {radii[-1]:.4g})"))
    return findings


def _events(
    losses: Losses, zero_gradient: Mapping[str, Events], not_finite: Mapping[str, Events]
) -> Iterator[tuple[str, Events, float]]:
    """Each check that can be made: the videos in which it happened, and the share in which it may."""
    clean = losses["clean"]
    rise = {name: values - clean for name, values in losses.items()}
    nothing = np.zeros_like(clean)
    along = [attack.name for attack in ATTACKS if attack.kind == "loss"]  # the gradient of the loss that is compared
    white_box = [*along, "attention", *(attack.name for attack in ATTACKS if attack.kind == "white_box")]

    def beats(attack: np.ndarray, other: np.ndarray) -> Events:
        return attack > other + MARGIN * np.abs(other) + ROUNDING * clean

    if "clean_again" in rise:
        yield "random_model", np.abs(rise["clean_again"]) > ROUNDING * clean, 0.0
    if flags := [zero_gradient[name] for name in along if name in zero_gradient]:
        yield "zero_gradients", np.any(flags, axis=0), 0.0
    if not_finite:
        yield "gradient_not_finite", np.any([*not_finite.values()], axis=0), 0.0
    if {"random", "one_step"} <= rise.keys():
        yield "noise_as_good_as_gradient", ~beats(rise["one_step"], rise["random"]), TOLERATED
    if white := [rise[name] for name in white_box if name in rise]:
        strongest = np.max(white, axis=0)
        if "square" in rise:
            yield "black_box_beats_white_box", beats(rise["square"], strongest), TOLERATED
        if transfers := [values for name, values in rise.items() if name.startswith("transfer")]:
            yield "transfer_beats_white_box", beats(np.max(transfers, axis=0), strongest), TOLERATED
    if {"one_step", "pgd"} <= rise.keys():
        stuck = ~beats(rise["pgd"], nothing)
        yield "more_steps_do_not_help", stuck | beats(rise["one_step"], rise["pgd"]), TOLERATED
    if followed := [rise[name] for name in along if name in rise]:
        yield "loss_below_clean", beats(nothing, np.min(followed, axis=0)), TOLERATED
    if {"one_step", "one_step_predicted"} <= rise.keys():
        yield "label_leaking", beats(np.maximum(rise["one_step_predicted"], 0), rise["one_step"]), LEAKING


def _finding(check: str, value: float, threshold: float, where: str) -> Finding:
    expected = f"{where.format(value)}, at most {threshold:.1%} is expected"
    message = f"{check}: {MESSAGES[check]} {expected}; see {PAGES[check]}"
    return Finding(check, value > threshold, value, threshold, message, PAGES[check])


def _refuse(losses: Losses) -> None:
    if "clean" not in losses:
        raise ValueError(f"losses of clean videos are needed under the name 'clean'; there are {sorted(losses)}")
    if not len(losses["clean"]):
        raise ValueError("there are no videos to check")
    for name, values in losses.items():
        if len(values) != len(losses["clean"]):
            raise ValueError(
                f"losses of {name!r} are of {len(values)} videos, the clean ones of {len(losses['clean'])}; "
                "give the same videos in the same order"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"losses of {name!r} are not finite; look for NaN or overflow in the model's logits")
