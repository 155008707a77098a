"""Is model A better than model B, given some training seeds of each and one set of test videos?

Chance enters twice: other videos could have been drawn, and other seeds. Seeds and videos are crossed (every seed is
tried on the same videos), as readers and cases are in studies of diagnosis, and the analysis is the one used there.
The variance of a mean over n seeds is

    var_videos + var_seeds / n

- var_seeds: the plain variance of the seeds' values. It holds what training adds, and also what a seed adds by itself
  on single videos;
- var_videos: the variance over bootstrap samples of the videos that all seeds share. What a seed adds by itself on
  single videos is taken out, for it is in var_seeds.

Differences of two models take the same bootstrap samples. Where both models have the same seeds, in whatever order,
each training is paired with the other's of its seed's number. Otherwise all trainings of both count, as independent
ones, even where some seeds are common: the difference stays that of the two means, and if a seed pulls both models the
same way, the interval is wider than it need be, not narrower. With one seed, nothing is known of training: the interval
is about the videos alone, and there is no p value.

Nothing here is made of NaN or infinity: what is not finite is refused. The variance over videos is itself an estimate,
from the bootstrap samples. It is taken as known, which makes 5 % of false findings 30 % with two samples, 6.5 % with
twenty and 5.0 % with a thousand (Student's tail beyond 1.96); fewer than twenty are refused.

Source: Obuchowski and Rockette 1995, Communications in Statistics 24; degrees of freedom of Hillis 2007, Statistics in
Medicine 26; Holm 1979, Scandinavian Journal of Statistics 6.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64
from scipy.stats import t as student

from artpaper import metric_inputs as inputs
from artpaper.metrics import TOP_K, gap_from_top
from pipeline.base.groups import LEAST_DRAWS

LEVEL = 0.95
Basis = Literal["seeds and videos", "videos only"]


class Gap:
    """GAP of a set of videos of which each may be taken several times or not at all.

    The ranking is sorted once; a sample of the videos then costs one pass over it. The arguments and errors are those
    of :func:`artpaper.metrics.gap_from_top`, whose answer, for its own ``top_k``, is :attr:`value`.
    """

    def __init__(self, scores: inputs.TopScores, hits: inputs.Hits, positives: inputs.Counts) -> None:
        self.value = gap_from_top(scores, hits, positives)
        right = inputs.hit_lists(hits)  # (videos, listed)
        keys = inputs.best_first(inputs.score_lists(scores, right)[:, :TOP_K])  # (videos, top)
        self.videos, self._top = keys.shape
        order = np.argsort(keys, axis=None, kind="stable")  # (pairs,)
        ranking, right = keys.ravel()[order], right[:, :TOP_K].ravel()[order]  # ascending: the best first
        video = order // self._top  # (pairs,)
        scores_of_hits = ranking[right]  # (hits,)
        end = np.searchsorted(ranking, scores_of_hits, side="right") - 1  # (hits,) last pair of the hit's tied group
        self._video = video[: end[-1] + 1 if len(end) else 0]  # nothing below the last hit counts
        self._video_of_hit = video[right]  # (hits,)
        self._end = end
        # (hits,) last hit of the tied group
        self._last_hit = np.searchsorted(scores_of_hits, scores_of_hits, side="right") - 1
        self._positives = inputs.whole_numbers(positives, "positives")

    def resampled(self, counts: inputs.Counts) -> float:
        """GAP with video i taken ``counts[i]`` times: what ``gap_from_top`` gives on the repeated rows."""
        whole = inputs.whole_numbers(counts, "counts")
        if len(whole) != self.videos:
            raise ValueError(f"{len(whole)} counts for {self.videos} videos")
        if whole.sum() * self._top > inputs.MOST:
            raise ValueError(f"{whole.sum()} videos of {self._top} classes are more than are counted, {inputs.MOST}")
        positives = int(whole @ self._positives)
        if positives == 0:
            return 0.0
        taken = whole.astype(np.int32)  # half the memory to walk through; indices were checked above
        pairs = np.cumsum(np.take(taken, self._video, mode="clip"), dtype=np.int32)  # (pairs,)
        rank = pairs[self._end]  # (hits,) pairs scored at least as high
        weight = taken[self._video_of_hit]  # (hits,)
        above = np.cumsum(weight)[self._last_hit]  # (hits,) hits scored at least as high
        return float(np.sum(weight * (above / np.maximum(rank, 1))) / positives)


@dataclass(frozen=True, eq=False)  # arrays have no one answer to whether they are equal
class Sample:
    """One number of one model: its value for every training seed, and the same in bootstrap samples of the videos.

    ``draws`` are of the samples (:func:`pipeline.predict.bootstrap.bootstrap_counts`) that all that is compared shares.

    Raises:
        TypeError: what is no numbers.
        ValueError: no seed, or one twice; not one value and one row of draws per seed; a value that is NaN or infinite;
            fewer than 20 draws, or than 2 videos, which tell nothing of others.
    """

    seeds: tuple[int, ...] | Any
    points: Float64[np.ndarray, " seeds"] | Any
    draws: Float64[np.ndarray, "seeds draws"] | Any
    videos: inputs.Whole

    def __post_init__(self) -> None:
        if not isinstance(self.seeds, Iterable) or isinstance(self.seeds, str):
            raise TypeError(f"seeds {self.seeds!r:.50}: a tuple of whole numbers is needed")
        seeds = tuple(inputs.whole(seed, "a seed", 0, "a seed is not negative") for seed in self.seeds)
        points, draws = inputs.finite(self.points, "points"), inputs.finite(self.draws, "draws")
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds {seeds}: one is named twice, and a training counts once")
        if not seeds or points.shape != (len(seeds),) or draws.ndim != 2 or len(draws) != len(seeds):
            raise ValueError(f"{len(points)} values and {len(draws)} rows of draws for seeds {seeds}")
        inputs.whole(
            draws.shape[1], "draws", LEAST_DRAWS, f"no standard error of fewer than {LEAST_DRAWS} bootstrap samples"
        )
        videos = inputs.whole(self.videos, "videos", 2, "one video tells nothing of others")
        for name, value in (("seeds", seeds), ("points", points), ("draws", draws), ("videos", videos)):
            object.__setattr__(self, name, value)

    def minus(self, other: "Sample") -> "Sample":
        """The paired difference, each training with the other's of the same seed."""
        if set(self.seeds) != set(other.seeds) or self.videos != other.videos or self.draws.shape != other.draws.shape:
            raise ValueError("only samples of the same seeds, videos and draws can be paired")
        rows = [other.seeds.index(seed) for seed in self.seeds]
        with np.errstate(over="ignore"):  # refused as not finite
            points, draws = self.points - other.points[rows], self.draws - other.draws[rows]
        return Sample(self.seeds, points, draws, self.videos)


@dataclass(frozen=True)
class Estimate:
    """A number, the mean over training seeds, with what is known of its uncertainty.

    ``low`` and ``high`` are the ends of the 95 % interval, ``p`` is the two-sided p value of the number being 0,
    ``freedom`` are Student's degrees, infinite for a normal interval. With one seed the basis is "videos only" and p
    NaN: other trainings may well give something else. Where two models have different numbers of seeds, ``seeds`` is
    the smaller one.
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

    Seeds are paired, by number, where both models have the same ones; otherwise the trainings count as independent.
    """
    if sample.videos != other.videos or sample.draws.shape[1] != other.draws.shape[1]:
        raise ValueError("only samples of the same videos and draws can be compared")
    if set(sample.seeds) == set(other.seeds):
        return estimate(sample.minus(other))
    return _combine([sample, other], [1, -1])


def _combine(samples: Sequence[Sample], signs: Sequence[int]) -> Estimate:
    """The signed sum of the samples' means; seeds are independent between samples, videos are shared."""
    largest = max(float(np.abs(part).max()) for sample in samples for part in (sample.points, sample.draws))
    power = math.frexp(largest)[1]  # of two; beyond a hundred it is taken out, for squares of squares leave the range
    unit = math.ldexp(1.0, power - 1) if abs(power) > 100 else 1.0
    points, draws = [sample.points / unit for sample in samples], [sample.draws / unit for sample in samples]
    value = sum(sign * float(each.mean()) for each, sign in zip(points, signs, strict=True))
    means = np.sum([sign * each.mean(axis=0) for each, sign in zip(draws, signs, strict=True)], axis=0)
    over_videos = float(means.var(ddof=1))  # of this mean over these very trainings
    sizes = [len(sample.seeds) for sample in samples]
    basis: Basis = "videos only" if min(sizes) == 1 else "seeds and videos"
    if basis == "videos only":
        variance, freedom = over_videos, math.inf
    else:
        own = sum(own_noise(each) / n for each, n in zip(draws, sizes, strict=True))
        parts = [float(each.var(ddof=1)) / n for each, n in zip(points, sizes, strict=True)]
        variance = max(over_videos - own, 0.0) + sum(parts)
        lost = sum(part**2 / (n - 1) for part, n in zip(parts, sizes, strict=True))
        freedom = variance**2 / lost if lost > 0 else math.inf
    error = math.sqrt(variance)
    low, high, p = student_interval(value, error, freedom)
    value, error, low, high = (unit * number for number in (value, error, low, high))
    if not all(map(math.isfinite, (error, low, high))):
        raise ValueError(f"values up to {largest:g} are too large: their interval is not finite")
    p = math.nan if basis == "videos only" else p
    return Estimate(value, error, low, high, p, freedom, min(sizes), samples[0].videos, basis)


def student_interval(value: float, error: float, freedom: float) -> tuple[float, float, float]:
    """Both ends of the 95 % interval of a number with this standard error, and the two-sided p value of its being 0."""
    reach = student_quantile((1 + LEVEL) / 2, freedom) * error
    p = student_p(value / error, freedom) if error > 0 else float(value == 0)
    return value - reach, value + reach, p


def own_noise(draws: Float64[np.ndarray, "seeds draws"]) -> float:
    """The variance over videos that a single seed has for itself: the spread of the deviations in a draw."""
    return float((draws - draws.mean(axis=1, keepdims=True)).var(axis=0, ddof=1).mean())


def holm(p: Float64[np.ndarray, " comparisons"] | Any) -> Float64[np.ndarray, " comparisons"]:
    """Holm's step-down correction: p values that keep the chance of one false finding in the family below alpha.

    NaN is no comparison and stays NaN.
    """
    values = inputs.numbers(inputs.read(p, "p")).astype(np.float64)
    known = np.flatnonzero(~np.isnan(values))
    if values.ndim != 1 or ((values[known] < 0) | (values[known] > 1)).any():
        raise ValueError(f"p {values.shape}: one list of p values from 0 to 1 is needed, NaN where there is none")
    order = known[np.argsort(values[known], kind="stable")]
    steps = np.maximum.accumulate((len(order) - np.arange(len(order))) * values[order])
    corrected = np.full(values.shape, np.nan)
    corrected[order] = np.minimum(steps, 1.0)
    return corrected


def student_p(t: float | Any, freedom: float | Any) -> float:
    """Two-sided p value of Student's t; the normal distribution's for infinite degrees of freedom."""
    return float(2 * student.sf(abs(_number(t, "t")), _freedom(freedom)))


def student_quantile(share: float | Any, freedom: float | Any) -> float:
    """The t below which ``share`` of Student's distribution lies."""
    share = _number(share, "share")
    if not 0 < share < 1:
        raise ValueError(f"share {share}: between 0 and 1 is needed, for the t of 0 or of 1 is infinite")
    return float(student.ppf(share, _freedom(freedom)))


def _freedom(freedom: float | Any) -> float:
    if isinstance(freedom, float) and freedom == math.inf:
        return math.inf
    freedom = _number(freedom, "freedom")
    if freedom <= 0:
        raise ValueError(f"freedom {freedom}: degrees of freedom are above 0")
    return freedom


def _number(value: float | Any, name: str) -> float:
    number = inputs.finite(value, name)
    if number.size != 1:
        raise ValueError(f"{name} of shape {number.shape}: one number is needed")
    return float(number.flat[0])
