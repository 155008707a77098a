"""What there is to wait for before anything happens."""

import subprocess
import sys
from pathlib import Path

from benchmarks.measure import Line, take_turns

ROOT = Path(__file__).parents[1]
PARTS = "artpaper.models, artpaper.losses, artpaper.attacks, artpaper.metrics"
HEAVY = ("tensorflow", "dvc", "jupyterlab", "pandas", "pyarrow", "matplotlib")


def start_up(rounds: int = 7) -> list[Line]:
    """The lines about start-up; that of `dvc repro` only where everything is up to date, or there would be work to do.

    Args:
        rounds: how often each is timed.
    """
    times = take_turns(
        {"torch": lambda: _python("import torch"), "artpaper": lambda: _python(f"import {PARTS}")}, rounds
    )
    there = _python(f"import sys, {PARTS}; print(*(name for name in {HEAVY!r} if name in sys.modules))").split()
    lines = [
        Line("import artpaper (all four parts)", times.ratio("artpaper", "torch"), 1.3, False, "x", "import torch",
             times.details()),
        Line("TensorFlow, DVC, Jupyter ... imported by it", len(there), 0, False, "", "", {"imported": there}),
    ]  # fmt: skip
    dvc = str(Path(sys.executable).with_name("dvc"))
    if subprocess.run([dvc, "status", "-q"], cwd=ROOT, capture_output=True).returncode == 0:
        nothing = take_turns(
            {"repro": lambda: subprocess.run([dvc, "repro"], cwd=ROOT, check=True, capture_output=True)}
        )
        lines.append(Line("dvc repro, nothing to do", nothing.median("repro"), 5, False, "s", "", nothing.details()))
    return lines


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
