"""What tests of whole steps share: running them, killing them, and comparing what they leave."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from artpaper.config import Params, as_dict, build

ROOT = Path(__file__).resolve().parents[1]


def digest(folder: Path) -> dict[str, str]:
    """Relative name to hash of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def changed(params: Params, **groups: dict[str, Any]) -> Params:
    """The parameters with some keys of some groups changed."""
    values = as_dict(params)
    for group, changes in groups.items():
        values[group] = {**values[group], **changes}
    return build(Params, values, "test")


def link_frames(workspace: Path, target: Path) -> Path:
    """A workspace of its own that shares the prepared frames of another."""
    (target / "frames").symlink_to(workspace / "frames", target_is_directory=True)
    return target


def kill_when(command: list[str], ready: Callable[[], Any], patience: float = 120) -> None:
    """Start a command line of ours, wait until ``ready`` says so, and kill it with SIGKILL, children included."""
    process = subprocess.Popen(
        [sys.executable, "-m", "artpaper.cli", *command], cwd=ROOT, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + patience
    while not ready():
        assert process.poll() is None, f"{command} ended with {process.returncode} before it could be killed"
        assert time.monotonic() < deadline, f"{command} was not ready after {patience} s"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
