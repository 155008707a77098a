"""What a stage read, kept in the notebook it executed: does the notebook belong to the results at hand?

DVC takes results from its cache when parameters are set back, but the executed notebooks in ``reports/`` are none of
its outputs and stay those of the last run. So each keeps the parameters that it ran with, and DVC's own hashes of the
code and data that its stage depends on. ``dvc.lock`` says the same of the results.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEY = "artpaper"  # in a notebook's metadata
PARAMS = "params.yaml"
STAGE = "DVC_STAGE"  # variable in which DVC tells a command which stage it is


def inputs(folder: Path, params: str = PARAMS) -> dict[str, Any]:
    """All that the stage which DVC is running reads.

    Args:
        folder: the project's folder.
        params: the parameter file, relative to it.
    Returns:
        ``params``: the parameters, as the file has them; ``dependencies``: path -> hash of each file and folder that
        the stage depends on, as ``dvc.lock`` will have it; absent for a notebook that is not run by DVC.
    """
    found = {"params": _load(folder / params)}
    stage = os.environ.get(STAGE)
    return found | {"dependencies": _hashes(folder, stage)} if stage else found


def _hashes(folder: Path, stage: str) -> dict[str, str]:
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        path, _, name = stage.rpartition(":")  # a stage of another dvc.yaml is named with its file
        running = repo.stage.load_one(path or None, name)
        running.save_deps()  # hashes of what has not changed since DVC last looked come from its own index
        return {dep.def_path: dep.hash_info.value for dep in running.deps if dep.hash_info.name == "md5"}


class Lineage:
    """What the results of a project were made from, by ``dvc.lock``, to compare executed notebooks with.

    Args:
        folder: the project's folder, with ``dvc.lock``.
    """

    def __init__(self, folder: Path) -> None:
        self._stages = _load(folder / "dvc.lock").get("stages", {})

    def changed_since(self, then: Mapping[str, Any] | None, stage: str) -> tuple[str, ...] | None:
        """The inputs of a stage that were something else for its executed notebook than for its results.

        Args:
            then: what :func:`inputs` gave at that time, out of the notebook's metadata; None if it has none.
            stage: as ``dvc.lock`` names it.
        Returns:
            Parameters (dotted) and dependencies, sorted; None if the notebook or ``dvc.lock`` does not say.
        """
        entry = self._stages.get(stage)
        if not then or "dependencies" not in then or not entry:
            return None
        groups = entry.get("params", {}).get(PARAMS, {})
        read, old = flat(groups), flat(then["params"])
        names = {name for group in groups for name in old.keys() | read.keys() if f"{name}.".startswith(f"{group}.")}
        found = {name for name in names if old.get(name) != read.get(name)}
        kept = then["dependencies"]
        return tuple(sorted(found | {d["path"] for d in entry.get("deps", []) if kept.get(d["path"]) != d.get("md5")}))


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested groups as one: dotted name -> value."""
    if not isinstance(values, Mapping):
        return {prefix.removesuffix("."): values}
    return {name: value for key in values for name, value in flat(values[key], f"{prefix}{key}.").items()}


def _load(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(path) if path.is_file() else {}
