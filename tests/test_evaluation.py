"""Predictions: what is in the file, that it is what the model says, and that a killed attack ends the same."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from artpaper.attacks import deepfool, fgm
from artpaper.models import FrameTransformer
from pipeline.base.errors import CheckpointError, ConfigError
from pipeline.base.parameters import Params
from pipeline.data.batches import model_inputs
from pipeline.data.store import FrameStore
from pipeline.predict import deepfool as deepfool_module
from pipeline.predict import one_step, resumable
from pipeline.predict.files import best_classes
from pipeline.predict.one_step import attack
from pipeline.train.checkpoints import load_model
from tests.pipeline import ROOT, changed, digest, link_frames


@pytest.fixture(scope="module")
def workspace(small: Path, small_params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small profile with one trained model."""
    from pipeline.train.training import train

    folder = link_frames(small, tmp_path_factory.mktemp("evaluation"))
    train(small_params, "art", 0, folder, progress=False)
    return folder


def test_rows_are_what_the_model_and_the_attack_say(workspace: Path, small_params: Params) -> None:
    path = attack(small_params, "art", 0, workspace, progress=False)
    table = pq.read_table(path).to_pandas()
    store = FrameStore(workspace / "frames" / "test")
    assert table["id"].tolist() == store.ids
    model, _ = load_model(workspace / "models" / "art" / "seed0")
    batch = next(store.batches(7, max_frames=small_params.features.max_frames))
    x, y, mask = model_inputs(batch, small_params.features, model.modalities, torch.device("cpu"))
    result = fgm(model, x, y, mask, epsilon=small_params.attack.epsilon)
    for i in range(7):
        row = table.iloc[i]
        assert row["labels"].tolist() == y[i].nonzero().flatten().tolist() == list(store[i].labels)
        assert row["frames"] == mask[i].sum() == len(store[i].frames)
        assert len(row["clean_scores"]) == max(20, len(row["labels"]))
        for kind, logits in (("clean", result.clean_logits[i]), ("adversarial", result.adversarial_logits[i])):
            np.testing.assert_allclose(row[f"{kind}_scores"], logits[row[f"{kind}_classes"].tolist()], atol=1e-4)
            assert row[f"{kind}_scores"][-1] >= logits.sort(descending=True).values[len(row[f"{kind}_scores"])] - 1e-4
            assert (np.diff(row[f"{kind}_scores"]) <= 0).all()
        (_, before), (_, after) = (
            model(frames, mask, return_attention=True) for frames in (x, x + result.perturbation)
        )
        for modality, maps in before.items():
            change = (maps[i] - after[modality][i]).square().sum() / mask[i].sum() ** 2
            assert row[f"{modality}_attention_mse"] == pytest.approx(change.item(), rel=1e-3)
    np.testing.assert_allclose(table["norm"], small_params.attack.epsilon, rtol=1e-6)
    assert not table["zero_gradient"].any()
    assert table["fooled"].any()
    assert not (table["fooled"] & table["already_wrong"]).any()
    note = json.loads(pq.read_schema(path).metadata[b"artpaper"])
    assert (note["model"], note["seed"], note["label_space"], note["epsilon"]) == ("art", 0, "h317", 0.1)


def test_a_killed_attack_ends_with_the_same_bytes(workspace: Path, small_params: Params, monkeypatch) -> None:
    """Parts of one batch each here, so that the kill falls between parts."""
    monkeypatch.setattr(resumable, "PART", 1)
    undisturbed = digest(attack(small_params, "art", 0, workspace, progress=False).parent)
    shutil.rmtree(workspace / "predictions")
    slow = (
        "import time; from pipeline.predict import one_step, resumable; from pipeline.run import cli\n"
        "resumable.PART = 1; whole = one_step.fgm\n"
        "def fgm(*a, **k):\n    time.sleep(0.3); return whole(*a, **k)\n"
        "one_step.fgm = fgm\n"
        f"cli.main(['attack', '--params', 'profiles/small.yaml', '--workspace', {str(workspace)!r}, '--model', 'art'])"
    )
    process = subprocess.Popen([sys.executable, "-c", slow], cwd=ROOT, stderr=subprocess.DEVNULL)
    while len([*(workspace / ".resume").glob("attack-*/*.parquet")]) < 2:
        assert process.poll() is None
    process.kill()
    process.wait()
    assert not (workspace / "predictions").exists()
    calls = []
    whole = one_step.fgm
    monkeypatch.setattr(one_step, "fgm", lambda *a, **k: calls.append(1) or whole(*a, **k))
    assert digest(attack(small_params, "art", 0, workspace, progress=False).parent) == undisturbed
    assert 0 < len(calls) < -(-len(FrameStore(workspace / "frames" / "test")) // 64)


def test_parts_of_another_batch_size_are_not_mixed_in(workspace: Path, small_params: Params, monkeypatch) -> None:
    """An attack that was stopped and goes on with other batches starts its parts anew."""
    monkeypatch.setattr(resumable, "PART", 1)
    # every part is written, and not yet put together
    monkeypatch.setattr(resumable.pq, "ParquetFile", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        attack(small_params, "art", 0, workspace, progress=False)
    monkeypatch.undo()
    path = attack(changed(small_params, attack={"batch_size": 32}), "art", 0, workspace, progress=False)
    assert pq.read_table(path)["id"].to_pylist() == FrameStore(workspace / "frames" / "test").ids
    shutil.rmtree(workspace / ".resume")


def test_predicted_labels_leak_nothing(workspace: Path, small_params: Params) -> None:
    """The control never looks at the true labels, so it fools fewer videos than the attack that does."""
    truth = pq.read_table(attack(small_params, "art", 0, workspace, progress=False))
    control = changed(small_params, attack={"labels": "predicted"})
    predicted = pq.read_table(attack(control, "art", 0, workspace, progress=False))
    assert 0 < sum(predicted["fooled"].to_pylist()) < sum(truth["fooled"].to_pylist())


def test_a_checkpoint_of_another_model_is_refused(workspace: Path, small_params: Params) -> None:
    shutil.copytree(workspace / "models" / "art" / "seed0", workspace / "models" / "a_art" / "seed0")
    with pytest.raises(CheckpointError, match="made with name 'art', this run needs 'a_art'"):
        attack(small_params, "a_art", 0, workspace, progress=False)
    shutil.rmtree(workspace / "models" / "a_art")
    with pytest.raises(CheckpointError, match="made with features"):
        attack(changed(small_params, features={"norm": "none"}), "art", 0, workspace, progress=False)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        attack(small_params, "art", 5, workspace, progress=False)
    with pytest.raises(CheckpointError, match="made with model"):
        attack(changed(small_params, model={"ffn_multiple": 0}), "art", 0, workspace, progress=False)
    with pytest.raises(ConfigError, match="did you mean art"):
        attack(small_params, "arrt", 0, workspace, progress=False)


@pytest.mark.parametrize("step", ["train", "attack"])
def test_a_full_disk_leaves_nothing_half_written(workspace: Path, tmp_path: Path, step: str) -> None:
    """A limit on file sizes stands in for a full disk: the system refuses the write in the same place."""
    link_frames(workspace, tmp_path)
    if step == "attack":
        shutil.copytree(workspace / "models", tmp_path / "models")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.run.cli", step, "--params", "profiles/small.yaml",
         "--workspace", str(tmp_path), "--model", "art"],
        cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},  # Python would cut off what it compiles, and keep that
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "cannot be written" in done.stderr
    assert "ulimit -f" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "frames" not in path.parts and
                "models" not in path.parts]  # fmt: skip


def test_best_classes_take_the_lower_index_among_ties() -> None:
    classes, scores = best_classes(torch.tensor([[1.0, 3.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]]), [3, 2])
    assert [row.tolist() for row in classes] == [[1, 2, 3], [0, 1]]
    assert [row.tolist() for row in scores] == [[3.0, 3.0, 2.0], [0.0, 0.0]]


def test_deepfools_rows_are_the_attacks_wherever_a_run_goes_on(
    tiny: Path, tiny_params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault it alone catches: options that are not used, or a resumed run that asks videos twice."""
    how = {"candidates": 3, "steps": 2, "overshoot": 0.1}
    params = changed(tiny_params, deepfool={"batch_size": 3, "multilabel_videos": 4, **how})
    store = FrameStore(tiny / "frames" / "test").subset(range(7))
    torch.manual_seed(0)
    net = FrameTransformer(params.model, store.modalities, len(store.label_space.classes)).eval()
    asked = []

    def multilabel(*given, **named):  # the real one takes its time for every class
        asked.append(named)
        return deepfool(*given, criterion="hit1_loss", **how)

    def single(*given, **named):
        assert named == how | {"criterion": named["criterion"], "memory": params.deepfool.memory}
        return deepfool(*given, **named)

    monkeypatch.setattr(deepfool_module, "multilabel_deepfool", multilabel)
    monkeypatch.setattr(deepfool_module, "deepfool", single)
    rows = list(deepfool_module._rows(net, store, params, 0))
    assert asked == [{"outputs": "logits", "overshoot": 0.1, "memory": params.deepfool.memory}] * 2
    assert [batch["criterion"].count("multilabel") for batch in rows] == [3, 1, 0]
    np.testing.assert_equal(list(deepfool_module._rows(net, store, params, 1)), rows[1:])
    for batch, columns in zip(store.batches(3, max_frames=params.features.max_frames), rows, strict=True):
        x, y, mask = model_inputs(batch, params.features, net.modalities, torch.device("cpu"))
        expected = [deepfool(net, x, y, mask, criterion=name, **how) for name in deepfool_module.BOUNDARIES]
        few = columns["criterion"].count("multilabel")
        if few:
            expected += [deepfool(net, x[:few], y[:few], mask[:few], criterion="hit1_loss", **how)]
        for name in ("relative_norm", "iterations", "fooled", "already_wrong"):
            told = torch.cat([attack.diagnostics[name] for attack in expected])
            assert columns[name] == pytest.approx(told.tolist(), rel=1e-5)
        assert columns["id"] == (3 * batch.ids) + batch.ids[:few]
