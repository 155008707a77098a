"""Contrastive attention, this project's own term: a map is to move less than it differs from another video's."""

import torch
from jaxtyping import Float
from torch import Tensor

from artpaper.settings import Loss
from artpaper.shapes import Maps, Mask, Scalar

FLOOR = 0.01  # added in squares to the distance to another map (1 is the norm of the uniform map), for its gradient


def contrastive_change(clean: Maps, attacked: Maps, mask: Mask, config: Loss) -> Scalar:
    """Mean over videos of ||A - A_adv||_Fr over ||A - B||_Fr, B the next video's map; as A-ART's term over modalities.

    Flat maps and maps that follow the position alone make A-ART's term 0; here they make the distance to B 0 too. The
    distance is taken on the frames that both videos have, every row scaled to sum 1 there, for lengths alone would
    tell two such maps apart.

    Args:
        clean, attacked: head-averaged maps per modality, zero on padding.
        mask: True on real frames.
        config: ``attention_modalities``.
    Returns:
        The term before beta; exactly 0 for equal maps. A batch of one video has no other, and only the floor.
    """
    shared = mask & mask.roll(-1, 0)  # (B, T)
    square = shared[:, :, None] & shared[:, None, :]
    ratios = []
    for name, reference in clean.items():
        change = torch.linalg.vector_norm(reference - attacked[name], dim=(-2, -1))  # (B,)
        own, other = _on(reference, square), _on(reference.roll(-1, 0), square)
        distance = (own - other).square().sum(dim=(-2, -1))  # (B,)
        ratios.append(change / (distance + FLOOR**2).sqrt())
    per_video = torch.stack(ratios)  # (modalities, B)
    return (per_video.mean(dim=0) if config.attention_modalities == "mean" else per_video.sum(dim=0)).mean()


def _on(maps: Float[Tensor, "batch time time"], square: Tensor) -> Float[Tensor, "batch time time"]:
    kept = maps * square
    return kept / kept.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(kept.dtype).tiny)
