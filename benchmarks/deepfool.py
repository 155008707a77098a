"""Time and memory of DeepFool, ours against foolbox's, on the same videos of a trained model.

    python benchmarks/deepfool.py [--videos 256 --candidates 10 --rounds 3]

Both do what their users do: the model as loaded (eval mode, parameters requiring gradients), all videos in one call. As
foolbox also fills the parameters' gradients, it is measured with frozen parameters as well. Time is the median over
rounds, the methods taking turns. Memory is the peak of a fresh process per method while the attack runs, less what it
held just before; "forward" is a forward pass of the model with gradients on. rho agreement is of all videos.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import foolbox
import torch
from torch import Tensor, nn

from artpaper.attacks import deepfool
from pipeline.base.errors import ArtpaperError
from pipeline.base.parameters import load_params
from pipeline.data.batches import model_inputs
from pipeline.data.store import FrameStore
from pipeline.paper.publish import processor
from pipeline.train.checkpoints import load_model

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "deepfool.json"
METHODS = ("ours", "foolbox", "foolbox_frozen")


class Masked(nn.Module):
    """Fixes the mask, so that foolbox, which knows of no mask, can call the model."""

    def __init__(self, net: nn.Module, mask: Tensor) -> None:
        super().__init__()
        self.net, self.mask = net, mask

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x, self.mask)


def load(workspace: Path, model: str, videos: int) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """The trained model and the first videos of the test set; says what makes them if they are not there."""
    try:
        net, _ = load_model(workspace / "models" / model)
        params, store = load_params(workspace / "params.yaml"), FrameStore(workspace / "frames" / "test")
        batch = next(store.batches(videos, max_frames=params.features.max_frames))
        if store.modalities != net.modalities or len(store.label_space.classes) != net.classes:
            raise ArtpaperError(f"{workspace}: model and frames/test do not fit")
    except (ArtpaperError, OSError) as error:
        sys.exit(f"{error}\n`artpaper use default && dvc repro` makes the model and the test videos")
    x, y, mask = model_inputs(batch, params.features, store.modalities, torch.device("cpu"))
    return net, x, y, mask


def attack(method: str, candidates: int, net: nn.Module, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """The perturbation."""
    if method == "ours":
        return deepfool(net, x, y, mask, candidates=candidates).perturbation
    net.requires_grad_(method != "foolbox_frozen")
    try:
        model = foolbox.PyTorchModel(Masked(net, mask).eval(), bounds=(-float("inf"), float("inf")), device="cpu")
        with torch.no_grad():
            labels = net(x, mask).argmax(dim=1)
        reference = foolbox.attacks.L2DeepFoolAttack(steps=50, candidates=candidates, overshoot=0.02, loss="logits")
        return reference.run(model, x, foolbox.criteria.Misclassification(labels)) - x
    finally:
        net.requires_grad_(True).zero_grad()


def extra(call: Callable[[], object]) -> float:
    """Megabytes the process holds at most during the call, less those before it."""

    def held(name: str) -> float:  # not getrusage: its peak includes that of the process that started this one
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(lines[name].split()[0]) * 1024 / 1e6

    before = held("VmRSS")
    call()
    return held("VmHWM") - before


def child_extra(method: str, arguments: argparse.Namespace) -> float:
    """:func:`extra` in a process of its own, as a process's peak never falls."""
    command = [sys.executable, __file__, "--memory-of", method]
    for name in ("videos", "candidates", "threads", "workspace", "model"):
        command += [f"--{name}", str(getattr(arguments, name))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description="DeepFool against foolbox's: time, memory, agreement.")
    parser.add_argument("--videos", type=int, default=256)
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workspace", type=Path, default=ROOT)
    parser.add_argument("--model", default="a_art/seed0")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    net, x, y, mask = load(arguments.workspace, arguments.model, arguments.videos)
    few = (x[:2].clone(), y[:2], mask[:2])
    if arguments.memory_of == "forward":
        net(few[0], few[2])
        print(extra(lambda: net(x.clone().requires_grad_(), mask)))
        return
    if arguments.memory_of:
        attack(arguments.memory_of, arguments.candidates, net, *few)  # what is loaded on first use is no one's memory
        print(extra(lambda: attack(arguments.memory_of, arguments.candidates, net, x, y, mask)))
        return

    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    perturbations = {}
    for _ in range(arguments.rounds):
        for method in METHODS:
            started = time.perf_counter()
            perturbations[method] = attack(method, arguments.candidates, net, x, y, mask)
            seconds[method].append(time.perf_counter() - started)
    middle = {method: statistics.median(values) for method, values in seconds.items()}
    megabytes = {method: child_extra(method, arguments) for method in (*METHODS, "forward")}
    length = {method: values.double().flatten(1).norm(dim=1) for method, values in perturbations.items()}
    diagnostics = deepfool(net, x, y, mask, candidates=arguments.candidates).diagnostics
    result = {
        "videos": len(x),
        "frames": x.shape[1],
        "classes": y.shape[1],
        "candidates": arguments.candidates,
        "rounds": arguments.rounds,
        "fooled": int(diagnostics["fooled"].sum()),
        "iterations": {"mean": float(diagnostics["iterations"].double().mean()),
                       "most": int(diagnostics["iterations"].max())},
        "mean_rho": float(diagnostics["relative_norm"].mean()),
        "largest_relative_difference_of_rho": float((length["ours"] / length["foolbox"] - 1).abs().max()),
        "seconds": {method: round(value, 2) for method, value in middle.items()},
        "times_as_fast": {method: round(middle[method] / middle["ours"], 2) for method in METHODS[1:]},
        "extra_megabytes": {method: round(value) for method, value in megabytes.items()},
        "share_of_extra_memory": {method: round(megabytes["ours"] / megabytes[method], 3) for method in METHODS[1:]},
        "machine": {
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)),
            "threads": arguments.threads,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "foolbox": foolbox.__version__,
        },
    }  # fmt: skip
    text = json.dumps(result, indent=2)
    print(text)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
