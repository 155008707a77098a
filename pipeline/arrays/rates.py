"""Modalities of one video that differ in length, brought to one (docs/own_data.md, "Different rates")."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8

Frames = UInt8[np.ndarray, "_ _"] | Float32[np.ndarray, "_ _"]  # (frames, width), both of which differ


def align(parts: Sequence[Frames], rates: str) -> list[Frames]:
    """Modalities of one video, each (frames, width), of one length: they are taken to span the same stretch of time.

    ``repeat``: the longest has T frames, and frame t of one with n frames becomes frame floor(t n / T) of it.
    ``mean``: the shortest has T frames, and frame t of one with n becomes the mean of its frames from floor(t n / T) up
    to, but without, floor((t + 1) n / T). So every frame counts once, and where n is no multiple of T, some of the T
    stand for one frame more than others.
    """
    lengths = [len(part) for part in parts]
    if rates == "repeat":
        return [part[np.arange(max(lengths)) * len(part) // max(lengths)] for part in parts]
    return [part if len(part) == min(lengths) else _mean(part, min(lengths)) for part in parts]


def _mean(part: Float32[np.ndarray, "_ _"], frames: int) -> Float32[np.ndarray, "_ _"]:
    edges = np.arange(frames + 1) * len(part) // frames
    sums = np.add.reduceat(part, edges[:-1], axis=0, dtype=np.float64)  # (frames, width)
    return (sums / np.diff(edges)[:, None]).astype(np.float32)
