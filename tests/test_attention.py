"""The attention numbers on maps whose answers are known."""

import math

import pytest
import torch

from artpaper.attention import NUMBERS, attention_numbers, attention_profile
from tests import toy


def uniform(mask: torch.Tensor, heads: int = 2) -> torch.Tensor:
    pairs = (mask[:, :, None] & mask[:, None, :]).float() / mask.sum(1)[:, None, None]
    return pairs[:, None].expand(-1, heads, -1, -1).clone()


@pytest.fixture
def mask() -> torch.Tensor:
    """Videos of 4, 2, 4 and 1 frames."""
    return torch.arange(5) < torch.tensor([4, 2, 4, 1])[:, None]


def test_uniform_maps(mask: torch.Tensor) -> None:
    maps = uniform(mask)
    found = attention_numbers(maps, maps, mask)
    assert tuple(found) == NUMBERS
    zeros, ones = ("mse", "head_mse", "uniform_mse"), ("entropy", "largest", "profile_max")
    for name, value in (dict.fromkeys(zeros, 0) | dict.fromkeys(ones, 1)).items():
        torch.testing.assert_close(found[name], torch.full((4,), float(value)).double(), msg=name)
    assert found["unrelated_mse"].isnan().tolist() == [False, True, False, True]
    assert found["unrelated_mse"][0] == 0


def test_every_frame_attends_to_the_first(mask: torch.Tensor) -> None:
    """One-hot rows: entropy 0, weight T times uniform, (1 - 1/T)^2 + (T - 1)/T^2 over T from uniform a row."""
    maps = uniform(mask)
    maps[0], maps[0, :, :4, 0] = 0, 1
    found = attention_numbers(maps, uniform(mask), mask)
    distance = ((1 - 1 / 4) ** 2 + 3 / 16) / 4
    for name, value in (("mse", distance), ("uniform_mse", distance), ("head_mse", distance), ("entropy", 0)):
        assert found[name][0].item() == pytest.approx(value, abs=1e-7), name
    assert (found["largest"][0].item(), found["profile_max"][0].item()) == (4.0, 4.0)
    assert found["unrelated_mse"][[0, 2]].tolist() == pytest.approx([distance, distance])
    assert found["mse"][1:].tolist() == [0, 0, 0]
    profile = attention_profile(maps.mean(1), mask)
    assert profile[0].tolist() == [1, 0, 0, 0, 0]
    assert profile[1].tolist() == [0.5, 0.5, 0, 0, 0]


def test_changes_that_cancel_between_heads_are_seen_before_averaging(mask: torch.Tensor) -> None:
    clean, attacked = uniform(mask), uniform(mask)
    attacked[0, 0, 0, 0] += 0.1
    attacked[0, 1, 0, 0] -= 0.1
    found = attention_numbers(clean, attacked, mask)
    assert found["mse"][0].item() == pytest.approx(0, abs=1e-15)
    assert found["head_mse"][0].item() == pytest.approx(0.01 / 16, rel=1e-4)


def test_entropy_of_half_and_half(mask: torch.Tensor) -> None:
    maps = uniform(mask)
    maps[0], maps[0, :, :4, :2] = 0, 0.5
    assert attention_numbers(maps, maps, mask)["entropy"][0].item() == pytest.approx(math.log(2) / math.log(4))


def test_padding_and_neighbours_change_nothing() -> None:
    net = toy.model(dtype=torch.float64)
    x, _, mask = toy.batch(videos=8, dtype=torch.float64)
    noise = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * mask[:, :, None]
    with torch.no_grad():
        clean, moved = (net.attention_heads(frames, mask)["rgb"] for frames in (x, x + noise))
        together = attention_numbers(clean, moved, mask)
        for i in range(8):
            n = int(mask[i].sum())
            own = mask[i : i + 1, :n]
            clean, moved = (net.attention_heads(frames[i : i + 1, :n], own)["rgb"] for frames in (x, x + noise))
            alone = attention_numbers(clean, moved, own)
            for name in NUMBERS[:-1]:
                assert alone[name].item() == pytest.approx(together[name][i].item(), rel=1e-9, abs=1e-15), name


def test_a_video_without_frames_has_no_numbers() -> None:
    """The fault it alone catches: one that counts as uniform attention in a mean."""
    net, (x, _, mask) = toy.model(), toy.batch()
    mask[2] = False
    heads = net.attention_heads(x, mask)["rgb"]
    for values in attention_numbers(heads, heads, mask).values():
        assert values[2].isnan()


def test_rows_of_padding_are_left_out() -> None:
    """The fault it alone catches: rows of padding counted, which sum to 1 in maps of PyTorch's own, or are NaN."""
    mask = toy.batch()[2]
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 6, 4, 9, 9, generator=generator).masked_fill(~mask[:, None, None], -torch.inf)
    whole = scores.softmax(-1).masked_fill(~mask[:, None, :, None], torch.nan)
    whole[:, ::2] = scores.softmax(-1)[:, ::2]
    zeroed = whole.masked_fill(~mask[:, None, :, None], 0.0)
    found, expected = (attention_numbers(*maps, mask) for maps in (whole, zeroed))
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(attention_profile(whole[0].mean(1), mask).sum(1), torch.ones(6).double())


def test_maps_of_a_half_type_are_averaged_in_a_wide_one() -> None:
    """The fault it alone catches: the mean over heads was rounded as the maps are, which is more than they change."""
    mask = torch.ones(1, 50, dtype=torch.bool)
    scores = torch.randn(2, 1, 8, 50, 50, generator=torch.Generator().manual_seed(0)) * 0.01
    maps = scores.softmax(-1).bfloat16()
    found, expected = attention_numbers(*maps, mask), attention_numbers(*maps.double(), mask)
    torch.testing.assert_close(found["mse"], expected["mse"], rtol=1e-6, atol=0)
