"""Every benchmark with one command: a table with target and measured, and a plot of how cost grows.

    make bench                                  # or, for some of them:
    python -m benchmarks training_step start_up

Each number is a ratio to something timed in the same process, in turns, median over rounds; each part has a process of
its own. Results go to benchmarks/results/bench.json, bench.md and growth.png, with the machine; parts not run keep what
was measured before.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns
from tqdm import tqdm

from benchmarks.attack_rate import attack_rate
from benchmarks.growth import SIZES, growth
from benchmarks.input_rate import input_rate
from benchmarks.measure import Line, apart, machine
from benchmarks.metric_rate import metric_rate
from benchmarks.start_up import start_up
from benchmarks.training_step import training_step
from pipeline.base.atomic import atomic_file
from pipeline.paper.style import markdown_table

RESULTS = Path(__file__).parent / "results"
PARTS: dict[str, Callable[[], Any]] = {
    "training_step": training_step,
    "input_rate": input_rate,
    "attack_rate": attack_rate,
    "metric_rate": metric_rate,
    "start_up": start_up,
    "growth": growth,
}


def main() -> None:
    """Run the parts asked for, all by default, and write the results."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    path = arguments.out / "bench.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    bar = tqdm(arguments.parts or list(PARTS), unit="part")
    for name in bar:
        bar.set_postfix_str(name)
        started = time.perf_counter()
        rows = apart(PARTS[name])
        found[name] = {
            "machine": machine(),
            "seconds": round(time.perf_counter() - started),
            "rows": [row.as_dict() if isinstance(row, Line) else row for row in rows],
        }
        arguments.out.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    page = markdown(found)
    (arguments.out / "bench.md").write_text(page, encoding="utf-8")
    if "growth" in found:
        draw(found["growth"]["rows"], arguments.out / "growth.png")
    print(page)


def markdown(found: dict[str, Any]) -> str:
    """The table for people.

    Args:
        found: as bench.json has it.
    """
    lines = []
    for name in PARTS:
        for row in found.get(name, {}).get("rows", ()):
            if "target" in row:
                wanted = f"{'at least' if row['at_least'] else 'at most'} {row['target']:g} {row['unit']}".strip()
                measured = f"{row['measured']:.3g} {row['unit']}".strip()
                lines.append([row["name"], wanted, measured, row["against"], "yes" if row["met"] else "no"])
    machines = {json.dumps(part["machine"], sort_keys=True): part["machine"] for part in found.values()}
    told = "; ".join(", ".join(f"{key} {value}" for key, value in one.items()) for one in machines.values())
    table = markdown_table(["what", "target", "measured", "held against", "met"], lines, 1)
    seconds = sum(part["seconds"] for part in found.values())
    return f"# Benchmarks\n\n`make bench`, {seconds} s. Measured on: {told}.\n\n{table}"


def draw(points: list[dict[str, Any]], path: Path) -> None:
    """Cost against size, a panel an axis, both logarithmic.

    Args:
        points: as :func:`benchmarks.growth.growth` returns them.
        path: of the picture.
    """
    with sns.axes_style("whitegrid"):
        figure, axes = plt.subplots(1, len(SIZES), figsize=(3.4 * len(SIZES), 3.3), layout="constrained")
    for axis, panel in zip(SIZES, axes, strict=True):
        own = [point for point in points if point["axis"] == axis]
        seconds = [point["median_s"] for point in own]
        panel.loglog([point["size"] for point in own], seconds, marker="o")
        for point in own:
            panel.annotate(f"{point['median_s']:.2g}", (point["size"], point["median_s"]), (-4, 7),
                           textcoords="offset points", ha="center", fontsize=8)  # fmt: skip
        middle = math.sqrt(min(seconds) * max(seconds))  # at least a decade, or noise would look like growth
        panel.set_ylim(min(0.6 * min(seconds), middle / 3), max(2 * max(seconds), 3 * middle))
        what = "GAP" if axis == "videos" else "A-ART's step"
        panel.set(xlabel=axis, ylabel="seconds", title=f"{what} grows as {axis}$^{{{own[-1]['power']:g}}}$")
        panel.set_xticks([point["size"] for point in own], [f"{point['size']:,}" for point in own])
        panel.minorticks_off()
        panel.margins(x=0.12)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
