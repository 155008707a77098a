"""A GPU at the paper's shape, 300 frames of 1,024 + 128 features and 317 classes, in one go of eight minutes at most.

    python -m benchmarks.gpu                        # writes benchmarks/results/gpu.json and gpu.md
    python -m benchmarks.gpu --device cpu --small   # the same code on small sizes, but for the compiler, which is slow

Both files are written after every row, so a time-out keeps what was measured; what there was no time for is named.
"""

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch._functorch.config
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from artpaper.attacks import deepfool, pgd
from artpaper.losses import loss_for
from artpaper.models import FrameTransformer
from artpaper.settings import Loss, Model
from benchmarks.measure import machine, matrix_peak, peak_bytes, take_turns
from benchmarks.training_step import LOSSES, MODALITIES, step, videos
from pipeline.base.atomic import atomic_file
from pipeline.base.git import revision
from pipeline.base.groups import Compute, Data, Features, Synthetic
from pipeline.base.parameters import Params
from pipeline.data.batches import model_inputs
from pipeline.data.store import FrameStore
from pipeline.paper.style import markdown_table
from pipeline.prepare.prepare import prepare
from pipeline.train.device import best_device, native_precision

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]  # "what" was measured, "with" which sizes, and numbers by unit
Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Size:
    """How much is measured; the default is for a GPU.

    Attributes:
        batches: of the steps; those that do not fit in memory are left out.
        frames, classes, modalities: the shape.
        matrix: side of the matrices whose product is the peak.
        stored: videos in the store that is read.
        learnt: videos, frames and steps of the training that a CPU does, too.
        rounds: how often each is timed.
        seconds: after so many no other row is begun.
    """

    batches: Sequence[int] = tuple(64 * 2**power for power in range(10))
    frames: int = 300
    classes: int = 317
    modalities: dict[str, int] = field(default_factory=lambda: dict(MODALITIES))
    matrix: int = 8192
    stored: int = 512
    learnt: tuple[int, int, int] = (16, 60, 20)
    rounds: int = 7
    seconds: float = 360

    def model(self, dropout: float = 0.1) -> FrameTransformer:
        """The same weights every time, on the device."""
        torch.manual_seed(0)
        return FrameTransformer(Model(dropout=dropout), self.modalities, self.classes).to(best_device()).train()

    def videos(self, batch: int, frames: int | None = None) -> Batch:
        """Random ones, on the device; those of the first batch again and again, for a CPU draws them."""
        first = self.batches[0]
        made = videos(min(batch, first), frames or self.frames, self.classes, sum(self.modalities.values()))
        return tuple(torch.cat([tensor] * max(1, batch // first)) for tensor in made)  # type: ignore[return-value]


SMALL = Size((2, 4), 6, 8, {"rgb": 16, "audio": 8}, 64, 20, (4, 5, 3), 1, 600)


def steps(size: Size) -> Iterator[Row]:
    """Each model's step, by ever larger batches until none fits; the peak is that of matrix products."""
    precision = native_precision(best_device())
    peak = matrix_peak(precision, size.matrix)
    yield {"what": "matrix products", "with": f"{precision}, {size.matrix} a side", "TFLOP/s": peak / 1e12}
    fits, shortest = dict(LOSSES), 0.0
    for batch in size.batches:
        for name, loss in list(fits.items()):
            try:
                row = _step(name, size.model(), loss, size.videos(batch), size.rounds, peak)
                shortest = row["ms"] if name == "non_art" else shortest
                yield row | {"times Non-ART's": row["ms"] / shortest}
            except torch.OutOfMemoryError:
                del fits[name]
                yield {"what": f"{name}'s step", "with": f"{batch} videos", "does not fit": True}
        if not fits:
            return


def compiled(size: Size) -> Iterator[Row]:
    """The same of the smallest batch with the model compiled, which training does not do."""
    torch._functorch.config.donated_buffer = False  # the clean pass of A-ART is gone back through twice
    peak = matrix_peak(native_precision(best_device()), size.matrix)
    for name, loss in LOSSES.items():
        model = torch.compile(size.model())
        yield _step(f"compiled {name}", model, loss, size.videos(size.batches[0]), size.rounds, peak)


def _step(name: str, model: Any, loss: Loss, data: Batch, rounds: int, peak: float) -> Row:
    call = step(model, loss, data)
    call()  # what is loaded or compiled on first use is no one's time
    held = peak_bytes(call)
    with FlopCounterMode(display=False) as counted:
        step(getattr(model, "_orig_mod", model), loss, data)()
    seconds = take_turns({"step": call}, rounds).median("step")
    reached = counted.get_total_flops() / seconds
    return {"what": f"{name}'s step", "with": f"{len(data[0])} videos", "ms": 1e3 * seconds,
            "videos/s": len(data[0]) / seconds, "% of matrix products": 100 * reached / peak,
            "GB at most": held / 1e9}  # fmt: skip


def training(size: Size) -> Iterator[Row]:
    """Some steps of Adam in float32 without dropout, on the device and on the CPU: losses, and what a step takes."""
    count, frames, taken = size.learnt
    data = size.videos(count, frames)
    for name, loss in LOSSES.items():
        model = size.model(dropout=0.0)
        other = copy.deepcopy(model).cpu()
        losses, seconds = learn(model, loss, data, taken)
        expected, longer = learn(other, loss, tuple(tensor.cpu() for tensor in data), taken)
        apart = max(abs(one / two - 1) for one, two in zip(losses, expected, strict=True))
        yield {"what": f"{name}, trained", "with": f"{taken} steps of {count} videos of {frames} frames",
               "loss": losses[-1], "on the CPU": expected[-1], "largest relative difference": apart,
               "ms a step": 1e3 * seconds, "ms on the CPU": 1e3 * longer}  # fmt: skip


def learn(model: FrameTransformer, loss: Loss, data: Any, taken: int) -> tuple[list[float], float]:
    """The loss before each of so many steps on the same videos, and a step's seconds, the first one left out."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    values, seconds = [], []
    for _ in range(taken):
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        value, _ = loss_for(loss)(model, *data, loss)
        value.backward()
        optimizer.step()
        values.append(value.item())  # waits for the step
        seconds.append(time.perf_counter() - started)
    return values, statistics.median(seconds[1:])


def attacks(size: Size) -> Iterator[Row]:
    """PGD of 20 steps and DeepFool of 10 candidates on a model that has learnt the videos, in float32."""
    data = size.videos(size.batches[0])
    model = size.model()
    learn(model, LOSSES["non_art"], data, size.learnt[2])
    model.eval()
    calls: dict[str, Callable[[], object]] = {
        "PGD": lambda: pgd(model, *data, epsilon=0.5, steps=20),
        "DeepFool": lambda: deepfool(model, *data, candidates=min(10, size.classes)),
    }
    for name, call in calls.items():
        seconds = take_turns({name: call}, min(3, size.rounds)).median(name)
        yield {"what": name, "with": f"{len(data[0])} videos", "videos/s": len(data[0]) / seconds}


def input_rate(size: Size) -> Iterator[Row]:
    """From the store to floats on the device, in the batches of the first step; shuffled, from the page cache."""
    params = Params(
        data=Data(source="synthetic"), features=Features(max_frames=size.frames), compute=Compute(workers=1),
        synthetic=Synthetic(train_videos=size.stored, validate_videos=20, min_frames=size.frames // 2,
                            max_frames=size.frames),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        prepare(params, Path(folder), progress=False)
        store = FrameStore(Path(folder) / "frames" / "train")

        def epoch() -> None:
            for batch in store.batches(size.batches[0], max_frames=size.frames, seed=0, ahead=2):
                model_inputs(batch, params.features, store.modalities, best_device())

        seconds = take_turns({"epoch": epoch}, size.rounds).median("epoch")
        read = sum(len(store[place].frames) for place in range(len(store))) * sum(store.modalities.values())
    yield {"what": "input", "with": f"{size.batches[0]} videos", "videos/s": len(store) / seconds,
           "GB/s": read / seconds / 1e9}  # fmt: skip


PARTS: tuple[Callable[[Size], Iterator[Row]], ...] = (steps, training, attacks, input_rate, compiled)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write after every row."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["gpu", "cpu"], default="gpu", help="cpu: to see that this runs")
    parser.add_argument("--small", action="store_true", help="sizes that take seconds")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    asked = parser.parse_args(arguments)
    if (best_device().type == "cpu") != (asked.device == "cpu"):
        raise SystemExit(f"nothing was measured: PyTorch's best device here is {best_device().type}; see --help")
    size, started = SMALL if asked.small else Size(), time.perf_counter()
    commit, changed = revision(RESULTS.parents[1])
    found: dict[str, Any] = {"machine": machine(), "commit": commit, "changed since": changed, "rows": []}
    for part in PARTS[:-1] if asked.small else PARTS:
        for row in _until(part, size, started + size.seconds):
            found["rows"].append(row)
            found["seconds"] = round(time.perf_counter() - started)
            print(" | ".join(_cells(row)), flush=True)
            write(found, asked.out)


def _until(part: Callable[[Size], Iterator[Row]], size: Size, end: float) -> Iterator[Row]:
    """The rows of a part that are begun in time; the last one says why there are no more, if there should be."""
    rows = part(size)
    try:
        while time.perf_counter() < end:
            yield next(rows)
        yield {"what": part.__name__, "with": "no time was left for more"}
    except StopIteration:
        return
    except Exception as error:  # the other parts can still be measured
        yield {"what": part.__name__, "with": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}


def write(found: dict[str, Any], folder: Path) -> None:
    """Both files, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    told = ", ".join(f"{key} {value}" for key, value in (found["machine"] | {"commit": found["commit"]}).items())
    table = markdown_table(["what", "with", "measured"], [list(_cells(row)) for row in found["rows"]], 3)
    page = f"# On a GPU\n\n`python -m benchmarks.gpu`, {found.get('seconds', 0)} s. Measured on: {told}.\n\n{table}"
    for name, text in (("gpu.json", json.dumps(found, indent=1) + "\n"), ("gpu.md", page)):
        with atomic_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _cells(row: Row) -> tuple[str, str, str]:
    numbers = {unit: value for unit, value in row.items() if unit not in ("what", "with")}
    told = (unit if value is True else f"{value:.4g} {unit}" for unit, value in numbers.items())
    return row["what"], row["with"], ", ".join(told)


if __name__ == "__main__":
    main()
