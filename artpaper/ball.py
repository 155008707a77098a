"""The epsilon ball: which entries of a video share one norm, the steepest step, the way back, a point drawn in it."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from artpaper.inputs import fit_widths
from artpaper.settings import Scope
from artpaper.shapes import Flags, Frames, Mask, Widths

Norm = Literal["l2", "linf"]
Reduce = Callable[[Tensor, tuple[int, ...]], Tensor]


def l2_norm(x: Frames, scope: Scope = "joint", modalities: Widths | None = None) -> Float[Tensor, " batch #time #dim"]:
    """L2 norm of every ball's share of ``x``, in a shape that broadcasts against ``x``.

    Args:
        x: perturbation or gradient, zero on padding.
        scope: what one ball spans: "joint" (the video), "modality" or "frame".
        modalities: widths along ``dim``, needed by scope "modality".
    Returns:
        Norms: (batch, 1, 1) for "joint", (batch, time, 1) for "frame", (batch, 1, dim) for "modality".
    Raises:
        TypeError: ``x`` is no tensor of floats.
        ValueError: unknown scope, or scope "modality" without widths, or with widths that do not add up to ``dim``.
    """
    return _over(x, scope, modalities, _length)


def steepest(
    gradient: Frames, mask: Mask, *, epsilon: float, norm: Norm = "l2", scope: Scope = "joint",
    modalities: Widths | None = None,
) -> Frames:  # fmt: skip
    """The step of length epsilon along the gradient, R = epsilon * G / ||G||_2, per ball.

    Args:
        gradient: G, any scale: it is divided by its largest entry first, so squares neither under- nor overflow.
        mask: True on real frames; padding is never moved.
        epsilon: radius of each ball, unit of the features.
        norm: "l2", or "linf" for the corner of the cube, R = epsilon * sign(G), which is one for all scopes.
        scope, modalities: as in :func:`l2_norm`.
    Returns:
        R; exactly 0 in a ball whose gradient is exactly 0, and in a video whose gradient is not finite on a real frame.
    Raises:
        TypeError, ValueError: unknown norm or scope, epsilon is negative or not finite, or mask does not fit the
            gradient.
    Source: Eq. 4; the scaling follows Miyato et al. 2018 (``get_normalized_vector`` of their vat.py).
    """
    return along(_inside(gradient, mask, epsilon, norm, scope), epsilon, norm, scope, modalities)


def along(gradient: Frames, epsilon: float, norm: Norm, scope: Scope, modalities: Widths | None) -> Frames:
    """:func:`steepest` without its checks.

    Args:
        gradient: finite, and 0 on padding.
        epsilon, norm, scope, modalities: as in :func:`steepest`.
    Raises:
        TypeError, ValueError: as :func:`l2_norm`.
    """
    if norm == "linf":
        return epsilon * gradient.sign()
    peak = _over(gradient, scope, modalities, lambda part, dims: part.abs().amax(dim=dims, keepdim=True))
    gradient = gradient / torch.where(peak > 0, peak, torch.ones_like(peak))
    length = l2_norm(gradient, scope, modalities)
    return epsilon * gradient / torch.where(length > 0, length, torch.ones_like(length))


def project(
    perturbation: Frames, mask: Mask, *, epsilon: float, norm: Norm = "l2", scope: Scope = "joint",
    modalities: Widths | None = None,
) -> Frames:  # fmt: skip
    """The nearest point inside the ball, in L2: shrunk for "l2", cut off entry by entry for "linf".

    Args:
        perturbation: any point.
        mask, epsilon, norm, scope, modalities: as in :func:`steepest`; padding becomes 0.
    Returns:
        The point; the same one if it was inside. Its norm exceeds epsilon by rounding only (a millionth of it). A video
        with an entry that is not finite on a real frame is brought to 0. Half types come back as float32 in L2.
    Raises:
        TypeError, ValueError: as :func:`steepest`.
    """
    return shrunk(_inside(perturbation, mask, epsilon, norm, scope), epsilon, norm, scope, modalities)


def shrunk(perturbation: Frames, epsilon: float, norm: Norm, scope: Scope, modalities: Widths | None) -> Frames:
    """:func:`project` without its checks.

    Args:
        perturbation: finite, and 0 on padding.
        epsilon, norm, scope, modalities: as in :func:`steepest`.
    Raises:
        TypeError, ValueError: as :func:`l2_norm`.
    """
    if norm == "linf":
        return perturbation.clamp(-epsilon, epsilon)
    length = l2_norm(perturbation, scope, modalities)
    outside = length > epsilon
    return perturbation * torch.where(outside, epsilon / torch.where(outside, length, 1.0), 1.0)


def uniform(
    movable: Bool[Tensor, "batch time dim"], *, epsilon: float, norm: Norm = "l2", scope: Scope = "joint",
    modalities: Widths | None = None, seed: int | tuple[int, ...] = 0,
) -> Frames:  # fmt: skip
    """A point drawn uniformly from the volume of the ball, float64.

    Every video is given the same draw, cut to its frames: its point does not depend on the batch it is in.

    Args:
        movable: True on the entries that the ball spans; the others are 0.
        epsilon, norm, scope, modalities: as in :func:`steepest`.
        seed: of the draw.
    Raises:
        TypeError, ValueError: as :func:`l2_norm`.
    Source: Voelker et al. 2017: n entries of a point on the sphere with n + 2 are uniform in the ball.
    """
    # frame after frame, so a longer video starts with the draw of a shorter one; hence two generators, too
    entries, radii = np.random.default_rng(seed).spawn(2)
    size = tuple(movable.shape[1:])  # (T, D)
    if norm == "linf":
        drawn = torch.from_numpy(entries.uniform(-epsilon, epsilon, size))
        return drawn.to(movable.device) * movable
    drawn = torch.from_numpy(entries.standard_normal(size)).to(movable.device) * movable  # (B, T, D)
    # the squares of the two entries left out sum to twice an exponential: the first one drawn in each ball
    squares = 2 * torch.from_numpy(radii.standard_exponential(size)).to(movable.device)[None]
    left_out = _over(squares, scope, modalities, _first)
    return epsilon * drawn / (l2_norm(drawn, scope, modalities) ** 2 + left_out).sqrt()


def finite_rows(x: Frames) -> Flags:
    """Whether all entries of a video are finite."""
    return x.abs().flatten(1).amax(dim=1).isfinite()  # a sixth of the time of looking at each


def _inside(x: Tensor, mask: Tensor, epsilon: float, norm: str, scope: str) -> Tensor:
    """What is of use of ``x``: 0 on padding, whatever stood there, and in videos that are not finite elsewhere."""
    for name, value, known in (("norm", norm, Norm), ("scope", scope, Scope)):
        if value not in get_args(known):
            raise ValueError(f"{name} {value!r} is none of {', '.join(get_args(known))}")
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 <= epsilon < math.inf:
        raise ValueError(f"epsilon is a radius, 0 or more and finite, and cannot be {epsilon!r}")
    _check_frames(x)
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != x.shape[:2]:
        what = f"{tuple(mask.shape)} of {mask.dtype}" if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"mask {what} does not fit frames {tuple(x.shape)}; it is bool (batch, time)")
    x = x.masked_fill(~mask[:, :, None], 0.0)  # not multiplied: NaN times 0 is NaN
    return x.masked_fill(~finite_rows(x)[:, None, None], 0.0)


def _check_frames(x: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        what = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"a perturbation or gradient is a tensor of floats, not {what}")
    if x.ndim != 3 or 0 in x.shape[1:]:
        raise ValueError(f"a perturbation or gradient is (batch, time, dim), with frames, not {tuple(x.shape)}")


def _length(part: Tensor, dims: tuple[int, ...]) -> Tensor:
    wide = torch.promote_types(part.dtype, torch.float32)  # of float16 norms above 65,504 would be infinite
    # summed in float64: over a video's 345,600 entries float32 would be off by more than 1e-6
    return torch.linalg.vector_norm(part, dim=dims, keepdim=True, dtype=torch.float64).to(wide)


def _first(part: Tensor, dims: tuple[int, ...]) -> Tensor:
    for dim in dims:
        part = part.narrow(dim, 0, 1)
    return part


def _over(x: Tensor, scope: Scope, modalities: Widths | None, reduce: Reduce) -> Tensor:
    _check_frames(x)
    if scope == "joint":
        return reduce(x, (1, 2))
    if scope == "frame":
        return reduce(x, (2,))
    if scope != "modality":
        raise ValueError(f"scope {scope!r} is none of {', '.join(get_args(Scope))}")
    if modalities is None or not fit_widths(modalities, x.shape[-1]):
        raise ValueError(f"scope 'modality' needs widths that add up to {x.shape[-1]}, got {modalities}")
    parts = x.split(list(modalities.values()), dim=-1)
    return torch.cat([reduce(part, (1, 2)).expand(-1, 1, part.shape[-1]) for part in parts], dim=-1)
