"""The one bootstrap of the videos, which every standard error and interval over videos is drawn with."""

import numpy as np
from jaxtyping import Integer

from artpaper import metric_inputs as inputs


def bootstrap_counts(
    videos: inputs.Whole, draws: inputs.Whole, seed: inputs.Whole
) -> Integer[np.ndarray, "draws videos"]:
    """How often each video is in each of ``draws`` bootstrap samples, each as large as the set.

    Equal numbers give equal samples, so all models, seeds and attacks see the same ones and differences are paired.
    """
    videos = inputs.whole(videos, "videos", 1, "there is nothing to draw from")
    draws = inputs.whole(draws, "draws", 1, "nothing would be drawn")
    if max(videos, draws) > inputs.MOST:
        raise ValueError(f"{draws} samples of {videos} videos: no more than {inputs.MOST} of either are counted")
    random = np.random.default_rng(inputs.whole(seed, "seed", 0, "a seed is not negative"))
    counts = np.empty((draws, videos), np.int32)
    for row in counts:
        row[:] = np.bincount(random.integers(videos, size=videos), minlength=videos)
    return counts
