"""Square Attack on frames and features: a random search that only asks the model, block after block."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from artpaper.attacks.objectives import Objective, bce
from artpaper.attacks.projected_gradient import Ascent
from artpaper.attacks.result import Attack, checked
from artpaper.ball import Norm, Scope, l2_norm, steepest
from artpaper.settings import Count, Natural, NonNegative, Share
from artpaper.shapes import Classifier, Frames, LabelSets, Mask, Widths


@checked
def square(
    model: Classifier, x: Frames, y: LabelSets, mask: Mask, *, epsilon: NonNegative, norm: Norm = "l2",
    scope: Scope = "joint", modalities: Widths | None = None, objective: Objective = bce, queries: Count = 200,
    frames: Share = 1.0, features: Share = 0.05, seed: Natural = 0,
) -> Attack:  # fmt: skip
    """Black-box attack that reads scores: random blocks of a perturbation are redrawn and kept where that does harm.

    The first query is a random sign for every feature, the same in all frames, of length epsilon. Each further query
    redraws one block, a run of frames times a random set of features, with a new random sign for every feature. In the
    L-infinity ball the block becomes +-epsilon. In the L2 ball the block is turned halfway towards the new signs, and
    is given the mass of a second block, which becomes 0, so that the whole keeps the length epsilon. A video takes the
    step only if its own objective rises; so the objective is never below the clean video's.

    Where this departs from the source: their blocks are squares of an image, all colours at once, with one sign a
    colour. Here time takes the place of the image's two axes, and features that of the colours; but there are hundreds
    of them, so a block takes some only, and for features have no neighbours they are any, not a run. A block's weights
    are flat where theirs in L2 fall off from a centre. Its size stays, where theirs shrinks: with 200 queries the fixed
    one did as much harm or more (measured on AudioSet), and so did blocks over all frames.

    The model is asked without gradients, ``queries`` times about each video and once before that about the clean one.

    Args:
        model, x, y, mask, epsilon, norm, modalities, objective: as for :func:`artpaper.attacks.fgm`.
        scope: what one L2 ball spans: "joint" (the video), "modality" or "frame"; mass moves within a ball only.
        queries: how often the model is asked about a perturbed video.
        frames: share of a video's frames in a block, one frame at the least.
        features: share of the features in a block, one feature at the least.
        seed: of the draws, which are the same for every video whatever the batch.
    Returns:
        Attack: on the ball's surface, or 0 where no query did harm. ``gradient_norm`` is NaN and ``zero_gradient``
        False, for none is taken; ``iterations`` is ``queries``.
    Source: Andriushchenko et al. 2020 (arXiv:1912.00049), Algorithms 1-3.
    """
    generator = np.random.default_rng(seed)
    ball: dict[str, Any] = {"epsilon": epsilon, "norm": norm, "scope": scope, "modalities": modalities}
    search = Ascent(model, x, y, mask, ball, objective)
    for query in range(queries):
        # drawn alike whatever the batch and however long its videos are
        signs = torch.from_numpy(generator.choice([-1.0, 1.0], x.shape[2])).to(x)  # (D,)
        target, source = (_block(mask, generator, x.shape[2], frames, features) for _ in range(2))
        if query:
            candidate = _redrawn(search.best, signs, target, source, mask, ball)
        else:
            candidate = steepest(signs.expand_as(x), mask, **ball)
        search.visit(candidate, gradient=False)
    return search.result(iterations=queries)


def _redrawn(
    point: Tensor, signs: Tensor, target: Tensor, source: Tensor, mask: Tensor, ball: dict[str, Any]
) -> Tensor:
    """A perturbation on the surface with its target block redrawn, in L2 at the cost of its source block."""
    if ball["norm"] == "linf":
        return torch.where(target, ball["epsilon"] * signs, point)
    spans = ball["scope"], ball["modalities"]
    unit = ball | {"epsilon": 1.0}
    kept = point.masked_fill(target | source, 0.0)
    budget = (ball["epsilon"] ** 2 - l2_norm(kept, *spans) ** 2).clamp(min=0).sqrt()
    turned = steepest(target * signs, mask, **unit) + steepest(target * point, mask, **unit)
    turned = steepest(turned, mask, **unit)
    touched = l2_norm(turned, *spans) > 0  # a ball that the target misses keeps what it has
    return steepest(torch.where(touched, kept + budget * turned, point), mask, **ball)


def _block(mask: Tensor, generator: np.random.Generator, dim: int, frames: float, features: float) -> Tensor:
    """A run of each video's frames times a set of features, True inside (batch, time, dim)."""
    start, chosen = generator.random(), generator.permutation(dim) < max(1, round(features * dim))
    count = mask.sum(dim=1, keepdim=True)  # (B, 1)
    length = (frames * count).round().clamp(min=1)
    first = (start * (count - length + 1)).floor()
    place = mask.cumsum(dim=1) - 1  # of a frame among the real ones (B, T)
    inside = mask & (place >= first) & (place < first + length)
    return inside[:, :, None] & torch.from_numpy(chosen).to(mask.device)
