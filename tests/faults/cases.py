"""The faults: each is put into a run at a random moment, and what it leaves is compared with an undisturbed run's."""

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pipeline.base.errors import ArtpaperError
from pipeline.data.store import FrameStore
from pipeline.predict import deepfool, one_step
from pipeline.prepare.verify import verify
from pipeline.train import checkpoints, training
from pipeline.train.device import best_device
from tests.faults.world import STAGES, Stage, World, digest

BY_NAME = {stage.name: stage for stage in STAGES}
SLOWER = "done before"  # the fault came after the end of the run, so nothing was to happen
FUTURE = 4_000_000_000  # seconds since 1970, in the year 2096
Case = Callable[[World, Path, random.Random], tuple[str, list[str]]]


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault, in which stage, how often, and what has to happen; ``inject`` gives what did, and what was lost."""

    name: str
    stage: str
    times: int
    wanted: str
    inject: Case


def killed(stage: Stage) -> Case:
    """SIGKILL up to three times in a row, each at a random moment of what is left; then the stage runs to its end."""

    def inject(world: World, folder: Path, source: random.Random) -> tuple[str, list[str]]:
        space, lost, hits = world.space(folder, stage), [], 0
        for _ in range(source.randint(1, 3)):
            child = world.start(stage, space)
            time.sleep(source.uniform(0.01, world.seconds[stage.name]))
            child.kill()
            hits += child.wait()[0] == "killed"
            lost += world.half(stage, space)
        outcome, message = world.start(stage, space).wait()
        told = f"done after {hits} kill{'s' * (hits > 1)}" if hits else SLOWER
        return told if outcome == "done" else _told(outcome, message), lost + world.wrong(stage, space)

    return inject


def full_disk(stage: Stage) -> Case:
    """A disk of 24 MB in memory that something else fills up at a random moment; then there is room again."""

    def inject(world: World, folder: Path, source: random.Random) -> tuple[str, list[str]]:
        with _mounted(folder, "size=24m"):
            space = world.space(folder / "workspace", stage)
            child = world.start(stage, space)
            time.sleep(source.uniform(0, 0.8 * world.seconds[stage.name]))
            filler = folder / "filler"
            with open(filler, "wb", buffering=0) as file:
                while _alive(child.pid):
                    try:
                        file.write(bytes(1 << 16))
                    except OSError:
                        time.sleep(0.002)
            first, message = child.wait()
            lost = world.half(stage, space)
            filler.unlink()
            second, again = world.start(stage, space).wait()
            told = first if first != "done" else SLOWER
            return (told if second == "done" else _told(second, again)) + _crash(first, message), [
                *lost, *world.wrong(stage, space)
            ]  # fmt: skip

    return inject


def read_only(stage: Stage) -> Case:
    """The workspace on a file system that is mounted read-only; then it can be written again."""

    def inject(world: World, folder: Path, source: random.Random) -> tuple[str, list[str]]:
        with _mounted(folder, "size=24m"):
            space = world.space(folder / "workspace", stage)
            if source.random() < 0.5:  # in the midst of the work, not at its start
                child = world.start(stage, space)
                time.sleep(source.uniform(0, 0.5 * world.seconds[stage.name]))
                child.kill()
                child.wait()
            _mount("-o", "remount,ro", str(folder))
            outcome, message = world.start(stage, space).wait()
            _mount("-o", "remount,rw", str(folder))
            second, again = world.start(stage, space).wait()
            named = outcome == "OutputError" and str(folder) in message and "read-only" in message
            told = "OutputError, folder and remedy named" if named else _told(outcome, message)
            return told if second == "done" else _told(second, again), world.wrong(stage, space)

    return inject


def two_at_once(stage: Stage) -> Case:
    """A second run of the same while the first is at work."""

    def inject(world: World, folder: Path, source: random.Random) -> tuple[str, list[str]]:
        space = world.space(folder, stage)
        first = world.start(stage, space)
        while not [*(space / ".resume").glob("*.lock")] and _alive(first.pid):
            time.sleep(0.002)
        time.sleep(source.uniform(0, 0.3 * world.seconds[stage.name]))
        os.kill(first.pid, signal.SIGSTOP)  # or it might end before the other has begun
        held = bool([*(space / ".resume").glob("*.lock")])
        began = time.monotonic()
        outcome, message = world.start(stage, space).wait() if held else (SLOWER, "")
        waited = time.monotonic() - began
        os.kill(first.pid, signal.SIGCONT)
        ended, why = first.wait()
        if ended != "done":
            return _told(ended, why), world.wrong(stage, space)
        named = outcome == "BusyError" and f"process {first.pid} " in message
        told = f"BusyError, the first named, in {waited:.0f} s" if named else _told(outcome, message)
        told = told if held else SLOWER
        return told, world.wrong(stage, space)

    return inject


def clock(stage: Stage) -> Case:
    """Killed at a random moment; what it left is dated in the future and the clock goes back by decades."""

    def inject(world: World, folder: Path, source: random.Random) -> tuple[str, list[str]]:
        space = world.space(folder, stage)
        child = world.start(stage, space)
        time.sleep(source.uniform(0.01, world.seconds[stage.name]))
        child.kill()
        hit = child.wait()[0] == "killed"
        left = [path for path in (space / ".resume").rglob("*") if path.is_file()]
        for path in left:
            os.utime(path, (FUTURE, FUTURE))

        def back() -> None:
            time.time = lambda: 1_000_000_000 - time.monotonic()  # in 2001, and running backwards

        outcome, message = world.start(stage, space, before=back).wait()
        told = "done" if hit else SLOWER
        return told if outcome == "done" else _told(outcome, message), world.wrong(stage, space)

    return inject


def not_a_number(world: World, folder: Path, source: random.Random) -> tuple[str, list[str]]:
    """The loss of a random step is NaN; the state that is kept is a good one, and training goes on from it."""
    stage, step = BY_NAME["train"], source.randrange(world.params.train.max_steps)
    space = world.space(folder, stage)

    def spoil() -> None:
        real, calls = training.loss_for, [-1]

        def spoilt(*arguments: Any) -> Any:
            calls[0] += 1
            value, parts = real(world.params.models["a_art"])(*arguments)
            return value, {**parts, "loss": torch.tensor(float("nan"))} if calls[0] == step else parts

        training.loss_for = lambda _: spoilt

    outcome, message = world.start(stage, space, before=spoil).wait()
    told = _told(outcome, message)
    if outcome == "ArtpaperError" and f"the loss is nan at step {step}" in message:
        told = "ArtpaperError, step named"
    states = [*(space / ".resume").glob("train-*/state.safetensors")]
    every = world.params.train.checkpoint_every
    lost = ["state.safetensors"] if len(states) != (step >= every) else []
    for state in states:
        tensors, note = checkpoints.load_tensors(state)
        finite = all(bool(tensor.isfinite().all()) for tensor in tensors.values())
        if not finite or note["progress"]["step"] != step // every * every:
            lost.append(state.name)
    second, again = world.start(stage, space).wait()
    return told if second == "done" else _told(second, again), lost + world.wrong(stage, space)


def out_of_memory(stage: Stage, owner: Any, name: str, parameter: str) -> Case:
    """A tensor that no machine has room for, asked for at a random call of what the stage computes with."""

    def inject(world: World, folder: Path, source: random.Random) -> tuple[str, list[str]]:
        space, call = world.space(folder, stage), source.randrange(3)

        def starve() -> None:
            real, calls = getattr(owner, name), [-1]

            def starved(*arguments: Any, **options: Any) -> Any:
                calls[0] += 1
                if calls[0] == call:
                    torch.empty(1 << 50, device=best_device())
                return real(*arguments, **options)

            setattr(owner, name, starved)

        outcome, message = world.start(stage, space, before=starve).wait()
        named = outcome == "MemoryShortError" and f"{parameter} (now " in message
        told = f"MemoryShortError, {parameter} named" if named else _told(outcome, message)
        second, again = world.start(stage, space).wait()
        return told if second == "done" else _told(second, again), world.wrong(stage, space)

    return inject


def worker_killed(world: World, folder: Path, source: random.Random) -> tuple[str, list[str]]:
    """One of two worker processes is killed, as a system short of memory does."""
    from pipeline.prepare import units

    stage, space = BY_NAME["prepare"], world.space(folder, BY_NAME["prepare"])
    two = dataclasses.replace(world.params, compute=dataclasses.replace(world.params.compute, workers=2))

    def apart() -> None:
        units.PROCESS_BYTES = 1

    child = world.start(stage, space, two, before=apart)
    while not (workers := _workers(child.pid)) and _alive(child.pid):
        time.sleep(0.01)
    time.sleep(source.uniform(0, 3))
    for worker in workers[:1]:
        os.kill(worker, signal.SIGKILL)
    outcome, message = child.wait()
    named = outcome == "ArtpaperError" and "lower compute.workers" in message
    told = "ArtpaperError, compute.workers named" if named else _told(outcome, message)
    second, again = world.start(stage, space).wait()
    return told if second == "done" else _told(second, again), world.wrong(stage, space)


def corrupt_shard(world: World, folder: Path, source: random.Random) -> tuple[str, list[str]]:
    """One of the source's shards is damaged: ``fail`` names it and leaves the former frames, ``skip`` leaves it out."""
    data, space = folder / "data", folder / "workspace"
    shutil.copytree(world.data, data)
    victim = source.choice(sorted(data.glob("*.tfrecord")))
    how = source.choice(list(DAMAGE))
    DAMAGE[how](victim, source)
    own = dataclasses.replace(world.params, data=dataclasses.replace(world.params.data, path=str(data)))
    stage = BY_NAME["prepare"]
    space.mkdir()
    shutil.copytree(world.base / "frames", space / "frames")
    before = digest(space, stage)
    outcome, message = world.start(stage, space, own).wait()
    lost = [] if digest(space, stage) == before else ["frames"]
    told = "named" if outcome == "DataError" and str(victim) in message else _told(outcome, message)
    skip = dataclasses.replace(own, data=dataclasses.replace(own.data, damaged="skip"))
    outcome, message = world.start(stage, space, skip).wait()
    if outcome != "done":
        return _told(outcome, message), lost
    found = {name for split in ("train", "validation", "test") for name in FrameStore(space / "frames" / split).ids}
    good = {name for path, names in world.videos.items() if path.name != victim.name for name in names}
    left_out = FrameStore(space / "frames" / "test").damaged
    lost += sorted(good - found)
    right = found == good and len(left_out) == 1 and left_out[0].endswith(victim.name)
    return f"fail: {told}; skip: {'left out and named' if right else f'{left_out}, {len(found - good)} more'}", lost


def changed_shard(world: World, folder: Path, source: random.Random) -> tuple[str, list[str]]:
    """A byte of a shard of the prepared frames changes: ``artpaper verify`` names it."""
    space = folder / "workspace"
    shutil.copytree((world.base / "frames").resolve(), space / "frames")
    whole = verify(world.params, space, progress=False)
    victim = source.choice(sorted((space / "frames" / "shards").glob("*.arrow")))
    DAMAGE["bit flipped"](victim, source)
    try:
        verify(world.params, space, progress=False)
    except ArtpaperError as error:
        named = str(error).startswith(f"{victim}: other bytes") and "16 shards of the source" in whole
        return ("named" if named else str(error)), []
    return "NOT NOTICED", [victim.name]


def faults() -> list[Fault]:
    """All of them, in the order of the table."""
    done, every = "done", []
    for name, times in KILLS.items():
        every.append(Fault("SIGKILL, up to three times in a row", name, times, done, killed(BY_NAME[name])))
    for name in ("prepare", "train", "attack", "deepfool", "tables"):
        every.append(Fault("disk full", name, 6, "OutputError", full_disk(BY_NAME[name])))
        every.append(
            Fault("output read-only", name, 2, "OutputError, folder and remedy named", read_only(BY_NAME[name]))
        )
    for name in ("prepare", "train", "attack", "deepfool"):
        every.append(Fault("two runs at once", name, 3, "BusyError, the first named", two_at_once(BY_NAME[name])))
        every.append(Fault("clock backwards, files of the future", name, 4, done, clock(BY_NAME[name])))
    every.append(Fault("NaN loss", "train", 12, "ArtpaperError, step named", not_a_number))
    wanted = "MemoryShortError, {} named"
    for name, owner, function, parameter in (
        ("train", training, "loss_for", "train.batch_size"),
        ("attack", one_step, "fgm", "attack.batch_size"),
        ("deepfool", deepfool, "deepfool", "deepfool.batch_size"),
    ):
        case = out_of_memory(BY_NAME[name], owner, function, parameter)
        every.append(Fault("out of memory", name, 4, wanted.format(parameter), case))
    every.append(Fault("worker killed", "prepare", 3, "ArtpaperError, compute.workers named", worker_killed))
    every.append(
        Fault("corrupt shard of the source", "prepare", 16, "fail: named; skip: left out and named", corrupt_shard)
    )
    every.append(Fault("changed shard of the frames", "prepare", 16, "named", changed_shard))
    return every


KILLS = {"prepare": 50, "train": 30, "attack": 40, "deepfool": 30, "study": 10, "stress": 8, "tables": 30}


def _flip(path: Path, source: random.Random) -> None:
    whole = bytearray(path.read_bytes())
    whole[source.randrange(len(whole))] ^= 1 << source.randrange(8)
    path.write_bytes(whole)


def _cut(path: Path, source: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: source.randrange(path.stat().st_size)])


def _overwrite(path: Path, source: random.Random) -> None:
    whole = bytearray(path.read_bytes())
    start = source.randrange(len(whole))
    whole[start : start + 4096] = bytes(len(whole[start : start + 4096]))
    whole[start] ^= 0xFF  # zeros over zeros would change nothing
    path.write_bytes(whole)


DAMAGE: dict[str, Callable[[Path, random.Random], object]] = {
    "bit flipped": _flip,
    "cut off": _cut,
    "a page of zeros": _overwrite,
    "emptied": lambda path, _: path.write_bytes(b""),
    "a page of the web": lambda path, _: path.write_bytes(b"<html>404 Not Found</html>" * 50),
}


def _told(outcome: str, message: str) -> str:
    return outcome if outcome == "done" else f"{outcome}: {message}"


def _crash(outcome: str, message: str) -> str:
    return f" {message}" if outcome == "CRASH" else ""


def _alive(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def _workers(pid: int) -> list[int]:
    """The processes of a pool: all children but the one that tracks resources."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(one) for one in children if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]
    except OSError:
        return []


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@contextmanager
def _mounted(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


def can_mount(folder: Path) -> bool:
    """Whether this user may mount a file system, which the faults of the disk need."""
    try:
        with _mounted(folder, "size=1m"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
