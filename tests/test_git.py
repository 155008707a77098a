"""The project in a clone, an archive, inside another repository: DVC runs, and no other project's commit is claimed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.base.git import NO_COMMIT, revision, tell_dvc
from tests.pipeline import BIN, call, commit, copy_project


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with code and a commit."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    for name in ("artpaper/losses.py", "dvc.yaml"):
        (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clone" / name).write_text(name)
    commit(tmp_path / "clone", "start")
    return tmp_path / "clone"


def head(folder: Path) -> str:
    return subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=folder, text=True).strip()


def test_a_commit_and_what_is_not_as_committed(clone: Path) -> None:
    assert revision(clone) == (head(clone), [])
    (clone / "artpaper" / "losses.py").write_text("changed")
    (clone / "artpaper" / "new.py").touch()
    (clone / "params.yaml").touch()  # no code
    assert revision(clone) == (head(clone), ["artpaper/losses.py", "artpaper/new.py"])


def test_the_commit_of_a_repository_around_an_archive_is_not_taken_for_its_own(clone: Path) -> None:
    (clone / "archive" / "artpaper").mkdir(parents=True)
    assert revision(clone / "archive") == (NO_COMMIT, [])
    commit(clone, "the archive with it")
    assert revision(clone / "archive") == (NO_COMMIT, [])


@pytest.mark.parametrize("kind", ["worktree", "shallow", "owned by another", "variables of a hook"])
def test_unusual_repositories_have_their_commit(clone: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worktree's ``.git`` is a file; git refuses a repository of another owner; a hook's variables name another."""
    folder = clone.parent / "unusual"
    if kind == "worktree":
        call(clone, "git", "worktree", "add", "-q", str(folder))
    else:
        call(clone, "git", "clone", "-q", *(["--depth=1"] * (kind == "shallow")), f"file://{clone}", str(folder))
    expected = head(folder)
    commit(clone, "only there")
    if kind == "owned by another":
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
        assert subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True).returncode
    elif kind == "variables of a hook":
        monkeypatch.setenv("GIT_DIR", str(clone / ".git"))
    (folder / "artpaper" / "losses.py").write_text("changed")
    assert revision(folder) == (expected, ["artpaper/losses.py"])


@pytest.mark.parametrize("kind", ["git is not installed", "nothing committed yet", "no repository in .git"])
def test_where_git_names_none_there_is_no_commit(clone: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = clone
    if kind == "git is not installed":
        monkeypatch.setenv("PATH", "")
    else:
        folder = clone / "inside"
        (folder / ".git").mkdir(parents=True)
        if kind == "nothing committed yet":
            call(folder, "git", "init", "-q")
    assert revision(folder) == (NO_COMMIT, [])


@pytest.mark.timeout(120)
def test_an_archive_inside_another_repository_runs(tmp_path: Path) -> None:
    """One that ignores it, as one ignores downloads: DVC would stop at files that Git ignores, or take its commit."""
    (tmp_path / ".gitignore").write_text("/archive/\n")
    commit(tmp_path, "something else")
    archive = copy_project(tmp_path / "archive")
    (archive / ".venv").symlink_to(BIN.parent)
    local = archive / ".dvc" / "config.local"
    call(archive, "make", "-o", ".venv/.ready", "setup")
    assert "Running stage 'notebooks'" in call(archive, "dvc", "repro", "notebooks")
    assert (archive / ".clean" / "train.ipynb").is_file()
    assert revision(archive) == (NO_COMMIT, [])

    call(archive, "git", "init", "-q")  # later put under Git after all
    call(archive, "make", "-o", ".venv/.ready", "setup")
    assert "no_scm" not in local.read_text()


def test_what_a_user_told_dvc_is_left_alone(tmp_path: Path) -> None:
    """The project inside a larger repository, on purpose; a folder that has no DVC."""
    tell_dvc(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / ".dvc").mkdir()
    said = "[core]\n    no_scm = false  # part of a larger repository\n"
    (tmp_path / ".dvc" / "config.local").write_text(said)
    tell_dvc(tmp_path)
    assert (tmp_path / ".dvc" / "config.local").read_text() == said
