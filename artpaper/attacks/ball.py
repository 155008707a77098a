"""The epsilon ball: which entries of a video share one norm, the steepest step inside it, and the way back into it."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Scope = Literal["joint", "modality", "frame"]
Reduce = Callable[[Tensor, tuple[int, ...]], Tensor]


def l2_norm(
    x: Float[Tensor, "batch time dim"], scope: Scope = "joint", modalities: Mapping[str, int] | None = None
) -> Float[Tensor, " batch #time #dim"]:
    """L2 norm of every ball's share of ``x``, in a shape that broadcasts against ``x``.

    Args:
        x: perturbation or gradient, zero on padding.
        scope: what one ball spans: "joint" (the video), "modality" or "frame".
        modalities: widths along ``dim``, needed by scope "modality".
    Returns:
        Norms: (batch, 1, 1) for "joint", (batch, time, 1) for "frame", (batch, 1, dim) for "modality".
    Raises:
        ValueError: scope "modality" without widths, or with widths that do not add up to ``dim``.
    """

    def norm(part: Tensor, dims: tuple[int, ...]) -> Tensor:
        # summed in float64: over a video's 345,600 entries float32 would be off by more than 1e-6
        return torch.linalg.vector_norm(part, dim=dims, keepdim=True, dtype=torch.float64).to(part.dtype)

    return _over(x, scope, modalities, norm)


def steepest(
    gradient: Float[Tensor, "batch time dim"],
    mask: Bool[Tensor, "batch time"],
    *,
    epsilon: float,
    scope: Scope = "joint",
    modalities: Mapping[str, int] | None = None,
) -> Float[Tensor, "batch time dim"]:
    """The step of length epsilon along the gradient, R = epsilon * G / ||G||_2, per ball.

    Args:
        gradient: G, any finite scale: it is divided by its largest entry first, so squares neither under- nor overflow.
        mask: True on real frames; padding is never moved.
        epsilon: radius of each ball, unit of the features.
        scope, modalities: as in :func:`l2_norm`.
    Returns:
        R; exactly 0 in a ball whose gradient is exactly 0.
    Raises:
        ValueError: epsilon is negative, or mask does not fit the gradient.
    Source: Eq. 4; the scaling follows Miyato et al. 2018 (``get_normalized_vector`` of their vat.py).
    """
    if epsilon < 0:
        raise ValueError(f"epsilon is a radius and cannot be {epsilon}")
    if mask.shape != gradient.shape[:2]:
        raise ValueError(f"mask {tuple(mask.shape)} does not fit frames {tuple(gradient.shape)}")
    gradient = gradient * mask[:, :, None]
    peak = _over(gradient, scope, modalities, lambda part, dims: part.abs().amax(dim=dims, keepdim=True))
    gradient = gradient / torch.where(peak > 0, peak, torch.ones_like(peak))
    norm = l2_norm(gradient, scope, modalities)
    return epsilon * gradient / torch.where(norm > 0, norm, torch.ones_like(norm))


def _over(x: Tensor, scope: Scope, modalities: Mapping[str, int] | None, reduce: Reduce) -> Tensor:
    if scope == "joint":
        return reduce(x, (1, 2))
    if scope == "frame":
        return reduce(x, (2,))
    if modalities is None or sum(modalities.values()) != x.shape[-1]:
        raise ValueError(f"scope 'modality' needs widths that add up to {x.shape[-1]}, got {modalities}")
    parts = x.split(list(modalities.values()), dim=-1)
    return torch.cat([reduce(part, (1, 2)).expand(-1, 1, part.shape[-1]) for part in parts], dim=-1)
