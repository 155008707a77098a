"""Parameters: ``params.yaml`` as one frozen object, checked before anything runs.

The groups are in :mod:`pipeline.base.groups`; what is said about several of them together is said here.
"""

import copy
import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from artpaper.settings import CHECKED, Control, Loss, Model
from pipeline.base import groups
from pipeline.base.errors import ConfigError
from pipeline.base.explain import SHOWN, explain, nearest
from pipeline.base.sources import SOURCES


def _paper_models() -> dict[str, Loss]:
    return {"non_art": Loss(), "art": Loss(alpha=1.0), "a_art": Loss(alpha=1.0, beta=0.001)}


@dataclass(frozen=True, config=CHECKED)
class Params:
    """Everything in ``params.yaml``; without arguments, the parameters of the paper."""

    base: groups.Base = groups.Base()
    data: groups.Data = groups.Data()
    synthetic: groups.Synthetic = groups.Synthetic()
    features: groups.Features = groups.Features()
    model: Model = Model()
    train: groups.Train = groups.Train()
    models: dict[str, Loss] = dataclasses.field(default_factory=_paper_models)
    controls: dict[str, dict[str, Any]] = dataclasses.field(default_factory=lambda: dict(groups.CONTROLS))
    attack: groups.AttackConfig = groups.AttackConfig()
    deepfool: groups.DeepFool = groups.DeepFool()
    calibration: groups.Calibration = groups.Calibration()
    study: groups.Study = groups.Study()
    tables: groups.Tables = groups.Tables()
    figures: groups.Figures = groups.Figures()
    experiment: groups.Experiment = groups.Experiment()
    stress: groups.Stress = groups.Stress()
    verdict: groups.Rules = groups.Rules()
    compute: groups.Compute = groups.Compute()

    def __post_init__(self) -> None:
        for name in self.experiment.models:
            if name not in self.models:
                there = f"group models has {', '.join(self.models)}"
                if name in self.controls:
                    there += "; `artpaper use PROFILE --set experiment.models=[...]` takes controls, too"
                raise ValueError(f"experiment.models names {name!r}, but {there}")
        losses = {**self.models, **{name: self._control(name) for name in self.controls}}
        known = list(losses)
        for name in self.stress.models:
            if name not in known:
                raise ValueError(f"stress.models names {name!r}, but models and controls have {', '.join(known)}")
        for name in self.stress.surrogates:
            if name not in self.stress.models:
                raise ValueError(f"stress.surrogates names {name!r}, which is none of stress.models")
        for features in SOURCES[self.data.source].widths.values() or (0,):  # 0 fits: one's own are known once read
            for loss in losses.values():
                try:
                    self._architecture(loss).width(features)
                except ValueError as error:
                    raise ValueError(f"group model: {error}") from None

    def with_controls(self) -> "Params":
        """The same parameters, with the entries of group ``controls`` among those of group ``models``."""
        controls = {name: self._control(name) for name in self.controls}
        return dataclasses.replace(self, models={**self.models, **controls}, controls={})

    def _control(self, name: str) -> Control:
        if name in self.models:
            raise ValueError(f"controls.{name}: group models has one of that name; choose another")
        changes = dict(self.controls[name])
        like = changes.pop("like", None)
        if like not in self.models:
            raise ValueError(f"controls.{name}.like: no {like!r} in group models, which has {', '.join(self.models)}")
        try:
            return build(Control, {**as_dict(self.models[like]), **changes}, f"controls.{name}")
        except ConfigError as error:
            raise ValueError(str(error)) from None

    def check_swept(self) -> None:
        """Refuse, with a ConfigError, that a model which Figure 3 is about is not in group ``models``."""
        swept = self.study.models
        missing = sorted({"non_art", *swept.epsilon, *swept.alpha, *swept.beta} - set(self.models))
        if missing:
            raise ConfigError(
                f"Figure 3 needs {', '.join(missing)}, which group models does not have; see study.models"
            )

    def model_for(self, name: str) -> Model:
        """The group ``model`` with the overrides of model ``name``; a ConfigError where there is none of that name."""
        if name not in self.models:
            raise ConfigError(f"no model {name!r} in group models{nearest(name, list(self.models))}")
        return self._architecture(self.models[name])

    def _architecture(self, loss: Loss) -> Model:
        names = ("attention", "temperature")  # the second is a control's only
        overrides = {key: getattr(loss, key, None) for key in names}
        return dataclasses.replace(self.model, **{key: value for key, value in overrides.items() if value is not None})


T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Make ``cls``, a group or :class:`Params`, from the plain values of a YAML file.

    Raises:
        ConfigError: every unknown key (with the nearest known one), wrong type and impossible value, one a line, each
            after ``where``.
    """
    try:
        # through JSON: strict about types, yet mappings become dataclasses and lists become tuples
        return TypeAdapter(cls).validate_json(json.dumps(values))
    except ValidationError as error:
        lines = [explain(cls, item) for item in error.errors()]
        raise ConfigError("\n".join(f"{where}: {line}" for line in lines)) from None
    except (TypeError, ValueError, RecursionError) as error:  # a date, a set, a list in itself
        raise ConfigError(f"{where}: not a plain value: {error}") from None


def load_params(path: str | Path) -> Params:
    """Read and check a parameter file, or a profile (YAML 1.2, so ``2e-4`` is a number)."""
    return build(Params, read_values(Path(path)), str(path))


def read_values(path: Path, yaml: Any = None) -> dict[str, Any]:
    """What a parameter file or a profile says; where it says ``like: NAME``, that of ``NAME.yaml`` with its changes.

    ``yaml`` reads it, by default as plain values, without its comments.
    """
    values = _read_mapping(path, yaml)
    if "like" not in values:
        return values
    like = values.pop("like")
    whole = path.parent / f"{like}.yaml"
    if not os.path.isfile(whole):
        raise ConfigError(
            f"{path}: like: {str(like)[:SHOWN]}: no such profile beside it; `artpaper use NAME` writes a whole file"
        )
    base = _read_mapping(whole, yaml)
    if "like" in base:
        raise ConfigError(f"{path}: like: {like}: {whole} is no whole file but like another itself; name that one")
    if yaml is None:
        build(Params, base, str(whole))  # what does not fit there is told of that file
    return _overlaid(base, values)


def _read_mapping(path: Path, yaml: Any) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigError(
            f"{path}: no such parameter file; `artpaper use NAME`, in the project's folder, writes params.yaml"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); see to the file and its permissions") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not valid YAML: not UTF-8: {error}") from None
    values = parse(text, str(path), yaml)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected groups such as data:, model:, train:, found {type(values).__name__}")
    return values


def parse(text: str, where: str, yaml: Any = None) -> Any:
    """What a piece of YAML says, read by ``yaml`` (default: as plain values); ``where`` is for the message."""
    from ruamel.yaml import YAML

    try:
        return (yaml or YAML(typ="safe", pure=True)).load(text)
    except Exception as error:  # the parser's own, or what it stumbles over: no such date, an unknown version of YAML
        raise ConfigError(f"{where}: not valid YAML: {error}") from None


def _overlaid(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``changes``, mappings key by key, and its comments where ruamel.yaml kept some."""
    from ruamel.yaml.comments import CommentedMap

    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        # copied, for what an anchor stands for is one object in several places
        base[key] = _overlaid(copy.deepcopy(base[key]), value) if both else value
    if isinstance(base, CommentedMap) and isinstance(changes, CommentedMap):
        base.ca.items.update(changes.ca.items)
        base.ca.comment = changes.ca.comment or base.ca.comment
    return base


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested groups as one: dotted name -> value."""
    if not isinstance(values, Mapping):
        return {prefix.removesuffix("."): values}
    return {name: value for key in values for name, value in flat(values[key], f"{prefix}{key}.").items()}


def as_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as plain, JSON-ready values."""
    return TypeAdapter(type(config)).dump_python(config, mode="json")
