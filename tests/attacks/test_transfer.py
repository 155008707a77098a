"""Transfer: the surrogate's perturbation with the other model's answers."""

from functools import partial

import pytest
import torch
from torch import Tensor

from artpaper.attacks import bce, fgm, hit, pgd, square, transfer
from tests import toy

CRAFT = partial(fgm, epsilon=0.7)


def test_perturbation_is_the_surrogates_and_the_rest_is_the_models() -> None:
    net, surrogate = toy.model(seed=0), toy.model(seed=1)
    x, y, mask = toy.batch(videos=32)
    y[:16] = 0
    y[torch.arange(16), net(x, mask).argmax(1)[:16]] = 1
    found, shown = CRAFT(surrogate, x, y, mask), transfer(net, x, y, mask, surrogate=surrogate, attack=CRAFT)
    assert torch.equal(shown.perturbation, found.perturbation)
    clean, after = net(x, mask).detach(), net(x + found.perturbation, mask).detach()
    torch.testing.assert_close(shown.clean_logits, clean)
    torch.testing.assert_close(shown.adversarial_logits, after)
    told = shown.diagnostics
    assert set(told) == set(found.diagnostics)
    for name in ("gradient_norm", "zero_gradient", "iterations", "norm", "relative_norm"):
        assert torch.equal(told[name], found.diagnostics[name])
    torch.testing.assert_close(told["clean_loss"], bce(clean.double(), y.double()))
    torch.testing.assert_close(told["loss"], bce(after.double(), y.double()))
    assert torch.equal(told["already_wrong"], ~hit(clean, y))
    assert torch.equal(told["fooled"], hit(clean, y) & ~hit(after, y))
    assert told["fooled"].any()
    assert not torch.equal(told["already_wrong"], found.diagnostics["already_wrong"])


def test_on_itself_it_is_the_attack() -> None:
    net, (x, y, mask) = toy.model(), toy.batch()
    craft = partial(pgd, epsilon=0.5, steps=3)
    own, shown = craft(net, x, y, mask), transfer(net, x, y, mask, surrogate=net, attack=craft)
    torch.testing.assert_close(shown.perturbation, own.perturbation)
    torch.testing.assert_close(shown.adversarial_logits, own.adversarial_logits)
    for name, values in own.diagnostics.items():
        torch.testing.assert_close(shown.diagnostics[name], values)


def test_the_model_is_only_asked_twice_and_never_followed() -> None:
    net, surrogate = toy.model(seed=0), toy.model(seed=1)
    x, y, mask = toy.batch()
    asked: list[int] = []

    def watched(x: Tensor, mask: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        asked.append(len(x))
        return net(x, mask)

    shown = transfer(watched, x, y, mask, surrogate=surrogate, attack=partial(pgd, epsilon=0.5, steps=3))
    assert asked == [6, 6]
    assert not shown.adversarial_logits.requires_grad
    assert all(parameter.grad is None for model in (net, surrogate) for parameter in model.parameters())


def test_a_videos_result_does_not_depend_on_its_batch() -> None:
    net, surrogate = (toy.model(seed=seed, dtype=torch.float64) for seed in (0, 1))
    x, y, mask = toy.batch(dtype=torch.float64)
    together = transfer(net, x, y, mask, surrogate=surrogate, attack=CRAFT)
    for i in range(6):
        length = int(mask[i].sum())
        one = (x[i : i + 1, :length], y[i : i + 1], mask[i : i + 1, :length])
        alone = transfer(net, *one, surrogate=surrogate, attack=CRAFT)
        torch.testing.assert_close(alone.perturbation[0], together.perturbation[i, :length], atol=1e-12, rtol=0)
        torch.testing.assert_close(alone.adversarial_logits[0], together.adversarial_logits[i], atol=1e-12, rtol=0)


def test_an_answer_that_is_no_logits_is_refused_and_probabilities_are_warned_of() -> None:
    net, (x, y, mask) = toy.model(), toy.batch()
    with pytest.raises(ValueError, match="not one tensor"):
        transfer(lambda x, mask: (net(x, mask),), x, y, mask, surrogate=net, attack=CRAFT)
    with pytest.warns(UserWarning, match=r"lie in \[0, 1\]"):
        transfer(lambda x, mask: net(x, mask).sigmoid(), x, y, mask, surrogate=net, attack=CRAFT)


def test_an_answer_of_the_surrogate_that_breaks_is_no_robustness() -> None:
    """The fault it alone catches: a video that the search had no result for, and that counted as withstanding it."""
    net, (x, y, mask) = toy.model(), toy.batch()

    def broken(x: Tensor, mask: Tensor) -> Tensor:
        return torch.where((torch.arange(len(x)) == 1)[:, None], torch.nan, net(x, mask))

    for craft in (partial(square, epsilon=0.5, queries=3), partial(pgd, epsilon=0.5, steps=2)):
        shown = transfer(net, x, y, mask, surrogate=broken, attack=craft)
        assert shown.diagnostics["logits_not_finite"].tolist() == [video == 1 for video in range(6)]
