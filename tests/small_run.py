"""One run of the pipeline on the small profile, which every test that looks at a run shares.

    python -m tests.small_run

It is kept in small/run: a copy of the project's files under Git, in which `dvc repro` has run, the stress test too.
Made again, it takes over the files that have changed, and DVC runs what these concern; `make clean` removes it.

- ``tests/test_pipeline.py`` takes a copy and tries what reruns when;
- ``make nbval`` compares the notebooks that it executed with the committed ones (``tests/replay.py``);
- notebooks that are run by hand, as nbval runs the others and as the browser tests do, find their workspace filled.
"""

import fcntl
import filecmp
import shutil
from pathlib import Path

from pipeline.run.profiles import whole
from pipeline.run.workspace import open_workspace
from tests.pipeline import ROOT, call, commit, project_files

RUN = ROOT / "small" / "run"
IMPORTED = RUN / ".git" / "imported"  # a file a stage and process: what it imported of the project
OWN = ("metrics/", "dvc.lock", "stress/dvc.lock", "params.yaml")  # what a run writes beside the project's files
PROFILE = "profiles/small.yaml"
RESULTS = ("frames", "models", "predictions", "robustness", "tables", "figures", "claims", "metrics", "study", "stress",
           "verdict")  # fmt: skip


def small_run(copy: Path | None = None) -> Path:
    """The folder of the run, made or brought up to date now, or a copy of it; another process at it is waited for."""
    RUN.mkdir(parents=True, exist_ok=True)
    with open(RUN.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        take_over(RUN)
        (RUN / "params.yaml").write_text(whole(RUN / PROFILE))
        commit(RUN, "as it is now")
        IMPORTED.mkdir(exist_ok=True)
        watched = {"PYTHONPATH": f"{RUN}:{RUN / 'tests' / 'watch'}", "IMPORTED": str(IMPORTED)}
        call(RUN, "dvc", "repro", **watched)
        call(RUN, "dvc", "repro", "stress/dvc.yaml", **watched)
        fill_workspace(RUN)
        return shutil.copytree(RUN, copy, symlinks=True) if copy else RUN  # before another process commits there


def take_over(folder: Path) -> None:
    """Make the files of a copy those of the project: what is the same keeps its time, what is gone goes."""
    names = [name for name in project_files(ROOT) if not name.startswith(OWN)]
    for name in set(project_files(folder)) - set(names):
        if not name.startswith(OWN):
            (folder / name).unlink()
    for name in names:
        if not ((folder / name).is_file() and filecmp.cmp(ROOT / name, folder / name, shallow=False)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def fill_workspace(run: Path) -> None:
    """Give a notebook's own parameters, the small profile in a scratch workspace, the results of the run."""
    workspace = open_workspace(PROFILE, "small").root
    if not workspace.exists():
        half = workspace.with_suffix(".half")
        shutil.rmtree(half, ignore_errors=True)
        for name in RESULTS:
            shutil.copytree(run / name, half / name)
        half.rename(workspace)


if __name__ == "__main__":
    print(small_run())
