"""The objectives against their definitions written out by hand, against scikit-learn, and for what they promise."""

import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from artpaper.attacks import OBJECTIVES, dlr, margin, top_k_ap

RANKING = {"margin": margin, "dlr": dlr, "top_k_ap": top_k_ap}


def videos(count: int = 60, classes: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits and label sets with 1 to ``classes`` - 1 labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    order = torch.rand(count, classes, generator=generator).argsort(dim=1)
    y = (order < torch.randint(1, classes, (count, 1), generator=generator)).double()
    return logits, y


def by_hand(logits: list[float], y: list[float]) -> tuple[float, float]:
    """Margin and its ratio, from the words of their definitions."""
    true = [z for z, label in zip(logits, y, strict=True) if label]
    wrong = [z for z, label in zip(logits, y, strict=True) if not label]
    return max(wrong) - min(true), (max(wrong) - min(true)) / (max(logits) - min(logits))


def test_margin_and_ratio_by_hand() -> None:
    logits, y = videos()
    rows = [by_hand(*row) for row in zip(logits.tolist(), y.tolist(), strict=True)]
    expected = torch.tensor(rows, dtype=torch.float64)
    torch.testing.assert_close(margin(logits, y), expected[:, 0], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(dlr(logits, y), expected[:, 1], atol=1e-12, rtol=1e-12)


def test_ratio_is_the_published_one_for_one_label_and_three_classes() -> None:
    """Croce and Hein 2020, Eq. 6: -(z_y - max of the others) / (z_1 - z_3)."""
    logits, label = videos()[0][:, :3], torch.arange(60) % 3
    own = logits.gather(1, label[:, None])[:, 0]
    others = logits.scatter(1, label[:, None], -torch.inf).amax(1)
    ordered = logits.sort(dim=1, descending=True).values
    published = -(own - others) / (ordered[:, 0] - ordered[:, 2])
    y = torch.nn.functional.one_hot(label, 3).double()
    torch.testing.assert_close(dlr(logits, y), published, atol=1e-12, rtol=1e-12)


def test_ratio_does_not_see_scale_and_shift() -> None:
    logits, y = videos()
    for scale, shift in ((1e-3, 0.0), (1e4, 0.0), (1.0, 50.0), (0.2, -7.0)):
        torch.testing.assert_close(dlr(scale * logits + shift, y), dlr(logits, y), atol=1e-9, rtol=1e-9)


def test_ratio_lies_between_minus_one_and_one() -> None:
    """-1 to 0 where the true labels come first, 0 to 1 otherwise; 1 where a wrong one is first and a true one last."""
    logits, _ = videos()
    for labels in range(1, 12):
        first = (logits.argsort(dim=1, descending=True).argsort(dim=1) < labels).double()
        values = dlr(logits, first)
        assert ((values >= -1) & (values < 0)).all()
        torch.testing.assert_close(dlr(-logits, first), torch.ones(60, dtype=torch.float64))


def test_average_precision_of_scikit_learn() -> None:
    """A comparison of two logits that is certain, and a list that holds every label."""
    logits, y = videos()
    expected = [1 - average_precision_score(labels, scores) for scores, labels in zip(logits, y, strict=True)]
    found = top_k_ap(logits, y, k=12, temperature=1e-5)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.parametrize("k", [1, 3, 20])
def test_average_precision_of_the_k_best_by_hand(k: int) -> None:
    logits, y = videos()
    found = top_k_ap(logits, y, k=k, temperature=1e-5)
    for scores, labels, value in zip(logits, y, found, strict=True):
        listed = labels[scores.argsort(descending=True)][:k].tolist()
        precisions = [sum(listed[: i + 1]) / (i + 1) for i, label in enumerate(listed) if label]
        assert value.item() == pytest.approx(1 - sum(precisions) / min(k, labels.sum().item()), abs=1e-9)


def test_average_precision_asks_nothing_of_a_label_that_is_lost() -> None:
    logits = torch.tensor([[5.0, 4.0, 3.0, 2.0]], requires_grad=True)
    lost = top_k_ap(logits, torch.tensor([[0.0, 0.0, 0.0, 1.0]]), k=2)
    assert lost.item() == 1
    (gradient,) = torch.autograd.grad(lost.sum(), logits)
    assert not gradient.any()


def test_average_precision_falls_when_a_true_label_falls() -> None:
    logits, y = videos()
    assert (top_k_ap(logits - y, y, k=12) > top_k_ap(logits, y, k=12)).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    logits, y = videos(20)
    assert torch.autograd.gradcheck(lambda z: OBJECTIVES[name](z, y), logits.requires_grad_())


@pytest.mark.parametrize("name", RANKING)
@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("classes", [1, 2, 12])
def test_nothing_to_confuse_is_a_constant(name: str, label: float, classes: int) -> None:
    """Beside a video that has something, which keeps its own value and gradient."""
    logits, y = videos(2, max(classes, 2))
    logits, y = logits[:, :classes].float().clone().requires_grad_(), y[:, :classes].float().clone()
    y[0], y[1] = label, logits[1] == logits[1].max()  # the second video's one label comes first
    value = RANKING[name](logits, y)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value[0] == 0
    assert not gradient[0].any()
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    if classes == 12:
        assert gradient[1].any()
        torch.testing.assert_close(value[1:], RANKING[name](logits[1:], y[1:]))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_equal_logits_are_no_trouble(name: str) -> None:
    logits = torch.zeros(3, 5, requires_grad=True)
    y = torch.tensor([[1.0, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0]])
    value = OBJECTIVES[name](logits, y)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


def test_ratio_with_two_classes_is_a_sign() -> None:
    logits = torch.tensor([[3.0, 1.0], [1.0, 3.0]], requires_grad=True)
    value = dlr(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert value.tolist() == [-1.0, 1.0]
    assert not torch.autograd.grad(value.sum(), logits)[0].any()


def test_no_video() -> None:
    for objective in OBJECTIVES.values():
        assert objective(torch.zeros(0, 5), torch.zeros(0, 5)).shape == (0,)
