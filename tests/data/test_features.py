"""Dequantisation and normalisation against NumPy and golden values."""

import numpy as np
import pytest
import torch

from pipeline.base.groups import Features
from pipeline.data.batches import dequantise, features

MODALITIES = {"rgb": 6, "audio": 2}


@pytest.fixture
def batch():
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (3, 5, 8), dtype=np.uint8)
    mask = np.arange(5) < np.array([5, 1, 3])[:, None]
    return torch.from_numpy(frames), torch.from_numpy(mask)


def reference(frames, mask, norm):
    x = frames.numpy().astype(np.float64) * (4.0 / 255.0) + (4.0 / 512.0) - 2.0
    if norm != "none":
        for part in [slice(0, 8)] if norm == "l2_frame" else [slice(0, 6), slice(6, 8)]:
            x[..., part] /= np.sqrt(np.maximum((x[..., part] ** 2).sum(-1, keepdims=True), 1e-12))
    x[~mask.numpy()] = 0
    return x


def test_golden_bytes():
    frames = torch.tensor([[[0, 128, 255]]], dtype=torch.uint8)
    values = dequantise(frames, torch.ones(1, 1, dtype=torch.bool))
    torch.testing.assert_close(values, torch.tensor([[[-1.9921875, 0.0156554, 2.0078125]]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("norm", ["none", "l2_frame", "l2_frame_per_modality"])
def test_against_numpy(batch, norm):
    x = features(*batch, Features(norm=norm), MODALITIES)
    np.testing.assert_allclose(x.numpy(), reference(*batch, norm), atol=2e-6)
    assert (x[~batch[1]] == 0).all()


def test_unit_norms(batch):
    frames, mask = batch
    joint = features(frames, mask, Features(norm="l2_frame"), MODALITIES)[mask]
    torch.testing.assert_close(joint.norm(dim=-1), torch.ones(9))
    each = features(frames, mask, Features(norm="l2_frame_per_modality"), MODALITIES)[mask]
    torch.testing.assert_close(each[:, :6].norm(dim=-1), torch.ones(9))
    torch.testing.assert_close(each[:, 6:].norm(dim=-1), torch.ones(9))


@pytest.mark.parametrize("scale", [2.0**-130, 2.0**-60, 1e-9, 1.0, 1e10, 2.0**100])
def test_unit_norms_in_any_unit(scale):
    """The fault it alone catches: squares that leave the range of float32, or stay under a floor of their own."""
    frames = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    frames[0, 2] = 0
    mask = torch.ones(2, 5, dtype=torch.bool)
    plain, scaled = (
        features((factor * frames).float(), mask, Features(norm="l2_frame"), MODALITIES) for factor in (1.0, scale)
    )
    expected = torch.ones(2, 5)
    expected[0, 2] = 0
    torch.testing.assert_close(scaled.norm(dim=-1), expected)
    if np.log2(scale) % 1 == 0 and scale > 2.0**-100:  # no digit is lost on the way there
        assert torch.equal(scaled, plain)


def test_widths_must_fit(batch):
    with pytest.raises(ValueError, match=r"add up to 7, but frames are 8 wide"):
        features(*batch, Features(), {"rgb": 5, "audio": 2})
