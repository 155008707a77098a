"""What holds for every attack of the package, and how strong they are beside one another on trained models."""

import inspect
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from artpaper import attacks
from artpaper.attacks import Attack, apgd, attention_pgd, bce, ensemble, fgm, margin, pgd, random_direction
from artpaper.losses import loss_for
from artpaper.metrics import gap
from artpaper.models import FrameTransformer
from artpaper.settings import Loss, Model
from tests import toy

DOUBLE = torch.float64
EPSILON = 0.5
# what an attack needs beyond a model and videos, or is quicker with
NEEDS: dict[str, dict[str, Any]] = {
    "apgd": {"steps": 8},
    "attention_pgd": {"steps": 4},
    "k_frames": {"frames": 2, "steps": 5},
    "one_modality": {"steps": 5},
    "pgd": {"steps": 5, "restarts": 2},
    "square": {"queries": 30},
    "transfer": {"surrogate": toy.model(seed=1, dtype=DOUBLE), "attack": lambda *given: fgm(*given, epsilon=EPSILON)},
    "universal": {"perturbation": torch.randn(9, 24, generator=torch.Generator().manual_seed(1))},
}
# these look for the shortest way over a boundary, or show what another attack has found
WITHOUT_BALL = {"deepfool", "fmn", "multilabel_deepfool", "transfer"}


def whole_package() -> dict[str, Callable[..., Attack]]:
    """Every public function of the package that takes a model and videos and gives an Attack."""
    found = {}
    for name in attacks.__all__:
        value = getattr(attacks, name)
        if inspect.isfunction(value):
            signature = inspect.signature(value)
            if [*signature.parameters][:4] == ["model", "x", "y", "mask"] and signature.return_annotation is Attack:
                found[name] = value
    return found


PACKAGE = whole_package()


def takes(name: str, parameter: str) -> bool:
    return parameter in inspect.signature(PACKAGE[name]).parameters


def run(name: str, net: nn.Module, x: Tensor, y: Tensor, mask: Tensor, **given: Any) -> Attack:
    settings = ({"epsilon": EPSILON} if takes(name, "epsilon") else {}) | NEEDS.get(name, {}) | given
    return PACKAGE[name](net, x, y, mask, **settings)


@pytest.fixture(params=PACKAGE)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


class Leaky(FrameTransformer):
    """A model that looks at padding."""

    def forward(self, x: Tensor, mask: Tensor, return_attention: bool = False) -> Any:
        answer = super().forward(x, mask, return_attention)
        leak = (x * ~mask[:, :, None]).sum((1, 2))[:, None]
        return (answer[0] + leak * torch.arange(self.classes), answer[1]) if return_attention else answer + leak


def test_the_package_is_found() -> None:
    assert {"fgm", "random_direction", "pgd", "apgd", "deepfool", "k_frames", "universal", "attention_pgd"} <= set(
        PACKAGE
    )


def test_padding_is_never_moved(name: str) -> None:
    torch.manual_seed(0)
    net = Leaky(Model(heads=4, dropout=0.0), toy.MODALITIES, toy.CLASSES).to(DOUBLE).eval()
    x, y, mask = toy.batch(dtype=DOUBLE)
    found = run(name, net, x, y, mask)
    assert (found.perturbation[~mask] == 0).all()
    assert found.perturbation[mask].abs().max() > 0


def test_the_perturbation_is_inside_its_ball(name: str) -> None:
    if not takes(name, "epsilon"):
        assert (
            "foo" in name or name == "fmn" or name == "transfer"
        )  # a minimum is looked for, or another's ball is used
        return
    net = toy.model()
    x, y, mask = toy.batch(videos=16)
    for epsilon in (1e-3, EPSILON, 30.0):
        norms = run(name, net, x, y, mask, epsilon=epsilon).perturbation.double().flatten(1).norm(dim=1)
        assert (norms <= epsilon * (1 + 1e-6)).all()
        assert (norms > 0.1 * epsilon).sum() > 8
    still = run(name, net, x, y, mask, epsilon=0.0)
    assert (still.perturbation == 0).all()
    torch.testing.assert_close(still.adversarial_logits, still.clean_logits)


def test_a_videos_result_does_not_depend_on_its_batch(name: str) -> None:
    net = toy.model(dtype=DOUBLE)
    x, y, mask = toy.batch(videos=8, dtype=DOUBLE)
    together = run(name, net, x, y, mask)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    shuffled = run(name, net, x[order], y[order], mask[order])
    torch.testing.assert_close(shuffled.perturbation, together.perturbation[order], atol=1e-7, rtol=0)
    for i in range(0, 8, 3):
        length = int(mask[i].sum())  # also without the padding its neighbours need
        alone = run(name, net, x[i : i + 1, :length], y[i : i + 1], mask[i : i + 1, :length])
        torch.testing.assert_close(alone.perturbation[0], together.perturbation[i, :length], atol=1e-7, rtol=0)


def test_a_seed_gives_the_same_again_and_another_something_else(name: str) -> None:
    net = toy.model(dtype=DOUBLE)
    x, y, mask = toy.batch(dtype=DOUBLE)
    first, again = run(name, net, x, y, mask), run(name, net, x, y, mask)
    assert torch.equal(first.perturbation, again.perturbation)
    if takes(name, "seed"):
        assert not torch.equal(first.perturbation, run(name, net, x, y, mask, seed=1).perturbation)


def test_nothing_but_the_result_is_changed(name: str) -> None:
    net = toy.model(dtype=DOUBLE)
    x, y, mask = given = toy.batch(dtype=DOUBLE)
    before = [tensor.clone() for tensor in given]
    state = torch.random.get_rng_state()
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    run(name, net, x, y, mask)
    assert all(torch.equal(old, new) for old, new in zip(before, given, strict=True))
    assert not x.requires_grad
    assert all(torch.equal(parameter.grad, torch.ones_like(parameter)) for parameter in net.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_is_told_is_true(name: str) -> None:
    net = toy.model(dtype=DOUBLE)
    x, y, mask = toy.batch(dtype=DOUBLE)
    found = run(name, net, x, y, mask)
    with torch.no_grad():
        torch.testing.assert_close(found.clean_logits, net(x, mask))
        torch.testing.assert_close(found.adversarial_logits, net(x + found.perturbation, mask))
    norm = found.perturbation.flatten(1).norm(dim=1)
    torch.testing.assert_close(found.diagnostics["norm"], norm)
    torch.testing.assert_close(found.diagnostics["relative_norm"], norm / x.flatten(1).norm(dim=1))
    if takes(name, "epsilon"):  # those that look for a shortest way raise no loss
        torch.testing.assert_close(found.diagnostics["clean_loss"], bce(found.clean_logits, y))
        torch.testing.assert_close(found.diagnostics["loss"], bce(found.adversarial_logits, y))
    assert all(not values.requires_grad and len(values) == 6 for values in found.diagnostics.values())


# How strong the attacks are, on models that have learned something

CLASSES = 40
RADIUS = 3.0
DEFENCES = {
    "undefended": (Loss(), "softmax"),
    "adversarial": (Loss(alpha=1.0, beta=0.1, epsilon=RADIUS), "softmax"),
    "uniform": (Loss(), "uniform"),
}


def videos(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy videos, every frame of which points along the directions of its one or two labels of forty."""
    noise, _, mask = toy.batch(videos=count, seed=seed)
    directions = torch.randn(CLASSES, noise.shape[2], generator=torch.Generator().manual_seed(0))
    directions = 4 * directions / directions.norm(dim=1, keepdim=True)
    chosen = torch.randint(CLASSES, (count, 2), generator=torch.Generator().manual_seed(seed))
    y = torch.zeros(count, CLASSES).scatter(1, chosen, 1.0)
    return (noise + (y @ directions)[:, None]) * mask[:, :, None], y, mask


@pytest.fixture(scope="module", params=DEFENCES)
def learned(request: pytest.FixtureRequest) -> nn.Module:
    """A small model, trained under one of the losses."""
    config, attention = DEFENCES[request.param]
    torch.manual_seed(0)
    net = FrameTransformer(Model(heads=4, dropout=0.0, attention=attention), toy.MODALITIES, CLASSES)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for step in range(120):
        optimizer.zero_grad()
        loss_for(config)(net, *videos(128, seed=step), config)[0].backward()
        optimizer.step()
    return net.eval()


def members(net: nn.Module, x: Tensor, y: Tensor, mask: Tensor, epsilon: float) -> dict[str, Attack]:
    given = (net, x, y, mask)
    return {
        "clean": random_direction(*given, epsilon=0.0),
        "random": random_direction(*given, epsilon=epsilon),
        "one_step": fgm(*given, epsilon=epsilon),
        "pgd": pgd(*given, epsilon=epsilon, steps=20),
        "apgd": apgd(*given, epsilon=epsilon, steps=20),
        "apgd_margin": apgd(*given, epsilon=epsilon, steps=20, objective=margin),
        "attention": attention_pgd(*given, epsilon=epsilon, steps=20),
        "scores": attention_pgd(*given, epsilon=epsilon, weight=0.01, over="scores", steps=20),
    }


def test_stronger_attacks_raise_the_loss_more(learned: nn.Module) -> None:
    x, y, mask = videos(96, seed=1000)
    every = members(learned, x, y, mask, RADIUS)
    worst, names = ensemble(every, y)
    losses = {name: one.diagnostics["loss"] for name, one in every.items()} | {"ensemble": worst.diagnostics["loss"]}
    for name, loss in losses.items():
        assert (losses["ensemble"] >= loss).all(), name
    mean = [losses[name].mean().item() for name in ("clean", "random", "one_step", "pgd", "ensemble")]
    assert all(higher > 1.001 * lower for lower, higher in itertools.pairwise(mean)), mean
    assert not {"clean", "random", "one_step"} & set(names)
    assert len(set(names)) > 1  # no attack is the worst for every video
    assert (worst.diagnostics["norm"] <= RADIUS * (1 + 1e-6)).all()
    clean, attacked = (gap(one.adversarial_logits, y) for one in (every["clean"], worst))
    assert clean > 0.65  # the model has learned, so there is something to lose
    assert attacked < 0.75 * clean


def test_nothing_withstands_a_ball_without_bounds(learned: nn.Module) -> None:
    x, y, mask = videos(96, seed=1000)
    worst, _ = ensemble(members(learned, x, y, mask, epsilon=100.0), y)
    assert gap(worst.adversarial_logits, y) < 0.02
