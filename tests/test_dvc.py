"""DVC knows what a stage reads: the code that its notebook imports is among its dependencies, or there is a reason."""

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest
from ruamel.yaml import YAML

from pipeline.base.identity import imported
from pipeline.base.sources import SOURCES
from tests.pipeline import ROOT

EVERY_STAGE = {
    "artpaper/__init__.py": "lists what the library exports, and its version",
    "artpaper/settings.py": "has types of parameters, which are compared by value",
    "pipeline/base": "checks, locks and writes whole files; parameters are compared by value",
    "pipeline/run": "runs notebooks; what it imports to make what a scratch workspace lacks is not run in the pipeline",
    "pipeline/scale": "spreads work over processes; results do not depend on how many",
}
ONE_STAGE = {
    ("prepare", "artpaper"): "checks settings, which are compared by value",
    ("prepare", "pipeline/paper"): "draws in the notebook alone; an older picture is no reason to prepare anew",
    ("train", "pipeline/paper"): "draws in the notebook alone; an older picture is no reason to train anew",
    ("attack", "pipeline/paper"): "draws in the notebook alone; an older picture is no reason to attack anew",
    ("attack", "pipeline/train/device.py"): "chooses a device",
    ("deepfool", "pipeline/train/device.py"): "chooses a device",
    ("tables", "pipeline/train/device.py"): "chooses a device",
    ("tables", "pipeline/train/checkpoints.py"): "is used where predictions are made, not where they are read",
    ("robustness", "pipeline/train"): "is used where perturbations are searched for, not where they are read",
    ("verdict", "pipeline/data"): "is used where attacks are made, not where they are read",
    ("verdict", "pipeline/train"): "is used where attacks are made, not where they are read",
    ("attention", "pipeline/train/device.py"): "chooses a device",
    ("claims", "pipeline/train/history.py"): "reads shares for CLAIMS.md, which no stage writes",
    ("report", "pipeline/train/history.py"): "reads shares for CLAIMS.md, which no stage writes",
}


@cache
def stages() -> dict[str, dict[str, Any]]:
    """Every stage of both files, as it is written there."""
    files = [YAML(typ="safe").load(ROOT / name)["stages"] for name in ("dvc.yaml", "stress/dvc.yaml")]
    return files[0] | files[1]


def code(stage: str) -> list[str]:
    """The dependencies of a stage that are code."""
    return [path for path in stages()[stage]["deps"] if path.startswith(("artpaper", "pipeline"))]


def uncovered(stage: str, files: set[str]) -> set[str]:
    """Source files that neither a dependency of the stage nor a stated reason covers."""
    known = [*code(stage), *EVERY_STAGE, *(path for name, path in ONE_STAGE if name == stage)]
    return {file for file in files if not within(file, known) and not is_docstring(ROOT / file)}


def within(file: str, paths: Iterable[str]) -> bool:
    return any(f"{file}/".startswith(f"{path}/") for path in paths)


def is_docstring(path: Path) -> bool:
    """As an ``__init__.py`` may be."""
    return all(isinstance(node, ast.Expr) for node in ast.parse(path.read_bytes()).body)


@cache
def sources(stage: str) -> set[str]:
    """The source files of all that the stage's notebook imports, and so on, but for what runs notebooks."""
    [notebook] = [path for path in stages()[stage]["deps"] if path.startswith(".clean/")]
    cells = nbformat.read(ROOT / "notebooks" / Path(notebook).name, as_version=4).cells
    tree = ast.parse("\n".join(cell.source for cell in cells if cell.cell_type == "code"))
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    if stage == "prepare":
        names += [source.reader for source in SOURCES.values()]  # imported by name
    files = imported(*(name for name in names if not name.startswith("pipeline.run")))
    return {path.relative_to(ROOT).as_posix() for path in files}


RUN_NOTEBOOKS = [name for name in stages() if name != "notebooks"]


@pytest.mark.parametrize("stage", RUN_NOTEBOOKS)
def test_what_a_notebook_imports_is_a_dependency_of_its_stage(stage: str) -> None:
    """What they really import in a run: tests/test_pipeline.py."""
    assert sources(stage)
    assert uncovered(stage, sources(stage)) == set()


@pytest.mark.parametrize("stage", RUN_NOTEBOOKS)
def test_a_stage_lists_no_code_that_it_does_not_import(stage: str) -> None:
    for path in code(stage):
        assert any(within(file, [path]) for file in sources(stage)), path


def test_no_reason_is_left_of_what_is_gone() -> None:
    for stage, path in ONE_STAGE:
        assert stage not in RUN_NOTEBOOKS or any(within(file, [path]) for file in sources(stage)), (stage, path)
        assert path not in code(stage)


@pytest.mark.parametrize("stage", stages())
def test_a_stage_has_few_dependencies_and_keeps_its_executed_notebook(stage: str) -> None:
    assert len(code(stage)) <= 5
    assert all((ROOT / path).exists() for path in code(stage))
    assert all(isinstance(path, str) for path in stages()[stage]["outs"])  # cached, so that an earlier one comes back
    if stage not in ("notebooks", "report"):
        kept = stages()[stage]["outs"][0]
        assert kept.startswith("reports/")
        assert f" {kept} " in stages()[stage]["cmd"]


def test_the_report_reads_every_executed_notebook() -> None:
    """Or `dvc repro report` would leave it as it is when one changes."""
    main = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    kept = {path.partition("/${")[0] for stage in main.values() for path in stage["outs"] if "reports/" in path}
    assert {path for path in main["report"]["deps"] if path.startswith("reports/")} == kept
