"""docs/own_data.md as a reader follows it: snippet, profile, a training on floats, tables with and without groups."""

import csv
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from pipeline.base.errors import ConfigError
from pipeline.base.groups import Reading
from pipeline.base.parameters import Params, load_params
from pipeline.data.store import FrameStore
from pipeline.paper.evidence import Evidence
from pipeline.paper.rules import OPEN, beyond
from pipeline.paper.tables import tables
from pipeline.predict.one_step import attack
from pipeline.prepare.prepare import prepare
from pipeline.run.cli import main
from pipeline.run.profiles import use, whole
from pipeline.train.training import train
from tests.data.worlds import lay_out
from tests.pipeline import ROOT, changed

CLASSES = ("bell", "dog", "horn", "rain", "violin")
GROUPS = {"bell": "Music", "violin": "Music;Home", "rain": "Finance", "dog": "", "horn": "Home"}


def own_params(folder: Path, **groups: dict[str, object]) -> Params:
    """The profile of one's own data, made small."""
    small = {
        "data": {"path": str(folder)},
        "features": {"max_frames": 12},
        "model": {"heads": 4, "projection": 16, "dropout": 0.0},
        "train": {"learning_rate": 0.01, "max_steps": 60, "validate_every": 20, "batch_size": 32},
        "experiment": {"models": ["non_art", "a_art"]},
        "compute": {"workers": 1},
    }
    merged = {name: {**small.get(name, {}), **groups.get(name, {})} for name in small | groups}
    return changed(load_params(ROOT / "profiles" / "arrays.yaml"), **merged)


def write_videos(folder: Path, groups: bool) -> Path:
    """400 videos of one class each: a direction of 13 floats, far from the others' and from noise."""
    random = np.random.default_rng(0)
    directions = random.normal(size=(len(CLASSES), 13))
    (folder / "rgb").mkdir(parents=True)
    rows = []
    for number in range(400):
        label = number % len(CLASSES)
        frames = 50 * directions[label] + random.normal(0, 20, (random.integers(4, 9), 13))
        np.save(folder / "rgb" / f"v{number}.npy", frames)
        rows.append((f"v{number}", CLASSES[label]))
    for name, header, body in (("labels", ("id", "labels"), rows), ("classes", ("class", "groups"), GROUPS.items())):
        if name == "labels" or groups:
            with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([header, *body])
    return folder


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, Path]:
    """Parameters and workspace after prepare, train and attack, of data with groups."""
    work = tmp_path_factory.mktemp("own")
    params = own_params(
        write_videos(work / "data", groups=True), features={"norm": "none"}, model={"scale_input": False}
    )
    prepare(params, work, progress=False)
    for model in params.experiment.models:
        train(params, model, 0, work, progress=False)
        attack(params, model, 0, work, progress=False)
    return params, work


def test_a_model_learns_from_floats_of_any_unit(ran: tuple[Params, Path]) -> None:
    """Values of a hundred, which no byte between -2 and 2 stands for."""
    params, work = ran
    note = json.loads((work / "models" / "non_art" / "seed0" / "model.json").read_text())
    assert note["best_validation_gap"] > 0.95
    assert FrameStore(work / "frames" / "test")[0].frames.max() > 50
    predictions = pd.read_parquet(work / "predictions" / "non_art" / "seed0" / "one_step.parquet")
    np.testing.assert_allclose(predictions["norm"], params.attack.epsilon, rtol=1e-6)
    store = FrameStore(work / "frames" / "test")
    norms = [np.linalg.norm(store[row].frames.astype(float)) for row in range(len(store))]
    np.testing.assert_allclose(predictions["relative_norm"], params.attack.epsilon / np.array(norms), rtol=1e-5)


def test_tables_are_about_ones_own_groups(ran: tuple[Params, Path]) -> None:
    """The paper's Finance where there is a group of that name, the first other group for Arts & Entertainment."""
    params, work = ran
    folder = tables(params, work)
    second, third = (pd.read_csv(folder / f"table{number}.csv") for number in (2, 3))
    classes = [store_labels(work, index) for index in range(len(FrameStore(work / "frames" / "test")))]
    assert set(second["group"]) == {"Music"}
    assert set(second["n"]) == {sum(name in ("bell", "violin") for name in classes)}
    assert second["paper"].isna().all()
    assert set(third["group"]) == {"Finance"}
    assert set(third["n"]) == {classes.count("rain")}
    assert third["paper"].notna().any()
    assert (
        "vertical Arts & Entertainment does not exist here; Music takes its place" in (folder / "table2.md").read_text()
    )
    assert "Data: one's own (source arrays)" in (folder / "table1.md").read_text()


def store_labels(work: Path, index: int) -> str:
    store = FrameStore(work / "frames" / "test")
    [label] = store[index].labels
    return store.label_space.classes[label]


def test_without_groups_tables_2_and_3_say_so(ran: tuple[Params, Path], tmp_path: Path) -> None:
    params, work = ran
    for name in ("models", "predictions"):
        shutil.copytree(work / name, tmp_path / name)
    space = json.loads((work / "frames" / "label_space.json").read_text())
    space["groups"] = [[] for _ in space["classes"]]
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "label_space.json").write_text(json.dumps(space))
    folder = tables(params, tmp_path)
    for number, group in ((2, "Arts & Entertainment"), (3, "Finance")):
        text = (folder / f"table{number}.md").read_text()
        assert f"0 test videos of {group}" in text
        assert "NO video of this group" in text
        assert "Two groups of classes in classes.csv take the places of the paper's" in text.replace("\\", "")
        assert pd.read_csv(folder / f"table{number}.csv")["ours"].isna().all()
        found = beyond(number, "adversarial", "non_art", ("a_art",)).judge(Evidence(tmp_path))
        assert (found.verdict, found.reason.split(";")[0]) == (OPEN, "only 0 test videos")


def test_the_documented_snippet_makes_a_folder_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "own_data.md").read_text()
    files, dataset = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = {}
    exec(files, made)
    summary = prepare(own_params(tmp_path / "mydata"), tmp_path, progress=False)
    assert sum(split["videos"] for split in summary["splits"].values()) == 200
    [shown] = re.findall(r"```\n(mydata/labels\.csv: .*?)```", text, re.DOTALL)
    assert capsys.readouterr().out == f"{tmp_path}/{shown}"
    store = FrameStore(tmp_path / "frames" / "train")
    assert store.label_space.classes == ("crying baby", "doorbell", "violin")
    for index, name in enumerate(store.ids):
        np.testing.assert_array_equal(store[index].frames, made["videos"][name])
    exec(dataset, made)
    summary = prepare(own_params(tmp_path / "mydata"), tmp_path, progress=False)
    assert summary["modalities"] == {"audio": 12, "rgb": 96}
    assert summary["provenance"]["arrays_without_a_row"] == "audio 0, rgb 0"
    store = FrameStore(tmp_path / "frames" / "train")
    with h5py.File(tmp_path / "mydata" / "audio.h5") as file:
        for index, name in enumerate(store.ids):
            np.testing.assert_array_equal(store[index].frames, np.hstack([file[name][()], made["videos"][name]]))


def test_the_documented_command_sets_one_radius_everywhere(project: Path) -> None:
    text = (ROOT / "docs" / "own_data.md").read_text()
    [command] = re.findall(r"```\n(artpaper use arrays --path FOLDER --set.*?)```", text, re.DOTALL)
    lay_out(project / "FOLDER", "arrays")
    assert main(shlex.split(command.replace("\\\n", " "))[1:]) == 0
    params = load_params("params.yaml")
    [radius] = {params.attack.epsilon, params.models["art"].epsilon, params.models["a_art"].epsilon}
    assert radius in params.study.epsilons
    assert Reading(params.features.norm, params.attack.scope, radius) in params.calibration.readings


def test_the_profile_takes_odd_widths_and_without_it_the_error_has_the_remedy(ran: tuple[Params, Path]) -> None:
    params, work = ran
    raw = changed(params, model={"projection": None})
    with pytest.raises(ConfigError, match=r"width 13 is not divisible by 4 heads; set model\.projection to a"):
        train(raw, "non_art", 0, work, progress=False)


def test_models_of_each_group_need_the_folder(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--retrain trains a model on each group .*; say where with --path FOLDER"):
        use("arrays", {}, retrain=True)
    assert not (project / "params.yaml").exists()


@pytest.mark.parametrize("groups", [True, False])
def test_models_of_each_group_can_be_added(project: Path, groups: bool) -> None:
    write_videos(project / "data", groups)
    if not groups:
        with pytest.raises(ConfigError, match=r"classes\.csv: names no groups of classes, and --retrain trains"):
            use("arrays", {}, data=Path("data"), retrain=True)
        return
    use("arrays", {}, data=Path("data"), retrain=True)
    params = load_params("params.yaml")
    assert {name: loss.vertical for name, loss in params.models.items() if loss.vertical} == {
        f"{base}_{group.lower()}": group for base in ("non_art", "art", "a_art") for group in ("Music", "Finance")
    }


def test_home_on_the_command_line(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell leaves the ~ of --path=~/data and of KEY=~/data alone."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = write_videos(tmp_path / "home" / "data", groups=True)
    assert main(["use", "arrays", "--path=~/data", "--retrain"]) == 0
    assert load_params("params.yaml").data.path == str(folder)
    assert main(["use", "arrays", "--set", "data.path=~/data", "--retrain"]) == 0
    assert "path: ~/data" in Path("params.yaml").read_text()  # whoever runs it has a home of one's own
    assert load_params("params.yaml").data.path == str(folder)
    shutil.copy("params.yaml", tmp_path / "home" / "own.yaml")
    assert main(["use", "~/own.yaml", "--set", "base.seed=3"]) == 0
    assert main(["prepare", "--params=~/own.yaml", "--workspace=~/work"]) == 0
    assert (tmp_path / "home" / "work" / "frames" / "summary.json").is_file()
    assert main(["clean", "--source", str(ROOT / "notebooks"), "--target=~/clean"]) == 0
    assert (tmp_path / "home" / "clean" / "train.ipynb").is_file()
    assert not list(Path.cwd().glob("~*"))


def test_every_profile_says_how_labels_and_rates_are_taken() -> None:
    for path in (ROOT / "profiles").glob("*.yaml"):
        data = load_params(path).data
        assert (data.separator, data.rates) == ("auto", "refuse")
        assert "separator: auto" in whole(path)
