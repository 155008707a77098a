"""The paper's attack: one step of length epsilon along the gradient of the loss."""

from artpaper.attacks.objectives import Objective, bce
from artpaper.attacks.result import Attack, attack_result, checked, input_gradient
from artpaper.ball import Norm, Scope, steepest
from artpaper.settings import NonNegative
from artpaper.shapes import Classifier, Frames, LabelSets, Mask, Widths


@checked
def fgm(
    model: Classifier, x: Frames, y: LabelSets, mask: Mask, *, epsilon: NonNegative, norm: Norm = "l2",
    scope: Scope = "joint", modalities: Widths | None = None, objective: Objective = bce,
) -> Attack:  # fmt: skip
    """One-step attack in the L2 ball (Eq. 4): R = epsilon * G / ||G||_2; with norm "linf", FGSM.

    Every attack takes the model in the mode it is in, on its logits: call ``model.eval()`` first unless dropout is
    meant to stay on. The parameters' ``.grad`` and the caller's tensors are left as they were.

    Args:
        model: any callable ``model(x, mask) -> logits (batch, classes)``, not only ours.
        x: frames as the model receives them, float (batch, time, dim), unit of the normalised features.
        y: label sets, multi-hot (batch, classes).
        mask: True on real frames, bool (batch, time); padding is never moved.
        epsilon: radius of the ball around each video, same unit as x.
        norm: of the ball: "l2", or "linf" for R = epsilon * sign(G), which is one for all scopes.
        scope: what one ball spans: "joint" (the video), "modality" or "frame".
        modalities: widths along ``dim`` for scope "modality"; by default the model's own ``modalities``.
        objective: loss to raise, ``(logits, y) -> (batch,)``; the paper's binary cross-entropy by default.
    Returns:
        Attack: perturbation (batch, time, dim), both logits, and one diagnostics row per video.
    Raises:
        TypeError: x, y or mask is no tensor, or x not of floats.
        ValueError: an option is not what it may be, x, y, mask or the widths do not fit one another, x is not finite, y
            or mask holds other values than 0 and 1, or the model's answer is not one tensor (batch, classes).
    Warns:
        UserWarning: the model is in train mode, or all of its answers lie in [0, 1], as probabilities do.
    Source: section 2.1, Eq. 3-4; the infinity-norm version is Goodfellow et al. 2015.
    """
    gradient, clean_logits = input_gradient(model, x, y, mask, objective)
    perturbation = steepest(gradient, mask, epsilon=epsilon, norm=norm, scope=scope, modalities=modalities)
    return attack_result(model, x, y, mask, perturbation, clean_logits, gradient=gradient, iterations=1)
