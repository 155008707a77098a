"""The pipeline as a user runs it: `dvc repro` in a copy of the project, on the small profile, and what reruns when."""

import json
import re
import subprocess
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from ruamel.yaml import YAML

from pipeline.base.git import tell_dvc
from pipeline.report.parts import outdated
from tests.pipeline import BIN, call, commit, digest
from tests.small_run import IMPORTED, small_run
from tests.test_dvc import stages, uncovered

REPORTS = {"curves", "tables", "attention", "robustness", "hyperparameters", "claims", "report"}
STAGES = {"notebooks", "prepare", "epsilon"} | REPORTS
STAGES |= {f"{stage}@{model}-0" for stage in ("train", "attack", "deepfool") for model in ("non_art", "art", "a_art")}


class Project:
    """A copy of the run of the small profile: a project under Git in which every stage has run once."""

    def __init__(self, folder: Path) -> None:
        self.folder = small_run(folder)

    def call(self, *command: str) -> str:
        return call(self.folder, *command)

    def stages(self) -> set[str]:
        """Those that have run."""
        return set(YAML(typ="safe", pure=True).load(self.folder / "dvc.lock")["stages"])

    def repro(self, *targets: str) -> set[str]:
        """The stages that `dvc repro` ran, for some targets or for all."""
        return set(re.findall(r"Running stage '(.+)':", self.call("dvc", "repro", *targets)))

    def set(self, old: str, new: str, count: int = 1) -> None:
        path = self.folder / "params.yaml"
        text = path.read_text()
        assert text.count(old) >= count
        path.write_text(text.replace(old, new, count))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose pipeline has run once."""
    made = Project(tmp_path_factory.mktemp("project") / "run")
    assert made.stages() == STAGES
    return made


@pytest.mark.timeout(1200)
def test_tables_come_out_and_a_second_run_does_nothing(project: Project) -> None:
    for number in (1, 2, 3):
        for kind in ("csv", "md", "tex"):
            assert (project.folder / "tables" / f"table{number}.{kind}").stat().st_size > 100
    for name in ("figure1", "figure2", "figure3", "figure4", "attention", "curves", "epsilon"):
        for kind in ("png", "pdf"):
            assert (project.folder / "figures" / f"{name}.{kind}").stat().st_size > 5000
    assert (project.folder / "claims" / "claims.md").stat().st_size > 2000
    metrics = json.loads((project.folder / "metrics" / "table1" / "non_art.json").read_text())
    assert 0 < metrics["gap_attacked"] < metrics["gap"] < 100
    assert project.repro() == set()


@pytest.mark.timeout(1200)
def test_parameters_there_and_back_bring_back_the_report_and_the_notebooks(project: Project) -> None:
    """Byte for byte, times included: both are cached outputs of their stages."""
    asked = re.findall(r"Running stage '(.+)':", project.call("dvc", "repro", "--dry", "--force", "report"))
    assert set(asked) == STAGES  # what it shows is what it brings up to date
    paths = [project.folder / name for name in ("report.html", "reports/tables.ipynb", "reports/claims.ipynb")]
    before = [path.read_bytes() for path in paths]
    assert outdated(project.folder) == []
    project.set("partitions: 5", "partitions: 3")
    assert "tables" in outdated(project.folder)
    assert project.repro() == {"tables", "claims", "report"}
    assert all(path.read_bytes() != old for path, old in zip(paths, before, strict=True))
    project.set("partitions: 3", "partitions: 5")
    assert project.repro() == set()
    assert [path.read_bytes() for path in paths] == before


def test_what_a_stage_really_imported_is_what_dvc_knows(project: Project) -> None:
    imported: dict[str, set[str]] = {stage: set() for stage in stages()}
    for path in IMPORTED.iterdir():
        imported[re.split("[@-]", path.name)[0]] |= set(path.read_text().split())
    for stage, files in imported.items():
        assert files
        assert {file for file in uncovered(stage, files) if not file.startswith("tests/")} == set()


def test_plots_show_the_curves_of_every_model_and_the_figures(project: Project) -> None:
    shown = json.loads(project.call("dvc", "plots", "show", "--json"))["data"]
    for name in ("curves", "figure1", "figure2", "figure3", "figure4", "attention"):
        assert (
            Path(shown[f"figures/{name}.png"][0]["url"]).read_bytes()
            == (project.folder / "figures" / f"{name}.png").read_bytes()
        )
    drawn = shown["figures/curves.csv"][0]["content"]
    points = pd.DataFrame(drawn["data"]["values"])
    assert {panel["title"] for panel in drawn["hconcat"]} == set(points["quantity"])
    for model in ("non_art", "art", "a_art"):
        history = pd.read_csv(project.folder / "models" / model / "seed0" / "history.csv").set_index("step")
        of_model = points[points["model"] == model]
        for quantity, column, scale in (("validation GAP (%)", "validation_gap", 100), ("loss that", "loss", 1)):
            found = of_model[of_model["quantity"].str.startswith(quantity)]
            expected = scale * history[column].dropna()
            assert found["step"].astype(int).tolist() == expected.index.tolist()
            assert found["value"].astype(float).tolist() == pytest.approx(expected.tolist(), rel=1e-8)
    assert {row["column"] for row in shown["tables/table1.csv"][0]["content"]["data"]["values"]} >= {"ART", "A-ART"}
    assert {row["model"] for row in shown["figures/figure3.csv"][0]["content"]["data"]["values"]} >= {"art", "a_art"}


def test_metrics_show_the_numbers_of_the_tables_and_of_figure_4(project: Project) -> None:
    shown = json.loads(project.call("dvc", "metrics", "show", "--json"))[""]["data"]
    names = {"Non-ART": "non_art", "ART": "art", "A-ART": "a_art"}
    compared = 0
    for number in (1, 2, 3):
        table = pd.read_csv(project.folder / "tables" / f"table{number}.csv").dropna(subset="ours")
        for row in table[table["column"].isin(names)].itertuples():
            key = {"GAP": "gap", "PERR": "perr", "Hit@1": "hit_at_1"}[row.metric]
            found = shown[f"metrics/table{number}/{names[row.column]}.json"]["data"]
            assert found[key if row.split == "test" else f"{key}_attacked"] == row.ours
            assert (found["videos"], found["group"]) == (row.n, row.group)
            compared += 1
    assert compared == 3 * 6 * 3
    rho = pd.read_csv(project.folder / "figures" / "figure4.csv")
    whole = rho[(rho["criterion"] == "top1_change") & (rho["seed"] == "all")].set_index("model")["mean_rho"]
    for model, value in whole.items():
        found = shown[f"metrics/figure4/{model}.json"]["data"]["rho_top1_change"]
        assert found == pytest.approx(100 * value, abs=1e-6)


def test_beta_is_a_parameter_of_a_art_alone(project: Project) -> None:
    # all but the first look at all models
    ask = {"train@a_art-0", "tables", "hyperparameters", "stress/dvc.yaml:attacks", "report"}
    project.set("beta: 0.001", "beta: 0.5")
    assert set(json.loads(project.call("dvc", "status", "--json"))) == ask
    project.set("beta: 0.5", "beta: 0.001")
    assert json.loads(project.call("dvc", "status", "--json")) == {}


@pytest.mark.fault
@pytest.mark.timeout(1200)
def test_beta_reruns_a_art_alone_and_taken_back_nothing(project: Project) -> None:
    before = digest(project.folder / "metrics")
    project.set("beta: 0.001", "beta: 0.5")
    assert project.repro("tables") == {"train@a_art-0", "attack@a_art-0", "tables"}
    assert set(digest(project.folder / "metrics").items()) ^ set(before.items())
    project.set("beta: 0.5", "beta: 0.001")
    assert project.repro() == set()
    assert digest(project.folder / "metrics") == before


@pytest.mark.fault
@pytest.mark.timeout(1200)
def test_a_seed_changed_and_changed_back_reruns_nothing(project: Project) -> None:
    before = digest(project.folder / "predictions")
    project.set("seed: 0", "seed: 1")
    assert project.repro("attack@art-0") == {"prepare", "train@art-0", "attack@art-0"}
    assert digest(project.folder / "predictions") != before
    project.set("seed: 1", "seed: 0")
    assert project.repro() == set()
    assert digest(project.folder / "predictions") == before


def test_saving_and_counting_cells_reruns_nothing_that_counts(project: Project) -> None:
    path = project.folder / "notebooks" / "train.ipynb"
    original = path.read_bytes()
    notebook = nbformat.read(path, as_version=4)
    for count, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            cell.execution_count = count + 40
            cell.outputs = [nbformat.v4.new_output("stream", text="something else\n")]
    notebook.metadata["language_info"] = {"name": "python", "version": "3.99"}
    nbformat.write(notebook, path)
    status = project.call("dvc", "status")
    assert "train.ipynb" not in status.replace("notebooks", "", 1).split("notebooks:")[-1] or "train@" not in status
    assert project.repro() <= {"notebooks"}
    notebook.cells[0].source += "\nOne more sentence."
    nbformat.write(notebook, path)
    assert "train@art-0" in project.call("dvc", "repro", "--dry")
    path.write_bytes(original)
    assert project.repro() == set()


@pytest.mark.fault
@pytest.mark.timeout(1200)
def test_running_a_notebook_by_hand_changes_no_tracked_file_but_itself(project: Project) -> None:
    commit(project.folder, "pipeline has run")
    command = "jupyter nbconvert --to notebook --inplace --execute notebooks/tables.ipynb"
    project.call(*command.split())
    changed = project.call("git", "status", "--porcelain").split()
    assert [name for name in changed if name.endswith("ipynb")] == ["notebooks/tables.ipynb"]
    assert len(changed) == 2
    project.call("git", "checkout", "--", "notebooks/tables.ipynb")
    assert project.repro() <= {"notebooks"}


@pytest.mark.timeout(1200)
def test_an_experiment_runs_elsewhere_and_is_laid_over_this_run(project: Project) -> None:
    """In a folder of its own, as queued experiments are: without .venv, study/ and whatever else Git ignores."""
    commit(project.folder, "ran")
    before = project.call("git", "status", "--porcelain")
    project.call("dvc", "exp", "run", "--temp", "-S", "tables.partitions=3", "-n", "three", "tables", "curves")
    assert project.call("git", "status", "--porcelain") == before
    changed = json.loads(project.call("dvc", "metrics", "diff", "HEAD", "three", "--json"))
    assert {name.split("/")[1] for name in changed} == {"table1"}  # the partitions are Table 1's alone
    drawn = json.loads(project.call("dvc", "plots", "diff", "HEAD", "three", "--json"))["data"]
    for name in ("figures/curves.csv", "tables/table1.csv"):
        assert {row["rev"] for row in drawn[name][0]["content"]["data"]["values"]} == {"HEAD", "three"}
    project.call("dvc", "exp", "remove", "three")


@pytest.mark.timeout(1200)
def test_a_run_can_be_published_and_its_claims_read(project: Project) -> None:
    made_by = commit(project.folder, "as it ran")
    project.call("artpaper", "publish", "results/small", "--command", "artpaper use small && dvc repro")
    made = project.folder / "results" / "small"
    for name in ("tables/table1.csv", "figures/figure3.csv", "figures/figure4.pdf", "params.yaml"):
        assert (made / name).read_bytes() == (project.folder / name).read_bytes()
    assert len([*made.glob("notebooks/**/*.ipynb")]) == len(STAGES - {"notebooks", "report"})
    provenance = json.loads((made / "provenance.json").read_text())
    assert provenance["commit"] == made_by
    assert not [path for path in made.rglob("*") if path.name == ".gitignore"]
    project.call("artpaper", "claims")
    page = (project.folder / "CLAIMS.md").read_text()
    assert "| on small |" in page
    assert "(results/small/figures/figure4.csv)" in page
    project.call("git", "checkout", "--", ".")


@pytest.mark.timeout(1200)
def test_without_git_it_is_published_as_of_no_commit(project: Project) -> None:
    """As a downloaded archive is; its results are as current as before."""
    git, away = project.folder / ".git", project.folder.with_suffix(".git")
    git.rename(away)
    try:
        told = project.call("artpaper", "publish", "results/small", "--command", "artpaper use small && dvc repro")
        project.call("artpaper", "report", "--results", "results/small")
        assert project.repro() == set()
    finally:
        away.rename(git)
        tell_dvc(project.folder)
    assert told.startswith("results/small: results of no commit\nresults/small/notebooks: 17 executed notebooks, ")
    assert json.loads((project.folder / "results" / "small" / "provenance.json").read_text())["commit"] == "no commit"
    page = (project.folder / "small.html").read_text()
    assert "<dt>commit</dt><dd>no commit</dd>" in page
    assert "git checkout" not in page


@pytest.mark.fault
@pytest.mark.timeout(1200)
def test_the_stress_test_has_a_pipeline_of_its_own(project: Project) -> None:
    """A bare `dvc repro` leaves it alone; a changed rule, and fewer seeds, are judged without another attack."""
    own = "stress/dvc.yaml"
    assert "SYNTHETIC" in (project.folder / "verdict" / "verdict.md").read_text()
    made = digest(project.folder / "stress" / "predictions")
    project.set("  margin: 2.0", "  margin: 0.5")
    assert project.repro() == {"report"}  # which shows every parameter
    assert project.repro(own) == {f"{own}:verdict"}
    assert "`margin` 0.5" in (project.folder / "verdict" / "verdict.md").read_text()
    commit(project.folder, "stress")
    project.call("artpaper", "publish", "results/small", "--stress", "--command", "dvc repro stress/dvc.yaml")
    published = project.folder / "results" / "small" / "stress"
    assert (published / "verdict.md").read_bytes() == (project.folder / "verdict" / "verdict.md").read_bytes()
    assert {"leaderboard.csv", "checks.csv", "training.csv", "stress.png", "provenance.json"} <= {
        path.name for path in published.iterdir()
    }
    project.set("seeds: [0, 1]\n  max_steps: 20", "seeds: [0]\n  max_steps: 20")
    assert project.repro(own) == {f"{own}:attacks", f"{own}:verdict"}
    now = digest(project.folder / "stress" / "predictions")
    assert now == {name: value for name, value in made.items() if "seed0" in name}  # no attack was made again


def test_unknown_notebook_parameter_is_an_error(project: Project) -> None:
    command = [str(BIN / "artpaper"), "run", "notebooks/train.ipynb", "reports/x.ipynb", "-p", "modle", "art"]
    done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True)
    assert done.returncode == 1
    assert "unknown parameter modle; it has params, workspace, model, seed" in done.stderr
    assert not (project.folder / "reports" / "x.ipynb").exists()


def test_an_error_in_a_notebook_comes_out_in_its_own_words(project: Project) -> None:
    command = [str(BIN / "artpaper"), "run", "notebooks/train.ipynb", "reports/x.ipynb", "-p", "model", "aart"]
    done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True)
    assert done.returncode == 1
    assert "did you mean a_art" in done.stderr.splitlines()[-1]
