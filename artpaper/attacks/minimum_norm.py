"""Fast Minimum-Norm attack: walk along the model's boundary, in L2, in a ball that tightens around the clean video."""

import math
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from artpaper.attacks.boundary import STABILITY, Criterion, Search
from artpaper.attacks.result import Attack, checked, follow, hit
from artpaper.settings import Count, Positive
from artpaper.shapes import Classifier, Frames, LabelSets, Mask

SHRUNK = 0.01  # length of the last step over that of the first, as the authors have it
FINEST = 0.001  # share by which the ball changes in the last step, as the authors have it
SMALLER = 1 - 1e-6  # a perturbation counts as smaller from here on: of two that only rounding tells apart, the first


@partial(checked, labels=False)
def fmn(
    model: Classifier, x: Frames, y: LabelSets | None, mask: Mask, *, criterion: Criterion = "top1_change",
    steps: Count = 100, start: Frames | None = None, step_size: Positive | None = None,
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.05,
) -> Attack:  # fmt: skip
    """Smallest L2 perturbation found that fools the model, for every video by itself.

    Each step follows the gradient of the margin to the wrong side and is projected into a ball around the clean video.
    Until the video has been fooled once, the ball reaches to the boundary of the model taken as linear; then it shrinks
    by gamma where the video is fooled and grows by gamma where it is not. Both step and gamma fall along a cosine. Of
    all iterates that fool the model the one of smallest norm is kept. Unlike DeepFool it goes on after the boundary has
    been crossed, but looks at the best rival alone in each step, so it may end at a boundary that is further away; with
    DeepFool's perturbation as ``start`` it never does.

    Args:
        model, x, y, mask, criterion: as for :func:`artpaper.attacks.deepfool.deepfool`; a tie does not fool.
        steps: gradient steps a video is given.
        start: perturbation to begin from, (batch, time, dim), unit of x; where it does not fool, it is left aside.
        step_size: length of the first step, unit of x. By default, of each video: the norm of its start or, without
            one, the way to the boundary if the model were linear.
        gamma: share by which the ball changes in the first step.
    Returns:
        Attack: as :func:`artpaper.attacks.deepfool.deepfool`. A video never fooled keeps what it reached, not
        ``fooled``: its norm is where the search ended and bounds nothing. ``iterations`` counts the gradients taken. A
        video already wrong, or without a usable gradient (0 or not finite), is not asked about again.
    Source: Pintor et al. 2021 (arXiv:2102.12827), Algorithm 1, for L2; the default step is this project's, for features
        have no common range as pixels have.
    """
    search = _Search(model, x, mask, y=y, criterion=criterion)
    active = search.begin(start, step_size)
    for step in range(steps):
        if not len(active):
            break
        cosine = (1 + math.cos(math.pi * step / steps)) / 2
        active = search.advance(active, SHRUNK + (1 - SHRUNK) * cosine, FINEST + (gamma - FINEST) * cosine)
    search.look(active)
    search.fooled = search.best_norm.isfinite()
    search.not_finite &= ~search.already_wrong
    return search.result(search.best)


class _Search(Search):
    def begin(self, start: Tensor | None, step_size: float | None) -> Tensor:
        """Look at the clean videos and at the start; returns the rows to go on with."""
        self.best = torch.zeros_like(self.x)
        self.best_norm = torch.full_like(self.gradient_norm, torch.inf)  # inf: never fooled
        rows = torch.arange(len(self.x), device=self.x.device)
        frames, logits = self.ask(rows, gradient=True)
        self.clean, self.adversarial = logits.detach(), logits.detach().clone()
        if self.true is not None:
            self.already_wrong = ~hit(self.clean, self.true)
        way, length, _ = self._boundary(rows, frames, logits)
        self.gradient_norm = torch.where(way.isfinite(), length, 0.0).masked_fill(self.already_wrong, torch.nan)
        rows = rows[~self.already_wrong]
        if start is not None:
            self.perturbation[rows] = torch.where(self.mask[rows][:, :, None], start.detach()[rows], 0.0)
            self.look(rows)
            self.perturbation *= self.best_norm.isfinite()[:, None, None]  # where it does not fool: the clean video
        self.radius = self.best_norm.clone()
        length = torch.where(self.radius.isfinite(), self.radius, way)
        self.first_step = length if step_size is None else torch.full_like(way, step_size)
        return rows

    def advance(self, rows: Tensor, share: float, change: float) -> Tensor:
        """Take a step, a share of the first one, in a ball that changes by a share; returns the rows to go on with."""
        frames, logits = self.ask(rows, gradient=True)
        way, length, gradient = self._boundary(rows, frames, logits)
        fooled, norm = self._keep(rows, logits.detach())
        best, radius = self.best_norm[rows], self.radius[rows]
        radius = torch.where(
            fooled,
            torch.minimum(radius * (1 - change), best),
            torch.where(best.isfinite(), radius * (1 + change), norm + way),
        )
        scale = (share * self.first_step[rows] / length).to(gradient.dtype)
        usable = scale.isfinite() & way.isfinite()
        self.radius[rows] = radius
        self.stuck[rows] = ~(usable | best.isfinite())
        self.iterations[rows] += usable
        gradient *= scale.where(usable, 0.0)[:, None, None]
        moved = self.perturbation[rows] - gradient
        shrunk = (radius / _norm(moved)).clamp(max=1).nan_to_num(nan=1.0).to(moved)
        self.perturbation[rows] = moved * shrunk[:, None, None]
        go = usable | fooled  # where there is nothing to follow, a smaller ball is still worth a look
        return rows[go]

    def look(self, rows: Tensor) -> None:
        """Ask the model about these videos' perturbations and keep those that are the best so far."""
        if len(rows):
            _, logits = self.ask(rows, gradient=False)
            self._keep(rows, logits)

    def _keep(self, rows: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Keep what is better than the best, or reached where nothing has fooled; says what fools, and the norms."""
        self.broken[rows] |= ~logits.isfinite().all(dim=1)
        norm, fooled = _norm(self.perturbation[rows]), self._margin(rows, logits) < 0
        better = fooled & (norm < SMALLER * self.best_norm[rows])
        taken = better | self.best_norm[rows].isinf()
        self.best_norm[rows[better]] = norm[better]
        self.best[rows[taken]] = self.perturbation[rows[taken]]
        self.adversarial[rows[taken]] = logits[taken]
        return fooled, norm

    def _margin(self, rows: Tensor, logits: Tensor) -> Tensor:
        """How far the logits are on the clean side of the nearest boundary in logits, inf without one (batch,)."""
        clean = self.clean[rows]
        if self.criterion == "threshold":
            return torch.where(clean > 0, logits, -logits).amin(dim=1)
        own = self.own(rows)
        return logits.masked_fill(~own, -torch.inf).amax(dim=1) - logits.masked_fill(own, -torch.inf).amax(dim=1)

    def _boundary(self, rows: Tensor, frames: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The way to the boundary of the linear model and the gradient's norm (float64), and the margin's gradient."""
        with torch.enable_grad():
            margin = self._margin(rows, logits)
            gradient = follow(margin, frames)
        gradient = gradient.masked_fill(~self.mask[rows][:, :, None], 0.0)
        length = _norm(gradient)
        self.not_finite[rows] |= ~length.isfinite()
        way = margin.detach().double().abs() / length + STABILITY
        return way, length, gradient


def _norm(x: Tensor) -> Tensor:
    """Norm of every video, float64 (batch,)."""
    return torch.linalg.vector_norm(x, dim=(1, 2), dtype=torch.float64)
