"""Preparation by a Ray cluster of one machine and of two, each of one core: how much the second one brings.

Both are processes of this machine, on its loopback, so it must have two cores to give. Rounds take turns, of much input
and of a tenth of it: the difference is what the work takes, without joining the cluster and starting processes, which
take the same however much there is. The frames must come out the same in every round.

    python -m benchmarks.many_machines --videos 80000
"""

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}  # read when ray is imported
os.environ |= {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
import ray
from ray.cluster_utils import Cluster

from artpaper.atomic import atomic_file
from artpaper.config import Compute, Data, Params, Synthetic
from artpaper.data.prepare import prepare
from artpaper.data.synthetic import write_synthetic
from benchmarks.measure import machine
from tests.pipeline import digest

RESULT = Path(__file__).parent / "results" / "many_machines.json"


def seconds(shards: Path, machines: int, folder: Path) -> tuple[float, dict[str, str]]:
    """Prepare ``shards`` on a cluster; the time, and a hash of every file made.

    Args:
        shards: YouTube-8M's format.
        machines: of one core each; started before the clock.
        folder: where the frames go; the current folder meanwhile, which all machines must see.
    """
    cluster = Cluster()
    for _ in range(machines):
        cluster.add_node(num_cpus=1)
    compute = Compute(engine="ray", workers=machines, address=cluster.address)
    before = Path.cwd()
    os.chdir(folder)
    try:
        start = time.perf_counter()
        prepare(Params(data=Data(source="yt8m", path=str(shards)), compute=compute), folder, progress=False)
        taken = time.perf_counter() - start
    finally:
        os.chdir(before)
        cluster.shutdown()
    return taken, digest(folder / "frames")


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=80000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the data go (default: a temporary folder)")
    parser.add_argument("--out", type=Path, default=RESULT, help="the file of the result")
    parsed = parser.parse_args()
    taken: dict[str, list[float]] = {}
    first: dict[int, dict[str, str]] = {}
    megabytes = {}
    with tempfile.TemporaryDirectory(dir=parsed.folder) as kept:
        for videos in (parsed.videos // 10, parsed.videos):
            shards = Path(kept) / f"shards{videos}"
            sizes = Synthetic(train_videos=videos * 9 // 10, validate_videos=videos // 10, min_frames=30,
                              max_frames=60, videos_per_shard=500)  # fmt: skip
            write_synthetic(shards, sizes, seed=0, compute=Compute(workers=2))
            megabytes[videos] = round(sum(path.stat().st_size for path in shards.glob("*.tfrecord")) / 1e6)
        for machines, videos in itertools.product([1, 2] * parsed.rounds, megabytes):
            with tempfile.TemporaryDirectory(dir=kept) as folder:
                found, digests = seconds(Path(kept) / f"shards{videos}", machines, Path(folder))
            taken.setdefault(f"{machines} machines, {videos} videos", []).append(round(found, 2))
            if first.setdefault(videos, digests) != digests:
                raise SystemExit(f"{machines} machines made other frames")
            print(f"{machines} machines, {videos} videos: {found:.1f} s", flush=True)
    few, many = megabytes
    median = {name: statistics.median(times) for name, times in taken.items()}
    work = {n: median[f"{n} machines, {many} videos"] - median[f"{n} machines, {few} videos"] for n in (1, 2)}
    result = {
        "machine": machine() | {"ray": ray.__version__},
        "input_mb": megabytes,
        "seconds": taken,
        "work_seconds": {str(n): round(found, 2) for n, found in work.items()},
        "two_over_one_work": round(work[1] / work[2], 2),
        "two_over_one_whole": round(median[f"1 machines, {many} videos"] / median[f"2 machines, {many} videos"], 2),
    }
    with atomic_file(parsed.out) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"two machines work {result['two_over_one_work']} times as fast as one; written to {parsed.out}")


if __name__ == "__main__":
    main()
