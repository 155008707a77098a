"""The parameter file that is in use: which profile it is, and which data it is about."""

import os
from pathlib import Path

from pipeline.base.errors import ConfigError
from pipeline.base.parameters import Params, as_dict, flat, load_params
from pipeline.base.project import project_root
from pipeline.base.sources import SOURCES
from pipeline.scale.workers import threads_each

SHOWN = 3  # changes that are named one by one


def opened(path: Path) -> Params:
    """Read a parameter file for what runs by it, and say what is in it, so that nobody waits for another run.

    A stage gets its share of the cores, whether others run beside it or not: results may depend on it by rounding.
    PyTorch reads it when it is loaded, in the kernels and workers too that inherit it.
    """
    params = load_params(path)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads_each(params.compute.workers)))
    place = f"at {params.data.path}" if params.data.path else "built in"
    print(f"{path.name} is {_profile(path, params)}: {SOURCES[params.data.source].name}, {place}", flush=True)
    return params


def still(path: Path) -> str:
    """The end of a refusal to write ``path``: what stands there; empty if there is none, or a broken one."""
    try:
        return f"; {path.name} is still {_profile(path, load_params(path))}"
    except ConfigError:
        return ""


def _profile(path: Path, params: Params) -> str:
    """The profile, known by the first line that `artpaper use` keeps, and what differs but where the data lie."""
    try:
        folder = project_root(path.resolve().parent) / "profiles"
        named = [profile for profile in folder.glob("*.yaml") if _first_line(profile) == _first_line(path)]
        theirs, ours = (flat(as_dict(values)) for values in (load_params(named[0]), params))
    except (ConfigError, OSError, UnicodeDecodeError, IndexError):
        return "of no profile"
    for place in ("data.path", "data.vocabulary"):
        del theirs[place], ours[place]
    changes = [f"{key}={ours.get(key)}" for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
    changes = changes if len(changes) <= SHOWN else [f"{len(changes)} values changed"]
    return ", ".join([named[0].stem, *changes])


def _first_line(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0]
