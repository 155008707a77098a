"""An executed notebook says what it read, so that one of another run is told from one of the results at hand."""

import hashlib
from pathlib import Path

import nbformat
import pytest
from ruamel.yaml import YAML

from artpaper.lineage import KEY, Lineage, inputs
from artpaper.notebooks import KERNEL, run

PARAMS = "models:\n  art: {alpha: 1.0}\n  a_art: {alpha: 1.0, beta: 0.001}\ntrain: {max_steps: 9, rate: 2e-4}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One stage that reads a group of parameters, a module, a folder of modules, a notebook and part of an output."""
    write(tmp_path, "params.yaml", PARAMS)
    write(tmp_path, "dvc.yaml", "stages: {}\n")
    for name in ("losses.py", "metrics.py", "attacks/ball.py"):
        write(tmp_path, f"artpaper/{name}", name)
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell('params = "x"', metadata={"tags": ["parameters"]})],
        metadata={"kernelspec": KERNEL},
    )
    for name in ("train", "other"):
        write(tmp_path, f".clean/{name}.ipynb", nbformat.writes(notebook))
    made(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def made(folder: Path, md5: str = "1.dir", others: str = "0.dir") -> None:
    """Write ``dvc.lock`` as if every stage had just run with what there is."""
    reads = [".clean/train.ipynb", "artpaper/losses.py", "artpaper/attacks", "frames/labels.json", "models"]
    values = YAML(typ="safe", pure=True).load(folder / "params.yaml")
    stages = {
        "notebooks": {"outs": [{"path": ".clean", "md5": others}]},
        "prepare": {"outs": [{"path": "frames", "md5": md5}]},
        "train@a": {"outs": [{"path": "models/a", "md5": md5}]},
        "tables": {"outs": [{"path": "tables", "md5": others}]},
        "it": {
            "deps": [{"path": path, **digest(folder / path)} for path in reads],
            "params": {"params.yaml": {"models.art": values["models"]["art"], "train": values["train"]}},
        },
    }
    YAML().dump({"stages": stages}, folder / "dvc.lock")


def digest(path: Path) -> dict[str, str]:
    return {"md5": hashlib.md5(path.read_bytes()).hexdigest()} if path.is_file() else {}


def test_what_was_read_is_kept_and_compared(project: Path) -> None:
    run(Path(".clean/train.ipynb"), Path("reports/it.ipynb"), {"params": "params.yaml"})
    kept = nbformat.read("reports/it.ipynb", as_version=4).metadata[KEY]
    assert kept["params"]["train"] == {"max_steps": 9, "rate": 2e-4}
    assert kept["md5"]["artpaper/losses.py"] == hashlib.md5(b"losses.py").hexdigest()
    assert kept["md5"]["frames"] == "1.dir"

    def changed() -> tuple[str, ...] | None:
        return Lineage(project).changed_since(kept, "it")

    assert changed() == ()
    write(project, "params.yaml", PARAMS.replace("beta: 0.001", "beta: 0.5"))
    write(project, "artpaper/metrics.py", "not read by it")
    write(project, ".clean/other.ipynb", "neither is this")
    made(project, others="9.dir")
    assert changed() == ()
    write(project, "params.yaml", PARAMS.replace("{alpha: 1.0}", "{alpha: 2.0}"))
    write(project, "artpaper/losses.py", "other")
    assert changed() == ()  # the results are still those of the notebook, only out of date
    made(project)
    assert changed() == ("artpaper/losses.py", "models.art.alpha")
    write(project, "params.yaml", PARAMS.replace("{max_steps: 9", "{more: 1, max_steps: 9"))
    write(project, "artpaper/losses.py", "losses.py")
    made(project)
    assert changed() == ("train.more",)
    write(project, "params.yaml", PARAMS)
    made(project)
    assert changed() == ()
    write(project, "artpaper/attacks/ball.py", "other")
    write(project, "artpaper/attacks/new.py", "")
    write(project, ".clean/train.ipynb", "other")
    made(project, "2.dir")
    assert changed() == (
        ".clean/train.ipynb", "artpaper/attacks/ball.py", "artpaper/attacks/new.py", "frames", "models/a",
    )  # fmt: skip


def test_where_nothing_is_known_nothing_is_claimed(project: Path) -> None:
    assert Lineage(project).changed_since(None, "it") is None
    assert Lineage(project).changed_since(inputs(project), "no such stage") is None
    (project / "dvc.lock").unlink()
    assert Lineage(project).changed_since(inputs(project), "it") is None
