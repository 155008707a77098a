"""One way in for everything that takes ``(model, x, y, mask)``: made right, or refused in words.

Label sets and masks may be bool, integers or floats of 0 and 1; frames may be of any floating type, made anywhere,
under :func:`torch.no_grad` or :func:`torch.inference_mode`. What can only mean a mistake is an error that names it.
The caller's tensors, the model's buffers and modes, every ``.grad`` and the random generators are left as they were.
"""

import functools
import inspect
import itertools
import sys
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from artpaper.explain import explain
from artpaper.groups import CHECKED

Model = Callable[..., Any]
Maps = dict[str, Tensor]
LENGTHS = ("epsilon", "step_size")  # options in the unit of x


class Given(NamedTuple):
    """What came in, made right: frames (batch, time, dim), label sets (batch, classes), mask (batch, time)."""

    model: "Guarded"
    x: Tensor  # float32 or float64 (batch, time, dim), detached
    y: Any  # 0 and 1 in the type of x (batch, classes); None only where labels are not needed
    mask: Tensor  # bool (batch, time)


class Guarded:
    """A model as attacks and losses ask it: it is given copies in its own type, and its answer is checked.

    Args:
        model: any callable ``model(x, mask)``; ``parameters`` and the like are looked up in it.
        classes: columns that its logits must have; any number if None.
    """

    def __init__(self, model: Model, classes: int | None = None) -> None:
        self.model: Model = model.model if isinstance(model, Guarded) else model
        self.warned: set[str] = getattr(model, "warned", set())  # each thing is said once, however deep the call
        self.classes: int | None = model.classes if isinstance(model, Guarded) and classes is None else classes
        own = _tensors(self.model)
        self.dtype = next((tensor.dtype for tensor in own if tensor.is_floating_point()), None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, x: Tensor, mask: Tensor) -> Tensor:
        """Logits (batch, classes) in the type of ``x``.

        Raises:
            ValueError: they are not one tensor of that shape, or no gradient could flow from them to ``x``.
        """
        return self._logits(self._ask(self.model, x, mask), x)

    def with_maps(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Maps]:
        """The logits, and the head-averaged attention maps of each modality (batch, time, time).

        Args:
            x: frames (batch, time, dim), unit of the normalised features.
            mask: True on real frames (batch, time).
        Returns:
            Logits (batch, classes) and maps by modality.
        Raises:
            ValueError: the model shows no attention, or as for the logits alone.
        """
        try:
            answer = self._ask(self.model, x, mask, return_attention=True)
        except TypeError as error:
            raise ValueError(without_attention(self.model)) from error
        if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[1], Mapping):
            raise ValueError(without_attention(self.model))
        return self._logits(answer[0], x), dict(answer[1])

    def heads(self, x: Tensor, mask: Tensor) -> Maps:
        """The attention map of every head of each modality (batch, heads, time, time)."""
        return self._ask(self.model.attention_heads, x, mask)  # type: ignore[attr-defined]

    def _ask(self, method: Model, x: Tensor, mask: Tensor, **options: Any) -> Any:
        # copies: a model may write into what it is given
        frames = x.to(self.dtype or x.dtype, copy=True)
        try:
            return method(frames, mask.clone(), **options)
        except Exception as error:
            empty = int((~mask).all(dim=1).sum())
            error.add_note(
                f"this came out of the model, asked about frames {tuple(x.shape)} in {frames.dtype} on {x.device}; "
                f"{empty} of the {len(x)} videos have no real frame"
            )
            raise

    def _logits(self, answer: Any, x: Tensor) -> Tensor:
        if not isinstance(answer, Tensor):
            raise ValueError(
                f"the model returned a {type(answer).__name__}, not one tensor of logits (batch, classes); pick them: "
                f"artpaper.attacks.Adapter(model, lambda model, x, mask: {_picked(answer)})"
            )
        if answer.ndim != 2 or len(answer) != len(x) or not answer.is_floating_point() or not answer.shape[1]:
            raise ValueError(
                f"the model returned {tuple(answer.shape)} for {len(x)} videos, in {answer.dtype}; attacks need "
                "logits (batch, classes) of a floating type"
            )
        if self.classes is not None and answer.shape[1] != self.classes:
            raise ValueError(f"the model answers with {answer.shape[1]} classes, y has {self.classes}")
        if x.requires_grad and torch.is_grad_enabled() and not answer.requires_grad:
            raise ValueError(
                "no gradient can flow from the model's answer to x: it detaches or runs under torch.no_grad(), or its "
                "answer is a constant; attacks that only ask (square, random_direction, transfer) can be used on it"
            )
        self._warn_of_probabilities(answer.detach())
        return answer.to(x.dtype)

    def _warn_of_probabilities(self, logits: Tensor) -> None:
        if "probabilities" in self.warned or not logits.numel():
            return
        self.warned.add("probabilities")  # of the first answer, which is about the clean videos
        if ((logits >= 0) & (logits <= 1)).all():
            warn(
                "all outputs of the model lie in [0, 1], as probabilities do; attacks need the logits before the "
                "sigmoid or softmax, or they look for the wrong boundaries and find vanishing gradients"
            )


@contextmanager
def entered(model: Any, x: Any, y: Any, mask: Any, *, labels: bool = True, training: bool = False) -> Iterator[Given]:
    """Check what came in, and keep what happens inside from the caller's state.

    Args:
        model: any callable ``model(x, mask) -> logits (batch, classes)``.
        x: frames (batch, time, dim) of a floating type, finite.
        y: label sets (batch, classes), 0 and 1 of any type.
        mask: which frames are real (batch, time), 0 and 1 of any type.
        labels: whether y is needed; otherwise it may be None.
        training: a loss is taken: train mode is meant, random numbers are drawn and statistics move as they should.
    Raises:
        TypeError: x, y or mask is no tensor, or not of a type that could be meant.
        ValueError: they do not fit one another or the model's device, x is not finite, or y or mask holds other values.
    Warns:
        UserWarning: the model is in train mode.
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
        modules = [part for part in _parts(guarded.model) if isinstance(part, nn.Module)]
        _check_home(_tensors(guarded.model), frames)
        given = Given(guarded, frames, sets, real.bool())
        if training:
            yield given
            return
        busy = [module for module in modules if any(part.training for part in module.modules())]
        if busy and "mode" not in guarded.warned:
            guarded.warned.add("mode")
            warn(
                f"{' and '.join(type(module).__name__ for module in busy)} is in train mode: dropout and batch "
                "statistics make its answers random or depend on the batch; call eval() on it first"
            )
        buffers = [buffer for module in busy for buffer in module.buffers()]
        before = [buffer.clone() for buffer in buffers]
        try:
            with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
                yield given
        finally:
            with torch.no_grad():
                for buffer, value in zip(buffers, before, strict=True):
                    buffer.copy_(value)


def frames_of(x: Any, name: str = "x") -> Tensor:
    """Frames (batch, time, dim) in float32, or float64 if they are; detached and usable in a graph.

    Raises:
        TypeError: no plain tensor of a floating type.
        ValueError: not of three axes, without frames or features, or not finite.
    """
    _check_tensor(name, x)
    if not x.is_floating_point():
        raise TypeError(f"{name} is of {x.dtype}: features are floats; dequantise or convert them first")
    if x.ndim != 3 or 0 in x.shape[1:]:
        raise ValueError(f"{name} has the shape {tuple(x.shape)}; videos are (batch, time, dim), with frames")
    x = _plain(x.detach().to(torch.float64 if x.dtype == torch.float64 else torch.float32))
    finite = x.isfinite()
    if not finite.all():
        video, frame, feature = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"{name} of video {video} (counted from 0) is {x[video, frame, feature].item()} at frame {frame}, feature "
            f"{feature}; features must be finite, those of padding too"
        )
    return x


def labels_of(y: Any, x: Tensor, name: str = "y") -> Tensor:
    """Label sets (batch, classes) in the type and on the device of ``x``.

    Args:
        y: 0 and 1 of any type.
        x: frames (batch, time, dim).
        name: what to call them.
    Raises:
        TypeError: no tensor.
        ValueError: not (batch, classes) for the videos of ``x``, or holds other values than 0 and 1.
    """
    y = zero_one(name, y, x, f"label sets, 1 for every true class: for counts or -1 and 1 pass {name} > 0")
    if y.ndim != 2 or len(y) != len(x) or not y.shape[1]:
        raise ValueError(
            f"{name} has the shape {tuple(y.shape)} for {len(x)} videos; label sets are multi-hot (batch, classes): "
            f"for class numbers pass torch.nn.functional.one_hot({name}, classes)"
        )
    return y.to(x.dtype)


def zero_one(name: str, value: Any, x: Tensor, meaning: str) -> Tensor:
    """A tensor on the device of ``x``, checked to hold 0 and 1 alone, of whatever type and shape.

    Args:
        name: what to call it.
        value: the tensor, of any shape.
        x: whose device it goes to, of any shape.
        meaning: what 1 means, and what may be passed instead.
    Returns:
        The tensor, of the shape it had.
    Raises:
        TypeError: no plain tensor.
        ValueError: it holds another value.
    """
    _check_tensor(name, value)
    value = _plain(value.detach().to(x.device))
    if value.dtype == torch.bool:
        return value
    fits = (value == 0) | (value == 1)
    if not fits.all():
        row = (~fits).flatten(1).any(dim=1).nonzero()[0].item() if value.ndim > 1 else 0
        wrong = value[~fits][0].item()
        raise ValueError(f"{name} of video {row} (counted from 0) holds {wrong!r}; it is 0 or 1: {meaning}")
    return value


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


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line outside this package that made the call."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back and _inside(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _inside(module: str) -> bool:
    return module.partition(".")[0] in {"artpaper", "contextlib", "jaxtyping", "beartype"}


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


def fit_widths(modalities: Any, dim: int) -> bool:
    """Whether these are positive widths by name that add up to ``dim``."""
    if not isinstance(modalities, Mapping):
        return False
    widths = list(modalities.values())
    return all(isinstance(width, int) and width > 0 for width in widths) and sum(widths) == dim


def own_widths(model: Any, x: Tensor) -> dict[str, int] | None:
    """The model's own ``modalities``, where it names widths that add up to the features of ``x`` (batch, time, dim)."""
    own: Any = getattr(model, "modalities", None)
    return dict(own) if fit_widths(own, x.shape[-1]) else None


def _objective(objective: Any) -> Callable[[Tensor, Tensor], Tensor]:
    if not callable(objective):
        raise ValueError(f"objective is a function of (logits, y), not {objective!r}")
    return functools.partial(_one_loss_a_video, objective)


def _one_loss_a_video(objective: Callable[..., Any], logits: Tensor, y: Tensor) -> Tensor:
    values = objective(logits, y)
    if not isinstance(values, Tensor) or values.shape != (len(logits),):
        what = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"the objective gave {what} for {len(logits)} videos; it must give one loss a video")
    return values


def _check_tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}, not a tensor; pass torch.as_tensor({name})")
    if value.layout != torch.strided or value.is_nested or value.is_quantized or value.is_meta or value.is_complex():
        raise TypeError(f"{name} must be a dense tensor of real numbers, not {value.dtype} in {value.layout}")


def _plain(tensor: Tensor) -> Tensor:
    """The tensor, or its copy if it was made under inference mode, which no graph can hold."""
    return tensor.clone() if tensor.is_inference() else tensor


def _check_home(tensors: Iterable[Tensor], x: Tensor) -> None:
    devices = set()
    for tensor in tensors:
        devices.add(tensor.device)
        if tensor.is_inference():
            raise ValueError(
                "the model's tensors were made under torch.inference_mode(), where no gradient can flow through them; "
                "make or load the model outside it"
            )
    if devices and x.device not in devices:
        raise ValueError(f"the model is on {', '.join(map(str, devices))}, x on {x.device}; move one to the other")


def _tensors(model: Any) -> Iterator[Tensor]:
    """The parameters, buffers and other tensors that a callable stands on."""
    for part in _parts(model):
        if isinstance(part, nn.Module):
            yield from itertools.chain(part.parameters(), part.buffers())
        elif isinstance(part, Tensor):
            yield part


def _parts(model: Any) -> list[Any]:
    """The modules and tensors that a callable is or stands on: a method's, a partial's, a function's, an object's."""
    if isinstance(model, nn.Module | Tensor):
        return [model]
    if isinstance(model, Guarded):
        return _parts(model.model)
    if isinstance(model, functools.partial):
        return [part for one in (model.func, *model.args, *model.keywords.values()) for part in _parts(one)]
    if inspect.ismethod(model):
        return _parts(model.__self__)
    if inspect.isfunction(model):
        used = inspect.getclosurevars(model)
        held: Iterable[Any] = (*used.nonlocals.values(), *used.globals.values())
    else:
        held = getattr(model, "__dict__", {}).values()
    return [part for one in held if isinstance(one, nn.Module | Tensor | Guarded) for part in _parts(one)]


def _picked(answer: Any) -> str:
    if isinstance(answer, Mapping):
        return f"model(x, mask)[{'logits' if 'logits' in answer else next(iter(answer), 'logits')!r}]"
    return "model(x, mask).logits" if hasattr(answer, "logits") else "model(x, mask)[0]"


def without_attention(model: Any) -> str:
    """What to say of a model whose attention is asked for and not shown."""
    name = type(model.model if isinstance(model, Guarded) else model).__name__
    return (
        f"{name} shows no attention: model(x, mask, return_attention=True) and model.attention_heads(x, mask) are "
        "needed, as FrameTransformer has them"
    )
