"""DeepFool against foolbox, against distances worked out on paper, and for what its diagnostics promise."""

import math

import foolbox
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor, nn
from torch.nn import functional as F

from artpaper.attacks import Criterion, deepfool, hit
from tests import toy
from tests.attacks.test_one_step import oracle

CRITERIA: tuple[Criterion, ...] = ("top1_change", "hit1_loss", "threshold")
ONE_FRAME = torch.ones(1, 1, dtype=torch.bool)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A model that has learned which features of a video are largest: its logits have something to say."""
    net = toy.model().train()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for step in range(60):
        x, _, mask = toy.batch(videos=128, seed=step)
        means = x.sum(1)[:, : toy.CLASSES] / mask.sum(1, keepdim=True).sqrt()
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(net(x, mask), (means > 0.8).float()).backward()
        optimizer.step()
    net.zero_grad()
    return net.eval()


def linear() -> tuple[toy.Linear, Tensor, Tensor, Tensor, Tensor]:
    """A linear model, 64 videos, and how steep a logit is over a whole video per unit of its weights: 1 / sqrt(T)."""
    net = toy.Linear(24, toy.CLASSES)
    x, y, mask = toy.batch(videos=64, dtype=torch.float64)
    return net, x, y, mask, mask.sum(1, keepdim=True).double().rsqrt()


def ways(net: toy.Linear, logits: Tensor, own: Tensor, steep: Tensor) -> Tensor:
    """Distance of every video to the boundary between its own label and each other one; inf to itself."""
    apart = torch.cdist(net.weight, net.weight)[own] * steep
    return ((logits.gather(1, own[:, None]) - logits) / apart).detach().nan_to_num(nan=torch.inf)


def check_distance(attack_norm: Tensor, distance: Tensor) -> None:
    torch.testing.assert_close(attack_norm, 1.02 * (distance + 1e-4), atol=1e-12, rtol=1e-9)


def test_equals_foolbox(trained: nn.Module) -> None:
    x, y, mask = toy.batch(videos=400, seed=1000)
    labels = trained(x, mask).argmax(1)
    reference = foolbox.attacks.L2DeepFoolAttack(steps=50, candidates=10, overshoot=0.02, loss="logits")
    theirs = reference.run(oracle(trained, mask), x, foolbox.criteria.Misclassification(labels)) - x
    ours = deepfool(trained, x, y, mask)
    trained.zero_grad()  # foolbox leaves gradients in the parameters
    assert ours.diagnostics["fooled"].all()
    assert ours.diagnostics["iterations"].max() >= 3
    rho = theirs.double().flatten(1).norm(dim=1) / x.double().flatten(1).norm(dim=1)
    torch.testing.assert_close(ours.diagnostics["relative_norm"], rho, atol=0, rtol=1e-4)
    assert ((ours.perturbation - theirs).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1)).max() < 1e-3


def test_linear_model_top_label() -> None:
    net, x, y, mask, steep = linear()
    logits = net(x, mask).detach()
    top = logits.argmax(1)
    nearest = ways(net, logits, top, steep).min(1)
    attack = deepfool(net, x, y, mask, candidates=toy.CLASSES)
    check_distance(attack.diagnostics["norm"], nearest.values)
    assert torch.equal(attack.adversarial_logits.argmax(1), nearest.indices)
    steepness = (net.weight[top] - net.weight[nearest.indices]).norm(dim=1) * steep[:, 0]
    torch.testing.assert_close(attack.diagnostics["gradient_norm"], steepness.detach())
    three = deepfool(net, x, y, mask, candidates=3).diagnostics["norm"]
    check_distance(three, ways(net, logits, top, steep).gather(1, logits.topk(3, dim=1).indices).amin(1))


def test_linear_model_true_label() -> None:
    net, x, _, mask, steep = linear()
    logits = net(x, mask).detach()
    order = logits.argsort(dim=1, descending=True)
    own = torch.where(torch.arange(64) % 4 > 0, order[:, 0], order[:, 1])  # every fourth is wrong already
    y = F.one_hot(own, toy.CLASSES).double()
    attack = deepfool(net, x, y, mask, criterion="hit1_loss", candidates=toy.CLASSES)
    wrong = attack.diagnostics["already_wrong"]
    assert torch.equal(wrong, torch.arange(64) % 4 == 0)
    check_distance(attack.diagnostics["norm"][~wrong], ways(net, logits, own, steep).amin(1)[~wrong])
    assert torch.equal(attack.diagnostics["fooled"], ~wrong)
    assert (attack.perturbation[wrong] == 0).all()
    assert (attack.diagnostics["iterations"] == (~wrong).long()).all()
    assert attack.diagnostics["gradient_norm"][wrong].isnan().all()
    assert not attack.diagnostics["zero_gradient"].any()


def test_linear_model_any_label() -> None:
    net, x, y, mask, steep = linear()
    distances = (net(x, mask).abs() / (net.weight.norm(dim=1) * steep)).detach()
    attack = deepfool(net, x, y, mask, criterion="threshold", candidates=toy.CLASSES)
    check_distance(attack.diagnostics["norm"], distances.amin(1))
    assert (((attack.adversarial_logits > 0) != (attack.clean_logits > 0)).sum(1) >= 1).all()
    two = deepfool(net, x, y, mask, criterion="threshold", candidates=2).diagnostics["norm"]
    check_distance(two, distances.gather(1, attack.clean_logits.abs().argsort(dim=1)[:, :2]).amin(1))


def test_nested_labels_fool_the_top_label_only() -> None:
    """Parent and child are both true and nearly equal: swapping them is no mistake, and a real one is further away."""
    x, y = torch.tensor([[[2.0, 1.9, 0.0]]]), torch.tensor([[1.0, 1.0, 0.0]])
    net = lambda x, mask: x[:, 0]  # noqa: E731
    swapped = deepfool(net, x, y, ONE_FRAME)
    assert (swapped.diagnostics["fooled"] & hit(swapped.adversarial_logits, y)).all()
    once = deepfool(net, x, y, ONE_FRAME, criterion="hit1_loss", steps=1)  # has passed the parent, not the child
    assert once.diagnostics["fooled"].item() is False
    assert once.adversarial_logits.argmax() == 1
    lost = deepfool(net, x, y, ONE_FRAME, criterion="hit1_loss")
    assert lost.diagnostics["fooled"].item() is True
    assert [lost.diagnostics["iterations"].item(), lost.adversarial_logits.argmax().item()] == [2, 2]
    assert lost.diagnostics["norm"] > 10 * swapped.diagnostics["norm"]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_fooled_is_what_the_model_says_at_the_end(trained: nn.Module, criterion: Criterion) -> None:
    x, y, mask = toy.batch(videos=64, seed=7)
    slopes = []
    for steps in (1, 50):
        attack = deepfool(trained, x, y, mask, criterion=criterion, steps=steps)
        clean, after = trained(x, mask), trained(x + attack.perturbation, mask)
        torch.testing.assert_close(attack.clean_logits, clean)
        torch.testing.assert_close(attack.adversarial_logits, after)
        expected = {
            "top1_change": after.argmax(1) != clean.argmax(1),
            "hit1_loss": hit(clean, y) & ~hit(after, y),
            "threshold": ((after > 0) != (clean > 0)).any(1),
        }[criterion]
        assert torch.equal(attack.diagnostics["fooled"], expected)
        assert expected.any()
        right = hit(clean, y) if criterion == "hit1_loss" else torch.ones(64, dtype=torch.bool)
        assert torch.equal(attack.diagnostics["already_wrong"], ~right)
        norm = attack.perturbation.double().flatten(1).norm(dim=1)
        torch.testing.assert_close(attack.diagnostics["norm"], norm)
        assert not attack.clean_logits.requires_grad
        assert not attack.perturbation.requires_grad
        slopes.append(attack.diagnostics["gradient_norm"])
    torch.testing.assert_close(*slopes, equal_nan=True)  # of the clean video, however far one goes


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_videos_perturbation_depends_on_neither_batch_nor_budget(criterion: Criterion, trained: nn.Module) -> None:
    net = toy.model(dtype=torch.float64)
    net.load_state_dict(trained.state_dict())
    x, y, mask = toy.batch(videos=24, seed=3, dtype=torch.float64)
    y[torch.arange(0, 24, 2), net(x, mask).argmax(1)[::2]] = 1
    together = deepfool(net, x, y, mask, criterion=criterion)
    sizes: list[int] = []
    net.register_forward_pre_hook(lambda net, inputs: sizes.append(len(inputs[0])))
    tight = deepfool(net, x, y, mask, criterion=criterion, memory=5 * 2 * x[0].nbytes / 2**20)
    assert max(sizes) == 2
    torch.testing.assert_close(tight.perturbation, together.perturbation, atol=1e-10, rtol=0)
    for name, values in together.diagnostics.items():
        torch.testing.assert_close(tight.diagnostics[name], values, equal_nan=True)
    for i in range(24):
        length = int(mask[i].sum())  # also without the padding its neighbours need
        alone = deepfool(net, x[i : i + 1, :length], y[i : i + 1], mask[i : i + 1, :length], criterion=criterion)
        torch.testing.assert_close(alone.perturbation[0], together.perturbation[i, :length], atol=1e-10, rtol=0)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_padding_stays_even_for_a_model_that_looks_at_it(criterion: Criterion) -> None:
    weight = torch.randn(24, toy.CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, y, mask = toy.batch(videos=16, dtype=torch.float64)
    attack = deepfool(lambda x, mask: x.sum(1) @ weight, x, y, mask, criterion=criterion)
    assert (attack.perturbation[~mask] == 0).all()
    assert (attack.diagnostics["fooled"] | attack.diagnostics["already_wrong"]).all()
    if criterion == "threshold":  # the norm, and so the way, is over real frames only
        steep = weight.norm(dim=0) * mask.sum(1, keepdim=True).double().sqrt()
        check_distance(attack.diagnostics["norm"], ((x.sum(1) @ weight).abs() / steep).amin(1))


def test_finished_videos_leave_the_batch() -> None:
    """All but one are done after a step, one never is: neither pass may go on with all of them."""
    forward: list[int] = []
    backward: list[int] = []

    def net(x: Tensor, mask: Tensor) -> Tensor:
        forward.append(len(x))
        z = x[:, 0, 0] * 1.0
        if z.requires_grad:
            z.register_hook(lambda gradient: backward.append(len(gradient)))
        # a root of fourth order is approached by a quarter a step, and never crossed
        return torch.stack([torch.where(z > 90, (z - 100) ** 4, z), 0 * z, 0 * z - 1e9], dim=1)

    x = torch.ones(40, 1, 1)
    x[7] = 150.0
    attack = deepfool(net, x, torch.ones(40, 3), ONE_FRAME.expand(40, 1), candidates=2, steps=20)
    done = torch.arange(40) != 7
    assert torch.equal(attack.diagnostics["fooled"], done)
    assert torch.equal(attack.diagnostics["iterations"], torch.where(done, 1, 20))
    assert forward == [40, 40] + [1] * 20  # the second 40 finds 39 done, so it is asked again about the one left
    assert backward == [40] + [1] * 19


def test_a_video_that_runs_out_of_steps_is_not_fooled() -> None:
    """The second logit approaches 1 and never reaches the first, 2; far out its gradient is exactly 0."""
    runaway = lambda x, mask: torch.cat([2 + 0 * x[:, 0], torch.tanh(x[:, 0])], dim=1)  # noqa: E731
    x, y = torch.zeros(1, 1, 1), torch.tensor([[1.0, 0.0]])
    attack = deepfool(runaway, x, y, ONE_FRAME, steps=2)
    assert not (attack.diagnostics["fooled"] | attack.diagnostics["zero_gradient"]).any()
    assert attack.diagnostics["iterations"] == 2
    first = 1.02 * (2 + 1e-4)
    height = math.tanh(first)
    second = first + 1.02 * ((2 - height) / (1 - height**2) + 1e-4)
    assert attack.perturbation.item() == pytest.approx(second, rel=1e-4)
    longer = deepfool(runaway, x, y, ONE_FRAME, steps=50)
    assert longer.diagnostics["zero_gradient"].all()
    assert not longer.diagnostics["fooled"].any()
    torch.testing.assert_close(longer.perturbation, attack.perturbation)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_zero_gradients_are_flagged_and_nothing_moves(criterion: Criterion) -> None:
    x, _, mask = toy.batch()
    y = torch.ones(6, toy.CLASSES)
    y[:, -1] = 0
    calls: list[int] = []

    def flat(x: Tensor, mask: Tensor) -> Tensor:
        calls.append(len(x))
        return torch.arange(toy.CLASSES, 0, -1.0) + 0 * x.sum((1, 2))[:, None]

    attack = deepfool(flat, x, y, mask, criterion=criterion)
    assert calls == [6]  # nothing more to ask
    assert attack.diagnostics["zero_gradient"].all()
    for name in ("norm", "gradient_norm", "iterations", "fooled"):
        assert (attack.diagnostics[name] == 0).all()


def test_without_a_wrong_label_there_is_nothing_to_cross() -> None:
    net = toy.model()
    x, y, mask = toy.batch(videos=4)
    y[0], y[1] = 1, 0
    attack = deepfool(net, x, y, mask, criterion="hit1_loss").diagnostics
    assert attack["zero_gradient"].tolist() == [True, False, False, False]
    assert not attack["fooled"][0]
    assert attack["norm"][0] == 0
    assert attack["already_wrong"][1]  # no label at all: none of them is right


@pytest.mark.parametrize("broken", ["inf", "nan"])
def test_a_gradient_that_is_not_finite_stays_with_its_video(broken: str) -> None:
    def net(x: Tensor, mask: Tensor) -> Tensor:
        steep = x.sum((1, 2)).clamp(min=0).sqrt() if broken == "inf" else (x.sum((1, 2)).abs() - 1e-3).log()
        return torch.stack([0.5 + x[:, 0, 0], steep], dim=1)

    x, y, mask = torch.tensor([0.1, 0.0, 0.02])[:, None, None], torch.ones(3, 2), ONE_FRAME.expand(3, 1)
    attack, kept = deepfool(net, x, y, mask), torch.tensor([0, 2])
    assert attack.diagnostics["gradient_not_finite"].tolist() == [False, broken == "inf", False]
    assert attack.diagnostics["logits_not_finite"].tolist() == [False, broken == "nan", False]
    assert attack.perturbation[1] == 0
    assert not attack.diagnostics["fooled"][1]
    without = deepfool(net, x[kept], y[kept], mask[kept])
    torch.testing.assert_close(attack.perturbation[kept], without.perturbation)
    assert attack.perturbation.isfinite().all()


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_model_that_breaks_down_is_not_fooled(criterion: Criterion) -> None:
    net = lambda x, mask: (x + (0.9 - x).sqrt() * 0 + (x - 0.05).sqrt() * 0)[:, 0]  # noqa: E731  NaN outside
    x, y = torch.tensor([[[0.8, 0.1]]]), torch.tensor([[1.0, 0.0]])
    attack = deepfool(net, x, y, ONE_FRAME, criterion=criterion, overshoot=3.0)
    assert attack.diagnostics["gradient_not_finite"].all()  # where it went, there is no way to go on
    assert not attack.diagnostics["fooled"].any()
    assert attack.diagnostics["iterations"] == 1


def test_the_model_is_left_alone_and_gradients_may_be_off(trained: nn.Module) -> None:
    x, y, mask = toy.batch(videos=8)
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    with torch.no_grad():
        attack = deepfool(trained, x, y, mask)
    assert attack.diagnostics["fooled"].all()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in trained.parameters())
    assert all(torch.equal(before[name], value) for name, value in trained.state_dict().items())


def test_no_video_and_a_single_class() -> None:
    net = toy.model()
    x, y, mask = toy.batch()
    assert deepfool(net, x[:0], y[:0], mask[:0]).adversarial_logits.shape == (0, toy.CLASSES)
    single = lambda x, mask: x.sum((1, 2))[:, None]  # noqa: E731
    assert deepfool(single, x, y[:, :1], mask).diagnostics["zero_gradient"].all()
    assert deepfool(single, x, y[:, :1], mask, criterion="threshold").diagnostics["fooled"].all()


def test_bad_arguments_are_refused() -> None:
    x, y, mask = toy.batch()
    bad = [({"candidates": 1}, "candidates"), ({"steps": 0}, "steps"), ({"overshoot": -0.1}, "overshoot")]
    for changed, message in [*bad, ({"memory": 0}, "memory"), ({"criterion": "top5"}, "top1_change.*hit1_loss")]:
        with pytest.raises((ValueError, TypeCheckError), match=message):  # the checks of the tests may come first
            deepfool(toy.model(), x, y, mask, **changed)
    with pytest.raises((ValueError, TypeCheckError), match="mask"):
        deepfool(toy.model(), x, y, mask[:, :-1])
