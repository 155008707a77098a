"""Every benchmark with one command: a table with target and measured, and a plot of how cost grows.

    make bench                                  # or, for some of them:
    python -m benchmarks training_step start_up

Each number is a ratio to something timed in the same process, in turns, median over rounds; each part has a process of
its own. Results go to benchmarks/results/bench.json, bench.md and growth.png, with the machine; parts not run keep what
was measured before.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.attack_rate import deepfool, projected_gradient
from benchmarks.explorer import explorer
from benchmarks.growth import draw, growth
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
    "projected_gradient": projected_gradient,
    "deepfool": deepfool,
    "metric_rate": metric_rate,
    "start_up": start_up,
    "explorer": explorer,
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
    parts = arguments.parts or list(PARTS)
    for name in (bar := tqdm(parts, unit="part")):
        bar.set_postfix_str(name)
        started = time.perf_counter()
        if not (rows := apart(PARTS[name])):
            continue  # it has said what is missing
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
    if "growth" in parts:
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
                met = "yes" if row["met"] else ": ".join(filter(None, ["no", row.get("bound", "")]))
                lines.append([row["name"], wanted, measured, row["against"], met])
    machines = {json.dumps(part["machine"], sort_keys=True): part["machine"] for part in found.values()}
    told = "; ".join(", ".join(f"{key} {value}" for key, value in one.items()) for one in machines.values())
    table = markdown_table(["what", "target", "measured", "held against", "met"], lines, 1)
    seconds = sum(part["seconds"] for part in found.values())
    return f"# Benchmarks\n\n`make bench`, {seconds} s. Measured on: {told}.\n\n{table}"


if __name__ == "__main__":
    main()
