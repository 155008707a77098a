"""Entropy bonus: a positive weight flattens the attention maps, a negative one sharpens them."""

import torch

from artpaper.shapes import Maps, Mask, Scalar


def mean_entropy(maps: Maps, mask: Mask) -> Scalar:
    """Entropy of the maps' rows over log T, averaged over rows, videos and modalities; 1 for uniform attention.

    Args:
        maps: head-averaged, zero on padding.
        mask: True on real frames; a video of fewer than two has no entropy and counts as 0.
    """
    frames = mask.sum(dim=1).to(next(iter(maps.values())).dtype)  # (B,)
    scale = frames * frames.clamp(min=2).log()
    floor = torch.finfo(torch.float32).tiny
    rows = [-(a * a.clamp(min=floor).log()).sum(dim=(1, 2)) / scale.clamp(min=1) for a in maps.values()]
    return torch.stack(rows).mean()
