"""Variations of the pipeline's trainings: each trained once, found again, and told apart from others."""

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from pipeline.base import identity
from pipeline.base.errors import ArtpaperError, ConfigError
from pipeline.base.parameters import Params, as_dict
from pipeline.data.store import FrameStore
from pipeline.paper import epsilon, hyperparameters
from pipeline.predict import study
from pipeline.predict.readings import measure_readings
from pipeline.predict.study import TRAINED_BY, Variation, measure_all
from pipeline.predict.sweep import sweep
from pipeline.scale.workers import in_processes, threads_each
from pipeline.train.checkpoints import load_model
from pipeline.train.training import train
from pipeline.train.validation import clean_gap
from tests.killed import explode
from tests.pipeline import ROOT, changed, link_frames


@pytest.fixture(scope="module")
def params(tiny_params: Params) -> Params:
    """The smallest trainings, of three steps."""
    grids = {"epsilons": [0.1, 0.4], "alphas": [1.0], "betas": [0.001, 1.0], "seeds": [0], "max_steps": 3}
    return changed(tiny_params, train={"max_steps": 3}, study=grids)


@pytest.fixture(scope="module")
def workspace(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return link_frames(tiny, tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def table(params: Params, workspace: Path) -> pd.DataFrame:
    """Figure 3's points."""
    return sweep(params, workspace, progress=False)


def trained(workspace: Path) -> set[str]:
    return {path.parent.parent.name for path in (workspace / "study").glob("*/model/model.safetensors")}


def test_points_are_measured_on_the_model_they_name(params: Params, workspace: Path, table: pd.DataFrame) -> None:
    assert table.groupby(["model", "key"], sort=False).size().to_dict() == {
        ("non_art", "reference"): 1, ("art", "epsilon"): 2, ("a_art", "epsilon"): 2, ("art", "alpha"): 1,
        ("a_art", "alpha"): 1, ("a_art", "beta"): 2,
    }  # fmt: skip
    assert len(trained(workspace)) == 6  # epsilon 0.1, alpha 1 and beta 0.001 are one training
    point = table[(table["key"] == "beta") & (table["value"] == 1.0)].iloc[0]
    assert (point["alpha"], point["epsilon"], point["beta"], point["steps"]) == (1.0, 0.1, 1.0, 3)
    loss = dataclasses.replace(params.models["a_art"], beta=1.0)
    varied = dataclasses.replace(params, models={**params.models, "a_art": loss})
    model, note = load_model(Variation(varied, "a_art", 0).model(workspace))
    assert note["loss"]["beta"] == 1.0
    store = FrameStore(workspace / "frames" / "validation")
    again = clean_gap(model, store, 64, params.features, next(model.parameters()).device)
    assert point["clean"] == pytest.approx(100 * again, abs=1e-6)
    assert 0 < point["one_step"] < point["clean"]
    kept = Variation(varied, "a_art", 0).result(workspace).with_suffix("") / "one_step.parquet"
    rows = pq.read_table(kept).to_pandas()
    for column, number in (("attention_mse", "mse"), ("uniform_mse", "uniform_mse")):  # of this number alone
        expected = np.mean([rows[f"{modality}_attention_{number}"].mean() for modality in store.modalities])
        assert point[column] == pytest.approx(expected, rel=1e-6)
    shared = table[(table["model"] == "a_art") & (table["epsilon"] == 0.1) & (table["beta"] == 0.001)]
    assert len(shared) == 3
    assert shared["clean"].max() == shared["clean"].min()


def test_nothing_is_trained_twice_and_a_new_point_alone_is_trained(
    params: Params, workspace: Path, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(study, "train", lambda *given, **named: calls.append(given[1]) or train(*given, **named))
    again = sweep(params, workspace, progress=False)
    pd.testing.assert_frame_equal(again, table)
    assert calls == []
    longer = changed(params, study={"alphas": [1.0, 2.0]})
    assert len(sweep(longer, workspace, progress=False)) == len(table) + 2
    assert sorted(calls) == ["a_art", "art"]
    calls.clear()
    stronger = changed(params, attack={"epsilon": 2.0})  # another attack measures anew and trains nothing
    harder = sweep(stronger, workspace, progress=False)
    assert calls == []
    assert (harder["one_step"] < table["one_step"]).all()
    pd.testing.assert_series_equal(harder["clean"], table["clean"])


def test_the_pipelines_own_model_is_taken_where_it_is_the_same(params: Params, tiny: Path, tmp_path: Path) -> None:
    workspace = link_frames(tiny, tmp_path)
    train(params, "art", 0, workspace, progress=False)
    own = workspace / "models" / "art" / "seed0"
    assert Variation(params, "art", 0).model(workspace) == own
    longer = changed(params, train={"max_steps": 4})
    assert Variation(longer, "art", 0).model(workspace) != own
    measure_all([Variation(params, "art", 0)], workspace, "test", progress=False)
    assert trained(workspace) == set()


@pytest.mark.timeout(300)
def test_one_training_under_several_attacks_is_done_once(params: Params, tiny: Path, tmp_path: Path) -> None:
    """Readings of epsilon that share a training do not get into each other's way, whatever the number of processes."""
    parallel = changed(params, compute={"workers": 2})
    workspace = link_frames(tiny, tmp_path)
    readings = measure_readings(parallel, workspace, progress=False)
    assert len(trained(workspace)) == 2
    assert readings["relative_norm"].round(1).tolist() == pytest.approx([0.1, 4.8, 1.5, 50.0], abs=0.2)
    files = [pq.read_schema(path).metadata[b"artpaper"] for path in (workspace / "study").rglob("one_step.parquet")]
    assert len(files) == 4
    assert sorted(json.loads(note)["scope"] for note in files) == ["frame", "frame", "joint", "joint"]


def test_a_model_that_was_trained_anew_is_measured_anew(params: Params, tiny: Path, tmp_path: Path) -> None:
    workspace = link_frames(tiny, tmp_path)
    variation = Variation(params, "art", 0)
    train(params, "art", 0, workspace, progress=False)
    before = variation.result(workspace)
    weights = workspace / "models" / "art" / "seed0" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert variation.result(workspace) != before


def test_other_code_is_another_training(params: Params, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Variation(params, "art", 0).folder(workspace)
    monkeypatch.setattr(identity, "code", lambda module: "other" if module == TRAINED_BY else "same")
    assert Variation(params, "art", 0).folder(workspace) != before


def test_epsilon_is_judged_by_non_art_alone(
    params: Params, workspace: Path, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(study, "train", lambda *given, **named: calls.append(given[:2]) or train(*given, **named))
    readings = epsilon.epsilon_table(measure_readings(params, workspace, progress=False))
    assert [name for _, name in calls] == ["non_art"]  # raw features; unit-norm ones are Figure 3's reference
    assert not calls[0][0].model.scale_input
    assert readings["in_use"].tolist() == [False, True, False, False]
    reference = table[table["key"] == "reference"].iloc[0]
    assert readings["GAP clean"][1] == pytest.approx(reference["clean"], abs=1e-5)
    assert readings["GAP attacked"][1] == pytest.approx(reference["one_step"], abs=1e-5)
    assert readings["relative_norm"][3] == pytest.approx(50, abs=1e-3)  # 0.5 on every unit-norm frame
    for metric in epsilon.METRICS:
        lost = 100 * (1 - readings[f"{metric} attacked"] / readings[f"{metric} clean"])
        assert readings[f"{metric} lost"].tolist() == pytest.approx(lost.tolist(), rel=0.01, nan_ok=True)
    assert epsilon.paper_lost("GAP") == pytest.approx(100 * (91.97 - 72.89) / 91.97)
    assert readings.loc[readings["closest"], "distance"].tolist() == [readings["distance"].min()]
    assert "| 91.97 → 72.89 (21 %) |" in " ".join(epsilon.epsilon_markdown(readings, params).split())


def test_figure_3_needs_the_papers_models(params: Params, workspace: Path) -> None:
    lonely = changed(params, experiment={"models": ["art"]})
    alone = dataclasses.replace(lonely.stress, models=("art",), surrogates=())
    lonely = dataclasses.replace(lonely, models={"art": params.models["art"]}, controls={}, stress=alone)
    with pytest.raises(ConfigError, match="needs a_art, non_art, which group models does not have"):
        sweep(lonely, workspace, progress=False)


def test_bars_and_peaks_by_hand() -> None:
    values, seeds, clean = [0.5, 0.5, 1.0, 1.0, 2.0, 2.0], [0, 1] * 3, [40.0, 42.0, 50.0, 50.0, 45.0, 45.0]
    table = pd.DataFrame({"model": "art", "key": "alpha", "value": values, "seed": seeds, "clean": clean})
    table["one_step"] = table["clean"] / 2
    table = table.assign(clean_error=0.7, one_step_error=0.7, attention_mse=0.0, uniform_mse=0.0)
    points = hyperparameters.summary(table).set_index("value")
    assert points.loc[0.5, "clean"] == 41.0
    assert points.loc[0.5, "clean_bar"] == pytest.approx(2**0.5)
    assert points.loc[1.0, "one_step_bar"] == 0
    assert hyperparameters.peak(table, "art", "alpha") == (1.0, True)
    assert hyperparameters.peak(table[table["value"] > 0.5], "art", "alpha") == (1.0, False)
    assert hyperparameters.summary(table[table["seed"] == 0])["clean_bar"].tolist() == [0.7] * 3


def test_figure_3_names_the_models_of_every_panel_and_draws_each_in_its_own_way() -> None:
    """Two controls in one panel looked the same, and a model of the second panel alone had no name."""
    curves = {"non_art": "reference", "art": "epsilon", "uniform_art": "beta", "entropy_art": "beta"}
    rows = [(model, key, value, 0) for model, key in curves.items() for value in (0.1, 0.2)]
    table = pd.DataFrame(rows[1:], columns=["model", "key", "value", "seed"])
    numbers = dict.fromkeys(
        ("clean", "one_step", "clean_error", "one_step_error", "attention_mse", "uniform_mse"), 50.0
    )
    grids = {"epsilon": ["art"], "alpha": [], "beta": ["uniform_art", "entropy_art"]}
    figure = hyperparameters.hyperparameter_figure(
        table.assign(**numbers), changed(Params().with_controls(), study={"models": grids})
    )
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["Non-ART", "ART", "uniform_art", "entropy_art"]
    lines = [container.lines[0] for container in figure.axes[1].containers]
    assert len({line.get_color() for line in lines}) == len({line.get_marker() for line in lines}) == len(lines) == 2
    plt.close(figure)


def test_the_error_of_gap_is_that_of_drawing_videos() -> None:
    """Half the videos right, half wrong, all at one score: GAP is the share that is right, squared."""
    hits = np.zeros((400, 1), bool)
    hits[::2] = True
    error = study._gap_error(np.ones((400, 1)), hits, np.ones(400, int))
    assert error == pytest.approx(2 * 0.5 * 0.5 / 400**0.5, rel=0.25)


def test_processes_give_every_result_and_a_killed_one_is_told() -> None:
    assert sorted(in_processes(explode, [2, 3, 4], 2)) == [(2, 4), (3, 9), (4, 16)]
    with pytest.raises(ArtpaperError, match=r"a worker process was killed, .* lower compute\.workers"):
        list(in_processes(explode, [1, 2], 2))


@pytest.mark.parametrize(("allowed", "threads"), [("1", 1), ("3,1", 3), ("99", 4), ("", 4), ("0", 4), ("many", 4)])
def test_a_process_takes_its_part_of_the_cores_and_no_more_than_the_environment_allows(
    monkeypatch: pytest.MonkeyPatch, allowed: str, threads: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", allowed)
    assert threads_each(2) == threads
    assert threads_each(16) == 1


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_a_killed_study_keeps_its_points_and_ends_the_same(
    params: Params, tiny: Path, table: pd.DataFrame, tmp_path: Path
) -> None:
    workspace = link_frames(tiny, tmp_path)
    program = (
        "import sys; from pathlib import Path; from pipeline.base.parameters import load_params\n"
        "from pipeline.predict.sweep import sweep\n"
        "sweep(load_params(sys.argv[1]), Path(sys.argv[2]), progress=False)"
    )
    YAML(typ="safe").dump(as_dict(params), tmp_path / "params.yaml")
    running = subprocess.Popen([sys.executable, "-c", program, tmp_path / "params.yaml", workspace], cwd=ROOT)
    while len([*(workspace / "study").glob("*/validation-*.json")]) < 2:
        assert running.poll() is None
        time.sleep(0.01)
    running.kill()
    running.wait()
    done = len([*(workspace / "study").glob("*/validation-*.json")])
    assert 2 <= done < 6
    again = sweep(params, workspace, progress=False)
    pd.testing.assert_frame_equal(again, table)
    shutil.rmtree(workspace / "study")
