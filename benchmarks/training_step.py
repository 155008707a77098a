"""Time and memory of a training step at the paper's shape: Non-ART, ART and A-ART side by side."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from artpaper.losses import loss_for
from artpaper.models import FrameTransformer
from artpaper.settings import Loss, Model
from benchmarks.measure import Line, apart, matrix_peak, peak_bytes, take_turns
from benchmarks.straightforward import StraightforwardTransformer, three_pass_step
from pipeline.base.memory import keep_freed
from pipeline.train.device import best_device, native_precision

MODALITIES = {"rgb": 1024, "audio": 128}
LOSSES = {
    "non_art": Loss(alpha=0.0, beta=0.0),
    "art": Loss(alpha=1.0, epsilon=0.5, beta=0.0),
    "a_art": Loss(alpha=1.0, epsilon=0.5, beta=0.001),
}


def training_step(batch: int = 64, time: int = 300, classes: int = 317, rounds: int = 5) -> list[Line]:
    """The lines about a step.

    Args:
        batch: videos a step.
        time: frames a video, all of them real.
        classes: K.
        rounds: how often each step is timed.
    """
    precision = native_precision(best_device())
    keep_freed()  # as training does
    data = videos(batch, time, classes)
    model = FrameTransformer(Model(), MODALITIES, classes).to(best_device()).train()
    step(model, LOSSES["a_art"], videos(2, 8, classes))()  # what is loaded on first use is no one's time
    calls = {name: step(model, loss, data) for name, loss in LOSSES.items()}
    times = take_turns(calls, rounds, warm_up=False)
    with FlopCounterMode(display=False) as counted:  # matrix products, those that autograd skips not counted
        calls["non_art"]()
    reached = counted.get_total_flops() / times.median("non_art")
    fastest = matrix_peak(precision)
    shape = {"batch": batch, "frames": time, "classes": classes, "precision": precision}
    lines = [
        Line("ART's step", times.ratio("art", "non_art"), 2.15, False, "x", "Non-ART's step", times.details() | shape),
        Line("A-ART's step", times.ratio("a_art", "non_art"), 2.35, False, "x", "Non-ART's step", shape),
        Line("Non-ART's arithmetic", 100 * reached / fastest, 45, True, "%", f"matrix products, {precision}",
             shape | {"reached_gflop_s": round(reached / 1e9, 1), "peak_gflop_s": round(fastest / 1e9, 1)}),
    ]  # fmt: skip
    ours, theirs = (apart(peak, own, batch, time, classes) for own in (True, False))
    held = shape | {"ours_mb": round(ours / 1e6), "straightforward_mb": round(theirs / 1e6)}
    return [*lines, Line("A-ART's peak memory", 100 * ours / theirs, 60, False, "%", "three passes, all maps", held)]


def peak(own: bool, batch: int, time: int, classes: int) -> int:
    """Bytes that a step of A-ART holds at most, ours or the usual code's; what it frees is not kept."""
    kind, take = (FrameTransformer, step) if own else (StraightforwardTransformer, usual_step)
    model = kind(Model(), MODALITIES, classes).to(best_device()).train()
    take(model, LOSSES["a_art"], videos(2, 8, classes))()  # what is loaded on first use is no one's memory
    model.zero_grad(set_to_none=True)
    return peak_bytes(take(model, LOSSES["a_art"], videos(batch, time, classes)))


def videos(batch: int, time: int, classes: int, dim: int = sum(MODALITIES.values())) -> tuple[Tensor, Tensor, Tensor]:
    """Random frames (batch, time, dim) of norm 1, label sets, and a mask without padding."""
    device = best_device()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, time, dim, generator=generator)
    y = (torch.rand(batch, classes, generator=generator) < 3 / classes).float()
    x /= x.norm(dim=-1, keepdim=True)
    return x.to(device), y.to(device), torch.ones(batch, time, dtype=torch.bool, device=device)


def step(model: FrameTransformer, loss: Loss, data: tuple[Tensor, Tensor, Tensor]) -> Callable[[], None]:
    """One forward and backward pass as training makes it, without the optimiser, which costs every model the same."""
    precision = native_precision(best_device())
    parameters = list(model.parameters())

    def call() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(best_device().type, torch.bfloat16, enabled=precision == "bf16"):
            value, _ = loss_for(loss)(model, *data, loss)
        value.backward(inputs=parameters)

    return call


def usual_step(
    model: StraightforwardTransformer, loss: Loss, data: tuple[Tensor, Tensor, Tensor]
) -> Callable[[], None]:
    """The same of A-ART as usual code makes it."""
    precision = native_precision(best_device())

    def call() -> None:
        with torch.autocast(best_device().type, torch.bfloat16, enabled=precision == "bf16"):
            three_pass_step(model, *data, loss)

    return call
