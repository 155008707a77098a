"""Git, where there is one: the commit a project is at, and whether DVC is to ask for it.

A downloaded archive has no ``.git``, and a repository around it is another project's: its commit is not this one's, and
what it ignores is not what DVC should. So only a ``.git`` in the project's own folder counts; it may be a worktree's.
"""

import re
import subprocess
import sys
from pathlib import Path

from pipeline.base.errors import ArtpaperError

NO_COMMIT = "no commit"
CODE = ("artpaper", "pipeline", "notebooks", "dvc.yaml", "stress/dvc.yaml")


def revision(folder: Path) -> tuple[str, list[str]]:
    """The hash of a project's commit, and its files of code and notebooks that are not as committed.

    ``no commit`` and no files where the folder is not under Git, nothing is committed yet, or git is not installed.
    """
    if not _under_git(folder):
        return NO_COMMIT, []
    try:
        commit = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--", *CODE)
    except (OSError, subprocess.CalledProcessError):
        return NO_COMMIT, []
    return commit, [line.split(maxsplit=1)[1] for line in changed.splitlines()]


def tell_dvc(folder: Path) -> None:
    """Have DVC ask Git in a project that is under Git, and only there: without this it stops in an archive.

    It is kept in ``.dvc/config.local``, which Git ignores, and taken back once the folder is under Git. Who keeps the
    project inside a larger repository says so once: ``dvc config --local core.no_scm false`` is left as it is. A folder
    without ``.dvc`` is left alone.
    """
    if not (folder / ".dvc").is_dir():
        return
    local = folder / ".dvc" / "config.local"
    kept = re.search(r"^\s*no_scm\s*=\s*(\w+)", local.read_text(encoding="utf-8"), re.M) if local.is_file() else None
    if not kept and not _under_git(folder):
        dvc(folder, "config", "--local", "core.no_scm", "true")
    elif kept and kept[1].lower() == "true" and _under_git(folder):
        dvc(folder, "config", "--local", "--unset", "core.no_scm")


def dvc(folder: Path, *arguments: str) -> str:
    """What a command of DVC prints, run in a project's folder."""
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise ArtpaperError(f"{folder}: dvc {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


def _under_git(folder: Path) -> bool:
    return (folder / ".git").exists()


def _git(folder: Path, *arguments: str) -> str:
    # both named, so that git looks nowhere else, and asks neither who owns the folder nor its environment
    command = ["git", f"--git-dir={folder.absolute() / '.git'}", f"--work-tree={folder.absolute()}", *arguments]
    return subprocess.run(command, cwd=folder, encoding="utf-8", capture_output=True, check=True).stdout.strip()


if __name__ == "__main__":  # `make` asks before it runs anything
    tell_dvc(Path.cwd())
