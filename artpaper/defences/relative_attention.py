"""Relative attention, this project's own term: flattening the maps gains nothing."""

import torch

from artpaper.settings import Loss
from artpaper.shapes import Maps, Scalar

FLOOR = 0.01  # added in squares to a map's distance to uniform (1 is the norm of the uniform map), for its gradient


def relative_change(clean: Maps, attacked: Maps, config: Loss) -> Scalar:
    """Mean over videos of ||A - A_adv||_Fr over ||A - 1/T||_Fr, summed or averaged over modalities.

    A-ART's term falls when a map is flattened, whatever the adversary does; this one does not, for both norms shrink
    alike. With T real frames ||A - 1/T||^2 = ||A||^2 - 1, because every row sums to 1.

    Args:
        clean, attacked: head-averaged maps per modality, zero on padding.
        config: ``attention_modalities``.
    Returns:
        The term before beta; exactly 0 for equal maps, finite gradients everywhere.
    """
    ratios = []
    for name, reference in clean.items():
        change = torch.linalg.vector_norm(reference - attacked[name], dim=(-2, -1))  # (B,)
        square = reference.square().sum(dim=(-2, -1)) - 1  # (B,); a video without frames gives -1
        ratios.append(change / (square.clamp(min=0) + FLOOR**2).sqrt())
    per_video = torch.stack(ratios)  # (modalities, B)
    return (per_video.mean(dim=0) if config.attention_modalities == "mean" else per_video.sum(dim=0)).mean()
