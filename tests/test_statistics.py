"""Statistics against what can be worked out by hand, against SciPy, and by simulation."""

import math

import numpy as np
import pytest
import scipy.stats

from artpaper.metrics import gap_from_top
from pipeline.predict.bootstrap import bootstrap_counts
from pipeline.stress.verdict.statistics import (
    Gap,
    Sample,
    difference,
    estimate,
    holm,
    student_p,
    student_quantile,
)


def lists(seed=0, videos=60, top=20, tied=False):
    draw = np.random.default_rng(seed)
    scores = draw.integers(0, 12, (videos, top)) / 4 if tied else draw.normal(size=(videos, top))
    scores = -np.sort(-scores, axis=1)
    hits = draw.random((videos, top)) < 0.15
    return scores, hits, hits.sum(axis=1) + draw.integers(0, 3, videos)


@pytest.mark.parametrize("tied", [False, True])
def test_gap_of_a_sample_is_gap_of_the_repeated_videos(tied):
    scores, hits, positives = lists(tied=tied)
    gap = Gap(scores, hits, positives)
    assert (
        gap.value == gap_from_top(scores, hits, positives) == pytest.approx(gap.resampled(np.ones(60, int)), abs=1e-12)
    )
    for counts in bootstrap_counts(60, 20, 3):
        repeated = [np.repeat(part, counts, axis=0) for part in (scores, hits, positives)]
        assert gap.resampled(counts) == pytest.approx(gap_from_top(*repeated), abs=1e-12)


def test_gap_uses_the_top_twenty_only_and_shorter_lists_whole():
    scores, hits, positives = lists(top=25)
    counts = bootstrap_counts(60, 1, 0)[0]
    for width in (25, 7):
        part = (scores[:, :width], hits[:, :width], positives)
        wanted = gap_from_top(*(np.repeat(one, counts, axis=0) for one in part))
        assert Gap(*part).resampled(counts) == pytest.approx(wanted, abs=1e-12)


def test_gap_without_hits_or_labels_is_zero_and_wrong_counts_are_refused():
    scores, hits, positives = lists()
    assert Gap(scores, np.zeros_like(hits), positives).resampled(np.ones(60, int)) == 0
    nothing = Gap(scores, np.zeros_like(hits), np.zeros_like(positives))
    assert nothing.resampled(np.ones(60, int)) == nothing.value == 0
    with pytest.raises(ValueError, match="59 counts for 60 videos"):
        nothing.resampled(np.ones(59, int))


def test_bootstrap_samples_are_as_large_as_the_set_and_seeded():
    counts = bootstrap_counts(500, 400, 1)
    assert (counts.sum(axis=1) == 500).all()
    assert counts.var() == pytest.approx(1 - 1 / 500, rel=0.02)  # binomial
    assert np.array_equal(counts, bootstrap_counts(500, 400, 1))
    assert not np.array_equal(counts, bootstrap_counts(500, 400, 2))


@pytest.mark.parametrize("freedom", [1.0, 2.0, 2.7, 7.0, 40.0, 1e4])
def test_student_is_scipys(freedom):
    for t in (0.0, 1e-3, 0.5, 2.0, 12.7, 60.0):
        assert student_p(t, freedom) == pytest.approx(2 * scipy.stats.t.sf(t, freedom), rel=1e-9)
    assert student_quantile(0.975, freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), rel=1e-9)


def test_student_without_end_is_normal():
    assert student_p(1.959963984540054, math.inf) == pytest.approx(0.05)
    assert student_quantile(0.975, math.inf) == pytest.approx(1.959963984540054)


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.04 of 4: 4 * 0.01, max with 3 * 0.02, max with 2 * 0.03, max with 0.04
    assert holm(np.array([0.04, 0.01, 0.03, 0.02])) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.001, 0.3, 0.6])) == pytest.approx([0.003, 0.6, 0.6])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1.0, 1.0])
    found = holm(np.array([0.02, np.nan, 0.03]))  # what has no p value is no member of the family
    assert found[[0, 2]] == pytest.approx([0.04, 0.04])
    assert np.isnan(found[1])


def crossed(draw, seeds, videos, of_seed, of_video, own, resamples=200):
    """Means over videos of seed + video + their own noise; the three variances are those of the mean over videos."""
    x = draw.normal(0, of_seed**0.5, (seeds, 1)) + draw.normal(0, (of_video * videos) ** 0.5, videos)
    x = x + draw.normal(0, (own * videos) ** 0.5, (seeds, videos))
    counts = draw.multinomial(videos, np.full(videos, 1 / videos), size=resamples)
    return Sample(tuple(range(seeds)), x.mean(axis=1), x @ counts.T / videos, videos)


@pytest.mark.parametrize(
    ("seeds", "of_seed", "of_video", "own"),
    [(3, 1, 0, 0.01), (5, 1, 0.3, 0.01), (3, 0.1, 1, 0.01), (5, 1, 0.3, 1), (3, 0.3, 1, 1), (5, 0.1, 0.1, 1)],
)
def test_intervals_cover_what_they_promise(seeds, of_seed, of_video, own):
    draw = np.random.default_rng(0)
    found = [estimate(crossed(draw, seeds, 150, of_seed, of_video, own)) for _ in range(800)]
    assert 0.92 <= np.mean([one.low <= 0 <= one.high for one in found]) <= 0.98
    false = np.mean([one.p <= 0.05 for one in found])
    assert 0.02 <= false <= 0.08


def test_a_paired_difference_is_the_paired_t_test_on_seeds_when_videos_do_not_matter():
    draw = np.random.default_rng(4)
    first, second = draw.normal(1.0, 0.3, 4), draw.normal(0.2, 0.3, 4)
    flat = np.ones((1, 50))
    found = difference(*(Sample((0, 1, 2, 3), one, one[:, None] * flat, 9) for one in (first, second)))
    wanted = scipy.stats.ttest_rel(first, second)
    assert found.value == pytest.approx((first - second).mean())
    assert found.p == pytest.approx(wanted.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(wanted.confidence_interval(0.95)))
    assert found.freedom == pytest.approx(3)
    assert (found.seeds, found.videos, found.basis) == (4, 9, "seeds and videos")


def test_models_with_other_seeds_are_compared_by_welch():
    draw = np.random.default_rng(4)
    first, second = draw.normal(1.0, 0.3, 3), draw.normal(0.2, 0.9, 5)
    flat = np.ones((1, 50))
    found = difference(
        Sample((0, 1, 2), first, first[:, None] * flat, 9),
        Sample((0, 1, 2, 3, 4), second, second[:, None] * flat, 9),
    )
    wanted = scipy.stats.ttest_ind(first, second, equal_var=False)
    assert (found.value, found.p) == pytest.approx((first.mean() - second.mean(), wanted.pvalue))
    assert found.freedom == pytest.approx(wanted.df)
    assert found.seeds == 3


def test_videos_are_paired_and_their_chance_is_the_analytic_one():
    """Seeds that agree: the interval is the normal one of the mean difference over videos."""
    draw = np.random.default_rng(1)
    hard, gain, videos = draw.normal(0, 5, 400), draw.normal(0.3, 1, 400), 400
    counts = bootstrap_counts(videos, 4000, 0)

    def sample(x):
        return Sample((0, 1), np.full(2, x.mean()), np.tile(counts @ x / videos, (2, 1)), videos)

    found = difference(sample(hard + gain), sample(hard))
    error = gain.std(ddof=1) / math.sqrt(videos)
    assert found.error == pytest.approx(error, rel=0.04)
    reach = 1.96 * error
    assert (found.low, found.high) == pytest.approx((gain.mean() - reach, gain.mean() + reach), abs=0.06 * reach)
    assert estimate(sample(hard)).error == pytest.approx(hard.std(ddof=1) / math.sqrt(videos), rel=0.04)


def test_one_seed_tells_nothing_of_training():
    draw = np.random.default_rng(2)
    one, two = (crossed(draw, seeds, 100, 1, 1, 0.1) for seeds in (1, 3))
    for found in (estimate(one), difference(one, two), difference(two, one)):
        assert found.basis == "videos only"
        assert found.seeds == 1
        assert math.isnan(found.p)
        assert found.low < found.value < found.high
    assert estimate(two).basis == "seeds and videos"


def test_a_model_does_not_differ_from_itself():
    sample = crossed(np.random.default_rng(2), 3, 100, 1, 1, 0.1)
    found = difference(sample, sample)
    assert (found.value, found.error, found.low, found.high, found.p) == (0, 0, 0, 0, 1)


def test_what_cannot_be_paired_is_refused():
    draw = np.random.default_rng(2)
    sample, other = crossed(draw, 3, 100, 1, 1, 1), crossed(draw, 3, 90, 1, 1, 1)
    with pytest.raises(ValueError, match="same videos and draws"):
        difference(sample, other)
    with pytest.raises(ValueError, match="same seeds, videos and draws"):
        sample.minus(crossed(draw, 2, 100, 1, 1, 1))
    with pytest.raises(ValueError, match="1 values and 3 rows"):
        Sample((0, 1, 2), np.zeros(1), sample.draws, 100)


def test_a_model_does_not_differ_from_itself_in_another_order():
    """Seeds are paired by number: the error of the difference was that of unlike trainings."""
    sample = crossed(np.random.default_rng(2), 3, 100, 1, 1, 0.1)
    order = [2, 0, 1]
    turned = Sample((2, 0, 1), sample.points[order], sample.draws[order], 100)
    found = difference(sample, turned)
    assert (found.value, found.error, found.p) == (0, 0, 1)
    other = crossed(np.random.default_rng(3), 3, 100, 1, 1, 0.1)
    assert difference(turned, other).error == pytest.approx(difference(sample, other).error, rel=1e-12)
    assert (sample.minus(turned).points == 0).all()


@pytest.mark.parametrize("seeds", [(0, 0, 0), (1, 0, 1), (0, 1, True), (0, 1.0, 2), (0, 1, -2), "012", None, 3])
def test_seeds_that_are_no_three_trainings_are_refused(seeds):
    with pytest.raises((ValueError, TypeError), match="seed"):
        Sample(seeds, np.zeros(3), np.zeros((3, 50)), 9)


def test_seeds_that_overlap_are_independent_and_the_difference_is_that_of_the_means():
    first, second = (crossed(np.random.default_rng(k), 3, 100, 1, 1, 0.1) for k in (4, 5))
    shifted = Sample((1, 2, 3), second.points, second.draws, 100)
    apart = Sample((7, 8, 9), second.points, second.draws, 100)
    assert difference(first, shifted) == difference(first, apart)
    assert difference(first, shifted).value == pytest.approx(first.points.mean() - second.points.mean())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_and_never_significant(value):
    """A NaN among the draws made the error NaN and p 0."""
    points, draws = np.zeros(3), np.random.default_rng(0).normal(size=(3, 50))
    draws[1, 7] = value
    with pytest.raises(ValueError, match=f"draws: {value} is no finite number"):
        Sample((0, 1, 2), points, draws, 9)
    with pytest.raises(ValueError, match=f"points: {value} is no finite number"):
        Sample((0, 1, 2), points + value, np.zeros((3, 50)), 9)
    with pytest.raises(ValueError, match="t: "):
        student_p(value, 3)
    if value != np.inf:
        with pytest.raises(ValueError, match="freedom"):
            student_p(1.0, value)
    if not math.isnan(value):
        with pytest.raises(ValueError, match="p values from 0 to 1"):
            holm(np.array([0.5, value]))


@pytest.mark.parametrize("draws", [0, 1, 2, 19])
def test_too_few_draws_are_refused(draws):
    """The variance of one draw is NaN, which made every comparison significant."""
    with pytest.raises(ValueError, match=f"draws {draws}: no standard error of fewer than 20"):
        Sample((0, 1), np.zeros(2), np.zeros((2, draws)), 9)
    with pytest.raises(ValueError, match="one video tells nothing of others"):
        Sample((0, 1), np.zeros(2), np.zeros((2, 50)), 1)


@pytest.mark.parametrize("power", [-900, -500, 400, 900])
def test_the_size_of_the_numbers_does_not_matter(power):
    """Squares of very small numbers are 0, so chance had no error and was significant; of large ones there are none."""
    sample = crossed(np.random.default_rng(6), 3, 100, 1, 1, 0.1)
    plain = estimate(sample)
    found = estimate(Sample((0, 1, 2), sample.points * 2.0**power, sample.draws * 2.0**power, 100))
    assert (found.p, found.freedom) == pytest.approx((plain.p, plain.freedom))
    assert found.error / 2.0**power == pytest.approx(plain.error)


def test_an_interval_that_is_not_finite_is_refused():
    points = np.array([1e308, -1e308])
    sample = Sample((0, 1), points, np.outer(points, np.ones(50)), 9)
    with pytest.raises(ValueError, match="too large"):
        estimate(sample)
    with pytest.raises(ValueError, match="no finite number"):
        sample.minus(Sample((1, 0), points, sample.draws, 9))


def test_gap_of_integer_scores_and_counts_that_are_none():
    scores, hits, positives = lists(tied=True)
    scores = np.round(4 * (scores + 3)).astype(int)
    counts = bootstrap_counts(60, 1, 0)[0]
    wanted = Gap(scores.astype(float), hits, positives).resampled(counts)
    assert Gap(scores.astype(np.uint8), hits, positives.astype(np.uint8)).resampled(counts) == wanted
    for odd in (-counts, counts * np.nan, counts + 0.5):
        with pytest.raises(ValueError, match="counts"):
            Gap(scores, hits, positives).resampled(odd)
    with pytest.raises(ValueError, match="more than are counted"):
        Gap(scores, hits, positives).resampled(np.full(60, 2**30))


@pytest.mark.parametrize("given", [(0, 20, 0), (5, 0, 0), (5, 20, -1), (5, 20, None), (2.0, 20, 0), (True, 20, 0)])
def test_bootstrap_samples_of_nothing_are_refused(given):
    with pytest.raises((ValueError, TypeError), match=r"videos|draws|seed"):
        bootstrap_counts(*given)


@pytest.mark.parametrize(("share", "freedom"), [(0.0, 3), (1.0, 3), (1.5, 3), (np.nan, 3), (0.9, 0), (0.9, np.nan)])
def test_a_quantile_that_is_none_is_refused(share, freedom):
    with pytest.raises(ValueError, match=r"share|freedom"):
        student_quantile(share, freedom)
