"""`artpaper use`: what it writes, and what it refuses without touching params.yaml."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from artpaper.cli import main
from artpaper.config import load_params
from artpaper.errors import ConfigError
from artpaper.profiles import use

ROOT = Path(__file__).resolve().parents[1]


pytestmark = pytest.mark.usefixtures("project")


def test_a_profile_with_changes_keeps_its_comments(project: Path) -> None:
    (project / "data #1").mkdir()
    use("paper", {"models.a_art.beta": "0.1", "experiment.seeds": "[0, 1, 2]"}, data=Path("data #1"))
    params = load_params("params.yaml")
    assert params.models["a_art"].beta == 0.1
    assert params.experiment.seeds == (0, 1, 2)
    assert params.data.path == "data #1"
    assert "# row 17" in (project / "params.yaml").read_text()


def test_a_relative_path_means_the_same_from_a_subfolder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "notebooks" / "data").mkdir(parents=True)
    monkeypatch.chdir(project / "notebooks")
    use("paper", {}, data=Path("data"))
    assert load_params(project / "params.yaml").data.path == "notebooks/data"


@pytest.mark.parametrize(
    ("profile", "verticals"), [("default", ("Arts & Entertainment", "Finance")), ("audioset", ("Music", "Speech"))]
)
def test_models_of_each_vertical_can_be_added(profile: str, verticals: tuple[str, str]) -> None:
    use(profile, {"models.a_art.beta": "0.1"}, retrain=True)
    params = load_params("params.yaml")
    assert len(params.models) == len(params.experiment.models) == 9
    for base in ("non_art", "art", "a_art"):
        added = [name for name in params.models if name.startswith(f"{base}_")]
        assert [params.models[name].vertical for name in added] == list(verticals)
        for name in added:
            assert dataclasses.replace(params.models[name], vertical=None) == params.models[base]
    assert params.models["a_art_" + ("finance" if profile == "default" else "speech")].beta == 0.1


@pytest.mark.parametrize(
    ("profile", "changes", "message"),
    [
        ("defualt", {}, "no profile 'defualt'; there are arrays, audioset, default, paper, small"),
        ("default", {"train.max_step": "9"}, "unknown parameter train.max_step; did you mean train.max_steps?"),
        ("default", {"train.max_steps": "[1"}, "--set train.max_steps: not valid YAML"),
        ("default", {"train.max_steps": "many"}, "train.max_steps: input should be a valid integer, got 'many'"),
        ("default", {"experiment.seeds": "[]"}, "experiment.seeds"),
        ("default", {"experiment.seeds": "[0, 0]"}, "seeds names one twice: 0, 0"),
        ("default", {"study.seeds": "[0, 0]"}, "study: seeds names one twice: 0, 0"),
        ("default", {"verdict.draws": "1"}, "verdict: draws 1: with fewer than 20"),
        ("default", {"data.path": "!!python/object:os.system x"}, "not valid YAML"),
        ("part.yaml", {}, "a profile names every parameter; missing: attack.batch_size"),
        ("binary.yaml", {}, "not UTF-8"),
        ("broken.yaml", {}, "not valid YAML"),
    ],
)
def test_what_does_not_fit_leaves_params_yaml_alone(
    project: Path, profile: str, changes: dict[str, str], message: str
) -> None:
    (project / "params.yaml").write_text("as it was")
    (project / "part.yaml").write_text("train: {max_steps: 5}")
    (project / "binary.yaml").write_bytes(b"\xff\xfe")
    (project / "broken.yaml").write_text("a: 1\na: 2")
    with pytest.raises(ConfigError) as caught:
        use(profile, changes)
    assert message in str(caught.value)
    assert (project / "params.yaml").read_text() == "as it was"


def test_data_that_is_not_there(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["use", "paper", "--path", "nowhere"]) == 1
    assert capsys.readouterr().err == "artpaper: nowhere: no such file or folder\n"


def test_errors_of_the_system_have_no_traceback(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(project / "profiles" / "small.yaml", "params.yaml")
    (project / "file").touch()
    assert main(["prepare", "--workspace", "file"]) == 1
    assert capsys.readouterr().err.startswith("artpaper: ")
    with pytest.raises(SystemExit) as caught:
        main(["train", "--model", "art", "--seed", "-1"])
    assert caught.value.code == 2
