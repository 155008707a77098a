"""What a stage read, kept in the notebook it executed: does the notebook belong to the results at hand?

DVC takes results from its cache when parameters are set back, but the executed notebooks in ``reports/`` are none of
its outputs and stay those of the last run. So each keeps the parameters, and the hashes of code and data, that it ran
with.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEY = "artpaper"  # in a notebook's metadata
PARAMS = "params.yaml"


def inputs(folder: Path, params: str = PARAMS) -> dict[str, Any]:
    """All that a stage may read, by name.

    Args:
        folder: the project's folder.
        params: the parameter file, relative to it.
    Returns:
        ``params``: the parameters, as the file has them; ``md5``: path -> MD5 of every module and clean notebook, and,
        from ``dvc.lock``, of every output of a stage.
    """
    stages = _load(folder / "dvc.lock").get("stages", {})
    md5 = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", []) if "md5" in out}
    for path in sorted([*folder.glob("artpaper/**/*.py"), *folder.glob(".clean/*.ipynb")]):
        md5[path.relative_to(folder).as_posix()] = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    return {"params": _load(folder / params), "md5": md5}


class Lineage:
    """What the results of a project were made from, by ``dvc.lock``, to compare executed notebooks with.

    A folder of modules is compared as it lies on disk.

    Args:
        folder: the project's folder, with ``dvc.lock``.
    """

    def __init__(self, folder: Path) -> None:
        self._md5 = inputs(folder)["md5"]
        self._stages = _load(folder / "dvc.lock").get("stages", {})

    def changed_since(self, then: Mapping[str, Any] | None, stage: str) -> tuple[str, ...] | None:
        """The inputs of a stage that were something else for its executed notebook than for its results.

        Args:
            then: what :func:`inputs` gave at that time, out of the notebook's metadata; None if it has none.
            stage: as ``dvc.lock`` names it.
        Returns:
            Parameters (dotted) and paths, sorted; None if the notebook or ``dvc.lock`` does not say.
        """
        entry = self._stages.get(stage)
        if not then or not entry:
            return None
        read = _flat(entry.get("params", {}).get(PARAMS, {}))
        old = _flat(then["params"])
        groups = entry.get("params", {}).get(PARAMS, {})
        names = {name for group in groups for name in _about(group, old.keys() | read.keys(), ".")}
        found = {name for name in names if old.get(name) != read.get(name)}
        md5 = self._md5 | {dep["path"]: dep["md5"] for dep in entry.get("deps", []) if "md5" in dep}
        for dep in entry.get("deps", []):
            names = _about(dep["path"], then["md5"].keys() | self._md5.keys(), "/")
            found |= {name for name in names if then["md5"].get(name) != md5.get(name)}
        return tuple(sorted(found))


def _about(name: str, keys: set[str], separator: str) -> set[str]:
    """The keys that are ``name`` or below it; where there are none, those that it is below."""
    below = {key for key in keys if key == name or key.startswith(name + separator)}
    return below or {key for key in keys if name.startswith(key + separator)}


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, Mapping):
        return {prefix.removesuffix("."): values}
    return {name: value for key in values for name, value in _flat(values[key], f"{prefix}{key}.").items()}


def _load(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(path) if path.is_file() else {}
