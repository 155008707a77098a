"""Ten thousand random calls of metrics and statistics: the answer of a slow reference, or an error of our own."""

import linecache
import math
import warnings
from collections import Counter
from decimal import Decimal
from pathlib import Path

import jaxtyping
import ml_dtypes
import mpmath
import numpy as np
import pandas as pd
import pytest
import torch

import artpaper
import pipeline
from artpaper import metrics
from pipeline.predict.bootstrap import bootstrap_counts
from pipeline.stress.verdict import statistics
from tests import slow_reference as reference
from tests.slow_reference import REFUSED

SOURCES = tuple(str(Path(package.__file__).parent) for package in (artpaper, pipeline))
CALLS = {"whole rows": 3000, "top lists": 2500, "resampled": 1500, "samples": 500, "numbers": 2500}
NUMPY = ["bool", "int8", "uint8", "int16", "uint16", "int32", "int64", "uint64", "float16", "float32", "float64", ">f4",
         "longdouble", "complex64", "U5", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn]  # fmt: skip
TORCH = [torch.bool, torch.int8, torch.uint8, torch.int64, torch.uint16, torch.float16, torch.bfloat16, torch.float32,
         torch.float64, torch.float8_e5m2, torch.complex64]  # fmt: skip
ENDS = {"int8": [-128, 127, 0], "uint8": [0, 255, 5], "int64": [-(2**63), 2**53, 2**53 + 1, 2**63 - 1],
        "uint64": [0, 2**53, 2**53 + 1, 2**64 - 1]}  # fmt: skip
SCORES = [0.0, 0.25, 0.5, 1.0, 1.0]
ODD_SCORES = [0.0, -0.0, 0.5, 3.0, 7.0, -2.0, math.inf, -math.inf]
LABELS, COUNTS = [0, 0, 1], [0, 1, 2, 2]
NONSENSE = [None, "x", 3, 2.5, [], [[]], [[1.0], [1.0, 2.0]], {}, [[None, 1.0]], [["a", "b"]], [[Decimal("0.1"), 1]]]


def few(draw, *choices):
    return choices[draw.integers(len(choices))]


def dressed(draw, values, shape):
    """Numbers from ``values``, so that there are ties, in a random type, kind of array and mode."""
    if draw.random() < 0.02:
        return few(draw, *NONSENSE)
    values = [*values, math.nan] if draw.random() < 0.04 else values
    numbers = np.array(values, np.float64)[draw.integers(len(values), size=shape)]
    if draw.random() < 0.4:
        return numbers
    if draw.random() < 0.5:
        return of_torch(draw, torch.tensor(numbers).to(few(draw, *TORCH)))
    kind = few(draw, *NUMPY)
    if kind in ENDS and values is SCORES:
        array = np.array(ENDS[kind], kind)[draw.integers(len(ENDS[kind]), size=shape)]
    else:
        array = numbers.astype(kind)
    dress = draw.integers(7)
    if dress == 0 and array.dtype.kind in "biuf" and kind != "longdouble":
        return array.tolist() if draw.random() < 0.7 else array.astype(object)
    if dress == 1 and array.dtype.kind in "biuf" and array.ndim == 2:
        return pd.DataFrame(array.astype(array.dtype.newbyteorder("=")))
    if dress == 2 and array.dtype.kind in "biuf":
        return np.ma.masked_array(array, mask=draw.random(shape) < 0.05)
    if dress == 3:
        array.flags.writeable = False
    return np.asfortranarray(array) if dress == 4 else array


def of_torch(draw, tensor):
    dress = draw.integers(7)
    if dress == 0 and tensor.is_floating_point():
        return tensor.requires_grad_()
    if dress == 1 and tensor.dtype in (torch.float32, torch.int64):
        return tensor.to_sparse()
    if dress == 2 and tensor.ndim == 2:
        return tensor.T.contiguous().T
    if dress == 3:
        with torch.inference_mode():
            return tensor.clone()
    return tensor.to("meta") if dress == 4 and draw.random() < 0.3 else tensor


def shape(draw):
    if draw.random() < 0.05:
        return few(draw, (3,), (0, 4), (4, 0), (1, 2, 2))
    return int(draw.integers(1, 6)), int(draw.integers(1, 6))


def other(draw, size):
    return shape(draw) if draw.random() < 0.05 else size


def whole(draw):
    odd = [0, -1, 2**70, True, 2.0, 1.5, math.nan, None, "3", np.True_]
    return few(draw, 1, 2, 3, 20, np.int64(2), np.uint8(3)) if draw.random() < 0.85 else few(draw, *odd)


def rows(draw):
    size = shape(draw)
    scores = SCORES if draw.random() < 0.8 else ODD_SCORES
    return dressed(draw, scores, size), dressed(draw, LABELS, other(draw, size))


def lists(draw):
    """Descending scores, hits and numbers of labels, mostly ones that agree."""
    size = shape(draw)
    scores = dressed(draw, SCORES, size)
    if isinstance(scores, np.ndarray) and scores.dtype.kind in "iuf" and scores.ndim == 2 and draw.random() < 0.95:
        scores = np.sort(scores, axis=1)[:, ::-1]
    hits = dressed(draw, LABELS, other(draw, size))
    right = reference.truth(hits)
    own = [sum(row) for row in right] if right and draw.random() < 0.9 else None
    if own is None:
        return scores, hits, dressed(draw, COUNTS, size[:1])
    more = np.array(own, np.float64) + draw.integers(0, 2, len(own))
    return (
        scores,
        hits,
        few(draw, more, more.astype(np.int64), more.astype(np.uint8), torch.tensor(more), more.tolist()),
    )


def sample(draw, videos=9):
    seeds = few(draw, (0, 1, 2), (2, 0, 1), [0, 1], (4,), (0, 1, 2, 3)) if draw.random() < 0.93 else few(
        draw, (), (0, 0, 0), (1, 0, 1), (0, 1.0), (True, 2), "01", 3, None, (-1, 2))  # fmt: skip
    number = len(seeds) if isinstance(seeds, list | tuple | str) else 2
    scale = 2.0 ** few(draw, 0, 0, 0, 0, 0, 0, 7, -400, 450, -560, 660)
    points = draw.integers(-8, 9, number) / 4 * scale
    draws = draw.integers(-8, 9, (number, 20 if draw.random() < 0.95 else 19)) / 4 * scale
    if draw.random() < 0.05:
        few(draw, points, draws)[..., :1] = few(draw, math.nan, math.inf)
    kind = few(draw, np.asarray, np.asarray, torch.tensor, np.ndarray.tolist)
    return seeds, kind(points), kind(draws), videos if draw.random() < 0.95 else few(draw, 1, 0, 2.0, None, np.int64(8))


def call(group, draw):
    """A function, its arguments, and the function that gives what must come out."""
    if group == "whole rows":
        scores, labels = rows(draw)
        name = few(draw, "gap", "perr", "hit_at_1", "top_scores")
        given = (scores, labels, whole(draw)) if name in ("gap", "top_scores") else (scores, labels)
        return getattr(metrics, name), given, getattr(reference, name)
    if group == "top lists":
        scores, hits, positives = lists(draw)
        name = few(draw, "gap_from_top", "perr_from_top", "hit_at_1_from_top", "average_precision")
        count = few(draw, 40, whole(draw))
        given = {"gap_from_top": (scores, hits, positives, count), "perr_from_top": (hits, positives),
                 "hit_at_1_from_top": (hits,), "average_precision": (scores, hits, count)}  # fmt: skip
        return getattr(metrics, name), given[name], getattr(reference, name)
    if group == "resampled":
        given = lists(draw)
        times = dressed(draw, COUNTS, (len(given[0]) if hasattr(given[0], "__len__") else 1,))
        return resampled, (*given, times), resampled_slowly
    if group == "samples":
        one, two = sample(draw), sample(draw)
        return few(draw, (estimated, (one,), exact_estimate), (compared, (one, two), exact_difference))
    if draw.random() < 0.3:
        return bootstrap_counts, (whole(draw), whole(draw), whole(draw)), reference.bootstrap_counts
    if draw.random() < 0.4:
        p = dressed(draw, [0.0, 0.01, 0.02, 0.5, 1.0, math.nan], (int(draw.integers(0, 6)),))
        return statistics.holm, (p,), reference.holm
    odd = [math.nan, math.inf, -math.inf, 0.0, -1.0, True, "1", None, 10**400]
    t, freedom = draw.normal() * 3, few(draw, 0.7, 1.0, 2.5, 9.0, 300.0, math.inf)
    if draw.random() < 0.3:
        t, freedom = few(draw, (few(draw, *odd), freedom), (t, few(draw, *odd)))
    return few(draw, (statistics.student_p, (t, freedom), reference.student_p), (back, (t, freedom), exact_back))


def resampled(scores, hits, positives, times):
    return statistics.Gap(scores, hits, positives).resampled(times)


def resampled_slowly(scores, hits, positives, times):
    return REFUSED if times is None else reference.gap_from_top(scores, hits, positives, metrics.TOP_K, times)


def estimated(one):
    return statistics.estimate(statistics.Sample(*one))


def compared(one, two):
    return statistics.difference(statistics.Sample(*one), statistics.Sample(*two))


def exact_estimate(one):
    return reference.estimate(reference.sample(*one))


def exact_difference(one, two):
    return reference.difference(reference.sample(*one), reference.sample(*two))


def back(share, freedom):
    """The p of the quantile: twice the smaller tail."""
    return reference.student_p(statistics.student_quantile(share, freedom), freedom)


def exact_back(share, freedom):
    share, freedom = reference.number(share), reference.number(freedom)
    if share is None or freedom is None or not 0 < share < 1 or freedom <= 0:
        return REFUSED
    return 2 * min(share, 1 - share)


def same(found, wanted):
    if isinstance(found, statistics.Estimate):
        return same_estimate(found, *wanted)
    if isinstance(found, float):
        return found == pytest.approx(wanted, rel=1e-9, abs=1e-12)
    if isinstance(found, tuple):
        return all(reference.plain(one) == part for one, part in zip(found, wanted, strict=True))
    return np.array_equal(found, wanted) or found == pytest.approx(np.array(wanted), rel=1e-12, nan_ok=True)


def same_estimate(found, value, variance, lost):
    """Up to rounding, which is the larger part where an error comes of cancellation: then only its size is compared."""
    error, value = mpmath.sqrt(as_real(variance)), as_real(value)
    scale = max(abs(found.low), abs(found.high))
    right = math.isclose(found.value, value, rel_tol=1e-9, abs_tol=1e-14 * scale or 1e-320)
    if error < 1e-6 * scale or not scale:
        return right and found.error <= 1e-5 * scale
    freedom = float(1 / as_real(lost)) if lost else math.inf
    right &= math.isclose(found.error, error, rel_tol=1e-5)
    right &= math.isclose(reference.student_p((found.high - found.value) / found.error, freedom), 0.05, rel_tol=1e-4)
    right &= math.isclose(found.high - found.value, found.value - found.low, rel_tol=1e-6, abs_tol=1e-12 * scale)
    if found.basis == "videos only":
        return right and found.seeds == 1 and math.isnan(found.p)  # asked for
    return right and math.isclose(
        found.p, reference.student_p(float(value / error), freedom), rel_tol=1e-3, abs_tol=1e-9
    )


def as_real(fraction):
    return mpmath.mpf(fraction.numerator) / fraction.denominator


def is_ours(error):
    """Raised on purpose, in words: by a ``raise`` of this project."""
    at = error.__traceback__
    while at.tb_next:
        at = at.tb_next
    file = at.tb_frame.f_code.co_filename
    return (
        isinstance(error, ValueError | TypeError)
        and file.startswith(SOURCES)
        and linecache.getline(file, at.tb_lineno).lstrip().startswith("raise ")
    )


def attempt(function, given):
    """What came out, and the error if there was one; a warning is one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return function(*given), None
    except Exception as error:
        return None, error


@pytest.fixture
def as_installed():
    """Without the type checker of the tests, which would speak first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("as_installed")
@pytest.mark.parametrize("group", CALLS)
def test_every_call_is_right_or_refused_in_words(group):
    """Catches whatever wraps, rounds, casts, loses its order, divides by nothing or ends in another package's error."""
    seen = Counter()
    for number in range(CALLS[group]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the making of such inputs warns
            function, given, judge = call(group, np.random.default_rng(number))
            wanted = judge(*given)
        found, error = attempt(function, given)
        right = wanted != REFUSED and same(found, wanted) if error is None else wanted == REFUSED and is_ours(error)
        assert right, f"call {number} of {group}: {function.__name__}{given} is {wanted}, not {error or found!r}"
        seen[wanted == REFUSED] += 1
    assert min(seen[True], seen[False]) > CALLS[group] / 20
