"""A yardstick for every attack: a step of the same length that knows nothing of the model."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from artpaper.attacks.result import Attack, ask, attack_result, checked
from artpaper.ball import Norm, Scope, steepest
from artpaper.settings import Natural, NonNegative


@checked
def random_direction(
    model: Callable[[Tensor, Tensor], Tensor],
    x: Float[Tensor, "batch time dim"],
    y: Float[Tensor, "batch classes"],
    mask: Bool[Tensor, "batch time"],
    *,
    epsilon: NonNegative,
    norm: Norm = "l2",
    scope: Scope = "joint",
    modalities: Mapping[str, int] | None = None,
    seed: Natural = 0,
) -> Attack:
    """A step of length epsilon in a random direction, uniform on the sphere of the real frames' features.

    Every video is given the same draw, cut to its frames: its result does not depend on the batch it is in, and the
    direction stays while epsilon changes.

    Args:
        model: any callable ``model(x, mask) -> logits (batch, classes)``; it is asked, never followed.
        x: frames as the model receives them, float (batch, time, dim), unit of the normalised features.
        y: label sets, multi-hot (batch, classes).
        mask: True on real frames, bool (batch, time); padding is never moved.
        epsilon: radius of the ball around each video, same unit as x.
        norm: of the ball: "l2", or "linf" for one of the cube's corners, each entry epsilon or -epsilon.
        scope: what one ball spans: "joint" (the video), "modality" or "frame".
        modalities: widths along ``dim`` for scope "modality"; by default the model's own ``modalities``.
        seed: of the draw.
    Returns:
        Attack: as :func:`artpaper.attacks.fgm`; ``gradient_norm`` is NaN, for none is taken.
    Raises:
        TypeError, ValueError: as :func:`artpaper.attacks.fgm`.
    """
    # NumPy draws frame after frame, so a longer video starts with the draw of a shorter one
    drawn = torch.from_numpy(np.random.default_rng(seed).standard_normal(tuple(x.shape[1:]))).to(x)  # (T, D)
    perturbation = steepest(drawn.expand_as(x), mask, epsilon=epsilon, norm=norm, scope=scope, modalities=modalities)
    return attack_result(model, x, y, mask, perturbation, ask(model, x, mask), gradient=None, iterations=1)
