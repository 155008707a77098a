"""From a stored batch to what a model receives, on the device the model lives on."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.base.groups import Features
from pipeline.data.features import features
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
