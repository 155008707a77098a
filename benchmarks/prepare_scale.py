"""How preparation grows: memory and time per video at several sizes, and its rate beside merely iterating the shards.

Each size is prepared in a process of its own, so peaks do not mix; plain iteration and preparation take turns in it, so
that both see the same machine, and the medians of their times are told.

    python -m benchmarks.prepare_scale --videos 2000 20000
"""

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.measure import held

RESULT = Path(__file__).parent / "results" / "prepare_scale.json"


def measure(videos: int, folder: str, frames: int, rounds: int = 5) -> dict[str, float]:
    """Generate ``videos`` synthetic videos, then prepare them with one process, ``rounds`` times."""
    import tensorflow as tf

    from artpaper.config import Compute, Data, Params, Synthetic
    from artpaper.data.prepare import prepare
    from artpaper.data.synthetic import write_synthetic

    sizes = Synthetic(
        train_videos=videos * 9 // 10, validate_videos=videos // 10, min_frames=frames // 2, max_frames=frames,
        videos_per_shard=500,
    )  # fmt: skip
    shards = Path(folder) / "shards"
    context = multiprocessing.get_context("spawn")
    writer = context.Process(target=write_synthetic, args=(shards, sizes), kwargs={"seed": 0, "progress": False})
    writer.start()
    writer.join()
    paths = sorted(shards.glob("*.tfrecord"))
    total = sum(path.stat().st_size for path in paths)

    def iterate() -> float:
        start = time.perf_counter()
        for path in paths:
            for _ in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                pass
        return time.perf_counter() - start

    params = Params(data=Data(source="yt8m", path=str(shards)), compute=Compute(workers=1))

    def once() -> float:
        shutil.rmtree(Path(folder) / "frames", ignore_errors=True)
        start = time.perf_counter()
        prepare(params, Path(folder), progress=False)
        return time.perf_counter() - start

    iterate(), once()  # the page cache then holds the shards, and has room for what is written
    turns = [(iterate(), once()) for _ in range(rounds)]
    raw, seconds = (statistics.median(column) for column in zip(*turns, strict=True))
    return {
        "videos": videos,
        "longest_video_frames": frames,
        "input_mb": round(total / 1e6, 1),
        "prepare_s": round(seconds, 2),
        "prepare_ms_per_video": round(1e3 * seconds / videos, 4),
        "iterate_s": round(raw, 2),
        "rate_beside_iterating": round(statistics.median(one / other for one, other in turns), 3),
        "rounds": rounds,
        "peak_rss_mb": round(held("VmHWM") / 1e6, 1),
    }


def main() -> None:
    """Measure every size and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--frames", type=int, default=60, help="longest video; the shortest is half of it")
    parser.add_argument("--folder", type=Path, default=None, help="where to put the data (default: a temporary folder)")
    parsed = parser.parse_args()
    rows = []
    for videos in parsed.videos:
        folder = tempfile.mkdtemp(dir=parsed.folder)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
            rows.append(executor.submit(measure, videos, folder, parsed.frames).result())
        shutil.rmtree(folder)
        print(json.dumps(rows[-1]), flush=True)
    first, last = rows[0], rows[-1]
    grown = {
        "memory": round(last["peak_rss_mb"] / first["peak_rss_mb"], 3),
        "time_per_video": round(last["prepare_ms_per_video"] / first["prepare_ms_per_video"], 3),
    }
    machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    RESULT.write_text(json.dumps({"machine": machine, "rows": rows, "last_over_first": grown}, indent=1) + "\n")
    print(f"memory x{grown['memory']}, time per video x{grown['time_per_video']}; written to {RESULT}")


if __name__ == "__main__":
    main()
