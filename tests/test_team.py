"""Processes that train one model together do what one process does. No Ray here: two processes and gloo."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing

from artpaper.losses import Parts, loss_for
from artpaper.models import FrameTransformer
from artpaper.settings import Control, Loss
from pipeline.base.errors import ArtpaperError
from pipeline.base.parameters import Params, load_params
from pipeline.data.store import FrameStore
from pipeline.scale.team import Team
from pipeline.train import training, validation
from pipeline.train.device import seed_everything
from pipeline.train.training import Run
from pipeline.train.validation import clean_gap
from tests import toy
from tests.pipeline import ROOT

RANKS = 2
LOSSES = {
    "non_art": Loss(),
    "art": Loss(alpha=1.0, epsilon=0.1),
    "a_art": Loss(alpha=1.0, beta=0.1, epsilon=0.1),
    "entropy": Control(alpha=1.0, epsilon=0.1, beta=0.1, entropy=0.01, attention_relative=True),
    "sum": Loss(alpha=1.0, beta=0.1, epsilon=0.1, bce_reduction="sum", scope="frame"),
}
VIDEOS = 8  # of the batch whose gradients are compared; the second process may have none of them
STEPS = 8


def a_run(workspace: Path, name: str, **changes: Any) -> Run:
    """A short training on 129 videos in batches of 64: the third batch of an epoch is one video."""
    params = load_params(ROOT / "profiles" / "small.yaml")
    config = dataclasses.replace(params.train, **{"max_steps": STEPS, "validate_every": 4, **changes})
    stores = [FrameStore(workspace / "frames" / split) for split in ("train", "validation")]
    seed_everything(0)
    model = FrameTransformer(dataclasses.replace(params.model, dropout=0.0), stores[0].modalities,
                             len(stores[0].label_space.classes))  # fmt: skip
    return Run(model, LOSSES[name], config, params.features, stores[0].subset(range(129)), stores[1], 0, {"name": name})


def trained(run: Run, folder: Path) -> dict[str, Any]:
    run.resume(folder)
    run.fit(folder, lambda *_: None)
    return {"history": run.history, "step": run.step, "weights": run.model.state_dict()}


def gradients(name: str, share: slice) -> tuple[dict[str, float], list[torch.Tensor]]:
    """What Team.average makes of a part of a batch, in double precision."""
    net = toy.model(dtype=torch.float64)
    x, y, mask = (tensor[share] for tensor in toy.batch(videos=VIDEOS, dtype=torch.float64))
    parts: Parts = {}
    if len(x):
        loss, parts = loss_for(LOSSES[name])(net, x, y, mask, LOSSES[name])
        loss.backward()
    parts = Team.here().average(net.parameters(), parts, len(x))
    return toy.numbers(parts), [torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters()]


def member(rank: int, workspace: Path, folder: Path) -> None:
    """All that one of the processes does; what it finds is kept for the tests to look at."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS)
    found: dict[str, Any] = {}
    sent = counted(distributed.all_reduce)
    distributed.all_reduce = sent
    for name in LOSSES:
        for first in (3, VIDEOS):  # of the first process
            found[f"gradients {name} {first}"] = gradients(name, (slice(first), slice(first, None))[rank])
    sent.count = 0
    read: list[int] = []
    inputs = training.model_inputs
    counting = lambda batch, *rest: read.append(len(batch.ids)) or inputs(batch, *rest)  # noqa: E731
    training.model_inputs = validation.model_inputs = counting
    for name in ("art", "a_art"):
        found[name] = trained(a_run(workspace, name), folder / name)
    found |= {"messages": sent.count, "videos": sum(read), "seed": torch.initial_seed()}
    found["resumed"] = trained(a_run(workspace, "a_art"), folder / "begun")
    found["stopped"] = trained(
        a_run(workspace, "art", max_steps=40, learning_rate=1e-30, early_stop_patience=1), folder / "stopped"
    )["step"]  # fmt: skip
    run = a_run(workspace, "art")
    found["gap"] = clean_gap(run.model, run.validation_store, 64, run.inputs, run.device, run.team)
    real = training.loss_for

    def spoilt(config: Loss) -> Callable:
        def loss(*arguments: Any) -> Any:
            value, parts = real(config)(*arguments)
            return value, parts | ({"loss": math.nan} if rank == 1 else {})

        return loss

    training.loss_for = spoilt
    try:
        trained(run, folder / "diverged")
    except ArtpaperError as error:
        found["diverged"] = str(error)
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


class counted:
    """A function that counts its calls."""

    def __init__(self, function: Callable) -> None:
        self.function, self.count = function, 0

    def __call__(self, *arguments: Any) -> Any:
        self.count += 1
        return self.function(*arguments)


@pytest.fixture(scope="module")
def alone(small: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same trainings in this process."""
    folder = tmp_path_factory.mktemp("alone")
    return {name: trained(a_run(small, name), folder / name) for name in ("art", "a_art")}


@pytest.fixture(scope="module")
def team(small: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("team")
    begun = a_run(small, "a_art")
    begun.config = dataclasses.replace(begun.config, max_steps=4, checkpoint_every=4)
    trained(begun, folder / "begun")
    multiprocessing.spawn(member, (small, folder), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(RANKS)]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("first", [3, VIDEOS])
def test_gradients_and_parts_are_those_of_the_whole_batch(team: list[dict[str, Any]], name: str, first: int) -> None:
    """Shares of 3 and 5 videos, and of all and none."""
    parts, wanted = gradients(name, slice(None))
    for found_parts, found in (found[f"gradients {name} {first}"] for found in team):
        assert found_parts == pytest.approx(parts, rel=1e-9)
        for gradient, expected in zip(found, wanted, strict=True):
            torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)
    assert any(gradient.any() for gradient in wanted)


def assert_alike(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    """Two histories of the same steps, but for rounding."""
    for row, expected in zip(ours, theirs, strict=True):
        assert row.keys() == expected.keys()
        # the attention term is a difference of maps, and is rounded as they are: by some 1e-7, whatever is left of them
        parts = {key: value for key, value in row.items() if key != "validation_gap"}
        assert parts == pytest.approx({key: expected[key] for key in parts}, rel=1e-4, abs=1e-6)
        # two scores that are equal but for rounding may change places: GAP goes in steps
        assert row.get("validation_gap", 0) == pytest.approx(expected.get("validation_gap", 0), rel=1e-3)


@pytest.mark.parametrize("name", ["art", "a_art"])
def test_a_training_is_that_of_one_process(team: list[dict[str, Any]], alone: dict[str, Any], name: str) -> None:
    ours, theirs = team[0][name]["history"], alone[name]["history"]
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == list(range(1, STEPS + 1))
    assert_alike(ours, theirs)
    assert ours[-1]["loss"] < 0.5 * ours[0]["loss"]  # a step with no effect would be equal too


def test_all_processes_hold_the_same_weights(team: list[dict[str, Any]]) -> None:
    for name in ("art", "a_art"):
        first, second = (found[name]["weights"] for found in team)
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_step_sends_one_message(team: list[dict[str, Any]]) -> None:
    """Two backward passes of ART, three of A-ART; the gradients and the loss go around once."""
    assert [found["messages"] for found in team] == [2 * STEPS] * RANKS


def test_each_process_reads_its_own_videos_and_draws_its_own_numbers(team: list[dict[str, Any]], small: Path) -> None:
    steps = 3 * (64 + 64) + 2 * 1
    validations = 2 * len(FrameStore(small / "frames" / "validation"))
    assert sum(found["videos"] for found in team) == 2 * (steps + validations)
    assert team[0]["seed"] != team[1]["seed"]


def test_a_training_that_one_process_began_is_gone_on_with(team: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    assert [row["step"] for row in team[1]["resumed"]["history"]] == list(range(1, STEPS + 1))
    assert team[0]["resumed"]["history"][:4] == alone["a_art"]["history"][:4]
    assert_alike(team[0]["resumed"]["history"][-1:], alone["a_art"]["history"][-1:])


def test_they_stop_early_together(team: list[dict[str, Any]]) -> None:
    """The GAP cannot get better after the first of ten validations, at 4; who went on alone would wait for ever."""
    assert [found["stopped"] for found in team] == [8, 8]


def test_the_validation_gap_is_that_of_one_process_to_the_bit(team: list[dict[str, Any]], small: Path) -> None:
    run = a_run(small, "art")
    expected = clean_gap(run.model, run.validation_store, 64, run.inputs, run.device)
    assert len(run.validation_store) % 64
    assert 0 < expected < 1
    assert [found["gap"] for found in team] == [expected] * RANKS


def test_a_loss_that_is_no_number_in_one_process_stops_all(team: list[dict[str, Any]]) -> None:
    assert all("the loss is nan at step 0" in found["diverged"] for found in team)


def test_seeds_of_the_first_process_are_those_of_one_alone() -> None:
    def seed(*entropy: int) -> int:
        seed_everything(*entropy)
        return torch.initial_seed()

    assert seed(7, 5, 0) == seed(7, 5)
    assert len({seed(7, 5, rank) for rank in range(4)}) == 4


def test_a_process_alone_changes_nothing() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    parts = {"loss": torch.tensor(0.5)}
    assert Team.here() == Team()
    assert Team().average([parameter], parts, 3) == parts
    assert parameter.grad is None


def test_shares_make_up_the_batch(small: Path, small_params: Params) -> None:
    store = FrameStore(small / "frames" / "train").subset(range(130))

    def ids(share: tuple[int, int], ahead: int = 0) -> list[list[str]]:
        batches = store.batches(64, max_frames=12, seed=0, ahead=ahead, share=share)
        return [batch.ids for batch in batches]

    whole, shares = ids((0, 1)), [ids((rank, 3), ahead=2) for rank in range(3)]
    assert [[*itertools.chain(*parts)] for parts in zip(*shares, strict=True)] == whole
    assert [[len(part) for part in share] for share in shares] == [[22, 22, 1], [21, 21, 1], [21, 21, 0]]
    empty = list(store.batches(64, max_frames=12, seed=0, share=(2, 3)))[-1]
    assert (len(empty.frames), len(empty.mask), len(empty.labels)) == (0, 0, 0)
    assert [Team(rank, 3).own_batches(10, 3) for rank in range(3)] == [[0, 1, 2, 9], [3, 4, 5], [6, 7, 8]]
