"""What an attack does to attention maps, in numbers, and what is needed to read them (section 3.2.2).

A small change of the maps says little by itself: two maps that are both nearly uniform differ by next to nothing too.
So beside the change stand how far the maps are from uniform, and how much the maps of unrelated videos differ.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from artpaper.shapes import Mask, PerVideo

NUMBERS = ("mse", "head_mse", "uniform_mse", "entropy", "largest", "profile_max", "unrelated_mse")


def attention_numbers(
    clean: Float[Tensor, "batch heads time time"], attacked: Float[Tensor, "batch heads time time"], mask: Mask
) -> dict[str, PerVideo]:
    """Numbers of one modality's maps, one value per video under each name of :data:`NUMBERS`, in float64.

    A is the mean of the clean heads, T the number of real frames; means go over the T x T entries of real frames.

    - ``mse``: mean of (A - A_adv)^2, the paper's figure;
    - ``head_mse``: the same before the heads are averaged, mean over heads: averaging hides changes that cancel;
    - ``uniform_mse``: mean of (A - 1/T)^2, the distance from paying no attention at all;
    - ``entropy``: of a row of A, mean over rows, as a share of a uniform row's log T (1 for a single frame);
    - ``largest``: largest weight of A, in multiples of the uniform 1/T;
    - ``profile_max``: largest attention that a frame receives (column mean of A), in multiples of 1/T;
    - ``unrelated_mse``: mean of (A - B)^2 with B the map of the next video of the batch that has as many frames; NaN
      without one.

    Args:
        clean, attacked: maps of every head for the videos and their adversaries; what is on padding is left out.
        mask: True on real frames.
    Returns:
        One value per video under each name, NaN for one without a frame; those of maps are squared attention weights.
    Source: section 3.2.2; the readings are rows 18 and 19 of docs/ambiguities.md.
    """
    frames = mask.sum(dim=1).double()  # (B,)
    entries = frames.square()
    pairs = mask[:, :, None] & mask[:, None, :]  # (B, T, T)
    outside = pairs == 0  # PyTorch's own attention, for one, has rows of padding that sum to 1
    means = (maps.mean(dim=1, dtype=torch.float64) for maps in (clean, attacked))
    before, after = (mean.masked_fill(outside, 0.0) for mean in means)  # (B, T, T) each
    by_head = (clean - attacked).masked_fill(outside[:, None], 0.0)  # (B, H, T, T)
    uniform = pairs / frames[:, None, None]  # (B, T, T)
    row_entropy = torch.special.entr(before).sum(dim=2).sum(dim=1) / frames  # (B,)
    numbers = {
        "mse": _squares(before - after) / entries,
        "head_mse": _squares(by_head.flatten(1, 2)) / (entries * clean.shape[1]),
        "uniform_mse": _squares(before - uniform) / entries,
        "entropy": torch.where(frames == 1, 1.0, row_entropy / frames.clamp(min=2).log()),
        "largest": before.amax(dim=(1, 2)) * (entries / frames),
        "profile_max": attention_profile(before, mask).amax(dim=1) * frames,
    }
    numbers["unrelated_mse"] = torch.full_like(frames, torch.nan)
    for length in frames.unique():
        same = (frames == length).nonzero().flatten()
        if len(same) > 1:
            numbers["unrelated_mse"][same] = _squares(before[same] - before[same.roll(-1)]) / entries[same]
    return numbers


def attention_profile(maps: Float[Tensor, "batch time time"], mask: Mask) -> Float[Tensor, "batch time"]:
    """Attention that each frame receives: the mean over the rows of real frames, summing to 1 (Figure 2)."""
    return maps.double().masked_fill(mask[:, :, None] == 0, 0.0).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def _squares(difference: Tensor) -> Tensor:
    return difference.double().square().sum(dim=(1, 2))
