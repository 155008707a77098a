"""Imports go one way: a folder imports what stands before it in this list, and nothing after it, functions included."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ORDER = (
    *("artpaper", "pipeline.base", "pipeline.scale", "pipeline.data", "pipeline.records", "pipeline.arrays"),
    *("pipeline.synthetic", "pipeline.prepare", "pipeline.train", "pipeline.predict", "pipeline.paper"),
    *("pipeline.stress.attacks", "pipeline.stress.verdict", "pipeline.trial", "pipeline.run", "pipeline.report"),
    "pipeline.explorer",
    "pipeline.run.cli",
)


def room(module: str) -> str | None:
    """The entry of the order that a module belongs to; None for one of another package, and for what holds rooms."""
    return max((entry for entry in ORDER if f"{module}.".startswith(f"{entry}.")), key=len, default=None)


def modules() -> dict[str, Path]:
    files = [*(ROOT / "artpaper").rglob("*.py"), *(ROOT / "pipeline").rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imported(text: str, package: str) -> Iterator[str]:
    """Every module that a text imports, inside functions and as a string too; ``package`` resolves relative ones."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: 1 - node.level or None] if node.level else []
            source = ".".join([*parents, *filter(None, [node.module])])
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):  # importlib.import_module, __import__
            yield from (one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str))


def upward(name: str, text: str, package: str) -> list[str]:
    here = room(name)
    there = {target: room(target) for target in imported(text, package)}
    return [
        f"{name} imports {target}" for target, entry in there.items()
        if entry and (here is None or ORDER.index(entry) > ORDER.index(here))
    ]  # fmt: skip


def test_nothing_imports_upwards() -> None:
    wrong = []
    for name, path in modules().items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        wrong += upward(name, path.read_text(encoding="utf-8"), package)
    assert not wrong


def test_every_module_has_a_room() -> None:
    """Packages that hold rooms are empty but for their docstring."""
    outside = {name: path.read_text(encoding="utf-8") for name, path in modules().items() if room(name) is None}
    assert outside.keys() <= {"pipeline", "pipeline.stress"}
    assert not [name for name, text in outside.items() if len(ast.parse(text).body) > 1]


def test_the_test_sees_what_it_forbids() -> None:
    assert upward("artpaper.models", "def f():\n    from pipeline.base import errors", "artpaper")
    assert upward("pipeline.data.store", "import pipeline.train.training", "pipeline.data")
    assert upward("pipeline.data.store", "from ..train import training", "pipeline.data")
    assert upward("pipeline.data.store", "importlib.import_module('pipeline.train')", "pipeline.data")
    assert upward("pipeline.stress.attacks.plan", "from pipeline.stress import verdict", "pipeline.stress.attacks")
    downward = "from pipeline.data import store\nfrom . import history"
    assert not upward("pipeline.train.training", downward, "pipeline.train")
