"""GAP, PERR and Hit@1 as google/youtube-8m defines them, exact, deterministic and in bounded memory.

Two ways in, the same values: ``gap``, ``perr`` and ``hit_at_1`` take whole arrays (videos, classes) and read them in
chunks of rows; the ``*_from_top`` forms take the top lists that a predictions file stores. All return fractions.

Two choices where the reference leaves the outcome to chance (it shuffles before it sorts):

- within a video, the lower class index wins a tie, at rank 1 as at the cut after rank ``top_k``;
- across videos, tied scores share one precision, the one at the end of their group, as in scikit-learn.

So no value depends on the order of the videos. Without ties the values are the reference's.

All raise a TypeError for what is no real numbers, or a ``top_k``, ``k`` or ``positives`` that is no whole number; and a
ValueError for no videos or classes, unlike shapes, DataFrames in unlike order, masked or NaN scores, and labels or hits
other than 0 and 1.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Shaped

from artpaper import metric_inputs as inputs
from artpaper.metric_inputs import Array, Counts, Hits, Labels, Scores, TopScores, Whole

Chunk = Callable[[], tuple[np.ndarray, np.ndarray]]
TOP_K = 20
CHUNK = 2**19  # numbers that a thread reads at a time; bounds the memory above the input


def gap(scores: Scores, labels: Labels, top_k: Whole = TOP_K) -> float:
    """Global average precision: one ranking of every video's ``top_k`` best classes, pooled.

    Args:
        scores: the higher, the likelier; probabilities or logits (only their order counts), of any real type and kind
            of array (videos, classes). Prefer logits: sigmoids that saturate at 1.0 are ties.
        labels: label sets, multi-hot 0/1 of any type (videos, classes).
        top_k: classes kept per video, at least 1, at most all of them.
    Returns:
        sum of the precision at each hit / number of labels, those outside every top list included; 0.0 without labels.
    Raises:
        ValueError: as the module says.
    Source: google/youtube-8m eval_util.py, calculate_gap; section 3.1 of the paper.
    """
    top_k = _top_k(top_k)
    scores, labels = inputs.pair(scores, labels)
    pool = np.empty((len(scores), min(top_k, scores.shape[1])), inputs.numbers(scores[:0]).dtype)  # (videos, top_k)
    chunks, rows = _chunks(scores, labels), _rows(scores)
    rooms = (pool[start : start + rows] for start in range(0, len(pool), rows))
    for array in (scores, labels):
        if isinstance(array, torch.Tensor) and not array.is_cpu:  # threads have streams of their own
            torch.accelerator.current_stream(array.device).synchronize()
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:  # NumPy lets go of the interpreter
        hits, positives = zip(*threads.map(_pooled, chunks, rooms), strict=True)
        parts = np.array_split(pool.reshape(-1), torch.get_num_threads())
        sorting = threads.map(np.ndarray.sort, parts)
        right = np.sort(np.concatenate(hits))  # (hits,) ascending, meanwhile
        list(sorting)
        rank = sum(threads.map(partial(_at_least, hits=right), parts), np.zeros(right.size, np.int64))  # (hits,)
    return _average_precision(rank, right, sum(positives))


def perr(scores: Scores, labels: Labels) -> float:
    """Precision at equal recall rate: of a video's n best classes, n its number of labels, the share that is right.

    Args:
        scores: probabilities (videos, classes). As in the reference a class with a score of 0 is never a hit. A score
            below 0 is refused, for logits would lose hits unseen: pass them through a sigmoid first, in float64, for in
            float32 it may be exactly 0 below a logit of -88.
        labels: label sets, multi-hot 0/1 of any type (videos, classes).
    Returns:
        The mean over videos; a video without labels counts 0 and stays in the denominator.
    Raises:
        ValueError: a score below 0, and as the module says.
    Source: google/youtube-8m eval_util.py, calculate_precision_at_equal_recall_rate.
    """
    scores, labels = inputs.pair(scores, labels)
    total, seen = 0.0, 0
    for chunk in _chunks(scores, labels):
        part, truth = chunk()
        if part.min() < 0:
            row = int((part < 0).any(axis=1).argmax())
            raise ValueError(
                f"scores of video {seen + row} (counted from 0) hold {part[row].min()}: PERR counts no score of 0 or "
                "below as a hit; pass probabilities, of logits torch.sigmoid(logits.double())"
            )
        seen += len(part)
        positives = truth.sum(axis=1)  # (rows,)
        top, hits = _top(part, truth, max(1, int(positives.max())))  # (rows, most labels)
        total += perr_from_top(hits & (top > 0), positives) * len(part)
    return total / scores.shape[0]


def hit_at_1(scores: Scores, labels: Labels) -> float:
    """Share of videos whose best class is among their labels; a video without labels counts 0. Arguments as `gap`'s.

    Source: google/youtube-8m eval_util.py, calculate_hit_at_one.
    """
    return hit_at_1_from_top(top_scores(scores, labels, 1)[1])


def gap_from_top(scores: TopScores, hits: Hits, positives: Counts, top_k: Whole = TOP_K) -> float:
    """:func:`gap` from stored top lists.

    Args:
        scores: each video's highest scores, descending (videos, listed), for all videos logits or all probabilities.
        hits: whether each is a label of its video (videos, listed).
        positives: number of labels of each video, in its list or not (videos,).
        top_k: columns used; a list shorter than this must hold all classes.
    Raises:
        TypeError, ValueError: as the module says.
    """
    right = inputs.hit_lists(hits)
    counts, ranked, top_k = inputs.label_counts(positives, right), inputs.score_lists(scores, right), _top_k(top_k)
    return _precision(ranked[:, :top_k], right[:, :top_k], int(counts.sum()))


def perr_from_top(hits: Hits, positives: Counts) -> float:
    """:func:`perr` from stored top lists.

    Args:
        hits: whether each of a video's best classes, best first, is one of its labels (videos, listed). Lists come from
            logits or from probabilities; a finite logit is a probability above 0, so the reference's rule that a score
            of 0 is no hit asks nothing more here. Pad shorter lists with False.
        positives: number of labels of each video (videos,).
    Raises:
        ValueError: a list shorter than its video's labels, and as the module says.
    """
    right = inputs.hit_lists(hits)
    counts = inputs.label_counts(positives, right)
    if counts.max() > right.shape[1]:
        raise ValueError(f"a video has {counts.max()} labels, the lists hold only {right.shape[1]} classes")
    within = np.arange(right.shape[1]) < counts[:, None]  # (videos, listed): ranked above the cut at n
    return float(np.mean(np.count_nonzero(right & within, axis=1) / np.maximum(counts, 1)))


def hit_at_1_from_top(hits: Hits) -> float:
    """:func:`hit_at_1` from stored top lists: the mean of the first column of ``hits`` (videos, listed)."""
    return float(np.mean(inputs.hit_lists(hits)[:, 0]))


def top_scores(
    scores: Scores, labels: Labels, k: Whole
) -> tuple[Shaped[np.ndarray, "videos k"], Bool[np.ndarray, "videos k"]]:
    """Each video's ``k`` best classes, best first, the lower class index first among ties.

    Args:
        scores, labels: as for :func:`gap`.
        k: classes to keep; all of them where there are fewer.
    Returns:
        Their scores, of the type that came, and whether each is a label of the video.
    """
    k = _top_k(k)
    scores, labels = inputs.pair(scores, labels)
    top, hits = zip(*(_top(*chunk(), k) for chunk in _chunks(scores, labels)), strict=True)
    return np.concatenate(top), np.concatenate(hits)


def average_precision(scores: Shaped[Array, "..."] | Any, hits: Bool[Array, "..."] | Any, positives: Whole) -> float:
    """Non-interpolated average precision of one ranking, without regard to the order the pairs come in.

    Args:
        scores: one per pair, any shape.
        hits: whether the pair is right, same shape.
        positives: what perfect recall would find, at least the number of hits.
    Returns:
        sum over hits of (hits scored at least as high / pairs scored at least as high) / positives; 0.0 if that is 0.
    Raises:
        ValueError: more hits than positives, and as the module says.
    Source: google/youtube-8m average_precision_calculator.py; ties as in sklearn.metrics.average_precision_score.
    """
    ranked, right = inputs.numbers(inputs.read(scores, "scores")), inputs.numbers(inputs.read(hits, "hits"))
    if ranked.shape != right.shape:
        raise ValueError(f"scores {ranked.shape} and hits {right.shape} differ in shape")
    count = inputs.whole(positives, "positives", 0, "a number of labels is not negative")
    if not ranked.size:
        return 0.0
    inputs.refuse_nan(ranked.reshape(1, -1))
    return _precision(ranked, inputs.binary(right.reshape(1, -1), "hits").reshape(right.shape), count)


def _precision(scores: np.ndarray, hits: np.ndarray, positives: int) -> float:
    right = np.sort(scores[hits])  # (hits,) ascending
    return _average_precision(_at_least(np.sort(scores, axis=None), right), right, positives)


def _at_least(scores: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """How many scores (pairs,), ascending, are at least as high as each of those of the hits (hits,)."""
    return scores.size - np.searchsorted(scores, hits)


def _average_precision(rank: np.ndarray, hits: np.ndarray, positives: int) -> float:
    """From the scores of the hits (hits,), ascending, and of each how many pairs are scored at least as high."""
    if hits.size > positives:
        raise ValueError(f"{hits.size} hits but only {positives} labels")
    if hits.size == 0:
        return 0.0
    first = np.arange(hits.size)  # (hits,) the first with the same score
    first[1:][hits[1:] == hits[:-1]] = 0
    hits_above = hits.size - np.maximum.accumulate(first)  # (hits,) hits up to that rank
    return float(np.sum(hits_above / rank) / positives)


def _pooled(chunk: Chunk, room: np.ndarray) -> tuple[np.ndarray, int]:
    """Put a chunk's top scores into the pool (rows, k); gives those that are right (hits,) and the number of labels."""
    scores, labels = chunk()
    k = room.shape[1]
    outside = scores.shape[1] - k
    room[:] = np.partition(scores, outside, axis=1)[:, outside:]
    places = np.flatnonzero(labels)  # (labels,) nonzero is ten times as slow
    row = places // scores.shape[1]
    own, last = scores.reshape(-1)[places], room[row, 0]  # (labels,) each
    right = own > last
    level = np.flatnonzero(own == last)  # where others may be as high, of which some do not count
    rows, back = np.unique(row[level], return_inverse=True)
    right[level] = _best(scores[rows], k)[back, places[level] % scores.shape[1]]
    return own[right], len(places)


def _top(scores: np.ndarray, labels: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """One chunk's top scores (rows, k) and hits (rows, k), best first."""
    best = _best(scores, min(k, scores.shape[1]))  # (rows, classes)
    top, hits = (array[best].reshape(len(scores), -1) for array in (scores, labels))  # (rows, k)
    order = np.argsort(inputs.best_first(top), axis=1, kind="stable")  # stable, so that the lower class comes first
    return np.take_along_axis(top, order, axis=1), np.take_along_axis(hits, order, axis=1)


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """Which are a row's k highest, k of each; of equals the lower class."""
    outside = scores.shape[1] - k
    cut = np.partition(scores, outside, axis=1)[:, outside, None]  # far faster than argpartition
    best = scores >= cut
    tied = np.flatnonzero(np.count_nonzero(best, axis=1) > k)
    if len(tied):
        order = np.argsort(inputs.best_first(scores[tied]), axis=1, kind="stable")[:, :k]
        best[tied] = False
        best[tied[:, None], order] = True
    return best


def _chunks(scores: Array, labels: Array) -> Iterator[Chunk]:
    """Functions that fetch and check some rows: scores (rows, classes) and labels bool (rows, classes)."""
    rows = _rows(scores)
    return (partial(_chunk, scores, labels, start, start + rows) for start in range(0, scores.shape[0], rows))


def _rows(scores: Array) -> int:
    return max(1, CHUNK // scores.shape[1])


def _chunk(scores: Array, labels: Array, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    part = inputs.numbers(scores[start:stop])
    inputs.refuse_nan(part, start)
    return part, inputs.binary(inputs.numbers(labels[start:stop]), "labels", start)


def _top_k(k: Whole) -> int:
    return inputs.whole(k, "top_k", 1, "at least one class per video must be kept")
