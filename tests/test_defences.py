"""Losses of controls, baselines and defences: against other formulas, counted passes and properties of their terms."""

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from artpaper.ball import l2_norm, project, steepest
from artpaper.defences.alignment import alignment
from artpaper.defences.consistency import bernoulli_divergence
from artpaper.defences.contrastive_attention import FLOOR, distance_to_next
from artpaper.defences.entropy import mean_entropy
from artpaper.defences.projected import projected
from artpaper.defences.relative_attention import distance_to_uniform
from artpaper.losses import adversarial, attention_adversarial, attention_change, defended, loss_for
from artpaper.settings import Control, Loss
from artpaper.shapes import Maps
from pipeline.base.parameters import Params
from tests import toy

EPSILON = 0.7
CONTROLS = {name: loss for name, loss in Params().with_controls().models.items() if isinstance(loss, Control)}


def relative_change(clean: Maps, attacked: Maps, config: Loss) -> Tensor:
    return attention_change(clean, attacked, config, distance_to_uniform)


def contrastive_change(clean: Maps, attacked: Maps, mask: Tensor, config: Loss) -> Tensor:
    return attention_change(clean, attacked, config, partial(distance_to_next, mask=mask))


def gradients(net: nn.Module, loss: Tensor) -> list[Tensor]:
    return [
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(
            net.parameters(), torch.autograd.grad(loss, list(net.parameters()), allow_unused=True), strict=True
        )
    ]


def maps_of(seed: int = 0, sharpness: float = 2.0) -> tuple[dict[str, Tensor], Tensor]:
    """Random row-stochastic maps of videos with 5, 3 and 1 real frames."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(5) < torch.tensor([5, 3, 1])[:, None]
    scores = sharpness * torch.randn(3, 5, 5, generator=generator, dtype=torch.float64)
    maps = scores.masked_fill(~mask[:, None, :], -torch.inf).softmax(dim=-1) * mask[:, :, None]
    return {"rgb": maps}, mask


def flattened(maps: dict[str, Tensor], mask: Tensor, share: float) -> dict[str, Tensor]:
    uniform = (mask[:, :, None] & mask[:, None, :]).double() / mask.sum(dim=1)[:, None, None]
    return {name: uniform + share * (value - uniform) for name, value in maps.items()}


def test_the_divergence_is_that_of_bernoulli_labels() -> None:
    reference, logits = torch.randn(2, 4, 6, dtype=torch.float64) * 5
    p, q = (torch.distributions.Bernoulli(logits=value) for value in (reference, logits))
    expected = torch.distributions.kl_divergence(p, q).mean(dim=1)
    torch.testing.assert_close(bernoulli_divergence(reference, logits), expected, rtol=1e-12, atol=1e-14)
    assert bernoulli_divergence(reference, reference).abs().max() == 0


def test_entropy_is_a_share_of_the_uniform_rows() -> None:
    maps, mask = maps_of()
    shares = []
    for video, frames in zip(maps["rgb"], (5, 3, 1), strict=True):
        rows = [scipy.stats.entropy(row[:frames].numpy()) for row in video[:frames]]
        shares.append(np.mean(rows) / np.log(frames) if frames > 1 else 0.0)
    assert mean_entropy(maps, mask).item() == pytest.approx(np.mean(shares), rel=1e-12)
    assert mean_entropy(flattened(maps, mask, 0.0), mask).item() == pytest.approx(2 / 3, rel=1e-12)


def test_flattening_gains_nothing_from_the_relative_term() -> None:
    """The point of it: A-ART's own term falls with the maps' distance to uniform, the relative one does not."""
    (clean, mask), (attacked, _) = maps_of(0), maps_of(1)
    config = Loss(beta=1.0)
    flat = flattened(clean, mask, 0.2), flattened(attacked, mask, 0.2)
    assert attention_change(*flat, config) == pytest.approx(0.2 * attention_change(clean, attacked, config).item())
    assert relative_change(*flat, config) == pytest.approx(relative_change(clean, attacked, config).item(), rel=0.01)
    share = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    term = relative_change(flattened(clean, mask, share), flattened(attacked, mask, share), config)
    (slope,) = torch.autograd.grad(term, share)  # what a training follows: through the distance too
    assert abs(slope.item()) < 0.01 * term.item()


def test_the_relative_term_is_the_change_over_the_distance_to_uniform() -> None:
    (clean, _), (attacked, _) = maps_of(0), maps_of(1)
    ratios = []
    for a, b, frames in zip(clean["rgb"], attacked["rgb"], (5, 3, 1), strict=True):
        distance = np.linalg.norm(a[:frames, :frames].numpy() - 1 / frames)
        ratios.append(np.linalg.norm((a - b).numpy()) / np.hypot(distance, 0.01))
    assert relative_change(clean, attacked, Loss(beta=1.0)).item() == pytest.approx(np.mean(ratios), rel=1e-9)
    both = {"rgb": clean["rgb"], "audio": clean["rgb"]}, {"rgb": attacked["rgb"], "audio": attacked["rgb"]}
    assert relative_change(*both, Loss(beta=1.0)).item() == pytest.approx(2 * np.mean(ratios), rel=1e-9)
    halved = relative_change(*both, Loss(beta=1.0, attention_modalities="mean"))
    assert halved.item() == pytest.approx(np.mean(ratios), rel=1e-9)


@pytest.mark.parametrize("switch", ["attention_relative", "attention_contrast"])
def test_the_papers_readings_are_those_of_a_divided_term_too(switch: str) -> None:
    """Squared, it is the ratio that is; detached, nothing of the clean maps is trained."""
    (clean, mask), (attacked, _) = maps_of(0), maps_of(1)
    one = [{"rgb": clean["rgb"][:1]}, {"rgb": attacked["rgb"][:1]}]  # one video, whose mean is itself
    term = relative_change if switch == "attention_relative" else partial(contrastive_change, mask=mask[:1])
    plain, squared = (term(*one, config=Loss(attention_squared=flag)).item() for flag in (False, True))
    assert squared == pytest.approx(plain**2, rel=1e-12)
    leaf = one[0]["rgb"].clone().requires_grad_(True)
    assert not term({"rgb": leaf}, one[1], config=Loss(attention_detach_clean=True)).requires_grad
    assert term({"rgb": leaf}, one[1], config=Loss()).requires_grad


@pytest.mark.parametrize("share", [0.0, 1e-9, 1.0])
def test_the_relative_term_has_a_gradient_everywhere(share: float) -> None:
    maps, mask = maps_of()
    clean = {"rgb": flattened(maps, mask, share)["rgb"].requires_grad_(True)}
    term = relative_change(clean, {"rgb": clean["rgb"].detach().clone()}, Loss(beta=1.0))
    term.backward()
    assert term.item() == 0
    assert clean["rgb"].grad is not None
    assert clean["rgb"].grad.isfinite().all()


def test_neither_flat_nor_position_only_maps_gain_by_the_contrastive_term() -> None:
    """The fault it alone catches: lengths or padding keep the distance large, although no map tells of its video."""
    x, _, mask = toy.batch(dtype=torch.float64)
    kept = None
    for attention in ("uniform", "position"):
        net = toy.model(attention=attention, heads=1, dtype=torch.float64)
        maps = net(x, mask, return_attention=True)[1]
        moved = {name: a + 0.01 * mask[:, :, None] * mask[:, None, :] for name, a in maps.items()}
        term = contrastive_change(maps, moved, mask, Loss()).item()
        per_video = 2 * 0.01 * mask.sum(dim=1).double() / FLOOR  # two modalities, no distance at all but the floor
        assert term == pytest.approx(per_video.mean().item(), rel=1e-6)
        kept = maps
    assert contrastive_change(kept, kept, mask, Loss()).item() == 0


def test_the_contrastive_term_is_the_change_over_the_distance_to_the_next_map() -> None:
    net = toy.model(heads=2, dtype=torch.float64)
    x, _, _ = toy.batch(videos=3, dtype=torch.float64)
    mask = torch.ones(3, 9, dtype=torch.bool)
    clean, moved = (net(frames, mask, return_attention=True)[1] for frames in (x, x + 0.1))
    expected = 0.0
    for name, maps in clean.items():
        a, b = maps.detach().numpy(), moved[name].detach().numpy()
        for video in range(3):
            distance = np.linalg.norm(a[video] - a[(video + 1) % 3])
            expected += np.linalg.norm(a[video] - b[video]) / np.hypot(distance, FLOOR) / 3
    assert contrastive_change(clean, moved, mask, Loss()).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_without_any_switch_it_is_the_papers_loss(beta: float) -> None:
    net, (x, y, mask) = toy.model(dtype=torch.float64), toy.batch(dtype=torch.float64)
    config = Control(alpha=0.8, epsilon=EPSILON, beta=beta)
    ours, parts = defended(net, x, y, mask, config)
    papers, expected = (attention_adversarial if beta else adversarial)(net, x, y, mask, config)
    assert ours.item() == pytest.approx(papers.item(), rel=1e-12)
    assert toy.numbers(parts) == pytest.approx(toy.numbers(expected), rel=1e-12)
    for a, b in zip(gradients(net, ours), gradients(net, papers), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-14)


def test_the_papers_models_and_plain_controls_take_the_fast_way() -> None:
    for name in ("uniform_art", "uniform_wide", "temperature_art", "art_wide"):
        assert loss_for(CONTROLS[name]) is adversarial, name
    assert loss_for(CONTROLS["a_art_strong"]) is attention_adversarial
    for name in ("random_att", "entropy_art", "pgd_at", "trades", "vat", "gradalign", "relative_att"):
        assert loss_for(CONTROLS[name]) is defended, name


@pytest.mark.parametrize("name", CONTROLS)
def test_a_step_costs_the_passes_it_is_said_to_cost(name: str) -> None:
    """Forward passes over all videos; GradAlign's quarter of them, twice and differentiated again, counts as one."""
    config = CONTROLS[name]
    net, (x, y, mask) = toy.model(), toy.batch(videos=8)
    videos = 0

    def count(_module: nn.Module, inputs: tuple[Any, ...], _output: Any) -> None:
        nonlocal videos
        videos += len(inputs[0])

    with net.register_forward_hook(count):
        loss_for(config)(net, x, y, mask, config)
    spent = videos / 8 + (0.5 if config.alignment else 0)
    assert spent == config.passes


@pytest.mark.parametrize("name", CONTROLS)
def test_every_control_can_be_trained_on(name: str) -> None:
    net, (x, y, mask) = toy.model(), toy.batch()
    loss, parts = loss_for(CONTROLS[name])(net, x, y, mask, CONTROLS[name])
    loss.backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in net.parameters())
    assert parts["loss"] == pytest.approx(loss.item())
    assert parts.get("perturbation_norm", 0.0) <= CONTROLS[name].epsilon * (1 + 1e-6)


def test_adversarial_training_trains_on_the_adversaries_alone() -> None:
    net, (x, y, mask) = toy.model(dtype=torch.float64), toy.batch(dtype=torch.float64)
    config = Control(alpha=1.0, epsilon=EPSILON, clean=0.0, adversary="projected", steps=3)
    loss, parts = defended(net, x, y, mask, config)
    clean = F.binary_cross_entropy_with_logits(net(x, mask), y).item()
    assert parts["cross_entropy"] == 0
    assert loss.item() == parts["adversarial"] > clean
    one = defended(net, x, y, mask, dataclasses.replace(config, steps=1))[1]
    assert parts["adversarial"] > one["adversarial"]  # three steps find more than one
    half, parts = defended(net, x, y, mask, dataclasses.replace(config, clean=0.5))
    assert parts["cross_entropy"] == pytest.approx(clean)
    assert half.item() == pytest.approx(0.5 * clean + float(parts["adversarial"]))


def test_virtual_adversaries_ask_for_no_labels_and_hold_the_clean_answer() -> None:
    net, (x, y, mask) = toy.model(dtype=torch.float64), toy.batch(dtype=torch.float64)
    config = Control(alpha=1.0, epsilon=EPSILON, adversary="virtual", consistency=True)
    torch.manual_seed(5)
    loss, parts = defended(net, x, y, mask, config)
    torch.manual_seed(5)
    _, others = defended(net, x, 1 - y, mask, config)
    assert others["adversarial"] == pytest.approx(float(parts["adversarial"]), rel=1e-12)

    # the same, written out: a random direction, one power iteration, the divergence from the clean answer held constant
    noise = torch.Generator().manual_seed(5)
    start = steepest(torch.randn(x.shape, generator=noise, dtype=x.dtype), mask, epsilon=0.1 * EPSILON)
    probe = (x + start).requires_grad_(True)
    p = net(x, mask).sigmoid().detach()

    def divergence(logits: Tensor) -> Tensor:
        bernoulli = torch.distributions.Bernoulli(probs=p), torch.distributions.Bernoulli(logits=logits)
        return torch.distributions.kl_divergence(*bernoulli).mean(dim=1)

    (direction,) = torch.autograd.grad(divergence(net(probe, mask)).sum(), probe)
    attacked = net(x + steepest(direction, mask, epsilon=EPSILON), mask)
    expected = F.binary_cross_entropy_with_logits(net(x, mask), y) + divergence(attacked).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    for a, b in zip(gradients(net, loss), gradients(net, expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-12)


def test_trades_raises_the_divergence_and_moves_the_clean_answer_too() -> None:
    net, (x, y, mask) = toy.model(dtype=torch.float64), toy.batch(dtype=torch.float64)
    config = Control(alpha=1.0, epsilon=EPSILON, adversary="projected", steps=4, consistency=True)
    torch.manual_seed(5)
    loss, parts = defended(net, x, y, mask, config)
    noise = torch.randn_like(x)
    random = x + steepest(noise, mask, epsilon=EPSILON)
    by_chance = bernoulli_divergence(net(x, mask), net(random, mask)).mean().item()
    assert parts["adversarial"] > 2 * by_chance
    held = F.binary_cross_entropy_with_logits(net(x, mask), y)
    assert loss.item() == pytest.approx(held.item() + float(parts["adversarial"]), rel=1e-12)
    torch.manual_seed(5)
    _, summed = defended(net, x, y, mask, dataclasses.replace(config, bce_reduction="sum"))
    for name in ("cross_entropy", "adversarial"):  # or alpha would weigh another thing than ART's
        assert summed[name] == pytest.approx(toy.CLASSES * float(parts[name]), rel=1e-9)
    # the clean answer is not held constant: against VAT's reading the gradient differs
    moved = gradients(net, loss)
    torch.manual_seed(5)
    still = gradients(net, defended(net, x, y, mask, dataclasses.replace(config, adversary="virtual", steps=1))[0])
    assert max((a - b).abs().max().item() for a, b in zip(moved, still, strict=True)) > 1e-6


def test_gradient_alignment_is_the_cosine_of_gradients() -> None:
    net, (x, y, mask) = toy.model(dtype=torch.float64), toy.batch(videos=8, dtype=torch.float64)
    config = Control(alpha=1.0, epsilon=3.0, alignment=2.0)
    torch.manual_seed(5)
    loss, parts = defended(net, x, y, mask, config)
    term = parts["cross_entropy"] + parts["adversarial"] + 2.0 - loss.item()  # 2 * the mean cosine
    noise = torch.Generator().manual_seed(5)
    few = x[::4]
    direction = torch.randn(few.shape, generator=noise, dtype=x.dtype)
    radius = torch.rand(len(few), 1, 1, generator=noise, dtype=x.dtype)
    far = few + radius * steepest(direction, mask[::4], epsilon=3.0)
    found = []
    for video in range(len(few)):
        sides = []
        for frames in (few, far):
            one = frames[video : video + 1].clone().requires_grad_(True)
            bce = F.binary_cross_entropy_with_logits(net(one, mask[::4][video : video + 1]), y[::4][video : video + 1])
            (gradient,) = torch.autograd.grad(bce, one)
            sides.append((gradient * mask[::4][video : video + 1, :, None]).flatten())
        found.append(F.cosine_similarity(*sides, dim=0).item())
    assert term == pytest.approx(2 * np.mean(found), rel=1e-9)
    assert np.mean(found) < 0.999  # or the test could not tell

    def leaky(frames: Tensor, mask: Tensor) -> Tensor:
        """The same answers, with a gradient on padding."""
        return net(frames, mask) + (frames * ~mask[:, :, None]).sum(dim=(1, 2))[:, None]

    given = {"epsilon": 3.0, "scope": "joint", "modalities": None}, torch.Generator().manual_seed(5)
    cosine = alignment(leaky, x, y, mask, *given, torch.get_rng_state())
    assert cosine.item() == pytest.approx(np.mean(found), rel=1e-9)

    def turned(by: float | Tensor) -> Tensor:
        """The cosine after a step of the weights; it is what is trained, so it has a gradient."""
        state = {name: values + by * steps[name] for name, values in net.state_dict().items()}
        fresh = torch.Generator().manual_seed(5)

        def answer(frames: Tensor, mask: Tensor) -> Tensor:
            return functional_call(net, state, (frames, mask))

        return alignment(answer, x, y, mask, given[0], fresh, torch.get_rng_state())

    steps = {name: torch.randn(values.shape, dtype=values.dtype) for name, values in net.state_dict().items()}
    by = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(turned(by), by)
    expected = (turned(1e-6) - turned(-1e-6)).item() / 2e-6
    assert abs(expected) > 1e-3
    assert slope.item() == pytest.approx(expected, rel=1e-4)


def test_a_random_step_stands_in_for_the_adversary_in_the_attention_term_alone() -> None:
    net, (x, y, mask) = toy.model(dtype=torch.float64), toy.batch(dtype=torch.float64)
    config = Control(alpha=1.0, epsilon=EPSILON, beta=1.0)
    _, same = defended(net, x, y, mask, config)
    _, random = defended(net, x, y, mask, dataclasses.replace(config, attention_adversary="random"))
    assert random["adversarial"] == pytest.approx(float(same["adversarial"]), rel=1e-12)
    assert 0 < random["attention"] < same["attention"]


@pytest.mark.parametrize(
    "switches",
    [
        {"beta": 1.0, "attention_relative": True},
        {"beta": 1.0, "attention_contrast": True},
        {"beta": 1.0, "attention_adversary": "random"},
        {"adversary": "projected", "consistency": True},
        {"adversary": "virtual", "consistency": True},
        {"alignment": 1.0},
    ],
)
def test_every_pass_drops_the_same_units(switches: dict[str, Any]) -> None:
    """With epsilon 0 nothing moves, so any change would be dropout's."""
    net, (x, y, mask) = toy.model(dropout=0.5), toy.batch()
    _, parts = defended(net.train(), x, y, mask, Control(alpha=1.0, epsilon=0.0, **switches))
    if "alignment" in switches:
        assert parts["loss"] == pytest.approx(2 * float(parts["cross_entropy"]), rel=1e-5)  # the cosine is 1
    else:
        assert parts["attention" if "beta" in switches else "adversarial"] == 0


def test_each_step_draws_other_noise() -> None:
    """The fault it alone catches: a search that starts from the same direction at every step of a training."""
    net, (x, y, mask) = toy.model(), toy.batch()
    config = Control(alpha=1.0, epsilon=EPSILON, adversary="projected")
    torch.manual_seed(5)
    first, second = (defended(net, x, y, mask, config)[0].item() for _ in range(2))
    assert first != second
    torch.manual_seed(5)
    again = [defended(net, x, y, mask, config)[0].item() for _ in range(2)]
    assert again == [first, second]


def test_padding_is_never_moved() -> None:
    net, (x, y, mask) = toy.model(), toy.batch()
    seen = []
    net.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].detach()))
    for config in (CONTROLS["pgd_at"], CONTROLS["trades"], CONTROLS["vat"], CONTROLS["random_att"]):
        defended(net, x, y, mask, config)
    assert all((frames[~mask] == 0).all() for frames in seen)
    assert max(l2_norm(frames - x).max().item() for frames in seen) <= CONTROLS["pgd_at"].epsilon * (1 + 1e-6)


@pytest.mark.parametrize(
    "values", [{"consistency": True}, {"clean": 0.0}, {"clean": 0.0, "adversary": "projected", "beta": 1.0}]
)
def test_switches_that_exclude_one_another_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="clean"):
        Control(alpha=1.0, **values)


def test_projected_adversaries_start_anywhere_in_the_ball() -> None:
    """Where no gradient leads away from the start: radii from 0 to epsilon, evenly."""
    net, (x, y, mask) = toy.model(dtype=torch.float64), toy.batch(videos=600, dtype=torch.float64)
    with torch.no_grad():
        net.classifier.weight.zero_()
    config = Control(alpha=1.0, epsilon=EPSILON, adversary="projected", steps=3)
    _, parts = defended(net, x, y, mask, config)
    assert parts["zero_gradients"] == len(x)
    assert parts["perturbation_norm"] == pytest.approx(EPSILON / 2, rel=0.1)


@pytest.mark.parametrize(("steps", "share"), [(1, 1.0), (2, 1.0), (10, 0.25)])
def test_projected_adversaries_take_steps_that_cross_the_ball(steps: int, share: float) -> None:
    """The fault it alone catches: steps so short that the search ends near its start, and PGD-AT trains on less."""
    x, _, mask = toy.batch(dtype=torch.float64)
    asked: list[Tensor] = []
    downhill = torch.randn_like(x)

    def slope(frames: Tensor) -> Tensor:
        asked.append(frames)
        return downhill

    ball: dict[str, Any] = {"epsilon": EPSILON, "scope": "joint", "modalities": None}
    found, _ = projected(slope, x, mask, ball, torch.Generator().manual_seed(5), steps)
    reached = asked[0] - x
    for _ in range(steps):
        reached = project(reached + share * steepest(downhill, mask, **ball), mask, **ball)
    torch.testing.assert_close(found, reached)
