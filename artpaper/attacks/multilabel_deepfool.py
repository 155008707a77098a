"""Multi-label DeepFool: the shortest way, in L2, to a given label set, all labels' boundaries considered at once."""

from functools import partial
from typing import Literal

import torch
from jaxtyping import Shaped
from torch import Tensor

from artpaper.attacks.boundary import COPIES, STABILITY, Memory, Search
from artpaper.attacks.result import Attack, checked, norms
from artpaper.inputs import labels_of
from artpaper.settings import Count, NonNegative
from artpaper.shapes import Classifier, Frames, LabelSets, Mask

Outputs = Literal["sigmoid", "logits"]
BATCHED = 128  # gradients taken by one batched backward pass: four times as fast as a loop for one video, equal for 16


@partial(checked, labels=False)
def multilabel_deepfool(
    model: Classifier, x: Frames, y: LabelSets | None, mask: Mask, *,
    target: Shaped[Tensor, "batch classes"] | None = None, outputs: Outputs = "sigmoid", steps: Count = 20,
    overshoot: NonNegative = 0.02, memory: Memory = 256,
) -> Attack:  # fmt: skip
    """Small L2 perturbation after which the model predicts exactly ``target``, prediction being logit > 0.

    Not the rho of Figure 4: that asks for any change of the top label, this for one given set of labels.

    Each iteration takes all labels' outputs as linear in the frames, P being their Jacobian and q what they lack, and
    adds the least-norm solution P^T (P P^T)^-1 q; the iterate is x + (1 + overshoot) * (all steps so far). The best
    iterate is kept: fewest wrong labels, then the smallest norm.

    Where this departs from the paper: it brings every label onto 0.5, those on their right side as well. Here such
    labels are only asked not to cross: the labels on the wrong side are solved for, then again with those that this
    would carry across, held on their right side, until there are none. Both kinds end 1e-4 of distance inside. Rows of
    P are brought to length 1, and dependent ones are solved by the pseudo-inverse, all in float64.

    Args:
        model, x, mask: as for :func:`artpaper.attacks.fgm`.
        y: label sets, multi-hot (batch, classes); they only make the default target, and may be None beside one.
        target: label set each video is pushed to, multi-hot (batch, classes); by default what the model predicts with
            the true labels switched off.
        outputs: what is taken as linear on the way to 0.5: the "sigmoid" outputs, as in the paper, or the "logits". A
            sigmoid is flat far from 0.5, so the paper's step moves a logit z by sinh(z) where z would do: 27 for 4.
            For a minimal perturbation of a confident model take "logits".
        steps: most iterations a video is given.
        overshoot: share by which each perturbation is longer than the steps taken.
        memory: MiB, as for :func:`artpaper.attacks.deepfool.deepfool`; one video's Jacobian, (classes, time, dim), is
            held in any case.
    Returns:
        Attack: ``fooled``: the target is reached exactly; ``already_wrong``: it is the clean prediction, so nothing was
        done; ``gradient_norm`` of the logit of the nearest label to be switched, at the clean video (NaN where there is
        none); ``iterations`` the steps taken, also if an earlier iterate was the best; ``zero_gradient``: no label to
        be switched had a usable gradient.
    Raises:
        TypeError: neither label sets nor a target.
        ValueError: a target that does not fit the logits, or as :func:`artpaper.attacks.fgm`.
    Source: Song et al. 2018 (arXiv:1901.00546), ML-DP; at most 20 iterations.
    """
    search = _Search(model, x, mask, memory)
    search.outputs, search.overshoot = outputs, overshoot
    parts = torch.arange(len(x), device=x.device).split(search.videos())
    clean = torch.cat([search.ask(rows, gradient=False)[1] for rows in parts])
    if target is not None:
        target = labels_of(target, x, "target") > 0
    elif y is not None:
        target = (clean > 0) & ~(y > 0)
    else:
        raise TypeError("y is None: label sets (batch, classes) are needed to make the target, or pass target")
    if target.shape != clean.shape:
        raise ValueError(f"target {tuple(target.shape)} does not fit logits {tuple(clean.shape)}")
    search.start(clean, target)
    for _ in range(steps):
        if not len(search.active):
            break
        search.advance()
    search.fooled = (search.best_wrong == 0) & ~search.already_wrong
    return search.result(search.best)


class _Search(Search):
    outputs: Outputs
    overshoot: float

    def start(self, clean: Tensor, target: Tensor) -> None:
        self.clean, self.target, self.adversarial = clean, target, clean.clone()
        self.best, self.best_norm = torch.zeros_like(self.x), torch.zeros_like(self.gradient_norm)
        self.best_wrong = self._wrong(clean, target)
        self.already_wrong = self.best_wrong == 0
        self.active = (~self.already_wrong).nonzero().flatten()

    def advance(self) -> None:
        """Move the active videos by one step, ask the model about them and go on with those not at their target."""
        # half of the budget for the Jacobian, half for the pass that makes it
        parts = self.active.split(self.videos(2 * self.clean.shape[1]))
        self.active = torch.cat([self._move(rows) for rows in parts])
        parts = self.active.split(self.videos())
        self.active = torch.cat([self._judge(rows) for rows in parts])

    def _wrong(self, logits: Tensor, target: Tensor) -> Tensor:
        """Number of labels on the wrong side; a model that breaks down is worse than any."""
        wrong = ((logits > 0) != target).sum(dim=1)
        return wrong.masked_fill(logits.isnan().any(dim=1), logits.shape[1] + 1)

    def _judge(self, rows: Tensor) -> Tensor:
        _, logits = self.ask(rows, gradient=False)
        self.broken[rows] |= ~logits.isfinite().all(dim=1)
        wrong = self._wrong(logits, self.target[rows])
        norm = norms(self.x[rows], self.mask[rows], self.perturbation[rows])["norm"]
        better = (wrong < self.best_wrong[rows]) | ((wrong == self.best_wrong[rows]) & (norm < self.best_norm[rows]))
        kept = rows[better]
        self.best_wrong[kept], self.best_norm[kept] = wrong[better], norm[better]
        self.best[kept], self.adversarial[kept] = self.perturbation[kept], logits[better]
        return rows[wrong > 0]

    def _move(self, rows: Tensor) -> Tensor:
        iterate, logits = self.ask(rows, gradient=True)
        batched = min(max(1, BATCHED // len(rows)), max(1, self.videos(2 * COPIES) // len(rows)))
        jacobian = _jacobian(logits, iterate, ~self.mask[rows], batched)
        moved = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        for index, row in enumerate(rows.tolist()):
            weights = self._solve(row, logits[index].detach().double(), _gram(jacobian[index]))
            if weights is not None:
                step = torch.tensordot(weights.to(jacobian.dtype), jacobian[index], dims=1)
                self.perturbation[row] += (1 + self.overshoot) * step
                self.iterations[row] += 1
                moved[index] = True
        self.stuck[rows] = ~moved
        return rows[moved]

    def _solve(self, row: int, logits: Tensor, gram: Tensor) -> Tensor | None:
        """Weights of the Jacobian's rows in the least-norm step of one video; None without any usable row."""
        side = torch.where(self.target[row], 1.0, -1.0).double()
        wrong = (logits > 0) != self.target[row]
        length = gram.diagonal().sqrt()
        usable = (length > 0) & length.isfinite()
        self.not_finite[row] |= ~length.isfinite().all()
        # sigmoid: (0.5 - s) / (s (1 - s)) = -sinh(z), free of the division of two numbers that vanish
        lack = -side * torch.where(wrong & (self.outputs == "sigmoid"), logits.sinh(), logits)
        lack = torch.where(usable, lack / length, -torch.inf) + STABILITY
        lack = torch.where(wrong, lack, lack / (1 + self.overshoot))  # the overshoot must not carry these across
        chosen = wrong & usable & lack.isfinite()
        if not chosen.any():
            return None
        if self.iterations[row] == 0:
            self.gradient_norm[row] = length[lack.masked_fill(~chosen, torch.inf).argmin()]
        rows = torch.where(usable, side / length, 0.0)
        unit = gram * rows[:, None] * rows
        while True:
            index = chosen.nonzero().flatten()
            weights = torch.linalg.pinv(unit[index][:, index], rtol=1e-10, hermitian=True) @ lack[index]
            crossing = ~wrong & ~chosen & (unit[:, index] @ weights < lack)
            if not crossing.any():
                return torch.zeros_like(lack).index_put((index,), weights * rows[index])
            chosen = chosen | crossing


def _jacobian(logits: Tensor, iterate: Tensor, padding: Tensor, batched: int) -> Tensor:
    """Gradient of every logit with respect to the frames (batch, classes, time, dim), 0 on padding."""
    count, classes = logits.shape
    jacobian = iterate.new_empty(count, classes, *iterate.shape[1:])
    one_hot = torch.eye(classes, dtype=logits.dtype, device=logits.device)[:, None].expand(-1, count, -1)
    start = 0
    while start < classes:
        chosen = slice(start, start + batched)
        try:
            cotangent = one_hot[chosen] if batched > 1 else one_hot[start]
            (gradient,) = torch.autograd.grad(
                logits, iterate, cotangent, retain_graph=True, is_grads_batched=batched > 1, allow_unused=True
            )
        except RuntimeError:
            if batched == 1:
                raise
            batched = 1  # vmap does not take every module: one label at a time takes them all
            continue
        if gradient is None:  # the answer does not depend on the frames
            return jacobian.zero_()
        jacobian[:, chosen] = gradient.reshape(-1, *iterate.shape).transpose(0, 1)
        start += batched
    return jacobian.masked_fill_(padding[:, None, :, None], 0.0)


def _gram(jacobian: Tensor) -> Tensor:
    """Inner products of one video's gradients, float64 (classes, classes); summed frame by frame to hold no copy."""
    gram = torch.zeros(2 * jacobian.shape[:1], dtype=torch.float64, device=jacobian.device)
    for frame in jacobian.unbind(dim=1):
        wide = frame.double()
        gram += wide @ wide.T
    return gram
