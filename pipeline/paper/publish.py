"""Keep a run's tables and figures under ``results/`` with what made them: commit, command, parameters and machine.

Where Git does not have the project, as in a downloaded archive, the commit is ``no commit``.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

from pipeline.base.atomic import replace_folder, save_json, save_text
from pipeline.base.errors import ArtpaperError
from pipeline.base.git import revision, tell_dvc
from pipeline.base.parameters import load_params
from pipeline.paper.results import executed_notebooks

NOT_OURS = (".gitignore", "synthetic_data*", "stress.*", "sweeps.*")  # of figures/: not made by dvc.yaml
PUBLISHED_ALONE = ("stress", "trial")  # folders beside a published run that are no part of it
NOTEBOOK_BYTES = 1_000_000  # of an executed notebook that is kept; what makes one larger are its pictures
PACKAGES = ("torch", "numpy", "pyarrow", "tensorflow-cpu", "tensorflow", "dvc", "papermill")


def publish(workspace: Path, target: Path, command: str) -> dict[str, Any]:
    """Copy tables, figures, parameters, histories and executed notebooks to ``target``, with a ``provenance.json``.

    The folder is replaced as a whole but for its README.md and :data:`PUBLISHED_ALONE`; ``command`` is what a reader
    types to make the same. Returns what provenance.json says.
    """
    if not (workspace / "tables" / "table1.md").is_file():
        raise ArtpaperError(f"{workspace / 'tables'}: no tables to publish; `dvc repro` makes them")
    commit = _clean(workspace, "dvc.yaml")
    params = load_params(workspace / "params.yaml")
    copy = target.with_name(f".{target.name}.new")
    shutil.rmtree(copy, ignore_errors=True)
    for name in ("tables", "figures", "metrics"):
        shutil.copytree(workspace / name, copy / name, ignore=shutil.ignore_patterns(*NOT_OURS))
    for name in ("params.yaml", "frames/summary.json"):
        shutil.copy2(workspace / name, copy / Path(name).name)
    for model in params.experiment.models:
        for seed in params.experiment.seeds:
            run = Path("models", model, f"seed{seed}")
            (copy / run).mkdir(parents=True)
            for name in ("model.json", "history.csv"):  # by name: nothing else, and none may be missing
                shutil.copy2(workspace / run / name, copy / run / name)
    for path in executed_notebooks(workspace, params).values():
        keep_notebook(path, copy / "notebooks" / path.relative_to(workspace / "reports"), workspace)
    if (target / "README.md").is_file():  # written by hand
        shutil.copy2(target / "README.md", copy / "README.md")
    for name in PUBLISHED_ALONE:
        if (target / name).is_dir():
            shutil.copytree(target / name, copy / name)
    return _keep(copy, target, commit, command)


def keep_notebook(path: Path, target: Path, workspace: Path) -> None:
    """Copy an executed notebook; of one above :data:`NOTEBOOK_BYTES` the largest outputs are left out, and said to be.

    Of a bar its last line is kept. Whoever reads the notebook need not know where ``workspace`` lay.
    """
    notebook, _ = CoalesceStreamsPreprocessor().preprocess(nbformat.read(path, as_version=4), {})
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    for output in sorted(outputs, key=lambda output: -len(json.dumps(output))):
        if len(nbformat.writes(notebook)) <= NOTEBOOK_BYTES:
            break
        left = f"An output of {len(json.dumps(output)) / 1000:,.0f} kB, left out of the published notebook.\n"
        output.clear()
        output.update(nbformat.v4.new_output("stream", text=left))
    save_text(nbformat.writes(notebook).replace(f"{workspace.resolve().as_posix()}/", "") + "\n", target)


def publish_stress(workspace: Path, target: Path, command: str) -> dict[str, Any]:
    """Copy the stress test's verdict, tables and figures to ``target/stress``, as :func:`publish` does the others."""
    if not (workspace / "verdict" / "verdict.md").is_file():
        raise ArtpaperError(f"{workspace / 'verdict'}: nothing to publish; `dvc repro stress/dvc.yaml` makes it")
    commit = _clean(workspace, "stress/dvc.yaml")
    copy = target / ".stress.new"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(workspace / "verdict", copy)
    for path in (*workspace.glob("figures/stress.*"), *workspace.glob("figures/sweeps.*")):
        shutil.copy2(path, copy)
    for name in ("params.yaml", "stress/training.csv"):
        shutil.copy2(workspace / name, copy)
    return _keep(copy, target / "stress", commit, command)


def _clean(workspace: Path, pipeline: str) -> str:
    """The commit that made these results; refused where code is not as committed, or results are older than code."""
    tell_dvc(workspace)
    commit, changed = revision(workspace)
    if changed:
        raise ArtpaperError("\n".join(["commit these first, or no commit says what was run:", *changed]))
    if subprocess.run([sys.executable, "-m", "dvc", "status", "--quiet", pipeline], cwd=workspace).returncode:
        raise ArtpaperError(
            f"the results are older than params.yaml or the code (see `dvc status {pipeline}`); run `dvc repro "
            f"{pipeline}` first"
        )
    return commit


def _keep(copy: Path, target: Path, commit: str, command: str) -> dict[str, Any]:
    """Put a finished copy in its place, with its provenance, which is returned."""
    provenance = {"commit": commit, "command": command, **environment()}
    save_json(provenance, copy / "provenance.json", indent=2)
    replace_folder(copy, target)
    return provenance


def environment() -> dict[str, Any]:
    """This machine, Python and the packages that a result may hang on, as ``provenance.json`` has them."""
    versions = {}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "machine": {"processor": processor(), "cores": os.cpu_count(), "system": platform.system()},
        "python": platform.python_version(),
        "packages": versions,
    }


def processor() -> str:
    """The name of this machine's processor, as its system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
