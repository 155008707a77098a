"""What an attack leaves as it was: the buffers of the model, the random generators, PyTorch's own switches."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn


@contextmanager
def kept(modules: Iterable[nn.Module], device: torch.device) -> Iterator[None]:
    """Whatever is asked of these modules in here, their buffers and the generators are afterwards as they were."""
    before = [
        (part, name, buffer, buffer.clone())
        for module in modules
        for part in module.modules()
        for name, buffer in part.named_buffers(recurse=False)
    ]
    try:
        with _one_path, forked(device):
            yield
    finally:
        for part, name, buffer, value in before:
            setattr(part, name, buffer)
            if not torch.equal(buffer, value):
                buffer.data.copy_(value)  # not counted as a change: a graph of the caller's may still wait


class _OnePath:
    """PyTorch's own encoder answers otherwise without a gradient than with one where padding is pooled; not in here.

    The switch is the process's: the last thread that leaves puts it back.
    """

    def __init__(self) -> None:
        self.lock, self.inside, self.fast = threading.Lock(), 0, True

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.fast = torch.backends.mha.get_fastpath_enabled()
                torch.backends.mha.set_fastpath_enabled(False)
            self.inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                torch.backends.mha.set_fastpath_enabled(self.fast)


_one_path = _OnePath()


def forked(device: torch.device) -> AbstractContextManager[None]:
    """What is drawn in here, on the CPU and on a device, leaves their generators as they were."""
    own = device.type != "cpu"
    return torch.random.fork_rng([device] if own else [], device_type=device.type if own else "cuda")
