"""YouTube-8M's size: one per cent of it, synthetic, prepared, read and trained on with the paper's parameters.

Each part runs in a process of its own, at a tenth of the size and at the size, so that memory can be seen to stay or to
grow. What depends on the number of videos is seen at more of them than the disk holds: ten per cent of them, a tenth as
long, are prepared and read as well, and an index of all 3.9 million training videos is made over those of one per cent.

    python -m benchmarks.full_size --folder FOLDER   # 36 GB of disk, which it gives back; an hour or two on two cores
"""

import argparse
import dataclasses
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from benchmarks.input_rate import read_records
from benchmarks.measure import apart, held, machine
from pipeline.base.atomic import atomic_file
from pipeline.base.groups import Compute, Data
from pipeline.base.parameters import Params, load_params
from pipeline.data.store import FrameStore
from pipeline.data.store_writer import write_table
from pipeline.paper.style import markdown_table

if TYPE_CHECKING:
    from pipeline.train.training import Run

RESULTS = Path(__file__).parent / "results"
PROFILE = Path(__file__).parent.parent / "profiles" / "paper.yaml"
TRAIN_VIDEOS = 3_888_919  # of YouTube-8M's 2018 version
Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """So many videos, of so many frames.

    Attributes:
        share: of YouTube-8M's videos.
        shortened: how many times as short as its videos; so the number of videos grows on the same disk.
        index: videos of the index that is made over them, 0 for none.
        steps: of each training, of 64 videos; 0 for none.
    """

    share: float
    shortened: int = 1
    index: int = 0
    steps: int = 0


SIZES = {
    "0.1 % of YouTube-8M": Size(0.001, index=TRAIN_VIDEOS // 10, steps=3),
    "10 % of its videos, a tenth as long": Size(0.1, shortened=10),
    "1 %": Size(0.01, index=TRAIN_VIDEOS, steps=120),
}


def parameters(size: Size) -> Params:
    """The paper's, on so many synthetic videos of so many frames."""
    params = load_params(PROFILE)
    one, times = params.synthetic, size.share / 0.01  # the profile's own are one per cent
    sizes = dataclasses.replace(
        one, train_videos=round(one.train_videos * times), validate_videos=round(one.validate_videos * times),
        min_frames=one.min_frames // size.shortened, max_frames=one.max_frames // size.shortened,
    )  # fmt: skip
    return dataclasses.replace(params, data=Data(source="synthetic"), synthetic=sizes)


def generate(folder: Path, size: Size) -> Row:
    """Write the shards, which a real run would have downloaded."""
    from pipeline.synthetic.generator import write_synthetic

    config = parameters(size).synthetic
    started = time.perf_counter()
    write_synthetic(folder / "shards", config, seed=0, compute=Compute(workers=2))
    written = sum(path.stat().st_size for path in (folder / "shards").glob("*.tfrecord"))
    return {"seconds": time.perf_counter() - started, "gb": written / 1e9}


def iterate(folder: Path, size: Size) -> Row:
    """Merely read the shards, as a measure for what follows."""
    read, seconds = read_records(folder / "shards")
    return {"seconds": seconds, "gb": read / 1e9, "gb_s": read / 1e9 / seconds}


def prepare_in_two(folder: Path, size: Size) -> Row:
    """As the pipeline does it: on every core."""
    found = _prepare(folder, folder / "two", size, workers=2)
    shutil.rmtree(folder / "two")
    return {"seconds": found["seconds"]}


def prepare(folder: Path, size: Size) -> Row:
    """From shards to the frame store, one process, so that its memory can be seen."""
    return _prepare(folder, folder, size, workers=1)


def _prepare(folder: Path, workspace: Path, size: Size, workers: int) -> Row:
    from pipeline.prepare.prepare import prepare

    params = parameters(size)
    shards = Data(source="yt8m", path=str(folder / "shards"))
    params = dataclasses.replace(params, data=shards, compute=dataclasses.replace(params.compute, workers=workers))
    started = time.perf_counter()
    summary = prepare(params, workspace)
    found = {"seconds": time.perf_counter() - started, **_own_memory()}
    frames = sum(split["frames"] for split in summary["splits"].values())
    return found | {"videos": sum(split["videos"] for split in summary["splits"].values()), "frames": frames}


def epoch(folder: Path, size: Size) -> Row:
    """One shuffled pass over the training videos."""
    params = parameters(size)
    store = FrameStore(folder / "frames" / "train")
    started, read, own = time.perf_counter(), 0, 0
    for batch in store.batches(params.train.batch_size, max_frames=params.features.max_frames, seed=0, ahead=2):
        read += batch.frames.numel()
        own = max(own, _own_memory()["own_mb"])
    return {"seconds": time.perf_counter() - started, "gb": read / 1e9, "videos": len(store), "own_mb": own}


def whole_index(folder: Path, size: Size) -> Row:
    """An index of the size of the whole training set."""
    return apart(_read_whole, make_index(folder / "frames", size.index))


def make_index(frames: Path, videos: int) -> Path:
    """A split of so many videos: those of the training set, again and again, under names of their own."""
    with pa.memory_map(str(frames / "train" / "index.arrow")) as file:
        index = pa.ipc.open_file(file).read_all()
    split = frames / str(videos)
    split.mkdir()
    names = pa.array([f"{number:08x}" for number in range(videos)])
    large = index.take(pa.array(np.arange(videos) % len(index))).set_column(0, "id", names)
    write_table(split / "index.arrow", large.unify_dictionaries())
    shutil.copy(frames / "train" / "store.json", split / "store.json")
    return split


def _read_whole(split: Path) -> Row:
    before = _own_memory()["own_mb"]
    started = time.perf_counter()
    store = FrameStore(split)
    opened = time.perf_counter() - started
    store.fingerprint  # noqa: B018 - what a training asks first
    told = time.perf_counter() - started - opened
    started, own = time.perf_counter(), before
    for _ in itertools.islice(store.batches(64, max_frames=300, seed=0), 100):
        own = max(own, _own_memory()["own_mb"])
    hundred = time.perf_counter() - started
    found = {"videos": len(store), "open_s": opened, "fingerprint_s": told, "first_100_batches_s": hundred}
    return found | {"grown_mb": own - before}


def steps(folder: Path, size: Size) -> Row:
    """The first steps of each of the three trainings, as the paper has them, and a validation on one batch."""
    import torch

    from artpaper.models import FrameTransformer
    from pipeline.base.memory import keep_freed
    from pipeline.train.device import seed_everything
    from pipeline.train.training import Run

    keep_freed()  # as training does
    params, count = parameters(size), size.steps
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
    """Train, and tell seconds a step, losses, and memory after the second step, half way and after the last."""
    seen = [(time.perf_counter(), 0.0)]
    run.fit(state_folder, lambda step, history: seen.append((time.perf_counter(), _own_memory()["own_mb"])))
    times, own = zip(*seen, strict=True)
    return {
        "s": float(np.median(np.diff(times))), "first_loss": run.history[0]["loss"],
        "last_loss": run.history[-1]["loss"], "own_mb_after_2": own[2],
        "own_mb_half_way": own[len(own) // 2], "own_mb_at_the_end": own[-1],
    }  # fmt: skip


PARTS: dict[str, Callable[[Path, Size], Row]] = {
    "generate": generate, "iterate": iterate, "prepare_in_two": prepare_in_two, "prepare": prepare, "epoch": epoch,
    "whole_index": whole_index, "steps": steps,
}  # fmt: skip


def main() -> None:
    """Measure every part at every size and write full_size.json and full_size.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="where to put the data (default: a temporary folder)")
    parser.add_argument("--keep-steps", action="store_true", help="leave the trainings, an hour, as last measured here")
    arguments = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(), "sizes": []}
    kept = _former_steps() if arguments.keep_steps else {}
    for title, size in SIZES.items():
        folder = Path(tempfile.mkdtemp(dir=arguments.folder))
        rows: dict[str, Row] = {}
        wanted = {"whole_index": size.index, "steps": size.steps}
        try:
            for name, part in PARTS.items():
                if not wanted.get(name, True):
                    continue
                row = kept[title] if name == "steps" and title in kept else apart(part, folder, size)
                rows[name] = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
                print(json.dumps({title: {name: rows[name]}}), flush=True)
                if name == "prepare":
                    shutil.rmtree(folder / "shards")
        finally:
            shutil.rmtree(folder)
        found["sizes"].append({"size": title, **rows})
    with atomic_file(RESULTS / "full_size.json") as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    page = markdown(found)
    (RESULTS / "full_size.md").write_text(page, encoding="utf-8")
    print(page)


def _former_steps() -> dict[str, Row]:
    """What the last run found of the trainings, by size; refused where it was another machine's."""
    former = json.loads((RESULTS / "full_size.json").read_text(encoding="utf-8"))
    if former["machine"] != machine():
        raise SystemExit(
            f"{RESULTS / 'full_size.json'} is of another machine, {former['machine']}: measure the steps too"
        )
    return {size["size"]: size["steps"] for size in former["sizes"] if "steps" in size}


def markdown(found: dict[str, Any]) -> str:
    """The table for people: every number at every size.

    Args:
        found: as full_size.json has it.
    """
    sizes = found["sizes"]
    lines = [
        [part.replace("_", " "), key, *(f"{size[part][key]:,}" if part in size else "" for size in sizes)]
        for part in PARTS
        for key, last in sizes[-1][part].items()
        if isinstance(last, int | float)
    ]
    told = ", ".join(f"{key} {value}" for key, value in found["machine"].items())
    table = markdown_table(["part", "number", *(size["size"] for size in sizes)], lines, 2)
    return f"# YouTube-8M's size\n\n`python -m benchmarks.full_size`, synthetic videos. Measured on: {told}.\n\n{table}"


def _own_memory() -> Row:
    """MB that are this process's own, without mapped files, and the most it ever held, mapped files included."""
    return {"own_mb": held("RssAnon") / 2**20, "peak_mb": held("VmHWM") / 2**20}


if __name__ == "__main__":
    main()
