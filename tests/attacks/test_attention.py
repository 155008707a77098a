"""Attacks on the attention: the columns against the model's own scores and maps, and what raising them does."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from artpaper.attacks import Attack, AttentionColumns, apgd, attention_pgd, bce, fgm, hit, pgd
from artpaper.losses import attention_adversarial, attention_change
from artpaper.models import FrameTransformer
from artpaper.settings import Loss
from tests import toy

DOUBLE = torch.float64
OVER = ("maps", "heads", "scores")


def moved(videos: int = 6) -> tuple[FrameTransformer, Tensor, Tensor, Tensor, Tensor]:
    """A model, videos, and the same ones moved on their real frames."""
    x, y, mask = toy.batch(videos=videos, dtype=DOUBLE)
    other = torch.randn(x.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(5))
    return toy.model(dtype=DOUBLE), x, x + 0.3 * other * mask[:, :, None], y, mask


def true_scores(net: FrameTransformer, x: Tensor) -> dict[str, Tensor]:
    """Q K^T / sqrt(d) of one video without padding, written down from the weights (heads, time, time)."""
    scores = {}
    for (name, encoder), part in zip(net.encoders.items(), x.split(list(toy.MODALITIES.values()), -1), strict=True):
        query, key = encoder.query_key(encoder._embed(part[None]))[0].chunk(2, dim=-1)
        width = query.shape[-1] // net.config.heads
        heads = [(query[:, i : i + width], key[:, i : i + width]) for i in range(0, query.shape[-1], width)]
        scores[name] = torch.stack([q @ k.T / math.sqrt(width) for q, k in heads])
    return scores


def test_maps_are_the_change_of_the_training_loss() -> None:
    net, x, other, _, mask = moved()
    columns = AttentionColumns(net, x, mask)(other, mask)
    torch.testing.assert_close(columns[:, : toy.CLASSES], net(other, mask))
    clean, attacked = (net(frames, mask, return_attention=True)[1] for frames in (x, other))
    for index, name in enumerate(toy.MODALITIES):
        expected = attention_change({name: clean[name]}, attacked, Loss())
        torch.testing.assert_close(columns[:, toy.CLASSES + index].mean(), expected)


def test_heads_and_scores_are_those_of_the_model_alone_without_padding() -> None:
    net, x, other, _, mask = moved()
    found = {over: AttentionColumns(net, x, mask, over)(other, mask)[:, toy.CLASSES :] for over in OVER}
    assert (found["heads"] > found["maps"])[mask.sum(1) > 1].all()
    for i, length in enumerate(mask.sum(1).tolist()):
        clean, attacked = (true_scores(net, frames[i, :length]) for frames in (x, other))
        for index, name in enumerate(toy.MODALITIES):
            heads = (clean[name].softmax(-1) - attacked[name].softmax(-1)).norm()
            torch.testing.assert_close(found["heads"][i, index], heads)
            change = clean[name] - attacked[name]
            centred = (change - change.mean(-1, keepdim=True)).norm()
            torch.testing.assert_close(found["scores"][i, index], centred, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("over", OVER)
def test_gradients_are_those_of_finite_differences(over: str) -> None:
    net, x, other, _, mask = moved(videos=3)
    watched = AttentionColumns(net, x, mask, over)
    assert torch.autograd.gradcheck(lambda frames: watched(frames, mask), other.requires_grad_(True))


def test_scores_have_a_gradient_where_the_softmax_hides_it() -> None:
    """Sharp attention, every row's weight on one frame: the maps hardly pass a gradient on, the scores do."""
    net, x, other, _, mask = moved()
    with torch.no_grad():
        for encoder in net.encoders.values():
            encoder.query_key.weight.mul_(12.0)
    assert torch.stack([maps.amax(-1)[0].mean() for maps in net.attention_heads(x, mask).values()]).min() > 0.9
    steepness = {}
    for over in ("maps", "scores"):
        frames = (x + 1e-3 * (other - x)).requires_grad_(True)
        change = AttentionColumns(net, x, mask, over)(frames, mask)[0, toy.CLASSES :].sum()
        steepness[over] = torch.autograd.grad(change, frames)[0][0].norm()
    assert steepness["scores"] > 20 * steepness["maps"] > 0


@pytest.mark.parametrize("over", OVER)
def test_weights_that_underflow_give_no_nan(over: str) -> None:
    net = toy.model()
    x, y, mask = toy.batch()
    with torch.no_grad():
        for encoder in net.encoders.values():
            encoder.query_key.weight.mul_(100.0)
    assert any((heads[0] == 0).any() for heads in net.attention_heads(x, mask).values())
    found = attention_pgd(net, x, y, mask, epsilon=0.5, over=over, steps=3)
    assert found.perturbation.isfinite().all()
    assert (found.diagnostics["norm"] > 0).all()


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("attack", [pgd, apgd])
def test_without_weight_or_attention_it_is_the_attack_on_the_loss(attack: Callable[..., Attack], over: str) -> None:
    x, y, mask = toy.batch(dtype=DOUBLE)
    options = {"epsilon": 0.5, "steps": 5, "seed": 2}
    for net, weight in ((toy.model(dtype=DOUBLE), 0.0), (toy.model(dtype=DOUBLE, attention="uniform"), 9.0)):
        ours = attention_pgd(net, x, y, mask, weight=weight, over=over, finish=False, attack=attack, **options)
        plain = attack(net, x, y, mask, **options)
        torch.testing.assert_close(ours.perturbation, plain.perturbation, atol=1e-9, rtol=0)
        for name, values in plain.diagnostics.items():
            torch.testing.assert_close(ours.diagnostics[name], values, atol=1e-9, rtol=1e-9, msg=name)


@pytest.mark.parametrize("over", OVER)
def test_it_changes_the_attention_more_than_an_attack_on_the_loss(over: str) -> None:
    net, x, _, y, mask = moved(videos=24)
    watched = AttentionColumns(net, x, mask, over)
    one = attention_pgd(net, x, y, mask, epsilon=0.5, weight=10.0, over=over, finish=False)
    plain = pgd(net, x, y, mask, epsilon=0.5)
    change = [watched(x + found.perturbation, mask)[:, toy.CLASSES :].sum(1) for found in (one, plain)]
    longer = mask.sum(1) > 1
    assert (change[0] > change[1])[longer].all()
    assert change[0][longer].mean() > 1.2 * change[1][longer].mean()


@pytest.mark.parametrize("attack", [fgm, pgd, apgd])
def test_what_is_told_is_of_the_models_own_logits(attack: Callable[..., Attack]) -> None:
    """With scores far larger than any logit: the columns are no classes, whatever stands in them."""
    net, x, _, y, mask = moved(videos=24)
    with torch.no_grad():
        for encoder in net.encoders.values():
            encoder.query_key.weight.mul_(10.0)
    found = attention_pgd(net, x, y, mask, epsilon=3.0, weight=1.0, over="scores", finish=False, attack=attack)
    columns = AttentionColumns(net, x, mask, "scores")(x + found.perturbation, mask)
    assert (columns[:, toy.CLASSES :].amax(1) > columns[:, : toy.CLASSES].amax(1)).sum() > 12
    with torch.no_grad():
        torch.testing.assert_close(found.clean_logits, net(x, mask))
        torch.testing.assert_close(found.adversarial_logits, net(x + found.perturbation, mask))
    right, still = hit(net(x, mask), y), hit(net(x + found.perturbation, mask), y)
    assert torch.equal(found.diagnostics["fooled"], right & ~still)
    assert torch.equal(found.diagnostics["already_wrong"], ~right)
    torch.testing.assert_close(found.diagnostics["clean_loss"], bce(found.clean_logits, y))
    torch.testing.assert_close(found.diagnostics["loss"], bce(found.adversarial_logits, y))


def test_the_sum_followed_is_the_loss_and_every_modalitys_change() -> None:
    net, x, other, y, mask = moved()
    weight, start = 0.7, other - x
    frames = other.clone().requires_grad_(True)
    logits, maps = net(frames, mask, return_attention=True)
    with torch.no_grad():
        clean = net(x, mask, return_attention=True)[1]
    change = sum((maps[name] - clean[name]).square().sum((1, 2)).add(1e-30).sqrt() for name in toy.MODALITIES)
    (slope,) = torch.autograd.grad((bce(logits, y) + weight * change).sum(), frames)
    found = attention_pgd(net, x, y, mask, epsilon=100.0, weight=weight, start=start, steps=1)
    expected = (slope * mask[:, :, None]).flatten(1).norm(dim=1)
    torch.testing.assert_close(found.diagnostics["gradient_norm"], expected, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("attack", [pgd, apgd])
def test_the_second_search_begins_where_the_first_ended(attack: Callable[..., Attack]) -> None:
    net, x, _, y, mask = moved(videos=24)
    given = (net, x, y, mask)
    options = {"epsilon": 0.5, "steps": 6}
    first = attention_pgd(*given, weight=1.0, finish=False, attack=attack, **options)
    whole = attention_pgd(*given, weight=1.0, attack=attack, **options)
    again = attack(*given, start=first.perturbation, **options)
    assert torch.equal(whole.perturbation, again.perturbation)
    assert torch.equal(whole.adversarial_logits, again.adversarial_logits)
    assert (whole.diagnostics["loss"] >= first.diagnostics["loss"]).all()
    assert whole.diagnostics["loss"].mean() > first.diagnostics["loss"].mean() + 1e-3
    both = first.diagnostics["iterations"] + again.diagnostics["iterations"]
    assert torch.equal(whole.diagnostics["iterations"], both)
    assert torch.equal(whole.diagnostics["gradient_norm"], first.diagnostics["gradient_norm"])


def test_what_cannot_be_attacked_is_refused_in_words() -> None:
    net, x, _, y, mask = moved()
    with pytest.raises(
        (ValueError, TypeCheckError), match=r"maps.*heads.*scores"
    ):  # the checks of the tests may come first
        AttentionColumns(net, x, mask, over="values")
    with pytest.raises(ValueError, match="function shows no attention"):
        attention_pgd(lambda x, mask: net(x, mask), x, y, mask, epsilon=0.5)
    with pytest.raises(ValueError, match=r"asked about .* not the batch"):
        AttentionColumns(net, x, mask)(x[:3], mask[:3])


def shown(net: FrameTransformer, change: Callable[[Tensor], Any]) -> FrameTransformer:
    """The model, whose attention is shown in another way, per modality."""
    answer, heads = net.forward, net.attention_heads

    def forward(x: Tensor, mask: Tensor, return_attention: bool = False) -> Any:
        logits, maps = answer(x, mask, True)
        return (logits, {name: change(one) for name, one in maps.items()}) if return_attention else logits

    net.forward = forward
    net.attention_heads = lambda x, mask: {name: change(one) for name, one in heads(x, mask).items()}
    return net


def look(net: FrameTransformer, x: Tensor, y: Tensor, mask: Tensor, over: str) -> Any:
    if over == "loss":
        return attention_adversarial(net, x, y, mask, Loss(alpha=1.0, beta=0.1))
    return attention_pgd(net, x, y, mask, epsilon=0.5, over=over, steps=2)


ODD = {
    "one head too many": (lambda maps: maps[:, None], "needed are weights"),
    "one map for all": (lambda maps: maps.mean(dim=0), "needed are weights"),
    "no tensor": (lambda maps: maps.tolist(), "list as its attention"),
    "scores": (lambda maps: maps - 0.5, "below 0"),
    "padding looks at frames": (lambda maps: maps + 0.01, "not 0 on padding"),
}


@pytest.mark.parametrize("over", ["maps", "heads", "loss"])
@pytest.mark.parametrize("odd", ODD)
def test_attention_of_another_form_is_refused_in_words(odd: str, over: str) -> None:
    """The fault it alone catches: a term of something else, silently, such as the mean over heads of their norms."""
    change, message = ODD[odd]
    net, (x, y, mask) = shown(toy.model(), change), toy.batch()
    with pytest.raises(ValueError, match=message):
        look(net, x, y, mask, over)


@pytest.mark.parametrize("over", ["maps", "heads", "loss"])
def test_attention_without_a_gradient_is_told_of(over: str) -> None:
    """As of a recorder that detaches: the term is counted, and trains nothing. Uniform attention has none to give."""
    for net, told in (
        (shown(toy.model(), torch.detach), 1),
        (toy.model(), 0),
        (toy.model(attention="uniform"), 0),
        (toy.model(attention="position"), 0),
    ):
        x, y, mask = toy.batch()
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            look(net, x, y, mask, over)
        assert ["no gradient flows from the model's attention" in str(one.message) for one in found] == [True] * told


def test_an_answer_that_breaks_in_the_first_search_alone_is_no_robustness() -> None:
    class Once(FrameTransformer):
        asked = 0

        def forward(self, x: Tensor, mask: Tensor, return_attention: bool = False) -> Any:
            self.asked += 1
            logits, maps = super().forward(x, mask, True)
            logits = logits + torch.tensor([math.nan if self.asked == 4 else 0.0] + [0.0] * 5)[:, None]
            return (logits, maps) if return_attention else logits

    net = Once(toy.model().config, toy.MODALITIES, toy.CLASSES).eval()
    found = attention_pgd(net, *toy.batch(), epsilon=0.5, steps=2)
    assert net.asked > 7
    assert found.diagnostics["logits_not_finite"].tolist() == [True] + [False] * 5
    assert not found.diagnostics["fooled"][0]
