"""What an attack may raise: a loss of every video, from its logits and its label set, higher where the model is worse.

A video without labels, or with every label, has nothing to confuse: all but the cross-entropy are a constant there,
with gradient 0.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from artpaper.inputs import LABELS, zero_one
from artpaper.shapes import Flags, LabelSets, Logits, PerVideo

Objective = Callable[[Tensor, Tensor], Tensor]


def pair(logits: Any, y: Any) -> LabelSets:
    """Label sets in the type and on the device of the logits, both (batch, classes), or an error in words."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise TypeError(f"logits are a tensor of floats, not {getattr(logits, 'dtype', type(logits).__name__)}")
    y = zero_one("y", y, logits, LABELS.format("y"))
    if logits.ndim != 2 or not logits.shape[1] or y.shape != logits.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and y {tuple(y.shape)} must both be (batch, classes)")
    return y.to(logits.dtype)


def _of_pairs(objective: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An objective whose label sets are checked first."""

    @functools.wraps(objective)
    def checked(logits: Any, y: Any, *args: Any, **options: Any) -> Tensor:
        return objective(logits, pair(logits, y), *args, **options)

    return checked


@_of_pairs
def bce(logits: Logits, y: LabelSets) -> PerVideo:
    """Binary cross-entropy of every video, averaged over classes (the paper's l), in nats."""
    return F.binary_cross_entropy_with_logits(logits, y, reduction="none").mean(dim=-1)


@_of_pairs
def margin(logits: Logits, y: LabelSets) -> PerVideo:
    """Highest logit of a wrong label minus lowest logit of a true one: above 0 once the two sets overlap.

    Unlike :func:`bce` it does not flatten out where the model is sure, and no easy label takes part in it.

    Source: the multi-label form of Carlini and Wagner 2017 (f6), as in Song et al. 2018 (ML-CW).
    """
    wrong = logits.masked_fill(y > 0, -torch.inf).amax(dim=-1)
    right = logits.masked_fill(y <= 0, torch.inf).amin(dim=-1)
    return torch.where(_mixed(y), wrong - right, 0.0)


@_of_pairs
def dlr(logits: Logits, y: LabelSets) -> PerVideo:
    """Difference of logits ratio for label sets: the margin, whatever the scale and the shift of the logits.

    With the logits sorted, z_1 >= ... >= z_K, it is :func:`margin` / (z_1 - z_K), between -1 and 1, and above 0 once
    the two sets overlap. The published loss for one label divides by z_1 - z_3, the same for three classes. For label
    sets that ratio can be raised by making the best logits equal, as soon as a true label is behind, and mostly one is
    from the start. With two classes only its sign is left, with gradient 0; where all logits are equal it is 0.

    Source: Croce and Hein 2020, section 4, for one label; its form for label sets is this project's.
    """
    spread = logits.amax(dim=-1) - logits.amin(dim=-1)
    return margin(logits, y) / torch.where(spread > 0, spread, 1.0)


@_of_pairs
def top_k_ap(logits: Logits, y: LabelSets, k: int = 20, temperature: float = 1.0) -> PerVideo:
    """One minus a smooth average precision of the k best labels, the quantity that GAP pools over videos.

    The precision at a true label is the number of true labels that are at least as good, over the number of labels
    that are; a comparison of two logits is the sigmoid of their difference. True labels that are not among the k best
    add nothing, and ask for nothing.

    Args:
        logits: the model's answers.
        y: label sets, multi-hot.
        k: how many of the best labels are listed, YouTube-8M's 20 by default.
        temperature: difference of logits at which a comparison is 73 % sure; towards 0 the average precision itself.
    Returns:
        Between 0, all true labels first, and 1, none among the k best.
    Raises:
        ValueError: k below 1, or a temperature that is not above 0.
    Source: the smooth ranks of Brown et al. 2020 (Smooth-AP, arXiv 2007.12163); the attack on the k best labels, by
        another loss, of Lyu et al. 2021 (TkML-AP, arXiv 2108.00146).
    """
    if k < 1 or not 0 < temperature < math.inf:
        raise ValueError(f"k is at least 1 and temperature above 0, not {k} and {temperature}")
    count = (y > 0).sum(dim=-1)  # (B,)
    true = y.argsort(dim=-1, descending=True, stable=True)[:, : max(1, int(count.max()) if len(y) else 1)]  # (B, P)
    own = logits.gather(-1, true)  # (B, P)
    ahead = ((logits[:, None] - own[:, :, None]) / temperature).sigmoid()  # (B, P, K)
    itself = torch.zeros_like(ahead, dtype=torch.bool).scatter(-1, true[:, :, None], True)
    ahead = ahead.masked_fill(itself, 1.0)
    precision = (ahead * (y > 0)[:, None]).sum(dim=-1) / ahead.sum(dim=-1)  # (B, P)
    listed = (logits[:, None] > own[:, :, None]).sum(dim=-1) < k
    listed &= torch.arange(true.shape[1], device=y.device) < count[:, None]  # the rest fills up the rows
    average = torch.where(listed, precision, 0.0).sum(dim=-1) / count.clamp(1, k)
    return torch.where(_mixed(y), 1 - average, 0.0)


OBJECTIVES: dict[str, Objective] = {objective.__name__: objective for objective in (bce, margin, dlr, top_k_ap)}
"""Every objective by its name."""


def _mixed(y: Tensor) -> Flags:
    """Whether a video has both true and wrong labels."""
    return (y > 0).any(dim=-1) & ~(y > 0).all(dim=-1)
