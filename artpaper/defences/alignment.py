"""GradAlign (Andriushchenko and Flammarion 2020): gradients that agree all over the ball, so that one step suffices."""

from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from artpaper.defences.random_step import random_step, same_units
from artpaper.shapes import Frames, LabelSets, Mask, Scalar

ALIGNED = 4  # one video in so many is looked at


def alignment(
    model: Any, x: Frames, y: LabelSets, mask: Mask, ball: dict[str, Any], noise: torch.Generator,
    draws: UInt8[Tensor, " state"],
) -> Scalar:  # fmt: skip
    """Mean cosine of the loss's gradients at a video and at a random point of its ball, on some videos.

    Args:
        model, x, y, mask: as for :func:`artpaper.losses.cross_entropy`.
        ball, noise: as for :func:`artpaper.defences.random_step.random_step`.
        draws: the generator's state that says which units are dropped, or it would be the cosine of two dropouts.
    """
    x, y, mask = x[::ALIGNED].detach(), y[::ALIGNED], mask[::ALIGNED]
    direction = random_step(x, mask, ball, noise)
    radius = torch.rand(len(x), 1, 1, generator=noise, dtype=x.dtype, device=x.device)
    gradients = []
    for frames in (x, x + radius * direction):
        frames.requires_grad_(True)
        with same_units(x, draws), sdpa_kernel(SDPBackend.MATH):  # the fused ones cannot be differentiated twice
            logits = model(frames, mask)
        loss = F.binary_cross_entropy_with_logits(logits, y.to(logits.dtype), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, frames, create_graph=True)
        gradients.append(gradient.masked_fill(~mask[:, :, None], 0.0).flatten(1))
    near, far = gradients
    return F.cosine_similarity(near, far, dim=1, eps=1e-12).mean()
