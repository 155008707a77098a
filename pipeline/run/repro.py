"""`make repro`: what `dvc repro` runs, several stages side by side, with the time that is left for all of them.

DVC runs one stage at a time. Stages that do not wait for each other are here given to processes of `dvc repro` of their
own; results, locks and cache stay DVC's, and a later `dvc repro` finds nothing to do.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.console import Console
from rich.live import Live
from rich.text import Text

from pipeline.base.errors import ArtpaperError
from pipeline.base.git import dvc

# What a stage costs beside others of the default profile, in seconds of one core; those not named here, OTHER. On other
# data the proportions differ, so the time left is called "about".
COSTS = {"prepare": 60, "train": 220, "attack": 15, "deepfool": 30, "epsilon": 120, "attention": 15, "report": 15}
OTHER = 8
TAIL = 12  # lines that are shown of what a failed stage said


@dataclass
class Stages:
    """What there is to run: each stage with those of them that it waits for, and how far they are."""

    waits: dict[str, set[str]]
    done: set[str] = field(default_factory=set)
    running: dict[str, float] = field(default_factory=dict)  # since when
    start: float = field(default_factory=time.monotonic)

    def ready(self) -> list[str]:
        """Those that wait for nothing any more, the one with the most work behind it first."""
        begun = self.done | self.running.keys()
        free = [name for name, before in self.waits.items() if before <= self.done and name not in begun]
        return sorted(free, key=self._behind, reverse=True)

    def __str__(self) -> str:
        """How many are done, since when, and the time that the rest will take if all goes on as it went."""
        now = time.monotonic()
        done = sum(map(cost, self.done)) + sum(min(now - since, cost(name)) for name, since in self.running.items())
        text = f"{len(self.done)} of {len(self.waits)} stages in {clock(now - self.start)}"
        left = (now - self.start) * (sum(map(cost, self.waits)) / done - 1) if done else 0
        return text + (f", about {clock(left)} left" if left else "")

    def _behind(self, name: str) -> float:
        return cost(name) + max(
            (self._behind(later) for later, before in self.waits.items() if name in before), default=0
        )


class Processes:
    """Commands of a project that run side by side, each ended where this is left before it has."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.last = folder, dict[str, str]()  # name of a command: the last line it said
        self._all: list[subprocess.Popen[str]] = []

    def close(self) -> None:
        """End those that still run."""
        for process in self._all:
            if process.poll() is None:  # DVC leaves what it runs behind
                for child in (*psutil.Process(process.pid).children(recursive=True), process):
                    child.send_signal(signal.SIGINT)

    def run(self, name: str, *command: str) -> int:
        """Run one; what it says goes to ``reports/log/<name>.txt``. Its exit status."""
        # stages call `artpaper`, which is found without the environment being active
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        with (
            open(self.log(name), "w", encoding="utf-8") as log,
            subprocess.Popen(
                command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
                errors="replace", env={**os.environ, "PATH": path},
            ) as process,
        ):  # fmt: skip
            self._all.append(process)
            for line in process.stdout or ():  # a bar that goes back to its start ends a line too
                log.write(line)
                self.last[name] = line.strip() or self.last.get(name, "")
        del self.last[name]
        return process.returncode

    def log(self, name: str) -> Path:
        """The file with what a command said."""
        path = self.folder / "reports" / "log" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def repro(folder: Path, jobs: int, target: str | None = None, console: Console | None = None) -> list[str]:
    """Bring a project's stages, or what ``target`` needs, up to date, ``jobs`` at a time; their names as they ended.

    Raises:
        ArtpaperError: a stage failed. Those beside it have ended, and none was begun after it.
    """
    console = console or Console(soft_wrap=True)
    stages = Stages(waiting(folder, target))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or the stages would outlive this
    futures: dict[Future[int], str] = {}
    ended: list[str] = []
    with (
        ThreadPoolExecutor(jobs) as pool,
        closing(Processes(folder)) as processes,
        Live(console=console, get_renderable=lambda: _screen(stages, processes), transient=True, refresh_per_second=2),
    ):
        while len(ended) < len(stages.waits):
            for name in stages.ready()[: jobs - len(futures)]:
                command = (sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name)
                futures[pool.submit(processes.run, name, *command)] = name
                stages.running[name] = time.monotonic()
            for future in wait(futures, return_when=FIRST_COMPLETED).done:
                name = futures.pop(future)
                took = time.monotonic() - stages.running.pop(name)
                if future.result():
                    console.print(f"{name} failed; what runs beside it goes on to its end")
                    wait(futures)
                    said = processes.log(name).read_text(encoding="utf-8").splitlines()
                    raise ArtpaperError("\n".join([f"stage {name} failed ({processes.log(name)}):", *said[-TAIL:]]))
                stages.done.add(name)
                ended.append(name)
                console.print(f"{name} took {clock(took)}; {stages}")
    return ended


def waiting(folder: Path, target: str | None = None) -> dict[str, set[str]]:
    """The stages that are not up to date, or depend on one that is not, each with those of them that it waits for."""
    what = [target] if target else []
    edges = re.findall(r'"([^"]+)" -> "([^"]+)"', dvc(folder, "dag", "--dot", *what))
    stale = set(json.loads(dvc(folder, "status", "--json", *what, *(["--with-deps"] if what else []))))
    if not target:  # as for a bare `dvc repro`: stages of other files, such as the stress test's, are left alone
        edges = [edge for edge in edges if not any(":" in name for name in edge)]
        stale = {name for name in stale if ":" not in name}
    while late := {after for before, after in edges if before in stale} - stale:
        stale |= late
    return {name: {before for before, after in edges if after == name and before in stale} for name in sorted(stale)}


def cost(stage: str) -> float:
    """Of one stage, ``train@art-0`` or ``tables``, beside the others."""
    return COSTS.get(stage.partition("@")[0], OTHER)


def clock(seconds: float) -> str:
    """As ``12:05`` or ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def _screen(stages: Stages, processes: Processes) -> Text:
    now = time.monotonic()
    rows = [f"  {name} {clock(now - since)}  {processes.last.get(name, '')}" for name, since in stages.running.items()]
    return Text("\n".join([str(stages), *rows]), overflow="ellipsis", no_wrap=True)
