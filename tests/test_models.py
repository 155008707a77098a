"""The frame Transformer against PyTorch's own attention, and the properties that masks promise."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from artpaper.models import Encoder, FrameTransformer, sinusoids
from artpaper.settings import Model
from tests import toy


@pytest.mark.parametrize("layer_norm", ["post", "pre"])
def test_encoder_layer_equals_pytorchs(layer_norm: str) -> None:
    """nn.TransformerEncoderLayer (ReLU) with the same weights gives the same hidden states."""
    config = Model(heads=4, dropout=0.0, positions="none", scale_input=False, layer_norm=layer_norm)
    ours = FrameTransformer(config, {"rgb": 16}, 5).double().eval()
    first = layer_norm == "pre"
    theirs = nn.TransformerEncoderLayer(16, 4, 64, dropout=0.0, batch_first=True, norm_first=first).double().eval()
    layer = ours.encoders["rgb"]
    for norm in layer.norms:  # or one could stand for the other
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.normal_(norm.bias)
    state = {
        "self_attn.in_proj_weight": torch.cat([layer.query_key.weight, layer.value.weight]),
        "self_attn.in_proj_bias": torch.cat([layer.query_key.bias, layer.value.bias]),
        "self_attn.out_proj.weight": layer.output.weight,
        "self_attn.out_proj.bias": layer.output.bias,
        "linear1.weight": layer.ffn[0].weight,
        "linear1.bias": layer.ffn[0].bias,
        "linear2.weight": layer.ffn[2].weight,
        "linear2.bias": layer.ffn[2].bias,
        "norm1.weight": layer.norms[0].weight,
        "norm1.bias": layer.norms[0].bias,
        "norm2.weight": layer.norms[1].weight,
        "norm2.bias": layer.norms[1].bias,
    }
    theirs.load_state_dict(state)
    x, _, mask = toy.batch(dtype=torch.float64)
    x = x[:, :, :16]
    hidden, averaged = layer(x, mask, return_attention=True)
    expected = theirs(x, src_key_padding_mask=~mask)
    torch.testing.assert_close(hidden[mask], expected[mask], atol=1e-12, rtol=0)
    seen = theirs.norm1(x) if first else x
    _, maps = theirs.self_attn(seen, seen, seen, key_padding_mask=~mask, average_attn_weights=False)
    real = mask[:, None, :, None].expand_as(maps)
    torch.testing.assert_close(layer.attention(x, mask)[real], maps[real], atol=1e-12, rtol=0)
    torch.testing.assert_close(averaged[real[:, 0]], maps.mean(dim=1)[real[:, 0]], atol=1e-12, rtol=0)


@pytest.mark.parametrize("attention", ["softmax", "position", "random"])
@pytest.mark.parametrize("alive", [1, 2 * 3 * 9 * 9])  # one video at a time, three at a time
def test_maps_made_for_some_videos_at_a_time_change_nothing(alive: int, attention: str, monkeypatch) -> None:
    """Nor does going back through them, once or, as an aligned gradient needs it, twice."""
    net = toy.model(attention=attention, heads=2, dtype=torch.float64)
    whole = asked(net)
    calls = []
    mix = Encoder._mix
    monkeypatch.setattr(Encoder, "_mix", lambda self, *given: calls.append(len(given[0])) or mix(self, *given))
    monkeypatch.setattr("artpaper.models.ALIVE", alive)
    parts = asked(net)
    assert max(calls) < 6
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def asked(net: FrameTransformer, **shape: int) -> list[torch.Tensor]:
    """Logits, maps, a slope along the frames that both have a part in, and the weights' slope of that."""
    x, y, mask = toy.batch(dtype=torch.float64, **shape)
    mask[2] = False  # a video without frames
    logits, maps = net(x.requires_grad_(), mask, return_attention=True)
    with sdpa_kernel(SDPBackend.MATH):
        plain = net(x, mask)
    torch.testing.assert_close(net(x, mask), logits, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(plain, logits, atol=1e-12, rtol=1e-12)
    (first,) = torch.autograd.grad((plain * y).sum(), x, create_graph=True)
    assert torch.autograd.grad(first.square().sum(), list(net.parameters()), allow_unused=True)
    value = (logits * y).sum() + sum(a.square().sum() for a in maps.values())
    (slope,) = torch.autograd.grad(value, x, create_graph=True)
    twice = torch.autograd.grad(slope.square().sum(), list(net.parameters()), allow_unused=True)
    return [logits, *maps.values(), slope, *(part for part in twice if part is not None)]


@pytest.mark.parametrize("attention", ["softmax", "position"])
def test_an_accelerators_way_gives_the_same(attention: str, monkeypatch) -> None:
    net = toy.model(attention=attention, heads=2, dtype=torch.float64, temperature=1.5)
    plain = asked(net)
    monkeypatch.setattr("artpaper.models._fuses", lambda _: True)
    with sdpa_kernel(SDPBackend.MATH):  # only this goes back twice
        fused = asked(net)
    for one, other in zip(fused, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_an_accelerators_way_holds_one_heads_maps_at_a_time(monkeypatch) -> None:
    """On the way back, too; every tensor that is made outside of PyTorch's own kernel is looked at."""

    class Made(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            made = function(*arguments, **(options or {}))
            for tensor in made if isinstance(made, tuple | list) else (made,):
                self.largest = max(self.largest, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
            return made

    x, _, mask = toy.batch(time=100)
    largest, kept = [], []
    for fused in (True, False):
        sizes: list[int] = []
        monkeypatch.setattr("artpaper.models._fuses", lambda _, fused=fused: fused)
        with Made() as made:
            with saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
                logits, maps = toy.model()(x, mask, return_attention=True)
                value = logits.sum() + sum(a.square().sum() for a in maps.values())
            value.backward()
        largest.append(made.largest)
        kept.append(sum(size for size in sizes if size >= 6 * 100 * 100))
    assert largest == [6 * 100 * 100, 4 * 6 * 100 * 100]
    assert kept[0] <= 2 * 2 * 6 * 100 * 100  # of each modality the mean, and where it is one of real frames


@pytest.mark.parametrize("attention", ["softmax", "uniform", "position", "random"])
def test_maps_are_stochastic_on_real_frames_and_zero_on_padding(attention: str) -> None:
    net = toy.model(attention=attention)
    x, _, mask = toy.batch()
    logits, maps = net(x, mask, return_attention=True)
    assert logits.shape == (6, toy.CLASSES)
    for name, a in maps.items():
        assert (a[~mask] == 0).all()
        assert (a.transpose(1, 2)[~mask] == 0).all()
        torch.testing.assert_close(a.sum(-1)[mask], torch.ones(int(mask.sum())))
        torch.testing.assert_close(net.attention_heads(x, mask)[name].mean(1), a)
    if attention == "uniform":
        lengths = mask.sum(1)
        torch.testing.assert_close(maps["rgb"].amax((1, 2)), 1 / lengths)


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("layer_norm", ["post", "pre", "none"])
@pytest.mark.parametrize("attention", ["softmax", "uniform"])
def test_padding_changes_nothing(attention: str, layer_norm: str, pooling: str) -> None:
    net = toy.model(dtype=torch.float64, attention=attention, layer_norm=layer_norm, pooling=pooling)
    x, _, mask = toy.batch(dtype=torch.float64)
    garbage = x + 100 * torch.randn_like(x) * ~mask[:, :, None]
    torch.testing.assert_close(net(garbage, mask), net(x, mask), atol=1e-10, rtol=0)
    longer = torch.cat([x, torch.randn(6, 4, 24, dtype=torch.float64)], 1)
    more = torch.cat([mask, torch.zeros(6, 4, dtype=torch.bool)], 1)
    torch.testing.assert_close(net(longer, more), net(x, mask), atol=1e-10, rtol=0)


def test_positions_are_what_makes_order_matter() -> None:
    x, _, mask = toy.batch(dtype=torch.float64)
    flipped = x[:1].flip(1)
    ordered, bag = toy.model(dtype=torch.float64), toy.model(dtype=torch.float64, positions="none")
    assert not torch.allclose(ordered(flipped, mask[:1]), ordered(x[:1], mask[:1]))
    torch.testing.assert_close(bag(flipped, mask[:1]), bag(x[:1], mask[:1]), atol=1e-10, rtol=0)


def test_sinusoids_follow_the_formula() -> None:
    codes = sinusoids(7, 6, torch.device("cpu"))
    assert codes[5, 2].item() == pytest.approx(torch.sin(torch.tensor(5 / 10_000 ** (2 / 6))).item(), abs=1e-6)
    assert codes[5, 3].item() == pytest.approx(torch.cos(torch.tensor(5 / 10_000 ** (2 / 6))).item(), abs=1e-6)


def test_the_papers_model_has_the_expected_size() -> None:
    """12.6 M for rgb, 0.2 M for audio, 0.37 M for the classifier: about 13.2 million parameters."""
    net = FrameTransformer(Model(), {"rgb": 1024, "audio": 128}, 317)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(13.2e6, rel=0.01)


def test_a_video_without_frames_gives_no_nan() -> None:
    net = toy.model()
    x, _, mask = toy.batch()
    logits, maps = net(x, torch.zeros_like(mask), return_attention=True)
    assert logits.isfinite().all()
    assert (maps["rgb"] == 0).all()


@pytest.mark.parametrize(
    ("choices", "message"),
    [({"heads": 3}, "divisible"), ({"projection": 6}, "divisible"), ({"heads": 1, "projection": 5}, "even")],
)
def test_impossible_shapes_are_refused(choices: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy.model(**choices)


def test_wrong_width_is_refused() -> None:
    x, _, mask = toy.batch()
    with pytest.raises(ValueError, match="23 features"):
        toy.model()(x[:, :, :-1], mask)


def test_every_choice_changes_the_model() -> None:
    """No dead option: each field of the group, set to another value, changes the answer or the parameters."""
    x, _, mask = toy.batch()
    changes = {
        "heads": 2, "attention": "uniform", "temperature": 4.0, "projection": 8, "scale_input": False,
        "positions": "none", "ffn_multiple": 0, "layer_norm": "pre", "pooling": "max", "dropout": 0.5,
    }  # fmt: skip
    assert set(changes) == {field.name for field in dataclasses.fields(Model)}
    reference = toy.model().train()(x, mask)
    for name, value in changes.items():
        assert not torch.allclose(toy.model(**{name: value}).train()(x, mask), reference), name


def bare(dropout: float = 0.0, **choices: object) -> FrameTransformer:
    """A model that answers with what it pools: no norms, and sublayers that add nothing."""
    config = Model(**{"heads": 2, "dropout": dropout, "layer_norm": "none", **choices})
    net = FrameTransformer(config, {"rgb": 6}, 6).double()
    layer = net.encoders["rgb"]
    last = (layer.output, *([] if layer.ffn is None else [layer.ffn[2]]))
    for parameter in (p for linear in last for p in linear.parameters()):
        nn.init.zeros_(parameter)
    nn.init.eye_(net.classifier.weight)
    nn.init.zeros_(net.classifier.bias)
    return net


def test_what_is_pooled_is_the_scaled_frame_and_its_position() -> None:
    x = torch.randn(1, 4, 6, dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False]])
    embedded = (x * 6**0.5 + sinusoids(4, 6, torch.device("cpu")))[:, :3]
    torch.testing.assert_close(bare()(x, mask), embedded.mean(dim=1), atol=1e-12, rtol=0)
    low = x - 9  # so that a 0 would be the largest
    best = (low * 6**0.5 + sinusoids(4, 6, torch.device("cpu")))[:, :3].amax(dim=1)
    torch.testing.assert_close(bare(pooling="max")(low, mask), best, atol=1e-12, rtol=0)


def test_the_frames_and_what_each_sublayer_adds_are_dropped_out() -> None:
    """Vaswani et al. 2017, section 5.4: each alone, so that what comes out is 0 or 1 / (1 - p) of it."""
    p, mask = 0.25, torch.ones(400, 1, dtype=torch.bool)
    for place in ("frames", "attention", "feed-forward"):
        net = bare(dropout=p, positions="none", scale_input=False)
        layer = net.encoders["rgb"]
        if place != "frames":
            nn.init.ones_((layer.output if place == "attention" else layer.ffn[2]).bias)
        x = torch.full((400, 1, 6), float(place == "frames"), dtype=torch.float64)
        found = net.train()(x, mask)
        assert {round(value, 9) for value in found.unique().tolist()} == {0.0, round(1 / (1 - p), 9)}, place
        assert (found == 0).double().mean().item() == pytest.approx(p, abs=0.05), place
        assert net.eval()(x, mask).unique().tolist() == [1.0], place


def test_the_maps_of_the_heads_are_those_that_the_answer_was_made_with() -> None:
    """In train mode, too, from the same state of the generator."""
    net, x = bare(dropout=0.5).train(), torch.randn(3, 4, 6, dtype=torch.float64)
    mask = torch.ones(3, 4, dtype=torch.bool)
    torch.manual_seed(1)
    _, maps = net(x, mask, return_attention=True)
    torch.manual_seed(1)
    torch.testing.assert_close(net.attention_heads(x, mask)["rgb"].mean(dim=1), maps["rgb"])


def test_maps_by_position_do_not_depend_on_the_frames_and_learn() -> None:
    """The fault it alone catches: frames that reach queries or keys of a control that is to see positions only."""
    net = toy.model(attention="position", dtype=torch.float64)
    x, _, mask = toy.batch(dtype=torch.float64)
    maps, other = (net(frames, mask, return_attention=True)[1] for frames in (x, x.flip(0) + 1))
    for name, a in maps.items():
        assert torch.equal(a, other[name])
        assert (a[0] - 1 / 9).abs().max() > 1e-3  # not uniform
    net(x, mask).square().sum().backward()
    assert all(encoder.query_key.weight.grad.abs().max() > 0 for encoder in net.encoders.values())


def test_a_model_can_be_trained_after_it_was_first_asked_under_inference_mode() -> None:
    """The position codes are kept from the first call on, and by attention of the position gradients pass them."""
    sinusoids.cache_clear()
    net, (x, _, mask) = toy.model(attention="position"), toy.batch()
    with torch.inference_mode():
        net(x, mask)
    net(x, mask).sum().backward()
    assert net.encoders["rgb"].query_key.weight.grad.any()


def test_random_queries_and_keys_stay_as_they_were_drawn() -> None:
    """No optimiser is given them, yet they are saved; maps depend on the frames, and seeds differ."""
    net, softmax = toy.model(attention="random"), toy.model()
    frozen = {name for name, _ in softmax.named_parameters()} - {name for name, _ in net.named_parameters()}
    assert frozen == {f"encoders.{m}.query_key.{k}" for m in toy.MODALITIES for k in ("weight", "bias")}
    assert net.state_dict().keys() == softmax.state_dict().keys()
    x, _, mask = toy.batch()
    assert torch.equal(net(x, mask), softmax(x, mask))  # drawn as those that learn are


def test_the_temperature_divides_the_scores() -> None:
    """At 4 a head's weights are the fourth roots of those at 1, over their sum."""
    x, _, mask = toy.batch(dtype=torch.float64)
    one, four = (toy.model(dtype=torch.float64, temperature=t).attention_heads(x, mask)["rgb"] for t in (1.0, 4.0))
    roots = one**0.25
    torch.testing.assert_close(four, roots / roots.sum(dim=-1, keepdim=True).clamp(min=1e-300))
