"""What cannot be written is named with the remedy, and nothing half-written is left."""

import errno
import os
from pathlib import Path

import pytest

from pipeline.base.atomic import REMEDIES, atomic_file, replace_folder, writing
from pipeline.base.errors import ArtpaperError, OutputError
from pipeline.run.cli import main
from pipeline.train.checkpoints import save_tensors


@pytest.mark.parametrize("number", REMEDIES)
def test_each_reason_has_its_remedy(tmp_path: Path, number: int) -> None:
    with pytest.raises(OutputError) as raised, atomic_file(tmp_path / "new" / "x.json"):
        raise OSError(number, os.strerror(number))
    told = str(raised.value)
    assert told.startswith(f"{tmp_path}/new/x.json: cannot be written ({os.strerror(number)}): ")
    assert told.endswith("then run again: what is finished is kept")
    assert raised.value.errno == number
    assert isinstance(raised.value, ArtpaperError)
    assert isinstance(raised.value, OSError)
    assert not [*(tmp_path / "new").iterdir()]


def test_a_full_device_is_told_as_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no space left on this disk; free some"), writing(tmp_path / "x"):  # noqa: SIM117
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "x"):
        open(tmp_path / "none")  # noqa: SIM115
    with pytest.raises(OSError, match="Input/output") as raised, writing(tmp_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert not isinstance(raised.value, ArtpaperError)


def test_the_innermost_path_is_the_one_that_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=rf"^{tmp_path}/inner: "),
        writing(tmp_path / "outer"),
        writing(tmp_path / "inner"),
    ):
        raise OSError(errno.EROFS, "read-only")


def test_checkpoints_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's error is inside the text of another library's."""
    import torch
    from safetensors import SafetensorError

    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    (tmp_path / "state").write_text("former")
    monkeypatch.setattr("pipeline.train.checkpoints.save_file", full)
    with pytest.raises(OutputError, match=rf"{tmp_path}/state: cannot be written .*no space left on this disk"):
        save_tensors(tmp_path / "state", {"x": torch.ones(1)}, {})
    assert (tmp_path / "state").read_text() == "former"
    assert len([*tmp_path.iterdir()]) == 1

    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)
    (tmp_path / "made").mkdir()
    with pytest.raises(OutputError, match=r"final: cannot be written .*no permission to write there; see `ls -ld`"):
        replace_folder(tmp_path / "made", tmp_path / "final")


def test_the_command_line_says_it_without_a_traceback(tmp_path: Path, monkeypatch, capsys) -> None:
    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path))

    monkeypatch.setattr(Path, "mkdir", read_only)
    assert main(["prepare", "--params", "profiles/small.yaml", "--workspace", str(tmp_path / "w")]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"artpaper: {tmp_path}/w")
    assert "mounted read-only; move the folder to one that can be written" in said
