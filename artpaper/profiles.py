"""Ready-made parameter files, and how one becomes ``params.yaml``."""

import io
from collections.abc import Mapping
from pathlib import Path

from artpaper.atomic import atomic_file
from artpaper.config import Params, build
from artpaper.errors import ConfigError
from artpaper.notebooks import project_root


def use(profile: str, changes: Mapping[str, str]) -> str:
    """Write ``params.yaml`` from a profile, comments kept, some keys changed; refused as a whole if one does not fit.

    Args:
        profile: a name in ``profiles/``, or the path of a parameter file.
        changes: dotted keys and their values as YAML, such as ``{"train.max_steps": "100"}``.
    Returns:
        A description for people: the profile and the changes.
    Raises:
        ConfigError: no such profile, an unknown key, or a value that does not fit.
    """
    from ruamel.yaml import YAML

    root = project_root()
    path = root / "profiles" / f"{profile}.yaml"
    if not path.is_file():
        path = Path(profile)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in (root / "profiles").glob("*.yaml")))
        raise ConfigError(f"no profile {profile!r}; there are {known}, or give the path of a parameter file")
    yaml = YAML()
    yaml.width = 120
    values = yaml.load(path.read_text(encoding="utf-8"))
    for key, text in changes.items():
        *groups, last = key.split(".")
        place = values
        for group in groups:
            place = place.get(group) if isinstance(place, dict) else None
        if not isinstance(place, dict) or last not in place:
            raise ConfigError(f"unknown parameter {key}; {path} names every one there is")
        place[last] = YAML(typ="safe", pure=True).load(text)
    written = io.StringIO()
    yaml.dump(values, written)
    build(Params, YAML(typ="safe", pure=True).load(written.getvalue()), str(path))
    with atomic_file(root / "params.yaml") as temporary:
        temporary.write_text(written.getvalue(), encoding="utf-8")
    return ", ".join([path.stem, *(f"{key}={value}" for key, value in changes.items())])
