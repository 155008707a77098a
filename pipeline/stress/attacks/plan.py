"""Every attack of the stress test by name, and what each may do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from artpaper.attacks import (
    OBJECTIVES,
    Attack,
    apgd,
    attention_pgd,
    deepfool,
    ensemble,
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
from artpaper.ball import Scope
from artpaper.models import FrameTransformer
from pipeline.base.parameters import Params

SEARCHED = ("bce", "margin", "dlr", "top_k_ap")  # the objectives that APGD raises
Run = Callable[[FrameTransformer, Tensor, Tensor, Tensor], Attack]


@dataclass(frozen=True)
class Planned:
    """One attack and what it may do."""

    run: Run
    epsilon: float | int | None  # radius of its ball, unit of the normalised features; half a cube's side; no ball
    passes: int | float  # forward-backward passes that it spends on a video; a forward pass alone counts a third
    member: bool = True  # whether it stays in the L2 ball of the stress test and the ensemble takes it in


def plan(
    params: Params,
    surrogates: Mapping[str, FrameTransformer],
    common: Callable[[], Tensor],
    modalities: Mapping[str, int],
) -> dict[str, Planned]:
    """The attacks on one model by name, which is that of their file, in the order in which they are run.

    ``surrogates`` are the models that transfer attacks are made on, ``modalities`` those of the model, each attacked
    alone too where there are several. ``common`` gives one perturbation for all videos (time, dim), in the unit of the
    normalised features; it is asked when that attack runs, for it has to be fitted first.
    """
    stress, epsilon, scope = params.stress, radius(params), params.attack.scope
    steps, corner = stress.steps, _corner(params, sum(modalities.values()))
    one_step = partial(fgm, epsilon=epsilon, scope=scope)
    search = partial(pgd, epsilon=epsilon, scope=scope, steps=steps)
    adaptive = partial(attention_pgd, epsilon=epsilon, scope=scope, steps=steps)
    runs: dict[str, tuple[Run, int | float]] = {
        "random": (partial(random_direction, epsilon=epsilon, scope=scope), 1 / 3),
        "universal": (partial(_universal, common=common, epsilon=epsilon, scope=scope), 1 / 3),
        "one_step": (one_step, 1),
        "one_step_predicted": (partial(one_step, objective=predicted_bce), 1),
        "pgd": (partial(search, restarts=stress.restarts), steps * stress.restarts),
        "pgd_predicted": (partial(search, objective=predicted_bce), steps),
        "attention_maps": (partial(adaptive, over="maps", weight=0.1), 2 * steps),
        "attention_scores": (partial(adaptive, over="scores", weight=0.01), 2 * steps),
        "frames_1": (partial(k_frames, frames=1, epsilon=epsilon, scope=scope, steps=steps), steps),
        "square": (partial(square, epsilon=epsilon, scope=scope, queries=stress.queries), stress.queries / 3),
    }
    for name in SEARCHED:
        ascend = partial(apgd, epsilon=epsilon, scope=scope, steps=steps, restarts=stress.restarts)
        runs[f"apgd_{name}"] = (partial(ascend, objective=OBJECTIVES[name]), steps * stress.restarts)
    if surrogates:
        runs["transfer"] = (partial(_transferred, surrogates=surrogates, attack=search), steps * len(surrogates))
    if len(modalities) > 1:
        for name in modalities:
            only = partial(one_modality, modality=name, epsilon=epsilon, scope=scope, steps=steps)
            runs[f"only_{name}"] = (only, steps)
    return {name: Planned(run, epsilon, passes) for name, (run, passes) in runs.items()} | {
        "fgsm_linf": Planned(partial(fgm, epsilon=corner, norm="linf"), corner, 1),
        "pgd_linf": Planned(partial(pgd, epsilon=corner, norm="linf", steps=steps), corner, steps),
    }


def sweeps(params: Params) -> dict[str, Planned]:
    """The same attack at other radii, and for other numbers of steps: ``epsilon_<value>`` and ``steps_<value>``."""
    scope, steps = params.attack.scope, params.stress.steps
    attacks = {}
    for epsilon in params.stress.epsilons:
        run = partial(pgd, epsilon=epsilon, scope=scope, steps=steps)
        attacks[f"epsilon_{epsilon:g}"] = Planned(run, epsilon, steps, member=False)
    for count in params.stress.step_counts:
        run = partial(pgd, epsilon=radius(params), scope=scope, steps=count)
        attacks[f"steps_{count}"] = Planned(run, radius(params), count, member=False)
    return attacks


def minimum_norm(params: Params) -> Planned:
    """The shortest way to a wrong top label, which no ball bounds."""
    steps = 2 * params.stress.steps
    return Planned(partial(_shortest, steps=steps), None, steps, member=False)


def _shortest(model: FrameTransformer, x: Tensor, y: Tensor, mask: Tensor, steps: int) -> Attack:
    """FMN from DeepFool's result, so that it is never further."""
    start = deepfool(model, x, y, mask, criterion="hit1_loss").perturbation
    return fmn(model, x, y, mask, criterion="hit1_loss", steps=steps, start=start)


def _universal(
    model: FrameTransformer,
    x: Tensor,
    y: Tensor,
    mask: Tensor,
    common: Callable[[], Tensor],
    epsilon: float,
    scope: Scope,
) -> Attack:
    return universal(model, x, y, mask, perturbation=common(), epsilon=epsilon, scope=scope)


def _transferred(
    model: FrameTransformer, x: Tensor, y: Tensor, mask: Tensor, surrogates: Mapping[str, FrameTransformer], attack: Run
) -> Attack:
    """Of every video the transferred attack that harms it most."""
    attacks = {name: transfer(model, x, y, mask, surrogate=other, attack=attack) for name, other in surrogates.items()}
    return ensemble(attacks, y)[0]


def radius(params: Params) -> float:
    """The ball of the stress test, in the unit of the normalised features."""
    return params.attack.epsilon if params.stress.epsilon is None else params.stress.epsilon


def _corner(params: Params, dim: int) -> float:
    """Half the side of the largest cube inside the L2 ball of a video of full length."""
    return radius(params) / (params.features.max_frames * dim) ** 0.5
