"""Random calls of every public function of the package: right by a slow reference, or refused by a check of ours.

What it alone can catch: a combination of types, shapes and values that nobody thought of, and that ends in an error of
PyTorch's or NumPy's, in a NaN that nothing flags, or in a number that is not so.
"""

import inspect
import math
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import artpaper
from artpaper import attacks
from artpaper.attacks import Attack, ensemble, fgm, fit_universal
from artpaper.attacks.result import FLAGS
from tests import toy
from tests.attacks.test_ordering import PACKAGE

CALLS = 400  # of each kind; 10,000 have been made
HERE = Path(artpaper.__file__).parent
TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
ODD = (math.nan, math.inf, -math.inf, -1.0, 0.5, 3.0, 1e30, 1e-30)
SHORT = {"steps": 2, "queries": 3, "restarts": 1, "frames": 1, "candidates": 3}


class Draw:
    """Arguments, most of them good: an odd one now and then."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def chance(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def pick(self, *values: Any) -> Any:
        return values[self.random.integers(len(values))]

    def array(self, shape: tuple[int, ...], kind: str) -> Any:
        if self.chance(0.03):
            shape = shape[:-1] if self.chance(0.5) else (*shape[:-1], shape[-1] + 1)
        values = self.random.standard_normal(shape) if kind == "real" else 1.0 * (self.random.random(shape) < 0.6)
        if values.size and self.chance(0.08):
            values.flat[self.random.integers(values.size)] = self.pick(*ODD)
        usual = torch.float32 if kind == "real" else self.pick(torch.bool, torch.float32)
        array = torch.from_numpy(np.asarray(values)).to(self.pick(*TYPES) if self.chance(0.15) else usual)
        return (
            self.pick(array.numpy() if array.dtype != torch.bfloat16 else None, array.tolist(), None)
            if self.chance(0.02)
            else array
        )

    def option(self, name: str) -> Any:
        if self.chance(0.1):
            return self.pick(*ODD, None, "video", True, 0, -1, 2, np.float32(0.5), torch.tensor(0.25), np.int64(2))
        good: dict[str, tuple[Any, ...]] = {
            "epsilon": (0.0, 0.5, 1, 3.0),
            "scope": ("joint", "frame", "modality"),
            "norm": ("l2", "linf"),
            "criterion": ("top1_change", "hit1_loss", "threshold"),
            "outputs": ("sigmoid", "logits"),
            "seed": (0, 7),
            "modalities": (None, {"rgb": 3, "audio": 2}),
            "objective": tuple(attacks.OBJECTIVES.values()),
            "overshoot": (0.0, 0.02),
            "modality": ("audio", "rgb"),
        }
        return self.pick(*good[name])


def call(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What it gives, or None where a check of ours refused; any other error fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*args, **options)
    except (ValueError, TypeError) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        assert HERE in Path(where.filename).parents, f"{where.filename}:{where.lineno}"
        assert "raise" in (where.line or "raise"), where.line
        return None


def whole(x: Any) -> list[list[list[float]]]:
    return x.double().tolist()


def balls(x: Tensor, scope: str) -> list[list[list[tuple[int, int, int]]]]:
    """The entries of each ball, video by video."""
    videos, time, dim = x.shape
    columns = {"joint": [range(dim)], "frame": [range(dim)], "modality": [range(3), range(3, dim)]}[scope]
    frames = [[t] for t in range(time)] if scope == "frame" else [range(time)]
    return [[[(v, t, d) for t in ts for d in ds] for ts in frames for ds in columns] for v in range(videos)]


def test_steps_norms_and_ways_back() -> None:
    draw = Draw(0)
    answers: Counter[str] = Counter()
    for _ in range(CALLS):
        shape = (draw.pick(1, 2), draw.pick(1, 3), 5)
        x, mask = draw.array(shape, "real"), draw.array(shape[:2], "mask")
        epsilon, norm, scope = (draw.option(name) for name in ("epsilon", "norm", "scope"))
        name = draw.pick("steepest", "project", "l2_norm")
        function = inspect.unwrap(getattr(attacks, name))  # without the shape checks of the tests
        ball = {"scope": scope, "modalities": draw.option("modalities") if scope != "modality" else {"a": 3, "b": 2}}
        given = (x,) if name == "l2_norm" else (x, mask)
        result = call(function, *given, **ball, **({} if name == "l2_norm" else {"epsilon": epsilon, "norm": norm}))
        if result is None:
            continue
        answers[name] += 1
        for video, parts in zip(whole(x), balls(x, scope), strict=True):
            row = parts[0][0][0]
            real = [True] * shape[1] if name == "l2_norm" else mask[row].tolist()
            broken = (
                any(not math.isfinite(v) for t, vs in enumerate(video) for v in vs if real[t]) and name != "l2_norm"
            )
            for part in parts:
                values = [video[t][d] if real[t] and not broken else 0.0 for _, t, d in part]
                length = math.hypot(*values)
                for place, value in zip(part, values, strict=True):
                    got = result.expand(x.shape)[place].item()
                    if name == "l2_norm":
                        expected = length
                    elif norm == "linf":
                        corner = epsilon * ((value > 0) - (value < 0))
                        expected = corner if name == "steepest" else min(max(value, -epsilon), epsilon)
                    elif name == "steepest":
                        expected = epsilon * value / length if length else 0.0
                    else:
                        expected = value * (epsilon / length if length > epsilon else 1.0)
                    near = 1e-5 if x.dtype in (torch.float32, torch.float64) else 0.02
                    same = math.isclose(got, expected, rel_tol=near, abs_tol=near)
                    assert same or (math.isnan(got) and math.isnan(expected)), (name, got, expected)
    assert min(answers[name] for name in ("steepest", "project", "l2_norm")) > CALLS // 20


def slow(name: str, logits: list[float], y: list[float]) -> float:
    """An objective of one video, in plain Python."""
    wrong = [z for z, label in zip(logits, y, strict=True) if not label]
    right = [z for z, label in zip(logits, y, strict=True) if label]
    if name == "hit":
        return float(y[logits.index(max(logits))])
    if name == "bce":
        terms = [max(z, 0.0) - z * label + math.log1p(math.exp(-abs(z))) for z, label in zip(logits, y, strict=True)]
        return sum(terms) / len(terms)
    if not wrong or not right:
        return 0.0
    margin = max(wrong) - min(right)
    if name == "margin":
        return margin
    if name == "dlr":
        spread = max(logits) - min(logits)
        return margin / spread if spread else margin
    listed = [z for z in right if sum(other > z for other in logits) < 20]
    total = 0.0
    for z in listed:
        above = {True: 1.0, False: 0.0}
        seen = False
        for other, label in zip(logits, y, strict=True):
            if other == z and label and not seen:
                seen = True  # itself
                continue
            above[bool(label)] += 1 / (1 + math.exp(z - other))
        total += above[True] / (above[True] + above[False])
    return 1 - total / min(len(right), 20)


def test_objectives() -> None:
    draw = Draw(1)
    answers: Counter[str] = Counter()
    for _ in range(CALLS):
        shape = (draw.pick(1, 3), draw.pick(1, 2, 4))
        logits, y = draw.array(shape, "real"), draw.array(shape, "mask")
        name = draw.pick("hit", *attacks.OBJECTIVES)
        function = inspect.unwrap(attacks.hit) if name == "hit" else attacks.OBJECTIVES[name]
        result = call(function, logits, y)
        if result is None:
            continue
        answers[name] += 1
        for got, row, truth in zip(result.tolist(), logits.double().tolist(), y.double().tolist(), strict=True):
            if all(abs(z) < 1e4 for z in row):
                near = 1e-5 if logits.dtype in (torch.float32, torch.float64) else 0.05
                assert math.isclose(got, slow(name, row, truth), rel_tol=near, abs_tol=near), (name, row, truth)
    assert min(answers.values()) > CALLS // 40


WITH_RADIUS = {name for name, attack in PACKAGE.items() if "epsilon" in inspect.signature(attack).parameters}


def test_attacks() -> None:
    """Besides: inside the ball, padding unmoved, both answers the model's own, every NaN in a flagged row."""
    draw = Draw(2)
    torch.manual_seed(0)
    net = toy.FrameTransformer(toy.Model(heads=1, positions="none"), {"rgb": 3, "audio": 2}, 4).eval()
    answers: Counter[str] = Counter()
    for _ in range(CALLS):
        name = draw.pick(*PACKAGE)
        shape = (draw.pick(1, 2), draw.pick(1, 3))
        x, mask, y = draw.array((*shape, 5), "real"), draw.array(shape, "mask"), draw.array((shape[0], 4), "mask")
        accepted = inspect.signature(PACKAGE[name]).parameters
        options: dict[str, Any] = {key: value for key, value in SHORT.items() if key in accepted}
        if "options" in accepted and "steps" in attacks.accepted(PACKAGE[name]):  # another attack's
            options["steps"] = 2
        tried = ("scope", "norm", "criterion", "outputs", "seed", "objective", "overshoot", "modality")
        options |= {key: draw.option(key) for key in tried if key in accepted and draw.chance(0.3)}
        if name in WITH_RADIUS:
            options["epsilon"] = draw.option("epsilon")
        if name == "universal":
            options["perturbation"] = draw.array((2, 5), "real")
        if name == "transfer":
            options |= {"surrogate": net, "attack": lambda *given: fgm(*given, epsilon=0.5)}
        attack = call(PACKAGE[name], net, x, y, mask, **options)
        if attack is None:
            continue
        answers[name] += 1
        check(attack, net, x, mask.bool(), options)
    assert min(answers[name] for name in PACKAGE) > CALLS // 80


def check(attack: Attack, net: Any, x: Tensor, mask: Tensor, options: dict[str, Any]) -> None:
    rows = attack.diagnostics
    lost = torch.stack([rows[name] for name in FLAGS]).any(dim=0)
    assert (attack.perturbation[~mask] == 0).all()
    assert attack.perturbation.isfinite().all()
    with torch.no_grad():
        wide = x.to(attack.perturbation.dtype)
        for logits, frames in ((attack.clean_logits, wide), (attack.adversarial_logits, wide + attack.perturbation)):
            torch.testing.assert_close(logits, net(frames.float(), mask).to(logits.dtype), equal_nan=True)
    for name, values in rows.items():
        if name != "gradient_norm":  # NaN where no gradient was taken
            assert values[~lost].isfinite().all(), name
    assert not rows["fooled"][lost].any()
    if "epsilon" in options and options.get("norm") != "linf" and options.get("scope", "joint") == "joint":
        assert (rows["norm"] <= float(options["epsilon"]) * (1 + 1e-5)).all()


def test_ensembles_and_universal_perturbations() -> None:
    draw = Draw(3)
    net = toy.model()
    x, y, mask = toy.batch(videos=3, time=3)
    for _ in range(CALLS // 20):
        made = [call(fgm, net, x, y, mask, epsilon=draw.option("epsilon")) for _ in range(2)]
        several = {str(place): one for place, one in enumerate(made) if one is not None}
        labels = draw.array((3, toy.CLASSES), "mask")
        result = call(inspect.unwrap(ensemble), several, labels)
        if result is not None:
            losses = torch.stack([attacks.bce(one.adversarial_logits, labels) for one in several.values()])
            torch.testing.assert_close(attacks.bce(result[0].adversarial_logits, labels), losses.amax(dim=0))
        batch = (draw.array((3, 3, 24), "real"), draw.array((3, toy.CLASSES), "mask"), draw.array((3, 3), "mask"))
        universal = call(fit_universal, net, [batch], epsilon=draw.option("epsilon"), passes=draw.pick(1, 2))
        assert universal is None or universal.isfinite().all()
