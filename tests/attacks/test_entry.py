"""What goes into an attack: of any type, mode and place that means the same, or refused; nothing of the caller's moves.

Every attack of the package is tried, and one of ten lines that was written here: it gets all of this for nothing.
"""

import functools
import inspect
import itertools
import math
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from artpaper.attacks import Adapter, Attack, Scope, bce, checked, fgm, input_gradient, pgd, steepest
from artpaper.attacks.result import attack_result
from artpaper.models import FrameTransformer
from artpaper.settings import Model, NonNegative
from tests import toy
from tests.attacks.test_ordering import NEEDS, PACKAGE


@checked
def nudge(model, x, y, mask, *, epsilon: NonNegative, scope: Scope = "joint", modalities=None) -> Attack:
    """Ten lines: what somebody would write who adds an attack."""
    gradient, logits = input_gradient(model, x, y, mask)
    step = steepest(gradient.sign(), mask, epsilon=epsilon, scope=scope, modalities=modalities)
    return attack_result(model, x, y, mask, step, logits, gradient=gradient, iterations=1)


EVERY: dict[str, Callable[..., Attack]] = PACKAGE | {"nudge": nudge}
WITHOUT_RADIUS = {"deepfool", "fmn", "multilabel_deepfool", "transfer"}
SHORT = {"pgd": {"steps": 2, "restarts": 1}, "apgd": {"steps": 3}, "attention_pgd": {"steps": 2}}
SHORT |= {"deepfool": {"steps": 2, "candidates": 2}, "fmn": {"steps": 3}, "multilabel_deepfool": {"steps": 1}}
SHORT |= {"square": {"queries": 3}}
SHORT |= {"k_frames": {"steps": 2}, "one_modality": {"steps": 2}}
SHORT |= {"transfer": {"surrogate": toy.model(seed=1), "attack": lambda *given: fgm(*given, epsilon=0.5)}}


def run(name: str, net: Any, x: Any, y: Any, mask: Any, **options: Any) -> Attack:
    radius = {} if name in WITHOUT_RADIUS else {"epsilon": 0.5}
    return EVERY[name](net, x, y, mask, **radius | NEEDS.get(name, {}) | SHORT.get(name, {}) | options)


@pytest.fixture(params=EVERY)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


class Rude(FrameTransformer):
    """Drops units, keeps a running mean in any mode, has a frozen part, and writes into what it is given."""

    def __init__(self) -> None:
        super().__init__(Model(heads=4, dropout=0.5), toy.MODALITIES, toy.CLASSES)
        self.register_buffer("mean", torch.zeros(()))
        self.classifier.requires_grad_(False)

    def forward(self, x: Tensor, mask: Tensor, return_attention: bool = False) -> Any:
        x.mul_(2.0)
        self.mean.mul_(0.9).add_(0.1 * x.detach().mean())
        answer = super().forward(x, mask.clone(), return_attention)
        mask.zero_()
        return answer


X = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
Y = (torch.float32, torch.bool, torch.int64, torch.uint8, torch.float16, torch.float64)
MASK = (torch.bool, torch.int64, torch.uint8, torch.float32)
PLACES = {"plain": nullcontext, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}
COMBINATIONS = [*itertools.product(X, Y, MASK, PLACES, (False, True))]


@contextmanager
def unmoved(net: nn.Module, *given: Tensor) -> Iterator[None]:
    """Fails where anything of the caller's is another afterwards."""
    before = [tensor.clone() for tensor in given]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    wanted = [parameter.requires_grad for parameter in net.parameters()]
    draws = torch.get_rng_state()
    yield
    assert all(torch.equal(old, new) and old.dtype == new.dtype for old, new in zip(before, given, strict=True))
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
    assert modes == [module.training for module in net.modules()]
    assert wanted == [parameter.requires_grad for parameter in net.parameters()]
    assert all((parameter.grad == 3).all() for parameter in net.parameters() if parameter.requires_grad)
    assert torch.equal(draws, torch.get_rng_state())


def test_any_type_mode_and_place_gives_the_same(name: str) -> None:
    """The one to catch a conversion, a mode or a grad context that an attack forgets. All 576 combinations are tried,
    each on one attack; every type, place and mode on each attack."""
    torch.manual_seed(0)
    net = Rude()
    for parameter in net.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, 3.0)
    x, y, mask = toy.batch(videos=4, time=5)
    shuffled = np.random.default_rng(0).permutation(len(COMBINATIONS))
    chosen = shuffled[[*EVERY].index(name) :: len(EVERY)]
    for values, place in zip((X, Y, MASK, PLACES, (False, True)), range(5), strict=True):
        assert {COMBINATIONS[index][place] for index in chosen} == set(values)
    expected: dict[tuple[torch.dtype, bool], Attack] = {}
    for index in chosen:
        x_type, y_type, mask_type, place, training = COMBINATIONS[index]
        net.train(training)
        if (x_type, training) not in expected:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                wide = torch.float64 if x_type == torch.float64 else torch.float32
                expected[x_type, training] = run(name, net, x.to(x_type).to(wide), y, mask)
        with PLACES[place](), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            given = x.to(x_type), y.to(y_type), mask.to(mask_type)
            assert given[0].is_inference() == (place == "inference_mode" and x_type != torch.float32)
            with unmoved(net, *given):
                result = run(name, net, *given)
        assert [str(one.message).partition(" is in train mode")[0] for one in told] == ["Rude"] * training
        assert all(one.filename == __file__ for one in told)  # the warning points at the caller's line
        same = expected[x_type, training]
        assert torch.equal(result.perturbation, same.perturbation), COMBINATIONS[index]
        assert torch.equal(result.adversarial_logits, same.adversarial_logits)
        assert result.perturbation.requires_grad is False


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_of_another_type_is_asked_in_its_own(dtype: torch.dtype) -> None:
    x, y, mask = toy.batch()
    plain = fgm(toy.model(), x, y, mask, epsilon=0.5)
    other = fgm(toy.model().to(dtype), x, y, mask, epsilon=0.5)
    along = (plain.perturbation * other.perturbation).sum((1, 2)) / 0.25
    assert (along > 1 - 8 * torch.finfo(dtype).eps - 1e-6).all()
    torch.testing.assert_close(other.diagnostics["norm"], torch.full((6,), 0.5).double())


# gradients that are not finite


class Unit(nn.Module):
    """Divides frames by their norm and masks afterwards: of a frame of zeros the gradient is NaN, the answer is not."""

    modalities = toy.MODALITIES

    def __init__(self) -> None:
        super().__init__()
        self.inner = toy.model()

    def forward(self, x: Tensor, mask: Tensor, return_attention: bool = False) -> Any:
        return self.inner(self._unit(x, mask), mask, return_attention)

    def attention_heads(self, x: Tensor, mask: Tensor) -> Any:
        return self.inner.attention_heads(self._unit(x, mask), mask)

    def _unit(self, x: Tensor, mask: Tensor) -> Tensor:
        unit = torch.where(x == 0, 0.0, x / x.norm(dim=-1, keepdim=True))
        return torch.where(mask[:, :, None], unit, 0.0)


def test_padding_without_a_gradient_does_not_shorten_the_step() -> None:
    """NaN times 0 is NaN: a step that multiplied by the mask was G, not G / ||G||, for every padded video."""
    net = Unit().eval()
    x, y, mask = toy.batch(videos=8)
    ours = fgm(net, x, y, mask, epsilon=0.5)
    torch.testing.assert_close(ours.diagnostics["norm"], torch.full((8,), 0.5).double())
    one = pgd(net, x, y, mask, epsilon=0.5, steps=1, step_size=0.5, random_start=False, keep="last")
    torch.testing.assert_close(ours.perturbation, one.perturbation)
    assert not ours.diagnostics["gradient_not_finite"].any()


FOLLOWERS = sorted(set(EVERY) - {"square", "random_direction", "universal"})


@pytest.mark.parametrize("name", FOLLOWERS)
def test_a_real_frame_without_a_gradient_is_flagged_and_nothing_else(name: str) -> None:
    net = Unit().eval()
    x, y, mask = toy.batch(videos=8)
    mask[2, :3], x[2, 1] = True, 0.0
    start = {"random_start": False} if name in ("pgd", "apgd", "attention_pgd", "k_frames", "one_modality") else {}
    if name == "transfer":
        start = {"surrogate": net}
    result = run(name, net, x, y, mask, **start)
    rows = result.diagnostics
    assert rows["gradient_not_finite"].tolist() == [video == 2 for video in range(8)]
    assert (result.perturbation[2] == 0).all()
    assert [rows[key][2].item() for key in ("norm", "fooled", "zero_gradient")] == [0.0, False, False]
    assert rows["gradient_norm"][2].isnan()
    assert torch.equal(result.adversarial_logits[2], result.clean_logits[2])
    assert (rows["norm"] > 0).sum() > 3


def test_an_answer_that_is_not_finite_is_flagged(name: str) -> None:
    class Broken(FrameTransformer):
        def forward(self, x: Tensor, mask: Tensor, return_attention: bool = False) -> Any:
            answer = super().forward(x, mask, return_attention)
            broken = torch.where((x[:, 0, 0] > 5.0)[:, None], torch.nan, 0.0)
            return (answer[0] + broken, answer[1]) if return_attention else answer + broken

    net = Broken(Model(heads=4, dropout=0.0), toy.MODALITIES, toy.CLASSES).eval()
    x, y, mask = toy.batch()
    x[1, 0, 0] = 100.0
    rows = run(name, net, x, y, mask).diagnostics
    assert rows["logits_not_finite"].tolist() == [video == 1 for video in range(6)]
    assert not rows["fooled"][1]


def test_a_video_without_frames_is_defined_and_flagged(name: str) -> None:
    x, y, mask = toy.batch()
    mask[3] = False
    result = run(name, toy.model(), x, y, mask)
    assert result.diagnostics["no_frames"].tolist() == [video == 3 for video in range(6)]
    assert (result.perturbation[3] == 0).all()
    assert result.diagnostics["norm"][3] == 0
    assert not result.diagnostics["fooled"][3]
    assert all(values[3].isfinite() for key, values in result.diagnostics.items() if "loss" in key)


# what is refused


BAD_NUMBERS = (math.nan, math.inf, -1.0, -1, "1", None, 1e300, 1e-300)
BAD_COUNTS = (0, -1, 1.5, "3", True, math.nan, None)
BAD: dict[str, tuple[Any, ...]] = {
    "epsilon": BAD_NUMBERS,
    "step_size": BAD_NUMBERS[:5],
    "steps": BAD_COUNTS,
    "restarts": BAD_COUNTS,
    "queries": BAD_COUNTS,
    "frames": (*BAD_COUNTS[:2], "3", math.nan, None),
    "features": (0.0, 1.1, -0.1, math.nan, "1"),
    "candidates": (1, *BAD_COUNTS),
    "overshoot": BAD_NUMBERS[:5],
    "memory": (0, *BAD_NUMBERS[:5]),
    "gamma": (0.0, 1.0, math.nan, -0.1),
    "weight": BAD_NUMBERS[:5],
    "seed": (-1, 0.5, "0", None),
    "scope": ("video", "Joint", None, 1),
    "norm": ("L2", "l1", None, 2),
    "keep": ("worst", None),
    "criterion": ("top1", None),
    "outputs": ("probabilities", None),
    "over": ("map", None),
    "modality": ("sound", None),
    "modalities": ({"rgb": 23}, {"rgb": 24.0}, {"rgb": 30, "audio": -6}, [16, 8], {"rgb": 24, "audio": 0}),
    "objective": (lambda logits, y: logits, lambda logits, y: 1.0, lambda logits, y: logits.sum()),
    "start": (torch.zeros(6, 9, 23), torch.full((6, 9, 24), math.nan), 0.0),
    "movable": (torch.full((6, 9, 24), 2), torch.ones(6, 8, 1), torch.ones(9, 24)),
    "target": (torch.ones(6, 11), -torch.ones(6, 12)),
    "perturbation": (torch.ones(9, 23), torch.full((9, 24), math.nan)),
}


def test_options_that_mean_nothing_are_refused(name: str) -> None:
    """NaN passed every comparison: a projection into a ball of radius NaN answered "nothing fooled"."""
    signature = EVERY[name].__wrapped__.__annotations__  # type: ignore[attr-defined]
    tried = 0
    for option in signature.keys() & BAD.keys():
        for value in BAD[option]:
            with pytest.raises((ValueError, TypeError), match=option if option != "frames" else "frames|k"):
                run(name, toy.model(), *toy.batch(), **{option: value})
            tried += 1
    assert tried >= 4 or name == "transfer"


def test_what_cannot_be_meant_is_refused(name: str) -> None:
    x, y, mask = toy.batch()
    net = toy.model()
    holed = x.clone()
    holed[2, 0, 3] = math.nan
    bad: list[tuple[str, tuple[Any, ...]]] = [
        ("x of video 2 .*nan.* frame 0, feature 3", (holed, y, mask)),
        ("x is of torch.int64", (x.long(), y, mask)),
        ("x is of torch.uint8", (x.to(torch.uint8), y, mask)),
        ("x must be a dense tensor of real numbers", (x.to(torch.complex64), y, mask)),
        ("x must be a dense tensor", (x.to_sparse(), y, mask)),
        ("x is a ndarray", (x.numpy(), y, mask)),
        ("x is a list", (x.tolist(), y, mask)),
        ("x has the shape", (x[0], y, mask)),
        ("x has the shape", (x[:, :0], y, mask[:, :0])),
        ("y of video . .*holds -1", (x, 2 * y - 1, mask)),
        ("y of video . .*holds 3", (x, 3 * y.long(), mask)),
        ("y of video . .*holds 0.9", (x, 0.9 * y.double(), mask)),
        ("y of video . .*holds nan", (x, y * math.nan, mask)),
        ("y has the shape .*one_hot", (x, torch.zeros(6), mask)),
        ("y has the shape", (x, y[:5], mask)),
        ("y is a list", (x, y.tolist(), mask)),
        ("12 classes, y has 11", (x, y[:, :11], mask)),
        ("mask of video . .*holds 2", (x, y, mask.long() * 2)),
        ("mask of video . .*holds 0.5", (x, y, mask * 0.5)),
        ("mask .*does not fit frames", (x, y, mask[:, :8])),
        ("mask .*does not fit frames", (x, y, mask[:, :, None])),
        ("mask is a NoneType", (x, y, None)),
        ("x must be a dense tensor", (x.to("meta"), y, mask)),
    ]
    for message, given in bad:
        with pytest.raises((ValueError, TypeError), match=message):
            run(name, net, *given)
    with pytest.raises(TypeError, match="the model is a str"):
        run(name, "net", x, y, mask)
    with torch.inference_mode():
        born_there = toy.model()
    if name != "transfer":  # whose model is asked only
        with pytest.raises(ValueError, match=r"made under torch\.inference_mode"):
            run(name, born_there, x, y, mask)
    with pytest.raises(ValueError, match=r"the model is on meta, x on cpu"):
        run(name, toy.model().to("meta"), x, y, mask)


def test_a_model_that_lets_no_gradient_through_is_refused() -> None:
    x, y, mask = toy.batch()
    with pytest.raises(ValueError, match="no gradient can flow"):
        fgm(lambda x, mask: toy.model()(x.detach(), mask).detach(), x, y, mask, epsilon=0.5)


@pytest.mark.parametrize("name", ["deepfool", "fmn", "multilabel_deepfool"])
def test_label_sets_are_needed_where_they_are_used_alone(name: str) -> None:
    x, y, mask = toy.batch()
    free = {"target": torch.zeros_like(y)} if name == "multilabel_deepfool" else {"criterion": "top1_change"}
    without, beside = (run(name, toy.model(), x, sets, mask, **free) for sets in (None, y))
    assert torch.equal(without.perturbation, beside.perturbation)
    with pytest.raises(TypeError, match="y is None"):
        run(name, toy.model(), x, None, mask, **({} if "target" in free else {"criterion": "hit1_loss"}))


@pytest.mark.parametrize("name", sorted(set(EVERY) - {"deepfool", "fmn", "multilabel_deepfool"}))
def test_label_sets_are_asked_for(name: str) -> None:
    x, _, mask = toy.batch()
    with pytest.raises(TypeError, match="y is None"):
        run(name, toy.model(), x, None, mask)


# models that were made elsewhere


class Recurrent(nn.Module):
    """Takes lengths, packs its sequences, returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(24, 12, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        hidden, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return {"logits": hidden.sum(1) / lengths[:, None], "hidden": hidden}


class Torch(nn.Module):
    """PyTorch's encoder, True where a frame is padding, returns an object with ``logits``."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(24, 4, 48, dropout=0.1, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 1), nn.Linear(24, 12)

    def forward(self, x: Tensor, src_key_padding_mask: Tensor) -> Any:
        hidden = self.encoder(x, src_key_padding_mask=src_key_padding_mask)
        kept = ~src_key_padding_mask[:, : hidden.shape[1], None]
        return type("Output", (), {"logits": self.head((hidden * kept).sum(1) / kept.sum(1))})()


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = toy.model()

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, None]:
        return self.inner(x, mask), None


ELSEWHERE: dict[str, tuple[type[nn.Module], Callable[..., Tensor], str]] = {
    "lengths, packed": (Recurrent, lambda model, x, mask: model(x, mask.sum(dim=1))["logits"], r"a dict.*\['logits'\]"),
    "padding mask": (Torch, lambda model, x, mask: model(x, src_key_padding_mask=~mask).logits, r"a Output.*\.logits"),
    "tuple": (Pair, lambda model, x, mask: model(x, mask)[0], r"a tuple.*\[0\]"),
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_a_model_made_elsewhere_is_attacked_through_the_adapter(kind: str, name: str) -> None:
    make, call, _ = ELSEWHERE[kind]
    torch.manual_seed(0)
    model = make().eval()
    x, y, mask = toy.batch()
    if name == "attention_pgd":
        with pytest.raises(ValueError, match=f"{make.__name__}|Adapter shows no attention"):
            run(name, Adapter(model, call), x, y, mask)
        return
    adapted, direct = (
        (run(name, one, x, y, mask) for one in (Adapter(model, call, toy.MODALITIES), Adapter(model, call)))
        if name != "one_modality"
        else [run(name, Adapter(model, call, toy.MODALITIES), x, y, mask)] * 2
    )
    torch.testing.assert_close(adapted.perturbation, direct.perturbation)
    assert (adapted.diagnostics["norm"] > 0).any()
    with torch.no_grad():
        torch.testing.assert_close(adapted.clean_logits, call(model, x, mask))
        moved = call(model, x + adapted.perturbation, mask)
        torch.testing.assert_close(adapted.adversarial_logits, moved)


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_without_the_adapter_it_is_named(kind: str) -> None:
    make, _, message = ELSEWHERE[kind]
    model = make().eval()
    x, y, mask = toy.batch()
    second = {Recurrent: mask.sum(dim=1), Torch: ~mask}.get(make, mask)
    with pytest.raises(ValueError, match=f"returned {message}"):
        fgm(lambda x, mask: model(x, second), x, y, mask, epsilon=0.5)


def test_an_adapted_model_in_train_mode_is_seen() -> None:
    adapter = Adapter(Torch(), ELSEWHERE["padding mask"][1])
    with pytest.warns(UserWarning, match="Adapter is in train mode"):
        fgm(adapter, *toy.batch(), epsilon=0.5)
    inner = Torch()
    with pytest.warns(UserWarning, match="Torch is in train mode"):  # through a function, too
        fgm(lambda x, mask: inner(x, ~mask).logits, *toy.batch(), epsilon=0.5)
    inner.eval().spare = nn.Identity()  # made in train mode, which is nothing to it
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*train mode")
        fgm(lambda x, mask: inner(x, ~mask).logits, *toy.batch(), epsilon=0.5)
    inner.encoder.layers[0].dropout1.train()  # and one part alone
    with pytest.warns(UserWarning, match="Torch is in train mode"):
        fgm(lambda x, mask: inner(x, ~mask).logits, *toy.batch(), epsilon=0.5)


@pytest.mark.parametrize(
    "part", [nn.LSTM(24, 24, 2, dropout=0.5), nn.MultiheadAttention(24, 2, dropout=0.5), nn.RReLU()], ids=str
)
def test_a_part_that_is_random_in_train_mode_is_seen(part: nn.Module) -> None:
    """The fault it alone catches: dropout inside a layer of another name, as recurrent ones in train mode have it."""
    net = nn.ModuleList([toy.model(), part.train()])
    net.training = False
    with pytest.warns(UserWarning, match="in train mode"):
        fgm(Adapter(net, lambda net, x, mask: net[0](x, mask)), *toy.batch(), epsilon=0.5)
    still = nn.ModuleList([toy.model(), nn.LSTM(24, 24)])  # drops nothing
    still.training = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fgm(Adapter(still, lambda net, x, mask: net[0](x, mask)), *toy.batch(), epsilon=0.5)


# what a hostile model, objective or attack may do


SEARCHES = ["pgd", "apgd", "square", "deepfool", "fmn", "multilabel_deepfool", "k_frames", "one_modality"]


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", SEARCHES)
def test_answers_that_break_on_the_way_are_no_robustness(name: str, broken: float) -> None:
    """A search drops such points; the clean video that is left was "not fooled", and nothing said why."""
    net = toy.model()
    x, y, mask = toy.batch()

    def fragile(frames: Tensor, mask: Tensor) -> Tensor:
        moved = (frames - x[: len(frames), : frames.shape[1]]).flatten(1).norm(dim=1)[:, None] > 0.01
        return torch.where(moved & (torch.arange(len(frames)) == 0)[:, None], broken, net(frames, mask))

    rows = run(name, fragile, x, y, mask, **({"modalities": toy.MODALITIES} if name == "one_modality" else {}))
    assert (rows.diagnostics["logits_not_finite"] | rows.diagnostics["gradient_not_finite"])[0]
    assert not rows.diagnostics["fooled"][0]


def test_what_models_and_objectives_write_into_is_their_own(name: str) -> None:
    """Memory of the answer that is used again, label sets and logits that an objective changes."""
    net = toy.model()
    given = toy.batch()
    expected = run(name, net, *given)
    kept: dict[int, Tensor] = {}

    def reusing(x: Tensor, mask: Tensor) -> Tensor:
        answer = net(x, mask)
        if torch.is_grad_enabled() and x.requires_grad:
            return answer
        return kept.setdefault(len(x), torch.empty_like(answer)).copy_(answer)

    if name not in ("attention_pgd",):  # whose model shows its attention
        options = {"modalities": toy.MODALITIES} if name == "one_modality" else {}
        again = run(name, reusing, *given, **options)
        assert torch.equal(again.clean_logits, expected.clean_logits)
        assert torch.equal(again.diagnostics["fooled"], expected.diagnostics["fooled"])

    def rude(logits: Tensor, y: Tensor) -> Tensor:
        loss = bce(logits.clone(), y.clone())
        logits.detach().zero_()
        y.zero_()
        return loss

    if "objective" in inspect.signature(EVERY[name]).parameters:
        spoiled = run(name, net, *given, objective=rude).adversarial_logits
        torch.testing.assert_close(spoiled, expected.adversarial_logits, atol=1e-6, rtol=0)


@checked
def rough(model, x, y, mask, scale=1.0, *, epsilon: NonNegative) -> Attack:
    """Writes into what it is given, and takes an option without a star."""
    gradient, logits = input_gradient(model, x, y, mask)
    step = steepest(gradient, mask, epsilon=epsilon * scale)
    adversarial = model(x.add_(step), mask).detach()
    attack = attack_result(model, x - step, y, mask, step, logits, gradient=gradient, iterations=1)
    assert torch.allclose(attack.adversarial_logits, adversarial, atol=1e-5)
    y.zero_()
    return attack


def test_an_attack_may_write_into_what_it_is_given() -> None:
    net = toy.model()
    x, y, mask = given = toy.batch()
    before = [tensor.clone() for tensor in given]
    norms = rough(net, x, y, mask, 0.5, epsilon=1.0).diagnostics["norm"]
    torch.testing.assert_close(norms, torch.full((6,), 0.5).double())
    assert all(torch.equal(old, new) for old, new in zip(before, given, strict=True))


class Holder:
    __slots__ = ("net",)

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def __call__(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.net(x, mask)

    def ask(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.net(x, mask)


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = toy.model(), nn.BatchNorm1d(toy.CLASSES)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(1).expand(toy.CLASSES))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()  # another tensor, not the same one changed
        return self.norm(self.inner(x, mask)) * self.scale


library = types.ModuleType("library")


def in_a_module(net: nn.Module) -> Any:
    library.net = net
    return lambda x, mask: library.net(x, mask)


def inside(x: Tensor, mask: Tensor) -> Tensor:
    def ask() -> Tensor:
        return library.net(x, mask)

    return ask()


def over_a_name(net: nn.Module) -> Any:
    def ask(x: Tensor, mask: Tensor) -> Tensor:
        def once() -> Tensor:
            return net(x, mask)

        return once()

    return ask


x = torch.ones(100_000, dtype=torch.float16)  # a global of the name that an argument has above


class Asked(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"{name} was asked for")


asked = Asked("asked")


def in_a_class(net: nn.Module) -> Any:
    return type("Called", (), {"net": net, "__call__": lambda self, x, mask: self.net(x, mask)})()


HIDDEN: dict[str, Callable[[nn.Module], Any]] = {
    "module": lambda net: net,
    "function": lambda net: lambda x, mask: net(x, mask),
    "function in a function": lambda net: (lambda ask: lambda x, mask: ask(x, mask))(lambda x, mask: net(x, mask)),
    "method": lambda net: Holder(net).ask,
    "object": Holder,
    "in a dictionary": lambda net: (lambda nets: lambda x, mask: nets["a"][0](x, mask))({"a": [net]}),
    "default argument": lambda net: lambda x, mask, net=net: net(x, mask),
    "partial": lambda net: functools.partial(lambda net, x, mask: net(x, mask), net),
    "adapter": lambda net: Adapter(net, lambda net, x, mask: net(x, mask)),
    "attribute of a module": in_a_module,
    "function inside": lambda net: in_a_module(net) and inside,
    "attribute of a class": in_a_class,
    "argument of a global's name": over_a_name,
    "module that is not to be asked": lambda net: lambda x, mask: net(x, mask) if len(x) else asked.net(x, mask),
    "method of its class": lambda net: type("Called", (), {"__call__": lambda self, x, mask: net(x, mask)})(),
}


@pytest.mark.parametrize("form", HIDDEN)
def test_a_model_is_seen_through_whatever_it_is_called_by(form: str) -> None:
    """Train mode is told, statistics are kept, also those that are another tensor afterwards; a graph may wait."""
    net = Normalised().train()
    x, y, mask = toy.batch()
    waiting = net(x, mask).square().sum()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.warns(UserWarning, match="is in train mode"):
        fgm(HIDDEN[form](net), x, y, mask, epsilon=0.5)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    waiting.backward()
    wide = Normalised().double().eval()  # and its type is known
    assert fgm(HIDDEN[form](wide), x, y, mask, epsilon=0.5).clean_logits.dtype == torch.float32


inner = nn.Linear(24, 12).half()  # a global of the name that an attribute has below


def test_an_attribute_is_not_taken_for_a_global_of_its_name() -> None:
    shell = type("Shell", (), {"inner": toy.model()})()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fgm(lambda x, mask: shell.inner(x, mask), *toy.batch(), epsilon=0.5)


def test_a_part_that_an_adapter_calls_is_seen_though_it_is_not_registered() -> None:
    """The fault it alone catches: eval() does not reach a head in the adapter's function, whose dropout stayed on."""
    net, head = toy.model(), nn.Sequential(nn.BatchNorm1d(toy.CLASSES), nn.Dropout(0.5))
    before = head[0].running_mean.clone()
    plain = lambda model, x, mask: head(model(x, mask))  # noqa: E731
    given = functools.partial(lambda model, x, mask, last: last(model(x, mask)), last=head)
    for call in (plain, given):
        with pytest.warns(UserWarning, match="Sequential is in train mode"):
            fgm(Adapter(net, call).eval(), *toy.batch(), epsilon=0.5)
    assert torch.equal(head[0].running_mean, before)


def test_an_adapter_leaves_the_modes_of_parts_alone() -> None:
    net = Normalised().train()
    net.norm.eval()
    Adapter(net, lambda net, x, mask: net(x, mask))
    assert net.training
    assert not net.norm.training


def test_a_step_that_rounding_takes_away_is_refused() -> None:
    x, y, mask = toy.batch()
    net = toy.model()
    with pytest.raises(
        ValueError, match=r"epsilon 0\.5 is .* of a video's norm, and the model's torch\.float32 rounds"
    ):
        fgm(lambda frames, mask: net(frames / 1e8, mask), 1e8 * x, y, mask, epsilon=0.5)
    with pytest.raises(ValueError, match=r"bfloat16 rounds at"):
        fgm(toy.model().bfloat16(), x, y, mask, epsilon=1e-3)


@pytest.mark.parametrize("ball", [{"norm": "linf"}, {"scope": "frame"}], ids=str)
def test_a_step_of_every_entry_or_frame_is_seen_where_one_of_the_video_is_not(ball: dict[str, str]) -> None:
    """Of 400 frames: a step that changes what the model reads everywhere is no step that rounding takes away."""
    x, y, mask = torch.ones(1, 400, 24), torch.zeros(1, toy.CLASSES), torch.ones(1, 400, dtype=torch.bool)
    net, epsilon = toy.model().bfloat16(), 0.05 if ball.get("norm") else 0.2
    assert ((x + epsilon * 24**-0.5).bfloat16() != x.bfloat16()).all()
    moved = fgm(net, x, y, mask, epsilon=epsilon, **ball)
    assert not torch.equal(moved.adversarial_logits, moved.clean_logits)
    with pytest.raises(ValueError, match=r"epsilon .* of a video's mean square .*bfloat16 rounds at"):
        fgm(net, x, y, mask, epsilon=epsilon / 100, **ball)
    with pytest.raises(ValueError, match="of a video's norm"):
        fgm(net, x, y, mask, epsilon=epsilon)


def test_a_function_that_names_what_is_not_set_yet_is_attacked() -> None:
    """The fault it alone catches: to look for parts raised "Cell is empty" where the model never asks for it."""
    net = toy.model()

    def called(x: Tensor, mask: Tensor) -> Tensor:
        return later(x) if x is None else net(x, mask)

    attack = fgm(called, *toy.batch(), epsilon=0.5)
    later = net
    assert torch.equal(attack.perturbation, fgm(later, *toy.batch(), epsilon=0.5).perturbation)


def test_a_step_that_autocast_rounds_away_is_refused() -> None:
    """The fault it alone catches: parameters of float32 say nothing of what the model works in."""
    given = toy.batch()
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match=r"bfloat16 rounds at"):
        fgm(toy.model(), *given, epsilon=1e-3)
    fgm(toy.model(), *given, epsilon=1e-3)
    with torch.autocast("cpu", torch.bfloat16):  # which leaves float64 alone
        fgm(toy.model().double(), *given, epsilon=1e-3)


def test_an_objective_without_a_gradient_is_refused() -> None:
    for objective in (lambda logits, y: torch.ones(len(y)), lambda logits, y: bce(logits.detach(), y)):
        with pytest.raises(ValueError, match="no gradient can flow from the objective"):
            fgm(toy.model(), *toy.batch(), epsilon=0.5, objective=objective)


def test_a_gradient_is_taken_of_one_loss_a_video() -> None:
    """The fault it alone catches: a mean over videos made every gradient smaller by their number."""
    with pytest.raises(ValueError, match=r"the objective gave \(\) of torch.float32 for 6 videos"):
        input_gradient(toy.model(), *toy.batch(), objective=lambda logits, y: bce(logits, y).mean())


@pytest.mark.parametrize("scale", [1e-24, 1e20])
def test_deepfool_finds_boundaries_of_logits_of_any_scale(scale: float) -> None:
    """In float32 the squares of such gradients are 0 or infinite."""
    net, (x, y, mask) = toy.model(), toy.batch()
    plain = run("deepfool", net, x, y, mask, steps=20)
    scaled = run("deepfool", lambda x, mask: net(x, mask) * scale, x, y, mask, steps=20)
    assert torch.equal(plain.diagnostics["fooled"], scaled.diagnostics["fooled"])
    torch.testing.assert_close(plain.diagnostics["norm"], scaled.diagnostics["norm"], rtol=2e-2, atol=1e-4)


def test_deepfool_says_where_its_least_step_is_not_small() -> None:
    """The fault it alone catches: rho of videos in a small unit, eight times what it is, without a word."""
    net, (x, y, mask) = toy.model(), toy.batch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run("deepfool", net, x, y, mask)
    with pytest.warns(UserWarning, match="rho is overstated; scale the features up"):
        run("deepfool", lambda x, mask: net(x / 1e-3, mask), 1e-3 * x, y, mask)
