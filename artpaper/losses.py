"""The three training losses (Eq. 1-4 and section 2.2), as functions of a model and a batch.

Each costs what it must and no more: the clean pass is differentiated once, for the parameters and for the input
together, so ART takes two forward-backward passes and not three. The scalar that comes back is used like any other
loss (``loss.backward()``); the part of its gradient that is already known is handed over, not computed again.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from artpaper.ball import finite_rows, l2_norm, steepest
from artpaper.inputs import Guarded, entered
from artpaper.settings import Loss

Parts = dict[str, float]
# the parts that are sums over the videos of a batch; the others are means
COUNTED = ("zero_gradients", "gradients_not_finite")
PARTS = ("loss", "cross_entropy", "adversarial", "attention", "perturbation_norm", *COUNTED)
LossFunction = Callable[[Any, Tensor, Tensor, Tensor, Loss], tuple[Tensor, Parts]]


def guarded(loss: LossFunction) -> LossFunction:
    """A loss of a :class:`torch.nn.Module` whose frames, label sets and mask are checked first, as an attack's are.

    Where no gradients are wanted, as under :func:`torch.no_grad`, it is a plain number: what a loss needs of its own
    gradients is taken all the same.

    Raises:
        TypeError, ValueError: as :func:`artpaper.inputs.guarded.entered`; the model is no module.
    """

    @functools.wraps(loss)
    def checked(model: nn.Module, x: Tensor, y: Tensor, mask: Tensor, config: Loss) -> tuple[Tensor, Parts]:
        wanted = torch.is_grad_enabled()
        if not isinstance(model, nn.Module | Guarded):
            raise TypeError(f"a loss trains a torch.nn.Module, not a {type(model).__name__}")
        with entered(model, x, y, mask, training=True) as given:
            value, parts = loss(*given, config)
        return value if wanted else value.detach(), parts

    return checked


@guarded
def cross_entropy(
    model: Any,
    x: Float[Tensor, "batch time dim"],
    y: Float[Tensor, "batch classes"],
    mask: Bool[Tensor, "batch time"],
    config: Loss,
) -> tuple[Float[Tensor, ""], Parts]:
    """L_CE (Eq. 1): binary cross-entropy of the clean videos, averaged over the batch.

    Args:
        model: ``model(x, mask) -> logits``.
        x: frames as the model receives them, unit of the normalised features.
        y: label sets, multi-hot.
        mask: True on real frames.
        config: ``bce_reduction`` says whether classes are averaged or summed.
    Returns:
        The loss and its parts as numbers: ``loss``, ``cross_entropy``.
    Source: Eq. 1.
    """
    loss = mean_bce(model(x, mask), y, config)
    return loss, {"loss": loss.item(), "cross_entropy": loss.item()}


@guarded
def adversarial(
    model: Any,
    x: Float[Tensor, "batch time dim"],
    y: Float[Tensor, "batch classes"],
    mask: Bool[Tensor, "batch time"],
    config: Loss,
) -> tuple[Float[Tensor, ""], Parts]:
    """L_out,Adv (Eq. 2): L_CE + alpha * the loss of the one-step adversaries, whose R is held constant.

    Args:
        model: ``model(x, mask) -> logits``; with ``modalities`` (name to width) if ``config.scope`` is "modality".
        x, y, mask: as in :func:`cross_entropy`.
        config: ``alpha``, ``epsilon`` (same unit as x), ``scope``, ``bce_reduction``.
    Returns:
        The loss and its parts: ``loss``, ``cross_entropy``, ``adversarial`` (before alpha), ``perturbation_norm`` (mean
        over videos), ``zero_gradients`` (videos in this batch that the attack could not move) and
        ``gradients_not_finite`` (videos whose gradient is NaN or infinite on a real frame, which are not moved).
    Raises:
        TypeError, ValueError: as :func:`guarded`, or the widths do not fit.
    Source: Eq. 2-4; R is detached as in Goodfellow et al. 2015 and Miyato et al. 2018.
    """
    known, gradient, _ = clean_pass(model, x, y, mask, config, with_maps=False)
    perturbation, parts = _perturbation(model, x, gradient, mask, config)
    attacked = mean_bce(model(x + perturbation, mask), y, config)
    loss = known + config.alpha * attacked
    return loss, {"loss": loss.item(), "cross_entropy": known.item(), "adversarial": attacked.item(), **parts}


@guarded
def attention_adversarial(
    model: Any,
    x: Float[Tensor, "batch time dim"],
    y: Float[Tensor, "batch classes"],
    mask: Bool[Tensor, "batch time"],
    config: Loss,
) -> tuple[Float[Tensor, ""], Parts]:
    """L_(out,att),Adv (section 2.2): L_out,Adv + beta * the Frobenius norm of the change of the attention maps.

    Args:
        model: ``model(x, mask, return_attention=True) -> (logits, maps)``.
        x, y, mask: as in :func:`cross_entropy`.
        config: as in :func:`adversarial`, and ``beta``, ``attention_modalities``, ``attention_squared``,
            ``attention_detach_clean``.
    Returns:
        The loss and its parts: those of :func:`adversarial` and ``attention`` (before beta).
    Raises:
        ValueError: as :func:`adversarial`.
    Source: section 2.2.
    """
    known, gradient, maps = clean_pass(model, x, y, mask, config, with_maps=True)
    perturbation, parts = _perturbation(model, x, gradient, mask, config)
    logits, adversarial_maps = model.with_maps(x + perturbation, mask)
    attacked = mean_bce(logits, y, config)
    attention = attention_change(maps, adversarial_maps, config)
    loss = known + config.alpha * attacked + config.beta * attention
    parts = {"adversarial": attacked.item(), "attention": attention.item(), **parts}
    return loss, {"loss": loss.item(), "cross_entropy": known.item(), **parts}


def attention_change(
    clean: dict[str, Float[Tensor, "batch time time"]],
    attacked: dict[str, Float[Tensor, "batch time time"]],
    config: Loss,
) -> Float[Tensor, ""]:
    """Mean over videos of ||A - A_adv||_Fr, summed or averaged over modalities; exactly 0 for equal maps.

    Args:
        clean, attacked: head-averaged maps per modality, zero on padding.
        config: ``attention_modalities``, ``attention_squared``, ``attention_detach_clean``.
    Returns:
        The attention term before beta; its gradient is finite everywhere (0 where the maps are equal).
    Source: section 2.2, the norm unsquared as printed.
    """
    norms = []
    for name, reference in clean.items():
        reference = reference.detach() if config.attention_detach_clean else reference
        # vector_norm, not sqrt(sum of squares): its gradient at 0 is 0, not NaN
        norm = torch.linalg.vector_norm(reference - attacked[name], dim=(-2, -1))  # (B,)
        norms.append(norm.square() if config.attention_squared else norm)
    per_video = torch.stack(norms)  # (modalities, B)
    return (per_video.mean(dim=0) if config.attention_modalities == "mean" else per_video.sum(dim=0)).mean()


def clean_pass(
    model: Any,
    x: Float[Tensor, "batch time dim"],
    y: Float[Tensor, "batch classes"],
    mask: Bool[Tensor, "batch time"],
    config: Loss,
    *,
    with_maps: bool,
) -> tuple[Float[Tensor, ""], Float[Tensor, "batch time dim"], dict[str, Tensor]]:
    """One forward and one backward pass for all that the clean videos give.

    The random generator is put back, so that the next pass drops the same units.

    Args:
        model: as for :func:`attention_adversarial`.
        x, y, mask: as in :func:`cross_entropy`, checked.
        config: ``bce_reduction``.
        with_maps: keep the attention maps, joined to the graph.
    Returns:
        L_CE with its parameter gradient attached; dL_CE/dx, as large as x, not masked; the maps (batch, time, time) per
        modality, or none.
    """
    model = Guarded(model, y.shape[1])
    x = x.detach().requires_grad_(True)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
        logits, maps = model.with_maps(x, mask) if with_maps else (model(x, mask), {})
    loss = mean_bce(logits, y, config)
    gradient, *known = torch.autograd.grad(loss, [x, *parameters], retain_graph=with_maps, allow_unused=True)
    return _KnownGradient.apply(loss.detach(), known, *parameters), gradient, maps


class _KnownGradient(torch.autograd.Function):
    """A value whose gradient with respect to the parameters has been computed already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor | None], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        (scale,) = upstream
        return None, None, *(None if gradient is None else gradient * scale for gradient in ctx.gradients)


def _perturbation(model: Any, x: Tensor, gradient: Tensor, mask: Tensor, config: Loss) -> tuple[Tensor, Parts]:
    modalities = getattr(model, "modalities", None)
    perturbation = steepest(gradient, mask, epsilon=config.epsilon, scope=config.scope, modalities=modalities)
    return perturbation, step_parts(perturbation, gradient, mask)


def step_parts(
    perturbation: Float[Tensor, "batch time dim"],
    gradient: Float[Tensor, "batch time dim"],
    mask: Bool[Tensor, "batch time"],
) -> Parts:
    """What a loss says of its adversaries: ``perturbation_norm``, ``zero_gradients`` and ``gradients_not_finite``.

    Args:
        perturbation: R, unit of the normalised features.
        gradient: what was followed.
        mask: True on real frames.
    Returns:
        The mean over videos of ||R||_2, and how many videos had no gradient, and one that is not finite.
    """
    gradient = gradient.masked_fill(~mask[:, :, None], 0.0)
    silent = gradient.flatten(1).abs().amax(dim=1) == 0
    counts = {"zero_gradients": silent.sum(), "gradients_not_finite": (~finite_rows(gradient)).sum()}
    return {"perturbation_norm": l2_norm(perturbation).mean().item()} | {k: float(n.item()) for k, n in counts.items()}


def mean_bce(
    logits: Float[Tensor, "batch classes"], y: Float[Tensor, "batch classes"], config: Loss
) -> Float[Tensor, ""]:
    """The paper's l averaged over videos, and averaged or summed over classes as ``config.bce_reduction`` says.

    Args:
        logits: the model's answers.
        y: label sets, multi-hot.
        config: ``bce_reduction``.
    """
    return F.binary_cross_entropy_with_logits(logits, y.to(logits.dtype)) * over_classes(y, config)


def over_classes(y: Float[Tensor, "batch classes"], config: Loss) -> int:
    """What turns a mean over classes into what ``config.bce_reduction`` asks for."""
    return y.shape[-1] if config.bce_reduction == "sum" else 1
