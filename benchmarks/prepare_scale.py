"""How preparation grows: memory and time per video at several sizes, and its rate beside merely iterating the shards.

Each size is prepared in a process of its own, so peaks do not mix; plain iteration and preparation take turns in it, so
that both see the same machine, and the medians of their times are told.

    python -m benchmarks.prepare_scale --videos 2000 20000
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.measure import apart, held, machine

RESULT = Path(__file__).parent / "results" / "prepare_scale.json"


def read_records(folder: Path) -> tuple[int, float]:
    """Merely read the shards in a folder with a bare ``TFRecordDataset``: bytes of the records, and seconds."""
    import tensorflow as tf

    started = time.perf_counter()
    shards = sorted(folder.glob("*.tfrecord"))
    read = sum(len(one) for path in shards for one in tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    return read, time.perf_counter() - started


def measure(videos: int, folder: str, frames: int, rounds: int = 5) -> dict[str, float]:
    """Generate ``videos`` synthetic videos, then prepare them with one process, ``rounds`` times."""
    from pipeline.base.groups import Compute, Data, Synthetic
    from pipeline.base.parameters import Params
    from pipeline.prepare.prepare import prepare
    from pipeline.synthetic.generator import write_synthetic

    sizes = Synthetic(
        train_videos=videos * 9 // 10, validate_videos=videos // 10, min_frames=frames // 2, max_frames=frames,
        videos_per_shard=500,
    )  # fmt: skip
    shards = Path(folder) / "shards"
    apart(partial(write_synthetic, shards, sizes, seed=0, progress=False))
    total = sum(path.stat().st_size for path in shards.glob("*.tfrecord"))
    params = Params(data=Data(source="yt8m", path=str(shards)), compute=Compute(workers=1))

    def once() -> float:
        shutil.rmtree(Path(folder) / "frames", ignore_errors=True)
        start = time.perf_counter()
        prepare(params, Path(folder), progress=False)
        return time.perf_counter() - start

    read_records(shards), once()  # the page cache then holds the shards, and has room for what is written
    turns = [(read_records(shards)[1], once()) for _ in range(rounds)]
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
        rows.append(apart(measure, videos, folder, parsed.frames))
        shutil.rmtree(folder)
        print(json.dumps(rows[-1]), flush=True)
    first, last = rows[0], rows[-1]
    grown = {
        "memory": round(last["peak_rss_mb"] / first["peak_rss_mb"], 3),
        "time_per_video": round(last["prepare_ms_per_video"] / first["prepare_ms_per_video"], 3),
    }
    RESULT.write_text(json.dumps({"machine": machine(), "rows": rows, "last_over_first": grown}, indent=1) + "\n")
    print(f"memory x{grown['memory']}, time per video x{grown['time_per_video']}; written to {RESULT}")


if __name__ == "__main__":
    main()
