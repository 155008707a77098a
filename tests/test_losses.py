"""The losses against the straightforward three-pass computation, finite differences, and their limits."""

import pytest
import torch
from torch.nn import functional as F

from artpaper.attacks import fgm
from artpaper.losses import adversarial, attention_adversarial, attention_change, cross_entropy, loss_for
from artpaper.settings import Control, Loss
from tests import toy

DOUBLE = torch.float64


def gradients(net: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    net.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in net.named_parameters()}


def straightforward(net, x, y, mask, config: Loss, perturbation=None, held_maps=None) -> torch.Tensor:
    """Eq. 2 and section 2.2 written down naively: its own gradient pass for R, then one graph for everything."""
    if perturbation is None:
        perturbation = fgm(net, x, y, mask, epsilon=config.epsilon, scope=config.scope).perturbation
    clean, maps = net(x, mask, return_attention=True)
    attacked, adversarial_maps = net(x + perturbation, mask, return_attention=True)
    loss = F.binary_cross_entropy_with_logits(clean, y) + config.alpha * F.binary_cross_entropy_with_logits(attacked, y)
    loss = loss * (y.shape[1] if config.bce_reduction == "sum" else 1)
    maps = held_maps or maps
    weight = config.beta / (len(maps) if config.attention_modalities == "mean" else 1)
    for name in maps:
        squares = [(maps[name][i] - adversarial_maps[name][i]).square().sum() for i in range(len(x))]
        norms = squares if config.attention_squared else [(square + 1e-30).sqrt() for square in squares]
        loss = loss + weight * torch.stack(norms).mean()
    return loss


@pytest.mark.parametrize("scope", ["joint", "modality", "frame"])
@pytest.mark.parametrize("beta", [0.0, 0.001, 3.0])
def test_equal_to_the_straightforward_computation(beta: float, scope: str) -> None:
    config = Loss(alpha=0.7, beta=beta, epsilon=0.4, scope=scope)
    net = toy.model(dtype=DOUBLE)
    x, y, mask = toy.batch(dtype=DOUBLE)
    loss, parts = loss_for(config)(net, x, y, mask, config)
    expected = straightforward(net, x, y, mask, config)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    assert parts["loss"] == loss.item()
    ours, theirs = gradients(net, loss), gradients(net, expected)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-10, rtol=0, msg=name)


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": 0.0}, {"alpha": 0.0, "bce_reduction": "sum"}, {}, {"scope": "modality"}, {"scope": "frame"},
        {"beta": 0.5}, {"beta": 0.5, "bce_reduction": "sum"}, {"beta": 0.5, "attention_modalities": "mean"},
        {"beta": 0.5, "attention_squared": True}, {"beta": 0.5, "attention_detach_clean": True},
    ],
    ids=str,
)  # fmt: skip
def test_gradient_matches_finite_differences(changes: dict) -> None:
    """With R held constant, as the losses hold it, the gradient is the slope of Eq. 1, Eq. 2 and section 2.2."""
    config = Loss(**{"alpha": 0.7, "epsilon": 0.4, **changes})
    net = toy.model(dtype=DOUBLE)
    x, y, mask = toy.batch(dtype=DOUBLE)
    with torch.no_grad():
        maps = net(x, mask, return_attention=True)[1] if config.attention_detach_clean else None
    held = fgm(net, x, y, mask, epsilon=config.epsilon, scope=config.scope).perturbation
    ours = gradients(net, loss_for(config)(net, x, y, mask, config)[0])
    generator = torch.Generator().manual_seed(0)
    for name, parameter in net.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=DOUBLE)
        direction /= direction.norm()
        with torch.no_grad():
            slopes = []
            for sign in (1, -1):
                parameter += sign * 1e-6 * direction
                slopes.append(straightforward(net, x, y, mask, config, held, maps).item())
                parameter -= sign * 1e-6 * direction
        slope = (slopes[0] - slopes[1]) / 2e-6
        assert (ours[name] * direction).sum().item() == pytest.approx(slope, abs=1e-7), name


def test_cross_entropy_is_pytorchs_and_sum_is_classes_times_mean() -> None:
    net = toy.model(dtype=DOUBLE)
    x, y, mask = toy.batch(dtype=DOUBLE)
    mean, _ = cross_entropy(net, x, y, mask, Loss())
    assert mean.item() == pytest.approx(F.binary_cross_entropy_with_logits(net(x, mask), y).item(), abs=1e-15)
    total, _ = cross_entropy(net, x, y, mask, Loss(bce_reduction="sum"))
    assert total.item() == pytest.approx(toy.CLASSES * mean.item(), rel=1e-12)


@pytest.mark.parametrize("squared", [False, True])
def test_no_perturbation_gives_an_attention_term_of_exactly_zero(squared: bool) -> None:
    config = Loss(alpha=1.0, beta=10.0, epsilon=0.0, attention_squared=squared)
    net = toy.model(dropout=0.3).train()  # both passes must drop the same units
    x, y, mask = toy.batch()
    loss, parts = attention_adversarial(net, x, y, mask, config)
    assert parts["attention"] == 0.0
    assert parts["adversarial"] == parts["cross_entropy"]
    assert all(g.isfinite().all() for g in gradients(net, loss).values())


def test_attention_term_by_hand() -> None:
    clean = {"rgb": torch.zeros(2, 3, 3), "audio": torch.zeros(2, 3, 3)}
    attacked = {"rgb": torch.zeros(2, 3, 3), "audio": torch.zeros(2, 3, 3)}
    attacked["rgb"][0, 0, :2] = torch.tensor([3.0, 4.0])  # norm 5 in the first of two videos
    attacked["audio"][1, 2, 2] = 2.0
    assert attention_change(clean, attacked, Loss()).item() == pytest.approx((5 + 2) / 2)
    assert attention_change(clean, attacked, Loss(attention_modalities="mean")).item() == pytest.approx(7 / 4)
    assert attention_change(clean, attacked, Loss(attention_squared=True)).item() == pytest.approx((25 + 4) / 2)


def test_detaching_the_clean_map_keeps_the_value_and_changes_the_gradient() -> None:
    net = toy.model(dtype=DOUBLE)
    x, y, mask = toy.batch(dtype=DOUBLE)
    both = attention_adversarial(net, x, y, mask, Loss(alpha=1.0, beta=1.0))
    one = attention_adversarial(net, x, y, mask, Loss(alpha=1.0, beta=1.0, attention_detach_clean=True))
    assert both[0].item() == pytest.approx(one[0].item(), abs=1e-14)
    name = "encoders.rgb.query_key.weight"
    assert not torch.allclose(gradients(net, both[0])[name], gradients(net, one[0])[name])


def test_terms_of_weight_zero_are_not_computed() -> None:
    assert loss_for(Loss()) is cross_entropy
    assert loss_for(Loss(alpha=1.0)) is adversarial
    assert loss_for(Loss(alpha=1.0, beta=1e-3)) is attention_adversarial


def test_forward_and_backward_passes_are_counted() -> None:
    """ART runs the model forward twice, never a third time."""
    net = toy.model()
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    x, y, mask = toy.batch()
    adversarial(net, x, y, mask, Loss(alpha=1.0))[0].backward()
    assert len(calls) == 2


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_the_loss_may_be_scaled_like_any_other(beta: float) -> None:
    config = Loss(alpha=0.7, beta=beta, epsilon=0.4)
    net = toy.model(dtype=DOUBLE)
    x, y, mask = toy.batch(dtype=DOUBLE)
    once = gradients(net, loss_for(config)(net, x, y, mask, config)[0])
    thrice = gradients(net, 3 * loss_for(config)(net, x, y, mask, config)[0])
    for name in once:
        torch.testing.assert_close(thrice[name], 3 * once[name], atol=1e-14, rtol=1e-12)


@pytest.mark.parametrize("config", [Loss(), Loss(alpha=1.0), Loss(beta=0.1), Control(entropy=0.1)], ids=str)
def test_each_batch_drops_other_units(config: Loss) -> None:
    net = toy.model(dropout=0.5).train()
    x, y, mask = toy.batch()
    first, second = (loss_for(config)(net, x, y, mask, config)[0].item() for _ in range(2))
    assert first != second


HOOKED = [Loss(), Loss(alpha=1.0, epsilon=0.4), Loss(alpha=1.0, beta=0.5, epsilon=0.4), Control(entropy=0.1)]


@pytest.mark.parametrize("config", HOOKED, ids=str)
def test_a_hook_of_a_parameter_is_called_once(config: Loss) -> None:
    """As of one who scales, cuts off or watches gradients; the clean pass goes back before the rest."""
    found = []
    for hook in (None, lambda gradient: 0.5 * gradient):
        net = toy.model(dtype=DOUBLE)
        handle = net.classifier.weight.register_hook(hook) if hook else None
        torch.manual_seed(1)
        loss = loss_for(config)(net, *toy.batch(dtype=DOUBLE), config)[0]
        found.append(gradients(net, loss)["classifier.weight"])
    torch.testing.assert_close(found[1], 0.5 * found[0])
    handle.remove()
    assert not net.classifier.weight._backward_hooks


@pytest.mark.parametrize("config", HOOKED[1:], ids=str)
def test_a_second_gradient_that_would_lack_a_part_is_refused(config: Loss) -> None:
    net = toy.model()
    loss = loss_for(config)(net, *toy.batch(), config)[0]
    with pytest.raises(RuntimeError, match="cannot be differentiated"):
        torch.autograd.grad(loss, list(net.parameters()), create_graph=True)


def test_zero_gradients_are_counted() -> None:
    net = toy.model()
    with torch.no_grad():
        net.classifier.weight.zero_()
    x, y, mask = toy.batch()
    _, parts = adversarial(net, x, y, mask, Loss(alpha=1.0))
    assert parts["zero_gradients"] == len(x)
    assert parts["perturbation_norm"] == 0.0


def test_what_is_told_of_the_adversaries_is_a_mean_over_videos_and_blind_to_padding() -> None:
    """A model that looks at the last place, mostly padding: no attack reaches it there, whatever its slope is."""

    class Last(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.linspace(1, 2, toy.CLASSES, dtype=DOUBLE))

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            first = x[:, 0, :1] * mask[:, :1] * (mask.sum(1, keepdim=True) > 2)  # videos of two frames do not count
            return (
                first + x[:, -1].square().sum(dim=1, keepdim=True).sqrt()
            ) * self.weight  # of padding the slope is NaN

    x, y, _ = toy.batch(dtype=DOUBLE)
    mask = torch.arange(9) < torch.tensor([9, 2, 4, 2, 7, 2])[:, None]
    x = torch.where(mask[:, :, None], torch.randn(x.shape, dtype=DOUBLE), 0.0)
    _, parts = adversarial(Last(), x, y, mask, Loss(alpha=1.0, epsilon=0.6))
    assert (parts["zero_gradients"], parts["gradients_not_finite"]) == (3, 0)
    assert parts["perturbation_norm"] == pytest.approx(0.6 * 3 / 6, rel=1e-12)
    _, parts = adversarial(toy.model(dtype=DOUBLE), x, y, mask, Loss(alpha=1.0, epsilon=0.6, scope="frame"))
    expected = 0.6 * mask.sum(dim=1).double().sqrt().mean().item()  # every frame moves by epsilon
    assert parts["perturbation_norm"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_a_parameter_that_the_model_does_not_use_gets_no_gradient(beta: float) -> None:
    """And stops no step: a network of one's own may have a part that is frozen out, or left for later."""
    net, (x, y, mask) = toy.model(), toy.batch()
    net.unused = torch.nn.Parameter(torch.ones(3))
    config = Loss(alpha=0.7, beta=beta, epsilon=0.4)
    loss_for(config)(net, x, y, mask, config)[0].backward()
    assert net.unused.grad is None
    assert all(parameter.grad is not None for name, parameter in net.named_parameters() if name != "unused")


@pytest.mark.parametrize("config", HOOKED, ids=str)
def test_a_part_that_is_not_registered_gets_its_whole_gradient(config: Loss) -> None:
    """As the head in the function of an adapter: the clean pass went back without it."""
    found = []
    for registered in (False, True):
        net, head = toy.model(dtype=DOUBLE), torch.nn.Linear(toy.CLASSES, toy.CLASSES, dtype=DOUBLE)
        with torch.no_grad():
            head.weight.copy_(torch.eye(toy.CLASSES) + 0.1)
            head.bias.zero_()
        inner = net.forward

        def forward(x, mask, return_attention=False, inner=inner, head=head):
            logits, maps = inner(x, mask, True)
            return (head(logits), maps) if return_attention else head(logits)

        net.forward = forward
        if registered:
            net.head = head
        torch.manual_seed(1)
        loss_for(config)(net, *toy.batch(dtype=DOUBLE), config)[0].backward()
        found.append(head.weight.grad)
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=0)


HALF = [*HOOKED[1:], Control(alpha=1.0, consistency=True, adversary="virtual", epsilon=0.4)]


@pytest.mark.parametrize("config", HALF, ids=str)
def test_in_float16_a_scaled_loss_has_the_gradient_of_float32(config: Loss) -> None:
    """The fault it alone catches: what goes back ahead, before a scaler is asked, is rounded to 0 of a sure model."""
    x, y, mask = toy.batch()
    y = y[:1].expand_as(y)
    found = []
    for half in (False, True):
        net = toy.model()
        with torch.no_grad():
            net.classifier.bias.copy_(torch.where(y[0] > 0, 9.0, -9.0))
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.float16, enabled=half):
            loss = loss_for(config)(net, x, y, mask, config)[0]
        found.append(torch.cat([one.flatten() for one in gradients(net, 2.0**14 * loss).values()]))
    assert F.cosine_similarity(*found, dim=0) > 0.999
    torch.testing.assert_close(found[0].norm(), found[1].norm(), rtol=0.01, atol=0)
