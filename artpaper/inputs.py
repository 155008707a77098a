"""One way in for everything that takes ``(model, x, y, mask)``: made right, or refused in words.

Label sets and masks may be bool, integers or floats of 0 and 1; frames may be of any floating type, made anywhere,
under :func:`torch.no_grad` or :func:`torch.inference_mode`. What can only mean a mistake is an error that names it: a
TypeError for what is no tensor of a type that could be meant, a ValueError for a wrong shape or value. The caller's
tensors, the model's buffers and modes, every ``.grad`` and the random generators are left as they were.
"""

import functools
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from artpaper.guarded import Guarded, guard_of, tensors_of, warn
from artpaper.kept import kept
from artpaper.settings import CHECKED

SHOWN = 200  # characters of a wrong value
LENGTHS = ("epsilon", "step_size")  # options in the unit of x
LABELS = "label sets, 1 for every true class: for counts or -1 and 1 pass {} > 0"


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
        with kept(modules, frames.device):
            yield given


def check_options(function: Callable[..., Any], options: Mapping[str, Any], x: Tensor) -> dict[str, Any]:
    """The options of an attack, checked against its signature: numbers, choices, what has to fit x (batch, time, dim).

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
                reason, shown = error.errors()[0]["msg"], repr(value)
                shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]} ..."
                raise ValueError(f"{name} {reason[0].lower()}{reason[1:]}, got {shown}") from None
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


def check_seen(options: Mapping[str, Any], given: Given) -> None:
    """Refuse a radius that is lost in rounding beside a video: the model would be asked about the clean one."""
    epsilon = options.get("epsilon")
    if not epsilon or not len(given.x):
        return
    type_of = given.model.type_for(given.x)
    real = given.x.masked_fill(~given.mask[:, :, None], 0.0)
    frames = given.mask.sum(dim=1).clamp(min=1)
    balls, what = torch.ones_like(frames), "norm"
    if options.get("norm") == "linf":
        balls, what = frames * real.shape[2], "mean square feature's root"
    elif options.get("scope") == "frame":
        balls, what = frames, "mean square frame's norm"
    length = torch.linalg.vector_norm(real, dim=(1, 2), dtype=torch.float64)
    largest = (length / balls.sqrt()).max().item()
    if epsilon < largest * torch.finfo(type_of).eps / 2:
        raise ValueError(
            f"epsilon {epsilon} is {epsilon / largest:.1g} of a video's {what}, and the model's {type_of} rounds at "
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
    moody = nn.modules.dropout._DropoutNd | nn.modules.batchnorm._NormBase | nn.RReLU
    drops = nn.RNNBase | nn.MultiheadAttention  # by themselves, and only if asked to

    def changes(part: nn.Module) -> bool:
        dropping = isinstance(part, drops) and part.dropout not in (0, False)  # a module, in some who derive from it
        return part.training and (dropping or isinstance(part, moody))

    busy = [module for module in modules if module.training or any(map(changes, module.modules()))]
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
