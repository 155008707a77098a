"""A plugin of pytest that checks shapes, and that tests have called every public function with shapes in its signature.

    python -m pytest -p tests.shapes --jaxtyping-packages=artpaper,pipeline,tests.shapes.checked FILES

jaxtyping gives every function of the packages to :func:`checked`, which leaves alone those without shapes: beartype on
all of them takes twice as long, and tells what mypy does.
"""

import ast
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from beartype import beartype

from tests.test_imports import modules

SHAPED = re.compile(r"\b(Float|U?Int|Integer|Bool|Num|Shaped|Inexact)\d*\[")  # jaxtyping's
# the library's own names for some of them, read and not imported: the plugin must be there first
LINES = modules()["artpaper.shapes"].read_text(encoding="utf-8").splitlines()
NAMED = [line.split()[0] for line in LINES if SHAPED.search(line)]
SHAPED = re.compile(rf"{SHAPED.pattern}|\b({'|'.join(NAMED)})\b")
CALLED: set[str] = set()


def checked(function: Callable) -> Callable:
    """The function with its types checked, if shapes are among them; calls are noted."""
    notes = getattr(function, "__annotations__", {})
    if isinstance(function, type) or not any("jaxtyping" in repr(note) for note in notes.values()):
        return function
    typed = beartype(function)
    name = f"{function.__module__}.{function.__qualname__}"

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        CALLED.add(name)
        return typed(*args, **kwargs)

    return call


def public() -> Iterator[str]:
    """Every public function and method with shapes in its signature."""
    for module, path in modules().items():
        yield from with_shapes(ast.parse(path.read_text(encoding="utf-8")), module)


def with_shapes(node: ast.Module | ast.ClassDef, place: str) -> Iterator[str]:
    for inner in node.body:
        name = f"{place}.{getattr(inner, 'name', '_')}"
        if name.rpartition(".")[2].startswith("_"):
            continue
        if isinstance(inner, ast.ClassDef):
            yield from with_shapes(inner, name)
        elif isinstance(inner, ast.FunctionDef) and SHAPED.search(signature(inner)):
            yield name


def signature(function: ast.FunctionDef) -> str:
    return ast.unparse(function.args) + ast.unparse(function.returns or ast.Constant(None))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker sends what it has called; the process that gathers it all tells what nobody has."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["called"] = sorted(CALLED)
    elif missing := sorted(set(public()) - CALLED):
        print(f"\nno test called, so their shapes were not checked: {', '.join(missing)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_testnodedown(node: Any) -> None:
    CALLED.update(node.workeroutput.get("called", ()))
