"""Odd surroundings do not stop a run: temporary folders, encodings, closed pipes; or one line says what to change."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.base import sockets
from pipeline.base.errors import ConfigError
from pipeline.base.sockets import socket_folder
from pipeline.run.cli import main

ROOT = Path(__file__).resolve().parents[1]


def command(does: str, shell: str = '"$@"', **environment: str) -> list[str]:
    """The command line, with a quick step in the place of its first."""
    code = f"import sys; from pipeline.run import cli; cli.clean.callback = lambda **_: {does}; "
    code += "sys.exit(cli.main(['clean']))"
    settings = [f"{name}={value}" for name, value in environment.items()]
    return ["env", f"PYTHONPATH={ROOT}", *settings, "sh", "-c", shell, "sh", sys.executable, "-c", code]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_name_that_the_output_cannot_show_is_escaped(encoding: str) -> None:
    """It was a UnicodeEncodeError after the work was done."""
    done = subprocess.run(command(r"print('\u97f3\u697d')", PYTHONIOENCODING=encoding), capture_output=True)
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"\\u97f3\\u697d\n")


def test_a_locale_without_a_name_is_told_with_the_remedy() -> None:
    locale = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command(r"open('\u97f3\u697d')", **locale), capture_output=True, encoding="utf-8")
    assert done.returncode == 1
    assert done.stderr == (
        "artpaper: the ascii of this system's locale has no '\\u97f3\\u697d'; run it with PYTHONUTF8=1\n"
    )


@pytest.mark.parametrize(
    ("shell", "told"),
    [
        ('"$@" >&-', ""),
        ('"$@" 2>&-', ""),
        ('"$@" > /dev/full', "No space left on device"),
        ('"$@" | :', "what reads the output has closed it; the same command goes on from here"),
    ],
)  # fmt: skip
def test_streams_that_are_closed_or_full_are_told_in_one_line(shell: str, told: str) -> None:
    """Told as "None: Broken pipe", and again by Python at its end."""
    writes = "[print('x' * 999) for _ in range(999)] and print('x', file=sys.stderr)"
    done = subprocess.run(command(writes, shell), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, encoding="utf-8")
    assert done.stderr.removeprefix("x\n") == (f"artpaper: {told}\n" if told else "")


def test_sockets_lie_where_their_paths_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long TMPDIR was a traceback of ZMQ; a file system without sockets refuses them like a long path."""
    short = [folder for folder in sockets.SHORT if os.access(folder, os.W_OK)]
    deep, file = tmp_path / ("long" * 30), tmp_path / "file"
    deep.mkdir()
    file.touch()
    for odd in (deep, file, tmp_path / "missing"):
        monkeypatch.setattr("tempfile.tempdir", str(odd))
        assert str(socket_folder("kernel-9")) == short[0]
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    monkeypatch.setattr(sockets, "SHORT", ("/none", "/proc"))
    with pytest.raises(ConfigError, match=r"long: AF_UNIX path too long; nor /none, /proc.*set TMPDIR"):
        socket_folder("kernel-9")


def test_what_is_run_is_read_in_a_named_encoding() -> None:
    """The locale's is another on another machine; of files, ruff's PLW1514 says the same."""
    unnamed = []
    for path in [*(ROOT / "artpaper").rglob("*.py"), *(ROOT / "pipeline").rglob("*.py")]:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            given = {word.arg for word in call.keywords} if isinstance(call, ast.Call) else set()
            if given & {"text", "universal_newlines"} and given & {"cwd", "capture_output", "stdout", "stderr"}:
                unnamed += [f"{path.name}:{call.lineno}"] if "encoding" not in given else []
    assert not unnamed


def test_errors_of_the_system_without_a_file_name(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """They were told as "None: None"."""

    def fail(**_: object) -> None:
        raise OSError("no usable temporary directory")

    monkeypatch.setattr("pipeline.run.cli.clean.callback", fail)
    assert main(["clean"]) == 1
    assert capsys.readouterr().err == "artpaper: no usable temporary directory\n"
