"""The way in: videos, labels, masks, models and options are checked, and nothing of the caller's is changed inside."""

import functools
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from artpaper.explain import explain
from artpaper.inputs.model import Guarded, guard_of, tensors_of, warn
from artpaper.inputs.tensors import fit_widths, frames_of, labels_of, zero_one
from artpaper.settings import CHECKED

LENGTHS = ("epsilon", "step_size")  # options in the unit of x


class Given(NamedTuple):
    """What came in, made right: frames (batch, time, dim), label sets (batch, classes), mask (batch, time)."""

    model: Guarded
    x: Tensor  # float32 or float64 (batch, time, dim), detached
    y: Any  # 0 and 1 in the type of x (batch, classes); None only where labels are not needed
    mask: Tensor  # bool (batch, time)


@contextmanager
def entered(model: Any, x: Any, y: Any, mask: Any, *, labels: bool = True, training: bool = False) -> Iterator[Given]:
    """Check what came in, naming mistakes in errors, and keep what happens inside from the caller's state.

    Without ``labels`` y may be None. In ``training`` a loss is taken: train mode is meant, where an attack warns of it;
    random numbers are drawn and statistics move as they should.
    """
    with torch.inference_mode(False), torch.enable_grad():
        frames, real = frames_of(x), zero_one("mask", mask, x, "1 on real frames, 0 on padding")
        if real.shape != frames.shape[:2]:
            raise ValueError(f"mask {tuple(mask.shape)} does not fit frames {tuple(x.shape)}")
        if y is None and labels:
            raise TypeError("y is None: label sets (batch, classes) are needed here")
        sets = None if y is None else labels_of(y, frames)
        if not callable(model):
            raise TypeError(f"the model is a {type(model).__name__}, not something to call with (x, mask)")
        guarded = Guarded(model, None if sets is None else sets.shape[1])
        _check_home(guarded, frames)
        if training:
            yield Given(guarded, frames, sets, real.bool().clone())
            return
        # copies: an attack may write into what it is given
        given = Given(guarded, frames.clone(), None if sets is None else sets.clone(), real.bool().clone())
        modules = [part for part in guarded.parts if isinstance(part, nn.Module)]
        _warn_of_train_mode(guarded, modules)
        if guard_of(model):  # what is around this has it all in its keeping, and noise is not to begin anew here
            yield given
            return
        kept = [
            (part, name, buffer, buffer.clone())
            for module in modules
            for part in module.modules()
            if part.training
            for name, buffer in part.named_buffers(recurse=False)
        ]
        try:
            with torch.random.fork_rng(devices=[frames.device] if frames.is_cuda else []):
                yield given
        finally:
            for part, name, buffer, value in kept:
                setattr(part, name, buffer)
                if not torch.equal(buffer, value):
                    buffer.data.copy_(value)  # not counted as a change: a graph of the caller's may still wait


def check_options(function: Callable[..., Any], options: Mapping[str, Any], x: Tensor) -> dict[str, Any]:
    """The options of an attack, checked against its signature: numbers, choices, and what has to fit the frames.

    The annotations of ``function`` say what is allowed; tensors named ``start`` and ``movable``, ``modalities`` and
    ``objective`` mean the same in every attack. A TypeError or ValueError names what is not.
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
            limits = torch.finfo(x.dtype)
            if name in LENGTHS and checked[name] and not limits.tiny <= checked[name] <= limits.max**0.5:
                raise ValueError(f"{name} {checked[name]} cannot be worked with in {x.dtype}; scale the features")
    for name, fit in (("start", _start), ("movable", _movable), ("modalities", _widths)):
        if checked.get(name) is not None:
            checked[name] = fit(checked[name], x)
    if "objective" in checked:
        if not callable(checked["objective"]):
            raise ValueError(f"objective is a function of (logits, y), not {checked['objective']!r}")
        checked["objective"] = functools.partial(_one_loss_a_video, checked["objective"])
    return checked


def check_seen(epsilon: float | None, given: Given) -> None:
    """Refuse a radius that is lost in rounding beside a video: the model would be asked about the clean one."""
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


def _check_home(model: Guarded, x: Tensor) -> None:
    devices = set()
    for tensor in tensors_of(model.parts):
        devices.add(tensor.device)
        if tensor.is_inference():
            raise ValueError(
                "the model's tensors were made under torch.inference_mode(), where no gradient can flow through them; "
                "make or load the model outside it"
            )
    if devices and x.device not in devices:
        raise ValueError(f"the model is on {', '.join(map(str, devices))}, x on {x.device}; move one to the other")


def _warn_of_train_mode(model: Guarded, modules: list[nn.Module]) -> None:
    """Once, where a module or a part of it that changes answers by its mode is in train mode."""
    moody = nn.modules.dropout._DropoutNd | nn.modules.batchnorm._NormBase
    busy = [
        module
        for module in modules
        if module.training or any(part.training and isinstance(part, moody) for part in module.modules())
    ]
    if busy and "mode" not in model.warned:
        model.warned.add("mode")
        names = " and ".join(type(module).__name__ for module in busy)
        warn(
            f"{names} is in train mode: dropout and batch statistics make its answers random or depend on the "
            "batch; call eval() on it first"
        )


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


def _start(start: Any, x: Tensor) -> Tensor:
    if not isinstance(start, Tensor) or start.shape != x.shape:
        what = tuple(start.shape) if isinstance(start, Tensor) else type(start).__name__
        raise ValueError(f"start {what} does not fit frames {tuple(x.shape)}")
    return frames_of(start, "start").to(x)


def _movable(movable: Any, x: Tensor) -> Tensor:
    movable = zero_one("movable", movable, x, "1 on entries that may be moved").bool()
    if movable.ndim != 3 or any(size not in (1, of) for size, of in zip(movable.shape, x.shape, strict=True)):
        raise ValueError(f"movable {tuple(movable.shape)} does not fit frames {tuple(x.shape)}")
    return movable


def _widths(modalities: Any, x: Tensor) -> dict[str, int]:
    if not fit_widths(modalities, x.shape[-1]):
        raise ValueError(f"modalities are names and widths that add up to {x.shape[-1]}, got {modalities!r}")
    return dict(modalities)


def _one_loss_a_video(objective: Callable[..., Any], logits: Tensor, y: Tensor) -> Tensor:
    values = objective(logits.clone(), y.clone())  # it may write into what it is given
    if not isinstance(values, Tensor) or values.shape != (len(logits),) or not values.is_floating_point():
        what = f"{tuple(values.shape)} of {values.dtype}" if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"the objective gave {what} for {len(logits)} videos; it must give one loss a video, a float")
    if logits.requires_grad and not values.requires_grad:
        raise ValueError("no gradient can flow from the objective to the logits: it detaches, or is a constant")
    return values
