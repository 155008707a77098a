"""A plugin of pytest with which nbval compares the notebooks that a run has executed, instead of executing them again.

    python -m pytest -p tests.replay --executed small/run/reports --nbval-lax notebooks

nbval collects the cells, asks a kernel for what each of them puts out, and compares. Here, the kernel of a notebook of
which there is an executed copy answers with the outputs kept in that copy; any other notebook gets a kernel as usual.
"""

import ast
from pathlib import Path
from typing import Any

import nbformat
import nbval.plugin
import pytest

MESSAGES = {"display_data", "execute_result", "stream", "error"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--executed", type=Path, required=True, help="folder of notebooks that papermill executed")


def pytest_configure(config: pytest.Config) -> None:
    with_kernel = nbval.plugin.IPyNbFile.setup

    def setup(notebook: nbval.plugin.IPyNbFile) -> None:
        copy = executed(notebook.path, config.option.executed)
        if copy is None:
            with_kernel(notebook)
        else:
            notebook.kernel = Recording(copy)
            notebook.setup_sanitize_files()

    nbval.plugin.IPyNbFile.setup = setup


def executed(notebook: Path, folder: Path) -> Any:
    """The copy of a notebook that was run with its own model and seed: ``tables.ipynb``, or one in ``train/``."""
    own = nbformat.read(notebook, as_version=4)
    choices = {name: value for name, value in parameters(own).items() if name in ("model", "seed")}
    for path in [folder / notebook.name, *sorted((folder / notebook.stem).glob("*.ipynb"))]:
        if path.is_file():
            copy = nbformat.read(path, as_version=4)
            given = copy.metadata.papermill.parameters
            if all(given[name] == value for name, value in choices.items()):
                return copy
    return None


def parameters(notebook: Any) -> dict[str, Any]:
    """What a notebook's cell of parameters sets."""
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    return {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(cell.source).body}


class Recording:
    """What nbval asks of a kernel, answered from an executed notebook."""

    def __init__(self, notebook: Any) -> None:
        self.cells = [
            cell for cell in notebook.cells
            if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", [])
        ]  # fmt: skip
        self.messages: list[dict[str, Any]] = []

    def execute_cell_input(self, source: str, allow_stdin: bool | None = None) -> str:
        """Line up the messages of the next cell, which must be this one."""
        cell = self.cells.pop(0)
        if cell.source != source:
            raise RuntimeError("the executed copy is of another notebook than this; make it again")
        assert {output.output_type for output in cell.outputs} <= MESSAGES
        self.messages = [message(output.output_type, output) for output in cell.outputs]
        self.messages.append(message("status", {"execution_state": "idle"}))
        return "it"

    def get_message(self, stream: str, timeout: float | None = None) -> dict[str, Any]:
        return self.messages.pop(0)

    def await_reply(self, msg_id: str, timeout: float | None = None) -> None:
        """It has been executed already."""

    def await_idle(self, parent_id: str, timeout: float) -> None:
        self.messages.clear()

    def is_alive(self) -> bool:
        return True

    def stop(self) -> None:
        """Nothing runs."""


def message(kind: str, content: Any) -> dict[str, Any]:
    return {"msg_type": kind, "content": content, "parent_header": {"msg_id": "it"}}
