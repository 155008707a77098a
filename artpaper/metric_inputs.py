"""What a metric or a statistic is given: understood, or refused in words; never cast so that it means something else.

Understood are NumPy arrays, tensors on any device, in any layout and mode, nested lists, DataFrames, and whatever else
NumPy reads. Integers and bools stay what they are: ranked as such, none is rounded and none wraps. ``name`` is what
a message calls an argument; what cannot be read is a TypeError, what has the wrong values or shape a ValueError.
"""

import operator
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, Shaped

Array = np.ndarray | torch.Tensor
# For the reader; the other types that are understood are Any's, and what is not is told in words, as is a wrong shape.
Scores = Shaped[Array, "videos classes"] | Any
Labels = Shaped[Array, "videos classes"] | Any
TopScores = Shaped[Array, "videos listed"] | Any
Hits = Bool[Array, "videos listed"] | Any
Counts = Shaped[Array, " videos"] | Any
Whole = int | Any
MOST = 2**31 - 1  # that is counted to
NATIVE = (torch.float16, torch.float32, torch.float64)  # the floats that NumPy has too


def read(given: Any, name: str) -> Shaped[Array, "..."]:
    """An array of bools, integers or floats, or a tensor of them where it lies, of the shape that was passed."""
    rows = given if isinstance(given, list | tuple) else [given]
    if any(np.ma.is_masked(row) for row in rows):
        raise ValueError(f"{name}: some values are masked; leave their rows out, or fill them")
    try:
        array = _tensor(given) if isinstance(given, torch.Tensor) else _array(given)
        kind = numbers(array[:0]).dtype
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise TypeError(
            f"{name}: {type(given).__name__} is not read as numbers ({reason}); pass a NumPy array, a dense tensor, "
            "rows of equal length, or a DataFrame"
        ) from None
    if kind.kind not in "biuf":
        raise TypeError(f"{name}: real numbers are needed, not {kind}")
    return array


def _tensor(given: torch.Tensor) -> torch.Tensor:
    dense = given.detach() if given.layout == torch.strided else given.detach().to_dense()
    return dense.reshape(1) if dense.ndim == 0 else dense


def _array(given: Any) -> np.ndarray:
    if getattr(given, "ndim", 0) == 2 and hasattr(given, "columns") and len(set(given.dtypes)) > 1:
        given = given.to_numpy(object)  # one type for all columns would round large integers
    array = np.atleast_1d(np.asarray(given))
    if isinstance(given, list | tuple) and array.dtype.kind == "f" and (np.abs(array) >= 2**53).any():
        array = np.asarray(given, object)  # as would one type for all of a list
    if array.dtype.kind == "V" and array.dtype.names is None:  # bfloat16 and float8 as other packages give them
        return array.astype(np.float32)
    return _exact(array) if array.dtype == object else array


def _exact(objects: np.ndarray) -> np.ndarray:
    """Python's numbers in the first type that holds every one exactly; NaN is a float."""
    if {type(value) for value in objects.flat} <= {bool, np.bool_}:
        return objects.astype(bool)
    for kind in (np.int64, np.uint64, np.float64):
        try:
            array = objects.astype(kind)
            if np.all((array.astype(object) == objects) | (objects != objects)):  # as Python compares: exactly
                return array
        except (TypeError, ValueError, OverflowError):
            continue
    raise TypeError("no type of NumPy holds each of its values exactly")


def numbers(array: Shaped[Array, "..."]) -> Shaped[np.ndarray, "..."]:
    """What :func:`read` gave, or a part of it, as NumPy's."""
    if isinstance(array, np.ndarray):
        return array
    return (array.float() if array.is_floating_point() and array.dtype not in NATIVE else array).numpy(force=True)


def best_first(scores: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Keys whose ascending order is the descending one of the scores; of integers the complement, for -x may wrap."""
    return -scores if scores.dtype.kind == "f" else ~scores


def pair(scores: Scores, labels: Labels) -> tuple[Shaped[Array, "videos classes"], Shaped[Array, "videos classes"]]:
    """Scores and labels as :func:`read` gives them, of the same videos and classes, of which there are some."""
    ranked, truth = read(scores, "scores"), read(labels, "labels")
    shape = tuple(ranked.shape)
    if len(shape) != 2 or shape != tuple(truth.shape):
        raise ValueError(f"scores {shape} and labels {tuple(truth.shape)} must both be (videos, classes)")
    if 0 in shape:
        raise ValueError(f"scores of shape {shape}: nothing to evaluate")
    if hasattr(scores, "columns") and hasattr(labels, "columns"):
        for axis in ("index", "columns"):
            if list(getattr(scores, axis)) != list(getattr(labels, axis)):
                raise ValueError(
                    f"{axis} of scores and labels differ, or are in another order; pass "
                    "labels.loc[scores.index, scores.columns], or both as .to_numpy() if only the names differ"
                )
    return ranked, truth


def refuse_nan(scores: Shaped[np.ndarray, "rows _"], start: int = 0) -> None:
    """Nothing ranks NaN; ``start`` is the number of the first row."""
    if np.isnan(scores.max()):  # any NaN is the maximum
        bad = np.isnan(scores).any(axis=1)
        raise ValueError(f"scores of video {start + int(bad.argmax())} (counted from 0) hold NaN")


def binary(given: Shaped[np.ndarray, "rows _"], name: str, start: int = 0) -> Bool[np.ndarray, "rows _"]:
    """Rows of 0 and 1 of any type as bool; ``start`` is the number of the first."""
    truth = given.astype(bool, copy=False)
    if given.dtype != bool and not np.array_equal(truth, given):
        wrong = truth != given
        row = int(wrong.any(axis=1).argmax())
        raise ValueError(
            f"{name} of video {start + row} hold values other than 0 and 1 ({given[row, int(wrong[row].argmax())]} for "
            "one); multi-hot sets are needed, such as labels > 0 of counts or of -1 and 1"
        )
    return truth


def hit_lists(hits: Hits) -> Bool[np.ndarray, "videos listed"]:
    """Whether each of a video's best classes is one of its labels, checked."""
    lists = read(hits, "hits")
    if 0 in lists.shape:
        raise ValueError(f"hits of shape {tuple(lists.shape)}: nothing to evaluate")
    if lists.ndim != 2:
        raise ValueError(f"hits {tuple(lists.shape)} must be (videos, listed)")
    return binary(numbers(lists), "hits")


def label_counts(positives: Counts, hits: Bool[np.ndarray, "videos listed"]) -> Int64[np.ndarray, " videos"]:
    """Each video's number of labels, at least that of its hits."""
    counts = whole_numbers(positives, "positives")
    if len(counts) != len(hits):
        raise ValueError(f"hits of {len(hits)} videos, positives of {len(counts)}")
    over = np.count_nonzero(hits, axis=1) > counts
    if over.any():
        raise ValueError(f"video {int(over.argmax())} (counted from 0) has more hits than labels")
    return counts


def score_lists(scores: TopScores, hits: Bool[np.ndarray, "videos listed"]) -> Shaped[np.ndarray, "videos listed"]:
    """Each video's highest scores, checked to descend."""
    lists = numbers(read(scores, "scores"))
    if lists.shape != hits.shape:
        raise ValueError(f"scores {lists.shape} and hits {hits.shape} differ in shape")
    refuse_nan(lists)
    rising = (lists[:, 1:] > lists[:, :-1]).any(axis=1)
    if rising.any():
        raise ValueError(
            f"scores of video {int(rising.argmax())} (counted from 0) are not in descending order; top_scores gives "
            "lists that are, and whole rows are for gap, perr and hit_at_1"
        )
    return lists


def whole_numbers(given: Counts, name: str) -> Int64[np.ndarray, " videos"]:
    """Counts, one a video, of any integer or float type, from 0 to :data:`MOST`."""
    array = numbers(read(given, name))
    if array.ndim != 1 or array.dtype.kind == "b":
        raise ValueError(f"{name} {array.shape} of {array.dtype}: one count per video is needed, (videos,)")
    if array.dtype.kind == "f":
        array = finite(array, name)
    fit = (array >= 0) & (array <= MOST) & (array % 1 == 0)
    if not fit.all():
        raise ValueError(f"{name} hold {array[~fit][0]}: whole numbers from 0 to {MOST} are needed")
    return array.astype(np.int64)


def whole(value: Whole, name: str, least: int, why: str) -> int:
    """An integer of any kind (True and 1.0 are none), ``least`` or above, for the reason ``why``."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or getattr(value, "dtype", None) is torch.bool:
        raise TypeError(f"{name} {value!r:.50}: a whole number is needed, {least} or above")
    if number < least:
        raise ValueError(f"{name} {number}: {why}")
    return number


def finite(given: Any, name: str) -> Float64[np.ndarray, "..."]:
    """Numbers to calculate with, of any shape, in double precision; none is NaN or infinite, and bools are none."""
    array = numbers(read(given, name))
    if array.dtype.kind == "b":
        raise TypeError(f"{name}: numbers are needed, not True and False")
    with np.errstate(over="ignore"):  # of longer floats
        array = array.astype(np.float64)
    if not np.isfinite(array).all():
        wrong = array[~np.isfinite(array)][0]
        raise ValueError(f"{name}: {wrong} is no finite number; mend what made it, or leave it out")
    return array
