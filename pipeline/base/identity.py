"""Short names for what a result is made from, parameters and code: unfinished work goes on only under the same."""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("artpaper", "pipeline")


def fingerprint(values: Any) -> str:
    """12 hex digits of a hash of ``values`` as JSON."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=6).hexdigest()


def resume_key(module: str, *made_from: Any) -> str:
    """The short name of work that is kept, to go on with or to use again: what it is made from, and by which code.

    ``made_from`` is JSON-ready; the code is that of ``module`` and of all that it imports of the project.
    """
    return fingerprint([*made_from, code(module)])


@cache
def code(*modules: str) -> str:
    """12 hex digits of a hash of the source of modules and all they import of the project; by default all of it."""
    digest = hashlib.blake2b(digest_size=6)
    paths = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    for path in sorted(imported(*modules) if modules else paths):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def imported(*modules: str) -> frozenset[Path]:
    """The source files of modules of the project and of all modules of the project that they import, and so on."""
    seen: set[Path] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        # `import a.b.c` runs a and a.b too; a name that is imported from a module may be a module itself, or not
        stem = ROOT.joinpath(*name.split("."))
        path = next((path for path in (stem / "__init__.py", stem.with_suffix(".py")) if path.is_file()), None)
        if path is None or path in seen:
            continue
        seen.add(path)
        if "." in name:
            waiting.append(name.rpartition(".")[0])
        waiting += _names(path)
    return frozenset(seen)


@cache
def _names(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name for name in names if name.split(".")[0] in PACKAGES]


def content(path: Path, method: str = "blake2b") -> str:
    """A hash of a file's bytes, in hex digits, by any method of ``hashlib``."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, method).hexdigest()
