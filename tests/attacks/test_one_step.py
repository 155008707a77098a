"""The one-step attack against foolbox, against its formula, and for its properties."""

import eagerpy as ep
import foolbox
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn
from torch.nn import functional as F

from artpaper.attacks import bce, fgm, l2_norm, random_direction, steepest
from tests import toy


class Masked(nn.Module):
    """Fixes the mask, so that foolbox, which knows of no mask, can call the model."""

    def __init__(self, net: nn.Module, mask: torch.Tensor) -> None:
        super().__init__()
        self.net, self.mask = net, mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x, self.mask)


def oracle(net: nn.Module, mask: torch.Tensor) -> foolbox.PyTorchModel:
    return foolbox.PyTorchModel(Masked(net, mask).eval(), bounds=(-float("inf"), float("inf")), device="cpu")


class MultiLabel(foolbox.attacks.L2FastGradientAttack):
    """foolbox's attack with the summed binary cross-entropy in place of its own single-label loss."""

    def __init__(self, y: torch.Tensor) -> None:
        super().__init__()
        self.y = y

    def get_loss_fn(self, model, labels):
        return lambda inputs: ep.astensor(
            F.binary_cross_entropy_with_logits(model(inputs).raw, self.y, reduction="sum")
        )


def test_equals_foolbox_multi_label() -> None:
    net = toy.model()
    x, y, mask = toy.batch(videos=16)
    dummy = foolbox.criteria.Misclassification(torch.zeros(16, dtype=torch.long))
    theirs = MultiLabel(y).run(oracle(net, mask), x, dummy, epsilon=0.5) - x
    ours = fgm(net, x, y, mask, epsilon=0.5).perturbation
    assert ours.abs().max() > 0.01
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_equals_foolbox_single_label() -> None:
    net = toy.model()
    x, _, mask = toy.batch(videos=16)
    labels = net(x, mask).argmax(1)
    y = F.one_hot(labels, toy.CLASSES).float()
    _, theirs, fooled = foolbox.attacks.L2FastGradientAttack()(oracle(net, mask), x, labels, epsilons=0.5)
    ours = fgm(net, x, y, mask, epsilon=0.5, objective=lambda z, t: F.cross_entropy(z, t, reduction="none"))
    torch.testing.assert_close(ours.perturbation, theirs - x, atol=1e-6, rtol=0)
    assert torch.equal(ours.diagnostics["fooled"], fooled)


def test_infinity_norm_equals_foolbox() -> None:
    net = toy.model()
    x, _, mask = toy.batch(videos=16)
    labels = net(x, mask).argmax(1)
    _, theirs, _ = foolbox.attacks.LinfFastGradientAttack()(oracle(net, mask), x, labels, epsilons=0.05)
    ours = fgm(
        net, x, F.one_hot(labels, toy.CLASSES).float(), mask, epsilon=0.05, norm="linf",
        objective=lambda z, t: F.cross_entropy(z, t, reduction="none"),
    ).perturbation  # fmt: skip
    torch.testing.assert_close(ours, theirs - x, atol=1e-6, rtol=0)
    assert (ours[~mask] == 0).all()


def test_a_random_direction_of_the_cube_is_a_corner() -> None:
    net = toy.model()
    x, y, mask = toy.batch(videos=16)
    found = random_direction(net, x, y, mask, epsilon=0.05, norm="linf").perturbation
    torch.testing.assert_close(found.abs(), 0.05 * mask[:, :, None].expand_as(x))
    assert 0.4 < (found[mask] > 0).double().mean() < 0.6


def test_losses_before_and_after_are_the_papers() -> None:
    net = toy.model()
    x, y, mask = toy.batch(videos=16)
    for found in (
        fgm(net, x, y, mask, epsilon=0.5, objective=lambda z, t: -bce(z, t)),
        random_direction(net, x, y, mask, epsilon=0.5),
    ):
        for name, frames in (("clean_loss", x), ("loss", x + found.perturbation)):
            loss = F.binary_cross_entropy_with_logits(net(frames, mask).double(), y.double(), reduction="none").mean(1)
            assert found.diagnostics[name].dtype == torch.float64
            torch.testing.assert_close(found.diagnostics[name], loss)


def test_linear_model_analytically() -> None:
    """Mean pooling and a linear read-out: every real frame moves by the same vector, (sigmoid - y) W / its norm."""
    net = toy.Linear(24, toy.CLASSES)
    x, y, mask = toy.batch(dtype=torch.float64)
    direction = (torch.sigmoid(net(x, mask)) - y) @ net.weight
    length = mask.sum(1, keepdim=True)
    expected = 0.5 * direction / (direction.norm(dim=1, keepdim=True) * length.double().sqrt())
    ours = fgm(net, x, y, mask, epsilon=0.5).perturbation
    torch.testing.assert_close(ours, (expected[:, None] * mask[:, :, None]).detach(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("scope", ["joint", "modality", "frame"])
@pytest.mark.parametrize("epsilon", [1e-4, 0.5, 300.0])
def test_norm_is_epsilon_and_padding_stays(scope: str, epsilon: float) -> None:
    net = toy.model()
    x, y, mask = toy.batch(videos=16)
    attack = fgm(net, x, y, mask, epsilon=epsilon, scope=scope)
    norms = l2_norm(attack.perturbation.double(), scope, toy.MODALITIES)
    real = norms.expand_as(x)[mask]
    torch.testing.assert_close(real, torch.full_like(real, epsilon), atol=0, rtol=1e-6)
    assert (attack.perturbation[~mask] == 0).all()
    balls = {"joint": torch.ones(16), "modality": torch.full((16,), 2.0), "frame": mask.sum(1)}[scope]
    torch.testing.assert_close(attack.diagnostics["norm"], (epsilon * balls.sqrt()).double(), atol=0, rtol=1e-6)
    torch.testing.assert_close(
        attack.diagnostics["relative_norm"], attack.diagnostics["norm"] / x.double().flatten(1).norm(dim=1)
    )


@pytest.mark.parametrize("scope", ["joint", "modality", "frame"])
def test_a_videos_perturbation_does_not_depend_on_its_batch(scope: str) -> None:
    net = toy.model(dtype=torch.float64)
    x, y, mask = toy.batch(videos=16, dtype=torch.float64)
    together = fgm(net, x, y, mask, epsilon=0.5, scope=scope).perturbation
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        fgm(net, x[order], y[order], mask[order], epsilon=0.5, scope=scope).perturbation, together[order],
        atol=1e-12, rtol=0,
    )  # fmt: skip
    for i in range(16):
        length = int(mask[i].sum())  # also without the padding its neighbours need
        alone = fgm(net, x[i : i + 1, :length], y[i : i + 1], mask[i : i + 1, :length], epsilon=0.5, scope=scope)
        torch.testing.assert_close(alone.perturbation[0], together[i, :length], atol=1e-12, rtol=0)


def test_a_gradient_too_small_to_square_still_gives_epsilon() -> None:
    gradient = torch.randn(3, 4, 5) * torch.tensor([1e-30, 1e-38, 1e30])[:, None, None]
    step = steepest(gradient, torch.ones(3, 4, dtype=torch.bool), epsilon=0.5)
    torch.testing.assert_close(l2_norm(step).flatten(), torch.full((3,), 0.5), atol=0, rtol=1e-6)


@pytest.mark.parametrize("scope", ["joint", "modality", "frame"])
def test_padding_stays_even_for_a_model_that_looks_at_it(scope: str) -> None:
    gradient = torch.randn(6, 9, 24)
    _, _, mask = toy.batch()
    step = steepest(gradient, mask, epsilon=0.5, scope=scope, modalities=toy.MODALITIES)
    assert (step[~mask] == 0).all()
    assert (step[mask] != 0).all()
    if scope == "joint":
        torch.testing.assert_close(l2_norm(step).flatten(), torch.full((6,), 0.5), atol=0, rtol=1e-6)


def test_fooled_and_already_wrong_by_hand() -> None:
    """Three videos of one frame and two classes, the logits being the frame; the attack flips the near ones."""
    x = torch.tensor([[[1.0, 0.9]], [[9.0, 0.0]], [[0.0, 9.0]]])
    y = torch.tensor([[1.0, 0.0]]).expand(3, 2).contiguous()
    attack = fgm(lambda x, mask: x[:, 0], x, y, torch.ones(3, 1, dtype=torch.bool), epsilon=0.5)
    assert attack.diagnostics["fooled"].tolist() == [True, False, False]
    assert attack.diagnostics["already_wrong"].tolist() == [False, False, True]


def test_a_saturated_model_is_flagged_not_hidden() -> None:
    """Binary cross-entropy at logit +200 for the true label and -200 elsewhere has gradient exactly 0 in float32."""
    x, y, mask = toy.batch()
    saturated = lambda x, mask: (2 * y - 1) * 200 + 0 * x.sum((1, 2))[:, None]  # noqa: E731
    attack = fgm(saturated, x, y, mask, epsilon=0.5)
    assert attack.diagnostics["zero_gradient"].all()
    assert (attack.perturbation == 0).all()
    assert not attack.diagnostics["fooled"].any()


def test_attack_raises_the_loss_and_leaves_the_model_alone() -> None:
    net = toy.model()
    x, y, mask = toy.batch(videos=16)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    attack = fgm(net, x, y, mask, epsilon=0.5)
    rise = F.binary_cross_entropy_with_logits(attack.adversarial_logits, y, reduction="none").mean(1)
    assert (rise > F.binary_cross_entropy_with_logits(attack.clean_logits, y, reduction="none").mean(1)).all()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_epsilon_zero_moves_nothing() -> None:
    net = toy.model()
    x, y, mask = toy.batch()
    attack = fgm(net, x, y, mask, epsilon=0.0)
    assert (attack.perturbation == 0).all()
    torch.testing.assert_close(attack.adversarial_logits, attack.clean_logits)


def test_bad_arguments_are_refused() -> None:
    net = toy.model()
    x, y, mask = toy.batch()
    with pytest.raises(ValueError, match=r"epsilon .* 0"):
        fgm(net, x, y, mask, epsilon=-1.0)
    with pytest.raises((ValueError, TypeCheckError), match="mask"):  # the shape checks of the tests may come first
        steepest(x, mask[:, :-1], epsilon=1.0)
    with pytest.raises(ValueError, match="widths"):
        fgm(net, x, y, mask, epsilon=1.0, scope="modality", modalities={"rgb": 3})
