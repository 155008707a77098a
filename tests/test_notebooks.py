"""Promises about the notebooks themselves: small, parameterised, and with outputs that nbval really compares."""

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from pipeline.base.errors import ConfigError
from pipeline.base.project import project_root
from pipeline.run.notebooks import CHECKED, EXPLORER, PICTURE, before_saving, clean

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(path: Path, tag: str) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if tag in cell.metadata.get("tags", [])]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_shape(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert notebook.cells[0].cell_type == "markdown"
    assert len(code) <= 15
    assert cells(path, "parameters") == [code[0]]
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_checked_cells_hold_an_output_to_compare_with(path: Path) -> None:
    """nbval passes a stripped notebook without comparing anything."""
    checked = cells(path, CHECKED)
    assert checked
    for cell in checked:
        assert cell.execution_count is not None
        assert cell.outputs


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_pictures_are_small_and_there(path: Path) -> None:
    """A page of the repository shows them without running anything: one at least of a notebook that makes figures."""
    shown = cells(path, PICTURE)
    code = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    assert bool(shown) == bool(re.search(r"_figure\(|LiveCurves\(|plt\.subplots\(", code))
    assert len(shown) <= 2
    for cell in shown:
        pictures = [output.data["image/png"] for output in cell.outputs]
        assert pictures
        assert sum(map(len, pictures)) * 3 / 4 < 100_000  # base64


def test_looking_at_the_explorer_leaves_its_file_as_it_is() -> None:
    """What JupyterLab's hook saves after a Run All is the committed file, to the byte; any other notebook is let be."""
    path = ROOT / "notebooks" / EXPLORER
    opened = json.loads(path.read_text())
    opened["metadata"] |= {"language_info": {"name": "python", "version": "3.99"}}
    for number, cell in enumerate((cell for cell in opened["cells"] if cell["cell_type"] == "code"), start=7):
        cell["execution_count"] = number
        cell["outputs"] = cell["outputs"] or [{"output_type": "stream", "name": "stdout", "text": "a page"}]
    model = {"type": "notebook", "content": opened}
    before_saving(model, f"notebooks/{EXPLORER}")
    assert nbformat.writes(model["content"]) + "\n" == path.read_text()
    other = {"type": "notebook", "content": dict(opened)}
    before_saving(other, "notebooks/tables.ipynb")
    assert other["content"] == opened


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_name_no_machine(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        assert "/site-packages/" not in str(cell.get("outputs", ""))
        assert str(Path.home()) not in str(cell.get("outputs", ""))


def test_clean_copies_do_not_depend_on_running_or_saving(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in clean(ROOT / "notebooks", tmp_path / "first")]
    changed = tmp_path / "changed"
    changed.mkdir()
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            cell.metadata["collapsed"] = True
            if cell.cell_type == "code":
                cell.execution_count = 99
                cell.outputs = []
        notebook.metadata["papermill"] = {"duration": 1.5}
        nbformat.write(notebook, changed / path.name)
    assert [path.read_bytes() for path in clean(changed, tmp_path / "second")] == first
    notebook.cells[0].source += "."
    nbformat.write(notebook, changed / path.name)
    assert [path.read_bytes() for path in clean(changed, tmp_path / "second")] != first


def test_what_is_no_notebook_is_refused_and_the_old_copies_stay(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no notebooks"):
        clean(tmp_path, tmp_path / "out")
    (tmp_path / "a.ipynb").write_text("{")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").touch()
    with pytest.raises(ConfigError, match=r"a\.ipynb: not a valid notebook"):
        clean(tmp_path, tmp_path / "out")
    assert (tmp_path / "out" / "kept").exists()


def write_notebook(path: Path, *outputs: str, source: str = "print(how)", injected: bool = False) -> None:
    """A notebook whose one checked cell has put out this; executed by papermill, if ``injected``."""
    new = nbformat.v4
    given = new.new_code_cell("how = 1", metadata={"tags": ["parameters"]}, execution_count=1)
    put_out = [new.new_output("stream", name="stdout", text=text) for text in outputs]
    checked = new.new_code_cell(source, metadata={"tags": [CHECKED]}, outputs=put_out, execution_count=2)
    own = [new.new_code_cell("how = 2", metadata={"tags": ["injected-parameters"]})] if injected else []
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new.new_notebook(cells=[given, *own, checked], metadata={"papermill": {"parameters": {}}}), path)


def test_nbval_compares_what_a_run_has_executed(tmp_path: Path) -> None:
    """Another output and another source are told; a notebook of which there is no executed copy is executed."""
    for name in ("same", "other", "edited"):
        write_notebook(tmp_path / "notebooks" / f"{name}.ipynb", "1\n")
        kept = "0\n" if name == "other" else "1\n"
        source = "print(1)" if name == "edited" else "print(how)"
        write_notebook(tmp_path / "reports" / name / "0.ipynb", kept, source=source, injected=True)  # fmt: skip
    write_notebook(tmp_path / "notebooks" / "alone.ipynb", "0\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.replay", f"--executed={tmp_path}/reports", "--nbval-lax",
               "--nbval-current-env", "-o", "addopts=", "-q", "-rfE", f"{tmp_path}/notebooks"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    failed = re.findall(r"^FAILED \S*/(\w+)\.ipynb::Cell (\d)", done.stdout, re.M)
    assert sorted(failed) == [("alone", "1"), ("edited", "1"), ("other", "1")], done.stdout + done.stderr
    assert "the executed copy is of another notebook" in done.stdout


def test_project_root(tmp_path: Path) -> None:
    assert project_root(ROOT / "notebooks") == ROOT
    with pytest.raises(ConfigError, match=r"no dvc\.yaml"):
        project_root(tmp_path)
