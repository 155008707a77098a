"""Attacks under a structure against what a linear model gives on paper, and for what they leave alone."""

import pytest
import torch
from torch import Tensor, nn

from artpaper.attacks import apgd, bce, fit_universal, k_frames, l2_norm, one_modality, pgd, random_direction, universal
from tests import toy
from tests.attacks.test_deepfool import trained  # noqa: F401

DOUBLE = torch.float64
WIDTHS = list(toy.MODALITIES.values())


def first_logit(logits: Tensor, y: Tensor) -> Tensor:
    return logits[:, 0]


def linear() -> tuple[nn.Module, Tensor, Tensor, Tensor, Tensor]:
    """A linear model over mean-pooled frames, videos, and the gradient of its first logit times their length (D,)."""
    net = toy.Linear(sum(WIDTHS), toy.CLASSES)
    return net, *toy.batch(dtype=DOUBLE), net.weight[0].detach()


class Weighted(nn.Module):
    """Pools frames with a weight each, so it is known which of them matter most."""

    def __init__(self, importance: list[float]) -> None:
        super().__init__()
        self.importance = torch.tensor(importance, dtype=DOUBLE)
        self.inner = toy.Linear(sum(WIDTHS), toy.CLASSES)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.inner(x * self.importance[: x.shape[1], None], mask)


@pytest.mark.parametrize("attack", [pgd, apgd])
@pytest.mark.parametrize("frames", [1, 2, 4])
def test_few_frames_of_a_linear_model_move_as_worked_out(frames: int, attack) -> None:
    """With n of T equal frames, the first logit rises by n / T * epsilon / sqrt(n) * ||w||."""
    net, x, y, mask, w = linear()
    found = k_frames(
        net, x, y, mask, epsilon=0.5, frames=frames, objective=first_logit, attack=attack, random_start=False
    )
    moved = found.perturbation.abs().amax(2) > 0
    lengths = mask.sum(1)
    used = lengths.clamp(max=frames)
    assert torch.equal(moved.sum(1), used)
    assert torch.equal(moved, mask & (torch.arange(9) < frames))  # all are equal: the first ones
    rise = found.adversarial_logits[:, 0] - found.clean_logits[:, 0]
    torch.testing.assert_close(rise, used.double().sqrt() / lengths * 0.5 * w.norm(), atol=1e-9, rtol=0)
    assert found.diagnostics["norm"].max() <= 0.5 * (1 + 1e-6)


def test_the_frames_are_those_of_largest_gradient() -> None:
    importance = [0.1, 3.0, 0.2, 2.0, 0.3, 0.4, 1.0, 0.5, 9.0]
    x, y, mask = toy.batch(videos=12, dtype=DOUBLE)
    found = k_frames(Weighted(importance), x, y, mask, epsilon=0.5, frames=3)
    for i, length in enumerate(mask.sum(1).tolist()):
        best = sorted(range(length), key=lambda t: -importance[t])[:3]
        assert sorted(best) == found.perturbation[i].abs().amax(1).nonzero().flatten().tolist()


def test_padding_takes_no_frames_place() -> None:
    """Even for a model that looks at padding more than at anything else."""
    net = toy.Linear(sum(WIDTHS), toy.CLASSES)
    x, y, mask = toy.batch(dtype=DOUBLE)
    leaky = lambda x, mask: net(x, mask) + 9 * (x * ~mask[:, :, None]).sum(1) @ net.weight.T  # noqa: E731
    moved = k_frames(leaky, x, y, mask, epsilon=0.5, frames=2, steps=2).perturbation.abs().amax(2) > 0
    assert torch.equal(moved.sum(1), mask.sum(1).clamp(max=2))


def test_a_gradient_that_is_no_number_does_not_choose_a_frame() -> None:
    x, y, mask = toy.batch(dtype=DOUBLE)
    net = toy.Linear(sum(WIDTHS), toy.CLASSES)

    def broken(x: Tensor, mask: Tensor) -> Tensor:
        if x.requires_grad:
            x.register_hook(lambda gradient: gradient.index_fill(1, torch.tensor([0]), torch.nan))
        return net(x, mask)

    moved = k_frames(broken, x, y, mask, epsilon=0.5)
    assert moved.diagnostics["gradient_not_finite"].all()  # of a real frame: its rank among the frames is unknown
    assert not moved.perturbation.any()


def test_all_frames_is_the_attack_itself() -> None:
    net = toy.model(dtype=DOUBLE)
    x, y, mask = toy.batch(dtype=DOUBLE)
    every = k_frames(net, x, y, mask, epsilon=0.5, frames=9, steps=5, seed=3)
    assert torch.equal(every.perturbation, pgd(net, x, y, mask, epsilon=0.5, steps=5, seed=3).perturbation)
    with pytest.raises(ValueError, match=r"frames .*greater than or equal to 1, got 0"):
        k_frames(net, x, y, mask, epsilon=0.5, frames=0)


@pytest.mark.parametrize("modality", toy.MODALITIES)
def test_one_modality_of_a_linear_model_moves_as_worked_out(modality: str) -> None:
    net, x, y, mask, w = linear()
    columns = torch.cat([torch.full((width,), name == modality) for name, width in toy.MODALITIES.items()])
    found = one_modality(
        net, x, y, mask, epsilon=0.5, modality=modality, modalities=toy.MODALITIES, objective=first_logit,
        random_start=False,
    )  # fmt: skip
    assert (found.perturbation[:, :, ~columns] == 0).all()
    best = torch.where(columns, w, 0.0)
    best = 0.5 * best / best.norm() / mask.sum(1, keepdim=True).double().sqrt()  # (B, D)
    torch.testing.assert_close(found.perturbation, best[:, None] * mask[:, :, None], atol=1e-9, rtol=0)
    rise = found.adversarial_logits[:, 0] - found.clean_logits[:, 0]
    torch.testing.assert_close(rise, 0.5 * w[columns].norm() / mask.sum(1).double().sqrt(), atol=1e-9, rtol=0)


def test_widths_given_by_hand_reach_the_ball() -> None:
    net, x, y, mask, _ = linear()  # it knows of no modalities
    found = one_modality(net, x, y, mask, epsilon=0.5, modalities=toy.MODALITIES, scope="modality", steps=5)
    norms = l2_norm(found.perturbation, "modality", toy.MODALITIES)
    assert (norms[:, :, :16] == 0).all()
    assert (norms[:, :, 16:] <= 0.5 * (1 + 1e-6)).all()
    assert (norms[:, :, 16:] > 0.1).all()


def test_an_unknown_modality_is_told_with_the_known_ones() -> None:
    net = toy.model()
    x, y, mask = toy.batch()
    with pytest.raises(ValueError, match="modality 'sound' is unknown; known are: rgb, audio"):
        one_modality(net, x, y, mask, epsilon=0.5, modality="sound")
    with pytest.raises(ValueError, match="known are: none; pass modalities"):
        one_modality(lambda x, mask: net(x, mask), x, y, mask, epsilon=0.5)
    with pytest.raises(ValueError, match=r"add up to 24, got .*audio.*8"):
        one_modality(net, x, y, mask, epsilon=0.5, modalities={"audio": 8})


@pytest.mark.parametrize("passes", [1, 4])
def test_universal_of_a_linear_model_is_worked_out(passes: int) -> None:
    net, x, y, _, w = linear()
    whole = torch.ones(6, 9, dtype=torch.bool)
    halves = [(x[:3], y[:3], whole[:3]), (x[3:], y[3:], whole[3:])]
    fitted = fit_universal(net, halves, epsilon=0.5, passes=passes, objective=first_logit)
    torch.testing.assert_close(fitted, (0.5 * w / w.norm() / 3).expand(9, -1), atol=1e-9, rtol=0)


@pytest.mark.parametrize("scale", [1e-3, 7.0])
@pytest.mark.parametrize("scope", ["joint", "modality", "frame"])
def test_universal_is_cut_to_the_frames_and_brought_to_epsilon(scope: str, scale: float) -> None:
    net = toy.model(dtype=DOUBLE)
    x, y, mask = toy.batch(dtype=DOUBLE)
    fitted = torch.randn(9, 24, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    found = universal(net, x, y, mask, epsilon=0.5, perturbation=scale * fitted, scope=scope)
    norms = l2_norm(found.perturbation, scope, toy.MODALITIES).expand_as(x)[mask]
    torch.testing.assert_close(norms, torch.full_like(norms, 0.5))
    for i, length in enumerate(mask.sum(1).tolist()):
        if scope == "joint":
            cut = fitted[:length]
            torch.testing.assert_close(found.perturbation[i, :length], 0.5 * cut / cut.norm())
        assert (found.perturbation[i, length:] == 0).all()


def test_a_shorter_perturbation_leaves_later_frames_alone() -> None:
    net, x, y, mask, _ = linear()
    found = universal(net, x, y, mask, epsilon=0.5, perturbation=torch.ones(2, 24))
    assert torch.equal(found.perturbation.abs().amax(2) > 0, mask & (torch.arange(9) < 2))
    torch.testing.assert_close(found.diagnostics["norm"], torch.full((6,), 0.5, dtype=DOUBLE))


def task(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Videos and the labels that the fixture ``trained`` has learned."""
    x, _, mask = toy.batch(videos=128, seed=seed)
    return x, (x.sum(1)[:, : toy.CLASSES] / mask.sum(1, keepdim=True).sqrt() > 0.8).float(), mask


def test_universal_harms_videos_it_was_not_fitted_on(trained: nn.Module) -> None:  # noqa: F811
    epsilon = 1.5
    fitted = fit_universal(trained, [task(seed) for seed in range(200, 204)], epsilon=epsilon, passes=5)
    assert fitted.norm() <= epsilon * (1 + 1e-6)
    x, y, mask = task(300)
    found = universal(trained, x, y, mask, epsilon=epsilon, perturbation=fitted)
    loss = bce(found.adversarial_logits, y).mean()
    blind = [random_direction(trained, x, y, mask, epsilon=epsilon, seed=seed) for seed in range(20)]
    assert loss > max(bce(one.adversarial_logits, y).mean() for one in blind)
    assert loss < bce(pgd(trained, x, y, mask, epsilon=epsilon).adversarial_logits, y).mean()
    assert all(parameter.grad is None for parameter in trained.parameters())


def test_batches_of_other_lengths_are_fitted_together() -> None:
    net = toy.model(dtype=DOUBLE)
    long, short = toy.batch(time=9, dtype=DOUBLE), toy.batch(time=4, seed=1, dtype=DOUBLE)
    fitted = fit_universal(net, [short, long], epsilon=0.5, passes=2)
    assert fitted.shape == (9, 24)
    assert (fitted.abs().amax(1) > 0).all()
    assert torch.equal(fitted, fit_universal(net, [short, long], epsilon=0.5, passes=2))
    # padding weighs nothing, whatever stands there and however long it is
    x, y, mask = short
    longer = (torch.cat([x, torch.ones(6, 3, 24, dtype=DOUBLE)], 1), y, torch.cat([mask, mask.new_zeros(6, 3)], 1))
    again = fit_universal(net, [longer, long], epsilon=0.5, passes=2)
    torch.testing.assert_close(again, fitted, atol=1e-12, rtol=0)


def test_the_fit_is_the_ascent_written_down() -> None:
    """Video by video, no padding: the gradient is taken where the perturbation, as each video is shown it, has led."""
    net = toy.model(dtype=DOUBLE)
    batches = [toy.batch(seed=seed, dtype=DOUBLE) for seed in (0, 1)]
    fitted, step = torch.zeros(9, 24, dtype=DOUBLE), 2.5 * 2.0 / 6
    for x, y, mask in batches * 3:
        total = torch.zeros_like(fitted)
        for i, length in enumerate(mask.sum(1).tolist()):
            shown = fitted[:length] * (2.0 / fitted[:length].norm().clamp(min=1e-30))
            frames = (x[i, :length] + shown).requires_grad_(True)
            loss = bce(net(frames[None], torch.ones(1, length, dtype=torch.bool)), y[i : i + 1]).sum()
            total[:length] += torch.autograd.grad(loss, frames)[0]
        fitted = fitted + step * total / total.norm()
        fitted = fitted * (2.0 / fitted.norm()).clamp(max=1.0)
    ours = fit_universal(net, batches, epsilon=2.0, passes=3)
    torch.testing.assert_close(ours, fitted, atol=1e-10, rtol=0)
    # a model that looks at padding is fitted on its real frames alone
    leaky = lambda x, mask: net(x, mask) + (x * ~mask[:, :, None]).sum((1, 2))[:, None]  # noqa: E731
    torch.testing.assert_close(fit_universal(leaky, batches, epsilon=2.0, passes=3), fitted, atol=1e-10, rtol=0)


def test_the_fit_is_in_the_ball_of_the_models_own_modalities() -> None:
    fitted = fit_universal(toy.model(dtype=DOUBLE), [toy.batch(dtype=DOUBLE)], epsilon=0.5, scope="modality")
    torch.testing.assert_close(fitted[:, :16].norm().item(), 0.5)
    torch.testing.assert_close(fitted[:, 16:].norm().item(), 0.5)


def test_a_fit_without_batches_or_passes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fitted on batches .*one or more"):
        fit_universal(toy.model(), [], epsilon=0.5)
    with pytest.raises(ValueError, match=r"passes .*greater than or equal to 1, got 0"):
        fit_universal(toy.model(), [toy.batch()], epsilon=0.5, passes=0)
