"""Virtual adversaries (VAT, Miyato et al. 2018): they ask for no labels; the clean answer is held constant."""

from collections.abc import Callable
from typing import Any

import torch

from artpaper.ball import steepest
from artpaper.defences.random_step import random_step
from artpaper.shapes import Frames, Mask

PROBE = 0.1  # length of the first, random step, as a share of epsilon


def virtual(
    slope: Callable[[Frames], Frames], x: Frames, mask: Mask, ball: dict[str, Any], noise: torch.Generator, steps: int
) -> tuple[Frames, Frames]:
    """One power iteration (``steps`` is 1): the step along the gradient at a random point near the video.

    Args:
        slope, x, mask, ball, noise, steps: as for :func:`artpaper.defences.projected.projected`.
    Returns:
        The perturbation, held constant, and the gradient that it follows.
    """
    gradient = slope(x + PROBE * random_step(x, mask, ball, noise))
    return steepest(gradient, mask, **ball), gradient
