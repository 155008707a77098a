"""How things are measured here: side by side in one process, taking turns, medians; and what the machine could do."""

import ctypes
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from pipeline.paper.publish import processor
from pipeline.train.device import best_device, native_precision

Call = Callable[[], object]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Line:
    """One line of the table: a number, what it is held against, and where it should be.

    Attributes:
        name: what was measured.
        measured: the number, in ``unit``.
        target: where it should be; NaN if there is no target.
        at_least: whether it should be at least the target, or at most.
        unit: "x" for a ratio, "%", "GB/s", "s".
        against: what the number is a ratio to.
        details: what it was made from: medians and their spread, sizes.
        bound: what it stands at where the target is missed, measured too.
    """

    name: str
    measured: float
    target: float
    at_least: bool
    unit: str
    against: str
    details: Mapping[str, Any] = field(default_factory=dict)
    bound: str = ""

    @property
    def met(self) -> bool:
        """Whether the target was met."""
        return self.measured >= self.target if self.at_least else self.measured <= self.target

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "met": self.met}


@dataclass(frozen=True)
class Times:
    """Seconds of several calls that took turns, round by round."""

    seconds: Mapping[str, list[float]]

    def median(self, name: str) -> float:
        """Seconds of one call."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, over: str) -> float:
        """Median over rounds of the ratio within a round, which what slows the whole machine down leaves alone."""
        return statistics.median(a / b for a, b in zip(self.seconds[name], self.seconds[over], strict=True))

    def details(self) -> dict[str, Any]:
        """Median, least and most seconds of each call, and the number of rounds."""
        found: dict[str, Any] = {
            name: {"median_s": round(statistics.median(values), 5), "least_s": round(min(values), 5),
                   "most_s": round(max(values), 5)}
            for name, values in self.seconds.items()
        }  # fmt: skip
        return found | {"rounds": len(next(iter(self.seconds.values())))}


def take_turns(calls: Mapping[str, Call], rounds: int = 5, warm_up: bool = True) -> Times:
    """Time several calls, each once a round.

    Args:
        calls: what to time, by name.
        rounds: how often each is timed, at least 5 for a number that is reported.
        warm_up: call each once before; what is loaded on first use is no one's time.
    """
    if warm_up:
        for call in calls.values():
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            gc.collect()
            _settle()
            started = time.perf_counter()
            call()
            _settle()
            seconds[name].append(time.perf_counter() - started)
    return Times(seconds)


def apart(work: Callable[..., Result], *given: object) -> Result:
    """What a function gives in a process of its own, where nothing is held from before and nothing stays behind.

    Args:
        work: a function of a module, so that the other process can import it.
        given: its arguments.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        return fresh.submit(work, *given).result()


def peak_bytes(call: Call) -> int:
    """Bytes the call holds at most, on top of what was held before: of the GPU's memory, or of the process on Linux."""
    gc.collect()
    if best_device().type != "cpu":
        memory = torch.get_device_module(best_device())
        memory.reset_peak_memory_stats()
        before = memory.memory_allocated()
        call()
        return memory.max_memory_allocated() - before
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 2**20)  # M_MMAP_THRESHOLD: arrays from 1 MiB on are given back when they are freed
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = held("VmRSS")
    call()
    return held("VmHWM") - before


def matrix_peak(precision: str, size: int = 2048) -> float:
    """FLOP/s of square matrix products in the precision that training takes, the best of several."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    one, other = (torch.randn(size, size, device=best_device()).to(dtype) for _ in range(2))
    times = take_turns({"product": lambda: one @ other}, rounds=15)
    return 2 * size**3 / min(times.seconds["product"])


def copy_rate(megabytes: int = 512) -> float:
    """Bytes a second that NumPy copies in memory, the best of several."""
    source = np.ones(megabytes * 2**20, np.uint8)
    target = np.empty_like(source)
    times = take_turns({"copy": lambda: np.copyto(target, source)}, rounds=7)
    return source.nbytes / min(times.seconds["copy"])


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    device = best_device()
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "device": "cpu" if device.type == "cpu" else torch.get_device_module(device).get_device_name(),
        "precision": native_precision(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def held(name: str) -> int:
    """Bytes of memory of this process, on Linux.

    Args:
        name: VmRSS now, VmHWM at most so far, RssAnon without mapped files.
    """
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def _settle() -> None:
    if best_device().type != "cpu":
        torch.accelerator.synchronize()
