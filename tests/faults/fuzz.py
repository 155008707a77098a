"""Hostile input: mutated records, shards and parameter files, of which each must end in a result or our own error.

    python -m tests.faults.fuzz                   # 120,000 inputs, some minutes; or, for some of them:
    python -m tests.faults.fuzz records shards --archive data/audioset/features.tar.gz  # real records among good ones

Every input follows from its kind, its number and --seed alone: `--only records --first 4711 --count 1` repeats one. The
inputs run in processes of a few thousand each, with a limit on memory and on the processor time of an input; whatever
ends such a process is counted as a crash of the input that it was at. Results: tests/faults/results/fuzz.json and
fuzz.md; kinds that are not run keep what they had.
"""

import argparse
import collections
import json
import math
import mmap
import os
import random
import resource
import signal
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import machine
from pipeline.base.atomic import atomic_file
from pipeline.base.errors import ArtpaperError
from pipeline.base.parameters import Params, as_dict, build, load_params
from pipeline.paper.style import markdown_table
from pipeline.prepare import audioset
from pipeline.records.tfrecord import (
    YT8M_MODALITIES,
    Modality,
    Video,
    _video,
    read_videos,
    write_videos,
)
from pipeline.run.profiles import whole
from tests.faults import mutations

RESULTS = Path(__file__).parent / "results"
PROFILES = Path(__file__).parents[2] / "profiles"
COUNTS = {"records": 60_000, "shards": 20_000, "files": 15_000, "values": 25_000}
CHUNK = 2_500  # inputs a process
SECONDS = 5.0  # of the processor that an input may take
WAITING = 120.0  # seconds that it may take in all, on however busy a machine
MEMORY = 1 << 30  # bytes that a process may take beyond what its imports took
Case = Callable[[random.Random], str]


class TookTooLong(BaseException):
    """An input was at work longer than it may; no Exception, so that nothing under test can catch it."""


class Corpus:
    """The good inputs that hostile ones are made of.

    Args:
        folder: for files; in memory, if the machine has /dev/shm.
        archive: AudioSet's features.tar.gz; without it all records are synthetic.
    """

    def __init__(self, folder: Path, archive: Path | None = None) -> None:
        self.folder = folder
        source = np.random.default_rng(0)
        made = [
            Video(f"vid{number}", (number, number + 40), (source.integers(0, 256, (1 + number % 4, 1152), np.uint8),))
            for number in range(12)
        ]
        path = folder / "good.tfrecord"
        write_videos(path, made, YT8M_MODALITIES)
        self.records: list[tuple[tuple[Modality, ...], list[bytes]]] = [(YT8M_MODALITIES, _contents(path))]
        if archive is not None:
            self.records.append((audioset.MODALITIES, list(_real(archive, folder))))
        text = whole(PROFILES / "small.yaml")
        groups = [f"{part.rstrip()}\n" for part in _groups(text)]
        self.texts = [*groups, "".join(groups[:5]), text]
        self.values = as_dict(load_params(PROFILES / "small.yaml"))

    def record(self, source: random.Random) -> str:
        """One mutated record, decoded."""
        modalities, good = source.choice(self.records)
        name, hostile = mutations.record(source, source.choice(good), source.choice(good))
        video = _video(hostile, modalities, "fuzz: record 0")
        width = sum(modality.width for modality in modalities)
        assert video.frames.dtype == np.uint8 and video.frames.shape[1:] == (width,) and len(video.frames)  # noqa: PT018
        assert video.id and video.labels, name  # noqa: PT018
        return name

    def shard(self, source: random.Random) -> str:
        """One mutated shard, read to its end."""
        modalities, good = source.choice(self.records)
        name, hostile = mutations.shard(source, [source.choice(good[:6]) for _ in range(source.randint(1, 3))])
        path = self.folder / "hostile.tfrecord"
        path.write_bytes(hostile)
        for video in read_videos(path, modalities):
            assert video.frames.ndim == 2
        return name

    def file(self, source: random.Random) -> str:
        """One mutated parameter file, loaded."""
        name, hostile = mutations.text(source, source.choice(self.texts))
        path = self.folder / "params.yaml"
        path.write_bytes(hostile)
        _check(load_params(path))
        return name

    def value(self, source: random.Random) -> str:
        """Mutated plain values, built."""
        name, hostile = mutations.values(source, self.values)
        _check(build(Params, hostile, "fuzz"))
        return name


def run(case: Case, kind: str, seed: int, first: int, count: int, at: mmap.mmap | None = None) -> dict[str, Any]:
    """Put ``count`` inputs to ``case`` in this process.

    Args:
        case: makes one input from a source of chance and handles it.
        kind: of the inputs, part of their seeds.
        seed: of all.
        first: number of the first input.
        count: how many.
        at: receives the number of the input at work, for whoever finds this process dead.
    Returns:
        Counts of ``accepted`` and ``refused``, ``errors`` (how often which of our own), ``slowest_s``, and ``crashes``:
        number and traceback of each input that ended in anything else.
    """
    errors: collections.Counter[str] = collections.Counter()
    found: dict[str, Any] = {"accepted": 0, "refused": 0, "slowest_s": 0.0, "crashes": []}
    for number in range(first, first + count):
        if at is not None:
            at[:8] = struct.pack("<Q", number)
        began = time.process_time()
        try:
            with _time_limit():
                case(random.Random(f"{seed} {kind} {number}"))
            found["accepted"] += 1
        except ArtpaperError as error:
            found["refused"] += 1
            errors[type(error).__name__] += 1
        except (Exception, TookTooLong):
            found["crashes"].append([number, traceback.format_exc(limit=-4)])
        found["slowest_s"] = max(found["slowest_s"], time.process_time() - began)
    return found | {"errors": dict(errors), "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def run_apart(case: Case, kind: str, seed: int, first: int, count: int) -> dict[str, Any]:
    """As :func:`run`, in a process of its own with limited memory; its death is a crash, and the rest goes on."""
    at = mmap.mmap(-1, 8)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        status = 1
        try:
            held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            found = run(case, kind, seed, first, count, at)
            with open(writer, "w", encoding="utf-8") as pipe:
                json.dump(found, pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, encoding="utf-8") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if status == 0:
        return json.loads(told)
    (dead,) = struct.unpack("<Q", at[:8])
    crash = {"accepted": 0, "refused": 0, "slowest_s": 0.0, "errors": {}, "peak_mb": 0.0,
             "crashes": [[dead, f"the process ended: {os.waitstatus_to_exitcode(status)}"]]}  # fmt: skip
    before = run_apart(case, kind, seed, first, dead - first) if dead > first else crash | {"crashes": []}
    rest = first + count - dead - 1
    return join([before, crash, *([run_apart(case, kind, seed, dead + 1, rest)] if rest else [])])


def join(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Several runs as one."""
    whole: dict[str, Any] = {key: sum(part[key] for part in parts) for key in ("accepted", "refused")}
    whole |= {key: max(part[key] for part in parts) for key in ("slowest_s", "peak_mb")}
    whole["errors"] = dict(
        sorted(sum((collections.Counter(part["errors"]) for part in parts), collections.Counter()).items())
    )
    return whole | {"crashes": [crash for part in parts for crash in part["crashes"]]}


def markdown(found: dict[str, Any]) -> str:
    """The table for people, as ``fuzz.json`` has it."""
    rows = []
    for kind, part in found["kinds"].items():
        errors = ", ".join(f"{name} {count:,}" for name, count in part["errors"].items())
        rows.append([WHAT[kind], f"{part['inputs']:,}", f"{part['accepted']:,}", errors, f"{len(part['crashes'])}",
                     f"{part['slowest_s']:.2f} s", f"{part['peak_mb']:.0f} MB"])  # fmt: skip
    total = sum(part["inputs"] for part in found["kinds"].values())
    seconds = sum(part["seconds"] for part in found["kinds"].values())
    crashes = sum(len(part["crashes"]) for part in found["kinds"].values())
    told = ", ".join(f"{key} {value}" for key, value in found["machine"].items())
    head = ["mutated", "inputs", "accepted", "refused with our own errors", "crashes", "slowest", "peak memory"]
    return (
        f"# Hostile input\n\n`{found['command']}`: {total:,} inputs, {crashes} crashes, in {seconds} s. "
        f"An input may take {SECONDS:g} s of the processor, a process {MEMORY >> 20} MB beyond its imports. "
        f"Measured on: {told}.\n\n{markdown_table(head, rows, 1)}"
    )


WHAT = {
    "records": "records of a shard",
    "shards": "shards, their framing too",
    "files": "parameter files",
    "values": "parameters, as plain values",
}


def main() -> None:
    """Run every kind, or one, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[*COUNTS, []], help=f"of {', '.join(COUNTS)}; all by default")
    parser.add_argument("--archive", type=Path, help="AudioSet's features.tar.gz, for real records")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(COUNTS), help="one kind, here in this process; nothing is written")
    parser.add_argument("--first", type=int, default=0, help="with --only: number of the first input")
    parser.add_argument("--count", type=int, default=1, help="with --only: how many inputs")
    parser.add_argument("--share", type=float, default=1.0, help="of the 120,000 inputs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        corpus = Corpus(Path(folder), arguments.archive)
        cases: dict[str, Case] = {
            "records": corpus.record, "shards": corpus.shard, "files": corpus.file, "values": corpus.value,
        }  # fmt: skip
        if arguments.only:
            print(json.dumps(run(cases[arguments.only], arguments.only, arguments.seed, arguments.first,
                                 arguments.count), indent=1).replace("\\n", "\n"))  # fmt: skip
            return
        warnings.simplefilter("ignore")  # of a parser that finds an anchor twice
        path = arguments.out / "fuzz.json"
        kinds: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["kinds"] if path.is_file() else {}
        for kind in arguments.kinds or COUNTS:
            began, count = time.perf_counter(), round(COUNTS[kind] * arguments.share)
            parts = [
                run_apart(cases[kind], kind, arguments.seed, first, min(CHUNK, count - first))
                for first in range(0, count, CHUNK)
            ]
            kinds[kind] = {"inputs": count, **join(parts), "seconds": round(time.perf_counter() - began)}
            print(kind, json.dumps({key: value for key, value in kinds[kind].items() if key != "crashes"}), flush=True)
            for number, told in kinds[kind]["crashes"][:20]:
                print(f"{kind} {number}: {told}", flush=True)
    command = "python -m tests.faults.fuzz" + (" --archive features.tar.gz" if arguments.archive else "")
    kinds = {kind: kinds[kind] for kind in COUNTS if kind in kinds}
    found = {"command": command, "seed": arguments.seed,
             "machine": machine(), "kinds": kinds}  # fmt: skip
    arguments.out.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (arguments.out / "fuzz.md").write_text(markdown(found), encoding="utf-8")
    sys.exit(any(part["crashes"] for part in kinds.values()))


def _check(params: Params) -> None:
    """What was accepted is finite, can be written as JSON and is the same again."""
    plain = as_dict(params)
    assert build(Params, json.loads(json.dumps(plain)), "again") == params
    assert all(math.isfinite(number) for number in _numbers(plain))


def _numbers(plain: Any) -> Iterator[float]:
    if isinstance(plain, dict | list):
        for inner in plain.values() if isinstance(plain, dict) else plain:
            yield from _numbers(inner)
    elif isinstance(plain, int | float):
        yield plain


def _groups(text: str) -> Iterator[str]:
    """The top-level groups of a parameter file, each as text."""
    lines: list[str] = []
    for line in text.splitlines():
        if lines and line[:1].isalpha():
            yield "\n".join(lines)
            lines = []
        lines.append(line)
    yield "\n".join(lines)


def _contents(path: Path) -> list[bytes]:
    """The records of a good shard."""
    whole, found, at = path.read_bytes(), [], 0
    while at < len(whole):
        (length,) = struct.unpack_from("<Q", whole, at)
        found.append(whole[at + 12 : at + 12 + length])
        at += length + 16
    return found


def _real(archive: Path, folder: Path) -> Iterator[bytes]:
    """The records of AudioSet's first three shards."""
    with tarfile.open(archive) as tar:
        members = (member for member in tar if member.isfile() and member.name.endswith(".tfrecord"))
        for _ in range(3):
            member = next(members)
            (folder / "real.tfrecord").write_bytes(tar.extractfile(member).read())  # type: ignore[union-attr]
            yield from _contents(folder / "real.tfrecord")


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TookTooLong(f"more than {SECONDS:g} s of the processor, or {WAITING:g} s in all")

    timers = {signal.ITIMER_PROF: (signal.SIGPROF, SECONDS), signal.ITIMER_REAL: (signal.SIGALRM, WAITING)}
    before = {number: signal.signal(number, stop) for number, _ in timers.values()}
    for timer, (_, seconds) in timers.items():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    main()
