"""Attacks that know where the defence is: they raise the loss and the change of the attention maps together.

A model may resist a gradient because its attention has learned to pass none on. So the attention is attacked too: the
paper's averaged maps, the map of every head, or the scores before the softmax, whose gradient a saturated one cannot
hide.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from artpaper.attacks.objectives import Objective, bce
from artpaper.attacks.projected_gradient import pgd
from artpaper.attacks.result import FLAGS, Attack, checked, goal
from artpaper.guarded import Guarded, without_attention
from artpaper.settings import NonNegative
from artpaper.shapes import Frames, LabelSets, Mask, Widths

Over = Literal["maps", "heads", "scores"]
"""What of the attention is changed: see :class:`AttentionColumns`."""


class AttentionColumns:
    """A model whose answer has, after the logits, a column per modality: how far its attention has moved.

    The distance from the clean video's attention is the Frobenius norm over a video's real frames, ||A - A_adv||_Fr, of

    - ``maps``: the paper's A, the mean over heads;
    - ``heads``: every head's map, where changes that cancel in the mean still count;
    - ``scores``: what goes into the softmax, per head. They are read off the maps: the logarithm of a row is the row's
      scores up to a constant, and the constant, which no softmax sees, goes when each row's mean is taken off.

    It is 0 with gradient 0 at the clean video itself and where attention is uniform. Only attacks that keep the batch
    whole and in order can be used, such as :func:`artpaper.attacks.fgm`, ``pgd`` and ``apgd``.

    Args:
        model: as :class:`artpaper.models.FrameTransformer`, with ``return_attention`` and ``attention_heads``.
        x: clean frames, unit of the normalised features.
        mask: True on real frames.
        over: "maps", "heads" or "scores".
    Raises:
        ValueError: ``over`` is none of these, the model shows no attention, or it is asked about another batch.
    Source: section 2.2 for the change; Lovisotto et al. 2022 (Give Me Your Attention) for the scores.
    """

    def __init__(self, model: Any, x: Frames, mask: Mask, over: Over = "maps") -> None:
        if over not in get_args(Over):
            raise ValueError(f"over {over!r} is none of {', '.join(get_args(Over))}")
        if not hasattr(model, "attention_heads"):
            raise ValueError(without_attention(model))
        self.model, self.over = Guarded(model), over
        self.modalities: Widths = model.modalities
        with torch.no_grad():
            _, self.clean = self._look(x, mask)

    def __call__(self, x: Frames, mask: Mask) -> Float[Tensor, "batch columns"]:
        """The model's logits, then each modality's change, for frames and their mask; columns: classes + modalities."""
        logits, attention = self._look(x, mask)
        if any(values.shape != self.clean[name].shape for name, values in attention.items()):
            raise ValueError(f"asked about {tuple(x.shape)}, not the batch that the change is measured from")
        # vector_norm, not sqrt(sum of squares): its gradient at 0 is 0, not NaN
        changes = [torch.linalg.vector_norm((a - self.clean[name]).flatten(1), dim=1) for name, a in attention.items()]
        return torch.cat([logits, torch.stack(changes, dim=1).to(logits.dtype)], dim=1)

    def _look(self, x: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if self.over == "maps":
            return self.model.with_maps(x, mask)
        heads = self.model.heads(x, mask)  # (B, H, T, T) each
        if self.over == "scores":
            heads = {name: _centred_scores(maps, mask) for name, maps in heads.items()}
        return self.model(x, mask), heads


@checked
def attention_pgd(
    model: Any, x: Frames, y: LabelSets, mask: Mask, *, epsilon: NonNegative, weight: NonNegative = 0.1,
    over: Over = "maps", finish: bool = True, objective: Objective = bce, attack: Callable[..., Attack] = pgd,
    **options: Any,
) -> Attack:  # fmt: skip
    """Raise loss + weight * attention change, then the loss alone from there: adaptive to a defence of the attention.

    The change is summed over modalities. Where it outweighs the loss, the first search ends with maps far away and a
    loss below that of an attack on the loss alone, which is why the second one follows; it costs as much again. Where
    attention cannot change, as in uniform attention, both are attacks on the loss.

    Args:
        model: as :class:`AttentionColumns` needs it, in eval mode.
        x, y, mask, epsilon, objective: as for :func:`artpaper.attacks.fgm`.
        weight: of the attention change, in units of the loss; 0 is an attack on the loss alone. Scores change some tens
            of times as much as maps do and want a smaller one.
        over: whose change: "maps", "heads" or "scores", as in :class:`AttentionColumns`.
        finish: whether the loss alone is raised afterwards, from the perturbation at which the sum was highest.
        attack: what raises either: one that keeps the batch whole and in order, with ``epsilon``, ``objective`` and
            ``start``, such as :func:`artpaper.attacks.pgd` or :func:`artpaper.attacks.apgd`.
        options: more arguments of that attack, such as ``steps``, ``norm`` or ``scope``.
    Returns:
        Attack: with the model's own logits. ``gradient_norm`` is that of the sum, ``zero_gradient`` says that neither
        search had anything to follow, ``iterations`` counts both.
    Source: Tramer et al. 2020 on adaptive attacks; Lovisotto et al. 2022 for ``over="scores"``.
    """
    classes = y.shape[1]

    def both(columns: Tensor, labels: Tensor) -> Tensor:
        return objective(columns[:, :classes], labels[:, :classes]) + weight * columns[:, classes:].sum(dim=1)

    watched = AttentionColumns(model, x, mask, over)
    padded = F.pad(y, (0, len(watched.modalities)))  # no label is true in the columns that are no classes
    first = attack(watched, x, padded, mask, epsilon=epsilon, objective=both, **options)
    if not finish:  # told of the model's own logits, without the attention's columns
        clean, adversarial = first.clean_logits[:, :classes], first.adversarial_logits[:, :classes]
        return Attack(first.perturbation, clean, adversarial, first.diagnostics | goal(clean, adversarial, y))
    last = attack(model, x, y, mask, epsilon=epsilon, objective=objective, **options | {"start": first.perturbation})
    before, after = first.diagnostics, last.diagnostics
    search = {"gradient_norm": before["gradient_norm"], "iterations": before["iterations"] + after["iterations"]}
    search["zero_gradient"] = before["zero_gradient"] & after["zero_gradient"]
    search |= {flag: before[flag] | after[flag] for flag in FLAGS}
    return replace(last, diagnostics=after | search)


def _centred_scores(heads: Tensor, mask: Tensor) -> Tensor:
    """Scores of each head, a row's mean over real frames taken off, 0 on padding (B, H, T, T)."""
    pairs = mask[:, None, :, None] & mask[:, None, None, :]  # (B, 1, T, T)
    # a weight that has underflowed to 0 has the logarithm of the smallest number, and no gradient
    logarithm = heads.clamp(min=torch.finfo(heads.dtype).tiny).log().masked_fill(~pairs, 0.0)
    frames = mask.sum(dim=1)[:, None, None, None].clamp(min=1)
    return (logarithm - logarithm.sum(dim=-1, keepdim=True) / frames) * pairs
