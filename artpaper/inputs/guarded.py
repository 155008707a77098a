"""A model that is safe to ask, and the way in that makes one: what happens inside changes nothing of the caller's."""

import functools
import inspect
import itertools
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from artpaper.inputs.tensors import frames_of, labels_of, zero_one

Model = Callable[..., Any]
Maps = dict[str, Tensor]


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


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line outside this package that made the call."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back and _inside(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def without_attention(model: Any) -> str:
    """What to say of a model whose attention is asked for and not shown."""
    name = type(model.model if isinstance(model, Guarded) else model).__name__
    return (
        f"{name} shows no attention: model(x, mask, return_attention=True) and model.attention_heads(x, mask) are "
        "needed, as FrameTransformer has them"
    )


def _inside(module: str) -> bool:
    return module.partition(".")[0] in {"artpaper", "contextlib", "jaxtyping", "beartype"}


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
