"""A value that has been differentiated already, and is used like any other: what is known is not computed again."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from artpaper.shapes import Frames, Scalar


def gone_back(
    loss: Scalar, x: Frames, parameters: Iterable[nn.Parameter], *, keep: bool, scale: float = 1.0
) -> tuple[Scalar, Frames]:  # fmt: skip
    """The loss with its gradient by the parameters attached, and ``scale`` times that by x, of one backward pass.

    Args:
        loss: with its graph.
        x: the leaf that its graph begins at.
        parameters: the model's; others that the graph ends in are found there.
        keep: whether the graph is needed for more.
        scale: of the gradients on their way back.
    """
    trained: list[Tensor] = [parameter for parameter in parameters if parameter.requires_grad]
    registered = {id(tensor) for tensor in (x, *trained)}
    trained += [leaf for leaf in _leaves(loss) if id(leaf) not in registered]
    with _without_hooks(trained):
        raised = torch.full_like(loss, scale)
        gradient, *known = torch.autograd.grad(loss, [x, *trained], raised, retain_graph=keep, allow_unused=True)
    return _KnownGradient.apply(loss.detach(), known, scale, *trained), gradient


def _leaves(value: Tensor) -> Iterator[Tensor]:
    """What a graph ends in, such as parameters that a module uses and has not registered."""
    seen: set[Any] = set()
    ahead = [value.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in seen:
            seen.add(node)
            ahead += [inner for inner, _ in node.next_functions]
            if hasattr(node, "variable"):
                yield node.variable


@contextmanager
def _without_hooks(parameters: list[Tensor]) -> Iterator[None]:
    """Gradients in here pass by the parameters' own hooks, which are called on the way back through the whole loss."""
    hooked = [(parameter, parameter._backward_hooks) for parameter in parameters if parameter._backward_hooks]
    for parameter, _ in hooked:
        parameter._backward_hooks = None
    try:
        yield
    finally:
        for parameter, hooks in hooked:
            parameter._backward_hooks = hooks


class _KnownGradient(torch.autograd.Function):
    """A value whose gradient with respect to the parameters has been computed already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor | None], scale: float, *parameters: Tensor) -> Tensor:
        ctx.gradients, ctx.scale = gradients, scale
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        if torch.is_grad_enabled():  # create_graph: what is known has no graph, so the second gradient would lack it
            raise RuntimeError("the gradient of this loss cannot be differentiated: its clean part is computed already")
        factor = upstream[0] / ctx.scale
        return None, None, None, *(None if gradient is None else gradient * factor for gradient in ctx.gradients)
