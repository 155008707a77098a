"""Every attack of the stress test by name, and what each may do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from artpaper.attacks import ATTACKS, Attack, deepfool, ensemble, fmn, pgd, transfer
from artpaper.models import FrameTransformer
from pipeline.base.parameters import Params

Run = Callable[[FrameTransformer, Tensor, Tensor, Tensor], Attack]


@dataclass(frozen=True)
class Planned:
    """One attack and what it may do."""

    run: Run
    epsilon: float | int | None  # radius of its ball, unit of the normalised features; half a cube's side; no ball
    passes: int | float  # forward-backward passes that it spends on a video; a forward pass alone counts a third
    member: bool = True  # whether it stays in the L2 ball of the stress test and the ensemble takes it in


def plan(
    params: Params, surrogates: Mapping[str, FrameTransformer], common: Callable[[], Tensor],
    modalities: Mapping[str, int],
) -> dict[str, Planned]:  # fmt: skip
    """The attacks on one model by name, which is that of their file, in the order in which they are run.

    ``surrogates`` are the models that transfer attacks are made on, ``modalities`` those of the model, each attacked
    alone too where there are several. ``common`` gives one perturbation for all videos (time, dim), in the unit of the
    normalised features; it is asked when that attack runs, for it has to be fitted first.
    """
    stress, scope = params.stress, params.attack.scope
    settings = {"scope": scope, "steps": stress.steps, "restarts": stress.restarts, "queries": stress.queries}
    planned: dict[str, Planned] = {}
    for listed in ATTACKS:
        if listed.kind == "boundary":
            continue
        in_cube = listed.options.get("norm") == "linf"
        epsilon = _corner(params, sum(modalities.values())) if in_cube else radius(params)
        options = listed.bound(settings | {"epsilon": epsilon})
        run, passes = partial(listed.attack, **options), listed.passes(options)
        if listed.needs == "modality":
            for name in modalities if len(modalities) > 1 else ():
                planned[f"{listed.name}_{name}"] = Planned(partial(run, modality=name), epsilon, passes)
        elif listed.needs == "surrogate":
            if surrogates:
                search = partial(pgd, epsilon=epsilon, scope=scope, steps=stress.steps)
                run = partial(_transferred, surrogates=surrogates, attack=search)
                planned[listed.name] = Planned(run, epsilon, stress.steps * len(surrogates))
        else:
            run = partial(_fitted, attack=run, common=common) if listed.needs == "perturbation" else run
            planned[listed.name] = Planned(run, epsilon, passes)
    return planned


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


def _fitted(
    model: FrameTransformer, x: Tensor, y: Tensor, mask: Tensor, attack: Callable[..., Attack],
    common: Callable[[], Tensor],
) -> Attack:  # fmt: skip
    return attack(model, x, y, mask, perturbation=common())


def _transferred(
    model: FrameTransformer, x: Tensor, y: Tensor, mask: Tensor, surrogates: Mapping[str, FrameTransformer], attack: Run
) -> Attack:
    """Of every video the transferred attack that harms it most; fooled, if any of them fools the model."""
    attacks = {name: transfer(model, x, y, mask, surrogate=other, attack=attack) for name, other in surrogates.items()}
    return ensemble(attacks, y)[0]


def radius(params: Params) -> float:
    """The ball of the stress test, in the unit of the normalised features."""
    return params.attack.epsilon if params.stress.epsilon is None else params.stress.epsilon


def _corner(params: Params, dim: int) -> float:
    """Half the side of the largest cube inside the L2 ball of a video of full length."""
    return radius(params) / (params.features.max_frames * dim) ** 0.5
