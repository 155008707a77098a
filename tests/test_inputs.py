"""The entry that attacks share with the losses and the checks: what it does for these two."""

import copy
import math
import warnings
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from artpaper.attacks import fit_universal
from artpaper.checks import RobustnessWarning, check_model
from artpaper.losses import COUNTED, PARTS, attention_change, loss_for
from artpaper.settings import Control, Loss
from tests import toy
from tests.attacks.test_entry import MASK, PLACES, Unit, X, Y

LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(),
    "adversarial": Loss(alpha=1.0, epsilon=0.5),
    "attention_adversarial": Loss(alpha=1.0, beta=0.1, epsilon=0.5),
    "defended": Control(alpha=1.0, epsilon=0.5, adversary="projected", consistency=True, alignment=0.1),
}


@pytest.fixture(params=LOSSES)
def config(request: pytest.FixtureRequest) -> Loss:
    return LOSSES[request.param]


def value(net: nn.Module, config: Loss, *given: Any) -> Tensor:
    torch.manual_seed(1)
    return loss_for(config)(net, *given, config)[0]


def test_a_loss_takes_what_attacks_take(config: Loss) -> None:
    net = toy.model().train()
    x, y, mask = toy.batch()
    expected = value(net, config, x, y, mask)
    expected.backward()
    slopes = [parameter.grad for parameter in net.parameters()]
    for y_type in Y:
        torch.testing.assert_close(value(net, config, x, y.to(y_type), mask), expected)
    for mask_type in MASK:
        torch.testing.assert_close(value(net, config, x, y, mask.to(mask_type)), expected)
    for x_type in X:
        torch.testing.assert_close(
            value(net, config, x.to(x_type), y, mask).float(), expected, rtol=16 * torch.finfo(x_type).eps, atol=1e-5
        )
    for place in PLACES.values():
        with place():
            found = value(net, config, x.clone(), y.clone(), mask.clone())
        torch.testing.assert_close(found, expected)
        assert found.requires_grad == (place is nullcontext)  # a number where no gradients are wanted
    assert all(new.grad is old for new, old in zip(net.parameters(), slopes, strict=True))
    assert not x.requires_grad


def test_a_loss_refuses_what_attacks_refuse(config: Loss) -> None:
    x, y, mask = toy.batch()
    net, one = toy.model(), torch.ones((), requires_grad=True)
    for message, given in (
        ("x of video 0 .*nan", (x * math.nan, y, mask)),
        ("y of video . .*holds -1", (x, 2 * y - 1, mask)),
        ("12 classes, y has 11", (x, y[:, :11], mask)),
        ("mask .*does not fit", (x, y, mask[:, 1:])),
        ("y is None", (x, None, mask)),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            value(net, config, *given)
    for message, given in (("x has none", (x[:0], y[:0], mask[:0])), ("x requires a gradient", (x * one, y, mask))):
        with pytest.raises(ValueError, match=message):
            value(net, config, *given)
    with torch.no_grad():  # where none is asked for
        assert value(net, config, x * one, y, mask).isfinite()
    with pytest.raises(TypeError, match=r"a loss trains a torch\.nn\.Module, not a function"):
        value(lambda x, mask: net(x, mask), config, x, y, mask)
    if config.beta or isinstance(config, Control):
        with pytest.raises(ValueError, match="shows no attention"):
            value(toy.Linear(24, toy.CLASSES), config, x, y, mask)


def test_a_training_step_moves_the_model_as_it_should() -> None:
    """Unlike an attack: no warning of train mode, running statistics move, and so do the random numbers."""
    net = nn.Sequential()  # an empty shell with a forward of its own
    net.inner, net.norm = toy.model(), nn.BatchNorm1d(toy.CLASSES)
    net.drop = nn.Dropout(0.5)

    def forward(x: Tensor, mask: Tensor) -> Tensor:
        return net.drop(net.norm(net.inner(x, mask)))

    net.forward = forward
    net.train()
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value(net, Loss(), *toy.batch())
    assert net.norm.num_batches_tracked == 1
    assert not torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", ["adversarial", "attention_adversarial", "defended"])
def test_a_gradient_that_is_not_finite_is_counted(name: str) -> None:
    """Of padding it is nothing: ||R|| was NaN for it. Of a real frame it moves nothing, and is counted."""
    net = Unit()
    x, y, mask = toy.batch(videos=8)
    config = LOSSES[name]
    _, parts = loss_for(config)(net, x, y, mask, config)
    assert parts["gradients_not_finite"] == 0
    if name != "defended":  # whose last step may end inside
        assert parts["perturbation_norm"] == pytest.approx(0.5)
    assert math.isfinite(parts["perturbation_norm"])
    assert {*COUNTED} <= parts.keys() <= {*PARTS}
    if name != "defended":  # which begins at a random point, where no frame is 0
        mask[2, :3], x[2, 1] = True, 0.0
        _, parts = loss_for(config)(net, x, y, mask, config)
        assert parts["gradients_not_finite"] == 1
        assert parts["perturbation_norm"] == pytest.approx(0.5 * 7 / 8)


def test_the_checks_take_what_attacks_take() -> None:
    net = toy.model()
    x, y, mask = toy.batch(videos=12)
    few = {"epsilon": 0.5, "steps": 3, "queries": 5, "progress": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RobustnessWarning)
        plain = check_model(net, x, y, mask, **few)
        before = copy.deepcopy(net.state_dict())
        for place in PLACES.values():
            with place():
                again = check_model(net, x.clone(), y.bool(), mask.long(), **few)
            assert [vars(one) for one in again] == [vars(one) for one in plain]
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    for bad in (
        {"epsilon": math.nan},
        {"epsilon": 0.0},
        {"scope": "video"},
        {"steps": 0},
        {"batch_size": 0},
        {"seed": -1},
    ):
        with pytest.raises(ValueError, match=next(iter(bad))):
            check_model(net, x, y, mask, **few | bad)
    with pytest.warns(UserWarning, match="FrameTransformer is in train mode"):
        check_model(toy.model().train(), x, y, mask, **few)


def test_a_check_trips_on_a_gradient_that_is_not_finite() -> None:
    net = Unit().eval()
    x, y, mask = toy.batch(videos=12)
    few = {"epsilon": 0.5, "steps": 3, "queries": 5, "progress": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RobustnessWarning)
        fine = {one.check: one for one in check_model(net, x, y, mask, **few)}
    assert not fine["gradient_not_finite"].tripped
    mask[2, :3], x[2, 1] = True, 0.0
    with pytest.warns(RobustnessWarning, match=r"gradient_not_finite: .*docs/checks/gradient_not_finite\.md"):
        tripped = {one.check: one for one in check_model(net, x, y, mask, **few)}["gradient_not_finite"]
    assert tripped.value == pytest.approx(1 / 12)


def test_a_universal_perturbation_leaves_out_what_has_no_gradient() -> None:
    net = Unit().eval()
    x, y, mask = toy.batch(videos=8)
    kept = fit_universal(net, [(x, y, mask)], epsilon=0.5, passes=1)
    mask[2, :3], x[2, 1] = True, 0.0
    others = torch.arange(8) != 2
    with pytest.warns(UserWarning, match="left out of the universal perturbation: 1"):
        found = fit_universal(net, [(x, y, mask)], epsilon=0.5, passes=1)
    assert found.isfinite().all()
    assert not torch.equal(found, kept)
    torch.testing.assert_close(found, fit_universal(net, [(x[others], y[others], mask[others])], epsilon=0.5, passes=1))
    with pytest.raises(ValueError, match="epsilon"):
        fit_universal(net, [(x, y, mask)], epsilon=math.nan)


def test_the_attention_term_is_of_maps_averaged_over_heads() -> None:
    """The fault it alone catches: maps by head were averaged after their norms; here, where no shapes are checked."""
    clean, attacked = ({"rgb": torch.zeros(2, 3, 3)} for _ in range(2))
    heads = {name: maps[:, None].expand(-1, 8, -1, -1) for name, maps in clean.items()}
    for first, second in ((heads, heads), (clean, {name: maps[:1] for name, maps in attacked.items()})):
        with pytest.raises(ValueError, match=r"needed are two \(batch, time, time\), the mean over heads"):
            attention_change(first, second, Loss())
