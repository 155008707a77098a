"""The process's memory: kept between steps, and, when it runs out, which parameter to lower."""

import ctypes
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from pipeline.base.errors import MemoryShortError

# what PyTorch says on the CPU, and CUDA's libraries beside torch.OutOfMemoryError
SIGNS = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "std::bad_alloc")

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt(3)


def keep_freed() -> None:
    """From now on, and for good, the process keeps the memory it frees, where the C library is glibc.

    glibc would hand large arrays back at once, and the system would clear their pages anew for every layer of every
    step: a tenth of a step's time at the paper's shape. Results are not touched.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)  # never


@contextmanager
def lower_if_short(what: str, parameters: Mapping[str, object]) -> Iterator[None]:
    """Turn a lack of memory, of the machine or of its GPU, into an error that says which parameters to lower.

    ``what`` is at work in here, such as ``training art seed 0``; ``parameters`` are those that the memory grows with,
    with their values, the one to lower first at the front. Other errors are passed on as they are.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        reason = str(error)
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(sign in reason for sign in SIGNS):
            raise
        first = reason.strip().partition("\n")[0] or type(error).__name__
        remedy = " or ".join(f"{name} (now {value})" for name, value in parameters.items())
        raise MemoryShortError(
            f"{what}: out of memory ({first}); lower {remedy}, or end other programs, and run again"
        ) from None
