"""An executed notebook says what it read, so that one of another run is told from one of the results at hand."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from ruamel.yaml import YAML

from pipeline.run.lineage import KEY, Lineage, inputs
from pipeline.run.notebooks import KERNEL
from tests.pipeline import ROOT

PARAMS = "models:\n  art: {alpha: 1.0}\n  a_art: {alpha: 1.0, beta: 0.001}\ntrain: {max_steps: 9, rate: 2e-4}\n"
CLI = f"{sys.executable} -m pipeline.run.cli"
PIPELINE = f"""
stages:
  train:
    cmd: mkdir -p models/a && cp source.txt models/a/weights
    deps: [source.txt]
    outs: [models/a]
  it:
    cmd: {CLI} run .clean/it.ipynb reports/it.ipynb -p params params.yaml && echo 1 > it.txt
    deps: [.clean/it.ipynb, attacks, losses.py, models]
    params: [models.art, train]
    outs: [it.txt]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A stage that reads groups of parameters, a module, a folder of modules, a notebook, and a folder of outputs."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell('params = "x"', metadata={"tags": ["parameters"]})],
        metadata={"kernelspec": KERNEL},
    )
    texts = {"params.yaml": PARAMS, "dvc.yaml": PIPELINE, ".clean/it.ipynb": nbformat.writes(notebook)}
    for name in ("source.txt", "losses.py", "metrics.py", "attacks/ball.py"):
        texts[name] = name
    for name, text in texts.items():
        write(tmp_path, name, text)
    dvc(tmp_path, "init", "--no-scm", "--quiet")
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def dvc(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def kept(folder: Path) -> dict[str, Any]:
    return nbformat.read(folder / "reports" / "it.ipynb", as_version=4).metadata[KEY]


@pytest.mark.timeout(180)
def test_the_inputs_are_those_that_dvc_says_the_results_have(project: Path) -> None:
    def changed() -> tuple[str, ...] | None:
        return Lineage(project).changed_since(kept(project), "it")

    dvc(project, "repro")
    entry = YAML(typ="safe", pure=True).load(project / "dvc.lock")["stages"]["it"]
    assert kept(project)["dependencies"] == {dep["path"]: dep["md5"] for dep in entry["deps"]}
    assert {"attacks", "models"} < set(kept(project)["dependencies"])
    assert changed() == ()

    write(project, "source.txt", "other weights")
    dvc(project, "repro", "train")
    write(project, "attacks/new.py", "")
    write(project, "losses.py", "other")
    write(project, "metrics.py", "not read by it")
    assert changed() == ()  # the results are still those of the notebook, only out of date
    old = (project / "reports" / "it.ipynb").read_bytes()
    write(project, "params.yaml", PARAMS.replace("{alpha: 1.0}", "{alpha: 2.0}"))
    dvc(project, "repro")
    assert changed() == ()
    new = (project / "reports" / "it.ipynb").read_bytes()
    (project / "reports" / "it.ipynb").write_bytes(old)
    assert changed() == ("attacks", "losses.py", "models", "models.art.alpha")

    (project / "reports" / "it.ipynb").write_bytes(new)
    (project / "attacks" / "new.py").unlink()
    for name in ("losses.py", "source.txt"):
        write(project, name, name)
    write(project, "params.yaml", PARAMS)
    assert "is cached" in dvc(project, "repro")  # the results come back, the notebook does not
    assert changed() == ("attacks", "losses.py", "models", "models.art.alpha")


def test_only_the_parameters_of_the_stage_count(tmp_path: Path) -> None:
    values = YAML(typ="safe", pure=True).load(PARAMS)
    groups = {"models.art": values["models"]["art"], "train": values["train"]}
    YAML().dump({"stages": {"it": {"params": {"params.yaml": groups}}}}, tmp_path / "dvc.lock")
    then = {"params": YAML(typ="safe", pure=True).load(PARAMS), "dependencies": {}}
    then["params"]["models"]["a_art"]["beta"] = 9.0
    assert Lineage(tmp_path).changed_since(then, "it") == ()
    then["params"]["train"]["more"] = 1
    del then["params"]["models"]["art"]["alpha"]
    assert Lineage(tmp_path).changed_since(then, "it") == ("models.art.alpha", "train.more")


def test_where_nothing_is_known_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_STAGE", raising=False)
    write(tmp_path, "params.yaml", PARAMS)
    write(tmp_path, "dvc.lock", "stages: {it: {deps: [{path: a, md5: b}]}}\n")
    by_hand = inputs(tmp_path)
    assert "dependencies" not in by_hand
    for then, stage in ((None, "it"), (by_hand, "it"), (by_hand | {"dependencies": {}}, "no such stage")):
        assert Lineage(tmp_path).changed_since(then, stage) is None
    (tmp_path / "dvc.lock").unlink()
    assert Lineage(tmp_path).changed_since(by_hand | {"dependencies": {}}, "it") is None
