"""DeepFool: the shortest way, in L2, across a boundary of the model, in batches that shrink as videos cross it."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from artpaper.attacks.result import Attack, checked, follow, hit, norms
from artpaper.settings import Count, NonNegative

Criterion = Literal["top1_change", "hit1_loss", "threshold"]
"""What counts as fooled, and between which labels the boundaries lie.

- ``top1_change``: the top label is not the clean top label any more, whatever the true labels are. Boundaries between
  the clean top label and the next best ``candidates - 1`` labels of the clean video. The definition of
  Moosavi-Dezfooli et al. and so the paper's (Figure 4); with nested labels, a parent overtaking its child counts.
- ``hit1_loss``: the top label is not a true one any more. Boundaries between the true label that is best at the moment
  and the best ``candidates - 1`` wrong labels of the clean video. A video whose clean top label is wrong is
  ``already_wrong``: perturbation 0 in 0 iterations, not ``fooled``. Where every label is true there is no boundary
  (``zero_gradient``).
- ``threshold``: any label enters or leaves the predicted set (logit above 0). Boundaries of the ``candidates`` labels
  nearest to 0 in the clean video.
"""

Memory = Annotated[float, Field(gt=0, le=1e9)]
STABILITY = 1e-4  # added to the way to the boundary, as by the authors and by foolbox
COPIES = 5  # arrays of the frames' size that a pass holds: iterate, the model's copy, gradient, its part that is kept,
# best gradient


@partial(checked, labels=False)
def deepfool(
    model: Callable[[Tensor, Tensor], Tensor],
    x: Float[Tensor, "batch time dim"],
    y: Float[Tensor, "batch classes"] | None,
    mask: Bool[Tensor, "batch time"],
    *,
    criterion: Criterion = "top1_change",
    candidates: Annotated[int, Field(ge=2)] = 10,
    steps: Count = 50,
    overshoot: NonNegative = 0.02,
    memory: Memory = 256,
) -> Attack:
    """Approximately minimal L2 perturbation that fools the model, for every video by itself.

    Each iteration takes the model as linear, steps over the nearest boundary, (margin / ||g|| + 1e-4) * g / ||g||, and
    asks the model at x + (1 + overshoot) * (all steps so far). Videos leave the batch once fooled.

    The model is attacked in the mode it is in, on its logits: call ``model.eval()`` first, for with dropout no boundary
    stays where it is. The parameters' ``.grad`` is left as it was.

    Args:
        model: any callable ``model(x, mask) -> logits (batch, classes)``, not only ours.
        x: frames as the model receives them, float (batch, time, dim), unit of the normalised features.
        y: label sets, multi-hot (batch, classes); only criterion "hit1_loss" needs them, else they may be None.
        mask: True on real frames, bool (batch, time); padding is never moved.
        criterion: what counts as fooled: see :data:`Criterion`.
        candidates: labels whose boundaries are looked at, at least 2; each costs a backward pass per iteration.
        steps: most iterations a video is given.
        overshoot: share by which each perturbation is longer than the steps taken.
        memory: MiB that DeepFool itself may hold besides x, the perturbation and what the model's own passes need;
            larger batches are worked through in parts, of one video at the least. It does not change the result.
    Returns:
        Attack: perturbation (batch, time, dim), which is (1 + overshoot) times the steps; both logits; diagnostics.
        ``relative_norm`` is rho, ``gradient_norm`` that of the nearest boundary's margin at the clean video (NaN where
        none was needed: already wrong), ``iterations`` the steps taken, ``fooled`` what the model says at the end, by
        the criterion's meaning; ``already_wrong`` is False except for "hit1_loss". A video that runs out of steps keeps
        what it reached, not ``fooled``. A video without any usable boundary (every gradient 0) stays where it is, with
        ``zero_gradient``; one with a gradient that is not finite has no result, for its boundary may be the nearest.
    Raises:
        TypeError, ValueError: as :func:`artpaper.attacks.fgm`; criterion "hit1_loss" without label sets.
    Warns:
        UserWarning: as :func:`artpaper.attacks.fgm`.
    Source: section 3.2.4, Figure 4; Moosavi-Dezfooli et al. 2016, Algorithm 2, with their published code's 1e-4.
    """
    check_labels(criterion, y)
    search = _Search(model, x, y, mask, criterion, candidates, overshoot)
    active = torch.arange(len(x), device=x.device)
    size = max(1, int(memory * 2**20 / (COPIES * max(1, x[:1].nbytes))))
    for step in range(steps + 1):  # the last round only asks the model
        active = torch.cat([search.advance(rows, step, last=step == steps) for rows in active.split(size)])
        if not len(active):
            break
    return search.result(size)


def check_labels(criterion: Criterion, y: Tensor | None) -> None:
    """Refuse to look for the loss of a true label without label sets (batch, classes).

    Raises:
        TypeError: the criterion is "hit1_loss" and y is None.
    """
    if criterion == "hit1_loss" and y is None:
        raise TypeError("y is None: criterion 'hit1_loss' needs label sets (batch, classes)")


def ask(model: Callable[[Tensor, Tensor], Tensor], x: Tensor, mask: Tensor, *, gradient: bool) -> tuple[Tensor, Tensor]:
    """Ask a model about frames, in a new graph or in none.

    Args:
        model: any callable ``model(x, mask) -> logits``.
        x: frames (batch, time, dim), unit of the normalised features.
        mask: True on real frames (batch, time).
        gradient: whether the graph is kept.
    Returns:
        The frames as a leaf of that graph (batch, time, dim), and the logits (batch, classes).
    """
    iterate = x.detach().requires_grad_(gradient)
    with torch.set_grad_enabled(gradient):
        return iterate, model(iterate, mask)


class _Search:
    """What is known of every video so far."""

    def __init__(
        self,
        model: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        y: Tensor | None,
        mask: Tensor,
        criterion: Criterion,
        candidates: int,
        overshoot: float,
    ) -> None:
        self.model, self.x, self.y, self.mask = model, x, y, mask
        self.criterion, self.candidates, self.overshoot = criterion, candidates, overshoot
        self.perturbation = torch.zeros_like(x)
        self.clean = self.adversarial = x.new_empty(0)
        self.gradient_norm = torch.full((len(x),), torch.nan, dtype=torch.float64, device=x.device)
        self.iterations = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        flags = torch.zeros(5, len(x), dtype=torch.bool, device=x.device)
        self.stuck, self.already_wrong, self.fooled, self.not_finite, self.broken = flags

    def advance(self, rows: Tensor, step: int, *, last: bool) -> Tensor:
        """Ask the model about these videos and move those not fooled by one step; returns the rows to go on with."""
        iterate, logits = ask(self.model, self.x[rows] + self.perturbation[rows], self.mask[rows], gradient=not last)
        if step == 0:
            if not len(self.clean):
                self.clean, self.adversarial = logits.new_empty(2, len(self.x), logits.shape[1])
            self.clean[rows] = logits.detach()
            if self.criterion == "hit1_loss":
                self.already_wrong[rows] = ~hit(logits, self._true(rows))
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
            iterate, logits = ask(self.model, self.x[rows] + self.perturbation[rows], self.mask[rows], gradient=True)
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

    def result(self, size: int) -> Attack:
        """What was found; the norms are taken ``size`` videos at a time."""
        parts = [part.split(size) for part in (self.x, self.mask, self.perturbation)]
        lengths = [norms(*part) for part in zip(*parts, strict=True)]
        diagnostics = {name: torch.cat([length[name] for length in lengths]) for name in lengths[0]} | {
            "gradient_norm": self.gradient_norm,
            "zero_gradient": self.stuck,
            "gradient_not_finite": self.not_finite,
            "logits_not_finite": self.broken,
            "iterations": self.iterations,
            "already_wrong": self.already_wrong,
            "fooled": self.fooled,
        }
        return Attack(self.perturbation, self.clean, self.adversarial, diagnostics)

    def _is_fooled(self, rows: Tensor) -> Tensor:
        clean, now = self.clean[rows], self.adversarial[rows]
        if self.criterion == "top1_change":
            fooled = now.argmax(dim=1) != clean.argmax(dim=1)
        elif self.criterion == "hit1_loss":
            fooled = ~(self.already_wrong[rows] | hit(now, self._true(rows)))
        else:
            fooled = ((now > 0) != (clean > 0)).any(dim=1)
        return fooled & ~now.isnan().any(dim=1)  # a model that breaks down has not been fooled

    def _margins(self, rows: Tensor, logits: Tensor) -> Tensor:
        """How far the logits are on the clean side of each boundary (batch, boundaries); inf where there is none."""
        clean = self.clean[rows]
        count = min(self.candidates, clean.shape[1])
        if self.criterion == "threshold":
            nearest = clean.abs().topk(count, dim=1, largest=False).indices
            return torch.where(clean > 0, logits, -logits).gather(1, nearest)
        top = F.one_hot(clean.argmax(dim=1), clean.shape[1]).bool()
        own = top if self.criterion == "top1_change" else self._true(rows) > 0
        rivals = clean.masked_fill(own, -torch.inf).topk(count - 1, dim=1).indices
        best = logits.masked_fill(~own, -torch.inf).argmax(dim=1, keepdim=True)
        return (logits.gather(1, best) - logits.gather(1, rivals)).masked_fill(own.gather(1, rivals), torch.inf)

    def _true(self, rows: Tensor) -> Tensor:
        assert self.y is not None  # see check_labels
        return self.y[rows]

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
