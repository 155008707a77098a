"""GAP, PERR and Hit@1 against recorded values, the reference's loops, scikit-learn and pencil and paper."""

import numpy as np
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
from artpaper.workers import torch_threads

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
