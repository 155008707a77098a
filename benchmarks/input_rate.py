"""Input: preparing shards beside merely reading them, and batches from the store beside copying memory."""

import shutil
import statistics
import tempfile
import time
from pathlib import Path

from artpaper.models import FrameTransformer
from artpaper.settings import Model
from benchmarks.measure import Line, apart, copy_rate, take_turns
from benchmarks.training_step import LOSSES, MODALITIES, step, videos
from pipeline.base.groups import Compute, Data, Features, Synthetic
from pipeline.base.parameters import Params
from pipeline.data.batches import model_inputs
from pipeline.data.store import FrameStore
from pipeline.prepare.prepare import prepare
from pipeline.synthetic.generator import write_synthetic
from pipeline.train.device import best_device

BATCH = 64


def input_rate(count: int = 1500, frames: int = 300, rounds: int = 5) -> list[Line]:
    """The lines about input.

    Args:
        count: synthetic videos that are prepared.
        frames: of the longest; the shortest has half as many.
        rounds: how often an epoch is timed.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = apart(measure, count, folder, frames)
        store = FrameStore(Path(folder) / "frames" / "train")
        read = 0

        def epoch() -> None:
            nonlocal read
            read = 0
            for batch in store.batches(BATCH, max_frames=frames, seed=0, ahead=2):
                read += int(batch.mask.sum()) * sum(MODALITIES.values())

        times = take_turns({"epoch": epoch}, rounds)
        batch = next(store.batches(BATCH, max_frames=frames, seed=0))
        model = FrameTransformer(Model(), MODALITIES, 317).to(best_device()).train()
        calls = {
            "batch": lambda: next(store.batches(BATCH, max_frames=frames, seed=0)),
            "floats": lambda: model_inputs(batch, Features(), MODALITIES, best_device()),
        }
        parts = take_turns(calls, rounds)
        step_times = take_turns({"step": step(model, LOSSES["non_art"], videos(16, frames, 317))}, rounds)
    rate, copied = read / times.median("epoch"), copy_rate()
    cost = (parts.median("batch") + parts.median("floats")) / (step_times.median("step") * BATCH / 16)
    details = times.details() | {"videos": count, "mb": round(read / 1e6)}
    details |= {"copy_gb_s": round(copied / 1e9, 2), "share_of_copy": round(rate / copied, 3)}
    share = parts.details() | step_times.details() | {"step_batch": 16}
    return [
        Line("batches from the store", rate / 1e9, 2, True, "GB/s", "bytes of real frames", details),
        Line("a batch, made floats", 100 * cost, 5, False, "%", "Non-ART's step", share),
        Line(
            "preparation",
            100 * prepared["rate_beside_iterating"],
            60,
            True,
            "%",
            "a bare TFRecordDataset",
            prepared,
            f"to read and write as many bytes, nothing else, {100 * prepared['rate_of_reading_and_writing']:.3g} %",
        ),
    ]


def read_records(folder: Path) -> tuple[int, float]:
    """Merely read the shards in a folder with a bare ``TFRecordDataset``: bytes of the records, and seconds."""
    import tensorflow as tf

    started = time.perf_counter()
    shards = sorted(folder.glob("*.tfrecord"))
    read = sum(len(one) for path in shards for one in tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    return read, time.perf_counter() - started


def measure(videos: int, folder: str, frames: int, rounds: int = 5) -> dict[str, float]:
    """Generate ``videos`` synthetic videos, then in turns merely read and prepare them, in one process."""
    sizes = Synthetic(
        train_videos=videos * 9 // 10, validate_videos=videos // 10, min_frames=frames // 2, max_frames=frames,
        videos_per_shard=500,
    )  # fmt: skip
    shards = Path(folder) / "shards"
    write_synthetic(shards, sizes, seed=0, progress=False)
    total = sum(path.stat().st_size for path in shards.glob("*.tfrecord"))
    params = Params(data=Data(source="yt8m", path=str(shards)), compute=Compute(workers=1))

    def once() -> float:
        shutil.rmtree(Path(folder) / "frames", ignore_errors=True)
        start = time.perf_counter()
        prepare(params, Path(folder), progress=False)
        return time.perf_counter() - start

    read_records(shards), once()  # the page cache then holds the shards, and has room for what is written
    turns = [(read_records(shards)[1], once(), _written(shards, Path(folder) / "copy")) for _ in range(rounds)]
    raw, seconds, written = (statistics.median(column) for column in zip(*turns, strict=True))
    return {
        "videos": videos,
        "longest_video_frames": frames,
        "input_mb": round(total / 1e6, 1),
        "prepare_s": round(seconds, 2),
        "iterate_s": round(raw, 2),
        "write_s": round(written, 2),
        "rate_beside_iterating": round(statistics.median(one / other for one, other, _ in turns), 3),
        "rate_of_reading_and_writing": round(statistics.median(one / (one + write) for one, _, write in turns), 3),
        "rounds": rounds,
    }


def _written(shards: Path, target: Path) -> float:
    """Seconds to write the bytes of the shards, and nothing else, to the disk where the store is written."""
    content = [path.read_bytes() for path in shards.glob("*.tfrecord")]
    target.unlink(missing_ok=True)
    start = time.perf_counter()
    with open(target, "wb") as file:
        file.writelines(content)
    return time.perf_counter() - start
