"""The settings of a model and of its training loss, checked, with the paper's own values as defaults.

Where the paper is silent, the default is the reading that the documentation argues for. In the pipeline these are the
groups ``model``, ``models`` and ``controls`` of ``params.yaml``.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

CHECKED = ConfigDict(extra="forbid", strict=True)

LARGEST = 2**63 - 1  # that NumPy and PyTorch count with
Count = Annotated[int, Field(ge=1, le=LARGEST)]
Natural = Annotated[int, Field(ge=0, le=LARGEST)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Scope = Literal["joint", "modality", "frame"]
Attention = Literal["softmax", "uniform", "position", "random"]


@dataclass(frozen=True, config=CHECKED)
class Model:
    """Group ``model``: the frame Transformer, one encoder layer per modality.

    ``attention`` is the paper's ``softmax``, or a control: ``uniform`` gives every real frame the same weight, the
    scores of ``position`` are learnt from the positions alone, those of ``random`` come from queries and keys that stay
    as they were drawn.
    """

    heads: Count = 8
    attention: Attention = "softmax"
    temperature: Positive = 1.0
    projection: Count | None = None
    scale_input: bool = True
    positions: Literal["sinusoidal", "none"] = "sinusoidal"
    ffn_multiple: Natural = 4
    layer_norm: Literal["post", "pre", "none"] = "post"
    pooling: Literal["mean", "max"] = "mean"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1

    def width(self, features: int) -> int:
        """How wide the encoder of a modality is whose frames have so many ``features``.

        Raises:
            ValueError: it is not divisible by the number of heads, or odd with sinusoidal positions.
        """
        width = self.projection or features
        if width % self.heads:
            raise ValueError(
                f"width {width} is not divisible by {self.heads} heads; set model.projection to a multiple of them, or "
                "other model.heads"
            )
        coded = self.positions == "sinusoidal" or self.attention == "position"
        if coded and width % 2:
            raise ValueError(f"sinusoidal positions need an even width, not {width}; set model.projection to one")
        return width


@dataclass(frozen=True, config=CHECKED)
class Loss:
    """One entry of group ``models``: the training loss of one model (Eq. 1, 2 and section 2.2).

    ``alpha`` 0 leaves out the adversarial term, ``beta`` 0 the attention term. ``attention`` overrides
    ``model.attention`` for this model alone, which makes the controls of attention. ``vertical`` trains and
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
    attention: Attention | None = None
    vertical: str | None = None


@dataclass(frozen=True, config=CHECKED)
class Control(Loss):
    """The training loss of a model that the paper does not have: a control, a baseline or a defence.

    ``alpha`` weighs what is asked of the adversaries: their labels, or with ``consistency`` the answer to the clean
    video. ``clean`` weighs L_CE. ``adversary`` says how they are found: ``one_step`` (Eq. 4), ``projected`` (from a
    random start, ``steps`` steps) or ``virtual`` (no labels). The attention term compares with the maps of the
    adversaries or, with ``attention_adversary`` random, of a random step; ``attention_relative`` divides it by the
    clean map's distance to uniform, ``attention_contrast`` by its distance to another video's. ``entropy`` rewards flat
    maps, below 0 peaked ones. ``alignment`` asks for gradients that agree with those at a random point of the ball.
    ``temperature`` overrides ``model.temperature``.

    Raises:
        ValueError: switches that exclude one another.
    """

    clean: NonNegative = 1.0
    adversary: Literal["one_step", "projected", "virtual"] = "one_step"
    steps: Count = 1
    consistency: bool = False
    attention_adversary: Literal["same", "random"] = "same"
    attention_relative: bool = False
    attention_contrast: bool = False
    entropy: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    alignment: NonNegative = 0.0
    temperature: Positive | None = None

    @property
    def passes(self) -> int:
        """Forward-backward passes of one training step; Non-ART takes one, ART and A-ART take two."""
        if not (self.alpha or self.beta or self.entropy or self.alignment):
            return 1
        search = 1 if self.adversary == "one_step" else int(self.clean > 0) + self.steps
        third = self.beta > 0 and self.attention_adversary == "random"
        # GradAlign: on a quarter of the videos two gradients, differentiated again
        return search + 1 + int(third) + int(self.alignment > 0)

    def __post_init__(self) -> None:
        if self.adversary == "one_step" and (self.consistency or self.clean != 1):
            raise ValueError("consistency, and another weight of clean, need adversary 'projected' or 'virtual'")
        if self.adversary == "virtual" and not self.consistency:
            raise ValueError("adversary 'virtual' asks for no labels and needs consistency")
        if self.adversary != "projected" and self.steps != 1:
            raise ValueError(f"steps {self.steps}: only adversary 'projected' takes more than one")
        own = self.attention_relative or self.attention_contrast
        if not self.beta and (own or self.attention_adversary == "random"):
            raise ValueError("attention_relative, attention_contrast and attention_adversary need a beta above 0")
        if self.attention_relative and self.attention_contrast:
            raise ValueError("attention_relative and attention_contrast divide the same term; choose one")
        if not self.clean and (self.consistency or self.beta or self.entropy):
            raise ValueError("clean 0 leaves no clean pass for consistency, beta or entropy to compare with")
