"""Attacks on video classifiers: one a file, one signature, diagnostics for every video; and the list of them by name.

To add an attack: a file with a function under :func:`checked`, and here its import and its line of :data:`ATTACKS`,
which the stress test, the explorer and the checks read.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from artpaper.attacks.adapter import Adapter
from artpaper.attacks.attention import AttentionColumns, attention_pgd
from artpaper.attacks.auto_projected_gradient import apgd
from artpaper.attacks.boundary import Criterion
from artpaper.attacks.deepfool import deepfool
from artpaper.attacks.ensemble import ensemble
from artpaper.attacks.minimum_norm import fmn
from artpaper.attacks.multilabel_deepfool import multilabel_deepfool
from artpaper.attacks.objectives import OBJECTIVES, Objective, bce, dlr, margin, top_k_ap
from artpaper.attacks.one_step import fgm
from artpaper.attacks.predicted_labels import predicted_labels
from artpaper.attacks.projected_gradient import pgd
from artpaper.attacks.random_direction import random_direction
from artpaper.attacks.result import Attack, checked, hit, input_gradient
from artpaper.attacks.square import square
from artpaper.attacks.structured import fit_universal, k_frames, one_modality, universal
from artpaper.attacks.transfer import transfer
from artpaper.ball import Norm, Scope, l2_norm, project, steepest


def _steps(options: Mapping[str, Any]) -> int:
    return options.get("steps", 1) * options.get("restarts", 1)


def _twice(options: Mapping[str, Any]) -> int:
    return 2 * _steps(options)


def _forward(options: Mapping[str, Any]) -> float:
    return options.get("queries", 1) / 3


@dataclass(frozen=True)
class Listed:
    """An attack under the name of its files and rows.

    Attributes:
        name: as it is written.
        attack: the function; a run gives it those of the run's settings that it takes.
        options: what is not the run's to choose, such as an objective.
        kind: what the checks take it for: "noise", a follower of the gradient of the "loss" that they compare, another
            "white_box" or a "black_box" in the same ball, or "other"; a "boundary" is looked for in no ball at all.
        passes: forward-backward passes a video, by the options; a forward pass alone counts a third.
        needs: the option that a run has to make first.
        title: what a reader calls it, where the explorer offers it.
        checks: whether :func:`artpaper.checks.check_model` runs it.
    """

    name: str
    attack: Callable[..., Attack]
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["noise", "loss", "white_box", "black_box", "boundary", "other"] = "white_box"
    passes: Callable[[Mapping[str, Any]], int | float] = _steps
    needs: Literal["", "perturbation", "surrogate", "modality"] = ""
    title: str = ""
    checks: bool = False

    def bound(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Its options in a run: of the run's settings those that it takes, and its own."""
        taken = accepted(self.attack)
        return {name: value for name, value in settings.items() if name in taken} | dict(self.options)


@functools.cache
def accepted(attack: Callable[..., Attack]) -> frozenset[str]:
    """Names of the options that an attack takes, with those of the attack that it hands further ones to."""
    parameters = inspect.signature(attack).parameters
    inner = parameters["attack"].default if "attack" in parameters else inspect.Parameter.empty
    return frozenset(parameters) | (frozenset() if inner is inspect.Parameter.empty else accepted(inner))


ONCE = {"restarts": 1}
ATTACKS = [
    Listed("random", random_direction, kind="noise", passes=_forward, title="random direction (control)", checks=True),
    Listed("universal", universal, kind="other", passes=_forward, needs="perturbation"),
    Listed("one_step", fgm, kind="loss", title="one step, true labels (Eq. 4)", checks=True),
    Listed("one_step_predicted", predicted_labels, kind="other", title="one step, predicted labels", checks=True),
    Listed("pgd", pgd, kind="loss", title="PGD: many steps", checks=True),
    Listed("pgd_predicted", functools.partial(predicted_labels, attack=pgd), ONCE, "other"),
    Listed("attention_maps", attention_pgd, ONCE | {"over": "maps", "weight": 0.1}, passes=_twice,
           title="on labels and attention: PGD that moves the maps too"),
    Listed("attention_scores", attention_pgd, ONCE | {"over": "scores", "weight": 0.01}, passes=_twice),
    Listed("frames_1", k_frames, ONCE | {"frames": 1}, "other"),
    Listed("square", square, kind="black_box", passes=_forward, checks=True),
    Listed("apgd_bce", apgd, kind="loss"),
    Listed("apgd_margin", apgd, {"objective": margin}, title="Auto-PGD on the margin"),
    Listed("apgd_dlr", apgd, {"objective": dlr}),
    Listed("apgd_top_k_ap", apgd, {"objective": top_k_ap}),
    Listed("transfer", transfer, kind="black_box", needs="surrogate"),
    Listed("only", one_modality, ONCE, "other", needs="modality"),
    Listed("fgsm_linf", fgm, {"norm": "linf"}, "other"),
    Listed("pgd_linf", pgd, ONCE | {"norm": "linf"}, "other"),
    Listed("deepfool", deepfool, {"criterion": "hit1_loss"}, "boundary",
           title="DeepFool: until the top label is a wrong one"),
]  # fmt: skip
"""Every attack that is run under a name, in the order in which the stress test runs them."""

__all__ = [
    "ATTACKS", "OBJECTIVES", "Adapter", "Attack", "AttentionColumns", "Criterion", "Listed", "Norm", "Objective",
    "Scope", "accepted", "apgd", "attention_pgd", "bce", "checked", "deepfool", "dlr", "ensemble", "fgm",
    "fit_universal", "fmn", "hit", "input_gradient", "k_frames", "l2_norm", "margin", "multilabel_deepfool",
    "one_modality", "pgd", "predicted_labels", "project", "random_direction", "square", "steepest", "top_k_ap",
    "transfer", "universal",
]  # fmt: skip
