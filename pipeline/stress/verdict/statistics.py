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
from jaxtyping import Float64, Integer

from artpaper import metric_inputs as inputs
from artpaper.metrics import TOP_K, gap_from_top
from pipeline.base.groups import LEAST_DRAWS

LEVEL = 0.95
Basis = Literal["seeds and videos", "videos only"]


class Gap:
    """GAP of a set of videos of which each may be taken several times or not at all.

    The ranking is sorted once; a sample of the videos then costs one pass over it.

    Args:
        scores: each video's highest scores, descending (videos, listed); the same kind for all videos.
        hits: whether each is a label of its video (videos, listed).
        positives: number of labels of each video, in its list or not (videos,).
        top_k: columns used.
    Raises:
        TypeError, ValueError: as :func:`artpaper.metrics.gap_from_top`.
    """

    def __init__(
        self, scores: inputs.TopScores, hits: inputs.Hits, positives: inputs.Counts, top_k: inputs.Whole = TOP_K
    ) -> None:
        self.value = gap_from_top(scores, hits, positives, top_k)
        right = inputs.hit_lists(hits)  # (videos, listed)
        keys = inputs.best_first(inputs.score_lists(scores, right)[:, :top_k])  # (videos, top_k)
        self.videos, self._top = keys.shape
        order = np.argsort(keys, axis=None, kind="stable")  # (pairs,)
        ranking, right = keys.ravel()[order], right[:, :top_k].ravel()[order]  # ascending: the best first
        video = order // self._top  # (pairs,)
        found = ranking[right]  # (hits,)
        end = np.searchsorted(ranking, found, side="right") - 1  # (hits,) last pair of the hit's tied group
        self._video = video[: end[-1] + 1 if len(end) else 0]  # nothing below the last hit counts
        self._video_of_hit = video[right]  # (hits,)
        self._end = end
        self._last_hit = np.searchsorted(found, found, side="right") - 1  # (hits,) last hit of the tied group
        self._positives = inputs.whole_numbers(positives, "positives")

    def resampled(self, counts: inputs.Counts) -> float:
        """GAP with video i taken ``counts[i]`` times (videos,).

        Returns:
            What :func:`artpaper.metrics.gap_from_top` gives on the repeated rows; 0.0 without labels.
        Raises:
            TypeError: counts that are no numbers.
            ValueError: not one count per video, or more videos than can be counted.
        """
        given = inputs.whole_numbers(counts, "counts")
        if len(given) != self.videos:
            raise ValueError(f"{len(given)} counts for {self.videos} videos")
        if given.sum() * self._top > inputs.MOST:
            raise ValueError(f"{given.sum()} videos of {self._top} classes are more than are counted, {inputs.MOST}")
        positives = int(given @ self._positives)
        if positives == 0:
            return 0.0
        taken = given.astype(np.int32)  # half the memory to walk through; indices were checked above
        pairs = np.cumsum(np.take(taken, self._video, mode="clip"), dtype=np.int32)  # (pairs,)
        rank = pairs[self._end]  # (hits,) pairs scored at least as high
        weight = taken[self._video_of_hit]  # (hits,)
        above = np.cumsum(weight)[self._last_hit]  # (hits,) hits scored at least as high
        return float(np.sum(weight * (above / np.maximum(rank, 1))) / positives)


def bootstrap_counts(
    videos: inputs.Whole, draws: inputs.Whole, seed: inputs.Whole
) -> Integer[np.ndarray, "draws videos"]:
    """How often each video is in each of ``draws`` bootstrap samples; the same samples for every model and attack.

    Args:
        videos: how many there are; each sample holds as many.
        draws: number of samples.
        seed: of the draws.
    Raises:
        TypeError: one of them is no whole number.
        ValueError: no videos, no draws, more than can be counted, or a seed below 0.
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


@dataclass(frozen=True, eq=False)  # arrays have no one answer to whether they are equal
class Sample:
    """One number of one model: its value for every training seed, and the same in bootstrap samples of the videos.

    Attributes:
        seeds: training seeds, each once.
        points: its values on the videos as they are (seeds,).
        draws: on each bootstrap sample (seeds, draws); the same samples in everything that is compared.
        videos: how many videos there are.
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
        """The paired difference, each training with the other's of the same seed.

        Raises:
            ValueError: the seeds, the videos or the numbers of draws differ.
        """
        if set(self.seeds) != set(other.seeds) or self.videos != other.videos or self.draws.shape != other.draws.shape:
            raise ValueError("only samples of the same seeds, videos and draws can be paired")
        rows = [other.seeds.index(seed) for seed in self.seeds]
        with np.errstate(over="ignore"):  # refused as not finite
            points, draws = self.points - other.points[rows], self.draws - other.draws[rows]
        return Sample(self.seeds, points, draws, self.videos)


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
    """A number of one model, or a paired difference, with its uncertainty over seeds and videos.

    Raises:
        ValueError: the numbers are so large that their interval is not finite.
    """
    return _combine([sample], [1])


def difference(sample: Sample, other: Sample) -> Estimate:
    """How much one model's number exceeds another's on the same videos.

    Seeds are paired, by number, where both models have the same ones; otherwise the trainings count as independent.

    Raises:
        ValueError: the two were not measured on the same number of videos and draws, or their interval is not finite.
    """
    if sample.videos != other.videos or sample.draws.shape[1] != other.draws.shape[1]:
        raise ValueError("only samples of the same videos and draws can be compared")
    if set(sample.seeds) == set(other.seeds):
        return estimate(sample.minus(other))
    return _combine([sample, other], [1, -1])


def _combine(samples: Sequence[Sample], signs: Sequence[int]) -> Estimate:
    """The signed sum of the samples' means; seeds are independent between samples, videos are shared."""
    largest = max(float(np.abs(part).max()) for one in samples for part in (one.points, one.draws))
    power = math.frexp(largest)[1]  # of two; beyond a hundred it is taken out, for squares of squares leave the range
    unit = math.ldexp(1.0, power - 1) if abs(power) > 100 else 1.0
    points, draws = [one.points / unit for one in samples], [one.draws / unit for one in samples]
    value = sum(sign * float(one.mean()) for one, sign in zip(points, signs, strict=True))
    means = np.sum([sign * one.mean(axis=0) for one, sign in zip(draws, signs, strict=True)], axis=0)
    over_videos = float(means.var(ddof=1))  # of this mean over these very trainings
    sizes = [len(one.seeds) for one in samples]
    basis: Basis = "videos only" if min(sizes) == 1 else "seeds and videos"
    if basis == "videos only":
        variance, freedom = over_videos, math.inf
    else:
        own = sum(_own_noise(one) / n for one, n in zip(draws, sizes, strict=True))
        parts = [float(one.var(ddof=1)) / n for one, n in zip(points, sizes, strict=True)]
        variance = max(over_videos - own, 0.0) + sum(parts)
        lost = sum(part**2 / (n - 1) for part, n in zip(parts, sizes, strict=True))
        freedom = variance**2 / lost if lost > 0 else math.inf
    error = math.sqrt(variance)
    reach = student_quantile((1 + LEVEL) / 2, freedom) * error
    p = math.nan
    if basis == "seeds and videos":
        p = student_p(value / error, freedom) if error > 0 else float(value == 0)
    value, error, low, high = (unit * number for number in (value, error, value - reach, value + reach))
    if not all(map(math.isfinite, (error, low, high))):
        raise ValueError(f"values up to {largest:g} are too large: their interval is not finite")
    return Estimate(value, error, low, high, p, freedom, min(sizes), samples[0].videos, basis)


def _own_noise(draws: np.ndarray) -> float:
    """The variance over videos that a single seed has for itself: the spread of the deviations in a draw."""
    return float((draws - draws.mean(axis=1, keepdims=True)).var(axis=0, ddof=1).mean())


def holm(p: Float64[np.ndarray, " comparisons"] | Any) -> Float64[np.ndarray, " comparisons"]:
    """Holm's step-down correction: p values that keep the chance of one false finding in the family below alpha.

    Args:
        p: of the comparisons of one family (comparisons,); NaN is no comparison and stays NaN.
    Raises:
        TypeError: what is no numbers.
        ValueError: not one list, or a p outside 0 to 1.
    """
    values = inputs.numbers(inputs.read(p, "p")).astype(np.float64)
    given = np.flatnonzero(~np.isnan(values))
    if values.ndim != 1 or ((values[given] < 0) | (values[given] > 1)).any():
        raise ValueError(f"p {values.shape}: one list of p values from 0 to 1 is needed, NaN where there is none")
    order = given[np.argsort(values[given], kind="stable")]
    steps = np.maximum.accumulate((len(order) - np.arange(len(order))) * values[order])
    corrected = np.full(values.shape, np.nan)
    corrected[order] = np.minimum(steps, 1.0)
    return corrected


def student_p(t: float | Any, freedom: float | Any) -> float:
    """Two-sided p value of Student's t; the normal distribution's for infinite degrees of freedom.

    Raises:
        TypeError: what is no number.
        ValueError: t is NaN or infinite, or the degrees of freedom are not above 0.
    """
    from scipy.stats import t as student

    return float(2 * student.sf(abs(_number(t, "t")), _freedom(freedom)))


def student_quantile(share: float | Any, freedom: float | Any) -> float:
    """The t below which ``share`` of Student's distribution lies.

    Raises:
        TypeError: what is no number.
        ValueError: the share is not between 0 and 1, or the degrees of freedom are not above 0.
    """
    from scipy.stats import t as student

    share = _number(share, "share")
    if not 0 < share < 1:
        raise ValueError(f"share {share}: between 0 and 1 is needed, for the t of 0 or of 1 is infinite")
    return float(student.ppf(share, _freedom(freedom)))


def _freedom(given: float | Any) -> float:
    if isinstance(given, float) and given == math.inf:
        return math.inf
    freedom = _number(given, "freedom")
    if freedom <= 0:
        raise ValueError(f"freedom {freedom}: degrees of freedom are above 0")
    return freedom


def _number(given: float | Any, name: str) -> float:
    found = inputs.finite(given, name)
    if found.size != 1:
        raise ValueError(f"{name} of shape {found.shape}: one number is needed")
    return float(found.flat[0])
