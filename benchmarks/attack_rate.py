"""Attacks: projected gradient against the passes it cannot do without, DeepFool against foolbox's."""

from functools import partial

import torch
from torch import Tensor

from artpaper.attacks import bce, pgd
from artpaper.models import FrameTransformer
from artpaper.settings import Model
from benchmarks.deepfool import ROOT, load
from benchmarks.deepfool import attack as by_name
from benchmarks.measure import Line, take_turns
from benchmarks.training_step import MODALITIES, videos
from pipeline.train.device import best_device

STEPS = 20
MODEL = "a_art/seed0"


def projected_gradient(rounds: int = 5, batch: int = 8, time: int = 60, classes: int = 317) -> list[Line]:
    """The line about projected gradient.

    Args:
        rounds: how often each is timed.
        batch: videos.
        time: frames a video, all of them real.
        classes: K.
    """
    x, y, mask = videos(batch, time, classes)
    model = FrameTransformer(Model(), MODALITIES, classes).to(best_device()).eval()

    def passes() -> None:
        frames = x.clone().requires_grad_()
        for _ in range(STEPS):
            torch.autograd.grad(bce(model(frames, mask), y).sum(), frames)

    def ours() -> None:
        pgd(model, x, y, mask, epsilon=0.5, steps=STEPS)

    times = take_turns({"pgd": ours, "passes": passes}, rounds)
    shape = {"batch": batch, "frames": time, "classes": classes, "steps": STEPS}
    against = f"{STEPS} forward and backward passes"
    ratio = times.ratio("pgd", "passes")
    return [Line("projected gradient", ratio, 1.1, False, "x", against, times.details() | shape)]


def deepfool(rounds: int = 5) -> list[Line]:
    """The line about DeepFool, on the A-ART of the default run: its steps depend on what a model has learnt.

    Args:
        rounds: how often each is timed.
    """
    if not (ROOT / "models" / MODEL).is_dir():
        print(f"DeepFool is not measured: no models/{MODEL}; `dvc repro` makes it")
        return []
    data = load(ROOT, MODEL, 256)
    found: dict[str, Tensor] = {}

    def run(method: str) -> None:
        found[method] = by_name(method, 10, *data)

    times = take_turns({name: partial(run, name) for name in ("ours", "foolbox")}, rounds)
    lengths = {name: values.double().flatten(1).norm(dim=1) for name, values in found.items()}
    details = times.details() | {
        "videos": len(data[1]), "frames": data[1].shape[1], "classes": data[2].shape[1], "candidates": 10,
        "largest_relative_difference": float((lengths["ours"] / lengths["foolbox"] - 1).abs().max()),
    }  # fmt: skip
    return [Line("DeepFool", times.ratio("foolbox", "ours"), 5, True, "x", "foolbox's, as fast", details)]
