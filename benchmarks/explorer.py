"""The explorer at the paper's width: how long one waits, after a new epsilon, for the maps and for all numbers."""

import dataclasses
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.measure import Line
from pipeline.base.groups import Compute, Data
from pipeline.base.parameters import load_params
from pipeline.explorer.explorer import Explorer
from pipeline.explorer.scene import first_state, scenes_of
from pipeline.predict.one_step import attack
from pipeline.prepare.prepare import prepare
from pipeline.train.training import train

PROFILE = Path(__file__).parent.parent / "profiles" / "paper.yaml"
MODELS = ("non_art", "a_art")
PIXELS = 256  # of a map, a side
LIMIT = 300  # milliseconds


def explorer(frames: tuple[int, ...] = (14, 80, 300), rounds: int = 15) -> list[Line]:
    """Two lines a length of the video: the maps, which are sent first, and all numbers of two models, one seed."""
    lines = []
    for count in frames:
        with tempfile.TemporaryDirectory() as folder:
            first, whole = _milliseconds(_opened(Path(folder), count), rounds)
        threads = {"threads": torch.get_num_threads(), "rounds": rounds}
        for what, values in (("maps", first), ("all numbers", whole)):
            details = {"median_ms": round(statistics.median(values)), "most_ms": round(max(values))} | threads
            name = f"explorer, {count} frames, {what}"
            lines.append(
                Line(name, statistics.median(values), LIMIT, False, "ms", "from a new epsilon, two models", details)
            )
    return lines


def _opened(folder: Path, frames: int) -> Explorer:
    """On a few synthetic videos of so many frames, and models of the paper's width after one step of training."""
    params = load_params(PROFILE)
    sizes = dataclasses.replace(
        params.synthetic, train_videos=64, validate_videos=64, videos_per_shard=64, min_frames=frames, max_frames=frames
    )
    params = dataclasses.replace(
        params, data=Data(source="synthetic"), synthetic=sizes, compute=Compute(workers=1),
        train=dataclasses.replace(params.train, max_steps=1, batch_size=2, validate_every=1),
        experiment=dataclasses.replace(params.experiment, models=MODELS, seeds=(0,)),
    )  # fmt: skip
    prepare(params, folder, progress=False)
    predictions = {}
    for name in MODELS:
        train(params, name, 0, folder, progress=False)
        predictions[name, 0] = attack(params, name, 0, folder, progress=False)
    return Explorer(params, folder, predictions)


def _milliseconds(opened: Explorer, rounds: int) -> tuple[list[float], list[float]]:
    state = first_state(opened)
    first, whole = [], []
    for epsilon in itertools.islice(itertools.count(opened.epsilon, opened.epsilon / 20), rounds + 1):
        started = time.perf_counter()
        for each, _ in zip((first, whole), scenes_of(opened, state | {"epsilon": epsilon}, PIXELS), strict=True):
            each.append(1000 * (time.perf_counter() - started))
    return first[1:], whole[1:]  # the first finds the direction of the step, which later ones only go further along
