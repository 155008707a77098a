"""YouTube-8M's size: one per cent of it, synthetic, prepared, read and trained on with the paper's parameters.

Each part runs in a process of its own, at a tenth of the size and at the size, so that memory can be seen to stay or to
grow; an index of all 3.9 million training videos is made over the same shards, for what depends on their number.

    python -m benchmarks.full_size --folder FOLDER   # 36 GB of disk, which it gives back; half an hour on two cores
"""

import argparse
import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from artpaper.atomic import atomic_file
from artpaper.config import Compute, Data, Params, load_params
from artpaper.data.store import FrameStore
from artpaper.data.store_writer import write_table
from artpaper.report.style import markdown_table
from benchmarks.measure import apart, held, machine
from benchmarks.prepare_scale import read_records

if TYPE_CHECKING:
    from artpaper.training import Run

RESULTS = Path(__file__).parent / "results"
PROFILE = Path(__file__).parent.parent / "profiles" / "paper.yaml"
TRAIN_VIDEOS = 3_888_919  # of YouTube-8M's 2018 version
STEPS = 12  # of each training, of 64 videos: a step takes 10 to 25 s on two cores
Row = dict[str, Any]


def parameters(share: int) -> Params:
    """The paper's, on synthetic videos: one per cent of YouTube-8M, or one ``share``-th of that."""
    params = load_params(PROFILE)
    sizes = params.synthetic
    sizes = dataclasses.replace(
        sizes, train_videos=sizes.train_videos // share, validate_videos=sizes.validate_videos // share
    )
    return dataclasses.replace(params, data=Data(source="synthetic"), synthetic=sizes)


def generate(folder: Path, share: int) -> Row:
    """Write the shards, which a real run would have downloaded."""
    from artpaper.data.synthetic import write_synthetic

    config = parameters(share).synthetic
    started = time.perf_counter()
    write_synthetic(folder / "shards", config, seed=0, compute=Compute(workers=2))
    size = sum(path.stat().st_size for path in (folder / "shards").glob("*.tfrecord"))
    return {"seconds": time.perf_counter() - started, "gb": size / 1e9}


def iterate(folder: Path, share: int) -> Row:
    """Merely read the shards, as a measure for what follows."""
    started = time.perf_counter()
    read = read_records(folder / "shards")
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "gb": read / 1e9, "gb_s": read / 1e9 / seconds}


def prepare_in_two(folder: Path, share: int) -> Row:
    """As the pipeline does it: on every core."""
    found = _prepare(folder, folder / "two", share, workers=2)
    shutil.rmtree(folder / "two")
    return {"seconds": found["seconds"]}


def prepare(folder: Path, share: int) -> Row:
    """From shards to the frame store, one process, so that its memory can be seen."""
    return _prepare(folder, folder, share, workers=1)


def _prepare(folder: Path, workspace: Path, share: int, workers: int) -> Row:
    from artpaper.data.prepare import prepare

    params = parameters(share)
    shards = Data(source="yt8m", path=str(folder / "shards"))
    params = dataclasses.replace(params, data=shards, compute=dataclasses.replace(params.compute, workers=workers))
    started = time.perf_counter()
    summary = prepare(params, workspace)
    found = {"seconds": time.perf_counter() - started, **_own_memory()}
    frames = sum(split["frames"] for split in summary["splits"].values())
    return found | {"videos": sum(split["videos"] for split in summary["splits"].values()), "frames": frames}


def epoch(folder: Path, share: int) -> Row:
    """One shuffled pass over the training videos."""
    params = parameters(share)
    store = FrameStore(folder / "frames" / "train")
    started, read, own = time.perf_counter(), 0, 0
    for batch in store.batches(params.train.batch_size, max_frames=params.features.max_frames, seed=0, ahead=2):
        read += batch.frames.numel()
        own = max(own, _own_memory()["own_mb"])
    return {"seconds": time.perf_counter() - started, "gb": read / 1e9, "videos": len(store), "own_mb": own}


def whole_index(folder: Path, share: int) -> Row:
    """An index of the size of the whole training set: each video of the store many times, under names of its own."""
    real = folder / "frames" / "train"
    with pa.memory_map(str(real / "index.arrow")) as file:
        index = pa.ipc.open_file(file).read_all()
    wanted = TRAIN_VIDEOS // (10 if share > 1 else 1)
    rows = np.arange(wanted) % len(index)
    split = folder / "frames" / f"whole{share}"
    split.mkdir(exist_ok=True)
    large = index.take(pa.array(rows)).set_column(0, "id", pa.array([f"{number:08x}" for number in range(wanted)]))
    write_table(split / "index.arrow", large.unify_dictionaries())
    shutil.copy(real / "store.json", split / "store.json")
    del large, index, rows
    return apart(_read_whole, split)


def _read_whole(split: Path) -> Row:
    before = _own_memory()["own_mb"]
    started = time.perf_counter()
    store = FrameStore(split)
    opened = time.perf_counter() - started
    store.fingerprint  # noqa: B018 - what a training asks first
    told = time.perf_counter() - started - opened
    started, own = time.perf_counter(), before
    for _ in store.batches(64, max_frames=300, seed=0, limit=100):
        own = max(own, _own_memory()["own_mb"])
    hundred = time.perf_counter() - started
    found = {"videos": len(store), "open_s": opened, "fingerprint_s": told, "first_100_batches_s": hundred}
    return found | {"grown_mb": own - before}


def steps(folder: Path, share: int) -> Row:
    """The first steps of each of the three trainings, as the paper has them, and a validation on one batch."""
    import torch

    from artpaper.memory import keep_freed
    from artpaper.models import FrameTransformer
    from artpaper.training import Run, seed_everything

    keep_freed()  # as training does
    params, count = parameters(share), STEPS if share == 1 else 3
    stores = [FrameStore(folder / "frames" / split) for split in ("train", "validation")]
    short = dataclasses.replace(params.train, max_steps=count, validate_every=count)
    found: Row = {"steps": count, "batch_size": short.batch_size, "threads": torch.get_num_threads()}
    for name in params.experiment.models:
        seed_everything(0)
        model = FrameTransformer(params.model_for(name), stores[0].modalities, len(stores[0].label_space.classes))
        few = stores[1].subset(range(short.batch_size))
        run = Run(model, params.models[name], short, params.features, stores[0], few, 0, {"name": name, "seed": 0})
        found |= {f"{name}_{key}": value for key, value in _watched(run, folder / "state" / name).items()}
        found["precision"] = run.precision
    return found | {"peak_mb": _own_memory()["peak_mb"]}


def _watched(run: "Run", state_folder: Path) -> Row:
    """Train, and tell seconds a step, losses, and memory after the second step and the last."""
    seen = [(time.perf_counter(), 0.0)]
    run.fit(state_folder, lambda step, history: seen.append((time.perf_counter(), _own_memory()["own_mb"])))
    times, own = zip(*seen, strict=True)
    return {
        "s": float(np.median(np.diff(times))), "first_loss": run.history[0]["loss"],
        "last_loss": run.history[-1]["loss"], "own_mb_after_2": own[2], "own_mb_at_the_end": own[-1],
    }  # fmt: skip


PARTS: dict[str, Callable[[Path, int], Row]] = {
    "generate": generate, "iterate": iterate, "prepare_in_two": prepare_in_two, "prepare": prepare, "epoch": epoch,
    "whole_index": whole_index, "steps": steps,
}  # fmt: skip


def main() -> None:
    """Measure every part at both sizes and write full_size.json and full_size.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="where to put the data (default: a temporary folder)")
    arguments = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(), "sizes": []}
    for share in (10, 1):
        folder = Path(tempfile.mkdtemp(dir=arguments.folder))
        size: Row = {"share_of_youtube8m": 0.01 / share}
        try:
            for name, part in PARTS.items():
                row = apart(part, folder, share)
                size[name] = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
                print(json.dumps({name: size[name]}), flush=True)
                if name == "prepare":
                    shutil.rmtree(folder / "shards")
        finally:
            shutil.rmtree(folder)
        found["sizes"].append(size)
    with atomic_file(RESULTS / "full_size.json") as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    page = markdown(found)
    (RESULTS / "full_size.md").write_text(page, encoding="utf-8")
    print(page)


def markdown(found: dict[str, Any]) -> str:
    """The table for people: every number at a tenth of the size and at the size.

    Args:
        found: as full_size.json has it.
    """
    small, large = found["sizes"]
    lines = [
        [part.replace("_", " "), key, f"{small[part][key]:,}", f"{large[part][key]:,}"]
        for part in PARTS
        for key in large[part]
        if isinstance(large[part][key], int | float)
    ]
    told = ", ".join(f"{key} {value}" for key, value in found["machine"].items())
    table = markdown_table(["part", "number", "0.1 % of YouTube-8M", "1 %"], lines, 2)
    return f"# YouTube-8M's size\n\n`python -m benchmarks.full_size`, synthetic videos. Measured on: {told}.\n\n{table}"


def _own_memory() -> Row:
    """MB that are this process's own, without mapped files, and the most it ever held, mapped files included."""
    return {"own_mb": held("RssAnon") / 2**20, "peak_mb": held("VmHWM") / 2**20}


if __name__ == "__main__":
    main()
