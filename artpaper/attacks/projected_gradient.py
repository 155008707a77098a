"""Projected gradient descent: many small steps along the gradient of the loss, each followed by a way back."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from artpaper.attacks.objectives import Objective, bce
from artpaper.attacks.result import Attack, ask, checked, comparable, diagnosed, follow_logits
from artpaper.ball import Norm, Scope, along, finite_rows, l2_norm, project, shrunk, uniform
from artpaper.settings import Count, Natural, NonNegative
from artpaper.shapes import Classifier, Frames, LabelSets, Mask, PerVideo, Widths

Keep = Literal["best", "last"]
Movable = Bool[Tensor, "#batch #time #dim"]


@checked
def pgd(
    model: Classifier, x: Frames, y: LabelSets, mask: Mask, *, epsilon: NonNegative, norm: Norm = "l2",
    scope: Scope = "joint", modalities: Widths | None = None, objective: Objective = bce, steps: Count = 20,
    step_size: NonNegative | None = None, restarts: Count = 1, random_start: bool = True, keep: Keep = "best",
    start: Frames | None = None, movable: Movable | None = None, seed: Natural = 0,
) -> Attack:  # fmt: skip
    """Projected gradient descent in the ball: R <- project(R + step_size * G / ||G||), for every video by itself.

    It costs one forward pass, and for each restart ``steps`` forward and backward passes and one forward pass more.

    Args:
        model, x, y, mask, epsilon, scope, modalities, objective: as for :func:`artpaper.attacks.fgm`.
        norm: of the ball: "l2", or "linf", whose steps follow the sign of the gradient.
        steps: gradient steps of each restart.
        step_size: length of a step in every ball, unit of x; 2.5 * epsilon / steps by default.
        restarts: how often to begin anew.
        random_start: begin at a point drawn uniformly from the ball, another one for each restart; else at the video.
        keep: "best", the point of highest objective among the clean video and all iterates of all restarts; or "last",
            the last iterate of the last restart, whatever it is worth.
        start: perturbation that the first restart begins at instead, projected into the ball.
        movable: entries that may be moved, besides those on padding, which may never; all real frames by default.
        seed: of the random points, which are the same whatever the batch.
    Returns:
        Attack: ``gradient_norm`` is that of the objective at the first point, where it can move; ``zero_gradient`` says
        that no iterate had a gradient to follow; ``iterations`` counts the steps of all restarts. A point whose
        objective is not a number is never the best.
    Raises:
        ValueError: restarts that would repeat one another, or as :func:`artpaper.attacks.fgm`.
    Source: Madry et al. 2018; the default step is that of their code.
    """
    ball = {"epsilon": epsilon, "norm": norm, "scope": scope, "modalities": modalities}
    ascent = Ascent(model, x, y, mask, ball, objective, movable)
    for point in ascent.starts(restarts, random_start, start, seed):
        length = 2.5 * epsilon / steps if step_size is None else step_size
        for _ in range(steps):
            _, gradient = ascent.visit(point)
            point = ascent.step(point, gradient, length)
        ascent.visit(point, gradient=False)
    return ascent.result(keep)


class Ascent:
    """What gradient ascents in a ball have in common: where they begin, how they step, and what they have found.

    Args:
        model, x, y, mask, objective, movable: as for :func:`pgd`.
        ball: ``epsilon`` (unit of x), ``norm``, ``scope`` and ``modalities``, as for :func:`pgd`.
    """

    def __init__(
        self, model: Classifier, x: Frames, y: LabelSets, mask: Mask, ball: dict[str, Any], objective: Objective,
        movable: Movable | None = None,
    ) -> None:  # fmt: skip
        self.model, self.x, self.y, self.mask, self.ball, self.objective = model, x, y, mask, ball, objective
        real = mask[:, :, None]
        self.movable = (real if movable is None else movable & real).expand_as(x)
        self.iterations = 0
        self.silent = self.not_finite = self.broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        # at the first point
        self.gradient_norm = torch.full((len(x),), torch.nan, dtype=torch.float64, device=x.device)
        self.best = self.last = torch.zeros_like(self.x)
        self.clean_logits = self.best_logits = self.last_logits = ask(model, x, mask)
        self.best_value = comparable(objective(self.clean_logits, y))

    def starts(self, restarts: int, random_start: bool, start: Frames | None, seed: int) -> Iterator[Frames]:
        """The perturbation that each restart begins at, as the options of :func:`pgd` say."""
        if not random_start and restarts > 1 + (start is not None):
            raise ValueError(f"{restarts} restarts from the same point repeat one another; leave random_start on")
        for restart in range(restarts):
            if start is not None and restart == 0:
                point = start.detach()
            elif random_start:
                point = uniform(self.movable, **self.ball, seed=(seed, restart)).to(self.x)
            else:
                point = torch.zeros_like(self.x)
            yield self.project(point)

    def visit(self, point: Frames, *, gradient: bool = True) -> tuple[PerVideo, Frames]:
        """Ask the model about a perturbation in the ball and keep it where it is the best so far.

        Gives the objective of every video, and its gradient where it can move: 0 elsewhere, in videos where it is not
        finite, and where none was asked for.
        """
        frames = (self.x + point).requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            logits = self.model(frames, self.mask)
            values = self.objective(logits, self.y)  # (B,)
        if gradient:
            slope = torch.where(self.movable, follow_logits(self.model, values, logits, frames), 0.0)
            finite = finite_rows(slope)
            slope.masked_fill_(~finite[:, None, None], 0.0)
            self.not_finite = self.not_finite | ~finite
            steepness = l2_norm(slope.double()).flatten()
            self.gradient_norm = self.gradient_norm if self.iterations else steepness
            self.silent = (self.silent | (self.iterations == 0)) & (steepness == 0)  # at every point so far
            self.iterations += 1
        else:
            slope = torch.zeros_like(point)
        self.last, self.last_logits = point, logits.detach()
        self.broken = self.broken | ~(values.detach().isfinite() & self.last_logits.isfinite().all(dim=1))
        value = comparable(values.detach())
        better = value > self.best_value
        self.best_value = torch.where(better, value, self.best_value)
        self.best_logits = torch.where(better[:, None], self.last_logits, self.best_logits)
        self.best = torch.where(better[:, None, None], point, self.best)
        return value, slope

    def step(self, point: Frames, gradient: Frames, length: float | Float[Tensor, "batch 1 1"]) -> Frames:
        """Go a length (unit of x, of every video or one for all) along a gradient of :meth:`visit`, and back."""
        return shrunk(point + length * along(gradient, **self.ball | {"epsilon": 1.0}), **self.ball)

    def project(self, point: Frames) -> Frames:
        """The nearest perturbation inside the ball that moves only what may be moved."""
        return project(point * self.movable, self.mask, **self.ball)

    def result(self, keep: Keep = "best", iterations: int | None = None) -> Attack:
        """The attack: the best perturbation so far, or the last; its iterations are the gradients taken if None."""
        perturbation, logits = (self.best, self.best_logits) if keep == "best" else (self.last, self.last_logits)
        return diagnosed(
            self.x, self.y, self.mask, perturbation, self.clean_logits, logits, gradient_norm=self.gradient_norm,
            zero_gradient=self.silent, gradient_not_finite=self.not_finite, logits_not_finite=self.broken,
            iterations=self.iterations if iterations is None else iterations,
        )  # fmt: skip
