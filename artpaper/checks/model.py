"""Attack a model modestly, and warn if it answers as models do whose robustness is an illusion."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from artpaper.attacks import ATTACKS, Attack, bce, l2_norm, random_direction, transfer
from artpaper.ball import Scope
from artpaper.checks.findings import Finding, RobustnessWarning, check_results
from artpaper.guarded import warn
from artpaper.inputs import check_options, entered, own_widths
from artpaper.metrics import gap
from artpaper.settings import Count, Natural, Positive
from artpaper.shapes import Classifier, Frames, LabelSets, Mask, Widths


def check_model(
    model: Classifier, x: Frames, y: LabelSets, mask: Mask, *, epsilon: Positive, scope: Scope = "joint",
    modalities: Widths | None = None, surrogates: Mapping[str, Classifier] | None = None, steps: Count = 20,
    queries: Count = 200, batch_size: Count = 64, seed: Natural = 0, progress: bool = True,
) -> list[Finding]:  # fmt: skip
    """Run a few attacks on some videos and warn of every sign that attacks on this model do not work.

    A random step, one step with true and with predicted labels, the projected gradient at epsilon and at twice the
    longest video's norm, and Square: about ``4 * steps + queries`` passes a video. That no check trips says that these
    attacks do their work, not that the model is robust.

    Args:
        model: as for :func:`artpaper.attacks.fgm`, in the mode in which it is evaluated.
        x: frames, unit of the normalised features; a hundred videos that the model was not trained on will do.
        y, mask, scope, modalities: as for :func:`artpaper.attacks.fgm`.
        epsilon: radius of the ball in which the model is evaluated, same unit as x.
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
        TypeError, ValueError: as :func:`artpaper.attacks.fgm`; there are no videos, or a clean loss is not finite.
    Warns:
        RobustnessWarning: once for each finding that tripped.
    """
    if not len(x):
        raise ValueError("robustness is checked on videos, and x has none")
    settings: dict[str, Any] = {
        "epsilon": epsilon, "scope": scope, "modalities": modalities, "steps": steps, "queries": queries,
        "batch_size": batch_size, "seed": seed,
    }  # fmt: skip
    with entered(model, x, y, mask) as given:
        settings = check_options(check_model, settings, given.x)
        settings["modalities"] = settings["modalities"] or own_widths(given.model, given.x)
        findings = _findings(*given, settings=settings, surrogates=surrogates or {}, progress=progress)
    for finding in findings:
        if finding.tripped:
            warn(finding.message, RobustnessWarning)
    return findings


def _findings(
    model: Classifier, x: Tensor, y: Tensor, mask: Tensor, *, settings: dict[str, Any],
    surrogates: Mapping[str, Classifier], progress: bool,
) -> list[Finding]:  # fmt: skip
    epsilon = settings["epsilon"]
    real = x.masked_fill(~mask[:, :, None], 0.0)
    longest = l2_norm(real, settings["scope"], settings["modalities"]).max().item()
    still = partial(random_direction, epsilon=0.0)
    attacks = {"clean": still, "clean_again": still}
    attacks |= {listed.name: partial(listed.attack, **listed.bound(settings)) for listed in ATTACKS if listed.checks}
    attacks["far"] = partial(attacks["pgd"], epsilon=2 * longest)  # all the other videos lie inside this ball
    for name, surrogate in surrogates.items():
        attacks[f"transfer_{name}"] = partial(transfer, surrogate=surrogate, attack=attacks["pgd"])

    batches = list(zip(*(part.split(settings["batch_size"]) for part in (x, y, mask)), strict=True))
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
