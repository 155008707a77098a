"""Multi-label DeepFool against least-norm solutions found otherwise, and for what its diagnostics promise."""

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from scipy.optimize import nnls
from torch import Tensor
from torch.nn import functional as F

from artpaper.attacks import multilabel_deepfool
from tests import toy

ONE_FRAME = torch.ones(1, 1, dtype=torch.bool)


def rows_of(net: toy.Linear, mask: Tensor) -> Tensor:
    """The Jacobian of one video's logits: weight / T in every real frame, float64 (classes, time * dim)."""
    return (mask[None, :, None] * net.weight[:, None] / mask.sum()).flatten(1).detach()


def constraints(net: toy.Linear, mask: Tensor, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """A and b of A r >= b, which puts every label of a linear model on its side, 1e-4 of distance inside."""
    side = torch.where(target, 1.0, -1.0).double()
    rows = side[:, None] * rows_of(net, mask)
    return rows, -side * logits + 1e-4 * rows.norm(dim=1)


def test_linear_model_least_norm() -> None:
    """One step; the labels to be switched by lstsq, and where that carries others along, no shorter than need be."""
    net = toy.Linear(24, toy.CLASSES)
    x, y, mask = toy.batch(videos=48, dtype=torch.float64)
    target = (net(x, mask) > 0) ^ (torch.rand(48, toy.CLASSES, generator=torch.Generator().manual_seed(2)) < 0.15)
    attack = multilabel_deepfool(net, x, y, mask, target=target.double(), outputs="logits")
    already = attack.diagnostics["already_wrong"]
    assert torch.equal(attack.adversarial_logits > 0, target)
    assert torch.equal(attack.diagnostics["fooled"], ~already)
    assert torch.equal(attack.diagnostics["iterations"], (~already).long())
    alone = together = 0
    for i in (~already).nonzero().flatten().tolist():
        rows, lack = constraints(net, mask[i], attack.clean_logits[i], target[i])
        wrong = (attack.clean_logits[i] > 0) != target[i]
        lengths = rows[wrong].norm(dim=1)
        nearest = lengths[(lack[wrong] / lengths).argmin()]
        assert attack.diagnostics["gradient_norm"][i].item() == pytest.approx(nearest.item())
        least = torch.linalg.lstsq(rows[wrong], lack[wrong], driver="gelsd").solution * 1.02
        if (rows @ least >= lack)[~wrong].all():
            alone += 1
            torch.testing.assert_close(attack.perturbation[i].flatten(), least, atol=1e-10, rtol=0)
        else:
            together += 1
            # least distance under inequalities as a non-negative least squares problem (Lawson and Hanson, ch. 23)
            system = torch.cat([rows.T, lack[None]]).numpy()
            weights, _ = nnls(system, np.eye(len(system))[-1])
            residual = system @ weights - np.eye(len(system))[-1]
            floor = np.linalg.norm(residual[:-1] / residual[-1])
            assert floor <= attack.diagnostics["norm"][i] < 1.25 * floor
    assert alone > 5
    assert together > 5


def test_sigmoid_step_is_the_papers() -> None:
    """P^T (P P^T)^-1 q for one switched label: P its sigmoid output's gradient, q what that output lacks to 0.5."""
    net = toy.Linear(24, toy.CLASSES)
    x, y, mask = toy.batch(videos=24, dtype=torch.float64)
    x = x / 3
    clean = net(x, mask).detach()
    nearest = clean.abs().argmin(1)
    target = clean > 0
    target[torch.arange(24), nearest] ^= True
    attack = multilabel_deepfool(net, x, y, mask, target=target.double(), steps=1, overshoot=0.0)
    compared = 0
    for i in range(24):
        k = nearest[i]
        frames = x[i : i + 1].clone().requires_grad_()
        output = torch.sigmoid(net(frames, mask[i : i + 1]))[0, k]
        (row,) = torch.autograd.grad(output, frames)
        row = row.detach().flatten()
        step = torch.linalg.pinv(row[None]) @ (0.5 - output.detach())[None]
        step = step + torch.where(target[i, k], 1e-4, -1e-4) * row / row.norm()
        if ((net(x[i] + step.view(1, *x[i].shape), mask[i : i + 1])[0] > 0) == target[i]).all():
            compared += 1
            torch.testing.assert_close(attack.perturbation[i].flatten(), step, atol=1e-10, rtol=0)
            assert attack.diagnostics["fooled"][i]
    assert compared > 12
    logits = multilabel_deepfool(net, x, y, mask, target=target.double(), outputs="logits", overshoot=0.0)
    assert (logits.diagnostics["norm"] < attack.diagnostics["norm"]).all()  # |z| < |sinh z|


@pytest.mark.parametrize("outputs", ["sigmoid", "logits"])
def test_default_target_switches_the_true_labels_off(outputs: str) -> None:
    net = toy.model()
    x, y, mask = toy.batch(videos=32)
    attack = multilabel_deepfool(net, x, y, mask, outputs=outputs)
    clean, after = net(x, mask), net(x + attack.perturbation, mask)
    target = (clean > 0) & (y == 0)
    torch.testing.assert_close(attack.clean_logits, clean)
    torch.testing.assert_close(attack.adversarial_logits, after)
    already = ((clean > 0) == target).all(1)
    assert torch.equal(attack.diagnostics["already_wrong"], already)
    assert torch.equal(attack.diagnostics["fooled"], ((after > 0) == target).all(1) & ~already)
    assert attack.diagnostics["fooled"].sum() > 20
    assert (attack.perturbation[already] == 0).all()
    assert (attack.diagnostics["iterations"][already] == 0).all()
    assert attack.diagnostics["gradient_norm"][already].isnan().all()
    assert (attack.diagnostics["gradient_norm"][~already] > 0).all()
    one = multilabel_deepfool(net, x, y, mask, outputs=outputs, steps=1).diagnostics["gradient_norm"]
    torch.testing.assert_close(one, attack.diagnostics["gradient_norm"], equal_nan=True)  # of the clean video
    norm = attack.perturbation.double().flatten(1).norm(dim=1)
    torch.testing.assert_close(attack.diagnostics["norm"], norm)
    torch.testing.assert_close(attack.diagnostics["relative_norm"], norm / x.double().flatten(1).norm(dim=1))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())
    assert not attack.adversarial_logits.requires_grad


def test_the_best_iterate_is_kept() -> None:
    """A model whose answers are scripted: 3, 1, 2, 1 and 2 labels wrong; of the two best the first is nearer."""
    script = [[1.0, 1, 1], [-1, -1, 1], [1, -1, 1], [-1, 1, -1], [1, -1, 1]]
    asked: list[Tensor] = []

    def net(x: Tensor, mask: Tensor) -> Tensor:
        if not torch.is_grad_enabled():  # asked for an answer, not for gradients
            asked.append(x)
        return x[:, 0] - x[:, 0].detach() + torch.tensor([script[len(asked) - 1]])

    x = torch.zeros(1, 1, 3)
    attack = multilabel_deepfool(net, x, torch.ones(1, 3), ONE_FRAME, outputs="logits", steps=4)
    assert len(asked) == 5
    assert attack.diagnostics["iterations"] == 4
    assert not attack.diagnostics["fooled"].any()
    assert attack.perturbation.abs().sum() > 1
    assert torch.equal(attack.perturbation, asked[1])
    assert attack.adversarial_logits.tolist() == [script[1]]


def test_an_answer_that_breaks_down_on_the_way_is_told() -> None:
    """x^2 - 4 is to sink below 0: from 10 steps lead to 5.1, where the other logit is infinite, and on to 2."""

    def net(x: Tensor, mask: Tensor) -> Tensor:
        value = x[:, 0]
        broken = torch.where((value > 4.5) & (value < 6), torch.inf, -1.0)
        return torch.cat([value**2 - 4, broken], dim=1)

    x = torch.tensor([[[10.0]]])
    attack = multilabel_deepfool(net, x, None, ONE_FRAME, target=torch.zeros(1, 2), outputs="logits")
    assert attack.diagnostics["iterations"] > 1
    assert attack.adversarial_logits.isfinite().all()
    assert (attack.adversarial_logits < 0).all()
    assert attack.diagnostics["logits_not_finite"]
    assert not attack.diagnostics["fooled"]


def test_a_target_that_contradicts_itself_is_not_reached() -> None:
    net = lambda x, mask: torch.cat([x[:, 0], -x[:, 0]], dim=1)  # noqa: E731
    x = torch.tensor([[[1.0]]])
    attack = multilabel_deepfool(net, x, torch.zeros(1, 2), ONE_FRAME, target=torch.ones(1, 2), steps=5)
    assert not attack.diagnostics["fooled"].any()
    assert not attack.diagnostics["already_wrong"].any()
    assert attack.diagnostics["iterations"] == 5
    assert attack.perturbation == 0  # one label is wrong at the clean video already, and never fewer


def test_dependent_labels_are_solved() -> None:
    """Two labels with the same gradient, but for rounding, and one without any: P P^T has rank 1."""
    weight = F.normalize(torch.randn(7, generator=torch.Generator().manual_seed(0)), dim=0)
    columns = torch.stack([weight, 3.3 * weight, 0 * weight], dim=1)
    net = lambda x, mask: x[:, 0] @ columns + torch.tensor([1.0, 4.95, -1.0])  # noqa: E731  at distance 1, 1.5, never
    y = torch.tensor([[1.0, 1.0, 0.0]])
    attack = multilabel_deepfool(net, torch.zeros(1, 1, 7), y, ONE_FRAME, outputs="logits")
    assert attack.diagnostics["fooled"].all()
    assert 1.5 < attack.diagnostics["norm"] < 1.6


def test_neither_batch_nor_budget_changes_the_result() -> None:
    net = toy.model(dtype=torch.float64)
    x, y, mask = toy.batch(videos=12, dtype=torch.float64)
    sizes: list[int] = []

    def counting(x: Tensor, mask: Tensor) -> Tensor:
        sizes.append(len(x))
        return net(x, mask)

    together = multilabel_deepfool(net, x, y, mask, outputs="logits")
    tight = multilabel_deepfool(counting, x, y, mask, outputs="logits", memory=1e-6)
    assert set(sizes) == {1}
    steps = together.diagnostics["iterations"]
    assert len(sizes) == 12 + 2 * steps.sum()  # finished videos are not asked about again
    assert len(set(steps.tolist())) > 1
    torch.testing.assert_close(tight.perturbation, together.perturbation, atol=1e-8, rtol=0)
    for name, values in together.diagnostics.items():
        torch.testing.assert_close(tight.diagnostics[name], values, equal_nan=True)
    for i in range(12):
        length = int(mask[i].sum())  # also without the padding its neighbours need
        alone = multilabel_deepfool(
            net, x[i : i + 1, :length], y[i : i + 1], mask[i : i + 1, :length], outputs="logits"
        )
        torch.testing.assert_close(alone.perturbation[0], together.perturbation[i, :length], atol=1e-8, rtol=0)


class Stubborn(torch.autograd.Function):
    """Looks at the value of a gradient, which vmap forbids."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient if gradient.abs().sum().item() >= 0 else -gradient


def test_a_module_that_cannot_be_batched_gives_the_same() -> None:
    net = toy.model(dtype=torch.float64)
    x, y, mask = toy.batch(videos=6, dtype=torch.float64)
    usual = multilabel_deepfool(net, x, y, mask)
    stubborn = multilabel_deepfool(lambda x, mask: net(Stubborn.apply(x), mask), x, y, mask)
    assert usual.perturbation.abs().max() > 0
    torch.testing.assert_close(stubborn.perturbation, usual.perturbation, atol=1e-8, rtol=0)


def test_padding_stays_even_for_a_model_that_looks_at_it() -> None:
    weight = torch.randn(24, toy.CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, y, mask = toy.batch(videos=8, dtype=torch.float64)
    net = lambda x, mask: x.sum(1) @ weight  # noqa: E731
    attack = multilabel_deepfool(net, x, y, mask, outputs="logits")
    assert (attack.perturbation[~mask] == 0).all()
    assert attack.diagnostics["fooled"].sum() > 4
    assert attack.diagnostics["iterations"].max() == 1  # the solution is one over the real frames alone


@pytest.mark.parametrize("broken", [0.0, float("nan"), float("inf")])
def test_unusable_gradients_are_flagged_and_stay_with_their_video(broken: float) -> None:
    sizes: list[int] = []

    def net(x: Tensor, mask: Tensor) -> Tensor:
        sizes.append(len(x))
        scale = torch.where(torch.arange(len(x)) == len(x) - 1, broken, 1.0)[:, None]
        z = x[:, 0].clone()
        if z.requires_grad:
            z.register_hook(lambda gradient: torch.where(gradient == 0, gradient, gradient * scale))
        return z

    x, y = torch.tensor([[[1.0, -2.0]], [[2.0, 3.0]], [[1.0, 1.0]]]), torch.ones(3, 2)
    attack = multilabel_deepfool(net, x, y, ONE_FRAME.expand(3, 1), outputs="logits")
    assert sizes == [3, 3, 2]  # clean, gradients, and an answer for those that moved
    assert attack.diagnostics["zero_gradient"].tolist() == [False, False, broken == 0]
    assert attack.diagnostics["gradient_not_finite"].tolist() == [False, False, broken != 0]
    assert attack.diagnostics["fooled"].tolist() == [True, True, False]
    assert attack.diagnostics["iterations"].tolist() == [1, 1, 0]
    assert (attack.perturbation[2] == 0).all()
    torch.testing.assert_close(attack.perturbation[1], -1.02 * (x[1] + 1e-4))
    assert attack.diagnostics["gradient_norm"].tolist()[:2] == [1, 1]


def test_bad_arguments_are_refused() -> None:
    net = toy.model()
    x, y, mask = toy.batch()
    bad = [({"steps": 0}, "steps"), ({"overshoot": -1.0}, "overshoot"), ({"memory": 0}, "memory")]
    for changed, message in [*bad, ({"outputs": "softmax"}, "outputs"), ({"target": y[:, :-1]}, "target")]:
        with pytest.raises((ValueError, TypeCheckError), match=message):  # the checks of the tests may come first
            multilabel_deepfool(net, x, y, mask, **changed)
    with pytest.raises((ValueError, TypeCheckError), match="mask"):
        multilabel_deepfool(net, x, y, mask[:, :-1])
