"""The worst of several attacks, video by video: no model looks robust because one attack fails on it."""

import itertools
from collections.abc import Mapping

import torch

from artpaper.attacks.objectives import Objective, bce, pair
from artpaper.attacks.result import FLAGS, Attack, hit
from artpaper.shapes import LabelSets


def ensemble(attacks: Mapping[str, Attack], y: LabelSets, objective: Objective = bce) -> tuple[Attack, list[str]]:
    """For every video the attack, among several on the same model and videos, that raises its loss most.

    Nothing is run: the losses are read off the logits that the attacks hold, in float64. The clean video is a candidate
    only if an attack that leaves it as it is is among those named.

    Args:
        attacks: by name, each on the same videos in the same order; on equal losses the first named wins, and a loss
            that is NaN loses to any other.
        y: label sets, multi-hot (batch, classes).
        objective: loss that decides, ``(logits, y) -> (batch,)``, higher is worse for the model.
    Returns:
        Attack: every video has the winner's perturbation, logits and diagnostics, of those that all attacks have;
        ``iterations`` is what the winner took, not what finding it cost; the flags of no result say that any of the
        attacks has none, and none has fooled the model. ``already_wrong`` and ``fooled`` are about the top label, and
        ``fooled`` is said of a video that any of the attacks has fooled the model on, if not the one that raises the
        loss most. And the winner's name for every video.
    Raises:
        ValueError: no attacks, or two, which the message names, differ in their videos' shape or their clean logits.
    Source: Croce and Hein 2020, section 5 (AutoAttack: a point counts as robust if it withstands every attack).
    """
    if not attacks:
        raise ValueError("an ensemble needs at least one attack")
    for first, second in itertools.pairwise(attacks):
        _check_alike(first, attacks[first], second, attacks[second])
    y = pair(next(iter(attacks.values())).clean_logits, y)
    losses = torch.stack([objective(one.adversarial_logits.double(), y.double()) for one in attacks.values()])  # (A, B)
    winner = losses.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).argmax(dim=0)  # (B,)
    worst, *others = attacks.values()
    perturbation, adversarial = worst.perturbation, worst.adversarial_logits
    common = [name for name in worst.diagnostics if all(name in one.diagnostics for one in others)]
    rows = {name: worst.diagnostics[name] for name in common}
    for index, other in enumerate(others, start=1):  # one at a time: a stack would hold every attack's frames twice
        wins = winner == index  # (B,)
        perturbation = torch.where(wins[:, None, None], other.perturbation, perturbation)
        adversarial = torch.where(wins[:, None], other.adversarial_logits, adversarial)
        rows = {name: torch.where(wins, other.diagnostics[name], values) for name, values in rows.items()}
    right = hit(worst.clean_logits, y)
    answers = [one.adversarial_logits for one in attacks.values()]
    lost = torch.stack([~hit(answer, y) & answer.isfinite().all(dim=1) for answer in answers]).any(dim=0)
    rows |= {"already_wrong": ~right, "fooled": right & lost}
    for flag in FLAGS:  # an attack that failed may have been the worst, unless another has fooled the model
        told = [one.diagnostics[flag] for one in attacks.values() if flag in one.diagnostics]
        if told:
            rows[flag] = torch.stack(told).any(dim=0) & ~rows["fooled"]
    names = list(attacks)
    return Attack(perturbation, worst.clean_logits, adversarial, rows), [names[index] for index in winner.tolist()]


def _check_alike(first: str, one: Attack, second: str, other: Attack) -> None:
    """Refuse attacks on other videos or on another model; rounding may differ, as between batches of other sizes."""
    shapes = [(tuple(each.perturbation.shape), tuple(each.clean_logits.shape)) for each in (one, other)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"attacks {first!r} and {second!r} are on other videos: frames and logits are {shapes[0]} and {shapes[1]}"
        )
    if not torch.allclose(one.clean_logits, other.clean_logits, rtol=1e-3, atol=1e-3, equal_nan=True):
        apart = (one.clean_logits - other.clean_logits).abs().max().item()
        raise ValueError(
            f"attacks {first!r} and {second!r} have clean logits {apart:.2g} apart: another model, other videos or "
            "another order; put each attack to the same model and batch"
        )
