"""What a model that was made elsewhere may answer: refused, warned of, or as good as ours, by every attack."""

import copy
import threading
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from artpaper.attacks import (
    Attack,
    apgd,
    bce,
    deepfool,
    fgm,
    input_gradient,
    multilabel_deepfool,
    pgd,
    predicted_labels,
)
from tests import toy

ATTACKS: dict[str, Callable[..., Attack]] = {
    "fgm": lambda *given: fgm(*given, epsilon=0.5),
    "pgd": lambda *given: pgd(*given, epsilon=0.5, steps=3),
    "apgd": lambda *given: apgd(*given, epsilon=0.5, steps=3),
    "deepfool": deepfool,
    "multilabel_deepfool": multilabel_deepfool,
}


@pytest.fixture(params=ATTACKS.values(), ids=ATTACKS)
def attack(request: pytest.FixtureRequest) -> Callable[..., Attack]:
    return request.param


class Tagger(nn.Module):
    """PyTorch's own encoder, with PyTorch's own habit: True where a frame is padding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        dim = sum(toy.MODALITIES.values())
        layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.classify = nn.Linear(dim, toy.CLASSES)

    def forward(self, frames: Tensor, padding: Tensor) -> Tensor:
        kept = (~padding)[..., None]
        hidden = self.encoder(frames, src_key_padding_mask=padding)
        return self.classify((hidden * kept).sum(1) / kept.sum(1))


def test_a_model_without_anything_of_ours_is_attacked_through_one_line(attack) -> None:
    tagger = Tagger().eval()
    x, y, mask = toy.batch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = attack(lambda x, mask: tagger(x, ~mask), x, y, mask)
    moved = found.diagnostics["norm"] > 0
    assert moved.any()
    assert not found.perturbation[~mask].any()
    with torch.no_grad():
        torch.testing.assert_close(found.clean_logits, tagger(x, ~mask))
        torch.testing.assert_close(found.adversarial_logits, tagger(x + found.perturbation, ~mask))


def test_an_answer_that_is_no_tensor_is_refused_in_words(attack) -> None:
    model, (x, y, mask) = toy.model(), toy.batch()
    with pytest.raises(ValueError, match=r"returned a tuple, not one tensor .*model\(x, mask\)\[0\]"):
        attack(lambda x, mask: (model(x, mask), None), x, y, mask)


def test_an_answer_a_frame_is_refused_in_words(attack) -> None:
    x, y, mask = toy.batch()
    with pytest.raises(ValueError, match=r"returned \(6, 9, 24\) for 6 videos"):
        attack(lambda x, mask: x, x, y, mask)


def test_probabilities_are_warned_of_and_logits_are_not(attack) -> None:
    model, (x, y, mask) = toy.model(), toy.batch()
    with pytest.warns(UserWarning, match=r"lie in \[0, 1\]"):
        attack(lambda x, mask: model(x, mask).sigmoid(), x, y, mask)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attack(model, x, y, mask)


class Careless(Tagger):
    """Pools padding, too, which PyTorch's encoder fills with 0 where no gradient is asked for, and not where one is."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoder(self.encoder.layers[0], 1)  # with nested tensors, as by default

    def forward(self, frames: Tensor, padding: Tensor) -> Tensor:
        return self.classify(self.encoder(frames, src_key_padding_mask=padding).mean(1))


def test_an_attack_asks_one_model_whether_it_follows_a_gradient_or_not() -> None:
    """The fault it alone catches: a model that answers otherwise under no_grad was fooled by nearly nothing."""
    careless = Careless().eval()
    x, y, mask = toy.batch()
    with torch.no_grad():
        fast = careless(x, ~mask)
    assert not torch.allclose(fast, careless(x, ~mask), atol=1e-3)  # or there is nothing to be seen here
    found = pgd(lambda x, mask: careless(x, ~mask), x, y, mask, epsilon=1e-5, steps=2)
    assert (found.diagnostics["loss"] - found.diagnostics["clean_loss"]).abs().max() < 1e-5
    torch.testing.assert_close(found.clean_logits, careless(x, ~mask).detach())
    with torch.no_grad():
        assert torch.equal(careless(x, ~mask), fast)  # what was switched off is on again

    inside = [threading.Event(), threading.Event()]
    seen: list[bool] = []

    def slow(x: Tensor, mask: Tensor) -> Tensor:  # is asked in the other thread, and outlives this one's attack
        inside[0].set()
        inside[1].wait(60)
        seen.append(torch.backends.mha.get_fastpath_enabled())
        return careless(x, ~mask)

    other = threading.Thread(target=lambda: fgm(slow, x, y, mask, epsilon=0.5))
    other.start()
    inside[0].wait(60)
    fgm(lambda x, mask: careless(x, ~mask), x, y, mask, epsilon=0.5)
    inside[1].set()
    other.join()
    assert not any(seen)
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_gradient_too_steep_for_float16_is_followed_as_it_is() -> None:
    """The fault it alone catches: what is raised to be seen in float16 is infinite, and a video has no result."""
    steep = toy.Linear(24, 3).eval()
    with torch.no_grad():
        steep.weight.copy_(torch.randn(3, 24, generator=torch.Generator().manual_seed(0)) * 1e4)
    half = steep.half()
    x, mask, y = torch.full((1, 3, 24), 1e-4), torch.ones(1, 3, dtype=torch.bool), torch.tensor([[1.0, 0.0, 0.0]])
    gradient, _ = input_gradient(lambda x, mask: half(x, mask) * 8, x, y, mask, lambda logits, y: logits.sum(1) * 1e-3)
    assert gradient.isfinite().all()
    assert gradient.any()


class Sure(nn.Module):
    """Of thousands of classes, sure of nearly all: the share of one in the mean is too small for float16."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.classify = nn.Linear(24, 32), nn.Linear(32, 3000)
        with torch.no_grad():
            self.classify.bias.fill_(-7.0)[:6] = 2.0  # the true ones

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.classify(self.hidden(x).tanh().mean(1))


@pytest.mark.parametrize("autocast", [False, True])
def test_a_gradient_of_many_classes_is_not_lost_in_float16(autocast: bool) -> None:
    """The fault it alone catches: what goes back to a logit is 0 in float16, and the attack follows what is left."""
    net = Sure().eval()
    x, mask = torch.randn(2, 100, 24, generator=torch.Generator().manual_seed(0)), torch.ones(2, 100, dtype=torch.bool)
    y = (torch.arange(3000) < 6).float().expand(2, -1)
    expected, _ = input_gradient(net, x, y, mask)
    with torch.autocast("cpu", torch.float16, enabled=autocast):
        found, _ = input_gradient(net if autocast else copy.deepcopy(net).half(), x, y, mask)
    assert torch.cosine_similarity(found.flatten(1), expected.flatten(1)).min() > 0.999
    torch.testing.assert_close(found.flatten(1).norm(dim=1), expected.flatten(1).norm(dim=1), rtol=0.01, atol=0)


def test_predicted_labels_are_those_of_the_clean_video() -> None:
    """The fault it alone catches: labels that move with the video, which draw it back once one of them is crossed."""
    net, (x, y, mask) = toy.model(), toy.batch()
    with torch.no_grad():
        own = (net(x, mask) > 0).float()
    for attack, options in ((fgm, {}), (pgd, {"steps": 5})):
        found = predicted_labels(net, x, y, mask, attack=attack, epsilon=2.0, **options)
        expected = attack(net, x, own, mask, epsilon=2.0, **options)
        assert torch.equal(found.perturbation, expected.perturbation)
        assert torch.equal(found.diagnostics["loss"], bce(found.adversarial_logits.double(), y.double()))
    other = predicted_labels(net, x, 1 - y, mask, epsilon=2.0)
    assert torch.equal(other.perturbation, fgm(net, x, own, mask, epsilon=2.0).perturbation)  # truth takes no part
