"""Stages side by side: which begin when, what is shown, and what a failure leaves; the project is four commands."""

import io
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.base.errors import ArtpaperError
from pipeline.run.repro import Processes, Stages, clock, repro, waiting

# each of the two in the middle waits for the other one to have begun: one after the other they would never end
MEET = "touch {0}.begun; for i in $(seq 300); do [ -e {1}.begun ] && cp a.txt {0}.txt && break; sleep 0.1; done"
STAGES = f"""stages:
  first: {{cmd: cp source.txt a.txt, deps: [source.txt], outs: [a.txt]}}
  left: {{cmd: "{MEET.format("left", "right")}", deps: [a.txt], outs: [left.txt]}}
  right: {{cmd: "{MEET.format("right", "left")}", deps: [a.txt], outs: [right.txt]}}
  last: {{cmd: cat left.txt right.txt > last.txt, deps: [left.txt, right.txt], outs: [last.txt]}}
"""


def dvc(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def shell(tmp_path: Path) -> Path:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n no_scm = true\n analytics = false\n")
    (tmp_path / "dvc.yaml").write_text(STAGES)
    (tmp_path / "source.txt").write_text("one\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "dvc.yaml").write_text("stages: {never: {cmd: touch never.txt, outs: [never.txt]}}")
    return tmp_path


def test_stages_run_side_by_side_and_once(shell: Path) -> None:
    told = io.StringIO()
    ended = repro(shell, 2, console=Console(file=told, soft_wrap=True))
    assert (ended[0], set(ended[1:3]), ended[3:]) == ("first", {"left", "right"}, ["last"])
    assert (shell / "last.txt").read_text() == "one\none\n"
    assert not (shell / "other" / "never.txt").exists()  # of a file of its own, as the stress test
    assert "last took " in told.getvalue()
    assert "4 of 4 stages" in told.getvalue()
    assert dvc(shell, "repro").count("didn't change, skipping") == 4  # DVC finds nothing to do either
    (shell / "right.txt").unlink()
    assert waiting(shell) == {"right": set(), "last": {"right"}}


def test_a_failure_is_told_in_its_own_words_and_ends_what_comes_after(shell: Path) -> None:
    fails = STAGES.replace(MEET.format("left", "right"), "touch left.begun; echo the reason; false")
    (shell / "dvc.yaml").write_text(fails)
    with pytest.raises(ArtpaperError, match=r"(?s)stage left failed \(.*left\.txt\):.*the reason"):
        repro(shell, 2, "last", console=Console(file=io.StringIO()))
    assert (shell / "right.txt").read_text() == "one\n"  # what ran beside it came to its end
    assert not (shell / "last.txt").exists()


def test_a_stage_finds_the_command_without_an_active_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with closing(Processes(tmp_path)) as processes:
        assert processes.run("where", "sh", "-c", "echo $PATH") == 0
        assert processes.log("where").read_text() == f"{Path(sys.executable).parent}:/usr/bin:/bin\n"


def test_the_longest_chain_begins_first_and_the_time_left_follows_the_work() -> None:
    waits = {name: set[str]() for name in ("tables", "train@art-0", "train@a_art-0")}
    stages = Stages(waits | {"deepfool@a_art-0": {"train@a_art-0"}, "robustness": {"deepfool@a_art-0"}})
    assert stages.ready() == ["train@a_art-0", "train@art-0", "tables"]
    assert str(stages) == "0 of 5 stages in 0:00"
    stages.done |= {"train@art-0", "train@a_art-0"}  # 440 of 486 seconds' work
    stages.start -= 440
    assert str(stages) == "2 of 5 stages in 7:20, about 0:46 left"
    assert [clock(seconds) for seconds in (0.4, 61, 3600)] == ["0:00", "1:01", "1:00:00"]
