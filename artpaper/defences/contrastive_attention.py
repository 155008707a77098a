"""Contrastive attention, this project's own term: a map is to move less than it differs from another video's."""

import torch
from jaxtyping import Float
from torch import Tensor

from artpaper.shapes import Maps, Mask, PerVideo

FLOOR = 0.01  # added in squares to the distance to another map (1 is the norm of the uniform map), for its gradient


def distance_to_next(clean: Maps, mask: Mask) -> dict[str, PerVideo]:
    """||A - B||_Fr, B the map of the batch's next video, by which A-ART's term is divided.

    Flat maps and maps that follow the position alone make A-ART's term 0; here they make the distance to B 0 too. It
    is taken on the frames that both videos have, every row scaled to sum 1 there, for lengths alone would tell two
    such maps apart.

    Args:
        clean: head-averaged maps per modality, zero on padding.
        mask: True on real frames.
    Returns:
        The distances per modality, above 0. A batch of one video has no other, and only the floor.
    """
    shared = mask & mask.roll(-1, 0)  # (B, T)
    square = shared[:, :, None] & shared[:, None, :]
    differences = {name: _on(maps, square) - _on(maps.roll(-1, 0), square) for name, maps in clean.items()}
    return {name: (change.square().sum(dim=(-2, -1)) + FLOOR**2).sqrt() for name, change in differences.items()}


def _on(maps: Float[Tensor, "batch time time"], square: Tensor) -> Float[Tensor, "batch time time"]:
    kept = maps * square
    return kept / kept.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(kept.dtype).tiny)
