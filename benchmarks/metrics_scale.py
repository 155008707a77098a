"""Time and memory of GAP, PERR and Hit@1 on a test set of the paper's size.

    python -m benchmarks.metrics_scale [--videos 1048356 --classes 317]

Scores are random float32 probabilities, higher on the labels (about three a video). Memory is the process's peak while
the metrics run, less what it held just before, inputs included.
"""

import argparse
import json
import os
import platform
import resource
import time
from pathlib import Path

import numpy as np
import torch

from artpaper.metrics import gap, hit_at_1, perr
from benchmarks.measure import held
from pipeline.paper.publish import processor

RESULT = Path(__file__).parent / "results" / "metrics_scale.json"


def make_input(videos: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores float32 (videos, classes) and labels bool (videos, classes), filled in place to leave no peak behind."""
    random = np.random.default_rng(0)
    scores = np.empty((videos, classes), dtype=np.float32)
    labels = np.empty((videos, classes), dtype=bool)
    for start in range(0, videos, 4096):
        part = slice(start, min(start + 4096, videos))
        size = (part.stop - start, classes)
        labels[part] = random.random(size, dtype=np.float32) < 3 / classes
        logits = random.standard_normal(size, dtype=np.float32) - 4 + 5 * labels[part]
        scores[part] = 1 / (1 + np.exp(-logits))
    return scores, labels


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of the metrics at full size.")
    parser.add_argument("--videos", type=int, default=1_048_356)
    parser.add_argument("--classes", type=int, default=317)
    arguments = parser.parse_args()
    scores, labels = make_input(arguments.videos, arguments.classes)
    before = held("VmRSS")
    seconds, values = {}, {}
    for name, function in (("gap", gap), ("perr", perr), ("hit_at_1", hit_at_1)):
        started = time.perf_counter()
        values[name] = round(function(scores, labels), 6)
        seconds[name] = round(time.perf_counter() - started, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result = {
        "videos": arguments.videos,
        "classes": arguments.classes,
        "values": values,
        "seconds": seconds | {"all": round(sum(seconds.values()), 1)},
        "input_megabytes": round((scores.nbytes + labels.nbytes) / 1e6),
        "peak_megabytes_above_input": round(max(0, peak - before) / 1e6),
        "machine": {
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
