"""What is kept of a run: its executed notebooks too, none of them large, and none that says where the run lay."""

import json
import shutil
from pathlib import Path

import nbformat
import pytest

from pipeline.paper.publish import NOTEBOOK_BYTES, keep_notebook, publish
from pipeline.run.cli import main
from tests.executed import fabricate, write_notebook
from tests.pipeline import ROOT


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that is whole, its results as current as can be."""
    folder = fabricate(tmp_path / "project")
    shutil.copytree(ROOT / "results" / "synthetic" / "models", folder / "models", dirs_exist_ok=True)
    write_notebook(folder / "reports" / "train" / "a_art-seed0.ipynb", 6.0, said=f"read {folder.resolve()}/frames")
    write_notebook(folder / "reports" / "train" / "of_another_experiment-seed0.ipynb", 6.0)
    (folder / "results").mkdir()
    monkeypatch.setattr("pipeline.paper.publish._clean", lambda workspace, pipeline: "0" * 40)
    monkeypatch.chdir(folder)
    return folder


def test_the_notebooks_of_the_run_are_kept_and_their_size_is_told(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", "results/mine", "--command", "dvc repro"]) == 0
    kept = project / "results" / "mine" / "notebooks"
    paths = sorted(kept.rglob("*.ipynb"))
    names = ["prepare.ipynb", "tables.ipynb", "train/a_art-seed0.ipynb", "train/art-seed0.ipynb"]
    assert [path.relative_to(kept).as_posix() for path in paths] == names
    total = sum(path.stat().st_size for path in paths)
    assert f"4 executed notebooks, {total / 1e6:.1f} MB" in capsys.readouterr().out
    text = (kept / "train" / "a_art-seed0.ipynb").read_text()
    assert "read frames" in text
    assert str(project.resolve()) not in text
    made = nbformat.read(project / "reports" / "prepare.ipynb", as_version=4)
    (cell,) = (cell for cell in made.cells if cell.cell_type == "code")
    first, *between, last = (output for output in cell.outputs if output.get("name") == "stderr")
    first.text = between[-1].text.strip("\r") + last.text  # of a bar the last line is left, all else is as it was
    cell.outputs = [output for output in cell.outputs if output not in (*between, last)]
    assert nbformat.read(paths[0], as_version=4) == made


def test_what_was_there_goes_but_for_what_is_kept_beside_a_run(project: Path) -> None:
    made = project / "results" / "mine"
    kept = {"README.md", "stress/verdict.md", "trial/units/art-seed0.parquet"}
    for name in (*kept, "explorer/index.html", "notebooks/old.ipynb"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text("by hand")
    publish(project, made, "dvc repro")
    left = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    assert kept <= left
    assert not {"explorer/index.html", "notebooks/old.ipynb"} & left  # of another run


@pytest.mark.parametrize(("sizes", "left_out"), [([400_000], []), ([400_000, 500_000, 300_000], [1]),
                                                 ([400_000, 1_200_000, 900_000], [1, 2])])  # fmt: skip
def test_of_a_large_notebook_the_largest_outputs_are_left_out(
    tmp_path: Path, sizes: list[int], left_out: list[int]
) -> None:
    new = nbformat.v4
    outputs = [new.new_output("display_data", {"image/png": "A" * size}) for size in sizes]
    cells = [new.new_markdown_cell("# Title"), *(new.new_code_cell("draw()", outputs=[output]) for output in outputs)]
    nbformat.write(new.new_notebook(cells=cells), tmp_path / "drawn.ipynb")
    keep_notebook(tmp_path / "drawn.ipynb", tmp_path / "kept" / "drawn.ipynb", tmp_path)
    path = tmp_path / "kept" / "drawn.ipynb"
    assert path.stat().st_size <= NOTEBOOK_BYTES + 1
    shown = [cell.outputs[0] for cell in nbformat.read(path, as_version=4).cells[1:]]
    for number, (output, size) in enumerate(zip(shown, sizes, strict=True)):
        if number in left_out:
            assert f"An output of {size / 1000:,.0f} kB, left out" in output.text
        else:
            assert output.data["image/png"] == "A" * size
    nbformat.validate(json.loads(path.read_text()))
