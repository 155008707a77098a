"""Profiles say what differs from the default; what `artpaper use` writes, and what it refuses to."""

import dataclasses
import json
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import ArtpaperError, ConfigError
from pipeline.base.parameters import as_dict, load_params, parse
from pipeline.base.sources import SOURCES
from pipeline.paper.paper import MODELS
from pipeline.run.cli import main
from pipeline.run.in_use import opened
from pipeline.run.profiles import use, whole
from tests.data.worlds import lay_out

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
    params = load_params(path)
    data = lay_out(Path("data"), params.data.source) if SOURCES[params.data.source].path else None
    use(path.stem, {}, data)
    text = Path("params.yaml").read_text()
    params = dataclasses.replace(params, data=dataclasses.replace(params.data, path=data and str(data)))
    assert leaves(parse(text, "written")) == leaves(as_dict(params))
    assert load_params("params.yaml") == params
    assert text.startswith(path.read_text().partition("\n")[0])
    assert remarks(path.read_text()) <= remarks(text)
    lost = remarks(DEFAULT.read_text()) - remarks(text)
    assert lost <= {"the paper's 0.5, times sqrt(12 / 212) for the shorter clips"}  # of a list not its own


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
    assert [loss.epsilon for loss in params.models.values()] == [0.038, 0.5, 0.038]
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
    assert [loss.epsilon for loss in load_params("profiles/mine.yaml").models.values()] == [0.038, 0.5, 0.038]
    assert [loss.epsilon for loss in load_params("params.yaml").models.values()] == [0.038, 0.5, 0.25]


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
    lay_out(project / "data #1", "yt8m")
    use("paper", {"models.a_art.beta": "0.1", "experiment.seeds": "[0, 1, 2]"}, data=Path("data #1"))
    params = load_params("params.yaml")
    assert params.models["a_art"].beta == 0.1
    assert params.experiment.seeds == (0, 1, 2)
    assert params.data.path == "data #1"
    assert "# row 17" in (project / "params.yaml").read_text()


def test_a_relative_path_means_the_same_from_a_subfolder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(project / "notebooks" / "data", "yt8m")
    monkeypatch.chdir(project / "notebooks")
    use("paper", {}, data=Path("data"))
    assert load_params(project / "params.yaml").data.path == "notebooks/data"


@pytest.mark.parametrize(
    ("profile", "verticals"), [("default", ("Arts & Entertainment", "Finance")), ("audioset", ("Music", "Speech"))]
)
def test_models_of_each_vertical_can_be_added(profile: str, verticals: tuple[str, str]) -> None:
    data = lay_out(Path("data"), profile) if profile == "audioset" else None
    use(profile, {"models.a_art.beta": "0.1"}, data, retrain=True)
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
            "no profile 'defualt'; there are arrays, audioset, audioset_raw, default, figure3, long_40, long_5, more, "
            "paper, small, utd_mhad, yt8m_speech",
        ),
        ("default", {"train.max_step": "9"}, "unknown parameter train.max_step; did you mean train.max_steps?"),
        ("default", {"train.max_steps": "[1"}, "--set train.max_steps: not valid YAML"),
        ("default", {"train.max_steps": "many"}, "train.max_steps: input should be a valid integer, got 'many'"),
        ("default", {"experiment.seeds": "[]"}, "experiment.seeds"),
        ("default", {"experiment.seeds": "[0, 0]"}, "seeds names one twice: 0, 0"),
        ("default", {"study.seeds": "[0, 0]"}, "study: seeds names one twice: 0, 0"),
        ("default", {"verdict.draws": "1"}, "verdict: draws 1: with fewer than 20"),
        ("default", {"model.heads": "7"}, "/default.yaml: group model: width 128 is not divisible by 7 heads"),
        ("paper", {"model.heads": "7"}, "group model: width 1024 is not divisible by 7 heads"),
        ("audioset", {"model.heads": "3"}, "group model: width 128 is not divisible by 3 heads"),
        ("default", {"model.projection": "40", "model.heads": "3"}, "group model: width 40 is not divisible by 3"),
        ("arrays", {"model.projection": "9", "model.heads": "3"}, "sinusoidal positions need an even width, not 9"),
        (
            "default",
            {
                "model.projection": "9",
                "model.heads": "3",
                "model.positions": "none",
                "controls.uniform.attention": "position",
            },
            "sinusoidal positions need an even width, not 9",
        ),
        ("default", {"experiment.models": "[art]"}, "stage epsilon measures non_art"),
        ("default", {"study.models.beta": "[b_art]"}, "Figure 3 needs b_art, which group models does not have"),
        ("default", {"models.art.vertical": "News"}, "model art was trained on News alone and fits no table"),
        ("default", {f"models.{name}.vertical": "Finance" for name in MODELS}, "no model was trained on all videos"),
        ("default", {"data.path": "here"}, "path and vocabulary must be null for source 'synthetic'"),
        ("paper", {"data.path": "gs://here"}, "data.path gs://here: is a URL"),
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
    with pytest.raises(ArtpaperError) as caught:
        use(profile, changes)
    assert message in str(caught.value)
    assert (project / "params.yaml").read_text() == "as it was"


def test_data_that_is_not_there(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["use", "paper", "--path", "nowhere"]) == 1
    assert capsys.readouterr().err == "artpaper: nowhere: no such file or folder\n"


@pytest.mark.parametrize(
    ("profile", "left", "message"),
    [
        ("paper", [], "no train*.tfrecord (the folder is empty)"),
        ("paper", ["train0000.tfrecord"], "no validate*.tfrecord (other files only)"),
        ("paper", ["train0000.tfrecord", "validate0000.tfrecord"], "vocabulary.csv: no such vocabulary"),
        ("paper", None, "is a file; set data.path to the folder"),
        ("audioset", [], "bal_train: no such folder"),
        ("audioset", ["bal_train/00.tfrecord", "eval/00.tfrecord"], "class_labels_indices.csv: no such class list"),
        ("audioset", None, "no whole tar archive; download features.tar.gz again"),
        ("arrays", [], "labels.csv: no such file"),
        ("arrays", ["labels.csv"], "holds no modality"),
        ("arrays", None, "is a file; set data.path to a folder with labels.csv"),
    ],
)
def test_data_of_the_wrong_kind_are_refused_at_once(
    project: Path, profile: str, left: list[str] | None, message: str
) -> None:
    """It was the first stage that refused them. ``left`` are the files that are there, None a file for a folder."""
    data = lay_out(project / "data", load_params(f"profiles/{profile}.yaml").data.source)
    use(profile, {}, data)  # whole, it is taken
    for path in [*data.rglob("*.*")]:
        if path.relative_to(data).as_posix() not in (left or ()):
            path.unlink()
            with suppress(OSError):
                path.parent.rmdir()
    data.mkdir(exist_ok=True)
    if left is None:
        data.rmdir()
        data.write_text("some text")
    before = Path("params.yaml").read_text()
    with pytest.raises(ArtpaperError, match=re.escape(message)):
        use(profile, {"base.seed": "1"}, data)
    assert Path("params.yaml").read_text() == before


def test_a_folder_on_a_server_is_left_to_the_stage() -> None:
    use("paper", {"data.path": "gs://somewhere", "data.reader": "tensorflow"})
    assert load_params("params.yaml").data.path == "gs://somewhere"


def test_a_refusal_says_what_to_type_and_what_is_still_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["use", "small", "--set", "train.max_steps=7"]) == 0
    for profile, wanted in (
        (
            "audioset",
            "AudioSet; say where: artpaper use audioset --path features.tar.gz, after `artpaper download audioset`",
        ),
        (
            "paper",
            "YouTube-8M; say where: artpaper use paper --path FOLDER, after `artpaper download yt8m --shard 1,100`",
        ),
        ("utd_mhad", "one's own arrays; say where: artpaper use utd_mhad --path FOLDER"),
    ):
        capsys.readouterr()
        assert main(["use", profile]) == 1
        told = f"artpaper: {profile} reads {wanted}; params.yaml is still small, train.max_steps=7\n"
        assert capsys.readouterr().err == told
    assert load_params("params.yaml").train.max_steps == 7


def test_what_runs_says_by_which_parameters(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A `artpaper use` that was refused is thus not taken for done."""
    ran: list[str | None] = []
    monkeypatch.setattr("pipeline.run.repro.repro", lambda folder, jobs, stage: ran.append(stage) or [])
    monkeypatch.setattr("pipeline.run.notebooks.run", lambda *_: None)
    monkeypatch.setattr("pipeline.prepare.prepare.prepare", lambda params, workspace: {})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    use("arrays", {}, data=lay_out(project / "data", "arrays"))
    for command in (["repro"], ["prepare"], ["run", "a.ipynb", "b.ipynb", "-p", "params", "params.yaml"]):
        assert main(command) == 0
        assert (
            capsys.readouterr().out.partition("\n")[0] == f"params.yaml is arrays: one's own arrays, at {project}/data"
        )
    Path("params.yaml").write_text(DEFAULT.read_text().replace("[non_art, art, a_art]  # entries", "[art]  # entries"))
    assert main(["repro"]) == 1
    assert "stage epsilon measures non_art" in capsys.readouterr().err
    assert main(["repro", "tables"]) == 0
    assert ran == [None, "tables"]
    told = "params.yaml is default, experiment.models=['art']: synthetic data, built in\neverything is up to date\n"
    assert capsys.readouterr().out == told


def test_parameters_of_no_profile_or_with_many_changes(capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.yaml").write_text("# Mine\n" + DEFAULT.read_text())
    opened(Path("own.yaml"))
    assert capsys.readouterr().out == "own.yaml is of no profile: synthetic data, built in\n"
    use(
        "small",
        {f"controls.{name}.beta": "0.5" for name in ("a_art_strong", "random_att", "relative_att", "relative_sharp")},
    )
    opened(Path("params.yaml"))
    assert capsys.readouterr().out == "params.yaml is small, 4 values changed: synthetic data, built in\n"


def test_errors_of_the_system_have_no_traceback(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    use("small", {})
    (project / "file").touch()
    assert main(["prepare", "--workspace", "file"]) == 1
    assert capsys.readouterr().err.startswith("artpaper: ")
    assert main(["train", "--model", "art", "--seed", "-1"]) == 2


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
