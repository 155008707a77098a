"""DeepFool: the shortest way, in L2, across a boundary of the model, in batches that shrink as videos cross it."""

from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from artpaper.attacks.boundary import STABILITY, Criterion, Memory, Search
from artpaper.attacks.result import Attack, checked, follow, hit
from artpaper.settings import Count, NonNegative
from artpaper.shapes import Classifier, Frames, LabelSets, Mask


@partial(checked, labels=False)
def deepfool(
    model: Classifier, x: Frames, y: LabelSets | None, mask: Mask, *, criterion: Criterion = "top1_change",
    candidates: Annotated[int, Field(ge=2)] = 10, steps: Count = 50, overshoot: NonNegative = 0.02,
    memory: Memory = 256,
) -> Attack:  # fmt: skip
    """Approximately minimal L2 perturbation that fools the model, for every video by itself.

    Each iteration takes the model as linear, steps over the nearest boundary, (margin / ||g|| + 1e-4) * g / ||g||, and
    asks the model at x + (1 + overshoot) * (all steps so far). Videos leave the batch once fooled.

    Args:
        model, x, mask: as for :func:`artpaper.attacks.fgm`.
        y: label sets, multi-hot (batch, classes); only criterion "hit1_loss" needs them, else they may be None.
        criterion: what counts as fooled: see :data:`artpaper.attacks.boundary.Criterion`.
        candidates: labels whose boundaries are looked at, at least 2; each costs a backward pass per iteration.
        steps: most iterations a video is given.
        overshoot: share by which each perturbation is longer than the steps taken.
        memory: MiB that DeepFool itself may hold besides x, the perturbation and what the model's own passes need;
            larger batches are worked through in parts, of one video at the least. It does not change the result.
    Returns:
        Attack: ``relative_norm`` is rho, ``gradient_norm`` that of the nearest margin at the clean video (NaN where
        none was needed: already wrong), ``iterations`` the steps taken, ``fooled`` what the model says at the
        end, by the criterion's meaning; ``already_wrong`` is False except for "hit1_loss". A video that runs out of
        steps keeps what it reached, not ``fooled``. A video without any usable boundary (every gradient 0) stays where
        it is, with ``zero_gradient``; one with a gradient that is not finite has no result, for its boundary may be the
        nearest.
    Raises:
        TypeError, ValueError: as :func:`artpaper.attacks.fgm`; criterion "hit1_loss" without label sets.
    Source: section 3.2.4, Figure 4; Moosavi-Dezfooli et al. 2016, Algorithm 2, with their published code's 1e-4.
    """
    search = _Search(model, x, mask, memory, y, criterion)
    search.candidates, search.overshoot = candidates, overshoot
    active = torch.arange(len(x), device=x.device)
    for step in range(steps + 1):  # the last round only asks the model
        parts = active.split(search.videos())
        active = torch.cat([search.advance(rows, step, last=step == steps) for rows in parts])
        if not len(active):
            break
    return search.result(search.perturbation)


class _Search(Search):
    candidates: int
    overshoot: float

    def advance(self, rows: Tensor, step: int, *, last: bool) -> Tensor:
        """Ask the model about these videos and move those not fooled by one step; returns the rows to go on with."""
        iterate, logits = self.ask(rows, gradient=not last)
        if step == 0:
            if not len(self.clean):
                self.clean, self.adversarial = logits.new_empty(2, len(self.x), logits.shape[1])
            self.clean[rows] = logits.detach()
            if self.true is not None:
                self.already_wrong[rows] = ~hit(logits, self.true[rows])
        self.adversarial[rows] = logits.detach()
        self.broken[rows] |= ~logits.detach().isfinite().all(dim=1)
        self.fooled[rows] = self._is_fooled(rows)
        left = ~(self.fooled[rows] | self.already_wrong[rows])
        if last or not left.any():
            return rows[:0]
        if self.candidates * (~left).sum() > left.sum():
            # backward passes through the finished videos would cost more than one forward pass without them
            del iterate, logits
            rows, left = rows[left], left[left]
            iterate, logits = self.ask(rows, gradient=True)
        distance, norm, gradient, finite = self._nearest(rows, iterate, logits)
        self.not_finite[rows] |= left & ~finite
        scale = ((1 + self.overshoot) * (distance + STABILITY) / norm).to(gradient.dtype)
        usable = scale.isfinite()
        if step == 0:
            self.gradient_norm[rows[left]] = torch.where(usable, norm, 0.0)[left]
        self.stuck[rows] = left & ~usable
        go = left & usable
        gradient *= scale.where(go, 0.0)[:, None, None]
        self.perturbation[rows] += gradient
        self.iterations[rows] += go
        return rows[go]

    def _is_fooled(self, rows: Tensor) -> Tensor:
        clean, now = self.clean[rows], self.adversarial[rows]
        if self.criterion == "threshold":
            fooled = ((now > 0) != (clean > 0)).any(dim=1)
        elif self.true is None:
            fooled = now.argmax(dim=1) != clean.argmax(dim=1)
        else:
            fooled = ~(self.already_wrong[rows] | hit(now, self.true[rows]))
        return fooled & ~now.isnan().any(dim=1)  # a model that breaks down has not been fooled

    def _margins(self, rows: Tensor, logits: Tensor) -> Tensor:
        """How far the logits are on the clean side of each boundary (batch, boundaries); inf where there is none."""
        clean = self.clean[rows]
        count = min(self.candidates, clean.shape[1])
        if self.criterion == "threshold":
            nearest = clean.abs().topk(count, dim=1, largest=False).indices
            return torch.where(clean > 0, logits, -logits).gather(1, nearest)
        own = self.own(rows)
        rivals = clean.masked_fill(own, -torch.inf).topk(count - 1, dim=1).indices
        best = logits.masked_fill(~own, -torch.inf).argmax(dim=1, keepdim=True)
        return (logits.gather(1, best) - logits.gather(1, rivals)).masked_fill(own.gather(1, rivals), torch.inf)

    def _nearest(self, rows: Tensor, iterate: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Distance to the nearest boundary, norm of its gradient (both float64), the gradient that leads there, and
        whether all boundaries' gradients are finite.
        """
        padding = ~self.mask[rows]
        distance = torch.full((len(rows),), torch.inf, dtype=torch.float64, device=iterate.device)
        norm, nearest = torch.zeros_like(distance), torch.zeros_like(iterate)
        finite = torch.ones_like(distance, dtype=torch.bool)
        with torch.enable_grad():
            margins = self._margins(rows, logits)
            pulls = (-margins).sum(dim=0).unbind()  # summed over the batch, so no video's gradient depends on another
        # one backward pass a boundary, not one batched over all: as fast (measured), and modules that vmap refuses work
        for index, (pull, margin) in enumerate(zip(pulls, margins.detach().unbind(dim=1), strict=True), start=1):
            gradient = follow(pull, iterate, retain_graph=index < len(pulls))
            # frame by frame in its own type, then in float64: exact to 1e-6, and no copy of the gradient
            frames = torch.linalg.vector_norm(gradient, dim=2).double().masked_fill(padding, 0.0)
            length = torch.linalg.vector_norm(frames, dim=1)
            if not ((length > 0) & length.isfinite()).all():  # or squares of its own type are too small or too large
                wide = gradient.double().masked_fill(padding[:, :, None], 0.0)
                exact = torch.linalg.vector_norm(wide, dim=(1, 2))
                length = torch.where((length > 0) & length.isfinite(), length, exact)
            finite &= length.isfinite()
            way = margin.double() / length
            closer = (length > 0) & length.isfinite() & (way < distance)
            distance, norm = torch.where(closer, way, distance), torch.where(closer, length, norm)
            nearest[closer] = gradient[closer]
        return distance, norm, nearest.masked_fill_(padding[:, :, None], 0.0), finite
