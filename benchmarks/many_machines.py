"""Preparation by a Ray cluster of one machine and of two, each of one core: how much the second one brings.

Both are processes of this machine, on its loopback, so it must have two cores to give. The cluster is held to as many
cores as it has machines: one machine would else write on the second core what it reads on the first. A first, small
preparation joins the cluster and starts its processes, which takes the same however much there is to do; the second
one, of all videos, is the work. Rounds take turns, and the frames must come out the same in every one.

    python -m benchmarks.many_machines --videos 20000
"""

import argparse
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

from benchmarks.measure import machine
from pipeline.base.atomic import atomic_file
from pipeline.base.groups import Compute, Data, Synthetic
from pipeline.base.parameters import Params
from pipeline.prepare.prepare import prepare
from pipeline.scale.cluster import join
from pipeline.synthetic.generator import write_synthetic
from tests.pipeline import digest

RESULT = Path(__file__).parent / "results" / "many_machines.json"


def seconds(few: Path, many: Path, machines: int, folder: Path) -> tuple[float, float, dict[str, str]]:
    """Prepare shards on a cluster, first a few of them.

    Args:
        few, many: folders of shards in YouTube-8M's format.
        machines: of one core each; started before the clock.
        folder: where the frames go; the current folder meanwhile, which all machines must see.
    Returns:
        Seconds of the first preparation with joining the cluster, seconds of the second, and a hash of each of its
        files.
    """
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:machines])  # and what is started from here
    cluster = Cluster()
    for _ in range(machines):
        cluster.add_node(num_cpus=1)
    compute = Compute(engine="ray", workers=machines, address=cluster.address)
    before = Path.cwd()
    os.chdir(folder)
    times = [time.perf_counter()]
    try:
        join(cluster.address)  # by the preparation itself it would also be left, and its processes would end
        for shards in (few, many):
            params = Params(data=Data(source="yt8m", path=str(shards)), compute=compute)
            prepare(params, folder, progress=False)
            times.append(time.perf_counter())
    finally:
        os.chdir(before)
        ray.shutdown()
        cluster.shutdown()
        os.sched_setaffinity(0, cores)
    return times[1] - times[0], times[2] - times[1], digest(folder / "frames")


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the data go (default: a temporary folder)")
    parser.add_argument("--out", type=Path, default=RESULT, help="the file of the result")
    parsed = parser.parse_args()
    starts: dict[int, list[float]] = {1: [], 2: []}
    works: dict[int, list[float]] = {1: [], 2: []}
    first: dict[str, str] = {}
    with tempfile.TemporaryDirectory(dir=parsed.folder) as kept:
        few, many = Path(kept) / "few", Path(kept) / "many"
        for shards, videos in ((few, 1000), (many, parsed.videos)):
            sizes = Synthetic(train_videos=videos * 9 // 10, validate_videos=videos // 10, min_frames=30,
                              max_frames=60, videos_per_shard=500)  # fmt: skip
            write_synthetic(shards, sizes, seed=0, compute=Compute(workers=2))
        megabytes = round(sum(path.stat().st_size for path in many.glob("*.tfrecord")) / 1e6)
        for machines in [1, 2] * parsed.rounds:
            with tempfile.TemporaryDirectory(dir=kept) as folder:
                start, work, digests = seconds(few, many, machines, Path(folder))
            starts[machines].append(round(start, 2))
            works[machines].append(round(work, 2))
            first = first or digests
            if first != digests:
                raise SystemExit(f"{machines} machines made other frames")
            print(f"{machines} machines: start {start:.1f} s, {megabytes} MB in {work:.1f} s", flush=True)
    result = {
        "machine": machine() | {"ray": ray.__version__},
        "input_mb": megabytes,
        "start_s": starts,
        "work_s": works,
        "two_over_one": round(statistics.median(works[1]) / statistics.median(works[2]), 2),
    }
    with atomic_file(parsed.out) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"two machines work {result['two_over_one']} times as fast as one; written to {parsed.out}")


if __name__ == "__main__":
    main()
