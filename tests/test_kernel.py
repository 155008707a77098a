"""A notebook runs in this interpreter and no other, leaves nothing behind, and when its process dies it is told why."""

import asyncio
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import nbformat
import pytest
from jupyter_core.utils import ensure_event_loop

from pipeline.run.notebooks import NotebookError, run

WORLD = """
import json, os, sys
from IPython import get_ipython
told = {"python": sys.executable, "mark": os.environ.get("MARK"), "started": "STARTED" in globals()}
print(json.dumps(told | {"utf8": sys.flags.utf8_mode}))
"""


def notebook(path: Path, code: str, kernel: str | None = "python3") -> Path:
    spec = {"kernelspec": {"name": kernel, "display_name": "x", "language": "python"}}
    document = nbformat.v4.new_notebook(metadata=spec if kernel else {})
    document.cells = [
        nbformat.v4.new_code_cell("how = 1", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(code),
    ]
    nbformat.write(document, path)
    return path


@pytest.mark.parametrize("kernel", ["python3", None])
def test_it_is_this_interpreter_whatever_jupyter_ipython_and_the_notebook_say(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, kernel: str | None
) -> None:
    """Another Python's results would carry the provenance of this one."""
    launch = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": launch, "env": {"MARK": "other"}, "display_name": "x", "language": "python"}
    other = project / "jupyter" / "kernels" / "python3" / "kernel.json"
    startup = project / "ipython" / "profile_default" / "startup" / "mine.py"
    for path, text in (
        (other, json.dumps(spec)),
        (startup, "STARTED = 1"),
    ):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    deep = project / ("long" * 30)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    monkeypatch.setenv("JUPYTER_PATH", str(project / "jupyter"))
    monkeypatch.setenv("JUPYTER_DEFAULT_PROVISIONER_NAME", "elsewhere")
    monkeypatch.setenv("IPYTHONDIR", str(project / "ipython"))
    monkeypatch.setenv("PYTHONSTARTUP", str(startup))
    monkeypatch.setenv("PYTHONUTF8", "0")
    monkeypatch.setenv("HOME", "/dev/null")
    run(notebook(project / "it.ipynb", WORLD, kernel), project / "reports" / "it.ipynb", {"how": 2})
    assert json.loads(capsys.readouterr().out) == {"python": sys.executable, "mark": None, "started": False, "utf8": 1}


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os; os.kill(os.getpid(), 9)", r"signal 9 \(SIGKILL\): .*more memory.*goes on where it stopped$"),
        ("import ctypes; ctypes.string_at(0)", r"(?s)SIGSEGV\): compiled code crashed.*Current thread.*string_at"),
        ("import os; os.write(2, b'last words'); os._exit(3)", r"(?s)exit status 3;.*Its last words:\n  last words"),
    ],
)  # fmt: skip
def test_a_process_that_dies_says_how_and_what_helps(project: Path, code: str, told: str) -> None:
    """All of these were "killed, often for lack of memory"."""
    with pytest.raises(NotebookError, match=told) as raised:
        run(notebook(project / "it.ipynb", code), project / "reports" / "it.ipynb", {})
    assert str(raised.value).startswith(f"{project}/it.ipynb: its process ")


def test_a_process_that_cannot_start_says_why(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "broken").mkdir()
    (project / "broken" / "ipykernel_launcher.py").write_text("raise SystemExit('no such library here')")
    path = os.pathsep.join([str(project / "broken"), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", path)
    with pytest.raises(NotebookError, match=r"(?s)exit status 1;.*no such library here"):
        run(notebook(project / "it.ipynb", ""), project / "reports" / "it.ipynb", {})


@pytest.mark.parametrize("error", ["", "1/0"])
def test_nothing_is_left_and_nothing_is_said_twice(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, error: str
) -> None:
    """An idle process that is interrupted at its end leaves its tasks, and both sides' event loops tell of theirs."""
    code = "import os, signal\nsignal.signal(signal.SIGINT, lambda *_: open('interrupted', 'w').close())\n"
    code += "os.write(2, b'a word of compiled code\\n');" + error
    monkeypatch.setattr("tempfile.tempdir", str(project))
    loop = ensure_event_loop()
    waiting = loop.create_task(asyncio.sleep(99))
    with pytest.raises(NotebookError, match="division by zero") if error else nullcontext():
        run(notebook(project / "it.ipynb", code), project / "reports" / "it.ipynb", {})
    assert waiting.cancelled()
    assert loop.is_closed()
    assert not (project / "interrupted").exists()
    assert not [*project.glob("artpaper-*")]
    assert capfd.readouterr().err == "a word of compiled code\n"
