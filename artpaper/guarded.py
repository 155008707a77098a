"""A model as attacks and losses ask it, whatever callable it is: what it stands on, and its answers, checked."""

import dis
import functools
import inspect
import sys
import types
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from artpaper.shapes import Heads, Maps

Model = Callable[..., Any]
MOST, DEPTH = 10_000, 6  # objects that are looked at for what a callable stands on, and how deep they lie


class Guarded:
    """A model as attacks and losses ask it: it is given copies in its own type, and its answer is checked.

    ``parameters`` and the like are looked up in the model; its logits have ``classes`` columns, any number if None.
    """

    def __init__(self, model: Model, classes: int | None = None) -> None:
        guard = model if isinstance(model, Guarded) else None
        outer = guard_of(model)
        self.model: Model = guard.model if guard else model
        self.parts: list[nn.Module | Tensor] = guard.parts if guard else _parts(model)
        self.warned: set[str] = outer.warned if outer else set()  # each thing is said once, however deep the call
        self.classes: int | None = guard.classes if guard and classes is None else classes
        counts: Counter[torch.dtype] = Counter()
        for tensor in tensors_of(self.parts):
            if tensor.is_floating_point():
                counts[tensor.dtype] += max(1, tensor.numel())
        # the type of most numbers; a single scale or norm may be of another
        self.dtype = max(counts, key=counts.__getitem__) if counts else None

    def __getattr__(self, name: str) -> Any:
        if name == "model" or name.startswith("__"):  # not made yet, or copied
            raise AttributeError(name)
        return getattr(self.model, name)

    def type_for(self, x: Tensor) -> torch.dtype:
        """The type that the model computes in when asked about x (batch, time, dim), autocast around it included."""
        own, device = self.dtype or x.dtype, x.device.type
        cast = own == torch.float32 and torch.is_autocast_enabled(device)
        return torch.get_autocast_dtype(device) if cast else own

    def __call__(self, x: Tensor, mask: Tensor) -> Tensor:
        """Logits (batch, classes) in the type of ``x``, or a ValueError where the answer cannot be that."""
        return self._logits(self._ask(self.model, x, mask), x)

    def with_maps(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Maps]:
        """Logits (batch, classes) and head-averaged attention maps by modality; a ValueError where it shows none."""
        try:
            answer = self._ask(self.model, x, mask, return_attention=True)
        except TypeError as error:
            if "return_attention" not in str(error):
                raise
            raise ValueError(without_attention(self.model)) from error
        if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[1], Mapping):
            raise ValueError(without_attention(self.model))
        return self._logits(answer[0], x), self._maps(answer[1], x, mask)

    def heads(self, x: Tensor, mask: Tensor) -> Heads:
        """The attention map of every head of each modality (batch, heads, time, time)."""
        answer = self._ask(self.model.attention_heads, x, mask)  # type: ignore[attr-defined]
        return self._maps(answer, x, mask, "heads, ")

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
        if "probabilities" not in self.warned and answer.numel():
            self.warned.add("probabilities")  # of the first answer, which is about the clean videos
            if ((answer >= 0) & (answer <= 1)).all():
                warn(
                    "all outputs of the model lie in [0, 1], as probabilities do; attacks need the logits before the "
                    "sigmoid or softmax, or they look for the wrong boundaries and find vanishing gradients"
                )
        return answer.to(x.dtype, copy=True)  # a model may use the memory of its answer again

    def _maps(self, answer: Any, x: Tensor, mask: Tensor, heads: str = "") -> dict[str, Tensor]:
        """Attention by modality; an error or a warning where a change of it is not what it seems or has no gradient."""
        if not isinstance(answer, Mapping) or not answer:
            raise ValueError(without_attention(self.model))
        outside = ~(mask[:, :, None] & mask[:, None, :])  # (B, T, T)
        for name, weights in answer.items():
            fits = isinstance(weights, Tensor) and weights.ndim == (4 if heads else 3) and weights.is_floating_point()
            if not fits or (len(weights), *weights.shape[-2:]) != outside.shape:
                what = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
                raise ValueError(
                    f"the model shows {what} as its attention {name!r}; needed are weights (batch, {heads}time, time)"
                    f"{'' if heads else ' and their mean over heads'}"
                )
            given = weights.detach()
            padding = outside[:, None] if heads else outside
            if "maps" not in self.warned and ((given < 0) | (padding & (given != 0))).any():
                raise ValueError(
                    f"the model's attention {name!r} is below 0, or not 0 on padding: needed are weights after the "
                    "softmax, times mask[:, :, None] & mask[:, None, :], or what is no frame is compared"
                )
            still = x.requires_grad and torch.is_grad_enabled() and not weights.requires_grad
            # uniform attention is a constant by its nature: one value a map, wherever it is not 0
            if (
                still
                and "still" not in self.warned
                and not torch.equal(given, given.amax(dim=(-2, -1), keepdim=True) * (given > 0))
            ):
                self.warned.add("still")
                warn(
                    f"no gradient flows from the model's attention {name!r} to x or its parameters, so a term or an "
                    "attack of the attention moves nothing: it is detached, or a constant"
                )
        if "maps" not in self.warned and outside.any():  # each look is a wait for the device
            self.warned.add("maps")
        return dict(answer)


def guard_of(model: Any) -> Guarded | None:
    """The guard that a model is already, or that an object which watches one holds."""
    held = getattr(model, "__dict__", {}).get("model")
    return next((guard for guard in (model, held) if isinstance(guard, Guarded)), None)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line outside this package that made the call."""
    level, frame = 1, sys._getframe(0)
    ours = {"artpaper", "contextlib", "jaxtyping", "beartype"}
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ours:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def without_attention(model: Any) -> str:
    """What to say of a model whose attention is asked for and not shown."""
    name = type(model.model if isinstance(model, Guarded) else model).__name__
    return (
        f"{name} shows no attention: model(x, mask, return_attention=True) and model.attention_heads(x, mask) are "
        "needed, as FrameTransformer has them"
    )


def tensors_of(parts: Iterable[Any]) -> Iterator[Any]:
    """The parameters and buffers of the modules, and the tensors, that a model stands on."""
    for part in parts:
        yield from (*part.parameters(), *part.buffers()) if isinstance(part, nn.Module) else (part,)


def _parts(model: Any) -> list[nn.Module | Tensor]:
    """The modules and tensors that a callable is or stands on, through functions, methods, partials and containers."""
    parts: list[nn.Module | Tensor] = []
    seen: set[int] = set()
    ahead = deque([(model, 0)])
    while ahead and len(seen) < MOST:
        item, depth = ahead.popleft()  # the nearest first
        if id(item) in seen or depth > DEPTH:
            continue
        seen.add(id(item))
        if isinstance(item, nn.Module | Tensor):
            parts.append(item)
            item = [vars(item).get("call")]  # an adapter's: what it stands on need not be registered
        ahead.extend((inner, depth + 1) for inner in _held(item))
    return parts


def _held(item: Any) -> Iterable[Any]:
    """What a callable or container holds."""
    if isinstance(item, dict):
        return item.values()
    if isinstance(item, list | tuple):
        return item
    if isinstance(item, functools.partial):
        return (item.func, *item.args, *item.keywords.values())
    if inspect.ismethod(item):
        return (item.__self__, item.__func__)
    if inspect.isfunction(item):
        cells = zip(item.__code__.co_freevars, item.__closure__ or (), strict=True)
        own = {name: cell.cell_contents for name, cell in cells if cell != types.CellType()}  # one may not be set yet
        defaults = (*(item.__defaults__ or ()), *(item.__kwdefaults__ or {}).values())
        named = _named(item.__code__, own, item.__globals__)
        return (*own.values(), *named, *defaults, getattr(item, "__wrapped__", None))
    if inspect.ismodule(item) or inspect.isclass(item) or inspect.isbuiltin(item):
        return ()
    slots = [getattr(item, name, None) for name in getattr(type(item), "__slots__", ()) if isinstance(name, str)]
    of_class = [
        value
        for kind in (type(item).__mro__ if callable(item) else ())
        for name, value in vars(kind).items()
        if name == "__call__" or isinstance(value, nn.Module)
    ]
    return (*getattr(item, "__dict__", {}).values(), *slots, *of_class)


def _named(code: types.CodeType, own: Mapping[str, Any], names: Mapping[str, Any]) -> Iterator[Any]:
    """What a function and those inside it load by name; of modules and classes the nn.Modules looked up in them."""
    value = None
    for line in dis.get_instructions(code):
        if line.opname in ("LOAD_GLOBAL", "LOAD_DEREF"):
            value = (names if line.opname == "LOAD_GLOBAL" else own).get(line.argval)
            yield value
        elif line.opname in ("LOAD_ATTR", "LOAD_METHOD") and (inspect.ismodule(value) or inspect.isclass(value)):
            value = inspect.getattr_static(value, line.argval, None)  # a module may run anything when it is asked
            if isinstance(value, nn.Module):  # other libraries' functions would lead far away
                yield value
        elif line.opname not in ("CACHE", "EXTENDED_ARG", "PRECALL", "PUSH_NULL"):
            value = None
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _named(inner, own, names)


def _picked(answer: Any) -> str:
    if isinstance(answer, Mapping):
        return f"model(x, mask)[{'logits' if 'logits' in answer else next(iter(answer), 'logits')!r}]"
    return "model(x, mask).logits" if hasattr(answer, "logits") else "model(x, mask)[0]"
