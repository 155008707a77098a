"""Projected gradient descent against foolbox, against maxima worked out on paper, and for what it promises."""

import foolbox
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor
from torch.nn import functional as F

from artpaper.attacks import OBJECTIVES, apgd, bce, fgm, l2_norm, pgd
from artpaper.ball import uniform
from tests import toy
from tests.attacks.foolbox_models import run

SCOPES = ("joint", "modality", "frame")
EPSILON = {"l2": 0.5, "linf": 0.05}
THEIRS = {"l2": foolbox.attacks.L2PGD, "linf": foolbox.attacks.LinfPGD}
BOTH = {"pgd": lambda *given, **options: pgd(*given, **{"steps": 5, **options}),
        "apgd": lambda *given, **options: apgd(*given, **{"steps": 9, **options})}  # fmt: skip


@pytest.fixture(params=BOTH.values(), ids=BOTH)
def attack(request: pytest.FixtureRequest):
    return request.param


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


@pytest.mark.parametrize("norm", EPSILON)
@pytest.mark.parametrize("begin", ["clean", "random"])
@pytest.mark.parametrize("objective", [bce, cross_entropy])
def test_equals_foolbox(norm: str, begin: str, objective) -> None:
    net, epsilon = toy.model(), EPSILON[norm]
    x, y, mask = toy.batch(videos=16)
    if objective is cross_entropy:
        y = F.one_hot(net(x, mask).argmax(1), toy.CLASSES).float()
    start = uniform(mask[:, :, None].expand_as(x), epsilon=epsilon, norm=norm).float() if begin == "random" else None
    theirs = run(THEIRS[norm], net, x, y, mask, objective, epsilon, start, steps=20, rel_stepsize=0.15)
    ours = pgd(
        net, x, y, mask, epsilon=epsilon, norm=norm, objective=objective, step_size=0.15 * epsilon, keep="last",
        random_start=False, start=start,
    ).perturbation  # fmt: skip
    assert ours.abs().max() > 0.01
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("norm", "scope"), [("l2", "joint"), ("l2", "modality"), ("l2", "frame"), ("linf", "joint")])
def test_linear_model_reaches_the_analytic_maximum(attack, norm: str, scope: str) -> None:
    """Mean pooling, a linear read-out and one class, always true: the loss is largest where its logit is least."""
    net, epsilon = toy.Linear(24, 1), EPSILON[norm]
    x, _, mask = toy.batch(dtype=torch.float64)
    y = torch.ones(6, 1, dtype=torch.float64)
    weight, length = net.weight[0].detach(), mask.sum(1).double()
    reach = {
        "linf": weight.abs().sum().expand(6),
        "joint": weight.norm() / length.sqrt(),
        "modality": sum(part.norm() for part in weight.split([16, 8])) / length.sqrt(),
        "frame": weight.norm().expand(6),
    }["linf" if norm == "linf" else scope]
    expected = F.softplus(epsilon * reach - net(x, mask)[:, 0].detach())
    found = attack(
        net, x, y, mask, epsilon=epsilon, norm=norm, scope=scope, modalities=toy.MODALITIES, steps=60,
        **({"step_size": epsilon} if attack is BOTH["pgd"] else {}),
    )  # fmt: skip
    torch.testing.assert_close(found.diagnostics["loss"], expected, atol=1e-9, rtol=0)
    assert (found.diagnostics["loss"] <= expected + 1e-12).all()


@pytest.mark.parametrize("norm", EPSILON)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("epsilon", [1e-4, 0.5, 300.0])
def test_stays_inside_the_ball_and_off_the_padding(attack, norm: str, scope: str, epsilon: float) -> None:
    net = toy.model()
    x, y, mask = toy.batch()
    found = attack(net, x, y, mask, epsilon=epsilon, norm=norm, scope=scope).perturbation
    size = found.double().abs() if norm == "linf" else l2_norm(found.double(), scope, toy.MODALITIES)
    assert size.max() <= epsilon * (1 + 1e-6)
    assert size.max() > 0.5 * epsilon
    assert (found[~mask] == 0).all()


@pytest.mark.parametrize("norm", EPSILON)
@pytest.mark.parametrize("scope", SCOPES)
def test_a_videos_perturbation_does_not_depend_on_its_batch(attack, norm: str, scope: str) -> None:
    net = toy.model(dtype=torch.float64)
    x, y, mask = toy.batch(dtype=torch.float64)
    together = attack(net, x, y, mask, epsilon=0.5, norm=norm, scope=scope).perturbation
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        attack(net, x[order], y[order], mask[order], epsilon=0.5, norm=norm, scope=scope).perturbation,
        together[order], atol=1e-12, rtol=0,
    )  # fmt: skip
    for i in range(6):
        length = int(mask[i].sum())  # also without the padding its neighbours need
        given = x[i : i + 1, :length], y[i : i + 1], mask[i : i + 1, :length]
        alone = attack(net, *given, epsilon=0.5, norm=norm, scope=scope).perturbation
        torch.testing.assert_close(alone[0], together[i, :length], atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("norm", EPSILON)
def test_the_best_is_never_below_the_clean_video_nor_below_fewer_restarts(attack, name: str, norm: str) -> None:
    net, objective = toy.model(), OBJECTIVES[name]
    x, y, mask = toy.batch(videos=16)
    few, more = (
        attack(net, x, y, mask, epsilon=EPSILON[norm], norm=norm, objective=objective, restarts=restarts)
        for restarts in (1, 4)
    )
    values = [objective(logits, y) for logits in (few.clean_logits, few.adversarial_logits, more.adversarial_logits)]
    assert (values[1] >= values[0]).all()
    assert (values[2] >= values[1]).all()
    assert values[1].mean() > values[0].mean()
    assert values[2].mean() > values[1].mean()
    steps = few.diagnostics["iterations"]
    assert torch.equal(more.diagnostics["iterations"], 4 * steps)


def test_best_and_last_are_what_they_say() -> None:
    """Steps as long as the ball is wide overshoot, so the last iterate is not the best one."""
    net, seen = toy.model(), []

    def watched(x: Tensor, mask: Tensor) -> Tensor:
        seen.append((x.detach(), net(x, mask)))
        return seen[-1][1]

    x, y, mask = toy.batch(videos=16)
    for keep in ("best", "last"):
        seen.clear()
        found = pgd(watched, x, y, mask, epsilon=3.0, step_size=6.0, steps=7, restarts=2, keep=keep)
        assert len(seen) == 1 + 2 * (7 + 1)
        values = torch.stack([bce(logits, y) for _, logits in seen]).detach()  # (passes, B)
        rows = values.argmax(dim=0) if keep == "best" else torch.full((16,), len(seen) - 1)
        expected = torch.stack([frames for frames, _ in seen])[rows, torch.arange(16)]
        torch.testing.assert_close(x + found.perturbation, expected, atol=0, rtol=0)
        torch.testing.assert_close(bce(found.adversarial_logits, y), values[rows, torch.arange(16)], atol=0, rtol=0)
        torch.testing.assert_close(found.diagnostics["loss"].float(), values[rows, torch.arange(16)])
        torch.testing.assert_close(found.diagnostics["clean_loss"].float(), values[0])
        assert (found.diagnostics["iterations"] == 14).all()
    assert (rows != values.argmax(dim=0)).any()


def test_more_steps_help_and_one_step_from_the_video_is_the_one_step_attack() -> None:
    net = toy.model()
    x, y, mask = toy.batch(videos=16)
    once = pgd(net, x, y, mask, epsilon=0.5, steps=1, step_size=0.5, random_start=False)
    reference = fgm(net, x, y, mask, epsilon=0.5)
    torch.testing.assert_close(once.perturbation, reference.perturbation, atol=1e-7, rtol=0)
    assert once.diagnostics.keys() == reference.diagnostics.keys()
    for name, values in reference.diagnostics.items():
        torch.testing.assert_close(once.diagnostics[name], values)
    found = pgd(net, x, y, mask, epsilon=0.5, random_start=False).diagnostics["loss"]
    assert (found > reference.diagnostics["loss"]).all()


def test_the_default_step_is_two_and_a_half_radii_over_the_steps() -> None:
    net = toy.model()
    x, y, mask = toy.batch()
    default = pgd(net, x, y, mask, epsilon=0.5, steps=8)
    given = pgd(net, x, y, mask, epsilon=0.5, steps=8, step_size=2.5 * 0.5 / 8)
    assert torch.equal(default.perturbation, given.perturbation)


def test_seeds_and_restarts_begin_elsewhere() -> None:
    net = toy.model()
    x, y, mask = toy.batch()
    begun = [
        pgd(net, x, y, mask, epsilon=0.5, steps=1, step_size=0.0, keep="last", **options).perturbation
        for options in ({}, {"seed": 1}, {"restarts": 2}, {})
    ]
    assert torch.equal(begun[0], begun[3])
    assert (begun[0] != begun[1])[mask].all()
    assert (begun[0] != begun[2])[mask].all()


def test_a_given_start_is_brought_into_the_ball_and_used_once() -> None:
    net = toy.model()
    x, y, mask = toy.batch()
    options = {"epsilon": 0.5, "steps": 1, "step_size": 0.0, "keep": "last", "start": torch.full_like(x, 9.0)}
    first = pgd(net, x, y, mask, **options).perturbation
    real = mask[:, :, None] / (mask.sum(1)[:, None, None] * 24).sqrt()
    torch.testing.assert_close(first, 0.5 * real.expand_as(x))
    second = pgd(net, x, y, mask, restarts=2, **options).perturbation
    drawn = pgd(net, x, y, mask, restarts=2, **(options | {"start": None})).perturbation
    assert torch.equal(second, drawn)


@pytest.mark.parametrize("norm", EPSILON)
@pytest.mark.parametrize("begin", ["video", "random", "start"])
def test_only_what_is_movable_moves(attack, norm: str, begin: str) -> None:
    net = toy.model()
    x, y, mask = toy.batch()
    columns = (torch.arange(24) >= 16)[None, None]
    start = torch.ones_like(x) if begin == "start" else None
    given = {"random_start": begin == "random", "start": start}
    found = attack(net, x, y, mask, epsilon=EPSILON[norm], norm=norm, movable=columns, **given)
    moved = found.perturbation != 0
    assert moved[mask][:, 16:].double().mean() > 0.7  # steps along signs come back to 0 exactly
    assert not moved[:, :, :16].any()
    assert not moved[~mask].any()
    assert (found.diagnostics["loss"] > found.diagnostics["clean_loss"]).all()
    none = attack(net, x, y, mask, epsilon=0.5, norm=norm, movable=torch.zeros(6, 1, 1, dtype=torch.bool))
    assert not none.perturbation.any()
    assert none.diagnostics["zero_gradient"].all()


def test_a_gradient_that_is_no_number_poisons_nothing(attack) -> None:
    """The first video's gradient is NaN in one entry, the second's objective NaN away from the clean video."""
    net = toy.model()
    x, y, mask = toy.batch()
    mask = torch.ones_like(mask)

    class Spoil(torch.autograd.Function):
        @staticmethod
        def forward(ctx, frames: Tensor) -> Tensor:
            return frames.clone()

        @staticmethod
        def backward(ctx, gradient: Tensor) -> Tensor:
            gradient = gradient.clone()
            gradient[0, 0, 0] = torch.nan
            gradient[0, 0, 1] = torch.inf
            return gradient

    def spoiled(frames: Tensor, mask: Tensor) -> Tensor:
        logits = net(Spoil.apply(frames), mask)
        broken = (frames[1] != x[1]).any()
        return torch.cat([logits[:1], torch.where(broken, torch.nan, logits[1:2]), logits[2:]])

    found = attack(spoiled, x, y, mask, epsilon=0.5, random_start=False)
    expected = attack(net, x, y, mask, epsilon=0.5, random_start=False)
    assert found.diagnostics["gradient_not_finite"].tolist() == [True, False, False, False, False, False]
    assert not found.perturbation[:2].any()
    torch.testing.assert_close(found.adversarial_logits[:2], found.clean_logits[:2])
    torch.testing.assert_close(found.diagnostics["loss"][:2], found.diagnostics["clean_loss"][:2])
    torch.testing.assert_close(found.perturbation[2:], expected.perturbation[2:], atol=1e-6, rtol=0)
    assert not found.diagnostics["zero_gradient"].any()


def test_a_clean_video_whose_objective_is_no_number_may_be_left(attack) -> None:
    net = toy.model()
    x, y, mask = toy.batch()
    broken = lambda frames, mask: torch.where(  # noqa: E731
        (frames == x).all(dim=(1, 2))[:, None], torch.nan, net(frames, mask)
    )
    found = attack(broken, x, y, mask, epsilon=0.5)
    assert found.adversarial_logits.isfinite().all()
    assert (found.diagnostics["norm"] > 0).all()


def test_a_saturated_model_is_flagged_not_hidden(attack) -> None:
    x, y, mask = toy.batch()
    saturated = lambda frames, mask: (2 * y - 1) * 200 + 0 * frames.sum((1, 2))[:, None]  # noqa: E731
    found = attack(saturated, x, y, mask, epsilon=0.5)
    assert found.diagnostics["zero_gradient"].all()
    assert (found.diagnostics["gradient_norm"] == 0).all()
    assert not found.diagnostics["fooled"].any()
    assert not found.perturbation.any()


def test_leaves_the_model_and_its_arguments_alone(attack) -> None:
    net = toy.model()
    x, y, mask = toy.batch()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    given = [value.clone() for value in (x, y, mask)]
    attack(net, x, y, mask, epsilon=0.5)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(one, other) for one, other in zip(given, (x, y, mask), strict=True))
    assert not x.requires_grad
    assert attack(net, x[:0], y[:0], mask[:0], epsilon=0.5).adversarial_logits.shape == (0, toy.CLASSES)


def test_bad_arguments_are_refused(attack) -> None:
    net = toy.model()
    x, y, mask = toy.batch()
    bad = [
        ({"epsilon": -1.0}, "epsilon .* 0"),
        ({"norm": "l1"}, "norm"), ({"steps": 0}, "steps"), ({"restarts": 0}, "restarts"),
        ({"restarts": 2, "random_start": False}, "repeat"), ({"scope": "modality", "modalities": {"a": 3}}, "widths"),
        ({"movable": mask[:, :-1, None]}, "movable"), ({"movable": mask[:4, :, None]}, "movable"),
    ]  # fmt: skip
    for changed, message in bad:
        with pytest.raises((ValueError, TypeCheckError), match=message):  # the checks of the tests may come first
            attack(net, x, y, mask, **{"epsilon": 0.5, **changed})
    with pytest.raises((ValueError, TypeCheckError), match="mask"):
        attack(net, x, y, mask[:, :-1], epsilon=0.5)
    with pytest.raises(ValueError, match="step_size"):
        pgd(net, x, y, mask, epsilon=0.5, step_size=-0.1)
    with pytest.raises((ValueError, TypeCheckError), match="keep"):
        pgd(net, x, y, mask, epsilon=0.5, keep="first")
