"""Metrics and statistics a second time, slowly: loops over Python's own numbers, exact in fractions.

Each function takes what a person might pass and says what must come out: a number, or :data:`REFUSED`.
"""

import itertools
from fractions import Fraction

import mpmath
import numpy as np
import pandas as pd
import torch

REFUSED = "refused"


def plain(given):
    """Python's numbers in lists, or None where there are none."""
    if isinstance(given, np.ma.MaskedArray):
        given = given.data if not np.ma.getmaskarray(given).any() else None
    if isinstance(given, torch.Tensor):
        if given.is_meta or given.is_complex():
            return None
        given = given.detach().to_dense() if given.layout != torch.strided else given.detach()
        return (given.double() if given.is_floating_point() else given).tolist()
    if isinstance(given, pd.DataFrame):
        given = given.to_numpy()
    if isinstance(given, np.ndarray) and given.dtype.kind in "cU":
        return None
    if isinstance(given, np.ndarray):
        return (given.astype(np.float64) if given.dtype.kind in "fV" else given).tolist()
    return given if isinstance(given, list | tuple) else None


def real(*numbers):
    return all(isinstance(one, bool | int | float) for one in numbers)


def table(given):
    """Rows of equal length, at least one, of real numbers that are not NaN, or None."""
    rows = plain(given)
    if not rows or not all(isinstance(row, list | tuple) and row and len(row) == len(rows[0]) for row in rows):
        return None
    return [list(row) for row in rows] if all(real(*row) and all(one == one for one in row) for row in rows) else None


def regular(rows):
    return len({regular(row) if isinstance(row, list | tuple) else None for row in rows}) <= 1 and (len(rows) or True)


def truth(given):
    rows = table(given)
    return rows if rows and all(one in (0, 1) for row in rows for one in row) else None


def whole(value, least):
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer) or value < least:
        return None
    return int(value)


def counts(given):
    found = plain(given)
    if not found or not real(*found) or all(isinstance(one, bool) for one in found):
        return None
    return list(map(int, found)) if all(0 <= one < 2**31 and one == int(one) for one in found) else None


def alike(*tables):
    return all(tables) and len({(len(rows), len(rows[0])) for rows in tables}) == 1


def best(row, k):
    return sorted(range(len(row)), key=lambda place: row[place], reverse=True)[:k]  # stable: the lower class first


def average_precision(scores, hits, positives):
    """Of arrays of any shape."""
    flat = []
    for given in (scores, hits):
        rows = plain(given)
        whole_table = np.array(rows, object) if rows is not None and regular(rows) else np.array(None)
        flat.append((whole_table.shape, whole_table.ravel().tolist()))
    (size, scores), (other, hits), positives = *flat, whole(positives, 0)
    if size != other or positives is None or not real(*scores, *hits) or not all(one in (0, 1) for one in hits):
        return REFUSED
    return ranking([zip(scores, hits, strict=True)], positives) if all(one == one for one in scores) else REFUSED


def ranking(lists, positives):
    """Of lists of (score, right): tied scores share the precision at the end of their group."""
    pairs = list(itertools.chain(*lists))
    found = [score for score, right in pairs if right]
    if len(found) > positives:
        return REFUSED
    above = [(sum(one >= score for one in found), sum(one >= score for one, _ in pairs)) for score in found]
    return float(sum(Fraction(*both) for both in above) / positives) if found else 0.0


def gap(scores, labels, k):
    top = top_scores(scores, labels, k)
    if top == REFUSED:
        return REFUSED
    return ranking([list(zip(*rows, strict=True)) for rows in zip(*top, strict=True)], sum(map(sum, truth(labels))))


def perr(scores, labels):
    scores, labels = table(scores), truth(labels)
    if not alike(scores, labels) or any(one < 0 for row in scores for one in row):
        return REFUSED
    shares = []
    for row, right in zip(scores, labels, strict=True):
        wanted = int(sum(right))
        shares.append(Fraction(sum(row[at] > 0 and right[at] == 1 for at in best(row, wanted)), max(wanted, 1)))
    return float(sum(shares) / len(shares))


def hit_at_1(scores, labels):
    top = top_scores(scores, labels, 1)
    return top if top == REFUSED else sum(right for (right,) in top[1]) / len(top[1])


def top_scores(scores, labels, k):
    scores, labels, k = table(scores), truth(labels), whole(k, 1)
    if not alike(scores, labels) or k is None:
        return REFUSED
    chosen = [best(row, k) for row in scores]
    return [[[row[at] for at in places] for row, places in zip(one, chosen, strict=True)] for one in (scores, labels)]


def gap_from_top(scores, hits, positives, k, times=None):
    """``times``: how often each video is taken."""
    scores, hits, positives, k = table(scores), truth(hits), counts(positives), whole(k, 1)
    times = [1] * len(scores or ()) if times is None else counts(times)
    if not alike(scores, hits) or None in (positives, k, times) or not len(positives) == len(times) == len(hits):
        return REFUSED
    if any(row != sorted(row, reverse=True) for row in scores) or over(hits, positives):
        return REFUSED
    lists = [
        list(zip(row, right, strict=True))[:k]
        for row, right, often in zip(scores, hits, times, strict=True)
        for _ in range(often)
    ]
    return ranking(lists, sum(n * often for n, often in zip(positives, times, strict=True)))


def over(hits, positives):
    return any(sum(row) > n for row, n in zip(hits, positives, strict=True))


def perr_from_top(hits, positives):
    hits, positives = truth(hits), counts(positives)
    if not hits or not positives or len(hits) != len(positives) or over(hits, positives):
        return REFUSED
    if max(positives) > len(hits[0]):
        return REFUSED
    return float(sum(Fraction(int(sum(r[:n])), max(n, 1)) for r, n in zip(hits, positives, strict=True)) / len(hits))


def hit_at_1_from_top(hits):
    hits = truth(hits)
    return sum(row[0] for row in hits) / len(hits) if hits else REFUSED


def bootstrap_counts(videos, draws, seed):
    videos, draws, seed = whole(videos, 1), whole(draws, 1), whole(seed, 0)
    if None in (videos, draws, seed) or max(videos, draws) > 2**31:
        return REFUSED
    random = np.random.default_rng(seed)
    samples = [random.integers(videos, size=videos).tolist() for _ in range(draws)]
    return [[sample.count(one) for one in range(videos)] for sample in samples]


def number(given):
    if not isinstance(given, int | float) or isinstance(given, bool) or given != given or given == 10**400:
        return None
    return float(given)


def student_p(t, freedom):
    t, freedom = number(t), number(freedom)
    if t is None or freedom is None or abs(t) == mpmath.inf or freedom <= 0:
        return REFUSED
    if freedom > 1e9:
        return float(mpmath.erfc(abs(t) / mpmath.sqrt(2)))
    return float(mpmath.betainc(freedom / 2, 0.5, 0, freedom / (freedom + mpmath.mpf(t) ** 2), regularized=True))


def holm(p):
    p = plain(p)
    if p is None or not real(*p) or not all(0 <= one <= 1 for one in p if one == one):
        return REFUSED
    given = sorted((one, place) for place, one in enumerate(p) if one == one)
    found, largest = [float("nan")] * len(p), 0.0
    for rank, (one, place) in enumerate(given):
        largest = max(largest, (len(given) - rank) * one)
        found[place] = min(1.0, largest)
    return found


def sample(seeds, points, draws, videos):
    """Per seed its value and draws, exact; and how many videos and draws there are."""
    points, draws, videos = plain(points), table(draws), whole(videos, 2)
    named = [whole(seed, 0) for seed in seeds] if isinstance(seeds, list | tuple) else []
    if not named or None in named or len(set(named)) < len(named) or not points or not draws or videos is None:
        return REFUSED
    if not real(*points) or not len(named) == len(points) == len(draws) or len(draws[0]) < 20:
        return REFUSED
    if not all(abs(one) < mpmath.inf for one in (*points, *itertools.chain(*draws))):
        return REFUSED
    rows = zip(named, points, draws, strict=True)
    return {seed: (Fraction(point), [*map(Fraction, row)]) for seed, point, row in rows}, (videos, len(draws[0]))


def variance(values):
    mean = sum(values) / len(values)
    return sum((one - mean) ** 2 for one in values) / (len(values) - 1)


def estimate(one):
    return REFUSED if one == REFUSED else combine([one[0]], [1])


def difference(one, other):
    if REFUSED in (one, other) or one[1] != other[1]:
        return REFUSED
    (first, _), (second, _) = one, other
    if set(first) != set(second):
        return combine([first, second], [1, -1])
    pairs = {seed: (first[seed], second[seed]) for seed in first}
    return combine(
        [{s: (a - b, [x - y for x, y in zip(m, n, strict=True)]) for s, ((a, m), (b, n)) in pairs.items()}], [1]
    )


def combine(samples, signs):
    """Value, squared error, 1 / degrees of freedom; of Obuchowski and Rockette, and Satterthwaite."""
    points = [[point for point, _ in one.values()] for one in samples]
    draws = [[row for _, row in one.values()] for one in samples]
    value = sum(sign * sum(one) / len(one) for sign, one in zip(signs, points, strict=True))
    columns = [list(zip(*rows, strict=True)) for rows in draws]
    means = [sum(s * sum(c) / len(c) for s, c in zip(signs, at, strict=True)) for at in zip(*columns, strict=True)]
    if min(map(len, points)) == 1:
        return value, variance(means), Fraction(0)
    own = Fraction(0)
    for rows in draws:
        apart = [[one - sum(row) / len(row) for one in row] for row in rows]
        own += sum(map(variance, zip(*apart, strict=True))) / len(rows[0]) / len(rows)
    parts = [variance(one) / len(one) for one in points]
    whole_variance = max(variance(means) - own, Fraction(0)) + sum(parts)
    lost = sum(part**2 / (len(one) - 1) for part, one in zip(parts, points, strict=True))
    return value, whole_variance, lost / whole_variance**2 if whole_variance else Fraction(0)
