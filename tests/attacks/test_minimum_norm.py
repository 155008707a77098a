"""The Fast Minimum-Norm attack against foolbox, against distances worked out on paper, and beside DeepFool."""

import eagerpy as ep
import foolbox
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor, nn

from artpaper.attacks import Criterion, deepfool, fmn, hit
from tests import toy
from tests.attacks.test_deepfool import CRITERIA, ONE_FRAME, linear, trained, ways  # noqa: F401 trained is a fixture
from tests.attacks.test_one_step import oracle


class Projected(foolbox.attacks.L2FMNAttack):
    """foolbox's attack with the projection that its L2 version lacks: 3.3.4 divides a norm by itself there."""

    def project(self, x: ep.Tensor, x0: ep.Tensor, epsilon: ep.Tensor) -> ep.Tensor:
        length = ep.maximum((x - x0).flatten(start=1).norms.l2(axis=-1), 1e-12)
        return x0 + (x - x0) * ep.minimum(1, epsilon / length).reshape((-1, 1, 1))


@pytest.mark.parametrize("theirs", [foolbox.attacks.L2FMNAttack, Projected])
def test_median_is_no_worse_than_foolboxs(theirs: type, trained: nn.Module) -> None:  # noqa: F811
    x, y, mask = toy.batch(videos=128, seed=1000)
    labels = trained(x, mask).argmax(1)
    found = theirs(steps=100).run(oracle(trained, mask), x, foolbox.criteria.Misclassification(labels)) - x
    trained.zero_grad()  # foolbox leaves gradients in the parameters
    assert (trained(x + found, mask).argmax(1) != labels).all()
    ours = fmn(trained, x, y, mask)
    assert ours.diagnostics["fooled"].all()
    medians = [norm.median() for norm in (ours.diagnostics["norm"], found.double().flatten(1).norm(dim=1))]
    assert medians[0] <= 1.01 * medians[1]
    if theirs is Projected:
        assert medians[0] >= 0.98 * medians[1]  # nor can it be much better than the same algorithm


@pytest.mark.parametrize("criterion", CRITERIA)
def test_linear_model(criterion: Criterion) -> None:
    """The nearest boundary of all is among those that the best of 12 targets would find; one walk finds its own."""
    net, x, y, mask, steep = linear()
    logits = net(x, mask).detach()
    if criterion == "threshold":
        distance = (logits.abs() / (net.weight.norm(dim=1) * steep)).amin(1)
    elif criterion == "top1_change":
        distance = ways(net, logits, logits.argmax(1), steep).amin(1)
    else:
        y = nn.functional.one_hot(logits.argmax(1), toy.CLASSES).double()
        distance = ways(net, logits, logits.argmax(1), steep).amin(1)
    start = deepfool(net, x, y, mask, criterion=criterion, candidates=toy.CLASSES).perturbation
    attack = fmn(net, x, y, mask, criterion=criterion, start=start, steps=300)
    norm = attack.diagnostics["norm"]
    assert attack.diagnostics["fooled"].all()
    assert (norm > distance * (1 - 1e-9)).all()
    torch.testing.assert_close(norm, distance.detach(), atol=1e-6, rtol=2e-3)  # DeepFool's overshoot is ten times that


def test_one_boundary_on_paper() -> None:
    """Two classes have one boundary, so no start is needed: |z_0 - z_1| / ||w_0 - w_1||."""
    net = toy.Linear(24, 2)
    x, _, mask = toy.batch(videos=32, dtype=torch.float64)
    logits = net(x, mask).detach()
    steep = (net.weight[0] - net.weight[1]).norm() * mask.sum(1).double().rsqrt()
    distance = ((logits[:, 0] - logits[:, 1]).abs() / steep).detach()
    attack = fmn(net, x, torch.ones(32, 2, dtype=torch.float64), mask, steps=300)
    assert (attack.diagnostics["norm"] >= distance * (1 - 1e-9)).all()
    torch.testing.assert_close(attack.diagnostics["norm"], distance, atol=2e-4, rtol=2e-3)
    torch.testing.assert_close(attack.diagnostics["gradient_norm"], steep.detach())
    assert (attack.diagnostics["iterations"] == 300).all()


@pytest.mark.parametrize("criterion", CRITERIA)
def test_from_deepfool_never_further_and_most_often_nearer(criterion: Criterion, trained: nn.Module) -> None:  # noqa: F811
    x, y, mask = toy.batch(videos=64, seed=5)
    first = deepfool(trained, x, y, mask, criterion=criterion)
    attack = fmn(trained, x, y, mask, criterion=criterion, start=first.perturbation)
    right = ~first.diagnostics["already_wrong"]
    assert right.sum() > 10
    ratio = (attack.diagnostics["norm"] / first.diagnostics["norm"])[right]
    assert (ratio <= 1).all()
    assert ratio.median() < 0.985  # DeepFool goes 2 % too far
    assert torch.equal(attack.diagnostics["fooled"], first.diagnostics["fooled"])


def test_the_smallest_of_all_that_fooled_is_kept() -> None:
    net, (x, y, mask) = toy.model(), (part[4:5] for part in toy.batch(seed=5))
    top = net(x, mask).argmax()
    norms: list[float] = []

    def watched(frames: Tensor, mask: Tensor) -> Tensor:
        logits = net(frames, mask)
        if logits.argmax() != top:
            norms.append((frames - x).double().norm().item())
        return logits

    later_ones_larger = 0
    for steps in (8, 21, 30, 40):
        norms.clear()
        attack = fmn(watched, x, y, mask, steps=steps, gamma=0.5)
        assert attack.diagnostics["norm"].item() == pytest.approx(min(norms), rel=1e-5)
        later_ones_larger += norms[-1] > 1.0001 * min(norms)
    assert later_ones_larger


def test_a_start_that_does_not_fool_is_left_aside(trained: nn.Module) -> None:  # noqa: F811
    x, y, mask = toy.batch(videos=16, seed=5)
    without = fmn(trained, x, y, mask, steps=30)
    attack = fmn(trained, x, y, mask, steps=30, start=torch.full_like(x, 1e-9))
    torch.testing.assert_close(attack.perturbation, without.perturbation)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("steps", [1, 40])
def test_what_is_said_is_what_the_model_says(criterion: Criterion, steps: int, trained: nn.Module) -> None:  # noqa: F811
    x, y, mask = toy.batch(videos=64, seed=7)
    attack = fmn(trained, x, y, mask, criterion=criterion, steps=steps)
    clean, after = trained(x, mask), trained(x + attack.perturbation, mask)
    torch.testing.assert_close(attack.clean_logits, clean)
    torch.testing.assert_close(attack.adversarial_logits, after, atol=1e-5, rtol=1e-5)
    told = {
        "top1_change": attack.adversarial_logits.argmax(1) != clean.argmax(1),
        "hit1_loss": hit(clean, y) & ~hit(attack.adversarial_logits, y),
        "threshold": ((attack.adversarial_logits > 0) != (clean > 0)).any(1),
    }[criterion]
    assert torch.equal(attack.diagnostics["fooled"], told)
    assert told.any()
    right = hit(clean, y) if criterion == "hit1_loss" else torch.ones(64, dtype=torch.bool)
    assert torch.equal(attack.diagnostics["already_wrong"], ~right)
    assert (attack.perturbation[~right] == 0).all()
    assert torch.equal(attack.diagnostics["iterations"], torch.where(right, steps, 0))
    assert attack.diagnostics["gradient_norm"][~right].isnan().all()
    norm = attack.perturbation.double().flatten(1).norm(dim=1)
    torch.testing.assert_close(attack.diagnostics["norm"], norm, atol=0, rtol=1e-6)
    assert not attack.perturbation.requires_grad
    assert not attack.adversarial_logits.requires_grad
    assert all(parameter.grad is None for parameter in trained.parameters())


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("started", [False, True])
def test_a_videos_perturbation_does_not_depend_on_its_batch(
    criterion: Criterion, started: bool, trained: nn.Module  # noqa: F811
) -> None:  # fmt: skip
    net = toy.model(dtype=torch.float64)
    net.load_state_dict(trained.state_dict())
    x, y, mask = toy.batch(videos=12, seed=3, dtype=torch.float64)
    start = deepfool(net, x, y, mask, criterion=criterion).perturbation if started else None
    together = fmn(net, x, y, mask, criterion=criterion, steps=30, start=start)
    order = torch.arange(11, -1, -1)
    turned = fmn(
        net, x[order], y[order], mask[order], criterion=criterion, steps=30, start=start[order] if started else None
    )
    torch.testing.assert_close(turned.perturbation[order], together.perturbation, atol=1e-9, rtol=0)
    for i in range(12):
        length = int(mask[i].sum())  # also without the padding its neighbours need
        alone = fmn(
            net, x[i : i + 1, :length], y[i : i + 1], mask[i : i + 1, :length], criterion=criterion, steps=30,
            start=start[i : i + 1, :length] if started else None,
        )  # fmt: skip
        torch.testing.assert_close(alone.perturbation[0], together.perturbation[i, :length], atol=1e-9, rtol=0)


def test_padding_stays_even_for_a_model_that_looks_at_it() -> None:
    weight = torch.randn(24, toy.CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, y, mask = toy.batch(videos=16, dtype=torch.float64)
    net = lambda x, mask: x.sum(1) @ weight  # noqa: E731
    attack = fmn(net, x, y, mask, criterion="threshold", start=torch.randn(x.shape, dtype=torch.float64))
    assert (attack.perturbation[~mask] == 0).all()
    assert attack.diagnostics["fooled"].all()
    steep = weight.norm(dim=0) * mask.sum(1, keepdim=True).double().sqrt()  # over real frames only
    assert (attack.diagnostics["norm"] >= ((x.sum(1) @ weight).abs() / steep).amin(1) * (1 - 1e-9)).all()


def test_finished_videos_are_not_asked_about_again() -> None:
    sizes: list[int] = []

    def net(x: Tensor, mask: Tensor) -> Tensor:
        sizes.append(len(x))
        z = x[:, 0, 0]
        z = torch.where(z > 50, 0 * z + 60, z)  # flat far out: nothing to follow
        return torch.stack([z, 0 * z], dim=1)

    x = torch.tensor([1.0, 2.0, 99.0, -1.0])[:, None, None]
    y = torch.tensor([[1.0, 0.0]]).expand(4, 2).contiguous()
    attack = fmn(net, x, y, ONE_FRAME.expand(4, 1), criterion="hit1_loss", steps=10)
    assert attack.diagnostics["already_wrong"].tolist() == [False, False, False, True]
    assert attack.diagnostics["zero_gradient"].tolist() == [False, False, True, False]
    assert attack.diagnostics["fooled"].tolist() == [True, True, False, False]
    assert attack.diagnostics["iterations"].tolist() == [10, 10, 0, 0]
    assert sizes == [4, 3] + [2] * 10


def test_unfooled_videos_are_reported() -> None:
    """The second logit approaches 1 and never reaches the first, 2; elsewhere no boundary or not-a-number awaits."""
    runaway = lambda x, mask: torch.cat([2 + 0 * x[:, 0], torch.tanh(x[:, 0])], dim=1)  # noqa: E731
    x, y = torch.zeros(1, 1, 1), torch.tensor([[1.0, 0.0]])
    attack = fmn(runaway, x, y, ONE_FRAME, steps=3)
    assert not attack.diagnostics["fooled"].any()
    assert attack.diagnostics["norm"] > 2
    torch.testing.assert_close(attack.adversarial_logits, runaway(x + attack.perturbation, ONE_FRAME))
    everything = fmn(toy.model(), *toy.batch()[:1], torch.ones(6, toy.CLASSES), toy.batch()[2], criterion="hit1_loss")
    assert everything.diagnostics["zero_gradient"].all()
    assert (everything.diagnostics["norm"] == 0).all()
    broken = lambda x, mask: (x + (0.9 - x).sqrt() * 0)[:, 0]  # noqa: E731  NaN above 0.9
    lost = fmn(broken, torch.tensor([[[0.8, 0.1]]]), y, ONE_FRAME, steps=20, step_size=5.0)
    assert lost.perturbation.isfinite().all()
    assert not (lost.diagnostics["fooled"] & lost.adversarial_logits.isnan().any(1)).any()


def test_no_video_and_bad_arguments() -> None:
    net, (x, y, mask) = toy.model(), toy.batch()
    assert fmn(net, x[:0], y[:0], mask[:0]).adversarial_logits.shape == (0, toy.CLASSES)
    bad = [({"steps": 0}, "steps"), ({"gamma": 0.0}, "gamma"), ({"step_size": 0.0}, "step_size")]
    bad += [({"start": x[:, :-1]}, "start"), ({"criterion": "top5"}, "top1_change.*hit1_loss")]
    for changed, message in bad:
        with pytest.raises((ValueError, TypeCheckError), match=message):  # the checks of the tests may come first
            fmn(net, x, y, mask, **changed)
    with pytest.raises((ValueError, TypeCheckError), match="mask"):
        fmn(net, x, y, mask[:, :-1])
