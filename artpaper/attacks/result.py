"""What every attack returns, how a function becomes one, and how the diagnostics of each video are made."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ParamSpec

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from artpaper.attacks.objectives import Objective, bce, pair
from artpaper.ball import finite_rows, l2_norm
from artpaper.guarded import Guarded
from artpaper.inputs import check_options, check_seen, entered, own_widths
from artpaper.shapes import Classifier, Flags, Frames, LabelSets, Logits, Mask, PerVideo


@dataclass(frozen=True)
class Attack:
    """A perturbation and what is known about it.

    Attributes:
        perturbation: R, unit of the normalised features, zero on padding.
        clean_logits: the model's answer to ``x``.
        adversarial_logits: its answer to ``x + R``.
        diagnostics: one value per video under each name: ``norm`` (L2, over real frames), ``relative_norm`` (norm over
            the video's own norm), ``gradient_norm``, ``zero_gradient`` (the attack had nothing to follow),
            ``iterations``, ``already_wrong`` (the clean top label is not a true one), ``fooled`` (the clean top label
            is a true one, the adversarial top label is not; of an ensemble, that of any attack in it), ``clean_loss``
            and ``loss`` (the paper's binary cross-entropy before and after, mean over classes, nats). An attack with a
            goal of its own says what ``already_wrong`` and ``fooled`` mean for it; those that look for a boundary leave
            out the losses.

            Three flags say that a video has no result, and is to be counted apart, neither as fooled nor as robust:
            ``gradient_not_finite`` (a gradient that the attack had to follow was NaN or infinite on a real frame; the
            perturbation is 0), ``logits_not_finite`` (the model's answer to the clean or the attacked video is, or one
            on the way) and ``no_frames`` (the mask has no real frame, so nothing can be moved). The first two are never
            ``fooled``.
    """

    perturbation: Frames
    clean_logits: Logits
    adversarial_logits: Logits
    diagnostics: dict[str, Shaped[Tensor, " batch"]]


P = ParamSpec("P")
FLAGS = ("gradient_not_finite", "logits_not_finite", "no_frames")  # diagnostics that say: no result


def checked(function: Callable[P, Attack], *, labels: bool = True) -> Callable[P, Attack]:
    """Make a function of ``(model, x, y, mask, *, ...)`` an attack: all that attacks have in common is done here.

    Inside, the model is one that is safe to ask, x is float32 or float64, y holds 0 and 1 in that type, mask is bool,
    and the options are what the annotations allow; ``modalities`` are the model's own if none are given. What comes out
    is settled: see :class:`Attack` on ``gradient_not_finite`` and ``logits_not_finite``.

    Args:
        function: the attack's own idea; options by keyword, their ranges annotated as in ``epsilon: NonNegative``.
        labels: whether label sets are needed; otherwise y may be None, and has no classes inside.
    """
    signature = inspect.signature(function)
    rest = next(
        (name for name, parameter in signature.parameters.items() if parameter.kind is parameter.VAR_KEYWORD), ""
    )

    @functools.wraps(function)
    def attack(*args: P.args, **kwargs: P.kwargs) -> Attack:
        options = dict(signature.bind(*args, **kwargs).arguments)
        model, x, y, mask = (options.pop(name) for name in list(signature.parameters)[:4])
        options |= options.pop(rest, {})
        with entered(model, x, y, mask, labels=labels) as given:
            options = check_options(function, options, given.x)
            check_seen(options, given)
            if "modalities" in signature.parameters and options.get("modalities") is None:
                options["modalities"] = own_widths(given.model, given.x)
            return _settled(function(*given, **options), given.mask)  # type: ignore[arg-type]

    return attack


def _settled(attack: Attack, mask: Tensor) -> Attack:
    """Flag what has no result: where a gradient was not finite, where the answer is not, where there are no frames."""
    clean, adversarial = attack.clean_logits, attack.adversarial_logits
    rows = dict(attack.diagnostics)
    lost = ~finite_rows(attack.perturbation)
    lost = lost | rows.get("gradient_not_finite", torch.zeros_like(lost))
    adversarial = torch.where(lost[:, None], clean, adversarial)
    broken = ~(clean.isfinite() & adversarial.isfinite()).all(dim=1)
    broken |= rows.get("logits_not_finite", torch.zeros_like(lost))
    rows |= {"gradient_not_finite": lost, "logits_not_finite": broken, "no_frames": ~mask.any(dim=1)}
    if not (lost | broken).any():
        return replace(attack, diagnostics=rows)
    without = {"zero_gradient": False, "norm": 0.0, "relative_norm": 0.0, "gradient_norm": torch.nan}
    rows |= {name: rows[name].masked_fill(lost, value) for name, value in without.items() if name in rows}
    rows["fooled"] = rows["fooled"] & ~(lost | broken)
    if "loss" in rows:
        rows["loss"] = torch.where(lost, rows["clean_loss"], rows["loss"])
    perturbation = attack.perturbation.masked_fill(lost[:, None, None], 0.0)
    return Attack(perturbation, clean, adversarial, rows)


def hit(logits: Logits, y: Shaped[Tensor, "batch classes"]) -> Flags:
    """Whether the top label is a true one, by label sets of any type; never where a logit is NaN."""
    y = pair(logits, y)
    return (y.gather(-1, logits.argmax(dim=-1, keepdim=True)).squeeze(-1) > 0) & ~logits.isnan().any(dim=-1)


def ask(model: Classifier, x: Frames, mask: Mask) -> Logits:
    """The model's logits without a graph, for what is asked and never followed."""
    with torch.no_grad():
        return model(x, mask)


def comparable(values: PerVideo) -> PerVideo:
    """Values of which none is better than itself: what is not a number is the worst."""
    return values.masked_fill(values.isnan(), -torch.inf)


def input_gradient(
    model: Classifier, x: Frames, y: LabelSets, mask: Mask, objective: Objective = bce
) -> tuple[Frames, Logits]:
    """Gradient of each video's own loss with respect to its frames, and the logits it was taken at (Eq. 4).

    The losses are summed over the batch, so no video's gradient depends on its neighbours. The parameters' ``.grad``
    is left as it was.

    Args:
        model, x, y, mask, objective: as for :func:`artpaper.attacks.fgm`.
    Returns:
        G, in units of the loss over those of ``x``, 0 on padding; and the logits.
    """
    with entered(model, x, y, mask) as given:
        objective = check_options(input_gradient, {"objective": objective}, given.x)["objective"]
        frames = given.x.requires_grad_(True)
        logits = given.model(frames, given.mask)
        gradient = follow_logits(given.model, objective(logits, given.y), logits, frames)
    return gradient.masked_fill(~given.mask[:, :, None], 0.0), logits.detach()


def follow(values: Float[Tensor, "..."], inner: Float[Tensor, "batch ..."], **how: Any) -> Float[Tensor, "batch ..."]:
    """Gradient of the sum of ``values`` with respect to frames or logits, 0 where they do not depend on them."""
    (gradient,) = torch.autograd.grad(values.sum(), inner, allow_unused=True, **how)
    return torch.zeros_like(inner) if gradient is None else gradient


def follow_logits(model: Classifier, values: PerVideo, logits: Logits, frames: Frames) -> Frames:
    """As :func:`follow`, of values that depend on ``frames`` through ``logits`` alone; ``model`` has given these.

    In float16 what goes back to a logit, such as a share of the mean over thousands of classes, is 0 or nearly: each
    video's goes back with a largest entry of 1, and its gradient is made as small as it is in the type of ``frames``;
    or as it is, where that is too much for float16. Autocast inside the model is not seen.
    """
    if not isinstance(model, Guarded) or model.type_for(frames) != torch.float16:
        return follow(values, frames)
    back = follow(values, logits, retain_graph=True)
    largest = back.abs().amax(dim=1, keepdim=True)
    largest = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
    gradient = follow(logits * (back / largest), frames, retain_graph=True) * largest[:, :, None]
    finite = finite_rows(gradient)
    return gradient if finite.all() else torch.where(finite[:, None, None], gradient, follow(values, frames))


def attack_result(
    model: Classifier, x: Frames, y: LabelSets, mask: Mask, perturbation: Frames, clean_logits: Logits, *,
    gradient: Frames | None, iterations: int,
) -> Attack:  # fmt: skip
    """Ask the model about ``x + perturbation`` and fill in the diagnostics of :class:`Attack`.

    ``gradient`` is what the attack followed, for ``gradient_norm``, ``zero_gradient`` and ``gradient_not_finite``; None
    if it followed none.
    """
    adversarial_logits = ask(model, x + perturbation, mask)
    norm = torch.full((len(x),), torch.nan, dtype=torch.float64, device=x.device)
    not_finite = torch.zeros_like(norm, dtype=torch.bool)
    if gradient is not None:
        gradient = gradient.masked_fill(~mask[:, :, None], 0.0)
        norm, not_finite = l2_norm(gradient.double()).flatten(), ~finite_rows(gradient)
    return diagnosed(
        x, y, mask, perturbation, clean_logits, adversarial_logits, gradient_norm=norm, zero_gradient=norm == 0,
        gradient_not_finite=not_finite, iterations=iterations,
    )  # fmt: skip


def diagnosed(
    x: Frames, y: LabelSets, mask: Mask, perturbation: Frames, clean_logits: Logits, adversarial_logits: Logits, *,
    gradient_norm: PerVideo, zero_gradient: Flags, iterations: int, **flags: Flags,
) -> Attack:  # fmt: skip
    """An attack that has the model's answers already, with the diagnostics of :class:`Attack`.

    ``gradient_norm`` is NaN where none was followed; ``flags`` are of :data:`FLAGS`, those that are known by now.
    """
    diagnostics = norms(x, mask, perturbation) | {
        "gradient_norm": gradient_norm,
        "zero_gradient": zero_gradient,
        "iterations": torch.full_like(gradient_norm, iterations, dtype=torch.int64),
    }
    diagnostics |= flags | goal(clean_logits, adversarial_logits, y)
    return Attack(perturbation, clean_logits, adversarial_logits, diagnostics)


def goal(clean_logits: Logits, adversarial_logits: Logits, y: LabelSets) -> dict[str, Shaped[Tensor, " batch"]]:
    """What an attack on the labels has done to the logits: the last four diagnostics of :class:`Attack`, in float64."""
    right, still_right = hit(clean_logits, y), hit(adversarial_logits, y)
    return {
        "already_wrong": ~right,
        "fooled": right & ~still_right,
        "clean_loss": bce(clean_logits.double(), y.double()),
        "loss": bce(adversarial_logits.double(), y.double()),
    }


def norms(x: Frames, mask: Mask, perturbation: Frames) -> dict[str, PerVideo]:
    """The diagnostics ``norm`` and ``relative_norm`` of :class:`Attack`, in float64; a share of no norm is infinite."""
    norm = l2_norm(perturbation.double()).flatten()
    reference = l2_norm(x.masked_fill(~mask[:, :, None], 0.0).double()).flatten()
    return {"norm": norm, "relative_norm": torch.where(norm == 0, 0.0, norm / reference)}
