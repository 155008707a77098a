"""A plugin of pytest that checks shapes, and that tests have called every public function with shapes in its signature.

    python -m pytest -p tests.shapes --jaxtyping-packages=artpaper,pipeline,tests.shapes.checked FILES

jaxtyping gives every function of the packages to :func:`checked`, which leaves alone those without shapes: beartype on
all of them takes twice as long, and tells what mypy does.
"""

import functools
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
from beartype import beartype

from tests.test_imports import modules

CALLED: set[str] = set()


def checked(function: Callable) -> Callable:
    """The function with its types checked, if shapes are among them; calls are noted."""
    if isinstance(function, type) or not has_shapes(function):
        return function
    typed = beartype(function)
    name = f"{function.__module__}.{function.__qualname__}"

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        CALLED.add(name)
        return typed(*args, **kwargs)

    return call


def has_shapes(function: Callable) -> bool:
    return any("jaxtyping" in repr(note) for note in getattr(function, "__annotations__", {}).values())


def public() -> Iterator[str]:
    """Every public function and method with shapes in its signature."""
    for module in modules():
        yield from with_shapes(import_module(module), module)


def with_shapes(place: Any, module: str) -> Iterator[str]:
    for name, value in list(vars(place).items()):
        if name.startswith("_") or getattr(value, "__module__", None) != module:
            continue
        if isinstance(value, type):
            yield from with_shapes(value, module)
        elif callable(value) and has_shapes(value):
            yield f"{module}.{value.__qualname__}"


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
