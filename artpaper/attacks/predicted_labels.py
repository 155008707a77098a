"""Attacks that are not told the true labels: the model's own predictions stand in for them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from artpaper.attacks.one_step import fgm
from artpaper.attacks.result import Attack, ask, checked, goal
from artpaper.settings import NonNegative
from artpaper.shapes import Classifier, Frames, LabelSets, Mask


@checked
def predicted_labels(
    model: Classifier, x: Frames, y: LabelSets, mask: Mask, *, epsilon: NonNegative,
    attack: Callable[..., Attack] = fgm, **options: Any,
) -> Attack:  # fmt: skip
    """Attack against the labels that the model gives the clean video (logit above 0): a control that leaks no truth.

    They are those of the clean video however many steps are taken: labels that move with the video would draw it back
    to where one is crossed.

    Args:
        model, x, y, mask, epsilon: as for :func:`artpaper.attacks.fgm`; y is for the diagnostics alone.
        attack: one in a ball, such as :func:`artpaper.attacks.fgm` or :func:`artpaper.attacks.pgd`.
        options: more arguments of that attack.
    Returns:
        Attack: of the last four diagnostics, told by the true labels; a forward pass more than ``attack`` takes.
    Source: Kurakin et al. 2017 on label leaking.
    """
    found = attack(model, x, (ask(model, x, mask) > 0).to(y), mask, epsilon=epsilon, **options)
    return replace(found, diagnostics=found.diagnostics | goal(found.clean_logits, found.adversarial_logits, y))
