"""A model that is safe to ask, and the way in that makes one: what happens inside changes nothing of the caller's."""

import dis
import functools
import inspect
import itertools
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from artpaper.inputs.tensors import frames_of, labels_of, zero_one

Model = Callable[..., Any]
Maps = dict[str, Tensor]
MOST, DEPTH = 10_000, 6  # objects that are looked at for what a callable stands on, and how deep they lie


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
        outer = _guard(model)
        self.model: Model = model.model if isinstance(model, Guarded) else model
        self.warned: set[str] = outer.warned if outer else set()  # each thing is said once, however deep the call
        self.classes: int | None = outer.classes if outer is model and outer and classes is None else classes
        self.dtype = _usual_type(_tensors(self.model))

    def __getattr__(self, name: str) -> Any:
        if name == "model" or name.startswith("__"):  # not made yet, or copied
            raise AttributeError(name)
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
            if "return_attention" not in str(error):
                raise
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
        return answer.to(x.dtype, copy=True)  # a model may use the memory of its answer again

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
        if not training:  # an attack may write into what it is given
            frames, sets = frames.clone(), None if sets is None else sets.clone()
        given = Given(guarded, frames, sets, real.bool().clone())
        if training:
            yield given
            return
        busy = [module for module in modules if module.training or any(map(_is_moody, module.modules()))]
        if busy and "mode" not in guarded.warned:
            guarded.warned.add("mode")
            names = " and ".join(type(module).__name__ for module in busy)
            warn(
                f"{names} is in train mode: dropout and batch statistics make its answers random or depend on the "
                "batch; call eval() on it first"
            )
        if _guard(model):  # what is around this has it all in its keeping, and noise is not to begin anew here
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


def _is_moody(part: nn.Module) -> bool:
    """Whether a part of a model in eval mode is in train mode, and that changes its answers."""
    return part.training and isinstance(part, nn.modules.dropout._DropoutNd | nn.modules.batchnorm._NormBase)


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


def _guard(model: Any) -> Guarded | None:
    """The guard that a model is already, or that an object which watches one holds."""
    held = getattr(model, "__dict__", {}).get("model")
    return next((one for one in (model, held) if isinstance(one, Guarded)), None)


def _usual_type(tensors: Iterable[Tensor]) -> torch.dtype | None:
    """The floating type of most numbers; a single scale or norm may be of another."""
    counts: Counter[torch.dtype] = Counter()
    for tensor in tensors:
        if tensor.is_floating_point():
            counts[tensor.dtype] += max(1, tensor.numel())
    return max(counts, key=counts.__getitem__) if counts else None


def _tensors(model: Any) -> Iterator[Tensor]:
    """The parameters, buffers and other tensors that a callable stands on."""
    for part in _parts(model):
        if isinstance(part, nn.Module):
            yield from itertools.chain(part.parameters(), part.buffers())
        else:
            yield part


def _parts(model: Any) -> list[nn.Module | Tensor]:
    """The modules and tensors that a callable is or stands on, through functions, methods, partials and containers."""
    found: list[nn.Module | Tensor] = []
    seen: set[int] = set()
    ahead = [(model, 0)]
    while ahead and len(seen) < MOST:
        one, depth = ahead.pop()
        if id(one) in seen or depth > DEPTH:
            continue
        seen.add(id(one))
        if isinstance(one, nn.Module | Tensor):
            found.append(one)
        else:
            ahead += [(inner, depth + 1) for inner in _held(one)]
    return found


def _held(one: Any) -> Iterable[Any]:
    """What a callable or container holds."""
    if isinstance(one, dict):
        return one.values()
    if isinstance(one, list | tuple):
        return one
    if isinstance(one, functools.partial):
        return (one.func, *one.args, *one.keywords.values())
    if inspect.ismethod(one):
        return (one.__self__, one.__func__)
    if inspect.isfunction(one):
        used = inspect.getclosurevars(one)
        # getclosurevars takes the names of attributes for globals, too
        names = {line.argval for line in dis.get_instructions(one) if line.opname == "LOAD_GLOBAL"}
        named = (value for name, value in used.globals.items() if name in names)
        given = (*(one.__defaults__ or ()), *(one.__kwdefaults__ or {}).values())
        return (*used.nonlocals.values(), *named, *given, getattr(one, "__wrapped__", None))
    if inspect.ismodule(one) or inspect.isclass(one) or inspect.isbuiltin(one):
        return ()
    slots = [getattr(one, name, None) for name in getattr(type(one), "__slots__", ()) if isinstance(name, str)]
    return (*getattr(one, "__dict__", {}).values(), *slots)


def _picked(answer: Any) -> str:
    if isinstance(answer, Mapping):
        return f"model(x, mask)[{'logits' if 'logits' in answer else next(iter(answer), 'logits')!r}]"
    return "model(x, mask).logits" if hasattr(answer, "logits") else "model(x, mask)[0]"
