"""The Square attack: what it may spend, where it may go, what it must never accept, and what it must find."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from artpaper.attacks import Norm, bce, l2_norm, margin, pgd, random_direction, square
from tests import toy

NORMS: tuple[Norm, ...] = ("l2", "linf")


@pytest.mark.parametrize("scope", ["joint", "modality", "frame"])
@pytest.mark.parametrize("frames", [1.0, 0.3])
def test_norm_is_epsilon_and_padding_stays(scope: str, frames: float) -> None:
    x, y, mask = toy.batch(videos=16)
    attack = square(toy.model(), x, y, mask, epsilon=0.5, scope=scope, queries=40, frames=frames, features=0.2)
    moved = attack.diagnostics["norm"] > 0
    assert moved.sum() >= 12
    length = l2_norm(attack.perturbation.double(), scope, toy.MODALITIES).expand_as(x)[moved]
    assert (length <= 0.5 * (1 + 1e-6)).all()
    if scope == "joint":
        torch.testing.assert_close(length, torch.full_like(length, 0.5), atol=0, rtol=1e-6)
    assert (attack.perturbation[~mask] == 0).all()


@pytest.mark.parametrize("frames", [1.0, 0.3])
def test_linf_stays_in_the_cube(frames: float) -> None:
    x, y, mask = toy.batch(videos=16)
    attack = square(toy.model(), x, y, mask, epsilon=0.1, norm="linf", queries=40, frames=frames)
    assert set(attack.perturbation.unique().tolist()) <= {0.0, *torch.tensor([0.1, -0.1]).tolist()}
    assert (attack.perturbation[~mask] == 0).all()
    assert (attack.perturbation != 0).any()


@pytest.mark.parametrize("norm", NORMS)
def test_a_videos_perturbation_does_not_depend_on_its_batch(norm: Norm) -> None:
    net = toy.model(dtype=torch.float64)
    x, y, mask = toy.batch(videos=12, dtype=torch.float64)
    ask = {"epsilon": 0.5, "norm": norm, "queries": 25, "frames": 0.4, "features": 0.2}
    together = square(net, x, y, mask, **ask)
    order = torch.arange(11, -1, -1)
    turned = square(net, x[order], y[order], mask[order], **ask)
    torch.testing.assert_close(turned.perturbation[order], together.perturbation, atol=1e-10, rtol=0)
    for i in range(12):
        length = int(mask[i].sum())  # also without the padding its neighbours need
        alone = square(net, x[i : i + 1, :length], y[i : i + 1], mask[i : i + 1, :length], **ask)
        torch.testing.assert_close(alone.perturbation[0], together.perturbation[i, :length], atol=1e-10, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_queries_are_exact_gradients_none_and_no_step_lowers_the_objective(norm: Norm) -> None:
    net, (x, y, mask) = toy.model(), toy.batch()
    asked: list[Tensor] = []

    def watched(frames: Tensor, mask: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        asked.append(frames.clone())
        return net(frames, mask)

    attacks = [square(watched, x, y, mask, epsilon=0.5, norm=norm, queries=queries) for queries in (1, 2, 10, 30)]
    assert len(asked) == 4 + 1 + 2 + 10 + 30  # the clean video once in each
    with torch.no_grad():
        tried = torch.stack([bce(net(frames, mask), y) for frames in asked[-31:]])  # (31, B)
    assert attacks[-1].diagnostics["iterations"].tolist() == [30] * 6
    # never below the clean video, and the best of all that it has asked about, after any number of queries
    for attack, upto in zip(attacks, (2, 3, 11, 31), strict=True):
        torch.testing.assert_close(attack.diagnostics["loss"], tried[:upto].amax(0).double(), atol=1e-6, rtol=1e-5)
    assert (tried.amax(0) > tried[0]).any()
    assert (tried[1:] < tried[0]).any()  # some would have lowered it
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("norm", NORMS)
def test_the_objective_is_the_one_asked_for_and_the_logits_are_the_models(norm: Norm) -> None:
    net, (x, y, mask) = toy.model(), toy.batch(videos=16)
    by_bce = square(net, x, y, mask, epsilon=0.5, norm=norm, queries=60)
    by_margin = square(net, x, y, mask, epsilon=0.5, norm=norm, queries=60, objective=margin)
    assert (margin(by_margin.adversarial_logits, y) > margin(by_bce.adversarial_logits, y)).float().mean() > 0.6
    for attack in (by_bce, by_margin):
        torch.testing.assert_close(attack.clean_logits, net(x, mask))
        torch.testing.assert_close(attack.adversarial_logits, net(x + attack.perturbation, mask))
        assert attack.diagnostics["gradient_norm"].isnan().all()
        assert not attack.diagnostics["zero_gradient"].any()
        torch.testing.assert_close(attack.diagnostics["clean_loss"], bce(net(x, mask).double(), y.double()))


@pytest.mark.parametrize("norm", NORMS)
def test_between_the_random_direction_and_pgd(norm: Norm) -> None:
    net, (x, y, mask) = toy.model(), toy.batch(videos=32)
    epsilon = 1.0 if norm == "l2" else 0.1
    rise = {}
    for attack in (random_direction, pgd, square):
        told = attack(net, x, y, mask, epsilon=epsilon, norm=norm).diagnostics
        rise[attack.__name__] = (told["loss"] - told["clean_loss"]).mean()
    assert rise["square"] > 0.4 * rise["pgd"]
    assert rise["square"] > 5 * rise["random_direction"]
    assert rise["square"] < rise["pgd"]


def test_linear_model_reaches_the_best_corner() -> None:
    """With one feature a block every sign is found by itself: the best corner of the cube, worked out on paper."""
    net = toy.Linear(8, 3)
    x, y = torch.full((1, 2, 8), -0.1, dtype=torch.float64), torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    aim = net.weight[1] - net.weight[0]
    attack = square(
        net, x, y, torch.ones(1, 2, dtype=torch.bool), epsilon=0.3, norm="linf", queries=400, features=0.1,
        objective=lambda z, y: z[:, 1] - z[:, 0],
    )  # fmt: skip
    expected = (0.3 * aim.sign()).expand(1, 2, 8)
    torch.testing.assert_close(attack.perturbation, expected.detach(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("seed", [1, 5])  # whose first query is accepted
def test_linear_model_mass_moves_to_where_it_counts(seed: int) -> None:
    """One feature matters: the L2 version must move nearly all mass to it, which the first query spreads evenly."""
    x, y = torch.zeros(1, 1, 16), torch.tensor([[1.0, 0.0]])
    net = lambda x, mask: torch.stack([0 * x[:, 0, 0] - 1, x[:, 0, 3]], dim=1)  # noqa: E731
    attack = square(
        net, x, y, torch.ones(1, 1, dtype=torch.bool), epsilon=2.0, queries=300, features=0.07,
        objective=lambda z, y: z[:, 1], seed=seed,
    )  # fmt: skip
    assert attack.perturbation[0, 0, 3] > 1.1  # 0.5 at first
    assert attack.diagnostics["norm"].item() == pytest.approx(2.0, rel=1e-6)


def test_a_block_is_a_run_of_real_frames_and_a_set_of_features() -> None:
    """Seen from outside: the second query may change a block of the first one's perturbation only."""
    x, _, mask = toy.batch()
    asked: list[Tensor] = []

    def net(frames: Tensor, mask: Tensor) -> Tensor:
        asked.append(frames - x)
        return torch.full((6, 2), 1 + float(len(asked) == 2)) * torch.tensor([1.0, -1.0])  # the first query is the best

    square(net, x, torch.tensor([[0.0, 1.0]]).expand(6, 2).contiguous(), mask, epsilon=0.5, norm="linf", queries=40,
           frames=0.5, features=0.25)  # fmt: skip
    sizes, touched = set(), torch.zeros_like(mask)
    for later in asked[2:]:
        changed = (later - asked[1]).abs() > 1e-3  # (B, T, D)
        touched |= changed.any(2)
        for rows, real in zip(changed.any(2), mask, strict=True):
            places = rows.nonzero().flatten()
            if len(places):
                assert len(places) == max(1, round(int(real.sum()) / 2))
                assert places[-1] - places[0] == len(places) - 1
                sizes.add(int(places[0]))
        assert changed.any(1).sum(1).max() <= 6
    assert len(sizes) > 2  # not always the same frames
    assert torch.equal(touched, mask)  # the last ones too


def test_what_is_outside_of_both_blocks_keeps_its_mass() -> None:
    x, y, mask = torch.zeros(1, 3, 24), torch.tensor([[0.0, 1.0]]), torch.ones(1, 3, dtype=torch.bool)
    asked: list[Tensor] = []

    def net(frames: Tensor, mask: Tensor) -> Tensor:
        asked.append(frames)
        return torch.tensor([[1.0, -1.0]]) * (1 + float(len(asked) == 2))  # the first query is the best

    square(net, x, y, mask, epsilon=0.5, queries=12, features=0.25)
    changed = [int(((later - asked[1]).abs() > 1e-6).any(1).sum()) for later in asked[2:]]
    emptied = [int((later == 0).all(1).sum()) for later in asked[2:]]
    assert 6 <= min(changed) <= max(changed) <= 12  # two blocks of 6 features, which may overlap
    assert max(emptied) > 6  # all of the second block, and where the new sign is against the old one


def test_seed_and_nothing_to_gain() -> None:
    net, (x, y, mask) = toy.model(), toy.batch()
    first, again, other = (square(net, x, y, mask, epsilon=0.5, queries=9, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.perturbation, again.perturbation)
    assert not torch.equal(first.perturbation, other.perturbation)
    still = square(net, x, y, mask, epsilon=0.0, queries=3)
    assert (still.perturbation == 0).all()
    flat = lambda x, mask: torch.zeros(6, toy.CLASSES) - 1  # noqa: E731
    assert (square(flat, x, y, mask, epsilon=1.0, queries=3).diagnostics["norm"] == 0).all()


def test_not_a_number_is_no_gain() -> None:
    broken = lambda x, mask: torch.where(x[:, 0].abs() > 0.01, math.nan, x[:, 0])  # noqa: E731
    x, y, mask = torch.zeros(2, 1, 3), torch.ones(2, 3), torch.ones(2, 1, dtype=torch.bool)
    with pytest.warns(UserWarning, match="lie in"):
        attack = square(broken, x, y, mask, epsilon=1.0, queries=5)
    assert (attack.perturbation == 0).all()
    assert attack.adversarial_logits.isfinite().all()


def test_bad_arguments_are_refused() -> None:
    net, (x, y, mask) = toy.model(), toy.batch()
    bad = [({"queries": 0}, "queries"), ({"frames": 0.0}, "frames"), ({"features": 1.5}, "features")]
    bad += [({"epsilon": -1.0}, "epsilon .* 0"), ({"norm": "l1"}, "l2.*linf")]
    for changed, message in bad:
        with pytest.raises((ValueError, TypeCheckError), match=message):  # the checks of the tests may come first
            square(net, x, y, mask, **{"epsilon": 0.5, **changed})
    with pytest.raises((ValueError, TypeCheckError), match="mask"):
        square(net, x, y, mask[:, :-1], epsilon=0.5)
    with pytest.raises(ValueError, match="widths"):
        square(net, x, y, mask, epsilon=1.0, scope="modality", modalities={"rgb": 3})
