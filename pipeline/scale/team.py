"""The processes that train one model together, each on its own videos of every batch.

What makes them a team is torch.distributed's process group, whoever set it up; a process without one is a team of its
own, and nothing here changes a bit of what it does. DistributedDataParallel is not used: the losses differentiate the
clean pass themselves and hand the known gradient over, so its hooks would miss that part or send it by itself. Here
the gradients of all passes, and the parts of the loss with them, go around once a step, after the backward pass.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import distributed, nn

from artpaper.losses import COUNTED, PARTS, Parts

Value = TypeVar("Value")


@dataclass(frozen=True)
class Team:
    """The place of this process among those that train one model."""

    rank: int = 0  # the first one writes the files
    size: int = 1

    @classmethod
    def here(cls) -> "Team":
        """The team of this process."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls()

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes the files."""
        return self.rank == 0

    def average(self, parameters: Iterable[nn.Parameter], parts: Parts, videos: int) -> Parts:
        """Make the gradients those of the whole batch, and the parts of its loss too: one message, to all from all.

        A mean over a share of the batch counts as much as the share has videos, so together they are the batch's mean:
        afterwards ``parameters`` have its gradients, the same bits in every process, and the parts of its loss are
        returned, on the CPU. A batch may have too few videos for all; then ``videos`` is 0 and there are no ``parts``.
        """
        if self.size == 1:
            return dict(parts)
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        weights = [float(videos) if name in parts else 0.0 for name in PARTS]
        numbers = torch.tensor([*weights, *weights], dtype=trained[0].dtype, device=trained[0].device)
        for place, name in enumerate(PARTS):
            if name in parts:
                numbers[place] = parts[name] * (1 if name in COUNTED else videos)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad * videos for p in trained]
        message = torch.cat([numbers, *(gradient.flatten() for gradient in gradients)])
        distributed.all_reduce(message)
        numbers, summed = message[: len(numbers)], message[len(numbers) :]
        summed /= numbers[len(PARTS) :].max()  # the videos of the batch
        for parameter, gradient in zip(trained, summed.split([p.numel() for p in trained]), strict=True):
            parameter.grad = gradient.view_as(parameter)
        sums = zip(PARTS, *numbers.double().view(2, -1).cpu(), strict=True)  # the one wait of a team's step
        return {name: value if name in COUNTED else value / weight for name, value, weight in sums if weight}

    def tell(self, value: Value) -> Value:
        """What the first process holds, in every process; anything that can be pickled, tensors on the CPU."""
        if self.size == 1:
            return value
        box = [value if self.leads else None]
        distributed.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]

    def gather(self, value: Value) -> list[Value]:
        """What every process holds, by rank, in every process."""
        if self.size == 1:
            return [value]
        box: list[Value | None] = [None] * self.size
        distributed.all_gather_object(box, value)
        return box  # type: ignore[return-value]

    def own_batches(self, videos: int, size: int) -> list[int]:
        """Positions of the videos in every so-manieth batch: whole ones, whose scores are those of one process."""
        return np.flatnonzero(np.arange(videos) // size % self.size == self.rank).tolist()


ALONE = Team()
