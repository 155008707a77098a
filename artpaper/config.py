"""Parameters: ``params.yaml`` as one frozen object, checked before anything runs.

The groups are in :mod:`artpaper.groups`; what is said about several of them together is said here.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from artpaper.errors import ConfigError
from artpaper.explain import explain, nearest
from artpaper.groups import (
    CHECKED,
    AttackConfig,
    Base,
    Calibration,
    Compute,
    Control,
    Data,
    DeepFool,
    Experiment,
    Features,
    Figures,
    Loss,
    Model,
    Reading,
    Rules,
    Stress,
    Study,
    Swept,
    Synthetic,
    Tables,
    Train,
)

__all__ = [
    "AttackConfig",
    "Base",
    "Calibration",
    "Compute",
    "Control",
    "Data",
    "DeepFool",
    "Experiment",
    "Features",
    "Figures",
    "Loss",
    "Model",
    "Params",
    "Reading",
    "Rules",
    "Stress",
    "Study",
    "Swept",
    "Synthetic",
    "Tables",
    "Train",
    "as_dict",
    "build",
    "load_params",
]


def _paper_models() -> dict[str, Loss]:
    return {"non_art": Loss(), "art": Loss(alpha=1.0), "a_art": Loss(alpha=1.0, beta=0.001)}


def _controls() -> dict[str, dict[str, Any]]:
    return {
        "a_art_strong": {"like": "a_art", "beta": 1.0},
        "random_att": {"like": "a_art", "beta": 1.0, "attention_adversary": "random"},
        "entropy_art": {"like": "art", "entropy": 0.01},
        "temperature_art": {"like": "art", "temperature": 4.0},
        "uniform": {"like": "non_art", "attention": "uniform"},
        "uniform_art": {"like": "art", "attention": "uniform"},
        "uniform_wide": {"like": "art", "attention": "uniform", "epsilon": 2.0},
        "pgd_at": {"like": "art", "clean": 0.0, "adversary": "projected", "steps": 2},
        "trades": {"like": "art", "alpha": 50.0, "adversary": "projected", "consistency": True},
        "vat": {"like": "art", "alpha": 10.0, "adversary": "virtual", "consistency": True},
        "gradalign": {"like": "art", "alignment": 0.002},
        "art_wide": {"like": "art", "epsilon": 2.0},
        "relative_att": {"like": "a_art", "epsilon": 2.0, "beta": 0.03, "attention_relative": True},
        "relative_sharp": {
            "like": "a_art",
            "epsilon": 2.0,
            "beta": 0.03,
            "attention_relative": True,
            "entropy": -0.003,
        },
    }


@dataclass(frozen=True, config=CHECKED)
class Params:
    """Everything in ``params.yaml``; without arguments, the parameters of the paper.

    Raises:
        ValueError: ``experiment.models`` names one that is not in ``models``.
    """

    base: Base = Base()
    data: Data = Data()
    synthetic: Synthetic = Synthetic()
    features: Features = Features()
    model: Model = Model()
    train: Train = Train()
    models: dict[str, Loss] = dataclasses.field(default_factory=_paper_models)
    controls: dict[str, dict[str, Any]] = dataclasses.field(default_factory=_controls)
    attack: AttackConfig = AttackConfig()
    deepfool: DeepFool = DeepFool()
    calibration: Calibration = Calibration()
    study: Study = Study()
    tables: Tables = Tables()
    figures: Figures = Figures()
    experiment: Experiment = Experiment()
    stress: Stress = Stress()
    verdict: Rules = Rules()
    compute: Compute = Compute()

    def __post_init__(self) -> None:
        for name in self.experiment.models:
            if name not in self.models:
                raise ValueError(f"experiment.models names {name!r}, but group models has {', '.join(self.models)}")
        for name in self.controls:
            self._control(name)
        known = [*self.models, *self.controls]
        for name in self.stress.models:
            if name not in known:
                raise ValueError(f"stress.models names {name!r}, but models and controls have {', '.join(known)}")
        for name in self.stress.surrogates:
            if name not in self.stress.models:
                raise ValueError(f"stress.surrogates names {name!r}, which is none of stress.models")

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

    def model_for(self, name: str) -> Model:
        """The group ``model`` with the overrides of model ``name``.

        Raises:
            ConfigError: there is no model of that name.
        """
        if name not in self.models:
            raise ConfigError(f"no model {name!r} in group models{nearest(name, list(self.models))}")
        names = ("attention", "temperature")  # the second is a control's only
        overrides = {key: getattr(self.models[name], key, None) for key in names}
        return dataclasses.replace(self.model, **{key: value for key, value in overrides.items() if value is not None})


T = TypeVar("T")
LARGEST = 100_000  # characters of a parameter file
DEEPEST = 50  # brackets in brackets of it; the parser takes time with the square of that
MOST = 100_000  # values in it


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Make ``cls`` from plain values, or say what is wrong with them.

    Args:
        cls: a group of this module, or :class:`Params`.
        values: what a YAML file held.
        where: the file or caller, for the message.
    Raises:
        ConfigError: every unknown key (with the nearest known one), wrong type and impossible value, one a line.
    """
    try:
        # through JSON: strict about types, yet mappings become dataclasses and lists become tuples
        return TypeAdapter(cls).validate_json(json.dumps(values))
    except ValidationError as error:
        lines = [explain(cls, item) for item in error.errors()]
        raise ConfigError("\n".join(f"{where}: {line}" for line in lines)) from None
    except (TypeError, ValueError, RecursionError) as error:  # a date, a set, thousands of digits, a list in itself
        raise ConfigError(f"{where}: not a plain value: {error}") from None


def load_params(path: str | Path) -> Params:
    """Read and check a parameter file (YAML 1.2, so ``2e-4`` is a number).

    Raises:
        ConfigError: the file is missing, unreadable, too large or no YAML mapping, or holds a value that does not fit.
    """
    from ruamel.yaml import YAML

    path = Path(path)
    try:
        with open(path, "rb") as file:
            text = file.read(LARGEST + 1).decode("utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigError(f"{path}: no such parameter file; the ready-made ones are in profiles/") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); see to the file and its permissions") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not valid YAML: not UTF-8: {error}") from None
    if len(text) > LARGEST:
        raise ConfigError(f"{path}: more than {LARGEST:,} characters; no parameter file is so large, give another")
    yaml = YAML(typ="safe", pure=True)
    try:
        if max(itertools.accumulate((c in "[{") - (c in "]}") for c in text), default=0) > DEEPEST:
            raise RecursionError
        # an anchor can make few lines stand for billions of values, so they are counted before any is made
        if re.search(r"&\S", text) and _weight(yaml.compose(text), {}) > MOST:
            raise ConfigError(f"{path}: its anchors make more than {MOST:,} values of it; write them out")
        values = yaml.load(text)
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply, or in itself; parameters are groups of values") from None
    except ConfigError:
        raise
    except Exception as error:  # the parser's own, or what it stumbles over: no such date, an unknown version of YAML
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}: expected groups such as data:, model:, train:, found {type(values).__name__}")
    return build(Params, values, str(path))


def _weight(node: Any, known: dict[int, int]) -> int:
    """How many values a YAML node stands for, each anchor counted wherever it is used."""
    if id(node) not in known:
        parts = node.value if node is not None and isinstance(node.value, list) else []
        inner = [one for part in parts for one in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(_weight(one, known) for one in inner)
    return known[id(node)]


def as_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as plain, JSON-ready values."""
    return TypeAdapter(type(config)).dump_python(config, mode="json")
