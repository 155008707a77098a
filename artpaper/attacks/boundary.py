"""What the searches for the nearest boundary have in common: the criterion, what is known of each video, the result."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from artpaper.attacks.result import Attack, norms
from artpaper.guarded import warn
from artpaper.shapes import Classifier, Frames, LabelSets, Logits, Mask

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
# arrays of the frames' size that a pass holds: iterate, the model's copy, gradient, the part kept of it, best gradient
COPIES = 5


class Search:
    """What is known of every video so far; ``rows`` are places of videos in the batch, ``memory`` is in MiB."""

    def __init__(
        self, model: Classifier, x: Frames, mask: Mask, memory: int | float = torch.inf, y: LabelSets | None = None,
        criterion: Criterion | None = None,
    ) -> None:  # fmt: skip
        if criterion == "hit1_loss" and y is None:
            raise TypeError("y is None: criterion 'hit1_loss' needs label sets (batch, classes)")
        self.model, self.x, self.mask, self.memory = model, x, mask, memory
        self.criterion = criterion
        self.true = y > 0 if y is not None and criterion == "hit1_loss" else None  # None where they are not asked for
        self.clean = self.adversarial = x.new_empty(0)  # logits
        self.perturbation = torch.zeros_like(x)
        self.gradient_norm = torch.full((len(x),), torch.nan, dtype=torch.float64, device=x.device)
        self.iterations = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        flags = torch.zeros(5, len(x), dtype=torch.bool, device=x.device)
        self.stuck, self.already_wrong, self.fooled, self.not_finite, self.broken = flags

    def videos(self, copies: int = COPIES) -> int:
        """How many videos the memory allows at once, each holding so many arrays of its frames' size."""
        size = copies * max(1, self.x[:1].nbytes)
        return max(1, len(self.x) if self.memory == torch.inf else int(self.memory * 2**20 / size))

    def own(self, rows: Tensor) -> Tensor:
        """The labels (rows, classes) on the clean side of boundaries: true ones if asked for, else the clean top."""
        if self.true is not None:
            return self.true[rows]
        return F.one_hot(self.clean[rows].argmax(dim=1), self.clean.shape[1]).bool()

    def ask(self, rows: Tensor, *, gradient: bool) -> tuple[Frames, Logits]:
        """Frames of the rows (rows,) as perturbed, the leaf of a new graph or of none, and the logits of the model."""
        iterate = (self.x[rows] + self.perturbation[rows]).detach().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            return iterate, self.model(iterate, self.mask[rows])

    def result(self, perturbation: Frames) -> Attack:
        """The attack; norms are taken of some videos at a time."""
        parts = zip(*(part.split(self.videos()) for part in (self.x, self.mask, perturbation)), strict=True)
        lengths = [norms(*part) for part in parts]
        diagnostics = {name: torch.cat([length[name] for length in lengths]) for name in lengths[0]} | {
            "gradient_norm": self.gradient_norm, "zero_gradient": self.stuck, "gradient_not_finite": self.not_finite,
            "logits_not_finite": self.broken, "iterations": self.iterations, "already_wrong": self.already_wrong,
            "fooled": self.fooled,
        }  # fmt: skip
        moved = diagnostics["norm"][self.fooled & (diagnostics["norm"] > 0)]
        if len(moved) and moved.median() < 100 * STABILITY:
            warn(
                f"half of the fooled videos are moved by less than {moved.median():.2g}, beside which the {STABILITY} "
                "that every step adds is not small: rho is overstated; scale the features up"
            )
        return Attack(perturbation, self.clean, self.adversarial, diagnostics)
