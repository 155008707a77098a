"""foolbox as the judge of gradient ascents: its model without bounds, its attacks with our start and our loss."""

from collections.abc import Callable

import eagerpy as ep
import foolbox
import torch
from torch import Tensor, nn

from tests.attacks.test_one_step import oracle

Objective = Callable[[Tensor, Tensor], Tensor]


def run(
    attack: type, net: nn.Module, x: Tensor, y: Tensor, mask: Tensor, objective: Objective, epsilon: float,
    start: Tensor | None = None, **options: object,
) -> Tensor:  # fmt: skip
    """The perturbation of a foolbox attack that raises our objective, begun where we say."""

    class Ours(attack):
        def get_loss_fn(self, model, labels):
            return lambda inputs: ep.astensor(objective(model(inputs).raw, y).sum())

        def get_random_start(self, x0, epsilon):
            return x0 + ep.astensor(start)

    dummy = foolbox.criteria.Misclassification(torch.zeros(len(x), dtype=torch.long))
    found = Ours(random_start=start is not None, **options).run(oracle(net, mask), x, dummy, epsilon=epsilon)
    net.zero_grad()  # foolbox leaves gradients in the parameters
    return found.detach() - x
