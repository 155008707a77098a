"""What a model that was made elsewhere may answer: refused, warned of, or as good as ours, by every attack."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from artpaper.attacks import Attack, apgd, deepfool, fgm, multilabel_deepfool, pgd
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
