"""What every attack returns, and how its per-video diagnostics are made."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from artpaper.attacks.ball import l2_norm
from artpaper.attacks.objectives import Objective, bce


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
            is a true one, the adversarial top label is not), ``clean_loss`` and ``loss`` (the paper's binary
            cross-entropy before and after, mean over classes, nats). An attack with a goal of its own says what
            ``already_wrong`` and ``fooled`` mean for it; those that look for a boundary leave out the losses.
    """

    perturbation: Float[Tensor, "batch time dim"]
    clean_logits: Float[Tensor, "batch classes"]
    adversarial_logits: Float[Tensor, "batch classes"]
    diagnostics: dict[str, Shaped[Tensor, " batch"]]


def hit(logits: Float[Tensor, "batch classes"], y: Float[Tensor, "batch classes"]) -> Bool[Tensor, " batch"]:
    """Whether the top label is a true one."""
    return y.gather(-1, logits.argmax(dim=-1, keepdim=True)).squeeze(-1) > 0


def logits_of(
    model: Callable[[Tensor, Tensor], Tensor], x: Float[Tensor, "batch time dim"], mask: Bool[Tensor, "batch time"]
) -> Float[Tensor, "batch classes"]:
    """The model's answer, which a model that was made elsewhere may give in another shape than attacks need.

    Args:
        model: any callable ``model(x, mask)``.
        x: frames as the model receives them, unit of the normalised features.
        mask: True on real frames.
    Raises:
        ValueError: it is not one tensor (batch, classes); the message says what it is.
    """
    answer = model(x, mask)
    if not isinstance(answer, Tensor):
        raise ValueError(
            f"the model returned a {type(answer).__name__}, not one tensor of logits (batch, classes); "
            "attack a function that picks them, such as lambda x, mask: model(x, mask)[0]"
        )
    if answer.ndim != 2 or len(answer) != len(x):
        raise ValueError(
            f"the model returned {tuple(answer.shape)} for {len(x)} videos; attacks need logits (batch, classes)"
        )
    return answer


def answer(
    model: Callable[[Tensor, Tensor], Tensor], x: Float[Tensor, "batch time dim"], mask: Bool[Tensor, "batch time"]
) -> Float[Tensor, "batch classes"]:
    """:func:`logits_of` without a graph, for what is asked and never followed.

    Args:
        model: any callable ``model(x, mask)``.
        x: frames as the model receives them, unit of the normalised features.
        mask: True on real frames.
    Raises:
        ValueError: the model's answer is no logits (batch, classes).
    """
    with torch.no_grad():
        return logits_of(model, x, mask)


def first_answer(
    model: Callable[[Tensor, Tensor], Tensor], x: Float[Tensor, "batch time dim"], mask: Bool[Tensor, "batch time"]
) -> Float[Tensor, "batch classes"]:
    """:func:`answer` to the clean videos, with :func:`warn_of_probabilities`; an attack calls it directly.

    Args:
        model: any callable ``model(x, mask)``.
        x: frames as the model receives them, unit of the normalised features.
        mask: True on real frames.
    Raises:
        ValueError: the model's answer is no logits (batch, classes).
    """
    logits = answer(model, x, mask)
    warn_of_probabilities(logits)
    return logits


def comparable(values: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Values of which none is better than itself: what is not a number is the worst."""
    return values.masked_fill(values.isnan(), -torch.inf)


def warn_of_probabilities(logits: Float[Tensor, "batch classes"]) -> None:
    """Warn if all of a model's answers lie between 0 and 1: on probabilities an attack is silently the wrong one."""
    if logits.numel() and bool(((logits >= 0) & (logits <= 1)).all()):
        warnings.warn(
            "all outputs of the model lie in [0, 1], as probabilities do; attacks need the logits before the sigmoid "
            "or softmax, or they look for the wrong boundaries and find vanishing gradients",
            stacklevel=4,  # the line that called the attack
        )


def input_gradient(
    model: Callable[[Tensor, Tensor], Tensor],
    x: Float[Tensor, "batch time dim"],
    y: Float[Tensor, "batch classes"],
    mask: Bool[Tensor, "batch time"],
    objective: Objective = bce,
) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch classes"]]:
    """Gradient of each video's own loss with respect to its frames, and the logits it was taken at.

    The losses are summed over the batch, so no video's gradient depends on its neighbours. The parameters' ``.grad``
    is left as it was.

    Args:
        model: any callable ``model(x, mask) -> logits (batch, classes)``.
        x: frames as the model receives them, unit of the normalised features.
        y: label sets, multi-hot.
        mask: True on real frames.
        objective: loss of every video (batch,) from logits and label sets; the attack's aim.
    Returns:
        G, in units of the loss over those of ``x``, not masked; and the logits.
    Raises:
        ValueError: the model's answer is no logits (batch, classes).
    Source: Eq. 4.
    """
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = logits_of(model, x, mask)
        warn_of_probabilities(logits)
        (gradient,) = torch.autograd.grad(objective(logits, y).sum(), x)
    return gradient, logits.detach()


def attack_result(
    model: Callable[[Tensor, Tensor], Tensor],
    x: Float[Tensor, "batch time dim"],
    y: Float[Tensor, "batch classes"],
    mask: Bool[Tensor, "batch time"],
    perturbation: Float[Tensor, "batch time dim"],
    clean_logits: Float[Tensor, "batch classes"],
    *,
    gradient: Float[Tensor, "batch time dim"],
    iterations: int,
) -> Attack:
    """Ask the model about ``x + perturbation`` and fill in the diagnostics of :class:`Attack`.

    Args:
        model: any callable ``model(x, mask) -> logits (batch, classes)``.
        x: frames as the model receives them, unit of the normalised features.
        y: label sets, multi-hot.
        mask: True on real frames.
        perturbation: R, same unit as ``x``, zero on padding.
        clean_logits: the model's answer to ``x``.
        gradient: what the attack followed, for ``gradient_norm`` and ``zero_gradient``; padding is left out.
        iterations: steps that the attack took.
    Raises:
        ValueError: the model's answer is no logits (batch, classes).
    """
    adversarial_logits = answer(model, x + perturbation, mask)
    gradient_norm = l2_norm((gradient * mask[:, :, None]).double()).flatten()
    return diagnosed(
        x, y, mask, perturbation, clean_logits, adversarial_logits, gradient_norm=gradient_norm,
        zero_gradient=gradient_norm == 0, iterations=iterations,
    )  # fmt: skip


def diagnosed(
    x: Float[Tensor, "batch time dim"],
    y: Float[Tensor, "batch classes"],
    mask: Bool[Tensor, "batch time"],
    perturbation: Float[Tensor, "batch time dim"],
    clean_logits: Float[Tensor, "batch classes"],
    adversarial_logits: Float[Tensor, "batch classes"],
    *,
    gradient_norm: Float[Tensor, " batch"],
    zero_gradient: Bool[Tensor, " batch"],
    iterations: int,
) -> Attack:
    """An attack that has the model's answers already, with the diagnostics of :class:`Attack`.

    Args:
        x: frames as the model receives them, unit of the normalised features.
        y: label sets, multi-hot.
        mask: True on real frames.
        perturbation: R, same unit as ``x``, zero on padding.
        clean_logits: the model's answer to ``x``.
        adversarial_logits: its answer to ``x + perturbation``.
        gradient_norm: of what the attack followed, NaN where it followed none.
        zero_gradient: whether the attack had nothing to follow.
        iterations: steps that the attack took.
    """
    right, still_right = hit(clean_logits, y), hit(adversarial_logits, y)
    diagnostics = norms(x, mask, perturbation) | {
        "gradient_norm": gradient_norm,
        "zero_gradient": zero_gradient,
        "iterations": torch.full_like(gradient_norm, iterations, dtype=torch.int64),
        "already_wrong": ~right,
        "fooled": right & ~still_right,
        "clean_loss": bce(clean_logits.double(), y.double()),
        "loss": bce(adversarial_logits.double(), y.double()),
    }
    return Attack(perturbation, clean_logits, adversarial_logits, diagnostics)


def norms(
    x: Float[Tensor, "batch time dim"], mask: Bool[Tensor, "batch time"], perturbation: Float[Tensor, "batch time dim"]
) -> dict[str, Float[Tensor, " batch"]]:
    """The diagnostics ``norm`` and ``relative_norm`` of :class:`Attack`, in float64.

    Args:
        x: frames, unit of the normalised features.
        mask: True on real frames.
        perturbation: R, same unit as ``x``, zero on padding.
    Returns:
        ``norm`` in the unit of ``x``, and ``relative_norm``, a share of the video's own norm.
    """
    norm = l2_norm(perturbation.double()).flatten()
    reference = l2_norm((x * mask[:, :, None]).double()).flatten()
    return {"norm": norm, "relative_norm": norm / reference.clamp(min=torch.finfo(torch.float64).tiny)}
