"""Training losses beyond the paper: controls, published baselines, and defences that keep attention informative.

One loss with switches, so that two models differ in what their names say and in nothing else:

L = clean * L_CE + alpha * D(x + R) + beta * attention - entropy * H + alignment * (1 - cos)

- ``uniform attention``, ``temperature``: the model's, not the loss's (:class:`artpaper.settings.Control`);
- PGD-AT (Madry et al. 2018): clean 0, adversary projected, D the loss of the adversaries;
- TRADES (Zhang et al. 2019) for label sets: adversary projected, consistency: D is the Bernoulli KL divergence between
  the answers to the clean and to the attacked video, which the adversary raises too;
- VAT (Miyato et al. 2018): adversary virtual, consistency, the clean answer held constant;
- GradAlign (Andriushchenko & Flammarion 2020): ART and ``alignment``;
- entropy bonus: H is the entropy of the clean maps' rows over log T; a negative weight sharpens the maps;
- relative attention (ours): the change of a map over its own distance to uniform, so that flattening it gains nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from artpaper.ball import Scope, finite_rows, project, steepest
from artpaper.losses import (
    LossFunction,
    Parts,
    adversarial,
    attention_adversarial,
    attention_change,
    clean_pass,
    cross_entropy,
    guarded,
    mean_bce,
    over_classes,
    step_parts,
)
from artpaper.settings import Control, Loss

FLOOR = 0.01  # added in squares to a map's distance to uniform (1 is the norm of the uniform map), for its gradient
PROBE = 0.1  # length of VAT's first, random step, as a share of epsilon
ALIGNED = 4  # GradAlign looks at one video in so many

Maps = dict[str, Tensor]
Ask = Callable[[Tensor], tuple[Tensor, Maps]]


@dataclass(frozen=True)
class Ball:
    """Where adversaries are looked for: the arguments of :func:`artpaper.ball.steepest`, kept together."""

    epsilon: float
    scope: Scope
    modalities: Mapping[str, int] | None

    def step(self, gradient: Float[Tensor, "batch time dim"], mask: Bool[Tensor, "batch time"]) -> Tensor:
        """The step to the ball's edge along a gradient (batch, time, dim)."""
        return steepest(gradient, mask, epsilon=self.epsilon, scope=self.scope, modalities=self.modalities)

    def back(self, perturbation: Float[Tensor, "batch time dim"], mask: Bool[Tensor, "batch time"]) -> Tensor:
        """The nearest perturbation (batch, time, dim) inside the ball."""
        return project(perturbation, mask, epsilon=self.epsilon, scope=self.scope, modalities=self.modalities)


def loss_for(config: Loss) -> LossFunction:
    """The loss that ``config`` asks for: terms of weight 0 are not computed, and the paper's own take the fast way."""
    if isinstance(config, Control) and _beyond(config):
        return defended
    if config.beta > 0:
        return attention_adversarial
    return adversarial if config.alpha > 0 else cross_entropy


def _beyond(config: Control) -> bool:
    plain = Control(alpha=config.alpha, beta=config.beta)
    switches = (
        "clean",
        "adversary",
        "consistency",
        "attention_adversary",
        "attention_relative",
        "entropy",
        "alignment",
    )
    return any(getattr(config, name) != getattr(plain, name) for name in switches)


@guarded
def defended(
    model: Any,
    x: Float[Tensor, "batch time dim"],
    y: Float[Tensor, "batch classes"],
    mask: Bool[Tensor, "batch time"],
    config: Loss,
) -> tuple[Float[Tensor, ""], Parts]:
    """The loss of a control, a baseline or a defence; every pass of a step drops the same units.

    Args:
        model: ``model(x, mask, return_attention=True) -> (logits, maps)``; with ``modalities`` (name to width) if
            ``config.scope`` is "modality".
        x: frames as the model receives them, unit of the normalised features.
        y: label sets, multi-hot.
        mask: True on real frames.
        config: which terms, and how much of each.
    Returns:
        The loss and its parts as numbers: ``loss``, ``cross_entropy`` (0 if there is no clean pass), ``adversarial``
        (D before alpha), ``attention`` (before beta), and what :func:`artpaper.losses.step_parts` gives.
    Raises:
        TypeError, ValueError: as :func:`artpaper.losses.guarded`, or the widths do not fit.
    Source: section 2 for the first terms; the module's docstring for the others.
    """
    assert isinstance(config, Control)
    draws = torch.get_rng_state()
    noise = torch.Generator(x.device).manual_seed(torch.initial_seed())
    ball = Ball(config.epsilon, config.scope, getattr(model, "modalities", None))

    def ask(frames: Tensor) -> tuple[Tensor, Maps]:
        with _same_units(x, draws):
            return model.with_maps(frames, mask)

    logits: Tensor = x
    maps: Maps = {}
    if config.adversary == "one_step":
        known, gradient, maps = clean_pass(model, x, y, mask, config, with_maps=True)
        perturbation = ball.step(gradient, mask)
    else:
        known = x.new_zeros(())
        if config.clean:
            logits, maps = ask(x)
            known = mean_bce(logits, y, config)
        perturbation, gradient = _search(ask, x, y, mask, logits.detach(), config, ball, noise)
    attacked, attacked_maps = ask(x + perturbation)
    if config.consistency:
        term = bernoulli_divergence(logits.detach() if config.adversary == "virtual" else logits, attacked)
        term = term.mean() * over_classes(y, config)
    else:
        term = mean_bce(attacked, y, config)
    loss = config.clean * known + config.alpha * term
    parts: Parts = {"cross_entropy": known.item(), "adversarial": term.item()}
    if config.beta > 0:
        if config.attention_adversary == "random":
            _, attacked_maps = ask(x + ball.step(_like(x, noise), mask))
        change = relative_change if config.attention_relative else attention_change
        attention = change(maps, attacked_maps, config)
        loss = loss + config.beta * attention
        parts["attention"] = attention.item()
    if config.entropy:
        loss = loss - config.entropy * mean_entropy(maps, mask)
    if config.alignment > 0:
        loss = loss + config.alignment * (1 - _alignment(model, x, y, mask, ball, noise, draws))
    return loss, {"loss": loss.item(), **parts, **step_parts(perturbation, gradient, mask)}


def bernoulli_divergence(
    reference: Float[Tensor, "batch classes"], logits: Float[Tensor, "batch classes"]
) -> Float[Tensor, " batch"]:
    """KL(p || q) of independent Bernoulli labels, averaged over classes, in nats; p and q given by their logits.

    Args:
        reference: logits of p.
        logits: logits of q.
    Returns:
        One divergence a video, at least 0 but for rounding; gradients flow into both.
    Source: Zhang et al. 2019 (TRADES) and Miyato et al. 2018 (VAT), with Bernoulli labels in place of a softmax.
    """
    p = reference.sigmoid()
    divergence = p * (F.logsigmoid(reference) - F.logsigmoid(logits))
    divergence = divergence + (1 - p) * (F.logsigmoid(-reference) - F.logsigmoid(-logits))
    return divergence.mean(dim=-1)


def relative_change(
    clean: dict[str, Float[Tensor, "batch time time"]],
    attacked: dict[str, Float[Tensor, "batch time time"]],
    config: Loss,
) -> Float[Tensor, ""]:
    """Mean over videos of ||A - A_adv||_Fr over ||A - 1/T||_Fr, summed or averaged over modalities.

    A-ART's term falls when a map is flattened, whatever the adversary does; this one does not, for both norms shrink
    alike. With T real frames ||A - 1/T||^2 = ||A||^2 - 1, because every row sums to 1.

    Args:
        clean, attacked: head-averaged maps per modality, zero on padding.
        config: ``attention_modalities``.
    Returns:
        The attention term before beta; exactly 0 for equal maps, finite gradients everywhere.
    """
    ratios = []
    for name, reference in clean.items():
        change = torch.linalg.vector_norm(reference - attacked[name], dim=(-2, -1))  # (B,)
        square = reference.square().sum(dim=(-2, -1)) - 1  # (B,); a video without frames gives -1
        ratios.append(change / (square.clamp(min=0) + FLOOR**2).sqrt())
    per_video = torch.stack(ratios)  # (modalities, B)
    return (per_video.mean(dim=0) if config.attention_modalities == "mean" else per_video.sum(dim=0)).mean()


def mean_entropy(
    maps: dict[str, Float[Tensor, "batch time time"]], mask: Bool[Tensor, "batch time"]
) -> Float[Tensor, ""]:
    """Entropy of the maps' rows over log T, averaged over rows, videos and modalities; 1 for uniform attention.

    Args:
        maps: head-averaged, zero on padding.
        mask: True on real frames; a video of fewer than two has no entropy and counts as 0.
    """
    frames = mask.sum(dim=1).to(next(iter(maps.values())).dtype)  # (B,)
    scale = frames * frames.clamp(min=2).log()
    floor = torch.finfo(torch.float32).tiny
    rows = [-(a * a.clamp(min=floor).log()).sum(dim=(1, 2)) / scale.clamp(min=1) for a in maps.values()]
    return torch.stack(rows).mean()


def _search(
    ask: Ask, x: Tensor, y: Tensor, mask: Tensor, reference: Tensor, config: Control, ball: Ball, noise: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The adversaries' perturbation, held constant, and the last gradient it followed."""
    start = ball.step(_like(x, noise), mask)
    if config.adversary == "virtual":
        gradient = _gradient(ask, x + PROBE * start, y, reference, config)
        return ball.step(gradient, mask), gradient
    # uniform over radii, not over the volume, of which nearly all is surface
    perturbation = start * torch.rand(len(x), 1, 1, generator=noise, dtype=x.dtype, device=x.device)
    gradient = torch.zeros_like(x)
    lost = torch.zeros(len(x), 1, 1, dtype=torch.bool, device=x.device)  # at any of the steps
    for _ in range(config.steps):
        gradient = _gradient(ask, x + perturbation, y, reference, config)
        lost |= ~finite_rows(gradient.masked_fill(~mask[:, :, None], 0.0))[:, None, None]
        perturbation = ball.back(perturbation + min(1.0, 2.5 / config.steps) * ball.step(gradient, mask), mask)
    return perturbation.masked_fill(lost, 0.0), gradient.masked_fill(lost, torch.nan)


def _gradient(ask: Ask, x: Tensor, y: Tensor, reference: Tensor, config: Control) -> Tensor:
    x = x.detach().requires_grad_(True)
    logits, _ = ask(x)
    loss = bernoulli_divergence(reference, logits) if config.consistency else mean_bce(logits, y, config)
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    return gradient


def _alignment(
    model: Any, x: Tensor, y: Tensor, mask: Tensor, ball: Ball, noise: torch.Generator, draws: Tensor
) -> Tensor:
    """Mean cosine of the loss's gradients at a video and at a random point of its ball, on some of the videos."""
    x, y, mask = x[::ALIGNED].detach(), y[::ALIGNED], mask[::ALIGNED]
    direction = ball.step(_like(x, noise), mask)
    radius = torch.rand(len(x), 1, 1, generator=noise, dtype=x.dtype, device=x.device)
    gradients = []
    for frames in (x, x + radius * direction):
        frames.requires_grad_(True)
        with _same_units(x, draws):  # or the cosine would be that of two dropouts
            logits = model(frames, mask)
        loss = F.binary_cross_entropy_with_logits(logits, y.to(logits.dtype), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, frames, create_graph=True)
        gradients.append(gradient.masked_fill(~mask[:, :, None], 0.0).flatten(1))
    near, far = gradients
    return F.cosine_similarity(near, far, dim=1, eps=1e-12).mean()


@contextmanager
def _same_units(x: Tensor, draws: Tensor) -> Iterator[None]:
    """Passes in here drop the units that the generator's state ``draws`` says; it is left as it was."""
    with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
        torch.set_rng_state(draws)
        yield


def _like(x: Tensor, noise: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=noise, dtype=x.dtype, device=x.device)
