"""The experiments of docs/run.md, as written there, in a fresh clone.

DVC, Git and the pipeline's file are real; what the stages do is played, for training takes minutes, and what may go
wrong here is that DVC loses what was run. All of the page takes minutes even so, and is among `make faults`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline import BIN, ROOT, call, commit, copy_project

# Writes what the stage is said to write, made from the parameters that it is said to read.
PLAYED = f"""#!{sys.executable} -S
import json, os, pathlib, re, shutil, sys
stage, _, item = os.environ["DVC_STAGE"].partition("@")
model = item.rpartition("-")[0]
text = pathlib.Path("params.yaml").read_text()
beta = float(re.search(r"^  a_art:.*(?:\\n    .*)*?\\n    beta: ([\\d.]+)", text, re.M)[1])
epsilon = float(re.search(r"^attack:.*(?:\\n  .*)*?\\n  epsilon: ([\\d.]+)", text, re.M)[1])
def write(name, text):
    pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(name).write_text(text)
if sys.argv[1] == "run":
    write(sys.argv[3], "{{}}")
if stage == "notebooks":
    shutil.copytree("notebooks", ".clean")
elif stage == "prepare":
    write("frames/label_space.json", "{{}}")
elif stage == "train":
    write(f"models/{{model}}/seed0/weights", str(beta * (model == "a_art")))
elif stage == "attack":
    weights = pathlib.Path(f"models/{{model}}/seed0/weights").read_text()
    write(f"predictions/{{model}}/seed0/scores", weights + " " + str(epsilon))
elif stage == "tables":
    write("tables/table1.csv", "column,ours\\n")
    for path in pathlib.Path("predictions").iterdir():
        weights, epsilon = (path / "seed0" / "scores").read_text().split()
        score = 50 + float(weights) - float(epsilon)
        for number in (1, 2, 3):
            write(f"metrics/table{{number}}/{{path.name}}.json", json.dumps({{"gap_attacked": score}}))
elif stage == "curves":
    for kind in ("png", "pdf", "csv"):
        write(f"figures/curves.{{kind}}", "step\\n")
"""


def commands() -> list[str]:
    """The lines of the shell block under "Compare runs"."""
    text = (ROOT / "docs" / "run.md").read_text(encoding="utf-8").partition("## Compare runs")[2]
    return re.search(r"```bash\n(.*?)```", text, re.S)[1].splitlines()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh clone of the project as it is now, of one model, to be quick."""
    params = copy_project(tmp_path / "origin") / "params.yaml"
    text, three = params.read_text(encoding="utf-8"), "experiment:\n  models: [non_art, art, a_art]"
    assert text.count(three) == 1
    params.write_text(text.replace(three, "experiment:\n  models: [a_art]"), encoding="utf-8")
    commit(tmp_path / "origin", "start")
    (tmp_path / "played").mkdir()
    (tmp_path / "played" / "artpaper").write_text(PLAYED)
    (tmp_path / "played" / "artpaper").chmod(0o755)
    call(tmp_path, "git", "clone", "-q", str(tmp_path / "origin"), str(tmp_path / "clone"))
    return tmp_path / "clone"


def run(clone: Path, line: str) -> str:
    """One line of a shell, in the clone, by somebody whom Git knows."""
    known = {f"GIT_{role}_{key}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    path = f"{clone.parent / 'played'}:{BIN}:{os.environ['PATH']}"
    command = ["sh", "-e", "-c", line.partition("#")[0]]
    done = subprocess.run(command, cwd=clone, env={**os.environ, **known, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def ran(told: str) -> set[str]:
    return set(re.findall(r"Running stage '(.+)':", told))


@pytest.mark.fault
@pytest.mark.timeout(1200)
def test_the_readme_s_experiments_run_and_are_kept(clone: Path) -> None:
    told = {}
    for line in commands():
        told[line] = run(clone, line)
        if line.startswith("git checkout ."):
            assert run(clone, "git status --porcelain") == ""
            assert ran(told[line]) == set(), "back to the commit runs nothing"
    of_beta, of_epsilon = (next(told[line] for line in told if part in line) for part in ("beta=0.1 ", "epsilon="))
    assert ran(of_beta) == {"train@a_art-0", "attack@a_art-0", "tables", "curves"}
    assert ran(of_epsilon) == {"attack@a_art-0", "tables"}
    assert run(clone, "git status --porcelain") == ""

    names = run(clone, "dvc exp list --name-only").split()
    assert "beta-0.1" in names
    assert len(names) == 4
    changed = json.loads(run(clone, "dvc metrics diff --json HEAD beta-0.1"))
    assert {path: value["gap_attacked"]["diff"] for path, value in changed.items()} == {
        f"metrics/table{number}/a_art.json": pytest.approx(0.0192) for number in (1, 2, 3)
    }
    shown = [line for line in told if line.startswith("dvc exp show")]
    rows = [row.split() for row in told[shown[0]].splitlines() if "[" in row]
    assert len(rows) == 4
    scores = {row[-2]: float(row[-3]) for row in rows if row[-1] == "0.038"}
    assert scores == {"0.1": 50.062, "0.01": 49.972, "1": 50.962}


def test_no_lock_is_committed() -> None:
    """It would name results that only its author's cache has, and for want of them DVC loses what it ran."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not under Git")
    assert call(ROOT, "git", "ls-files", "dvc.lock", "stress/dvc.lock") == ""


@pytest.mark.timeout(300)
def test_an_experiment_in_a_clone_that_has_run_nothing_is_kept(clone: Path) -> None:
    run(clone, "dvc exp run -n first -S models.a_art.beta=0.5 notebooks")
    assert run(clone, "dvc exp list --name-only").split() == ["first"]
    assert json.loads(run(clone, "dvc params diff --json HEAD first"))["params.yaml"]["models.a_art.beta"]["new"] == 0.5
