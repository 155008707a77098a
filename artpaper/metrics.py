"""GAP, PERR and Hit@1 as google/youtube-8m defines them, exact, deterministic and in bounded memory.

Two ways in, the same values: ``gap``, ``perr`` and ``hit_at_1`` take whole arrays (videos, classes) and read them in
chunks of rows; the ``*_from_top`` forms take the top lists that a predictions file stores. All return fractions.

Two choices where the reference leaves the outcome to chance (it shuffles before it sorts):

- within a video, the lower class index wins a tie, at rank 1 as at the cut after rank ``top_k``;
- across videos, tied scores share one precision, the one at the end of their group, as in scikit-learn.

So no value depends on the order of the videos. Without ties the values are the reference's.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer, Shaped

Array = np.ndarray | torch.Tensor
Chunk = Callable[[], tuple[np.ndarray, np.ndarray]]
TOP_K = 20
CHUNK = 2**20  # numbers that a thread reads at a time; bounds the memory above the input

# In a signature the first array names the axes; the shapes of the others (``_``) are checked by hand, as ValueError.


def gap(scores: Float[Array, "videos classes"], labels: Shaped[Array, "_ _"], top_k: int = TOP_K) -> float:
    """Global average precision: one ranking of every video's ``top_k`` best classes, pooled.

    Args:
        scores: the higher, the likelier; probabilities or logits (only their order counts), any float type. Prefer
            logits: sigmoids that saturate at 1.0 are ties.
        labels: label sets, multi-hot 0/1 of any type (videos, classes).
        top_k: classes kept per video, at most all of them.
    Returns:
        sum of the precision at each hit / number of labels, those outside every top list included; 0.0 without labels.
    Raises:
        ValueError: no videos or classes, unlike shapes, NaN scores, labels other than 0 and 1, or top_k below 1.
    Source: google/youtube-8m eval_util.py, calculate_gap; section 3.1 of the paper.
    """
    _check_top(top_k)
    chunks, most = _chunks(scores, labels), min(top_k, scores.shape[1])
    pool = np.empty((len(scores), most), _numpy(scores[:0]).dtype)  # (videos, top_k)
    hits, positives, end = [], 0, 0
    for array in (scores, labels):
        if isinstance(array, torch.Tensor) and array.is_cuda:  # threads have streams of their own
            torch.cuda.current_stream(array.device).synchronize()
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:  # NumPy lets go of the interpreter
        for top, right, count in threads.map(partial(_pooled, k=most), chunks):
            start, end = end, end + len(top)
            pool[start:end] = top
            hits.append(right)
            positives += count
        found = np.sort(np.concatenate(hits))  # (hits,) ascending
        parts = np.array_split(pool.reshape(-1), torch.get_num_threads())
        rank = sum(threads.map(partial(_at_least, found=found), parts), np.zeros(found.size, np.int64))  # (hits,)
    return _average_precision(rank, found, positives)


def perr(scores: Float[Array, "videos classes"], labels: Shaped[Array, "_ _"]) -> float:
    """Precision at equal recall rate: of a video's n best classes, n its number of labels, the share that is right.

    Args:
        scores: probabilities. As in the reference a class with a score of 0 or below is never a hit, so pass logits
            through a sigmoid first, in float64: in float32 it may be exactly 0 below a logit of -88.
        labels: label sets, multi-hot 0/1 of any type (videos, classes).
    Returns:
        The mean over videos; a video without labels counts 0 and stays in the denominator.
    Raises:
        ValueError: no videos or classes, unlike shapes, NaN scores, or labels other than 0 and 1.
    Source: google/youtube-8m eval_util.py, calculate_precision_at_equal_recall_rate.
    """
    total = 0.0
    for chunk in _chunks(scores, labels):
        part, truth = chunk()
        positives = truth.sum(axis=1)  # (rows,)
        top, hits = _top(part, truth, max(1, int(positives.max())))  # (rows, most labels)
        total += perr_from_top(hits & (top > 0), positives) * len(part)
    return total / scores.shape[0]


def hit_at_1(scores: Float[Array, "videos classes"], labels: Shaped[Array, "_ _"]) -> float:
    """Share of videos whose best class is among their labels; a video without labels counts 0.

    Args:
        scores: probabilities or logits, any float type; the lower class index wins a tie.
        labels: label sets, multi-hot 0/1 of any type (videos, classes).
    Raises:
        ValueError: no videos or classes, unlike shapes, NaN scores, or labels other than 0 and 1.
    Source: google/youtube-8m eval_util.py, calculate_hit_at_one.
    """
    return hit_at_1_from_top(top_scores(scores, labels, 1)[1])


def gap_from_top(
    scores: Float[np.ndarray, "videos listed"],
    hits: Bool[np.ndarray, "_ _"],
    positives: Integer[np.ndarray, " _"],
    top_k: int = TOP_K,
) -> float:
    """:func:`gap` from stored top lists.

    Args:
        scores: each video's highest scores, descending; logits or probabilities, the same kind for all videos.
        hits: whether each is a label of its video (videos, listed).
        positives: number of labels of each video, in its list or not (videos,).
        top_k: columns used; a list shorter than this must hold all classes.
    Raises:
        ValueError: no videos, unlike shapes, NaN scores, more hits than labels, or top_k below 1.
    """
    _check_lists(hits, positives)
    if scores.shape != hits.shape:
        raise ValueError(f"scores {scores.shape} and hits {hits.shape} differ in shape")
    _check_top(top_k)
    _refuse_nan(scores, 0)
    return average_precision(scores[:, :top_k], hits[:, :top_k], int(positives.sum()))


def perr_from_top(hits: Bool[np.ndarray, "videos listed"], positives: Integer[np.ndarray, " _"]) -> float:
    """:func:`perr` from stored top lists.

    Args:
        hits: whether each of a video's best classes, best first, is one of its labels. Lists come from logits or from
            probabilities; a finite logit is a probability above 0, so the reference's rule that a score of 0 is no hit
            asks nothing more here. Pad shorter lists with False.
        positives: number of labels of each video (videos,).
    Raises:
        ValueError: no videos, unlike shapes, more hits than labels, or a list shorter than its video's labels.
    """
    _check_lists(hits, positives)
    if positives.max() > hits.shape[1]:
        raise ValueError(f"a video has {positives.max()} labels, the lists hold only {hits.shape[1]} classes")
    within = np.arange(hits.shape[1]) < positives[:, None]  # (videos, listed): ranked above the cut at n
    right = np.count_nonzero(hits & within, axis=1)  # (videos,)
    return float(np.mean(right / np.maximum(positives, 1)))


def hit_at_1_from_top(hits: Bool[np.ndarray, "videos listed"]) -> float:
    """:func:`hit_at_1` from stored top lists: the mean of the first column of ``hits``.

    Raises:
        ValueError: no videos, or empty lists.
    """
    if 0 in hits.shape:
        raise ValueError(f"hits of shape {hits.shape}: nothing to evaluate")
    return float(np.mean(hits[:, 0]))


def top_scores(
    scores: Float[Array, "videos classes"], labels: Shaped[Array, "_ _"], k: int
) -> tuple[Float[np.ndarray, "videos k"], Bool[np.ndarray, "videos k"]]:
    """Each video's ``k`` best classes, best first, the lower class index first among ties.

    Args:
        scores: probabilities or logits, any float type.
        labels: label sets, multi-hot 0/1 of any type (videos, classes).
        k: classes to keep; all of them where there are fewer.
    Returns:
        Their scores, and whether each is a label of the video.
    Raises:
        ValueError: no videos or classes, unlike shapes, NaN scores, labels other than 0 and 1, or k below 1.
    """
    _check_top(k)
    top, hits = zip(*(_top(*chunk(), k) for chunk in _chunks(scores, labels)), strict=True)
    return np.concatenate(top), np.concatenate(hits)


def average_precision(scores: Float[np.ndarray, "..."], hits: Bool[np.ndarray, "..."], positives: int) -> float:
    """Non-interpolated average precision of one ranking, without regard to the order the pairs come in.

    Args:
        scores: one per pair, any shape.
        hits: whether the pair is right, same shape.
        positives: what perfect recall would find, at least the number of hits.
    Returns:
        sum over hits of (hits scored at least as high / pairs scored at least as high) / positives; 0.0 if that is 0.
    Raises:
        ValueError: more hits than positives.
    Source: google/youtube-8m average_precision_calculator.py; ties as in sklearn.metrics.average_precision_score.
    """
    found = np.sort(scores[hits])  # (hits,) ascending
    return _average_precision(_at_least(scores.flatten(), found), found, positives)


def _at_least(scores: np.ndarray, found: np.ndarray) -> np.ndarray:
    """How many scores (pairs,) are at least as high as each of those found (hits,); sorts the scores in place."""
    scores.sort()
    return scores.size - np.searchsorted(scores, found)


def _average_precision(rank: np.ndarray, found: np.ndarray, positives: int) -> float:
    """From the scores of the hits (hits,), ascending, and of each how many pairs are scored at least as high."""
    if found.size > positives:
        raise ValueError(f"{found.size} hits but only {positives} labels")
    if found.size == 0:
        return 0.0
    first = np.arange(found.size)  # (hits,) the first with the same score
    first[1:][found[1:] == found[:-1]] = 0
    hits_above = found.size - np.maximum.accumulate(first)  # (hits,) hits up to that rank
    return float(np.sum(hits_above / rank) / positives)


def _pooled(chunk: Chunk, k: int) -> tuple[np.ndarray, np.ndarray, int]:
    """What a chunk gives to the pool: its top scores (rows, k), those that are right (hits,), its number of labels."""
    scores, labels = chunk()
    outside = scores.shape[1] - k
    parted = np.partition(scores, outside, axis=1)  # (rows, classes)
    row, label = np.divmod(np.flatnonzero(labels), scores.shape[1])  # (labels,) each; nonzero is ten times as slow
    own, last = scores[row, label], parted[row, outside]  # (labels,) each
    right = own > last
    level = np.flatnonzero(own == last)  # where others may be as high, of which some do not count
    rows, back = np.unique(row[level], return_inverse=True)
    right[level] = _best(scores[rows], k)[back, label[level]]
    return parted[:, outside:].copy(), own[right], len(row)


def _top(scores: np.ndarray, labels: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """One chunk's top scores (rows, k) and hits (rows, k), best first."""
    best = _best(scores, min(k, scores.shape[1]))  # (rows, classes)
    top, hits = (array[best].reshape(len(scores), -1) for array in (scores, labels))  # (rows, k)
    order = np.argsort(-top, axis=1, kind="stable")  # stable, so that the lower class comes first
    return np.take_along_axis(top, order, axis=1), np.take_along_axis(hits, order, axis=1)


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """Which are a row's k highest, k of each; of equals the lower class."""
    outside = scores.shape[1] - k
    cut = np.partition(scores, outside, axis=1)[:, outside, None]  # far faster than argpartition
    best = scores >= cut
    tied = np.flatnonzero(np.count_nonzero(best, axis=1) > k)
    if len(tied):
        order = np.argsort(-scores[tied], axis=1, kind="stable")[:, :k]
        best[tied] = False
        best[tied[:, None], order] = True
    return best


def _chunks(scores: Array, labels: Array) -> Iterator[Chunk]:
    """Functions that fetch and check some rows: scores float (rows, classes) and labels bool (rows, classes)."""
    if scores.ndim != 2 or tuple(scores.shape) != tuple(labels.shape):
        raise ValueError(
            f"scores {tuple(scores.shape)} and labels {tuple(labels.shape)} must both be (videos, classes)"
        )
    videos, classes = scores.shape
    if not videos or not classes:
        raise ValueError(f"scores of shape {tuple(scores.shape)}: nothing to evaluate")
    rows = max(1, CHUNK // classes)
    return (partial(_chunk, scores, labels, start, start + rows) for start in range(0, videos, rows))


def _chunk(scores: Array, labels: Array, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    part, given = _numpy(scores[start:stop]), _numpy(labels[start:stop])
    _refuse_nan(part, start)
    truth = given.astype(bool, copy=False)
    if given.dtype != bool and not np.array_equal(truth, given):
        wrong = start + int((truth != given).any(axis=1).argmax())
        raise ValueError(f"labels of video {wrong} hold values other than 0 and 1")
    return part, truth


def _numpy(array: Array) -> np.ndarray:
    if isinstance(array, np.ndarray):
        return array
    array = array.detach().cpu()
    return (array.float() if array.dtype == torch.bfloat16 else array).numpy()  # NumPy has no bfloat16


def _refuse_nan(scores: np.ndarray, start: int) -> None:
    if np.isnan(scores.max()):  # any NaN is the maximum
        bad = np.isnan(scores).any(axis=1)
        raise ValueError(f"scores of video {start + int(bad.argmax())} (counted from 0) hold NaN")


def _check_top(k: int) -> None:
    if k < 1:
        raise ValueError(f"top_k {k}: at least one class per video must be kept")


def _check_lists(hits: np.ndarray, positives: np.ndarray) -> None:
    if 0 in hits.shape:
        raise ValueError(f"hits of shape {hits.shape}: nothing to evaluate")
    if len(positives) != len(hits):
        raise ValueError(f"hits of {len(hits)} videos, positives of {len(positives)}")
    over = np.count_nonzero(hits, axis=1) > positives
    if over.any():
        raise ValueError(f"video {int(over.argmax())} (counted from 0) has more hits than labels")
