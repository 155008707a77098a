"""Projected adversaries: of PGD-AT (Madry et al. 2018) and, where they raise the consistency term, of TRADES."""

from collections.abc import Callable
from typing import Any

import torch

from artpaper.ball import finite_rows, project, steepest
from artpaper.defences.random_step import random_step
from artpaper.shapes import Frames, Mask


def projected(
    slope: Callable[[Frames], Frames], x: Frames, mask: Mask, ball: dict[str, Any], noise: torch.Generator, steps: int
) -> tuple[Frames, Frames]:
    """Some steps along the gradient from a random point of the ball, each followed by a way back.

    Args:
        slope: the gradient of what is raised, at frames.
        x, mask, ball, noise: as for :func:`artpaper.defences.random_step.random_step`.
        steps: how many.
    Returns:
        The perturbation, held constant, and the last gradient it followed; a video whose gradient was not finite at any
        of the steps is not moved, and its gradient is NaN.
    """
    start = random_step(x, mask, ball, noise)
    # uniform over radii, not over the volume, of which nearly all is surface
    perturbation = start * torch.rand(len(x), 1, 1, generator=noise, dtype=x.dtype, device=x.device)
    gradient = torch.zeros_like(x)
    lost = torch.zeros(len(x), 1, 1, dtype=torch.bool, device=x.device)  # at any of the steps
    for _ in range(steps):
        gradient = slope(x + perturbation)
        lost |= ~finite_rows(gradient.masked_fill(~mask[:, :, None], 0.0))[:, None, None]
        step = min(1.0, 2.5 / steps) * steepest(gradient, mask, **ball)
        perturbation = project(perturbation + step, mask, **ball)
    return perturbation.masked_fill(lost, 0.0), gradient.masked_fill(lost, torch.nan)
