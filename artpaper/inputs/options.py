"""The options of an attack: numbers and choices as its signature says, and what has to fit the frames."""

import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from artpaper.explain import explain
from artpaper.inputs.guarded import Given
from artpaper.inputs.tensors import fit_widths, frames_of, zero_one
from artpaper.settings import CHECKED

LENGTHS = ("epsilon", "step_size")  # options in the unit of x


def check_options(function: Callable[..., Any], options: Mapping[str, Any], x: Tensor) -> dict[str, Any]:
    """The options of an attack, checked against its signature: numbers, choices, and what has to fit ``x``.

    Args:
        function: whose annotations say what is allowed; tensors named ``start`` and ``movable``, ``modalities`` and
            ``objective`` mean the same in every attack.
        options: given, by name.
        x: frames (batch, time, dim).
    Returns:
        The options by name, in the types that the attack works with.
    Raises:
        TypeError, ValueError: a value that is not allowed, or does not fit; the message names it.
    """
    checked = dict(options)
    for name, rule in _rules(function).items():
        if name in checked:
            value = checked[name]
            if isinstance(value, np.generic | Tensor | np.ndarray) and value.ndim == 0:
                value = value.item()
            try:
                checked[name] = rule.validate_python(value)
            except ValidationError as error:
                raise ValueError(f"{name} {explain(float, error.errors()[0]).removeprefix('float: ')}") from None
            if name in LENGTHS and checked[name]:
                _check_length(name, checked[name], x.dtype)
    for name, fit in (("start", _start), ("movable", _movable), ("modalities", _widths)):
        if checked.get(name) is not None:
            checked[name] = fit(checked[name], x)
    if "objective" in checked:
        checked["objective"] = _objective(checked["objective"])
    return checked


@functools.cache
def _rules(function: Callable[..., Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(function, include_extras=True)
    return {name: TypeAdapter(hint, config=CHECKED) for name, hint in hints.items() if _is_plain(hint)}


def _is_plain(hint: Any) -> bool:
    """Whether a hint allows numbers, choices and None alone."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _is_plain(hint.__origin__)
    if origin in (typing.Union, types.UnionType):
        return all(_is_plain(part) for part in typing.get_args(hint))
    return origin is Literal or hint in (int, float, bool, str, type(None))


def check_seen(epsilon: float | None, given: Given) -> None:
    """Refuse a radius that is lost in rounding beside a video: the model would be asked about the clean one.

    Args:
        epsilon: the radius, same unit as the frames; 0 or None where there is none.
        given: the videos, and the model whose type they are rounded to.
    Raises:
        ValueError: it is less of a video's norm than that type tells apart.
    """
    if not epsilon or not len(given.x):
        return
    type_of = given.model.dtype or given.x.dtype
    real = given.x.masked_fill(~given.mask[:, :, None], 0.0)
    largest = torch.linalg.vector_norm(real, dim=(1, 2), dtype=torch.float64).max().item()
    if epsilon < largest * torch.finfo(type_of).eps / 2:
        raise ValueError(
            f"epsilon {epsilon} is {epsilon / largest:.1g} of a video's norm, and the model's {type_of} rounds at "
            f"{torch.finfo(type_of).eps:.1g}: it would not see the step; use a wider type, or scale the features"
        )


def _check_length(name: str, length: float, dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    if not limits.tiny <= length <= limits.max**0.5:
        raise ValueError(f"{name} {length} cannot be worked with in {dtype}; scale the features")


def _start(start: Tensor, x: Tensor) -> Tensor:
    if not isinstance(start, Tensor) or start.shape != x.shape:
        what = tuple(start.shape) if isinstance(start, Tensor) else type(start).__name__
        raise ValueError(f"start {what} does not fit frames {tuple(x.shape)}")
    return frames_of(start, "start").to(x)


def _movable(movable: Tensor, x: Tensor) -> Tensor:
    movable = zero_one("movable", movable, x, "1 on entries that may be moved").bool()
    if movable.ndim != 3 or any(size not in (1, of) for size, of in zip(movable.shape, x.shape, strict=True)):
        raise ValueError(f"movable {tuple(movable.shape)} does not fit frames {tuple(x.shape)}")
    return movable


def _widths(modalities: Mapping[str, int], x: Tensor) -> dict[str, int]:
    if not fit_widths(modalities, x.shape[-1]):
        raise ValueError(f"modalities are names and widths that add up to {x.shape[-1]}, got {modalities!r}")
    return dict(modalities)


def _objective(objective: Any) -> Callable[[Tensor, Tensor], Tensor]:
    if not callable(objective):
        raise ValueError(f"objective is a function of (logits, y), not {objective!r}")
    return functools.partial(_one_loss_a_video, objective)


def _one_loss_a_video(objective: Callable[..., Any], logits: Tensor, y: Tensor) -> Tensor:
    values = objective(logits.clone(), y.clone())  # it may write into what it is given
    if not isinstance(values, Tensor) or values.shape != (len(logits),) or not values.is_floating_point():
        what = f"{tuple(values.shape)} of {values.dtype}" if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"the objective gave {what} for {len(logits)} videos; it must give one loss a video, a float")
    if logits.requires_grad and not values.requires_grad:
        raise ValueError("no gradient can flow from the objective to the logits: it detaches, or is a constant")
    return values
