"""A tiny A-ART training beside the same loop in plain PyTorch: every number that it leaves, and resuming.

The reference knows the model, and how a seed becomes random numbers; the rest it does by itself. Its losses are equal
only where every batch holds the same videos, cut and scaled alike, and every pass drops the same units.
"""

import csv
import itertools
import json
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from artpaper.models import FrameTransformer
from pipeline.base.errors import CheckpointError
from pipeline.base.parameters import Params, as_dict
from pipeline.data.store import FrameStore
from pipeline.predict.one_step import attack
from pipeline.prepare.prepare import prepare
from pipeline.train.checkpoints import load_model
from pipeline.train.device import best_device
from pipeline.train.training import train
from tests.pipeline import changed, digest
from tests.slow_reference import gap

CLASSES, LONGEST, SEED = 24, 5, 2
WIDTHS = {"audio": 4, "rgb": 8}
ALPHA, EPSILON, BETA = 0.7, 0.4, 0.5
RATE, FACTOR, BATCH, EVERY, PATIENCE = 0.04, 0.3, 8, 20, 2
Videos = dict[str, tuple[np.ndarray, list[int]]]


def make_videos(folder: Path) -> Videos:
    """Frames and classes of 70 videos by id, some too long, as a folder of arrays: 30 to train on, 38 to choose by."""
    draw, videos, rows = np.random.default_rng(0), {}, []
    prototypes = draw.normal(size=(CLASSES, 12))
    for name in WIDTHS:
        (folder / name).mkdir(parents=True)
    for number in range(70):
        name, labels = f"v{number:02d}", sorted({int(label) for label in draw.integers(0, CLASSES, 3)})
        noise = draw.normal(0, 6, (draw.integers(2, 8), 12))
        frames = (prototypes[labels].sum(axis=0) + noise).astype(np.float32)
        np.save(folder / "audio" / f"{name}.npy", frames[:, :4])
        np.save(folder / "rgb" / f"{name}.npy", frames[:, 4:])
        partition = "train" if number < 30 else "validate" if number < 68 else "test"
        rows.append((name, ";".join(f"c{label:02d}" for label in labels), partition))
        videos[name] = frames, labels
    listed = [("class",), *((f"c{label:02d}",) for label in range(CLASSES))]
    for file, lines in (("labels.csv", [("id", "labels", "partition"), *rows]), ("classes.csv", listed)):
        with open(folder / file, "w", newline="", encoding="utf-8") as opened:
            csv.writer(opened).writerows(lines)
    return videos


def parameters(folder: Path) -> Params:
    return changed(
        Params(),
        data={"source": "arrays", "label_space": "given", "path": str(folder)},
        features={"max_frames": LONGEST},
        model={"heads": 2, "dropout": 0.2},
        train={"learning_rate": RATE, "batch_size": BATCH, "max_steps": 300, "validate_every": EVERY,
               "early_stop_patience": PATIENCE, "lr_patience": 0, "lr_factor": FACTOR, "precision": "fp32",
               "checkpoint_every": 19},
        models={"a_art": as_dict(Params().models["a_art"]) | {"alpha": ALPHA, "epsilon": EPSILON, "beta": BETA}},
    )  # fmt: skip


def seed_with(*numbers: int) -> None:
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))


class Reference:
    """The training again: its history, and the step and the weights that are to be kept."""

    def __init__(self, model: FrameTransformer, videos: Videos, ids: list[str], chosen_by: list[str]) -> None:
        self.model, self.videos, self.history = model, videos, []
        optimizer, best, bad = torch.optim.Adam(model.parameters(), RATE), -1.0, 0
        since: list[dict[str, float]] = []
        for step in itertools.count():
            epoch, place = divmod(step * BATCH, -(-len(ids) // BATCH) * BATCH)
            order = np.random.default_rng((SEED, epoch)).permutation(len(ids))[place : place + BATCH]
            since.append(self.learn(optimizer, self.inputs([ids[at] for at in order]), step))
            if len(since) < EVERY // 10:
                continue
            rate = optimizer.param_groups[0]["lr"]
            row = {"step": step + 1, "learning_rate": rate} | pd.DataFrame(since).mean().to_dict()
            self.history.append(row)
            since = []
            if (step + 1) % EVERY:
                continue
            row["validation_gap"] = self.gap(model, chosen_by)
            if row["validation_gap"] > best:
                best, bad, self.step, self.weights = row["validation_gap"], 0, step + 1, deepcopy(model.state_dict())
            else:
                bad, optimizer.param_groups[0]["lr"] = bad + 1, rate * FACTOR
            if bad == PATIENCE:
                return

    def inputs(self, names: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Frames of norm 1, the first few of a video, with their mask; and label sets."""
        kept = [torch.tensor(self.videos[name][0][:LONGEST]) for name in names]
        x = torch.nn.utils.rnn.pad_sequence([F.normalize(frames, dim=-1) for frames in kept], batch_first=True)
        mask = torch.arange(x.shape[1]) < torch.tensor([len(frames) for frames in kept])[:, None]
        y = torch.tensor([[float(label in self.videos[name][1]) for label in range(CLASSES)] for name in names])
        return x.to(best_device()), y.to(best_device()), mask.to(best_device())

    def learn(self, optimizer: torch.optim.Adam, batch: tuple[Tensor, Tensor, Tensor], step: int) -> dict[str, float]:
        """Section 2.2 as it is printed: three passes that drop the same units, and one step."""
        (x, y, mask), bce = batch, F.binary_cross_entropy_with_logits
        self.model.train()
        seed_with(SEED, step)
        (slope,) = torch.autograd.grad(bce(self.model(x.requires_grad_(), mask), y), x)
        moved = x + EPSILON * slope / slope.flatten(1).norm(dim=1)[:, None, None]
        seed_with(SEED, step)
        logits, maps = self.model(x.detach(), mask, return_attention=True)
        seed_with(SEED, step)
        attacked, others = self.model(moved.detach(), mask, return_attention=True)
        parts = {"cross_entropy": bce(logits, y), "adversarial": bce(attacked, y)}
        parts["attention"] = sum((maps[name] - others[name]).flatten(1).norm(dim=1).mean() for name in maps)
        loss = parts["cross_entropy"] + ALPHA * parts["adversarial"] + BETA * parts["attention"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {name: part.item() for name, part in ({"loss": loss} | parts).items()} | {"perturbation_norm": EPSILON}

    def answers(self, model: FrameTransformer, names: list[str]) -> tuple[Tensor, Tensor]:
        """Logits and label sets of some videos."""
        x, y, mask = self.inputs(names)
        with torch.no_grad():
            return model.to(x.device).eval()(x, mask), y

    def gap(self, model: FrameTransformer, names: list[str]) -> float:
        """GAP of some videos, by counting."""
        return gap(*(rows.tolist() for rows in self.answers(model, names)), 20)


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("reference")
    videos, params = make_videos(folder / "arrays"), parameters(folder / "arrays")
    prepare(params, folder, progress=False)
    ids, chosen_by = (FrameStore(folder / "frames" / split).ids for split in ("train", "validation"))
    seed_with(SEED)
    model = FrameTransformer(params.model, WIDTHS, CLASSES).to(best_device())
    reference = Reference(model, videos, ids, chosen_by)
    made = train(params, "a_art", SEED, folder, progress=False)
    return SimpleNamespace(folder=folder, params=params, reference=reference, chosen_by=chosen_by, made=made)


def test_the_history_is_the_references(tried: SimpleNamespace) -> None:
    expected, found = pd.DataFrame(tried.reference.history), pd.read_csv(tried.made / "history.csv")
    assert expected["learning_rate"].nunique() == 3  # it was a run that shows something
    assert 0 < tried.reference.step < expected["step"].iloc[-1] - EVERY
    assert found["zero_gradients"].sum() == found["gradients_not_finite"].sum() == 0
    pd.testing.assert_frame_equal(found[list(expected)], expected, rtol=1e-3, atol=1e-5, check_dtype=False)


def test_the_model_is_that_of_the_best_validation(tried: SimpleNamespace) -> None:
    """By its answers: of some weights, as the keys' bias, only rounding says which way they go."""
    reference, (model, note) = tried.reference, load_model(tried.made)
    found, last = (reference.answers(one, tried.chosen_by)[0] for one in (model, reference.model))
    reference.model.load_state_dict(reference.weights)
    expected, _ = reference.answers(reference.model, tried.chosen_by)
    assert (found - expected).abs().max() < 1e-3 < 0.1 < (last - expected).abs().max()
    assert (note["best_step"], note["stopped"]) == (reference.step, "early")
    assert reference.gap(model, tried.chosen_by) == pytest.approx(note["best_validation_gap"], abs=1e-6)


def test_a_run_stopped_twice_ends_with_the_same_bits(tried: SimpleNamespace) -> None:
    """In the middle of an epoch and between two rows, after the rate has fallen, with a validation passed in vain."""
    for step in (120, 140):

        def stop(history: list[dict[str, float]], at: int = step) -> None:
            if history[-1]["step"] == at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(tried.params, "a_art", SEED, tried.folder, target=tried.folder / "again", watch=stop, progress=False)
    again = train(tried.params, "a_art", SEED, tried.folder, target=tried.folder / "again", progress=False)
    assert digest(again) == digest(tried.made)


def test_predictions_are_of_the_split_the_frames_and_the_ball_asked_for(tried: SimpleNamespace) -> None:
    """Every frame moves by epsilon along its own slope; longer videos are cut."""
    params = changed(tried.params, attack={"epsilon": 0.3, "scope": "frame", "batch_size": 16})
    path = attack(params, "a_art", SEED, tried.folder, split="validation", progress=False)
    assert json.loads(pq.read_schema(path).metadata[b"artpaper"])["epsilon"] == 0.3
    table = pd.read_parquet(path)
    assert table["id"].tolist() == tried.chosen_by
    model, _ = load_model(tried.made)
    x, y, mask = tried.reference.inputs(tried.chosen_by)
    logits = model.to(x.device)(x.requires_grad_(), mask)
    (slope,) = torch.autograd.grad(F.binary_cross_entropy_with_logits(logits, y), x)
    moved = model(x + 0.3 * F.normalize(slope, dim=-1), mask)
    assert table["frames"].tolist() == mask.sum(dim=1).tolist()
    np.testing.assert_allclose(table["norm"], 0.3 * np.sqrt(table["frames"]), rtol=1e-5)
    for kind, expected in (("clean", logits), ("adversarial", moved)):
        scores, classes = (torch.tensor(np.stack(table[f"{kind}_{what}"])) for what in ("scores", "classes"))
        torch.testing.assert_close(scores, expected.detach().cpu().gather(1, classes.long()), rtol=0, atol=1e-4)


def test_a_model_of_another_training_or_loss_is_refused(tried: SimpleNamespace) -> None:
    loss = as_dict(tried.params.models["a_art"]) | {"alpha": 0.8}
    for what, changes in (("train", {"train": {"lr_factor": 0.4}}), ("loss", {"models": {"a_art": loss}})):
        with pytest.raises(CheckpointError, match=f"made with {what} "):
            attack(changed(tried.params, **changes), "a_art", SEED, tried.folder, progress=False)
