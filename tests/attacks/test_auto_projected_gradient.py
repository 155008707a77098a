"""Auto-PGD against its algorithm written out for one video, and against the best that foolbox finds."""

import math

import foolbox
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from artpaper.attacks import apgd, bce, dlr, margin, pgd
from artpaper.attacks.auto_projected_gradient import checkpoints
from tests import toy
from tests.attacks.foolbox_models import run
from tests.attacks.test_projected_gradient import cross_entropy

ONE_FRAME = torch.ones(1, 1, dtype=torch.bool)
ONES = torch.ones(6, 1, dtype=torch.float64)


def literal(
    start: np.ndarray, f: np.ndarray, slopes: np.ndarray, epsilon: float, norm: str
) -> tuple[list[np.ndarray], list[str]]:
    """Algorithm 1 of Croce and Hein 2020 with its formulas' names, for one video around the origin.

    The k-th point that is looked at is worth f[k] and has the gradient slopes[k], wherever it lies. Returns these
    points, and for each time that one was left for the best one the conditions that asked for it.
    """

    def project(z: np.ndarray) -> np.ndarray:
        if norm == "linf":
            return np.minimum(np.maximum(z, -epsilon), epsilon)
        length = math.sqrt((z**2).sum())
        return z if length <= epsilon else z * epsilon / length

    def unit(g: np.ndarray) -> np.ndarray:
        return np.sign(g) if norm == "linf" else g / math.sqrt((g**2).sum())

    steps = len(f) - 1
    p = [0.0, 0.22]
    while p[-1] + max(p[-1] - p[-2] - 0.03, 0.06) <= 1 + 1e-9:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    w = [math.ceil(share * steps - 1e-9) for share in p]
    eta, alpha, rho = 2 * epsilon, 0.75, 0.75
    seen, reasons = [start], []
    x, g, value = [start], slopes[0], f[0]
    f_max, x_max, g_max = [f[0]], start, slopes[0]
    etas, rises = {0: eta}, []
    for k in range(steps):
        z = project(x[k] + eta * unit(g))
        new = z if k == 0 else project(x[k] + alpha * (z - x[k]) + (1 - alpha) * (x[k] - x[k - 1]))
        seen.append(new)
        rises.append(f[k + 1] > value)
        g, value = slopes[k + 1], f[k + 1]
        if value > f_max[-1]:
            x_max, g_max = new, g
        f_max.append(max(f_max[-1], value))
        if k + 1 in w:
            before = w[w.index(k + 1) - 1]
            few = sum(rises[before:]) < rho * (k + 1 - before)
            still = etas[before] == eta and f_max[before] == f_max[k + 1]
            etas[k + 1] = eta
            if few or still:
                reasons.append("both" if few and still else "few" if few else "still")
                eta, new, g, value = eta / 2, x_max, g_max, f_max[-1]
        x.append(new)
    return seen, reasons


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("steps", [1, 9, 50, 100])
def test_equals_the_algorithm_written_out_for_one_video(norm: str, steps: int) -> None:
    """Values rise and fall by a script, each video's more or less steadily, so that every condition comes up."""
    rng = np.random.default_rng(1)
    steady = np.linspace(0.5, 1.0, 120)
    climbs = np.where(rng.random((steps, 120)) < steady, 1.0, -rng.choice([0.5, 30.0], (steps, 120)))
    values = np.concatenate([np.zeros((1, 120)), climbs.cumsum(axis=0)])
    slopes, starts = rng.normal(size=(steps + 1, 120, 6)), rng.uniform(-0.2, 0.2, size=(120, 6))
    seen: list[Tensor] = []

    def model(x: Tensor, mask: Tensor) -> Tensor:
        now = max(len(seen) - 1, 0)  # the clean video is looked at first
        seen.append(x.detach().clone())
        return torch.from_numpy(values[now])[:, None] + (x - x.detach())[:, 0] * torch.from_numpy(slopes[now]) @ ONES

    apgd(
        model, torch.zeros(120, 1, 6, dtype=torch.float64), torch.ones(120, 1, dtype=torch.float64),
        ONE_FRAME.expand(120, 1), epsilon=0.7, norm=norm, objective=lambda logits, y: logits[:, 0], steps=steps,
        start=torch.from_numpy(starts)[:, None], random_start=False,
    )  # fmt: skip
    assert len(seen) == 1 + steps + 1
    found = torch.stack(seen[1:])[:, :, 0].numpy()  # (steps + 1, B, 6)
    why = []
    for i in range(120):
        expected, reasons = literal(starts[i], values[:, i], slopes[:, i], 0.7, norm)
        why += reasons or ["never"]
        np.testing.assert_allclose(found[:, i], expected, atol=1e-12, rtol=0)
    assert steps < 50 or set(why) == {"few", "still", "both", "never"}


def test_checkpoints_of_the_paper() -> None:
    assert list(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(checkpoints(50)) == [11, 21, 29, 35, 40, 44, 47, 50]
    assert set(checkpoints(1)) == {1}


def ascents(norm: str) -> dict[str, tuple[type, float]]:
    """foolbox's gradient ascents in this norm, each with steps of several lengths."""
    prefix = {"l2": "L2", "linf": "Linf"}[norm]
    names = ("PGD", "BasicIterativeAttack", "MomentumIterativeFastGradientMethod", "AdamPGD")
    return {
        f"{name} {step}": (getattr(foolbox.attacks, prefix + name), step)
        for name in names
        for step in (0.05, 0.1, 0.25)
    }


def sharpen(net: nn.Module, objective, single: bool) -> nn.Module:
    """Train for a moment, so that the logits have something to say."""
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for step in range(80):
        x, y, mask = task(64, seed=100 + step, single=single)
        optimizer.zero_grad()
        objective(net(x, mask), y).mean().backward()
        optimizer.step()
    net.zero_grad()
    return net.eval()


def task(videos: int, seed: int, single: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Which of the first features are large on average: the largest one, or all those above a threshold."""
    x, _, mask = toy.batch(videos=videos, seed=seed)
    means = x.sum(1)[:, : toy.CLASSES] / mask.sum(1, keepdim=True).sqrt()
    y = F.one_hot(means.argmax(1), toy.CLASSES) if single else means > 0.8
    return x, y.float(), mask


class Perceptron(nn.Module):
    """A model of single frames, as plain as image classifiers are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(24, 64), nn.Tanh(), nn.Linear(64, toy.CLASSES))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.layers((x * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True))


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("kind", ["single label", "frame transformer", "multi-label"])
def test_finds_at_least_what_the_best_of_foolbox_finds(kind: str, norm: str) -> None:
    single = kind != "multi-label"
    objective = cross_entropy if single else bce
    net = sharpen(Perceptron() if kind == "single label" else toy.model().train(), objective, single)
    x, y, mask = task(48, seed=0, single=single)
    epsilon = {"l2": 1.0, "linf": 0.15}[norm]
    best = torch.full((48,), -torch.inf)
    for attack, step in ascents(norm).values():
        perturbation = run(attack, net, x, y, mask, objective, epsilon, steps=40, rel_stepsize=step)
        best = torch.maximum(best, objective(net(x + perturbation, mask), y).detach())
    found = apgd(net, x, y, mask, epsilon=epsilon, norm=norm, objective=objective, steps=40, random_start=False)
    ours = objective(found.adversarial_logits, y)
    assert ours.mean() > objective(found.clean_logits, y).mean() * 1.15
    assert ours.mean() >= best.mean() * (1 - 1e-6)


def test_other_objectives_are_raised_at_least_as_far_as_by_fixed_steps() -> None:
    net = sharpen(toy.model().train(), bce, single=False)
    x, y, mask = task(48, seed=0, single=False)
    for objective in (bce, margin, dlr):
        fixed = pgd(net, x, y, mask, epsilon=1.0, objective=objective, steps=40)
        own = apgd(net, x, y, mask, epsilon=1.0, objective=objective, steps=40)
        assert objective(own.adversarial_logits, y).mean() >= objective(fixed.adversarial_logits, y).mean()
