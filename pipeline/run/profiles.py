"""Profiles, which say only what they change of the default, and how one becomes a whole ``params.yaml``."""

import copy
import dataclasses
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.arrays.labels import read_classes
from pipeline.base.atomic import atomic_file
from pipeline.base.errors import ConfigError
from pipeline.base.explain import nearest
from pipeline.base.parameters import Params, as_dict, build, flat, parse, read_values
from pipeline.base.project import project_root
from pipeline.base.sources import SOURCES
from pipeline.data.video import look_at
from pipeline.paper.paper import MODELS, check_columns, table_groups


def whole(path: Path) -> str:
    """The text of a profile with every parameter and comment, its own in place of the default's."""
    return _text(read_values(path, _commented()))


def use(
    profile: str, changes: Mapping[str, str], data: Path | None = None, vocabulary: Path | None = None,
    retrain: bool = False,
) -> str:  # fmt: skip
    """Write ``params.yaml`` from a profile, comments kept, some keys changed; refused as a whole if one does not fit.

    ``profile`` is a name in ``profiles/`` or the path of a parameter file, ``changes`` dotted keys and their values as
    YAML, ``data`` and ``vocabulary`` where these lie; ``retrain`` adds models that are trained on the videos of Table
    2's and Table 3's vertical alone. Returns the profile and the changes in words.
    """
    root = project_root()
    path = root / "profiles" / f"{profile}.yaml"
    if not path.is_file():
        path = Path(os.path.expanduser(profile))
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in (root / "profiles").glob("*.yaml")))
        raise ConfigError(f"no profile {profile!r}; there are {known}, or give the path of a parameter file")
    read_values(path)  # says what is wrong with it
    values = read_values(path, _commented())
    places = {
        f"data.{name}": _place(place, root) for name, place in (("path", data), ("vocabulary", vocabulary)) if place
    }
    changes = {**changes, **places}
    for key, value in changes.items():
        _set(values, key, value if key in places else parse(value, f"--set {key}"))
    _take_controls(values)
    if retrain:
        _add_retrained(values, root)
    text = _text(values)
    plain = parse(text, str(path))
    params = build(Params, plain, str(path))
    missing = sorted(flat(as_dict(params)).keys() - flat(plain).keys())
    if missing:
        raise ConfigError(
            f"{path}: not every parameter is named; add `like: default`, in profiles/, or {', '.join(missing)}"
        )
    check_stages(params)
    _look_at_data(params, profile, root)
    with atomic_file(root / "params.yaml") as temporary:
        temporary.write_text(text, encoding="utf-8")
    words = [path.stem, *(f"{key}={value}" for key, value in changes.items())]
    return ", ".join([*words, "models of each vertical"] if retrain else words)


def check_stages(params: Params) -> None:
    """Refuse at once, for what the parameters say, what a stage of dvc.yaml would stop at hours later."""
    if "non_art" not in params.experiment.models:
        raise ConfigError("experiment.models: stage epsilon measures non_art, which is not among them; add it")
    params.check_swept()
    verticals = {name: params.models[name].vertical for name in params.experiment.models}
    # one's own arrays say themselves which groups they have
    check_columns(verticals, SOURCES[params.data.source].groups or {*verticals.values()})


def _look_at_data(params: Params, profile: str, root: Path) -> None:
    """Refuse at once that there is no ``data.path`` where the source needs one, or nothing there that it can read."""
    data, source = params.data, SOURCES[params.data.source]
    if source.path and not data.path:
        fetch = f", after `artpaper download {data.source}{' --shard 1,100' * source.in_parts}`" * bool(source.download)
        raise ConfigError(
            f"{profile} reads {source.name}; say where: artpaper use {profile} --path {source.path}{fetch}"
        )
    if "://" in (data.path or "") and data.reader == "tensorflow":
        return  # over a network, which is the stage's to wait for

    def here(path: str | None) -> str | None:
        return str(root / path) if path and "://" not in path else path

    data = dataclasses.replace(data, path=here(data.path), vocabulary=here(data.vocabulary))
    look_at(dataclasses.replace(params, data=data))


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    place: Any = values
    for group in groups:
        if isinstance(place, dict) and group in place:  # copied, for an anchor's values stand in several places
            place[group] = copy.deepcopy(place[group])
        place = place.get(group) if isinstance(place, dict) else None
    if not isinstance(place, dict) or last not in place:
        raise ConfigError(f"unknown parameter {key}{nearest(key, sorted(flat(values)))}")
    place[last] = value


def _take_controls(values: dict[str, Any]) -> None:
    """Controls that ``experiment.models`` names become models, so that every table and figure has them."""
    names = flat(values).get("experiment.models")
    models, controls = values.get("models"), values.get("controls")
    if not (isinstance(names, list) and isinstance(models, dict) and isinstance(controls, dict)):
        return  # what is wrong is said where all is checked
    for name in names:
        control = controls.get(name) if isinstance(name, str) and name not in models else None
        if not isinstance(control, dict) or control.get("like") not in models:
            continue
        changes = dict(controls.pop(name))
        model = copy.deepcopy(models[changes.pop("like")])
        own = sorted(changes.keys() - model.keys())
        if own:
            raise ConfigError(
                f"experiment.models: control {name} sets {', '.join(own)}, which the stress test alone has"
            )
        models[name] = model
        model.update(changes)


def _commented() -> Any:
    """Reads and writes YAML with its comments."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return yaml


def _text(values: dict[str, Any]) -> str:
    stream = io.StringIO()
    _commented().dump(values, stream)
    return stream.getvalue()


def _add_retrained(values: dict[str, Any], root: Path) -> None:
    """For each of the paper's models two of the same loss, each for one vertical: ``art_finance`` and so on."""
    data = values["data"]
    if data["source"] not in SOURCES:
        return  # what is wrong is said where all is checked
    verticals = list(table_groups(data["source"], ()).values())
    if not SOURCES[data["source"]].groups:
        if not data["path"]:
            raise ConfigError(
                "--retrain trains a model on each group of your classes.csv; say where with --path FOLDER"
            )
        groups = _own_groups(root / os.path.expanduser(data["path"]))
        verticals = [group for group in table_groups(data["source"], groups).values() if group in groups]
    for vertical in verticals:
        for name in [name for name in MODELS if name in values["models"]]:
            added = f"{name}_" + re.sub(r"\W+", "_", vertical.lower())
            values["models"][added] = copy.deepcopy(values["models"][name])
            values["models"][added]["vertical"] = vertical
            values["experiment"]["models"].append(added)


def _own_groups(folder: Path) -> list[str]:
    path = folder / "classes.csv"
    groups = [group for own in read_classes(path).groups for group in own] if path.is_file() else []
    if not groups:
        raise ConfigError(f"{path}: names no groups of classes, and --retrain trains a model on each; name two there")
    return groups


def _place(path: Path, root: Path) -> str:
    """A path as the pipeline, which runs in the project's folder, can use it."""
    path = Path(os.path.expanduser(path))
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder")
    return str(path) if path.is_absolute() else os.path.relpath(path.resolve(), root)
