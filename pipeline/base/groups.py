"""The groups of ``params.yaml`` but the models': one frozen dataclass each, the paper's own settings as defaults.

Where the paper is silent, the default is the reading that the documentation argues for. ``params.yaml`` and
``profiles/default.yaml`` name every key and say what it does, so a reader never has to look here for that.
"""

import os.path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from artpaper.settings import CHECKED, LARGEST, Count, Fraction, Natural, NonNegative, Positive, Scope
from pipeline.base.explain import SHOWN, nearest
from pipeline.base.sources import SOURCES

LEAST_DRAWS = 20  # bootstrap samples: pipeline.stress.verdict.statistics says why
Place = Annotated[str, AfterValidator(os.path.expanduser)]  # ~ and ~name are homes

CONTROLS: dict[str, dict[str, Any]] = {  # of group `controls`; profiles/default.yaml says what each is
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
    "relative_sharp": {"like": "a_art", "epsilon": 2.0, "beta": 0.03, "attention_relative": True, "entropy": -0.003},
}


def _known_source(name: str) -> str:
    if name not in SOURCES:
        raise ValueError(f"no source {name[:SHOWN]!r}{nearest(name, list(SOURCES))}")
    return name


def _once(group: Any, *names: str) -> None:
    for name in names:
        values = getattr(group, name)
        if len(set(values)) < len(values):
            raise ValueError(f"{name} names one twice: {', '.join(map(str, values))}")


@dataclass(frozen=True, config=CHECKED)
class Base:
    """Group ``base``: what every stage shares. ``seed`` fixes the splits, the partitions and the synthetic data."""

    seed: Natural = 0


@dataclass(frozen=True, config=CHECKED)
class Data:
    """Group ``data``: which videos, in which label space, split how."""

    source: Annotated[str, AfterValidator(_known_source)] = "yt8m"
    path: Place | None = None
    vocabulary: Place | None = None
    label_space: str = "h317"
    validation_videos: Count = 64_000
    damaged: Literal["fail", "skip"] = "fail"
    separator: Literal["auto", "semicolon", "comma", "bar", "slash", "plus", "tab", "line", "blank", "list", "none"] = (
        "auto"
    )
    rates: Literal["refuse", "repeat", "mean"] = "refuse"
    reader: Literal["native", "tensorflow"] = "native"

    def __post_init__(self) -> None:
        source = SOURCES[self.source]
        if self.label_space not in source.label_spaces:
            spaces = "; ".join(f"{name} has {', '.join(other.label_spaces)}" for name, other in SOURCES.items())
            space = self.label_space[:SHOWN]
            raise ValueError(f"label_space {space!r} does not fit source {self.source!r}: {spaces}")
        if not source.path and (self.path, self.vocabulary) != (None, None):
            raise ValueError(f"path and vocabulary must be null for source {self.source!r}, whose videos are built in")
        if source.shards and (self.separator, self.rates) != ("auto", "refuse"):
            raise ValueError("separator and rates are for source 'arrays'; leave them at auto and refuse")
        if source.shards:
            return
        if self.vocabulary is not None:
            raise ValueError(f"vocabulary must be null for source {self.source!r}: its classes are those of labels.csv")
        if self.damaged != "fail":
            raise ValueError("damaged 'skip' is for shards; of one's own arrays remove the video's row from labels.csv")
        if self.reader != "native":
            raise ValueError("reader 'tensorflow' is for shards; one's own arrays are read as they are, by native")


@dataclass(frozen=True, config=CHECKED)
class Synthetic:
    """Group ``synthetic``: size and difficulty of the built-in data; read by source ``synthetic`` only."""

    train_videos: Count = 12_000
    validate_videos: Count = 5_000
    min_frames: Count = 12
    max_frames: Count = 24
    entities: Annotated[int, Field(ge=48, le=LARGEST)] = 3862
    videos_per_shard: Count = 500
    evidence: Annotated[float, Field(gt=0, le=1)] = 0.4
    difficulty: NonNegative = 1.0
    rare_vertical_floor: Annotated[float, Field(ge=0, le=0.02)] = 0.0
    order: bool = False

    def __post_init__(self) -> None:
        if self.max_frames < self.min_frames:
            raise ValueError(f"max_frames {self.max_frames} is below min_frames {self.min_frames}")


@dataclass(frozen=True, config=CHECKED)
class Features:
    """Group ``features``: from stored bytes to the tensor the model receives (and the attack moves)."""

    max_frames: Count = 300
    norm: Literal["none", "l2_frame", "l2_frame_per_modality"] = "l2_frame"


@dataclass(frozen=True, config=CHECKED)
class Train:
    """Group ``train``: the optimiser and the loop, the same for every model."""

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
class AttackConfig:
    """Group ``attack``: the one-step attack of the adversarial test set (Eq. 4)."""

    epsilon: NonNegative = 0.5
    scope: Scope = "joint"
    labels: Literal["truth", "predicted"] = "truth"
    batch_size: Count = 64


@dataclass(frozen=True, config=CHECKED)
class DeepFool:
    """Group ``deepfool``: minimal perturbations (section 3.2.4) of a seeded subset of the test set."""

    videos: Count = 5000
    multilabel_videos: Natural = 64
    candidates: Annotated[int, Field(ge=2, le=LARGEST)] = 10
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


@dataclass(frozen=True, config=CHECKED)
class Calibration:
    """Group ``calibration``: the readings of epsilon that Non-ART alone is put to, side by side."""

    readings: Annotated[tuple[Reading, ...], Field(min_length=1)] = (
        Reading("none", "joint", 0.5), Reading("l2_frame", "joint", 0.5),
        Reading("none", "frame", 0.5), Reading("l2_frame", "frame", 0.5),
    )  # fmt: skip


@dataclass(frozen=True, config=CHECKED)
class Swept:
    """Which models of group ``models`` each grid of Figure 3 is for."""

    epsilon: tuple[str, ...] = ("art", "a_art")
    alpha: tuple[str, ...] = ("art", "a_art")
    beta: tuple[str, ...] = ("a_art",)

    def __post_init__(self) -> None:
        _once(self, "epsilon", "alpha", "beta")


@dataclass(frozen=True, config=CHECKED)
class Study:
    """Group ``study``: the grids of Figure 3, around each of the models of group ``models``, a value at a time."""

    epsilons: tuple[NonNegative, ...] = (0.125, 0.25, 0.5, 1.0, 2.0)
    alphas: tuple[NonNegative, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    betas: tuple[NonNegative, ...] = (0.001, 0.01, 0.1, 1.0)
    models: Swept = Swept()
    seeds: Annotated[tuple[Natural, ...], Field(min_length=1)] = (0, 1, 2)
    max_steps: Count | None = None

    def __post_init__(self) -> None:
        _once(self, "epsilons", "alphas", "betas", "seeds")  # or one training would be counted as two


@dataclass(frozen=True, config=CHECKED)
class Figures:
    """Group ``figures``: ``video`` is the id of the test video of Figures 1 and 2; null chooses one by rule."""

    video: str | None = None


@dataclass(frozen=True, config=CHECKED)
class Tables:
    """Group ``tables``: ``partitions`` disjoint parts of the test set give Table 1 its standard deviation."""

    partitions: Annotated[int, Field(ge=2, le=LARGEST)] = 5


@dataclass(frozen=True, config=CHECKED)
class Experiment:
    """Group ``experiment``: which models (names of group ``models``) are trained with which seeds."""

    models: Annotated[tuple[str, ...], Field(min_length=1)] = ("non_art", "art", "a_art")
    seeds: Annotated[tuple[Natural, ...], Field(min_length=1)] = (0,)

    def __post_init__(self) -> None:
        _once(self, "models", "seeds")


@dataclass(frozen=True, config=CHECKED)
class Stress:
    """Group ``stress``: the strong attacks, on which models (of groups ``models`` and ``controls``), at what length.

    The ``videos`` are chosen by a seeded hash; ``epsilons`` and ``step_counts`` are sweeps, on the first seed.
    """

    models: Annotated[tuple[str, ...], Field(min_length=1)] = (*Experiment.models, *CONTROLS)
    seeds: Annotated[tuple[Natural, ...], Field(min_length=1)] = (0, 1, 2, 3, 4)
    max_steps: Count | None = None
    equal_cost: bool = True
    videos: Annotated[int, Field(ge=2, le=LARGEST)] = 1000  # one tells nothing of others
    surrogates: tuple[str, ...] = ("non_art", "art", "uniform_art")
    epsilon: NonNegative | None = None
    steps: Count = 20
    restarts: Count = 2
    queries: Count = 200
    epsilons: tuple[NonNegative, ...] = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 32.0)
    step_counts: tuple[Count, ...] = (1, 2, 5, 10, 50)

    def __post_init__(self) -> None:
        _once(self, "models", "seeds", "surrogates", "epsilons", "step_counts")


@dataclass(frozen=True, config=CHECKED)
class Rules:
    """Group ``verdict``: when a statement about the stress test counts as decided; change one and run again."""

    draws: Count = 1000
    alpha: Fraction = 0.05
    margin: Annotated[float, Field(ge=0, le=100)] = 2.0  # less than a quarter of what A-ART gains in the paper (9.07)
    flat: Fraction = 0.1
    kept: Fraction = 0.5
    lost: NonNegative = 2.0

    def __post_init__(self) -> None:
        if self.draws < LEAST_DRAWS:
            raise ValueError(
                f"draws {self.draws}: with fewer than {LEAST_DRAWS} bootstrap samples the standard errors are so rough "
                "that chance looks significant; 50 will do for a trial, 1000 for results"
            )


@dataclass(frozen=True, config=CHECKED)
class Compute:
    """Group ``compute``: how the work is spread; no stage lists it, for it is about time and not about results.

    A result changes by rounding at most, but for models that several processes of a cluster train together: with
    dropout or a random adversary these draw other numbers, as another seed would.
    """

    engine: Literal["local", "ray"] = "local"
    workers: Count = 2
    address: Annotated[str, Field(pattern=r"^(auto|[\w.-]+:\d+)$")] | None = None
