"""Every model of the trial by name: its loss, with epsilon and beta as the rules gave them, and the order of worth."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Literal

from artpaper.settings import Attention, Control
from pipeline.base.parameters import Params
from pipeline.paper.paper import MODELS
from pipeline.trial.rules import CALIBRATED, PAPER, Rules, base_radius
from pipeline.trial.sets import with_loss

PLANNED = ("non_art", "art", "a_art", "uniform_art")
AUDITED = ("art", "a_art", "uniform_art")
PAPER_RADIUS = "_paper"
PLANNED_SEEDS, SEEDS = 8, 5
# for the names, which no calibration changes
ANY_RULES = Rules(1.0, {1.0: [(1.0, 0.9)], 2.0: [(1.0, 0.5)]}, 1.0, 1.0, 1.0, {}, 1.0)
LOSSES = MODELS | {"pgd10": "PGD-10", "trades10": "TRADES-10", "contrast": "contrastive"}
ENDINGS = {
    "_nominal": ", β 0.001",
    "_detached": ", clean map fixed",
    "_squared": ", norm squared",
    PAPER_RADIUS: f", at {100 * PAPER:g} %",
}
ATTENTIONS: tuple[Attention, ...] = ("softmax", "uniform", "position", "random")
TABLE_LOSSES = ("none", "art", "art_4e", "pgd10", "trades10")
"""Of the table of attention by loss; with :data:`ATTENTIONS`, each has every attention."""


@dataclasses.dataclass(frozen=True)
class Unit:
    """One training, to be attacked and measured; ``kind`` is the folder of its file: the attack audit has its own."""

    variant: str
    seed: int
    kind: Literal["units", "audit"] = "units"

    @property
    def file(self) -> str:
        """Its name among the results."""
        return f"{self.variant}-seed{self.seed}.parquet"


def variants(rules: Rules) -> dict[str, Control]:
    """The losses by name, in the order in which the exploratory ones are worth their time.

    ``4e`` and the like are multiples of the calibrated radius, in training alone; ``share`` is that of ART's loss which
    beta times the attention term had on validation videos; ``nominal`` is the paper's own beta. What ends in
    :data:`PAPER_RADIUS` is trained and attacked at 3.4 % of a median video's norm.
    """
    epsilon = rules.epsilon
    none, art = Control(), Control(alpha=1.0, epsilon=epsilon)  # as the calibration trained them
    wide = dataclasses.replace(art, epsilon=4 * epsilon)
    pgd10 = dataclasses.replace(art, clean=0.0, adversary="projected", steps=10)
    trades10 = dataclasses.replace(art, alpha=50.0, adversary="projected", steps=10, consistency=True)
    losses = dict(zip(TABLE_LOSSES, (none, art, wide, pgd10, trades10), strict=True))

    def a_art(share: float, times: float = 1.0) -> Control:
        return dataclasses.replace(art, epsilon=times * epsilon, beta=rules.beta(share))

    named = {"non_art": none, "art": art, "a_art": a_art(CALIBRATED), "uniform_art": _of("uniform", art)}
    named |= {"a_art_share0.1": a_art(0.1), "a_art_share0.4": a_art(0.4)}
    named["a_art_nominal"] = dataclasses.replace(art, beta=0.001)
    named[f"a_art_share{CALIBRATED:g}_2e"] = a_art(CALIBRATED, 2.0)
    named["contrast"] = dataclasses.replace(art, beta=rules.contrast_beta(CALIBRATED), attention_contrast=True)
    named["a_art_detached"] = dataclasses.replace(named["a_art"], attention_detach_clean=True)
    if (squared := rules.squared_beta(CALIBRATED)) is not None:
        named["a_art_squared"] = dataclasses.replace(art, beta=squared, attention_squared=True)
    paper = base_radius(rules.frames)
    for name in ("non_art", "art", "a_art"):
        named[name + PAPER_RADIUS] = dataclasses.replace(named[name], epsilon=paper)
    for loss, control in losses.items():  # the table of attention by loss; the first names stay where they are
        named |= {cell_name(a, loss): _of(a, control) for a in ATTENTIONS if cell_name(a, loss) not in named}
    for times in (0.5, 2.0):  # the fronts
        wider = dataclasses.replace(art, epsilon=times * epsilon)
        named |= {cell_name(a, f"art_{times:g}e"): _of(a, wider) for a in ATTENTIONS[:3]}
    named |= {f"a_art_share{share:g}_4e": a_art(share, 4.0) for share in (0.1, 0.2, 0.4)}
    named["contrast_4e"] = dataclasses.replace(named["contrast"], epsilon=4 * epsilon)
    named["temperature_art"] = dataclasses.replace(art, temperature=4.0)
    named["entropy_art"] = dataclasses.replace(art, entropy=0.01)
    return named


def variant_name(variant: str) -> str:
    """A variant in words: ``uniform_art_2e`` is "uniform + ART, 2ε"."""
    name = re.sub(r"_share([\d.]+)", r", share \1", variant)
    name = re.sub(r"_([\d.]+)e$", r", \1ε", name)
    for ending, words in ENDINGS.items():
        name = name.removesuffix(ending) + words * name.endswith(ending)
    model, comma, rest = name.partition(",")
    more, _, loss = model.rpartition("_")
    words = LOSSES.get(model) or (f"{more} + {LOSSES[loss]}" if loss in LOSSES else model)
    return words + comma + rest


def cell_name(attention: Attention, loss: str) -> str:
    """Of a cell of the table: ``art``, ``uniform_art``, ``uniform``; learnt attention without a defence is Non-ART."""
    if attention == "softmax":
        return "non_art" if loss == "none" else loss
    return attention if loss == "none" else f"{attention}_{loss}"


def _of(attention: Attention, loss: Control) -> Control:
    return loss if attention == "softmax" else dataclasses.replace(loss, attention=attention)


def units(rules: Rules) -> Iterator[Unit]:
    """In the order of worth: the planned models seed by seed, so that whole seeds are done first; then the others."""
    for seed in range(PLANNED_SEEDS):
        yield from (Unit(name, seed) for name in PLANNED)
    for name in variants(rules):
        if name not in PLANNED:
            yield from (Unit(name, seed) for seed in range(SEEDS))


def audits() -> Iterator[Unit]:
    """The models of the attack audit, seed by seed."""
    for seed in range(SEEDS):
        yield from (Unit(name, seed, "audit") for name in AUDITED)


def with_variant(params: Params, rules: Rules, variant: str) -> Params:
    """The parameters that train and attack one variant."""
    return with_loss(params, variant, variants(rules)[variant], radius(rules, variant))


def radius(rules: Rules, variant: str) -> float:
    """Of the ball that a variant is attacked in, unit of the normalised features."""
    return base_radius(rules.frames) if variant.endswith(PAPER_RADIUS) else rules.epsilon


def undefended(variant: str) -> str:
    """Non-ART under the same attack, whose loss of GAP a variant's is compared with."""
    return "non_art" + PAPER_RADIUS * variant.endswith(PAPER_RADIUS)
