"""Auto-PGD: projected gradient ascent with momentum that sets its own step sizes, a video at a time."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from artpaper.attacks.objectives import Objective, bce
from artpaper.attacks.projected_gradient import Ascent, Movable
from artpaper.attacks.result import Attack, checked
from artpaper.ball import Norm, Scope
from artpaper.settings import Count, Natural, NonNegative
from artpaper.shapes import Classifier, Frames, LabelSets, Mask, Widths

MOMENTUM = 0.75  # alpha: share of the new direction
RISES = 0.75  # rho: share of the steps since the last checkpoint that must have raised the objective


@checked
def apgd(
    model: Classifier, x: Frames, y: LabelSets, mask: Mask, *, epsilon: NonNegative, norm: Norm = "l2",
    scope: Scope = "joint", modalities: Widths | None = None, objective: Objective = bce, steps: Count = 50,
    restarts: Count = 1, random_start: bool = True, start: Frames | None = None, movable: Movable | None = None,
    seed: Natural = 0,
) -> Attack:  # fmt: skip
    """Auto-PGD in the ball: nothing to tune but the budget; each video has its own step size and its own restarts.

    The first step is as long as the ball is wide. At each checkpoint a video's step is halved, and it goes on from its
    best point of this restart, if fewer than 0.75 of the steps since the last checkpoint raised the objective, or if
    neither the step nor the best objective has changed since. It costs as many passes as :func:`artpaper.attacks.pgd`.

    Args:
        model, x, y, mask, epsilon, norm, scope, modalities, objective: as for :func:`artpaper.attacks.fgm`.
        steps: gradient steps of each restart.
        restarts, random_start, start, movable, seed: as for :func:`artpaper.attacks.pgd`.
    Returns:
        Attack: as :func:`artpaper.attacks.pgd` with keep "best".
    Source: Croce and Hein 2020, Algorithm 1 and section 3; a video goes back to its best point at the checkpoint, as in
        their code, where the algorithm as printed takes one more step first.
    """
    ball = {"epsilon": epsilon, "norm": norm, "scope": scope, "modalities": modalities}
    ascent = Ascent(model, x, y, mask, ball, objective, movable)
    for point in ascent.starts(restarts, random_start, start, seed):
        _climb(ascent, point, steps)
    return ascent.result()


def checkpoints(steps: int) -> Iterator[int]:
    """The steps after which step sizes are looked at: ceil(p_j * steps), ever closer together.

    Args:
        steps: of the whole search.
    Returns:
        Numbers of steps, rising, up to ``steps``.
    Source: Croce and Hein 2020, section 3.2: p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06).
    """
    share, period = 22, 22  # in hundredths, whole numbers: ceil must not see a rounding error
    while share <= 100:
        yield math.ceil(share * steps / 100)
        period = max(period - 3, 6)
        share += period


def _climb(ascent: Ascent, point: Tensor, steps: int) -> None:
    """One restart: the updates of Algorithm 1, every video with its own schedule."""
    value, gradient = ascent.visit(point)  # (B,), (B, T, D)
    before = best = point
    best_value, best_gradient = value, gradient
    length = torch.full_like(value, 2 * ascent.ball["epsilon"])[:, None, None]  # eta (B, 1, 1)
    halved = torch.zeros_like(value, dtype=torch.bool)  # at the last checkpoint
    rises = torch.zeros_like(value)
    best_then, checked = best_value, 0  # at the last checkpoint
    marks = set(checkpoints(steps))
    for done in range(1, steps + 1):
        ahead = ascent.step(point, gradient, length)
        if done > 1:
            ahead = ascent.project(point + MOMENTUM * (ahead - point) + (1 - MOMENTUM) * (point - before))
        before, point, earlier = point, ahead, value
        value, gradient = ascent.visit(point, gradient=done < steps)
        rises += value > earlier
        better = value > best_value
        best_value = torch.where(better, value, best_value)
        best = torch.where(better[:, None, None], point, best)
        best_gradient = torch.where(better[:, None, None], gradient, best_gradient)
        if done in marks:
            halved = (rises < RISES * (done - checked)) | (~halved & (best_value == best_then))
            length = torch.where(halved[:, None, None], length / 2, length)
            point = torch.where(halved[:, None, None], best, point)
            gradient = torch.where(halved[:, None, None], best_gradient, gradient)
            value = torch.where(halved, best_value, value)
            best_then, checked, rises = best_value, done, torch.zeros_like(rises)
