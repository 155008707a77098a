"""Nothing lost: faults put into every stage at random moments, and every byte compared with an undisturbed run's.

    python -m tests.faults.inject                       # all of them
    python -m tests.faults.inject --only SIGKILL NaN    # those whose names begin so; the others keep what they had

Full disks and read-only ones are small file systems in memory, which only root may mount; without it they are left out,
and the table says so. The moments follow from --seed, but what a run is at then depends on the machine. Results:
tests/faults/results/faults.json and faults.md.
"""

import argparse
import collections
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.measure import machine
from pipeline.base.atomic import atomic_file
from pipeline.paper.style import markdown_table
from tests.faults.cases import SLOWER, Fault, can_mount, faults
from tests.faults.world import World

RESULTS = Path(__file__).parent / "results"
NEED_MOUNT = ("disk full", "output read-only")
SHOWN = 160  # characters of an outcome that was not expected


def inject(fault: Fault, world: World, seed: int) -> dict[str, Any]:
    """Inject one fault as often as it says.

    Returns:
        The row of the table: ``injected``, how often what happened (``outcomes``), how often it was what should, and
        the files that were ``lost``: missing, half written under their own names, other bytes, or left over.
    """
    outcomes: collections.Counter[str] = collections.Counter()
    lost: list[str] = []
    began = time.monotonic()
    for number in range(fault.times):
        folder = world.folder / f"{fault.stage}-{number}"
        outcome, missing = fault.inject(world, folder, random.Random(f"{seed} {fault.name} {fault.stage} {number}"))
        outcomes[outcome] += 1
        lost += missing
        shutil.rmtree(folder, ignore_errors=True)
    right = sum(count for told, count in outcomes.items() if told.startswith((fault.wanted, SLOWER)))
    return {
        "fault": fault.name, "stage": fault.stage, "injected": fault.times, "as_wanted": right, "wanted": fault.wanted,
        "outcomes": dict(outcomes), "lost": lost, "seconds": round(time.monotonic() - began),
    }  # fmt: skip


def markdown(found: dict[str, Any]) -> str:
    """The table for people, as ``faults.json`` has it."""
    rows = []
    for row in found["rows"]:
        happened = "; ".join(
            f"{count} x {' '.join(told.split())[:SHOWN]}" for told, count in sorted(row["outcomes"].items())
        )
        rows.append([row["fault"], row["stage"], str(row["injected"]), happened, str(len(row["lost"]))])
    total, lost = (sum(row["injected"] for row in found["rows"]), sum(len(row["lost"]) for row in found["rows"]))
    missed = sum(row["outcomes"].get(SLOWER, 0) for row in found["rows"])
    odd = sum(row["injected"] - row["as_wanted"] for row in found["rows"])
    told = ", ".join(f"{key} {value}" for key, value in found["machine"].items())
    left_out = (
        f" Left out, for want of the right to mount: {', '.join(found['left_out'])}." if found["left_out"] else ""
    )
    return (
        f"# Faults\n\n`python -m tests.faults.inject`: {total - missed} faults injected, {odd} ended in anything else "
        f"than they should, {lost} files lost.{left_out} In every row all output was then compared, byte for byte, "
        "with that of a run that nothing disturbed. Lost is a file that was missing, other, left over, or half written "
        'under its own name. "done": the stage ran to its end afterwards; "done before": it had already ended when the '
        f"fault came ({missed} more, not counted).\n\n"
        f"Measured on: {told}.\n\n{markdown_table(['fault', 'stage', 'injected', 'what happened', 'lost'], rows, 2)}"
    )


def main() -> None:
    """Inject all faults, or some, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="beginnings of faults' names")
    parser.add_argument("--stage", nargs="+", help="these stages alone")
    parser.add_argument("--times", type=int, help="how often each, instead of as often as the table says")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a process with threads cannot be forked
    every = faults()
    path = arguments.out / "faults.json"
    former = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    rows = {(row["fault"], row["stage"]): row for row in former}
    with tempfile.TemporaryDirectory() as folder:
        left_out = () if can_mount(Path(folder) / "mount") else NEED_MOUNT
        chosen = [
            fault for fault in every
            if fault.name.startswith(tuple(arguments.only)) and fault.name not in left_out
            and (arguments.stage is None or fault.stage in arguments.stage)
        ]  # fmt: skip
        world = World(Path(folder) / "world", {fault.stage for fault in chosen})
        bar = tqdm(chosen, unit="fault")
        for fault in bar:
            bar.set_postfix_str(f"{fault.name}, {fault.stage}")
            if arguments.times:
                fault = Fault(fault.name, fault.stage, arguments.times, fault.wanted, fault.inject)
            rows[fault.name, fault.stage] = row = inject(fault, world, arguments.seed)
            if row["as_wanted"] < row["injected"] or row["lost"]:
                tqdm.write(json.dumps(row, indent=1).replace("\\n", "\n"))
    order = [(fault.name, fault.stage) for fault in every]
    found = {
        "seed": arguments.seed, "machine": machine(), "left_out": list(left_out),
        "rows": [rows[key] for key in order if key in rows],
    }  # fmt: skip
    arguments.out.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (arguments.out / "faults.md").write_text(markdown(found), encoding="utf-8")
    sys.exit(any(row["as_wanted"] < row["injected"] or row["lost"] for row in found["rows"]))


if __name__ == "__main__":
    main()
