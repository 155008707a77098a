"""Modalities of one video that were sampled at different rates, brought to the same number of frames."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8

Frames = UInt8[np.ndarray, "_ _"] | Float32[np.ndarray, "_ _"]  # (frames, width), both of which differ


def align(parts: Sequence[Frames], rates: str) -> list[Frames]:
    """All parts of one length; they are taken to span the same stretch of time.

    Args:
        parts: the modalities of a video, each (frames, width).
        rates: ``repeat``: the longest has T frames, and frame t of one with n frames becomes frame floor(t n / T) of
            it. ``mean``: the shortest has T frames, and frame t of one with n becomes the mean of its frames from
            floor(t n / T) up to, but without, floor((t + 1) n / T). So every frame counts once, and where n is no
            multiple of T, some of the T stand for one frame more than others.
    Returns:
        The parts in their order; those that have T frames as they were.
    """
    lengths = [len(part) for part in parts]
    frames = max(lengths) if rates == "repeat" else min(lengths)
    change = _repeat if rates == "repeat" else _mean
    return [part if len(part) == frames else change(part, frames) for part in parts]


def _repeat(part: Frames, frames: int) -> Frames:
    return part[np.arange(frames) * len(part) // frames]


def _mean(part: Float32[np.ndarray, "_ _"], frames: int) -> Float32[np.ndarray, "_ _"]:
    edges = np.arange(frames + 1) * len(part) // frames
    sums = np.add.reduceat(part, edges[:-1], axis=0, dtype=np.float64)  # (frames, width)
    return (sums / np.diff(edges)[:, None]).astype(np.float32)
