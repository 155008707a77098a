"""Chance: a random step, a control of the attention term and where searches begin; and one dropout for all passes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from artpaper.ball import steepest
from artpaper.kept import forked
from artpaper.shapes import Frames, Mask


def random_step(x: Frames, mask: Mask, ball: dict[str, Any], noise: torch.Generator) -> Frames:
    """A step to the ball's edge in a random direction.

    Args:
        x, mask: the videos that it is for, and True on their real frames.
        ball: ``epsilon`` (unit of the features), ``scope`` and ``modalities``, for :func:`artpaper.ball.steepest`.
        noise: what it is drawn from.
    """
    direction = torch.randn(x.shape, generator=noise, dtype=x.dtype, device=x.device)
    return steepest(direction, mask, **ball)


@contextmanager
def same_units(x: Frames, draws: UInt8[Tensor, " state"]) -> Iterator[None]:
    """Passes over ``x`` in here drop the units that the generator's state ``draws`` says; it is left as it was."""
    with forked(x.device):
        torch.set_rng_state(draws)
        yield
