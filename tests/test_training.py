"""The training loop: same bits for the same seed, killed or not; its schedule; and what it refuses."""

import json
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.base.errors import ArtpaperError, CheckpointError, ConfigError
from pipeline.base.parameters import Params, as_dict, load_params
from pipeline.data.splits import training_splits
from pipeline.data.store import FrameStore
from pipeline.train import training
from pipeline.train.checkpoints import (
    flatten_optimizer,
    load_model,
    load_tensors,
    restore_optimizer,
    save_model,
    save_tensors,
)
from pipeline.train.device import best_device
from pipeline.train.training import train
from pipeline.train.validation import clean_gap
from tests import toy
from tests.pipeline import changed, digest, kill_when, link_frames


@pytest.fixture
def workspace(small: Path, tmp_path: Path) -> Path:
    """A fresh workspace with the frames of the small profile."""
    return link_frames(small, tmp_path)


@pytest.fixture(scope="module")
def short_params(tiny_params: Params) -> Params:
    """A training that is short, and has validations and states on the way."""
    return changed(tiny_params, train={"max_steps": 60, "validate_every": 10, "checkpoint_every": 4})


@pytest.fixture(scope="module")
def undisturbed(tiny: Path, short_params: Params, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What A-ART, seed 0, leaves when nothing comes in between."""
    folder = link_frames(tiny, tmp_path_factory.mktemp("undisturbed"))
    return digest(train(short_params, "a_art", 0, folder, progress=False))


def test_same_seed_same_bits_other_seed_others(
    tiny: Path, short_params: Params, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    workspace = link_frames(tiny, tmp_path)
    assert digest(train(short_params, "a_art", 0, workspace, progress=False)) == undisturbed
    weights = "model.safetensors"
    assert digest(train(short_params, "a_art", 1, workspace, progress=False))[weights] != undisturbed[weights]


def test_a_killed_run_ends_with_the_bits_of_an_undisturbed_one(
    tiny: Path, short_params: Params, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    workspace = link_frames(tiny, tmp_path)
    YAML(typ="safe").dump(as_dict(short_params), tmp_path / "params.yaml")
    command = ["train", "--params", str(tmp_path / "params.yaml"), "--workspace", str(workspace), "--model", "a_art"]
    kill_when(command, lambda: [*(workspace / ".resume").glob("train-*/state.safetensors")])
    assert not (workspace / "models").exists()
    state = next((workspace / ".resume").glob("train-*/state.safetensors"))
    assert 0 < load_tensors(state)[1]["progress"]["step"] < short_params.train.max_steps
    assert digest(train(short_params, "a_art", 0, workspace, progress=False)) == undisturbed
    assert not [*(workspace / ".resume").glob("train-*")]


def test_training_learns(workspace: Path, small_params: Params) -> None:
    folder = train(small_params, "non_art", 0, workspace, progress=False)
    trained, note = load_model(folder)
    store = FrameStore(workspace / "frames" / "validation")
    torch.manual_seed(0)
    untrained = type(trained)(trained.config, trained.modalities, trained.classes)
    gaps = [clean_gap(net, store, 64, small_params.features, torch.device("cpu")) for net in (untrained, trained)]
    assert gaps[1] > gaps[0] + 0.1
    history = pd.read_csv(folder / "history.csv")
    assert note["best_validation_gap"] == history["validation_gap"].max()
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert (history["step"].diff().dropna() > 0).all()


def test_validation_comes_when_it_was_asked_for(workspace: Path, small_params: Params) -> None:
    """Also where the interval is no multiple of the one that the losses are logged at, and at the last step."""
    params = changed(small_params, train={"max_steps": 60, "validate_every": 27})
    history = pd.read_csv(train(params, "non_art", 0, workspace, progress=False) / "history.csv")
    assert history["step"][history["validation_gap"].notna()].tolist() == [27, 54, 60]


def test_early_stopping_and_learning_rate(workspace: Path, small_params: Params, monkeypatch) -> None:
    """Best, by little, at the 3rd validation; the rate falls after 3 more without a better one; stop after the 5th."""
    scripted = iter([0.1, 0.49999, 0.5, 0.5, 0.4, 0.3, 0.45, 0.2, 0.9])
    monkeypatch.setattr(training, "clean_gap", lambda *_: next(scripted))
    params = changed(small_params, train={"max_steps": 1000, "validate_every": 1, "learning_rate": 0.001})
    folder = train(params, "non_art", 0, workspace, progress=False)
    note = json.loads((folder / "model.json").read_text())
    assert (note["best_step"], note["best_validation_gap"], note["steps"], note["stopped"]) == (3, 0.5, 8, "early")
    rates = pd.read_csv(folder / "history.csv")["learning_rate"].tolist()
    assert rates == pytest.approx([1e-3] * 7 + [1e-4])


@pytest.mark.parametrize(("changes", "kept"), [({}, 20), ({"validate_every": 1000, "checkpoint_every": 8}, 24)])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_state(
    workspace: Path, small_params: Params, changes: dict[str, int], kept: int, monkeypatch
) -> None:
    """Losses are looked at before a row is made of them, and before a state is written: none of a broken model is."""
    real = training.loss_for(small_params.models["non_art"])
    calls = []

    def spoilt(model, x, y, mask, config):
        calls.append(1)
        value, parts = real(model, x, y, mask, config)
        return value, parts if len(calls) != 30 else {**parts, "loss": torch.tensor(float("nan"))}

    monkeypatch.setattr(training, "loss_for", lambda _config: spoilt)
    with pytest.raises(ArtpaperError, match=r"the loss is nan at step 29.*train.learning_rate"):
        train(changed(small_params, train=changes), "non_art", 0, workspace, progress=False)
    state = next((workspace / ".resume").glob("train-*/state.safetensors"))
    assert load_tensors(state)[1]["progress"]["step"] == kept


@pytest.mark.parametrize("name", ["non_art", "art", "a_art"])
def test_a_step_waits_for_no_number(small: Path, small_params: Params, name: str) -> None:
    """On an accelerator each would stop the queue; what nobody else would notice is a check or a part that asks."""

    class Asked(TorchDispatchMode):
        names: ClassVar[list[str]] = []

        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            self.names.append(function._schema.name)
            return function(*arguments, **(options or {}))

    stores = [FrameStore(small / "frames" / split) for split in ("train", "validation")]
    net = training.FrameTransformer(small_params.model, stores[0].modalities, len(stores[0].label_space.classes))
    run = training.Run(
        net, small_params.models[name], small_params.train, small_params.features, *stores, 0, {"name": name}
    )
    batches = run._batches()
    run._train_step(next(batches))  # the first answer is looked at
    with Asked() as asked:
        run._train_step(next(batches))
    assert "aten::mm" in asked.names or "aten::addmm" in asked.names
    assert not {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal"} & {*asked.names}
    assert not torch.get_deterministic_debug_mode() > 1
    run._fetch()
    assert run.sums["steps"] == 2


def test_an_accelerator_without_float64_is_not_taken(monkeypatch) -> None:
    """Nor would anyone know before the first norm; one of another maker is, whatever its name."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("meta"))
    assert best_device() == torch.device("meta")

    def refused(*_: object, **__: object) -> None:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")

    monkeypatch.setattr(torch, "ones", refused)
    assert best_device() == torch.device("cpu")


def test_weights_that_blow_up_stop_the_run_at_the_validation(workspace: Path, small_params: Params) -> None:
    params = changed(small_params, train={"learning_rate": 1e30, "validate_every": 1})
    with pytest.raises(ArtpaperError, match=r"(hold NaN|the loss is \w+) at step \d+; the last"):
        train(params, "non_art", 0, workspace, progress=False)


def test_a_state_of_another_run_is_refused(workspace: Path, small_params: Params) -> None:
    train(changed(small_params, train={"max_steps": 20}), "art", 0, workspace, progress=False)
    stores = [FrameStore(workspace / "frames" / split) for split in ("train", "validation")]
    net = load_model(workspace / "models" / "art" / "seed0")[0]
    ours = training.Run(
        net, small_params.models["art"], small_params.train, small_params.features, *stores, 0, {"name": "art"}
    )
    ours.save(workspace / "state")
    ours.identity = {"name": "a_art"}
    with pytest.raises(CheckpointError, match="made with name 'art', this run needs 'a_art'"):
        ours.resume(workspace / "state")


def test_damaged_and_missing_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint; `dvc repro` makes it"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(CheckpointError, match="not a checkpoint of this project"):
        load_model(tmp_path)
    save_tensors(tmp_path / "model.safetensors", {"x": torch.ones(2)}, {"some": "note"})
    with pytest.raises(CheckpointError, match="do not fit"):
        load_model(tmp_path)


def test_a_model_of_one_vertical_sees_its_videos_alone(workspace: Path, small_params: Params) -> None:
    def params(vertical: str) -> Params:
        return changed(small_params, train={"max_steps": 2}, models={"art": {"alpha": 1.0, "vertical": vertical}})

    stores = training_splits(params("Finance"), "art", workspace)
    finance = set(stores[0].label_space.members("Finance"))
    for split, store in zip(("train", "validation"), stores, strict=True):
        whole = FrameStore(workspace / "frames" / split)
        assert 0 < len(store) < len(whole)
        assert store.ids == [
            video.id for video in map(whole.__getitem__, range(len(whole))) if finance & set(video.labels)
        ]
    _, note = load_model(train(params("Finance"), "art", 0, workspace, progress=False))
    assert note["videos"] == [len(store) for store in stores]
    with pytest.raises(ConfigError, match=r"models\.art\.vertical: no 'Fiance' in h317; did you mean Finance\?"):
        train(params("Fiance"), "art", 0, workspace, progress=False)


def test_impossible_model_names_the_group(
    workspace: Path, small_params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="group model: width 36 is not divisible by 8 heads"):
        train(changed(small_params, model={"projection": 36}), "art", 0, workspace, progress=False)
    with pytest.raises(ConfigError, match="did you mean a_art"):
        train(small_params, "aart", 0, workspace)
    assert capsys.readouterr().err == ""  # the message would stand behind a bar that has not moved


def test_a_model_comes_back_as_it_was(tmp_path: Path) -> None:
    net = toy.model(projection=12)  # with a projection both encoders have one shape: a swap would load without a word
    x, _, mask = toy.batch()
    save_model(tmp_path, net, {"name": "toy"})
    again, note = load_model(tmp_path)
    assert note["name"] == "toy"
    assert list(again.modalities.items()) == list(net.modalities.items())
    assert torch.equal(again(x, mask), net(x, mask))


def test_optimizer_round_trip() -> None:
    parameters = [torch.nn.Parameter(torch.randn(3)) for _ in range(2)]
    first, second = (torch.optim.Adam(parameters, lr=0.1, fused=True) for _ in range(2))
    for parameter in parameters:
        parameter.grad = torch.randn(3)
    first.step()
    restore_optimizer(second, flatten_optimizer(first))
    ours, theirs = first.state_dict()["state"], second.state_dict()["state"]
    assert all(torch.equal(ours[i][key], theirs[i][key]) for i in ours for key in ours[i])


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_papers_width_runs(precision: str) -> None:
    """One A-ART step at full width, 317 classes: finite, and bf16 leaves no gradient at zero. Full length in fp32 only:
    where bf16 is emulated it takes minutes."""
    frames = 300 if precision == "fp32" else 20
    params = load_params("profiles/paper.yaml")
    net = training.FrameTransformer(params.model_for("a_art"), {"rgb": 1024, "audio": 128}, 317).train()
    torch.manual_seed(0)
    mask = torch.arange(frames) < torch.tensor([frames, frames // 2])[:, None]
    x = torch.nn.functional.normalize(torch.randn(2, frames, 1152), dim=-1) * mask[:, :, None]
    y = (torch.rand(2, 317) < 0.01).float()
    config = params.models["a_art"]
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss, parts = training.loss_for(config)(net, x, y, mask, config)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert parts["zero_gradients"] == 0
    assert parts["perturbation_norm"] == pytest.approx(0.5, rel=1e-5)
