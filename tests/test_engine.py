"""Work on a Ray cluster: two machines of one core each, on this one's loopback, give what this process gives alone.

What needs the cluster is among `make faults`: Ray's processes want both cores for a minute to start, and for minutes to
train. That processes which train together do what one does is in test_team.py, without Ray.
"""

import dataclasses
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}  # read when ray is imported
import ray
from ray.cluster_utils import Cluster

from pipeline.base.errors import ArtpaperError, DataError
from pipeline.base.groups import Compute
from pipeline.base.parameters import Params
from pipeline.predict.one_step import attack
from pipeline.prepare.prepare import prepare
from pipeline.scale import cluster as ray_cluster
from pipeline.scale import engine
from pipeline.scale.cluster import Place, join, spreads
from pipeline.scale.engine import each, together
from pipeline.scale.workers import torch_threads
from pipeline.train import training
from pipeline.train.history import Screen
from pipeline.train.training import train
from tests.pipeline import changed, digest, link_frames

LOCAL = Compute(engine="local", workers=1)
STEPS, EVERY = 60, 15  # of a training, and between two states


@pytest.fixture(scope="module")
def cluster() -> Iterator[Compute]:
    made = Cluster()
    for _ in range(2):
        made.add_node(num_cpus=1)
    assert made.address.startswith("127.0.0.1:")
    join(made.address)  # once; the tests' processes then stay for the next ones
    yield Compute(engine="ray", workers=2, address=made.address)
    ray.shutdown()
    made.shutdown()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def params(small_params: Params) -> Params:
    run = {"max_steps": STEPS, "validate_every": EVERY, "checkpoint_every": EVERY}
    return changed(small_params, model={"dropout": 0.0}, train=run)


def on(params: Params, compute: Compute) -> Params:
    return dataclasses.replace(params, compute=compute)


@pytest.fixture(scope="module")
def trained(cluster: Compute, params: Params, small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a model that the cluster trained."""
    workspace = link_frames(small, tmp_path_factory.mktemp("trained"))
    train(on(params, cluster), "a_art", 0, workspace, progress=False)
    return workspace


def test_no_cluster_at_the_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listening
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ArtpaperError, match=rf"compute\.address {address}: no Ray cluster answers.*ray start"):
            list(each(where, [0], Compute(engine="ray", address=address)))


def test_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ArtpaperError, match=r"not installed: pip install -e '\./pipeline\[ray\]'"):
        list(each(where, [0], Compute(engine="ray")))


@pytest.mark.fault
def test_preparation_gives_the_same_bytes(cluster: Compute, params: Params, small: Path, tmp_path: Path) -> None:
    shutil.copytree(small / ".resume", tmp_path / ".resume")  # the shards it begins with
    prepare(on(params, cluster), tmp_path, progress=False)
    assert digest(tmp_path / "frames") == digest(small / "frames")
    assert not list((tmp_path / ".resume").glob("ray-*"))


@pytest.mark.fault
def test_training_is_that_of_one_process(trained: Path, params: Params, small: Path, tmp_path: Path) -> None:
    alone = train(on(params, LOCAL), "a_art", 0, link_frames(small, tmp_path), progress=False)
    ours, theirs = (pd.read_csv(folder / "history.csv") for folder in (trained / "models/a_art/seed0", alone))
    pd.testing.assert_frame_equal(ours, theirs, rtol=2e-3, atol=1e-9)
    assert theirs["loss"].iloc[-1] < 0.2 * theirs["loss"].iloc[0]


@pytest.mark.fault
def test_a_killed_worker_costs_what_follows_the_last_state(
    cluster: Compute, params: Params, trained: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the model is the one of the run that was left in peace, to the bit."""
    heard: list[list[int]] = []  # steps, by attempt

    class Killing(Screen):
        def __call__(self, step: int, history: list[Any] | None) -> None:
            heard[-1].append(step)
            super().__call__(step, history)
            if step == 2 * EVERY + 2 and len(heard) == 1:
                processes = psutil.process_iter(["cmdline"])
                workers = [p.pid for p in processes if "RayTrainWorker" in " ".join(p.info["cmdline"] or ())]
                assert len(workers) == 2
                os.kill(workers[-1], signal.SIGKILL)

    real = engine._train_once
    monkeypatch.setattr(training, "Screen", Killing)
    monkeypatch.setattr(engine, "_train_once", lambda *arguments: heard.append([]) or real(*arguments))
    workspace = link_frames(small, tmp_path)
    train(on(params, cluster), "a_art", 0, workspace, progress=False)
    first, second = heard
    assert 2 * EVERY < first[-1] < STEPS
    assert first[-1] - EVERY < second[0] - 1 <= first[-1]  # from the last state on
    assert digest(workspace / "models") == digest(trained / "models")


@pytest.mark.fault
def test_predictions_are_the_same_bytes(cluster: Compute, params: Params, trained: Path, tmp_path: Path) -> None:
    with torch_threads(1):  # as on the cluster's nodes: on some processors the rounding of sums depends on it
        wanted = attack(on(params, LOCAL), "a_art", 0, trained, target=tmp_path / "here", progress=False)
    found = attack(on(params, cluster), "a_art", 0, trained, target=tmp_path / "there", progress=False)
    assert found.read_bytes() == wanted.read_bytes()


def where(item: int) -> tuple[int, bool, dict[str, str | None]]:
    """Runs on the cluster; a process that Ray started does not ask Ray again."""
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
    Path(f"item{item}").touch()
    return os.getpid(), spreads(Compute(engine="ray")), {name: os.environ.get(name) for name in names}


@pytest.mark.fault
def test_work_runs_elsewhere_in_the_same_folder_on_its_part_of_the_cores(cluster: Compute, tmp_path: Path) -> None:
    found = dict(each(where, range(4), cluster))
    assert sorted(found) == [0, 1, 2, 3]
    assert len({pid for pid, _, _ in found.values()} - {os.getpid()}) == 2
    for _, inside, variables in found.values():
        assert not inside
        assert set(variables.values()) == {"1"}
    assert len(list(tmp_path.glob("item?"))) == 4
    assert list(each(where, [], cluster)) == []


def refuse(item: int) -> None:
    raise DataError(f"shard{item}: damaged; download it again")


def die(item: int) -> int:
    if not Path(f"died{item}").exists():
        Path(f"died{item}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.mark.fault
def test_an_error_of_the_work_comes_as_it_is(cluster: Compute) -> None:
    with pytest.raises(DataError) as told:
        list(each(refuse, [3], cluster))
    assert type(told.value) is DataError
    assert str(told.value) == "shard3: damaged; download it again"


@pytest.mark.fault
def test_lost_work_is_done_again_but_not_for_ever(cluster: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "RESTARTS", 0)
    with pytest.raises(ArtpaperError, match=r"a worker process was lost 1 times.* lower compute\.workers and run"):
        list(each(die, [0], cluster))
    monkeypatch.setattr(engine, "RESTARTS", 1)
    assert list(each(die, [1], cluster)) == [(1, 1)]


@pytest.mark.fault
def test_what_the_cluster_cannot_do_is_said_before_any_work(cluster: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ArtpaperError, match=r"workers is 3, but the cluster has room for 2: machines of 1 cores, 1 cores; lower"
    ):
        together(print, dataclasses.replace(cluster, workers=3), print)
    real = ray_cluster._check_machines
    monkeypatch.setattr(
        ray_cluster, "_check_machines", lambda place: real(dataclasses.replace(place, shared="/nowhere"))
    )
    with pytest.raises(ArtpaperError, match=r"machine \S+ of the cluster does not see the folder /.*as on NFS"):
        list(each(where, [0], cluster))


@pytest.mark.parametrize(
    ("machines", "workers", "at_once", "part"),
    [
        ([(16, 0)], 2, True, (8, 0)),
        ([(4, 0), (10, 0)], 3, True, (4, 0)),  # one and two; five each would leave the first out
        ([(64, 0), (8, 1), (8, 1)], 2, True, (8, 1)),  # the head has cores, but no GPU
        ([(8, 2)], 4, False, (2, 0.5)),
        ([(8, 2)], 3, False, (2, 0.5)),
        ([(2, 0)], 5, False, (1, 0)),  # two at a time
        ([(8, 2)], 3, True, None),
        ([(0, 0)], 1, False, None),
    ],
)
def test_each_worker_has_an_equal_part_that_fits(
    machines: list[tuple[int, int]], workers: int, at_once: bool, part: tuple[int, float] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    nodes = [{"Alive": True, "Resources": {"CPU": float(cpus), "GPU": float(gpus)}} for cpus, gpus in machines]
    monkeypatch.setattr("ray.nodes", lambda: [*nodes, {"Alive": False, "Resources": {"CPU": 99.0}}])
    asked = Compute(engine="ray", workers=workers)
    if part is None:
        with pytest.raises(ArtpaperError, match=f"workers is {workers}, but the cluster has room for"):
            Place.on_cluster(asked, "", gpu=True, all_at_once=at_once)
    else:
        place = Place.on_cluster(asked, "", gpu=True, all_at_once=at_once)
        assert (place.cpus, place.gpus) == part


@pytest.mark.fault
def test_an_error_of_one_process_of_a_training_ends_it(cluster: Compute, params: Params, trained: Path) -> None:
    wrong = changed(params, models={"a_art": {"alpha": 1.0, "vertical": "Fiance"}})
    with pytest.raises(ArtpaperError, match=r"models\.a_art\.vertical: no 'Fiance' in h317; did you mean Finance"):
        train(on(wrong, cluster), "a_art", 0, trained, progress=False)


def test_only_two_modules_know_ray() -> None:
    package = Path(engine.__file__).parents[1]
    known = {path.name for path in package.rglob("*.py") if re.search(r"(import|from) ray\b", path.read_text())}
    assert known == {"cluster.py", "engine.py"}
