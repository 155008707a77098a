"""Frames, label sets and masks of whatever type and place, in the types that attacks work with, or refused in words.

What is no plain tensor of a type that could be meant is a TypeError, what has the wrong shape or values a ValueError;
``name`` is what a message calls it.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

LABELS = "label sets, 1 for every true class: for counts or -1 and 1 pass {} > 0"


def frames_of(x: Any, name: str = "x") -> Tensor:
    """Frames (batch, time, dim) in float32, or float64 if they are; finite, detached and usable in a graph."""
    _check_tensor(name, x)
    if not x.is_floating_point():
        raise TypeError(f"{name} is of {x.dtype}: features are floats; dequantise or convert them first")
    if x.ndim != 3 or 0 in x.shape[1:]:
        raise ValueError(f"{name} has the shape {tuple(x.shape)}; videos are (batch, time, dim), with frames")
    x = _usable(x.detach().to(torch.float64 if x.dtype == torch.float64 else torch.float32))
    finite = x.isfinite()
    if not finite.all():
        video, frame, feature = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"{name} of video {video} (counted from 0) is {x[video, frame, feature].item()} at frame {frame}, feature "
            f"{feature}; features must be finite, those of padding too"
        )
    return x


def labels_of(y: Any, x: Tensor, name: str = "y") -> Tensor:
    """Label sets (batch, classes), 0 and 1 of any type, in the type and on the device of ``x`` (batch, time, dim)."""
    y = zero_one(name, y, x, LABELS.format(name))
    if y.ndim != 2 or len(y) != len(x) or not y.shape[1]:
        raise ValueError(
            f"{name} has the shape {tuple(y.shape)} for {len(x)} videos; label sets are multi-hot (batch, classes): "
            f"for class numbers pass torch.nn.functional.one_hot({name}, classes)"
        )
    return y.to(x.dtype)


def zero_one(name: str, value: Any, x: Tensor, meaning: str) -> Tensor:
    """A tensor of any type and shape, holding 0 and 1 alone, on the device of ``x``, of any shape.

    ``meaning`` says what 1 means, and what may be passed instead.
    """
    _check_tensor(name, value)
    value = _usable(value.detach().to(x.device))
    fits = (value == 0) | (value == 1)
    if value.dtype != torch.bool and not fits.all():
        row = (~fits).flatten(1).any(dim=1).nonzero()[0].item() if value.ndim > 1 else 0
        wrong = value[~fits][0].item()
        raise ValueError(f"{name} of video {row} (counted from 0) holds {wrong!r}; it is 0 or 1: {meaning}")
    return value


def fit_widths(modalities: Any, dim: int) -> bool:
    """Whether these are positive widths by name that add up to ``dim``."""
    widths = list(modalities.values()) if isinstance(modalities, Mapping) else []
    return all(isinstance(width, int) and width > 0 for width in widths) and sum(widths) == dim


def own_widths(model: Any, x: Tensor) -> dict[str, int] | None:
    """The model's own ``modalities``, where it names widths that add up to the features of ``x`` (batch, time, dim)."""
    own: Any = None
    with suppress(Exception):  # another's attribute of that name
        own = model.modalities
    return dict(own) if fit_widths(own, x.shape[-1]) else None


def _check_tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}, not a tensor; pass torch.as_tensor({name})")
    if value.layout != torch.strided or value.is_nested or value.is_quantized or value.is_meta or value.is_complex():
        raise TypeError(f"{name} must be a dense tensor of real numbers, not {value.dtype} in {value.layout}")


def _usable(tensor: Tensor) -> Tensor:
    """The tensor, or its copy if it was made under inference mode, which no graph can hold."""
    return tensor.clone() if tensor.is_inference() else tensor
