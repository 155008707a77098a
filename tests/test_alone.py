"""Two runs at once: the second is told who is at work; a killed holder holds nothing; others are not in the way."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.base.alone import alone
from pipeline.base.errors import BusyError, OutputError
from tests.pipeline import ROOT

HOLDER = (
    "import sys, time; from pathlib import Path; from pipeline.base.alone import alone\n"
    "with alone(Path(sys.argv[1]), *sys.argv[2:]):\n"
    "    print('held', flush=True); time.sleep(60)\n"
)


def holder(folder: Path, *names: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *names], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_told_and_a_killed_run_holds_nothing(tmp_path: Path) -> None:
    other = holder(tmp_path / ".resume", "train-art", "train-to-x")
    try:
        for name in ("train-art", "train-to-x"):
            told = rf"{tmp_path}/\.resume: another run is at work on {name} here "
            told += rf"\(process {other.pid} on .*, since 20..-"
            with pytest.raises(BusyError, match=told), alone(tmp_path / ".resume", name, "another"):
                pytest.fail("two at once")
        with alone(tmp_path / ".resume", "train-a_art"):  # another training is free to run
            pass
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    with alone(tmp_path / ".resume", "train-art", "train-to-x"):
        assert f"process {os.getpid()} " in (tmp_path / ".resume" / "train-art.lock").read_text()
        assert str(other.pid) not in (tmp_path / ".resume" / "train-art.lock").read_text().split()
    assert not [*(tmp_path / ".resume").iterdir()]


def test_a_lock_is_not_held_by_two_that_opened_it_before_it_went(tmp_path: Path, monkeypatch) -> None:
    """One run ends, and removes its lock, between another's opening and locking the file."""
    import fcntl

    from pipeline.base import alone as module

    (tmp_path / "x.lock").touch()
    real, removed = fcntl.flock, []

    def late(file, how):
        if not removed:
            removed.append((tmp_path / "x.lock").unlink())
        real(file, how)

    monkeypatch.setattr(module.fcntl, "flock", late)
    with alone(tmp_path, "x"):
        monkeypatch.undo()
        with pytest.raises(BusyError), alone(tmp_path, "x"):
            pytest.fail("two at once")


def test_an_error_in_between_gives_back_what_was_held(tmp_path: Path) -> None:
    with pytest.raises(KeyError), alone(tmp_path, "a", "b"):
        raise KeyError
    with alone(tmp_path, "a", "b"):
        pass


def test_without_locks_on_the_file_system_work_goes_on(tmp_path: Path, monkeypatch) -> None:
    from pipeline.base import alone as module

    def refused(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(module.fcntl, "flock", refused)
    with alone(tmp_path, "a"):
        assert (tmp_path / "a.lock").exists()


def test_a_full_disk_is_told_and_leaves_no_lock(tmp_path: Path, monkeypatch) -> None:
    from pipeline.base import alone as module

    monkeypatch.setattr(module.platform, "node", lambda: (_ for _ in ()).throw(OSError(28, os.strerror(28))))
    with pytest.raises(OutputError, match=r"a\.lock: cannot be written .*no space left"), alone(tmp_path, "a"):
        pytest.fail("went on")
    assert not [*tmp_path.iterdir()]
