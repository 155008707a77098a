"""The attacks that the explorer offers."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from artpaper.attacks import ATTACKS as LISTED
from artpaper.attacks import Attack, Listed, accepted, fgm, random_direction
from artpaper.models import FrameTransformer
from pipeline.base.parameters import Params


@dataclass(frozen=True)
class Choice:
    """An attack to choose: what a reader calls it, how it is run, and whether epsilon is its radius.

    ``run`` is called as ``run(model, x, y, mask, epsilon, params)``; a search tries it on ``searched`` videos at most;
    ``straight`` says that a larger epsilon only goes further the same way, so that the way need not be found again.
    """

    title: str
    run: Callable[[FrameTransformer, Tensor, Tensor, Tensor, float, Params], Attack]
    takes_epsilon: bool = True
    searched: int = 512
    straight: bool = False


def choices() -> dict[str, Choice]:
    """The listed attacks that have a title, the control last; of those that search only a few videos are tried."""
    offered = sorted((listed for listed in LISTED if listed.title), key=lambda listed: listed.kind == "noise")
    return {
        listed.name: Choice(
            listed.title, partial(_run, listed), listed.kind != "boundary",
            64 if accepted(listed.attack) & {"steps", "queries"} else 512,
            listed.attack in (fgm, random_direction),
        )
        for listed in offered
    }  # fmt: skip


def _run(
    listed: Listed, model: FrameTransformer, x: Tensor, y: Tensor, mask: Tensor, epsilon: float, params: Params
) -> Attack:
    settings = {"epsilon": epsilon, "scope": params.attack.scope, "seed": params.base.seed}
    group = params.deepfool if listed.kind == "boundary" else params.stress
    return listed.attack(model, x, y, mask, **listed.bound(vars(group) | settings))


ATTACKS = choices()
