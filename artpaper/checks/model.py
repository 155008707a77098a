"""Attack a model modestly, and warn if it answers as models do whose robustness is an illusion."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from artpaper.attacks import Attack, bce, fgm, l2_norm, pgd, predicted_bce, random_direction, square, transfer
from artpaper.ball import Scope
from artpaper.checks.findings import Finding, RobustnessWarning, check_results
from artpaper.inputs import check_options, entered, own_widths, warn
from artpaper.metrics import gap
from artpaper.settings import Count, Natural, Positive

Model = Callable[[Tensor, Tensor], Tensor]


def check_model(
    model: Model,
    x: Float[Tensor, "batch time dim"],
    y: Float[Tensor, "batch classes"],
    mask: Bool[Tensor, "batch time"],
    *,
    epsilon: Positive,
    scope: Scope = "joint",
    modalities: Mapping[str, int] | None = None,
    surrogates: Mapping[str, Model] | None = None,
    steps: Count = 20,
    queries: Count = 200,
    batch_size: Count = 64,
    seed: Natural = 0,
    progress: bool = True,
) -> list[Finding]:
    """Run a few attacks on some videos and warn of every sign that attacks on this model do not work.

    A random step, one step with true and with predicted labels, the projected gradient at epsilon and at twice the
    longest video's norm, and Square: about ``4 * steps + queries`` passes a video. That no check trips says that these
    attacks do their work, not that the model is robust.

    Args:
        model: any callable ``model(x, mask) -> logits (batch, classes)``, in the mode in which it is evaluated.
        x: frames as the model receives them, float (batch, time, dim), unit of the normalised features. A hundred
            videos that the model was not trained on will do.
        y: label sets, multi-hot (batch, classes).
        mask: True on real frames, bool (batch, time).
        epsilon: radius of the ball in which the model is evaluated, same unit as x.
        scope: what one ball spans: "joint" (the video), "modality" or "frame".
        modalities: widths along ``dim`` for scope "modality"; by default the model's own ``modalities``.
        surrogates: other models for the same videos, by name, whose perturbations are shown to this one; without any
            the check ``transfer_beats_white_box`` is not made.
        steps: of the projected gradient.
        queries: of Square.
        batch_size: videos attacked at a time; no result depends on it.
        seed: of the random draws.
        progress: show a progress bar, where tqdm is installed.
    Returns:
        One finding a check that was made, tripped or not, as :func:`check_results` gives them.
    Raises:
        TypeError, ValueError: as :func:`artpaper.attacks.fgm`; epsilon is not positive, there are no videos, or a clean
            loss is not finite.
    Warns:
        RobustnessWarning: once for each finding that tripped.
        UserWarning: the model is in train mode.
    Source: as :func:`check_results`.
    """
    if not len(x):
        raise ValueError("robustness is checked on videos, and x has none")
    with entered(model, x, y, mask) as given:
        ball: dict[str, Any] = {"scope": scope, "modalities": modalities}
        options: dict[str, Any] = {
            "epsilon": epsilon,
            "steps": steps,
            "queries": queries,
            "batch_size": batch_size,
            "seed": seed,
        }
        options = check_options(check_model, options | ball, given.x)
        ball = {name: options.pop(name) for name in ball}
        findings = _findings(*given, ball=ball, surrogates=surrogates or {}, progress=progress, **options)
    for finding in findings:
        if finding.tripped:
            warn(finding.message, RobustnessWarning)
    return findings


def _findings(
    model: Model, x: Tensor, y: Tensor, mask: Tensor, *, epsilon: float, ball: dict[str, Any],
    surrogates: Mapping[str, Model], steps: int, queries: int, batch_size: int, seed: int, progress: bool,
) -> list[Finding]:  # fmt: skip
    ball = ball | {"modalities": ball["modalities"] or own_widths(model, x)}
    longest = l2_norm(x.masked_fill(~mask[:, :, None], 0.0), **ball).max().item()
    ascent = partial(pgd, steps=steps, seed=seed, **ball)
    still = partial(random_direction, epsilon=0.0)
    attacks: dict[str, Callable[..., Attack]] = {
        "clean": still,
        "clean_again": still,
        "random": partial(random_direction, epsilon=epsilon, seed=seed, **ball),
        "one_step": partial(fgm, epsilon=epsilon, **ball),
        "one_step_predicted": partial(fgm, epsilon=epsilon, objective=predicted_bce, **ball),
        "pgd": partial(ascent, epsilon=epsilon),
        "far": partial(ascent, epsilon=2 * longest),  # all the other videos lie inside this ball
        "square": partial(square, epsilon=epsilon, queries=queries, seed=seed, **ball),
    }
    for name, surrogate in surrogates.items():
        attacks[f"transfer_{name}"] = partial(transfer, surrogate=surrogate, attack=attacks["pgd"])

    batches = list(zip(*(part.split(batch_size) for part in (x, y, mask)), strict=True))
    results: dict[str, list[Attack]] = {name: [] for name in attacks}
    for name, batch in _shown([(name, batch) for name in attacks for batch in batches], progress):
        results[name].append(attacks[name](model, *batch))
    flags = {name: torch.cat([_lost(part) for part in parts]) for name, parts in results.items()}
    clean = torch.cat([part.clean_logits for part in results["clean"]])
    # no result: the answer to the clean video, which no check takes for an attack that has failed
    logits = {
        name: torch.where(flags[name][:, None], clean, torch.cat([part.adversarial_logits for part in parts]))
        for name, parts in results.items()
    }
    losses = {name: bce(answer.double(), y.double()).cpu().numpy() for name, answer in logits.items()}
    gradient_norm = torch.cat([part.diagnostics["gradient_norm"] for part in results["one_step"]])
    # below this a step of length epsilon would not move the term of a single class by a rounding error
    zero_gradient = epsilon * gradient_norm < torch.finfo(x.dtype).eps / y.shape[1]
    last = -(y.flatten().cumsum(0).view_as(y) * y)  # every true label after all others, no two tied
    return check_results(
        losses,
        {"one_step": zero_gradient.cpu().numpy()},
        {radius: gap(logits[name], y) for name, radius in (("clean", 0.0), ("pgd", epsilon), ("far", 2 * longest))},
        lowest_gap=gap(last, y),
        not_finite={name: flag.cpu().numpy() for name, flag in flags.items()},
    )


def _lost(attack: Attack) -> Tensor:
    return attack.diagnostics["gradient_not_finite"] | attack.diagnostics["logits_not_finite"]


def _shown(jobs: list[tuple[str, tuple[Tensor, ...]]], progress: bool) -> Iterable[tuple[str, tuple[Tensor, ...]]]:
    try:
        from tqdm import tqdm  # the library alone is installed without it
    except ImportError:
        return jobs
    return tqdm(jobs, "check", unit="batch", disable=not progress)
