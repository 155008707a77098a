"""Profiles say what differs from the default; what `artpaper use` writes, and what it refuses to."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import ConfigError
from pipeline.base.parameters import as_dict, load_params, parse
from pipeline.run.cli import main
from pipeline.run.profiles import use, whole

ROOT = Path(__file__).resolve().parents[1]
DEFAULT = ROOT / "profiles" / "default.yaml"
OVERLAYS = sorted(set((ROOT / "profiles").glob("*.yaml")) - {DEFAULT})

pytestmark = pytest.mark.usefixtures("project")


def leaves(values: Any, prefix: str = "") -> dict[str, str]:
    """Dotted keys and their values, as JSON."""
    if not isinstance(values, dict):
        return {prefix: json.dumps(values)}
    return {name: leaf for key in values for name, leaf in leaves(values[key], f"{prefix}.{key}").items()}


def remarks(text: str) -> set[str]:
    return set(re.findall(r" # (.*)", text))


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_a_profile_says_what_differs_from_the_default_and_no_more(path: Path) -> None:
    own, default = parse(path.read_text(), "own"), leaves(parse(DEFAULT.read_text(), "default"))
    assert own.pop("like") == "default"
    own = leaves(own)
    assert not own.items() & default.items()
    assert own.keys() <= default.keys()
    assert leaves(as_dict(load_params(path))) == default | own
    assert len(path.read_text().splitlines()) <= 40


@pytest.mark.parametrize("path", [DEFAULT, *OVERLAYS], ids=lambda path: path.stem)
def test_what_is_written_is_whole_and_means_the_same(path: Path) -> None:
    """DVC reads params.yaml, so that one names every key; and a reader finds the comment of each."""
    use(path.stem, {})
    text = Path("params.yaml").read_text()
    params = load_params(path)
    assert leaves(parse(text, "written")) == leaves(as_dict(params))
    assert load_params("params.yaml") == params
    assert text.startswith(path.read_text().partition("\n")[0])
    assert remarks(path.read_text()) <= remarks(text)
    lost = remarks(DEFAULT.read_text()) - remarks(text)
    assert lost <= {"in use", "the paper's 0.5, times sqrt(12 / 212) for the shorter clips"}  # of a list not its own


def test_the_committed_file_is_the_default() -> None:
    assert (ROOT / "params.yaml").read_text() == DEFAULT.read_text()
    assert whole(DEFAULT).split() == DEFAULT.read_text().split()  # long lines may be broken elsewhere


def test_lists_are_replaced_mappings_merged_and_the_nearer_comment_wins(project: Path) -> None:
    mine = "# Mine\nlike: default\nbase: {seed: 3}\ntrain:\n  max_steps: 5  # few\nmodels: {art: {epsilon: 0.5}}\n"
    (project / "profiles" / "mine.yaml").write_text(mine + "study: {epsilons: [0.1], models: {alpha: [art]}}\n")
    use("mine", {})
    params, text = load_params("params.yaml"), Path("params.yaml").read_text()
    assert params.study.epsilons == (0.1,)
    assert params.study.models.alpha == ("art",)
    assert params.study.models.epsilon == ("art", "a_art")
    assert [loss.epsilon for loss in params.models.values()] == [0.12, 0.5, 0.12]
    assert text.startswith("# Mine\nbase:")
    assert re.search(r"\n  seed: 3 +# row 21: of the splits", text)
    assert re.search(r"\n  max_steps: 5 +# few\n", text)


def test_what_shares_an_anchor_is_changed_in_one_place(project: Path) -> None:
    """One object in memory, so a change of one model would be a change of all."""
    loss = json.dumps(as_dict(load_params(DEFAULT).models["art"]))
    shared = f"models: {{non_art: &a {loss}, art: *a, a_art: *a}}\ncontrols:"
    text = re.sub(r"(?s)models:.*?controls:", shared, DEFAULT.read_text(), count=1)
    (project / "profiles" / "shared.yaml").write_text(text)
    (project / "profiles" / "mine.yaml").write_text("like: shared\nmodels: {art: {epsilon: 0.5}}\n")
    use("mine", {"models.a_art.epsilon": "0.25"})
    assert [loss.epsilon for loss in load_params("profiles/mine.yaml").models.values()] == [0.12, 0.5, 0.12]
    assert [loss.epsilon for loss in load_params("params.yaml").models.values()] == [0.12, 0.5, 0.25]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("like: default\ntrain: {max_step: 5}", "unknown parameter train.max_step; did you mean max_steps?"),
        ("like: default\ntrian: {max_steps: 5}", "unknown parameter trian; did you mean train?"),
        ("like: default\ntrain:", "train: input should be an object, got None"),
        ("like: default\nlike: default", "not valid YAML"),
        ("like: defualt", "like: defualt: no such profile beside it"),
        ("like: [default, small]", "like: ['default', 'small']: no such profile beside it"),
        ("like: small", "like: small: profiles/small.yaml is no whole file"),
        ("like: mine", "like: mine: profiles/mine.yaml is no whole file"),
    ],
)
def test_an_overlay_that_does_not_fit_is_refused(project: Path, text: str, message: str) -> None:
    (project / "params.yaml").write_text("as it was")
    (project / "profiles" / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as loaded:
        load_params("profiles/mine.yaml")
    assert str(loaded.value).startswith(f"profiles/mine.yaml: {message}")
    with pytest.raises(ConfigError) as used:
        use("mine", {})
    assert message.replace("profiles/", f"{project}/profiles/") in str(used.value)
    assert Path("params.yaml").read_text() == "as it was"


def test_what_does_not_fit_in_the_default_is_told_of_the_default(project: Path) -> None:
    default = project / "profiles" / "default.yaml"
    default.write_text(default.read_text().replace("heads: 8", "heads: many"))
    with pytest.raises(ConfigError, match=r"^profiles/default\.yaml: model\.heads: .*got 'many'$"):
        load_params("profiles/small.yaml")


def test_an_overlay_is_no_params_yaml() -> None:
    """Its missing values are not to be taken from the paper's without a word."""
    shutil.copy("profiles/small.yaml", "params.yaml")
    with pytest.raises(
        ConfigError, match=r"^params\.yaml: like: default: no such .*; `artpaper use NAME` writes a whole"
    ):
        load_params("params.yaml")


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
        (
            "defualt",
            {},
            "no profile 'defualt'; there are arrays, audioset, default, figure3, long_40, long_5, more, paper, small, "
            "utd_mhad, yt8m_speech",
        ),
        ("default", {"train.max_step": "9"}, "unknown parameter train.max_step; did you mean train.max_steps?"),
        ("default", {"train.max_steps": "[1"}, "--set train.max_steps: not valid YAML"),
        ("default", {"train.max_steps": "many"}, "train.max_steps: input should be a valid integer, got 'many'"),
        ("default", {"experiment.seeds": "[]"}, "experiment.seeds"),
        ("default", {"experiment.seeds": "[0, 0]"}, "seeds names one twice: 0, 0"),
        ("default", {"study.seeds": "[0, 0]"}, "study: seeds names one twice: 0, 0"),
        ("default", {"verdict.draws": "1"}, "verdict: draws 1: with fewer than 20"),
        ("default", {"data.path": "!!python/object:os.system x"}, "not valid YAML"),
        ("part.yaml", {}, "not every parameter is named; add `like: default`, in profiles/, or attack.batch_size"),
        ("more", {}, "not every parameter is named; add `like: default`, in profiles/, or models.new.att"),
        ("default", {"base.seed": "2001-99-99"}, "--set base.seed: not valid YAML: month must be in 1..12"),
        ("binary.yaml", {}, "not UTF-8"),
        ("broken.yaml", {}, "not valid YAML"),
    ],
)
def test_what_does_not_fit_leaves_params_yaml_alone(
    project: Path, profile: str, changes: dict[str, str], message: str
) -> None:
    (project / "params.yaml").write_text("as it was")
    (project / "profiles" / "more.yaml").write_text("like: default\nmodels: {new: {alpha: 1.0}}")
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
    use("small", {})
    (project / "file").touch()
    assert main(["prepare", "--workspace", "file"]) == 1
    assert capsys.readouterr().err.startswith("artpaper: ")
    with pytest.raises(SystemExit) as caught:
        main(["train", "--model", "art", "--seed", "-1"])
    assert caught.value.code == 2


def test_controls_that_are_to_be_in_the_tables_become_models() -> None:
    """With the losses that the stress test gives them; the paper's three stay as they are."""
    before = load_params(DEFAULT)
    use("default", {"experiment.models": "[non_art, art, a_art, uniform_art, a_art_strong]"})
    params = load_params("params.yaml")
    named = {"uniform_art", "a_art_strong"}
    assert params.models.keys() - before.models.keys() == named == before.controls.keys() - params.controls.keys()
    assert {name: params.models[name] for name in before.models} == before.models
    for name in named:
        assert as_dict(params.models[name]).items() <= as_dict(before.with_controls().models[name]).items()
    for models in ("5", "[[art]]"):
        with pytest.raises(ConfigError, match=r"experiment\.models"):
            use("default", {"experiment.models": models})
    with pytest.raises(ConfigError, match="names 'uniform'"):
        use("default", {"controls.uniform": "{}", "experiment.models": "[uniform]"})
    with pytest.raises(ConfigError, match=r"control vat sets adversary, consistency, which the stress test alone has"):
        use("default", {"experiment.models": "[non_art, vat]"})
    Path("params.yaml").write_text(
        DEFAULT.read_text().replace("[non_art, art, a_art]  # entries", "[uniform]  # entries")
    )
    with pytest.raises(ConfigError, match=r"names 'uniform'.*`artpaper use PROFILE --set experiment\.models="):
        load_params("params.yaml")
