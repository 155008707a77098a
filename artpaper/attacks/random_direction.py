"""A yardstick for every attack: a step of the same length that knows nothing of the model."""

import numpy as np
import torch

from artpaper.attacks.result import Attack, ask, attack_result, checked
from artpaper.ball import Norm, Scope, steepest
from artpaper.settings import Natural, NonNegative
from artpaper.shapes import Classifier, Frames, LabelSets, Mask, Widths


@checked
def random_direction(
    model: Classifier, x: Frames, y: LabelSets, mask: Mask, *, epsilon: NonNegative, norm: Norm = "l2",
    scope: Scope = "joint", modalities: Widths | None = None, seed: Natural = 0,
) -> Attack:  # fmt: skip
    """A step of length epsilon in a random direction, uniform on the sphere of the real frames' features.

    Every video is given the same draw, cut to its frames: its result does not depend on the batch it is in, and the
    direction stays while epsilon changes. The model is asked, never followed.

    Args:
        model, x, y, mask, epsilon, scope, modalities: as for :func:`artpaper.attacks.fgm`.
        norm: of the ball: "l2", or "linf" for one of the cube's corners, each entry epsilon or -epsilon.
        seed: of the draw.
    Returns:
        Attack: as :func:`artpaper.attacks.fgm`; ``gradient_norm`` is NaN, for none is taken.
    """
    # NumPy draws frame after frame, so a longer video starts with the draw of a shorter one
    drawn = torch.from_numpy(np.random.default_rng(seed).standard_normal(tuple(x.shape[1:]))).to(x)  # (T, D)
    perturbation = steepest(drawn.expand_as(x), mask, epsilon=epsilon, norm=norm, scope=scope, modalities=modalities)
    return attack_result(model, x, y, mask, perturbation, ask(model, x, mask), gradient=None, iterations=1)
