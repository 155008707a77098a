"""Every attack of the stress test by name, and what each may cost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from artpaper.attacks import (
    OBJECTIVES,
    Attack,
    apgd,
    attention_pgd,
    fgm,
    fmn,
    k_frames,
    one_modality,
    pgd,
    predicted_bce,
    random_direction,
    square,
    transfer,
    universal,
)
from artpaper.config import Params
from artpaper.models import FrameTransformer

ADAPTIVE = 0.1  # what the change of attention counts beside the loss, both of which are some hundredths
SEARCHED = ("bce", "margin", "dlr", "top_k_ap")  # the objectives that APGD raises
Run = Callable[[FrameTransformer, Tensor, Tensor, Tensor], Attack]


@dataclass(frozen=True)
class Planned:
    """One attack: how it is run, and whether it searches the same ball and so is a member of the ensemble.

    Attributes:
        run: the attack on ``(model, x, y, mask)``.
        member: whether the ensemble takes it in.
        passes: forward-backward passes that it spends on a video; a forward pass alone counts a third.
    """

    run: Run
    member: bool
    passes: float


def plan(params: Params, surrogates: Mapping[str, FrameTransformer], common: Tensor) -> dict[str, Planned]:
    """The attacks on one model by name, weakest first, in the order in which they are run.

    Args:
        params: all parameters; group ``stress`` says how long each attack searches.
        surrogates: the models that transfer attacks are made on.
        common: one perturbation for all videos (time, dim), in the unit of the normalised features.
    """
    stress, epsilon, scope = params.stress, radius(params), params.attack.scope
    steps, corner = stress.steps, _corner(params, common.shape[-1])
    one_step = partial(fgm, epsilon=epsilon, scope=scope)
    search = partial(pgd, epsilon=epsilon, scope=scope, steps=steps)
    adaptive = partial(attention_pgd, epsilon=epsilon, scope=scope, steps=steps, weight=ADAPTIVE)
    found = {
        "random": Planned(partial(random_direction, epsilon=epsilon, scope=scope), True, 1 / 3),
        "universal": Planned(partial(universal, perturbation=common, epsilon=epsilon, scope=scope), True, 1 / 3),
        "one_step": Planned(one_step, True, 1),
        "one_step_predicted": Planned(partial(one_step, objective=predicted_bce), True, 1),
        "pgd": Planned(partial(search, restarts=stress.restarts), True, steps * stress.restarts),
        "pgd_predicted": Planned(partial(search, objective=predicted_bce), True, steps),
        "attention_maps": Planned(partial(adaptive, over="maps"), True, steps),
        "attention_scores": Planned(partial(adaptive, over="scores"), True, steps),
        "frames_1": Planned(partial(k_frames, frames=1, epsilon=epsilon, scope=scope, steps=steps), True, steps),
        "linf_one_step": Planned(partial(fgm, epsilon=corner, norm="linf"), True, 1),
        "linf_pgd": Planned(partial(pgd, epsilon=corner, norm="linf", steps=steps), True, steps),
        "square": Planned(
            partial(square, epsilon=epsilon, scope=scope, queries=stress.queries), True, stress.queries / 3
        ),
    }
    for name in SEARCHED:
        objective = partial(apgd, epsilon=epsilon, scope=scope, steps=steps, objective=OBJECTIVES[name])
        found[f"apgd_{name}"] = Planned(objective, True, steps)
    for name, surrogate in surrogates.items():
        found[f"transfer_{name}"] = Planned(partial(transfer, surrogate=surrogate, attack=search), True, steps)
    modalities = next(iter(surrogates.values())).modalities if surrogates else {}
    if len(modalities) > 1:
        for name in modalities:
            only = partial(one_modality, modality=name, epsilon=epsilon, scope=scope, steps=steps)
            found[f"only_{name}"] = Planned(only, True, steps)
    found["minimum_norm"] = Planned(partial(fmn, criterion="hit1_loss", steps=2 * steps), False, 2 * steps)
    return found


def sweeps(params: Params) -> dict[str, Planned]:
    """The same attack at other radii, and for other numbers of steps: ``epsilon_<value>`` and ``steps_<value>``."""
    stress, scope = params.stress, params.attack.scope
    found = {
        f"epsilon_{epsilon:g}": Planned(
            partial(pgd, epsilon=epsilon, scope=scope, steps=stress.steps), False, stress.steps
        )
        for epsilon in stress.epsilons
    }
    return found | {
        f"steps_{steps}": Planned(partial(pgd, epsilon=radius(params), scope=scope, steps=steps), False, steps)
        for steps in stress.step_counts
    }


def radius(params: Params) -> float:
    """The ball of the stress test, in the unit of the normalised features."""
    return params.attack.epsilon if params.stress.epsilon is None else params.stress.epsilon


def _corner(params: Params, dim: int) -> float:
    """Half the side of the largest cube inside the L2 ball of a video of full length."""
    return radius(params) / (params.features.max_frames * dim) ** 0.5
