"""Threats with a structure: few frames, one modality, one perturbation for all videos, frames that come late."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from artpaper.attacks.objectives import Objective, bce
from artpaper.attacks.projected_gradient import pgd
from artpaper.attacks.result import Attack, ask, attack_result, checked, input_gradient
from artpaper.ball import Scope, finite_rows, project, steepest
from artpaper.guarded import warn
from artpaper.inputs import Given, check_options, entered, frames_of, own_widths
from artpaper.settings import Count, NonNegative
from artpaper.shapes import Classifier, Frames, LabelSets, Mask, Widths


@checked
def k_frames(
    model: Classifier, x: Frames, y: LabelSets, mask: Mask, *, epsilon: NonNegative, frames: Count = 1,
    objective: Objective = bce, attack: Callable[..., Attack] = pgd, **options: Any,
) -> Attack:  # fmt: skip
    """An attack that may move few frames only, and spends the whole ball on them (block-sparse).

    The frames are those whose gradient is longest at the clean video, the earlier one first among equals. They are
    chosen once, so another choice may do more harm: what is found is a lower bound of what so many frames can do.

    Args:
        model, x, y, mask, epsilon, objective: as for :func:`artpaper.attacks.fgm`; the last chooses the frames too.
        frames: how many may move; of a video with fewer, all.
        attack: what moves them: any attack with ``epsilon``, ``objective`` and ``movable``.
        options: more arguments of that attack, such as ``steps``, ``norm`` or ``scope``.
    Returns:
        Attack: that attack's, zero on all other frames.
    Source: Wei et al. 2019, Sparse Adversarial Perturbations for Videos (which finds the frames by an L2,1 norm).
    """
    gradient, _ = input_gradient(model, x, y, mask, objective)
    steepness = torch.linalg.vector_norm(gradient, dim=2, dtype=torch.float64)  # (B, T)
    order = steepness.masked_fill(~mask, -1.0).argsort(dim=1, descending=True, stable=True)  # (B, T), padding last
    movable = torch.zeros_like(mask).scatter(1, order[:, :frames], True)  # (B, T)
    movable = movable[:, :, None].expand_as(x)
    moved = attack(model, x, y, mask, epsilon=epsilon, objective=objective, movable=movable, **options)
    lost = moved.diagnostics.get("gradient_not_finite", False) | ~finite_rows(gradient)
    return replace(moved, diagnostics=moved.diagnostics | {"gradient_not_finite": lost})


@checked
def one_modality(
    model: Classifier, x: Frames, y: LabelSets, mask: Mask, *, epsilon: NonNegative, modality: str = "audio",
    modalities: Widths | None = None, attack: Callable[..., Attack] = pgd, **options: Any,
) -> Attack:  # fmt: skip
    """An attack that may move one modality only, and spends the whole ball on it.

    Args:
        model, x, y, mask, epsilon: as for :func:`artpaper.attacks.fgm`.
        modality: name of the one that may move.
        modalities: widths along ``dim``, in order; by default the model's own ``modalities``.
        attack, options: as for :func:`k_frames`.
    Returns:
        Attack: that attack's, zero on all other modalities.
    Raises:
        ValueError: the modality is none of those known, or as :func:`artpaper.attacks.fgm`.
    """
    widths = dict(modalities or {})
    if modality not in widths:
        known = ", ".join(widths) or "none; pass modalities, the widths along dim by name"
        raise ValueError(f"modality {modality!r} is unknown; known are: {known}")
    columns = torch.tensor([name == modality for name in widths], device=x.device)
    columns = columns.repeat_interleave(torch.tensor(list(widths.values()), device=x.device))  # (D,)
    movable = columns.expand(x.shape)
    return attack(model, x, y, mask, epsilon=epsilon, modalities=widths, movable=movable, **options)


def fit_universal(
    model: Classifier, batches: Sequence[tuple[Tensor, Tensor, Tensor]], *, epsilon: NonNegative, passes: Count = 5,
    step_size: NonNegative | None = None, objective: Objective = bce, scope: Scope = "joint",
    modalities: Widths | None = None,
) -> Float[Tensor, "time dim"]:  # fmt: skip
    """One perturbation for all videos: projected ascent on the loss of one batch after the other, in the L2 ball.

    It starts at 0, so nothing is random; each batch gives one step along the gradient of its videos' summed loss at the
    perturbation as :func:`universal` applies it. Videos not fitted on are the ones to judge it by.

    Args:
        model, epsilon, objective, scope, modalities: as for :func:`artpaper.attacks.fgm`.
        batches: what to fit on: x (batch, time, dim), y (batch, classes), mask (batch, time); times may differ.
        passes: how often all batches are gone through.
        step_size: length of a step, unit of x; 2.5 * epsilon / (passes * batches) by default.
    Returns:
        The perturbation, as long as the longest batch, inside the ball.
    Raises:
        ValueError: no batches, batches of unlike features, or as :func:`artpaper.attacks.fgm` for one of them.
    Warns:
        UserWarning: some videos' gradients were not finite, and were left out; or the perturbation is 0.
    Source: Moosavi-Dezfooli et al. 2017; the ascent is Shafahi et al. 2020, Algorithm 2.
    """
    batches = list(batches)
    if not batches or any(len(batch) != 3 for batch in batches):
        raise ValueError("a universal perturbation is fitted on batches (x, y, mask), one or more")
    with ExitStack() as stack:
        given: list[Given] = []
        for batch in batches:  # one guarded model, so that what is to be said of it is said once
            given.append(stack.enter_context(entered(given[0].model if given else model, *batch)))
        model, first = given[0].model, given[0].x
        if any(batch.x.shape[2] != first.shape[2] for batch in given):
            raise ValueError("the batches differ in their features a frame")
        options: dict[str, Any] = {"epsilon": epsilon, "step_size": step_size, "scope": scope, "modalities": modalities}
        options = check_options(fit_universal, options | {"passes": passes, "objective": objective}, first)
        ball = {name: options[name] for name in ("epsilon", "scope", "modalities")}
        ball["modalities"] = ball["modalities"] or own_widths(model, first)
        longest = max(batch.x.shape[1] for batch in given)
        common = first.new_zeros(1, longest, first.shape[2])  # (1, T, D)
        whole = torch.ones(1, longest, dtype=torch.bool, device=first.device)
        length = options["step_size"]
        length = 2.5 * ball["epsilon"] / (options["passes"] * len(batches)) if length is None else length
        lost = 0
        for _ in range(options["passes"]):
            for _, x, y, mask in given:
                moved = x + _applied(common[0], x, mask, ball)
                gradient, _ = input_gradient(model, moved, y, mask, options["objective"])  # (B, t, D)
                finite = finite_rows(gradient)
                lost += int((~finite).sum())
                summed = torch.zeros_like(common)
                summed[0, : x.shape[1]] = gradient.masked_fill(~finite[:, None, None], 0.0).sum(dim=0)
                common = project(common + steepest(summed, whole, **ball | {"epsilon": length}), whole, **ball)
    if not common.any() and ball["epsilon"]:
        warn("the universal perturbation is 0: no video had a gradient to follow")
    if lost:
        warn(f"gradients of single videos that were not finite, left out of the universal perturbation: {lost}")
    return common[0]


@checked
def universal(
    model: Classifier, x: Frames, y: LabelSets, mask: Mask, *, epsilon: NonNegative,
    perturbation: Float[Tensor, "fitted dim"], scope: Scope = "joint", modalities: Widths | None = None,
) -> Attack:  # fmt: skip
    """Show videos one perturbation, the same for all: cut to each video's frames, then brought to length epsilon.

    Args:
        model, x, y, mask, epsilon, scope, modalities: as for :func:`artpaper.attacks.fgm`; the model is only asked.
        perturbation: of any length and scale, as :func:`fit_universal` gives it; later frames stay as they are.
    Returns:
        Attack: as :func:`artpaper.attacks.fgm`; ``gradient_norm`` is NaN, for none is taken, and ``zero_gradient`` says
        that the perturbation is 0 on the video's frames.
    Raises:
        TypeError, ValueError: a perturbation that is no tensor, not finite, or not as wide as x.
    """
    if not isinstance(perturbation, Tensor) or perturbation.ndim != 2:
        raise TypeError("the perturbation is a tensor (time, dim), as fit_universal gives it")
    one = frames_of(perturbation[None], "perturbation")[0].to(x)
    if one.shape[1] != x.shape[2]:
        raise ValueError(f"the perturbation has {one.shape[1]} features a frame, x has {x.shape[2]}")
    shown = _applied(one, x, mask, {"epsilon": epsilon, "scope": scope, "modalities": modalities})
    attack = attack_result(model, x, y, mask, shown, ask(model, x, mask), gradient=None, iterations=1)
    nothing = (attack.diagnostics["norm"] == 0) & (epsilon > 0)  # to show, on the frames there are
    return replace(attack, diagnostics=attack.diagnostics | {"zero_gradient": nothing})


def _applied(perturbation: Tensor, x: Tensor, mask: Tensor, ball: dict[str, Any]) -> Tensor:
    fitted = min(len(perturbation), x.shape[1])
    same = torch.zeros_like(x)
    same[:, :fitted] = perturbation[:fitted].to(x)
    return steepest(same, mask, **ball)
