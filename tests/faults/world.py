"""A tiny run of every stage, in forked processes that can be killed, and what each of them must leave."""

import dataclasses
import hashlib
import json
import os
import select
import signal
import threading
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pipeline.base.errors import ArtpaperError
from pipeline.base.parameters import Params, as_dict, build, load_params
from pipeline.data.labels import VERTICALS
from pipeline.paper.tables import tables
from pipeline.predict import resumable
from pipeline.predict.deepfool import minimal_perturbations
from pipeline.predict.one_step import attack
from pipeline.predict.study import Variation, measure_all
from pipeline.prepare import units
from pipeline.prepare.prepare import prepare
from pipeline.records.tfrecord import YT8M_MODALITIES, Video, write_videos
from pipeline.stress.attacks.stress import stress
from pipeline.train.training import train

ENTITIES, SHARD = 3862, 12  # videos a shard
SHARDS = {"train": 10, "validate": 6}
PATIENCE = 120.0  # seconds after which a run counts as hanging
Digest = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage: how it is run in a workspace, and which folders of finished ones it reads."""

    name: str
    run: Callable[[Params, Path], object]
    reads: tuple[str, ...]


STAGES = (
    Stage("prepare", lambda params, folder: prepare(params, folder, progress=False), ()),
    Stage("train", lambda params, folder: train(params, "a_art", 0, folder, progress=False), ("frames",)),
    Stage("attack", lambda params, folder: attack(params, "a_art", 0, folder, progress=False), ("frames", "models")),
    Stage(
        "deepfool", lambda params, folder: minimal_perturbations(params, "a_art", 0, folder, progress=False),
        ("frames", "models"),
    ),
    Stage(
        "study", lambda params, folder: measure_all(_variations(params), folder, "study", progress=False), ("frames",)
    ),
    Stage("stress", lambda params, folder: stress(params, folder, progress=False), ("frames",)),
    Stage("tables", tables, ("frames", "predictions")),
)  # fmt: skip


MADE = {"prepare": "frames", "train": "models", "attack": "predictions"}  # what other stages read


class Child:
    """A forked process that runs ``work``; it is waited for once."""

    def __init__(self, work: Callable[[], object]) -> None:
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            tqdm.set_lock(threading.RLock())  # its own is shared by forks, and a killed one would hold it for ever
            told = _told(work)
            os.write(writer, json.dumps(told).encode())
            os._exit(0)
        os.close(writer)
        self._reader = reader

    def kill(self) -> None:
        """SIGKILL, whatever it is doing."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> tuple[str, str]:
        """What became of it: ``done``, ``killed``, our own error's name, ``HANG`` or ``CRASH``; and the message."""
        with open(self._reader, "rb") as pipe:
            if not select.select([pipe], [], [], PATIENCE)[0]:
                self.kill()
                os.waitpid(self.pid, 0)
                return "HANG", f"no end after {PATIENCE:g} s"
            told = pipe.read()
        _, status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            return ("killed", "") if number == signal.SIGKILL else ("CRASH", f"signal {number}")
        outcome, message = json.loads(told)
        return outcome, message


def _told(work: Callable[[], object]) -> tuple[str, str]:
    try:
        work()
    except ArtpaperError as error:
        return type(error).__name__, str(error)
    except BaseException:
        return "CRASH", traceback.format_exc(limit=-6)
    return "done", ""


class World:
    """Input shards, the results of stages run undisturbed, and fresh workspaces to disturb.

    Args:
        folder: where everything goes.
        names: the stages that will be disturbed.
    Attributes:
        params: parameters that make each stage take about a second.
        videos: the ids of each input shard, by its path.
        whole: per stage the digest of what it must leave.
        seconds: per stage how long it took undisturbed.
    """

    def __init__(self, folder: Path, names: Collection[str]) -> None:
        units.UNIT_BYTES = 1  # a shard a unit, a batch a part: many moments between which something is kept
        resumable.PART = 1
        self.folder, self.data = folder, folder / "data"
        self.videos = write_data(self.data)
        self.params = tiny(self.data)
        self.base = folder / "base"
        self.whole: dict[str, Digest] = {}
        self.seconds: dict[str, float] = {}
        read = {name for stage in STAGES if stage.name in names for name in stage.reads}
        read |= {"models"} if "predictions" in read else set()
        for stage in STAGES:
            if stage.name not in names and MADE.get(stage.name) not in read | {"frames"}:
                continue
            space = self.space(folder / f"undisturbed-{stage.name}", stage)
            began = time.monotonic()
            outcome = self.start(stage, space).wait()
            assert outcome[0] == "done", outcome
            self.seconds[stage.name] = time.monotonic() - began
            self.whole[stage.name] = digest(space, stage)
            assert left_over(space) == []
            if stage.name in MADE:
                self.base.mkdir(exist_ok=True)
                (self.base / MADE[stage.name]).symlink_to(space / MADE[stage.name], target_is_directory=True)

    def space(self, folder: Path, stage: Stage) -> Path:
        """A fresh workspace with what the stage reads."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in stage.reads:
            (folder / name).symlink_to((self.base / name).resolve(), target_is_directory=True)
        return folder

    def start(
        self, stage: Stage, space: Path, params: Params | None = None, before: Callable[[], object] | None = None
    ) -> Child:
        """Run a stage in a process of its own.

        Args:
            stage: which.
            space: its workspace.
            params: instead of :attr:`params`.
            before: called in that process first, to put the fault in place.
        """

        def work() -> None:
            if before is not None:
                before()
            stage.run(params or self.params, space)

        return Child(work)

    def wrong(self, stage: Stage, space: Path) -> list[str]:
        """The files of a finished run that are not byte for byte those of the undisturbed one, or are left over."""
        found, whole = digest(space, stage), self.whole[stage.name]
        names = sorted(name for name in found.keys() | whole.keys() if found.get(name) != whole.get(name))
        return names + left_over(space)

    def half(self, stage: Stage, space: Path) -> list[str]:
        """The files of a disturbed run that stand under their own names and are not whole."""
        whole = self.whole[stage.name]
        return [name for name, value in digest(space, stage).items() if whole.get(name) != value]


def digest(space: Path, stage: Stage) -> Digest:
    """Name and hash of every file that a stage has finished in a workspace; names with a dot first are temporary."""
    found = {}
    for path in sorted(space.rglob("*")):
        name = path.relative_to(space)
        if path.is_file() and not any(part.startswith(".") for part in name.parts) and name.parts[0] not in stage.reads:
            found[str(name)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def left_over(space: Path) -> list[str]:
    """What a finished run has left of its unfinished work."""
    return sorted(str(path.relative_to(space)) for path in (space / ".resume").rglob("*"))


def write_data(folder: Path) -> dict[Path, list[str]]:
    """Shards of a few videos in YouTube-8M's format and a vocabulary; the ids of each shard."""
    folder.mkdir(parents=True)
    rows = ["Index,TrainVideoCount,KnowledgeGraphId,Name,Vertical1,Vertical2,Vertical3"]
    rows += [f"{i},{900_000 - 200 * i},/m/{i},Entity {i},{VERTICALS[i % 24]},," for i in range(ENTITIES)]
    (folder / "vocabulary.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    source, found = np.random.default_rng(0), {}
    for partition, count in SHARDS.items():
        for shard in range(count):
            names = [f"{partition}{shard}-{number}" for number in range(SHARD)]
            path = folder / f"{partition}{shard:04d}.tfrecord"
            write_videos(path, [_video(source, name) for name in names], YT8M_MODALITIES)
            found[path] = names
    return found


def tiny(data: Path) -> Params:
    """Parameters under which every stage takes about a second on these shards."""
    small = as_dict(load_params(Path(__file__).parents[2] / "profiles" / "small.yaml"))
    changes: Mapping[str, dict[str, object]] = {
        "data": {"source": "yt8m", "path": str(data)},
        "train": {"max_steps": 24, "validate_every": 6, "checkpoint_every": 3, "batch_size": 16},
        "attack": {"batch_size": 8},
        "deepfool": {"videos": 24, "multilabel_videos": 1, "steps": 4, "batch_size": 8},
        "study": {"max_steps": 6},
        "experiment": {"models": ["a_art"]},
        "stress": {"models": ["non_art"], "seeds": [0], "max_steps": 3, "videos": 4, "surrogates": [],
                   "steps": 2, "restarts": 1, "queries": 3, "epsilons": [0.1], "step_counts": [2]},
        "compute": {"workers": 1},
    }  # fmt: skip
    return build(Params, small | {group: small[group] | changed for group, changed in changes.items()}, "tiny")


def _variations(params: Params) -> list[Variation]:
    short = dataclasses.replace(params, train=dataclasses.replace(params.train, max_steps=6))
    return [Variation(short, "art", seed) for seed in (0, 1)]


def _video(source: np.random.Generator, name: str) -> Video:
    frames = source.integers(0, 256, (source.integers(2, 7), 1152), dtype=np.uint8)
    labels = tuple(sorted({int(label) for label in source.integers(0, ENTITIES - 1, 3)}))
    return Video(name, labels, (frames,))
