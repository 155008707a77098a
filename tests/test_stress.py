"""The stress test's run: what is trained for how long, what is kept, and that its files say what the attacks did."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from artpaper.attacks import bce, deepfool, fgm
from pipeline.base.errors import ArtpaperError, DataError
from pipeline.base.parameters import Params
from pipeline.data.batches import model_inputs
from pipeline.data.store import FrameStore
from pipeline.predict import study
from pipeline.predict.deepfool import subset
from pipeline.stress.attacks import predictions
from pipeline.stress.attacks.files import losses
from pipeline.stress.attacks.plan import plan
from pipeline.stress.attacks.predictions import ensemble_of
from pipeline.stress.attacks.stress import quick, stress
from pipeline.stress.attacks.trainings import describe, train_all, variations
from pipeline.stress.verdict.page import stress_verdict
from pipeline.train.checkpoints import load_model
from pipeline.train.training import train
from tests import toy
from tests.pipeline import changed, digest, link_frames

MODELS = ["uniform_art", "pgd_at"]
FEW = ("random", "universal", "one_step", "pgd", "square", "transfer", "pgd_linf")


@pytest.fixture(scope="module")
def params(tiny_params: Params) -> Params:
    """Two models, two seeds, a few steps of everything."""
    short = {"models": MODELS, "seeds": [0, 1], "videos": 10, "steps": 2, "queries": 3, "epsilons": [0.1, 4.0],
             "step_counts": [1], "surrogates": ["pgd_at", "uniform_art"], "max_steps": None}  # fmt: skip
    return changed(tiny_params, stress=short)


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    """A third of the attacks and a short DeepFool, for what is run and kept; the whole plan is tried on a toy model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.stress.attacks.plan.deepfool", partial(deepfool, steps=2))
        patch.setattr(predictions, "plan", lambda *given: {name: plan(*given)[name] for name in FEW})
        yield


@pytest.fixture(scope="module")
def workspace(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return link_frames(tiny, tmp_path_factory.mktemp("stress"))


@pytest.fixture(scope="module")
def target(params: Params, workspace: Path) -> Path:
    return stress(params, workspace, progress=False)


def test_cost_is_equal(params: Params) -> None:
    steps = {v.name: v.params.train.max_steps for v in variations(params)}
    assert steps == {"uniform_art": 6, "pgd_at": 4}  # three passes a step, not two
    free = changed(params, stress={"equal_cost": False, "max_steps": 5})
    assert {v.params.train.max_steps for v in variations(free)} == {5}
    assert [v.seed for v in variations(params)] == [0] * 2 + [1] * 2  # a run cut short has whole seeds


def test_the_training_table_says_what_was_trained(params: Params, target: Path) -> None:
    table = pd.read_csv(target / "training.csv").set_index(["model", "seed"])
    assert list(table.index) == [(model, seed) for seed in (0, 1) for model in MODELS]
    assert table.loc[("pgd_at", 0), ["steps", "passes_per_step"]].tolist() == [4, 3]
    assert table.loc[("uniform_art", 1), "attention_uniform_rms"] < 1e-6
    assert table.loc[("uniform_art", 1), "attention_entropy"] == pytest.approx(1, abs=1e-6)
    assert (table.loc["pgd_at", "attention_uniform_rms"] > 1e-3).all()
    assert (table.loc["pgd_at", "attention_change_rms"] > 0).all()
    assert table["minimum_norm_median"].dropna().gt(0).all()  # NaN: this model was right about no video
    assert table["minimum_norm_unfooled"].dropna().between(0, 1).all()
    assert describe(params, "pgd_at") == table.loc[("pgd_at", 0), "description"]


def test_the_plan_holds_every_attack_and_each_can_be_run(params: Params) -> None:
    x, y, mask = toy.batch()
    params = changed(params, features={"max_frames": x.shape[1]})
    attacks = plan(params, {"other": toy.model(seed=1)}, lambda: torch.ones_like(x[0]), toy.MODALITIES)
    assert list(attacks) == [
        "random", "universal", "one_step", "one_step_predicted", "pgd", "pgd_predicted", "attention_maps",
        "attention_scores", "frames_1", "square", "apgd_bce", "apgd_margin", "apgd_dlr", "apgd_top_k_ap", "transfer",
        "only_rgb", "only_audio", "fgsm_linf", "pgd_linf",
    ]  # fmt: skip
    for name, planned in attacks.items():
        result = planned.run(toy.model(), x, y, mask)
        norms = result.perturbation.flatten(1).norm(dim=1)
        within = norms <= params.attack.epsilon * (1 + 1e-5)
        assert within.all(), name  # of the cube too: it lies in the ball
        assert norms.any(), name


def test_every_model_meets_every_attack(target: Path) -> None:
    files = {path: {file.stem for file in path.glob("*.parquet")} for path in target.glob("predictions/*/seed*")}
    assert len(files) == 4
    for path, names in files.items():
        swept = {"epsilon_0.1", "epsilon_4", "steps_1"} if path.name == "seed0" else set()
        assert names == {"clean", *FEW, "ensemble"} | swept
    assert len(list(target.glob("minimum_norm/*/seed*/fmn.parquet"))) == 4


def test_a_file_holds_what_the_attack_does(params: Params, workspace: Path, target: Path) -> None:
    """The one-step attack once more, on one video at a time."""
    variation = variations(params)[0]
    model, _ = load_model(variation.model(workspace))
    store = FrameStore(workspace / "frames" / "test")
    store = store.subset(subset(store.ids, 10, params.base.seed))
    rows = pq.read_table(target / "predictions" / "uniform_art" / "seed0" / "one_step.parquet").to_pylist()
    assert [row["id"] for row in rows] == store.ids
    for row, batch in zip(rows, store.batches(1, max_frames=params.features.max_frames), strict=True):
        x, y, mask = model_inputs(batch, params.features, model.modalities, torch.device("cpu"))
        result = fgm(model, x, y, mask, epsilon=params.attack.epsilon)
        assert row["loss"] == pytest.approx(bce(result.adversarial_logits, y).item(), rel=1e-5)
        assert row["classes"][0] == result.adversarial_logits.argmax().item()
        assert row["scores"][0] == pytest.approx(result.adversarial_logits.max().item(), rel=1e-4)
        assert row["labels"] == y[0].nonzero().flatten().tolist()


def test_the_ensemble_is_the_worst_of_its_members_for_every_video(target: Path) -> None:
    table = losses(target)
    members = table[table["member"]].groupby(["model", "seed", "id"])["loss"].max()
    ensemble = table[table["attack"] == "ensemble"].set_index(["model", "seed", "id"])["loss"]
    pd.testing.assert_series_equal(ensemble.sort_index(), members.sort_index(), check_exact=True)
    balls = table[~table["attack"].str.endswith("linf")]
    assert (balls["norm"] <= balls["epsilon"] * (1 + 1e-6)).all()


def test_a_finished_run_does_nothing_and_a_hole_is_filled(
    params: Params, workspace: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest(target)
    written = recorded(monkeypatch)
    shutil.rmtree(target / "predictions")
    stress(params, workspace, progress=False)
    assert (written, digest(target)) == ([], before)  # it is all kept in study/
    (hole,) = workspace.glob("study/pgd_at-seed1-attacked-*/pgd.parquet")
    hole.unlink()
    stress(params, workspace, progress=False)
    assert (written, digest(target)) == ([hole.stem], before)


def test_other_parameters_make_other_files_and_lose_none(
    params: Params, workspace: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = recorded(monkeypatch)
    less = changed(params, stress={"models": ["pgd_at"], "seeds": [1], "surrogates": []})
    with monkeypatch.context() as patch:
        patch.setattr(predictions, "plan", lambda *given: {name: plan(*given)[name] for name in ("square", "pgd")})
        stress(less, workspace, target=tmp_path, progress=False)
        assert {path.name for path in tmp_path.glob("predictions/*/*")} == {"seed1"}  # nothing of other parameters
        first = list(written)
        assert "epsilon_4" in first  # seed 1 is now the first
        stress(changed(less, stress={"queries": 2}), workspace, target=tmp_path, progress=False)
        assert {"square", "pgd"} <= set(written[len(first) :])
    count = len(written)
    stress(params, workspace, progress=False)
    assert len(written) == count  # back again: nothing is made


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the attacks whose files are written from now on."""
    written: list[str] = []
    real = predictions.write_resumable

    def record(path: Path, *rest: object) -> Path:
        written.append(path.stem)
        return real(path, *rest)

    monkeypatch.setattr(predictions, "write_resumable", record)
    return written


def test_the_pipelines_own_model_is_not_trained_again(
    params: Params, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = link_frames(tiny, tmp_path)
    train(params, "art", 0, workspace, progress=False)
    only = changed(params, stress={"models": ["art"], "seeds": [0], "surrogates": []})
    monkeypatch.setattr("pipeline.predict.study.train", lambda *_args, **_kw: pytest.fail("trained again"))
    train_all(only, workspace, progress=False)
    assert [variation.model(workspace) for variation in variations(only)] == [workspace / "models" / "art" / "seed0"]
    assert not list(workspace.glob("study/*/model"))
    assert isinstance(variations(only)[0], study.Variation)


def test_members_about_other_videos_are_refused(target: Path, tmp_path: Path) -> None:
    folder = target / "predictions" / "pgd_at" / "seed0"
    turned = pq.read_table(folder / "pgd.parquet")
    pq.write_table(turned.take(list(range(len(turned)))[::-1]), tmp_path / "pgd.parquet")
    with pytest.raises(DataError, match=r"pgd\.parquet: not the videos of one_step\.parquet"):
        ensemble_of([folder / "one_step.parquet", tmp_path / "pgd.parquet"], tmp_path)


def test_quick_is_quick(params: Params) -> None:
    full = Params()
    short = quick(full)
    assert short.stress.models == full.stress.models  # nothing is left out
    assert (short.stress.seeds, short.stress.max_steps) == ((0,), full.train.max_steps // 10)
    assert short.stress.videos < full.stress.videos
    assert dataclasses.replace(short, stress=full.stress, verdict=full.verdict) == full  # nothing else is changed
    assert quick(params).stress.videos == 10  # never more than was asked for


def test_an_unknown_model_or_a_bad_control_is_refused() -> None:
    for values, message in (
        ({"models": ["artt"]}, "stress.models names 'artt', but models and controls have non_art, art, a_art, "),
        ({"surrogates": ["artt"]}, "stress.surrogates names 'artt', which is none of stress.models"),
        ({"seeds": [0, 0]}, "seeds names one twice: 0, 0"),
    ):
        with pytest.raises((ValueError, ArtpaperError), match=message):
            changed(Params(), stress=values)
    for control, message in (
        ({"like": "nobody"}, "controls.it.like: no 'nobody' in group models"),
        ({"alpha": 2.0}, "controls.it.like: no None in group models"),
        ({"like": "art", "aplha": 2.0}, "controls.it: unknown parameter aplha; did you mean alpha"),
        ({"like": "art", "consistency": True}, "controls.it: .*consistency"),
        ({"like": "art", "adversary": "virtual"}, "controls.it: .*needs consistency"),
        ({"like": "art", "steps": 3}, "controls.it: .*steps 3: only adversary 'projected'"),
        ({"like": "art", "attention_relative": True}, "controls.it: .*need a beta above 0"),
    ):
        with pytest.raises((ValueError, ArtpaperError), match=message):
            changed(Params(), controls={"it": control})
    with pytest.raises((ValueError, ArtpaperError), match=r"controls\.art: group models has one of that name"):
        changed(Params(), controls={"art": {"like": "non_art"}})


def test_metadata_says_how_a_file_was_made(target: Path) -> None:
    note = json.loads(
        pq.read_schema(target / "predictions" / "pgd_at" / "seed0" / "ensemble.parquet").metadata[b"artpaper"]
    )
    assert note["attack"] == "ensemble"
    assert {"pgd", "square", "transfer"} <= set(note["members"])
    assert not {"epsilon_4", "steps_1"} & set(note["members"])
    assert note["source"] == "synthetic"


def test_what_was_measured_is_judged(params: Params, target: Path, tmp_path: Path) -> None:
    page = stress_verdict(params, target, tmp_path)
    assert "SYNTHETIC" in page.read_text()
    assert {
        "table.csv",
        "differences.csv",
        "leaderboard.md",
        "checks.md",
        "stress.png",
        "sweeps.pdf",
        "verdict.csv",
    } <= {path.name for path in tmp_path.iterdir()}
    board = pd.read_csv(tmp_path / "leaderboard.csv").set_index("model")
    trained = pd.read_csv(target / "training.csv").groupby("model")["attention_uniform_rms"].mean()
    assert board.loc["pgd_at", "attention_uniform_rms"] == pytest.approx(trained["pgd_at"])
    assert set(board["seeds"]) == {2}  # not the one seed of the sweeps
