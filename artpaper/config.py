"""Parameters: one frozen dataclass per group of ``params.yaml``, checked before anything runs.

The defaults below are the paper's own settings, and where the paper is silent the reading that the documentation argues
for. ``params.yaml`` and the files in ``profiles/`` name every key, so a reader never has to look here for a value.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from artpaper.errors import ConfigError
from artpaper.explain import explain, nearest

CHECKED = ConfigDict(extra="forbid", strict=True)

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Scope = Literal["joint", "modality", "frame"]


@dataclass(frozen=True, config=CHECKED)
class Base:
    """Group ``base``: what every stage shares. ``seed`` fixes the splits, the partitions and the synthetic data."""

    seed: Natural = 0


@dataclass(frozen=True, config=CHECKED)
class Data:
    """Group ``data``: which videos, in which label space, split how.

    Raises:
        ValueError: ``label_space`` does not fit ``source``.
    """

    source: Literal["synthetic", "audioset", "yt8m", "arrays"] = "yt8m"
    path: str | None = None
    vocabulary: str | None = None
    label_space: Literal["h317", "h431", "k3862", "audioset527", "given"] = "h317"
    validation_videos: Count = 64_000

    def __post_init__(self) -> None:
        own = {"audioset": "audioset527", "arrays": "given"}
        if own.get(self.source) != (self.label_space if self.label_space in own.values() else None):
            raise ValueError(
                f"label_space {self.label_space!r} does not fit source {self.source!r}: AudioSet has audioset527, "
                "arrays have given, the other sources have h317, h431 and k3862"
            )
        if self.source == "arrays" and self.vocabulary is not None:
            raise ValueError("vocabulary must be null for source 'arrays': its classes are those of labels.csv")


@dataclass(frozen=True, config=CHECKED)
class Synthetic:
    """Group ``synthetic``: size and difficulty of the built-in data; read by source ``synthetic`` only.

    Raises:
        ValueError: ``max_frames`` is below ``min_frames``.
    """

    train_videos: Count = 12_000
    validate_videos: Count = 5_000
    min_frames: Count = 12
    max_frames: Count = 24
    entities: Annotated[int, Field(ge=48)] = 3862
    videos_per_shard: Count = 500
    evidence: Annotated[float, Field(gt=0, le=1)] = 0.4
    difficulty: NonNegative = 1.0
    rare_vertical_floor: Annotated[float, Field(ge=0, le=0.02)] = 0.0

    def __post_init__(self) -> None:
        if self.max_frames < self.min_frames:
            raise ValueError(f"max_frames {self.max_frames} is below min_frames {self.min_frames}")


@dataclass(frozen=True, config=CHECKED)
class Features:
    """Group ``features``: from stored bytes to the tensor the model receives (and the attack moves)."""

    max_frames: Count = 300
    norm: Literal["none", "l2_frame", "l2_frame_per_modality"] = "l2_frame"


@dataclass(frozen=True, config=CHECKED)
class Model:
    """Group ``model``: the frame Transformer, one encoder layer per modality."""

    heads: Count = 8
    attention: Literal["softmax", "uniform"] = "softmax"
    projection: Count | None = None
    scale_input: bool = True
    positions: Literal["sinusoidal", "none"] = "sinusoidal"
    ffn_multiple: Natural = 4
    layer_norm: Literal["post", "pre", "none"] = "post"
    pooling: Literal["mean", "max"] = "mean"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


@dataclass(frozen=True, config=CHECKED)
class Train:
    """Group ``train``: the optimiser and the loop, the same for every model.

    ``precision`` auto is bf16 where the machine multiplies it natively and fp32 elsewhere: emulated it is many times
    slower.
    """

    learning_rate: Positive = 2e-4
    batch_size: Count = 64
    max_steps: Count = 1_000_000
    validate_every: Count = 10_000
    early_stop_patience: Count = 5
    lr_patience: Natural = 3
    lr_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    checkpoint_every: Count = 1_000


@dataclass(frozen=True, config=CHECKED)
class Loss:
    """One entry of group ``models``: the training loss of one model (Eq. 1, 2 and section 2.2).

    ``alpha`` 0 leaves out the adversarial term, ``beta`` 0 the attention term. ``attention`` overrides
    ``model.attention`` for this model alone, which makes the uniform-attention control. ``vertical`` trains and
    validates on the videos of one vertical (AudioSet: family) alone, the second reading of Tables 2 and 3.
    """

    alpha: NonNegative = 0.0
    epsilon: NonNegative = 0.5
    scope: Scope = "joint"
    beta: NonNegative = 0.0
    bce_reduction: Literal["mean", "sum"] = "mean"
    attention_modalities: Literal["sum", "mean"] = "sum"
    attention_squared: bool = False
    attention_detach_clean: bool = False
    attention: Literal["softmax", "uniform"] | None = None
    vertical: str | None = None


@dataclass(frozen=True, config=CHECKED)
class AttackConfig:
    """Group ``attack``: the one-step attack of the adversarial test set (Eq. 4)."""

    epsilon: NonNegative = 0.5
    scope: Scope = "joint"
    labels: Literal["truth", "predicted"] = "truth"
    batch_size: Count = 64


@dataclass(frozen=True, config=CHECKED)
class DeepFool:
    """Group ``deepfool``: minimal perturbations (section 3.2.4) of a seeded subset of the test set.

    ``memory`` in MiB bounds what the attack adds to the model's own forward pass. ``multilabel_videos`` of the subset
    are also put to multi-label DeepFool, which costs a backward pass for every class.
    """

    videos: Count = 5000
    multilabel_videos: Natural = 64
    candidates: Annotated[int, Field(ge=2)] = 10
    steps: Count = 50
    overshoot: NonNegative = 0.02
    memory: Count = 256
    batch_size: Count = 64


@dataclass(frozen=True, config=CHECKED)
class Reading:
    """One reading of "epsilon": which features, which ball, which radius."""

    norm: Literal["none", "l2_frame", "l2_frame_per_modality"]
    scope: Scope
    epsilon: NonNegative


def _readings() -> tuple[Reading, ...]:
    choices: list[tuple[Literal["none", "l2_frame"], Scope]] = [
        ("none", "joint"), ("l2_frame", "joint"), ("none", "frame"), ("l2_frame", "frame")
    ]  # fmt: skip
    return tuple(Reading(norm, scope, 0.5) for norm, scope in choices)


@dataclass(frozen=True, config=CHECKED)
class Calibration:
    """Group ``calibration``: the readings of epsilon that Non-ART alone is put to, side by side."""

    readings: Annotated[tuple[Reading, ...], Field(min_length=1)] = dataclasses.field(default_factory=_readings)


@dataclass(frozen=True, config=CHECKED)
class Swept:
    """Which models of group ``models`` each grid of Figure 3 is for."""

    epsilon: tuple[str, ...] = ("art", "a_art")
    alpha: tuple[str, ...] = ("art", "a_art")
    beta: tuple[str, ...] = ("a_art",)


@dataclass(frozen=True, config=CHECKED)
class Study:
    """Group ``study``: the grids of Figure 3, each around the models of group ``models``, one value changed at a time.

    ``max_steps`` shortens every training of the study; null trains as long as ``train.max_steps`` says.
    """

    epsilons: tuple[NonNegative, ...] = (0.125, 0.25, 0.5, 1.0, 2.0)
    alphas: tuple[NonNegative, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    betas: tuple[NonNegative, ...] = (0.001, 0.01, 0.1, 1.0)
    models: Swept = Swept()
    seeds: Annotated[tuple[Natural, ...], Field(min_length=1)] = (0, 1, 2)
    max_steps: Count | None = None


@dataclass(frozen=True, config=CHECKED)
class Figures:
    """Group ``figures``: ``video`` is the id of the test video of Figures 1 and 2; null chooses one by rule."""

    video: str | None = None


@dataclass(frozen=True, config=CHECKED)
class Tables:
    """Group ``tables``: ``partitions`` disjoint parts of the test set give Table 1 its standard deviation."""

    partitions: Annotated[int, Field(ge=2)] = 5


@dataclass(frozen=True, config=CHECKED)
class Experiment:
    """Group ``experiment``: which models (names of group ``models``) are trained with which seeds.

    Raises:
        ValueError: a model or a seed is named twice.
    """

    models: Annotated[tuple[str, ...], Field(min_length=1)] = ("non_art", "art", "a_art")
    seeds: Annotated[tuple[Natural, ...], Field(min_length=1)] = (0,)

    def __post_init__(self) -> None:
        for name in ("models", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names one twice: {', '.join(map(str, values))}")


def _paper_models() -> dict[str, Loss]:
    return {"non_art": Loss(), "art": Loss(alpha=1.0), "a_art": Loss(alpha=1.0, beta=0.001)}


@dataclass(frozen=True, config=CHECKED)
class Compute:
    """Group ``compute``: how the work is spread; no stage lists it, for it changes a result by rounding at most."""

    workers: Count = 2


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
    attack: AttackConfig = AttackConfig()
    deepfool: DeepFool = DeepFool()
    calibration: Calibration = Calibration()
    study: Study = Study()
    tables: Tables = Tables()
    figures: Figures = Figures()
    experiment: Experiment = Experiment()
    compute: Compute = Compute()

    def __post_init__(self) -> None:
        for name in self.experiment.models:
            if name not in self.models:
                raise ValueError(f"experiment.models names {name!r}, but group models has {', '.join(self.models)}")

    def model_for(self, name: str) -> Model:
        """The group ``model`` with the overrides of model ``name``.

        Raises:
            ConfigError: there is no model of that name.
        """
        if name not in self.models:
            raise ConfigError(f"no model {name!r} in group models{nearest(name, list(self.models))}")
        override = self.models[name].attention
        return self.model if override is None else dataclasses.replace(self.model, attention=override)


T = TypeVar("T")


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
    except TypeError as error:
        raise ConfigError(f"{where}: not a plain value: {error}") from None
    except ValidationError as error:
        lines = [explain(cls, item) for item in error.errors()]
        raise ConfigError("\n".join(f"{where}: {line}" for line in lines)) from None


def load_params(path: str | Path) -> Params:
    """Read and check a parameter file (YAML 1.2, so ``2e-4`` is a number).

    Raises:
        ConfigError: the file is missing, is no YAML mapping, or holds a value that does not fit.
    """
    from ruamel.yaml import YAML, YAMLError

    path = Path(path)
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigError(f"{path}: no such parameter file; the ready-made ones are in profiles/") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}: expected groups such as data:, model:, train:, found {type(values).__name__}")
    return build(Params, values, str(path))


def as_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as plain, JSON-ready values."""
    return TypeAdapter(type(config)).dump_python(config, mode="json")
