"""The report of a run: ``notebooks/report.ipynb``, executed and rendered."""

from pathlib import Path

import nbformat

from pipeline.base.atomic import atomic_file
from pipeline.base.errors import ConfigError
from pipeline.base.parameters import load_params
from pipeline.report.page import page
from pipeline.run.notebooks import run

NOTEBOOK = Path("notebooks", "report.ipynb")


def write_report(folder: Path, target: Path, project: Path) -> Path:
    """Write the report of a run: the project's folder after ``dvc repro``, or one below ``results/``."""
    params = folder / "params.yaml"
    if not params.is_file():
        raise ConfigError(f"{folder}: no run here (no params.yaml); give the project's folder or one below results/")
    executed = project / ".resume" / NOTEBOOK.name
    run(project / NOTEBOOK, executed, {"params": str(params.resolve()), "workspace": str(folder.resolve())})
    text = page(nbformat.read(executed, as_version=4), load_params(params))
    with atomic_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target
