"""Transfer: a perturbation made for one model, shown to another."""

from collections.abc import Callable
from dataclasses import replace

from artpaper.attacks.result import Attack, ask, attack_result, checked
from artpaper.shapes import Classifier, Frames, LabelSets, Mask

# what tells of the search, and so of the surrogate
FOLLOWED = ("gradient_norm", "zero_gradient", "gradient_not_finite", "logits_not_finite", "iterations")


@checked
def transfer(
    model: Classifier, x: Frames, y: LabelSets, mask: Mask, *, surrogate: Classifier, attack: Callable[..., Attack]
) -> Attack:
    """Show a model the perturbation that an attack finds for a surrogate: a black box that is never asked on the way.

    Where it raises the model's loss by more than the same attack on the model itself, the model's gradients mislead.
    The model itself is asked about the clean and about the perturbed video only, without gradients.

    Args:
        model, x, y, mask: as for :func:`artpaper.attacks.fgm`.
        surrogate: any callable of the same kind, over the same frames and classes.
        attack: called as ``attack(surrogate, x, y, mask)``; its other arguments are bound beforehand, as in
            ``functools.partial(pgd, epsilon=1.5)``.
    Returns:
        Attack: the surrogate's perturbation (batch, time, dim) with the model's logits. ``gradient_norm``,
        ``zero_gradient``, ``gradient_not_finite`` and ``iterations`` are those of the search on the surrogate,
        ``logits_not_finite`` is said of either; all else of the model: ``already_wrong`` and ``fooled`` of its top
        label, whatever the attack's own goal.
    Source: Papernot et al. 2016 (arXiv:1605.07277); Athalye et al. 2018 on what transfer says of gradients.
    """
    search = attack(surrogate, x, y, mask)
    shown = attack_result(model, x, y, mask, search.perturbation, ask(model, x, mask), gradient=None, iterations=0)
    followed = {name: search.diagnostics[name] for name in FOLLOWED if name in search.diagnostics}
    return replace(shown, diagnostics=shown.diagnostics | followed)
