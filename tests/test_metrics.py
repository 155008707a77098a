"""GAP, PERR and Hit@1 against recorded values, the reference's loops, scikit-learn and pencil and paper."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score

from artpaper import metrics
from artpaper.metrics import (
    average_precision,
    gap,
    gap_from_top,
    hit_at_1,
    hit_at_1_from_top,
    perr,
    perr_from_top,
    top_scores,
)
from pipeline.scale.workers import torch_threads

EXACT = {"rel": 0, "abs": 1e-12}
# What google/youtube-8m's eval_util.py returns on `golden_input`: videos, classes, seed, GAP, PERR, Hit@1.
GOLDEN = [
    (8, 30, 0, 0.5155000718105472, 0.4938492063492063, 0.625),
    (64, 317, 1, 0.4851466280198955, 0.4562686011904762, 0.8125),
    (500, 40, 2, 0.5114814316955874, 0.45340238095238106, 0.812),
]
ALL = (gap, perr, hit_at_1)


def golden_input(videos, classes, seed):
    random = np.random.RandomState(seed)  # the recorded values belong to this stream
    scores = random.rand(videos, classes)
    labels = random.rand(videos, classes) < 3.0 / classes
    labels[np.arange(videos), random.randint(0, classes, videos)] = True
    return np.clip(scores * 0.5 + 0.4 * labels * random.rand(videos, classes), 0, 1), labels


def random_input(videos, classes, seed, density=0.1):
    """Untied scores in (0, 1), label sets of which some are empty."""
    random = np.random.default_rng(seed)
    scores = (random.permutation(videos * classes).reshape(videos, classes) + 1.0) / (videos * classes + 1)
    return scores, random.random((videos, classes)) < density


def reference(scores, labels, top_k=20):
    """eval_util.py and average_precision_calculator.py as loops, the shuffle among ties left out."""
    pairs, right, first = [], 0.0, 0.0
    for row, truth in zip(scores, labels, strict=True):
        best = sorted(range(len(row)), key=lambda index: -row[index])
        pairs += [(row[index], truth[index]) for index in best[: min(top_k, len(row))]]
        wanted = int(truth.sum())
        right += sum(1.0 for index in best[:wanted] if truth[index] and row[index] > 0) / max(wanted, 1)
        first += float(truth[best[0]])
    hits, area = 0, 0.0
    for position, (_, hit) in enumerate(sorted(pairs, key=lambda pair: -pair[0]), start=1):
        if hit:
            hits += 1
            area += hits / position
    return area / labels.sum(), right / len(scores), first / len(scores)


@pytest.mark.parametrize(("videos", "classes", "seed", "gap_", "perr_", "hit_"), GOLDEN)
def test_recorded_values_of_the_reference(videos, classes, seed, gap_, perr_, hit_):
    scores, labels = golden_input(videos, classes, seed)
    assert gap(scores, labels) == pytest.approx(gap_, **EXACT)
    assert perr(scores, labels) == pytest.approx(perr_, **EXACT)
    assert hit_at_1(scores, labels) == pytest.approx(hit_, **EXACT)


@pytest.mark.parametrize("classes", [5, 20, 33], ids=["fewer than 20 classes", "20 classes", "more"])
@pytest.mark.parametrize("chunk", [1, 100, 2**20], ids=["a video a chunk", "some", "one chunk"])
def test_equals_the_loops_of_the_reference(classes, chunk, monkeypatch):
    monkeypatch.setattr(metrics, "CHUNK", chunk)
    scores, labels = random_input(50, classes, seed=classes)
    assert (labels.sum(axis=1) == 0).any()
    assert [f(scores, labels) for f in ALL] == pytest.approx(reference(scores, labels), **EXACT)


def test_positives_outside_the_top_list_count():
    scores, labels = np.array([[0.9, 0.5, 0.1]]), np.array([[1, 0, 1]])
    assert gap(scores, labels, top_k=1) == 0.5


def test_ties_equal_scikit_learn_when_the_lists_hold_all_classes():
    random = np.random.default_rng(0)
    scores, labels = random.integers(0, 6, (40, 12)) / 6, random.random((40, 12)) < 0.3
    expected = average_precision_score(labels.ravel(), scores.ravel())
    assert gap(scores, labels) == pytest.approx(expected, **EXACT)


def test_the_order_of_the_videos_is_irrelevant():
    random = np.random.default_rng(1)
    scores, labels = random.integers(0, 4, (60, 40)) / 4, random.random((60, 40)) < 0.1
    order = random.permutation(60)
    assert gap(scores[order], labels[order]) == gap(scores, labels)
    assert perr(scores[order], labels[order]) == pytest.approx(perr(scores, labels), **EXACT)
    assert hit_at_1(scores[order], labels[order]) == hit_at_1(scores, labels)


@pytest.mark.parametrize("classes", [3, 50])
def test_the_lower_class_wins_a_tie_within_a_video(classes):
    scores = np.full((1, classes), 0.5)
    lower, upper = np.eye(classes, dtype=bool)[[0]], np.eye(classes, dtype=bool)[[1]]
    assert (hit_at_1(scores, lower), hit_at_1(scores, upper)) == (1.0, 0.0)
    assert (perr(scores, lower), perr(scores, upper)) == (1.0, 0.0)
    assert (gap(scores, lower, top_k=1), gap(scores, upper, top_k=1)) == (1.0, 0.0)
    top, hits = metrics.top_scores(scores, np.eye(classes, dtype=bool)[[1]], 2)
    assert top.tolist() == [[0.5, 0.5]]
    assert hits.tolist() == [[False, True]]


def test_a_tie_at_the_cut_goes_by_class_and_the_rest_by_score():
    top, hits = metrics.top_scores(np.array([[0.2, 0.9, 0.2, 0.2, 0.5]]), np.array([[0, 0, 1, 0, 1]]), 4)
    assert top.tolist() == [[0.9, 0.5, 0.2, 0.2]]
    assert hits.tolist() == [[False, True, False, True]]


@pytest.mark.parametrize("k", [1, 7, 39, 40])
def test_top_lists_equal_a_stable_sort_however_many_ties(k):
    random = np.random.default_rng(2)
    scores, labels = random.integers(0, 3, (200, 40)) / 2, random.random((200, 40)) < 0.5
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    top, hits = metrics.top_scores(scores, labels, k)
    np.testing.assert_array_equal(top, np.take_along_axis(scores, order, axis=1))
    np.testing.assert_array_equal(hits, np.take_along_axis(labels, order, axis=1))


def test_perfect_and_worst_rankings():
    labels = np.zeros((4, 10), dtype=bool)
    labels[:, :2] = True
    assert [f(np.where(labels, 0.9, 0.1), labels) for f in ALL] == [1.0, 1.0, 1.0]
    worst = np.where(labels, 0.1, 0.9)
    # all 8 hits in the last group, after the 32 wrong ones: precision 8/40
    assert [f(worst, labels) for f in ALL] == [0.2, 0.0, 0.0]
    assert gap(worst, labels, top_k=8) == 0.0


def test_videos_without_labels_stay_in_the_denominator():
    scores, labels = np.array([[0.9, 0.1, 0.5], [0.2, 0.7, 0.4]]), np.array([[0, 0, 0], [0, 1, 1]])
    assert [f(scores, labels) for f in ALL] == [0.5, 0.5, 0.5]


def test_a_score_of_zero_is_no_hit_of_perr():
    scores, labels = np.zeros((1, 4)), np.array([[1, 1, 0, 0]])
    assert perr(scores, labels) == 0.0
    assert gap(scores, labels) == 0.5  # one group of four, two right; the reference gives 0.75 by its shuffle
    assert perr(scores + 1e-300, labels) == 1.0


def test_no_labels_at_all_is_zero():
    assert [f(np.random.default_rng(0).random((3, 4)), np.zeros((3, 4))) for f in ALL] == [0.0, 0.0, 0.0]


def test_top_lists_give_what_whole_rows_give():
    scores, labels = random_input(80, 40, seed=3)
    logits = np.log(scores / (1 - scores))
    positives = labels.sum(axis=1)
    assert positives.max() < 25
    top, hits = metrics.top_scores(logits, labels, 25)
    assert (top < 0).any()
    assert gap_from_top(top, hits, positives) == pytest.approx(gap(scores, labels), **EXACT)
    assert perr_from_top(hits, positives) == pytest.approx(perr(scores, labels), **EXACT)
    assert hit_at_1_from_top(hits) == hit_at_1(scores, labels)


@pytest.mark.parametrize("chunk", [1, 100, 2**20])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_pool_of_gap_is_that_of_the_top_lists_however_many_ties(chunk, threads, monkeypatch):
    monkeypatch.setattr(metrics, "CHUNK", chunk)
    draw = np.random.default_rng(4)
    scores = draw.integers(0, 4, (50, 40)).astype(np.float32)
    for share in (0.0, 0.1, 1.0):
        labels = draw.random((50, 40)) < share
        with torch_threads(threads):
            assert gap(scores, labels) == gap_from_top(*top_scores(scores, labels, 20), labels.sum(axis=1))


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_torch_equals_numpy(function, dtype):
    scores, labels = random_input(30, 25, seed=4)
    tensor = torch.tensor(scores).to(dtype).requires_grad_()
    expected = function(tensor.detach().double().numpy(), labels)
    assert function(tensor, torch.tensor(labels)) == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32])
def test_labels_of_any_type(function, dtype):
    scores, labels = random_input(30, 25, seed=5)
    assert function(scores, labels.astype(dtype)) == function(scores, labels)


@pytest.mark.parametrize("function", ALL)
def test_what_cannot_be_evaluated_is_refused(function, monkeypatch):
    monkeypatch.setattr(metrics, "CHUNK", 8)
    scores, labels = random_input(9, 4, seed=6)
    nan = scores.copy()
    nan[[5, 7], 1] = np.nan
    with pytest.raises(ValueError, match=r"video 5 .*NaN"):
        function(nan, labels)
    with pytest.raises(ValueError, match=r"\(9, 4\) and labels \(9, 3\)"):
        function(scores, labels[:, :3])
    with pytest.raises(ValueError, match="nothing to evaluate"):
        function(scores[:0], labels[:0])
    with pytest.raises(ValueError, match="nothing to evaluate"):
        function(scores[:, :0], labels[:, :0])
    with pytest.raises(ValueError, match="video 3 hold values other than 0 and 1"):
        function(scores, labels + 2 * (np.arange(9) == 3)[:, None])


def test_top_lists_that_contradict_themselves_are_refused():
    scores, hits, positives = np.array([[2.0, 1.0]]), np.array([[True, True]]), np.array([2])
    with pytest.raises(ValueError, match="more hits than labels"):
        gap_from_top(scores, hits, np.array([1]))
    with pytest.raises(ValueError, match="3 labels, the lists hold only 2"):
        perr_from_top(hits, np.array([3]))
    with pytest.raises(ValueError, match=r"video 0 .*NaN"):
        gap_from_top(scores * np.nan, hits, positives)
    with pytest.raises(ValueError, match="differ in shape"):
        gap_from_top(scores[:, :1], hits, positives)
    with pytest.raises(ValueError, match="positives of 2"):
        perr_from_top(hits, np.array([2, 2]))
    with pytest.raises(ValueError, match="nothing to evaluate"):
        hit_at_1_from_top(hits[:0])
    with pytest.raises(ValueError, match="at least one class"):
        gap_from_top(scores, hits, positives, top_k=0)
    with pytest.raises(ValueError, match="at least one class"):
        gap(scores, hits, top_k=0)
    with pytest.raises(ValueError, match="2 hits but only 1"):
        average_precision(scores, hits, 1)


def test_integers_are_ranked_as_they_are():
    """Negating them wraps (0 stays 0, -128 stays -128), and float64 does not tell 2**53 from 2**53 + 1."""
    labels = np.array([[0, 1, 0], [0, 1, 0]])
    assert hit_at_1(np.array([[0, 5, 5], [1, 9, 9]], np.uint8), labels) == 1.0
    assert hit_at_1(np.array([[-128, 127, 0], [-128, -127, -128]], np.int8), labels) == 1.0
    assert hit_at_1(np.array([[2**53, 2**53 + 1, 0]] * 2), labels) == 1.0
    assert hit_at_1([[2**63, 2**64 - 1, 0]] * 2, labels) == 1.0
    assert hit_at_1(np.array([[False, True, True]] * 2), labels) == 1.0
    top, hits = top_scores(np.array([[0, 200, 7], [3, 9, 9]], np.uint8), labels, 2)
    assert (top.tolist(), hits.tolist(), top.dtype) == ([[200, 7], [9, 9]], [[True, False]] * 2, np.uint8)
    random = np.random.default_rng(7)
    scores, labels = random.integers(0, 20, (200, 30)), random.random((200, 30)) < 0.1
    for function in ALL:
        expected = function(scores.astype(np.float64), labels)
        for dtype in (np.uint8, np.int8, np.uint64, torch.uint8, torch.uint16):
            given = torch.tensor(scores).to(dtype) if isinstance(dtype, torch.dtype) else scores.astype(dtype)
            assert function(given, labels) == expected


def test_what_no_type_holds_exactly_is_refused():
    with pytest.raises(TypeError, match="no type of NumPy holds each of its values exactly"):
        gap([[2**53 + 1, 0.5]], [[1, 0]])
    frame = pd.DataFrame({"a": [2**53 + 1], "b": [0.5]})
    with pytest.raises(TypeError, match="DataFrame is not read as numbers"):
        gap(frame, [[1, 0]])


@pytest.mark.parametrize(
    "given",
    [np.ones((2, 3), complex), np.full((2, 3), "0.5"), np.zeros((2, 3), [("a", float)]), [[1.0, 2.0], [1.0]], {"a": 1},
     torch.empty(2, 3, device="meta"), torch.ones(2, 3, dtype=torch.complex64), [[None] * 3] * 2, "text", None,
     np.zeros((2, 3), "datetime64[s]")],
    ids=lambda given: f"{type(given).__name__} {getattr(given, 'dtype', '')}",
)  # fmt: skip
def test_what_is_no_real_numbers_is_refused_in_words(given):
    good = np.zeros((2, 3))
    for function in ALL:
        with pytest.raises(TypeError, match=r"scores: .*numbers"):
            function(given, good)
        with pytest.raises(TypeError, match=r"labels: .*numbers"):
            function(good, given)
    with pytest.raises(TypeError, match=r"hits: .*numbers"):
        hit_at_1_from_top(given)


def test_masked_values_are_not_taken_for_numbers():
    with pytest.raises(ValueError, match="some values are masked"):
        gap(np.ma.masked_array([[0.1, 0.9]], [[False, True]]), [[0, 1]])


@pytest.mark.parametrize("function", ALL)
def test_every_kind_of_array_is_read(function):
    scores, labels = random_input(12, 7, seed=8)
    expected = function(scores, labels)
    tensor = torch.tensor(scores)
    with torch.inference_mode():
        inferred = tensor.clone()
    for given in (scores.tolist(), [tuple(row) for row in scores], tensor.to_sparse(), tensor.clone().requires_grad_(),
                  inferred, tensor.T.contiguous().T, pd.DataFrame(scores), scores.astype(">f8"), scores.astype(object),
                  np.asfortranarray(scores), np.asmatrix(scores), scores.astype(np.longdouble)):  # fmt: skip
        assert function(given, labels) == expected
    for truth in (labels.tolist(), torch.tensor(labels).to_sparse(), pd.DataFrame(labels), labels.astype(np.float16)):
        assert function(scores, truth) == expected


@pytest.mark.parametrize("function", ALL)
def test_rows_and_columns_of_data_frames_are_never_confused(function):
    scores, labels = random_input(5, 4, seed=9)
    frame = pd.DataFrame(scores, index=list("vwxyz"), columns=list("abcd"))
    truth = pd.DataFrame(labels, index=list("vwxyz"), columns=list("abcd"))
    assert function(frame, truth) == function(scores, labels)
    for other in (truth[list("bacd")], truth.iloc[::-1], truth.rename(columns={"a": "e"})):
        with pytest.raises(ValueError, match=r"labels\.loc\[scores\.index, scores\.columns\]"):
            function(frame, other)


@pytest.mark.parametrize("value", [-1, 2, 0.5, np.nan])
def test_labels_that_are_no_sets_are_refused_with_the_remedy(value):
    with pytest.raises(ValueError, match=r"labels of video 1 hold values other than 0 and 1 .*labels > 0"):
        gap(np.ones((2, 2)), np.array([[1, 0], [0, value]]))


def test_perr_of_logits_is_refused_with_the_remedy():
    """It was 0.055 where that of their probabilities is 0.260: hits below a logit of 0 did not count."""
    logits = np.array([[2.0, 1.0], [-1.0, -3.0]])
    with pytest.raises(ValueError, match=r"video 1 .* hold -3.0: .*torch\.sigmoid\(logits\.double\(\)\)"):
        perr(logits, np.array([[1, 0], [1, 0]]))
    assert perr(torch.tensor(logits).sigmoid(), np.array([[1, 0], [1, 0]])) == 1.0
    assert perr(np.array([[-0.0, 1.0]]), np.array([[0, 1]])) == 1.0


@pytest.mark.parametrize("k", [0, -1, 2.0, True, np.nan, None, "3"])
def test_a_top_k_that_is_none_is_refused(k):
    scores, hits = np.array([[2.0, 1.0]]), np.array([[True, False]])
    for call in (lambda: gap(scores, hits, k), lambda: top_scores(scores, hits, k),
                 lambda: gap_from_top(scores, hits, np.array([1]), k)):  # fmt: skip
        with pytest.raises((ValueError, TypeError), match="top_k"):
            call()
    assert gap(scores, hits, np.int64(1)) == 1.0


def test_top_lists_out_of_order_and_odd_counts_are_refused():
    """An unsorted list loses its best beyond the cut; whole numbers used as a mask pick rows."""
    hits = np.array([[True, False]])
    with pytest.raises(ValueError, match=r"video 0 .* not in descending order"):
        gap_from_top(np.array([[1.0, 2.0]]), hits, np.array([1]), 1)
    with pytest.raises(ValueError, match="not in descending order"):
        gap_from_top(np.array([[1, 2]], np.uint8), hits, np.array([1]))
    scores = np.array([[2.0, 1.0]])
    assert gap_from_top(scores, hits.astype(int), np.array([1.0])) == gap_from_top(scores, hits, np.array([1]))
    for odd in ([-1], [np.nan], [1.5], [True], [2**40], [[1]]):
        for call in (lambda odd=odd: gap_from_top(scores, hits, odd), lambda odd=odd: perr_from_top(hits, odd)):
            with pytest.raises(ValueError, match="positives"):
                call()
    with pytest.raises(ValueError, match="hits of video 0 hold values other than 0 and 1"):
        hit_at_1_from_top(np.array([[0.5, 1.0]]))
    with pytest.raises(ValueError, match="differ in shape"):
        average_precision(scores, hits[0], 1)
    with pytest.raises(ValueError, match="NaN"):
        average_precision(scores * np.nan, hits, 1)
    with pytest.raises(TypeError, match=r"positives 1.5"):
        average_precision(scores, hits, 1.5)


def test_the_video_of_a_score_below_zero_is_counted_over_all_chunks(monkeypatch):
    """Not a video of its chunk that has a score of 0."""
    monkeypatch.setattr("artpaper.metrics.CHUNK", 4)  # two videos of two classes
    scores = np.ones((6, 2))
    scores[4, 0], scores[5, 1] = 0.0, -0.5
    with pytest.raises(ValueError, match=r"scores of video 5 \(counted from 0\) hold -0\.5"):
        perr(scores, np.eye(2)[[0] * 6])


@pytest.mark.parametrize("shape", [(3, 2), (6,), (1, 6)])
def test_average_precision_takes_pairs_of_any_shape(shape):
    scores = np.array([0.9, 0.8, 0.8, 0.3, 0.2, 0.1])
    hits = np.array([1, 0, 1, 0, 0, 1])
    expected = (
        1 / 1 + 2 / 3 + 3 / 6
    ) / 4  # the second hit shares its rank with a miss; one label is not among the pairs
    assert average_precision(scores.reshape(shape), hits.reshape(shape), 4) == pytest.approx(expected, **EXACT)
    with pytest.raises(ValueError, match="hits of video 0 hold values other than 0 and 1"):
        average_precision(scores, 2 * hits, 4)


def test_average_precision_of_nothing_is_zero():
    assert average_precision([], [], 0) == average_precision([], [], 3) == 0.0
    assert average_precision([0.5, 0.4, 0.3], [0, 0, 0], 0) == 0.0
    with pytest.raises(ValueError, match=r"positives.*a number of labels is not negative"):
        average_precision([0.5], [0], -1)


def test_a_hit_that_ties_at_the_cut_counts_in_one_video_and_not_in_the_next():
    """Where classes are as high as the last that is kept, the lower ones are; in every chunk by itself."""
    scores = np.array([[0.5, 0.5, 0.5, 0.9], [0.5, 0.5, 0.5, 0.9], [0.1, 0.2, 0.3, 0.4]])
    labels = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    # kept: 0.9, 0.5 (hit); 0.9, 0.5; 0.4 (hit), 0.3: of four pairs at least as high one is a hit, of five two
    assert gap(scores, labels, 2) == pytest.approx((1 / 4 + 2 / 5) / 3, **EXACT)
