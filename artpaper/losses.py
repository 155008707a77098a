"""The training losses, functions of a model and a batch: the paper's three, one with all defences, and which is taken.

Each costs what it must and no more: the clean pass is differentiated once, for the parameters and for the input
together, so ART takes two forward-backward passes and not three. The scalar that comes back is used like any other
loss (``loss.backward()``); the part of its gradient that is already known is handed over, not computed again.

To add a loss: its switch in :class:`artpaper.settings.Control`, its idea in a file of :mod:`artpaper.defences`, and its
term in :func:`defended`, or a function of its own in :data:`LOSSES`, which :func:`loss_for` reads.
"""

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from artpaper.ball import finite_rows, l2_norm, steepest
from artpaper.defences.alignment import alignment
from artpaper.defences.consistency import bernoulli_divergence
from artpaper.defences.contrastive_attention import distance_to_next
from artpaper.defences.entropy import mean_entropy
from artpaper.defences.projected import projected
from artpaper.defences.random_step import random_step, same_units
from artpaper.defences.relative_attention import distance_to_uniform
from artpaper.defences.virtual import virtual
from artpaper.guarded import Guarded
from artpaper.inputs import entered
from artpaper.kept import forked
from artpaper.known_gradient import gone_back
from artpaper.settings import Control, Loss
from artpaper.shapes import Frames, LabelSets, Logits, Maps, Mask, PerVideo, Scalar

Parts = dict[str, Scalar]
COUNTED = ("zero_gradients", "gradients_not_finite")  # sums over the videos of a batch; the other parts are means
PARTS = ("loss", "cross_entropy", "adversarial", "attention", "perturbation_norm", *COUNTED)
"""What a loss says of itself, as far as it has it: ``adversarial`` is before alpha, ``attention`` before beta;
``perturbation_norm`` is ||R||_2; ``zero_gradients`` are videos that the attack could not move, ``gradients_not_finite``
those whose gradient is NaN or infinite on a real frame, which are not moved. They stay on the device, for to fetch one
is to wait for it: ``float(part)`` does."""
Distance = Callable[[Maps], dict[str, PerVideo]]  # of every video's clean map, per modality
LossFunction = Callable[[Any, Tensor, Tensor, Tensor, Loss], tuple[Tensor, Parts]]
ADVERSARIES = {"projected": projected, "virtual": virtual}  # how they are found; "one_step" is the paper's own way


def guarded(loss: LossFunction) -> LossFunction:
    """A loss of a :class:`torch.nn.Module` whose frames, label sets and mask are checked first, as an attack's are.

    Under :func:`torch.no_grad` it is a plain number; the gradients that a loss needs itself are taken all the same.

    Raises:
        TypeError: the model is no module; or as of an attack.
        ValueError: there are no videos, x requires a gradient, which none of its own would reach; or as of an attack.
    """

    @functools.wraps(loss)
    def checked(model: nn.Module, x: Tensor, y: Tensor, mask: Tensor, config: Loss) -> tuple[Tensor, Parts]:
        wanted = torch.is_grad_enabled()
        if not isinstance(model, nn.Module | Guarded):
            raise TypeError(f"a loss trains a torch.nn.Module, not a {type(model).__name__}")
        if wanted and isinstance(x, Tensor) and x.requires_grad:
            raise ValueError(
                "x requires a gradient, and none flows from a loss to x: make what computes x a part of the model, or "
                "pass x.detach()"
            )
        with entered(model, x, y, mask, training=True) as given:
            if not len(given.x):
                raise ValueError("a loss is a mean over videos, and x has none")
            value, parts = loss(*given, config)
        return value if wanted else value.detach(), parts

    return checked


@guarded
def cross_entropy(model: Any, x: Frames, y: LabelSets, mask: Mask, config: Loss) -> tuple[Scalar, Parts]:
    """L_CE (Eq. 1): binary cross-entropy of the clean videos, averaged over the batch.

    Args:
        model: ``model(x, mask) -> logits``.
        x: frames as the model receives them, unit of the normalised features.
        y: label sets, multi-hot.
        mask: True on real frames.
        config: ``bce_reduction`` says whether classes are averaged or summed.
    Returns:
        The loss, and its parts, those of :data:`PARTS` that it has, without their graph.
    """
    loss = _mean_bce(model(x, mask), y, config)
    return loss, {"loss": loss.detach(), "cross_entropy": loss.detach()}


@guarded
def adversarial(model: Any, x: Frames, y: LabelSets, mask: Mask, config: Loss) -> tuple[Scalar, Parts]:
    """L_out,Adv (Eq. 2): L_CE + alpha * the loss of the one-step adversaries, whose R is held constant.

    Args:
        model: as in :func:`cross_entropy`; with ``modalities`` (name to width) if ``config.scope`` is "modality".
        x, y, mask: as in :func:`cross_entropy`.
        config: ``alpha``, ``epsilon`` (same unit as x), ``scope``, ``bce_reduction``.
    Returns:
        As :func:`cross_entropy`.
    Source: Eq. 2-4; R is detached as in Goodfellow et al. 2015 and Miyato et al. 2018.
    """
    known, gradient, _ = _clean_pass(model, x, y, mask, config, with_maps=False)
    perturbation = steepest(gradient, mask, **_ball(model, config))
    attacked = _mean_bce(model(x + perturbation, mask), y, config)
    loss = known + config.alpha * attacked
    parts = {"loss": loss, "cross_entropy": known, "adversarial": attacked}
    return loss, _detached(parts) | _step_parts(perturbation, gradient, mask)


@guarded
def attention_adversarial(model: Any, x: Frames, y: LabelSets, mask: Mask, config: Loss) -> tuple[Scalar, Parts]:
    """L_(out,att),Adv (section 2.2): L_out,Adv + beta * the Frobenius norm of the change of the attention maps.

    Args:
        model: ``model(x, mask, return_attention=True) -> (logits, maps)``.
        x, y, mask: as in :func:`cross_entropy`.
        config: as in :func:`adversarial`, and ``beta`` and what :func:`attention_change` takes.
    Returns:
        As :func:`cross_entropy`.
    Raises:
        ValueError: as :func:`cross_entropy`; its maps are not (batch, time, time).
    """
    known, gradient, maps = _clean_pass(model, x, y, mask, config, with_maps=True)
    perturbation = steepest(gradient, mask, **_ball(model, config))
    logits, adversarial_maps = model.with_maps(x + perturbation, mask)
    attacked = _mean_bce(logits, y, config)
    attention = attention_change(maps, adversarial_maps, config)
    loss = known + config.alpha * attacked + config.beta * attention
    parts = {"loss": loss, "cross_entropy": known, "adversarial": attacked, "attention": attention}
    return loss, _detached(parts) | _step_parts(perturbation, gradient, mask)


def attention_change(clean: Maps, attacked: Maps, config: Loss, distance: Distance | None = None) -> Scalar:
    """The attention term: mean over videos of ||A - A_adv||_Fr, summed or averaged over modalities.

    Args:
        clean, attacked: head-averaged maps per modality, zero on padding.
        config: ``attention_modalities``, ``attention_squared``, ``attention_detach_clean``.
        distance: of the clean maps, what each norm is divided by; the paper's term is undivided.
    Returns:
        The term before beta; exactly 0 for equal maps, its gradient finite everywhere (0 there).
    Raises:
        ValueError: maps of other shapes; those of every head would be averaged after their norms.
    Source: section 2.2, the norm unsquared as printed.
    """
    if config.attention_detach_clean:
        clean = {name: maps.detach() for name, maps in clean.items()}
    distances = distance(clean) if distance else {}
    norms = []
    for name, maps in clean.items():
        if maps.ndim != 3 or maps.shape != attacked[name].shape:
            shapes = f"{tuple(maps.shape)} and {tuple(attacked[name].shape)}"
            raise ValueError(f"maps {name!r} are {shapes}; needed are two (batch, time, time), the mean over heads")
        # vector_norm, not sqrt(sum of squares): its gradient at 0 is 0, not NaN
        norm = torch.linalg.vector_norm(maps - attacked[name], dim=(-2, -1))  # (B,)
        norm = norm / distances[name] if distances else norm
        norms.append(norm.square() if config.attention_squared else norm)
    per_video = torch.stack(norms)  # (modalities, B)
    return (per_video.mean(dim=0) if config.attention_modalities == "mean" else per_video.sum(dim=0)).mean()


@guarded
def defended(model: Any, x: Frames, y: LabelSets, mask: Mask, config: Loss) -> tuple[Scalar, Parts]:
    """The loss of a control, a baseline or a defence: one with switches, so that two models differ in what they say.

    L = clean * L_CE + alpha * D(x + R) + beta * attention - entropy * H + alignment * (1 - cos), where the adversary R
    and the terms are those of :mod:`artpaper.defences`. Every pass of a step drops the same units.

    Args:
        model: as in :func:`attention_adversarial`; with ``modalities`` (name to width) if scope is "modality".
        x, y, mask: as in :func:`cross_entropy`.
        config: a :class:`artpaper.settings.Control`: which terms, and how much of each.
    Returns:
        As :func:`cross_entropy`; the part of that name is 0 without a clean pass, and ``adversarial`` is D.
    Raises:
        ValueError: as :func:`cross_entropy`; its maps are not (batch, time, time).
    """
    assert isinstance(config, Control)
    draws = torch.get_rng_state()
    noise = torch.Generator(x.device).manual_seed(torch.initial_seed())
    ball = _ball(model, config)

    def ask(frames: Tensor) -> tuple[Tensor, Maps]:
        with same_units(x, draws):
            return model.with_maps(frames, mask)

    logits: Tensor = x
    maps: Maps = {}
    if config.adversary == "one_step":
        known, gradient, maps = _clean_pass(model, x, y, mask, config, with_maps=True)
        perturbation = steepest(gradient, mask, **ball)
    else:
        known = x.new_zeros(())
        if config.clean:
            logits, maps = ask(x)
            known = _mean_bce(logits, y, config)
        reference = logits.detach()

        def slope(frames: Tensor) -> Tensor:
            frames = frames.detach().requires_grad_(True)
            answer, _ = ask(frames)
            loss = bernoulli_divergence(reference, answer) if config.consistency else _mean_bce(answer, y, config)
            return torch.autograd.grad(loss.sum() * _raised(x, y, config), frames)[0]

        perturbation, gradient = ADVERSARIES[config.adversary](slope, x, mask, ball, noise, config.steps)
    attacked, attacked_maps = ask(x + perturbation)
    if config.consistency:
        term = bernoulli_divergence(logits.detach() if config.adversary == "virtual" else logits, attacked)
        term = term.mean() * _over_classes(y, config)
    else:
        term = _mean_bce(attacked, y, config)
    loss = config.clean * known + config.alpha * term
    parts: Parts = {"cross_entropy": known, "adversarial": term}
    if config.beta > 0:
        if config.attention_adversary == "random":
            _, attacked_maps = ask(x + random_step(x, mask, ball, noise))
        distance: Distance | None = distance_to_uniform if config.attention_relative else None
        if config.attention_contrast:
            distance = functools.partial(distance_to_next, mask=mask)
        attention = attention_change(maps, attacked_maps, config, distance)
        loss = loss + config.beta * attention
        parts["attention"] = attention
    if config.entropy:
        loss = loss - config.entropy * mean_entropy(maps, mask)
    if config.alignment > 0:
        loss = loss + config.alignment * (1 - alignment(model, x, y, mask, ball, noise, draws))
    # or the next step would drop these units again and draw this noise again, for every pass left the generators alone
    torch.manual_seed(int(torch.randint(2**62, (), device="cpu")))
    return loss, _detached({"loss": loss, **parts}) | _step_parts(perturbation, gradient, mask)


def _is_switched(config: Loss) -> bool:
    """Whether a switch of a control's own is on; its temperature is the model's."""
    own = {field.name for field in fields(Control)} - {field.name for field in fields(Loss)} - {"temperature"}
    return isinstance(config, Control) and any(getattr(config, name) != getattr(Control(), name) for name in own)


LOSSES: tuple[tuple[Callable[[Loss], bool], LossFunction], ...] = (
    (_is_switched, defended),
    (lambda config: config.beta > 0, attention_adversarial),
    (lambda config: config.alpha > 0, adversarial),
    (lambda config: True, cross_entropy),
)
"""Every loss, and which configurations ask for it: the first that says yes is taken."""


def loss_for(config: Loss) -> LossFunction:
    """The loss that ``config`` asks for: terms of weight 0 are not computed, and the paper's own take the fast way."""
    return next(loss for asks, loss in LOSSES if asks(config))


def _clean_pass(
    model: Any, x: Frames, y: LabelSets, mask: Mask, config: Loss, *, with_maps: bool
) -> tuple[Scalar, Frames, Maps]:
    """One forward and one backward pass for all that the clean videos give; the next pass drops the same units.

    That is L_CE with its parameter gradient attached; dL_CE/dx, not masked, in some unit; and the maps, if wanted.
    """
    model = Guarded(model, y.shape[1])
    x = x.detach().requires_grad_(True)
    with forked(x.device):
        logits, maps = model.with_maps(x, mask) if with_maps else (model(x, mask), {})
    loss = _mean_bce(logits, y, config)
    known, gradient = gone_back(loss, x, model.parameters(), keep=with_maps, scale=_raised(x, y, config))
    return known, gradient, maps


def _step_parts(perturbation: Frames, gradient: Frames, mask: Mask) -> Parts:
    """The parts that are about R and the gradient that it was found along."""
    gradient = gradient.masked_fill(~mask[:, :, None], 0.0)
    silent = gradient.flatten(1).abs().amax(dim=1) == 0
    counts = {"zero_gradients": silent.sum(), "gradients_not_finite": (~finite_rows(gradient)).sum()}
    return {"perturbation_norm": l2_norm(perturbation).mean()} | {k: n.to(gradient.dtype) for k, n in counts.items()}


def _detached(parts: Parts) -> Parts:
    return {name: part.detach() for name, part in parts.items()}


def _mean_bce(logits: Logits, y: LabelSets, config: Loss) -> Scalar:
    """The paper's l averaged over videos, and over classes averaged or summed as ``config.bce_reduction`` says."""
    return F.binary_cross_entropy_with_logits(logits, y.to(logits.dtype)) * _over_classes(y, config)


def _over_classes(y: Tensor, config: Loss) -> int:
    """What turns a mean over classes into what ``config.bce_reduction`` asks for."""
    return y.shape[-1] if config.bce_reduction == "sum" else 1


def _raised(x: Frames, y: LabelSets, config: Loss) -> float:
    """What a gradient is multiplied by that goes back before a scaler of the loss is asked: it is 0 in float16."""
    half = torch.is_autocast_enabled(x.device.type) and torch.get_autocast_dtype(x.device.type) == torch.float16
    return y.numel() / _over_classes(y, config) if half else 1.0


def _ball(model: Any, config: Loss) -> dict[str, Any]:
    return {"epsilon": config.epsilon, "scope": config.scope, "modalities": getattr(model, "modalities", None)}
