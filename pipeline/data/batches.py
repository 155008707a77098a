"""From a stored batch to the tensors that a model receives, and that an attack moves, on the device it lives on."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from pipeline.base.groups import Features
from pipeline.data.store import Batch


def model_inputs(
    batch: Batch, config: Features, modalities: Mapping[str, int], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Move the frames as stored to the device, and normalise there: bytes are a quarter of the traffic of floats.

    Returns:
        x float32 (batch, time, dim), zero on padding; y float32 (batch, classes); mask bool (batch, time).
    """
    mask = batch.mask.to(device, non_blocking=True)
    x = features(batch.frames.to(device, non_blocking=True), mask, config, modalities)
    return x, batch.labels.to(device, non_blocking=True), mask


def dequantise(
    frames: UInt8[Tensor, "batch time dim"], mask: Bool[Tensor, "batch time"]
) -> Float[Tensor, "batch time dim"]:
    """Bytes to the values they stand for: x * (4 / 255) + (4 / 512 - 2), in [-1.992, 2.008]; padding is 0.

    Source: google/youtube-8m, utils.py (Dequantize) and readers.py (resize_axis); byte 255 lies above 2 there too.
    """
    values = frames.float() * (4 / 255) + (4 / 512 - 2)  # (batch, time, dim)
    return values * mask[:, :, None]  # (batch, time, dim)


def features(
    frames: UInt8[Tensor, "batch time dim"] | Float32[Tensor, "batch time dim"], mask: Bool[Tensor, "batch time"],
    config: Features, modalities: Mapping[str, int],
) -> Float[Tensor, "batch time dim"]:  # fmt: skip
    """The model's input: the frames' values, normalised as ``config.norm`` says, zero on padding.

    uint8 is dequantised, float32 is taken as it is. ``l2_frame`` gives each frame, modalities together, norm 1,
    ``l2_frame_per_modality`` each modality of each frame; ``modalities`` are in the order of the columns.

    Source: google/youtube-8m, train.py line 274 (tf.nn.l2_normalize, whose floor of 1e-12 leaves tiny frames shorter
    than 1; here no frame but 0 itself is); which norm the paper used is not stated.
    """
    widths = list(modalities.values())
    if sum(widths) != frames.shape[-1]:
        raise ValueError(
            f"modalities {dict(modalities)} add up to {sum(widths)}, but frames are {frames.shape[-1]} wide"
        )
    x = dequantise(frames, mask) if frames.dtype == torch.uint8 else frames * mask[:, :, None]  # (batch, time, dim)
    if config.norm == "none":
        return x
    parts = x.split(widths, dim=-1) if config.norm == "l2_frame_per_modality" else (x,)
    return torch.cat([_unit(part) for part in parts], dim=-1)  # (batch, time, dim)


def _unit(x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
    # by a power of 2 first, which changes no digit: squares of tiny or huge features leave the range of float32
    _, exponent = torch.frexp(x.abs().amax(dim=-1, keepdim=True))  # (batch, time, 1)
    x = x * torch.exp2(-exponent.clamp(-126, 126).to(x.dtype))
    squares = x.square().sum(dim=-1, keepdim=True)  # (batch, time, 1)
    return x * squares.clamp_min(1e-12).rsqrt()  # (batch, time, width); the floor of tf.nn.l2_normalize
