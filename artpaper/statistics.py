"""Is model A better than model B, given some training seeds of each and one set of test videos?

Chance enters twice: other videos could have been drawn, and other seeds. Seeds and videos are crossed (every seed is
tried on the same videos), as readers and cases are in studies of diagnosis, and the analysis is the one used there.
The variance of a mean over n seeds is

    var_videos + var_seeds / n

- var_seeds: the plain variance of the seeds' values. It holds what training adds, and also what a seed adds by itself
  on single videos;
- var_videos: the variance over bootstrap samples of the videos that all seeds share. What a seed adds by itself on
  single videos is taken out, for it is in var_seeds.

Differences of two models take the same bootstrap samples, and the same seeds where both have the same. With one seed,
nothing is known of training: the interval is about the videos alone, and there is no p value.

Source: Obuchowski and Rockette 1995, Communications in Statistics 24; degrees of freedom of Hillis 2007, Statistics in
Medicine 26; Holm 1979, Scandinavian Journal of Statistics 6.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Integer

from artpaper.metrics import TOP_K, gap_from_top

LEVEL = 0.95
Basis = Literal["seeds and videos", "videos only"]


class Gap:
    """GAP of a set of videos of which each may be taken several times or not at all.

    The ranking is sorted once; a sample of the videos then costs one pass over it.

    Args:
        scores: each video's highest scores, descending; the same kind for all videos.
        hits: whether each is a label of its video (videos, listed).
        positives: number of labels of each video, in its list or not (videos,).
        top_k: columns used.
    Raises:
        ValueError: as :func:`artpaper.metrics.gap_from_top`.
    """

    def __init__(
        self,
        scores: Float[np.ndarray, "videos listed"],
        hits: Bool[np.ndarray, "_ _"],
        positives: Integer[np.ndarray, " _"],
        top_k: int = TOP_K,
    ) -> None:
        self.value = gap_from_top(scores, hits, positives, top_k)
        self.videos = len(scores)
        ranking, right = scores[:, :top_k].ravel(), hits[:, :top_k].ravel()  # (pairs,) each
        order = np.argsort(-ranking, kind="stable")
        ranking, right = -ranking[order], right[order]  # ascending now: the best first
        video = order // min(top_k, scores.shape[1])  # (pairs,)
        found = ranking[right]  # (hits,)
        end = np.searchsorted(ranking, found, side="right") - 1  # (hits,) last pair of the hit's tied group
        self._video = video[: end[-1] + 1 if len(end) else 0]  # nothing below the last hit counts
        self._video_of_hit = video[right]  # (hits,)
        self._end = end
        self._last_hit = np.searchsorted(found, found, side="right") - 1  # (hits,) last hit of the tied group
        self._positives = positives

    def resampled(self, counts: Integer[np.ndarray, " videos"]) -> float:
        """GAP with video i taken ``counts[i]`` times.

        Returns:
            What :func:`artpaper.metrics.gap_from_top` gives on the repeated rows; 0.0 without labels.
        Raises:
            ValueError: not one count per video.
        """
        if len(counts) != self.videos:
            raise ValueError(f"{len(counts)} counts for {self.videos} videos")
        positives = int(counts @ self._positives)
        if positives == 0:
            return 0.0
        taken = counts.astype(np.int32, copy=False)  # half the memory to walk through; indices were checked above
        pairs = np.cumsum(np.take(taken, self._video, mode="clip"), dtype=np.int32)  # (pairs,)
        rank = pairs[self._end]  # (hits,) pairs scored at least as high
        weight = taken[self._video_of_hit]  # (hits,)
        above = np.cumsum(weight)[self._last_hit]  # (hits,) hits scored at least as high
        return float(np.sum(weight * (above / np.maximum(rank, 1))) / positives)


def bootstrap_counts(videos: int, draws: int, seed: int) -> Integer[np.ndarray, "draws videos"]:
    """How often each video is in each of ``draws`` bootstrap samples; the same samples for every model and attack.

    Args:
        videos: how many there are; each sample holds as many.
        draws: number of samples.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    counts = np.empty((draws, videos), np.int32)
    for row in counts:
        row[:] = np.bincount(random.integers(videos, size=videos), minlength=videos)
    return counts


@dataclass(frozen=True)
class Sample:
    """One number of one model: its value for every training seed, and the same in bootstrap samples of the videos.

    Attributes:
        seeds: training seeds.
        points: its values on the videos as they are (seeds,).
        draws: on each bootstrap sample (seeds, draws); the same samples in everything that is compared.
        videos: how many videos there are.
    Raises:
        ValueError: no seed, or not one value and one row of draws per seed.
    """

    seeds: tuple[int, ...]
    points: Float64[np.ndarray, " _"]
    draws: Float64[np.ndarray, "_ _"]
    videos: int

    def __post_init__(self) -> None:
        if not self.seeds or len(self.points) != len(self.seeds) or len(self.draws) != len(self.seeds):
            raise ValueError(f"{len(self.points)} values and {len(self.draws)} rows of draws for seeds {self.seeds}")

    def minus(self, other: "Sample") -> "Sample":
        """The paired difference, seed by seed.

        Raises:
            ValueError: the seeds, the videos or the numbers of draws differ.
        """
        if self.seeds != other.seeds or self.videos != other.videos or self.draws.shape != other.draws.shape:
            raise ValueError("only samples of the same seeds, videos and draws can be paired")
        return Sample(self.seeds, self.points - other.points, self.draws - other.draws, self.videos)


@dataclass(frozen=True)
class Estimate:
    """A number with what is known of its uncertainty.

    Attributes:
        value: mean over training seeds.
        error: its standard error.
        low, high: ends of the 95 % interval.
        p: two-sided p value of the number being 0; NaN where the basis is "videos only".
        freedom: degrees of freedom of Student's t; infinite for a normal interval.
        seeds: training seeds behind it; the smaller number where two models have different ones.
        videos: test videos behind it.
        basis: "seeds and videos", or "videos only" with one seed: then other trainings may well give something else.
    """

    value: float
    error: float
    low: float
    high: float
    p: float
    freedom: float
    seeds: int
    videos: int
    basis: Basis


def estimate(sample: Sample) -> Estimate:
    """A number of one model, or a paired difference, with its uncertainty over seeds and videos."""
    return _combine([sample], [1])


def difference(sample: Sample, other: Sample) -> Estimate:
    """How much one model's number exceeds another's on the same videos.

    Seeds are paired where both models have the same ones; otherwise the trainings count as independent.

    Raises:
        ValueError: the two were not measured on the same number of videos and draws.
    """
    if sample.videos != other.videos or sample.draws.shape[1] != other.draws.shape[1]:
        raise ValueError("only samples of the same videos and draws can be compared")
    if sample.seeds == other.seeds:
        return estimate(sample.minus(other))
    return _combine([sample, other], [1, -1])


def _combine(samples: Sequence[Sample], signs: Sequence[int]) -> Estimate:
    """The signed sum of the samples' means; seeds are independent between samples, videos are shared."""
    value = sum(sign * float(one.points.mean()) for one, sign in zip(samples, signs, strict=True))
    means = np.sum([sign * one.draws.mean(axis=0) for one, sign in zip(samples, signs, strict=True)], axis=0)
    over_videos = float(means.var(ddof=1))  # of this mean over these very trainings
    sizes = [len(one.seeds) for one in samples]
    basis: Basis = "videos only" if min(sizes) == 1 else "seeds and videos"
    if basis == "videos only":
        variance, freedom = over_videos, math.inf
    else:
        own = sum(_own_noise(one) / n for one, n in zip(samples, sizes, strict=True))
        parts = [float(one.points.var(ddof=1)) / n for one, n in zip(samples, sizes, strict=True)]
        variance = max(over_videos - own, 0.0) + sum(parts)
        lost = sum(part**2 / (n - 1) for part, n in zip(parts, sizes, strict=True))
        freedom = variance**2 / lost if lost > 0 else math.inf
    error = math.sqrt(variance)
    reach = student_quantile((1 + LEVEL) / 2, freedom) * error
    p = math.nan
    if basis == "seeds and videos":
        p = student_p(value / error, freedom) if error > 0 else float(value == 0)
    return Estimate(value, error, value - reach, value + reach, p, freedom, min(sizes), samples[0].videos, basis)


def _own_noise(sample: Sample) -> float:
    """The variance over videos that a single seed has for itself: the spread of the seeds' deviations in a draw."""
    return float((sample.draws - sample.draws.mean(axis=1, keepdims=True)).var(axis=0, ddof=1).mean())


def holm(p: Float64[np.ndarray, " comparisons"]) -> Float64[np.ndarray, " comparisons"]:
    """Holm's step-down correction: p values that keep the chance of one false finding in the family below alpha.

    Args:
        p: of the comparisons of one family; NaN is no comparison and stays NaN.
    """
    given = np.flatnonzero(~np.isnan(p))
    order = given[np.argsort(p[given], kind="stable")]
    steps = np.maximum.accumulate((len(order) - np.arange(len(order))) * p[order])
    corrected = np.full(p.shape, np.nan)
    corrected[order] = np.minimum(steps, 1.0)
    return corrected


def student_p(t: float, freedom: float) -> float:
    """Two-sided p value of Student's t; the normal distribution's for infinite degrees of freedom."""
    from scipy.stats import t as student

    return float(2 * student.sf(abs(t), freedom))


def student_quantile(share: float, freedom: float) -> float:
    """The t below which ``share`` of Student's distribution lies."""
    from scipy.stats import t as student

    return float(student.ppf(share, freedom))
