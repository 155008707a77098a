"""What tests of whole steps share: running them, killing them, and comparing what they leave."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.parameters import Params, as_dict, build

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def project_files(folder: Path) -> list[str]:
    """The files of the project or of a copy, without what ``.gitignore`` names; it need be no repository."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    with tempfile.TemporaryDirectory() as empty:  # a repository that tracks nothing
        subprocess.run(["git", "init", "--quiet", "--bare", empty], check=True)
        command = ["git", f"--git-dir={empty}", f"--work-tree={folder}", "ls-files", "-z", "-o", "--exclude-standard"]
        listed = subprocess.check_output(command, cwd=folder, text=True)
    return [name for name in listed.split("\0") if (folder / name).is_file()]


def copy_project(folder: Path) -> Path:
    """The project's files as they are now, without any results."""
    for name in project_files(ROOT):
        if name != "dvc.lock":  # names results of another folder
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def commit(folder: Path, message: str) -> str:
    """Commit all that lies in a folder, in a repository of its own, made if need be; its hash."""
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", message, "--allow-empty"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=folder, text=True).strip()


def call(folder: Path, *command: str, **variables: str) -> str:
    """What a command prints, run in a copy of the project with that copy's code; it must succeed."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(folder), **variables}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


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
        [sys.executable, "-m", "pipeline.run.cli", *command], cwd=ROOT, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + patience
    while not ready():
        assert process.poll() is None, f"{command} ended with {process.returncode} before it could be killed"
        assert time.monotonic() < deadline, f"{command} was not ready after {patience} s"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
