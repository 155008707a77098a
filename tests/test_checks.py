"""Masked models trip the checks their masking is about, honest models trip none, and every check has its page."""

import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from artpaper.checks import PAGES, Finding, RobustnessWarning, check_model, check_results
from artpaper.losses import loss_for
from artpaper.settings import Loss
from tests import toy

ROOT = Path(__file__).resolve().parents[1]
INDEX = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
SECTIONS = ["What it means", "Why it is looked for", "How it is measured", "Threshold", "What to do"]
Model = Callable[[Tensor, Tensor], Tensor]


# ---------------------------------------------------------------- models


def videos(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Videos whose labels can be learned: the classes whose noisy linear score is high."""
    x, _, mask = toy.batch(count, 6, seed=seed)
    rule = torch.randn(24, toy.CLASSES, generator=torch.Generator().manual_seed(99))
    scores = (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True).sqrt() @ rule / 24**0.5
    scores += 0.5 * torch.randn(scores.shape, generator=torch.Generator().manual_seed(seed + 1))
    y = (scores > 1).float()
    y[torch.arange(count), scores.argmax(1)] = 1
    return x, y, mask


@cache
@torch.enable_grad()
def trained(kind: str, seed: int = 0) -> nn.Module:
    """A small model after 150 steps, in a second or two."""
    choices = {"attention": "uniform"} if kind == "uniform" else {"dropout": 0.1} if kind == "dropout" else {}
    model = toy.model(seed, **choices).train()
    config = Loss(alpha=0.0 if kind in ("undefended", "dropout") else 1.0, epsilon=1.0)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    x, y, mask = videos(512, seed=1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(150):
        rows = torch.randint(len(x), (64,), generator=generator)
        loss, _ = loss_for(config)(model, x[rows], y[rows], mask[rows], config)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def checked(model: Model, **choices: object) -> tuple[set[str], list[Finding], list[str]]:
    """The checks that trip on 64 videos the model has not seen, every finding, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        findings = check_model(
            model, *videos(64, seed=7), **{"epsilon": 1.0, "queries": 100, "progress": False, **choices}
        )
    told = [str(warning.message) for warning in caught if issubclass(warning.category, RobustnessWarning)]
    return {finding.check for finding in findings if finding.tripped}, findings, told


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", ["undefended", "adversarial", "uniform"])
def test_an_honest_model_trips_no_check(kind: str, seed: int) -> None:
    others = {other: trained(other, seed) for other in ("undefended", "adversarial", "uniform") if other != kind}
    tripped, findings, told = checked(trained(kind, seed), surrogates=others)
    assert (tripped, told) == (set(), [])
    assert [finding.check for finding in findings] == list(PAGES)


@pytest.mark.parametrize("epsilon", [1e-3, 0.1, 4.0])
def test_an_honest_model_trips_no_check_at_any_epsilon(epsilon: float) -> None:
    assert checked(trained("adversarial"), epsilon=epsilon)[0] == set()


def scaled(x: Tensor, mask: Tensor) -> Tensor:
    """The same ranking, logits that the sigmoid cannot tell from certainty."""
    return 1e4 * trained("undefended")(x, mask)


def saturated(x: Tensor, mask: Tensor) -> Tensor:
    """Logits that stop at 20, where the loss is flat, and no longer move."""
    return 20 * F.hardtanh(2 * trained("undefended")(x, mask))


def quantised(x: Tensor, mask: Tensor) -> Tensor:
    """Frames rounded to whole numbers: the derivative is 0 wherever there is one."""
    return trained("undefended")(x.round(), mask)


def straight_through(x: Tensor, mask: Tensor) -> Tensor:
    """Frames rounded to even numbers, with a backward pass that pretends they were not."""
    return trained("undefended")(x + (2 * (x / 2).round() - x).detach(), mask)


def reversed_gradient(x: Tensor, mask: Tensor) -> Tensor:
    """The value of the model and minus its gradient."""
    return trained("undefended")(2 * x.detach() - x, mask)


def with_dropout(x: Tensor, mask: Tensor) -> Tensor:
    model = trained("dropout").train()
    try:
        return model(x, mask)
    finally:
        model.eval()


NO_GRADIENT = {
    "zero_gradients",
    "noise_as_good_as_gradient",
    "black_box_beats_white_box",
    "more_steps_do_not_help",
}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (scaled, NO_GRADIENT - {"black_box_beats_white_box"}),  # a few labels are wrong: their gradients lead on
        (saturated, NO_GRADIENT | {"floor_not_reached"}),
        (quantised, NO_GRADIENT | {"floor_not_reached"}),
        (straight_through, NO_GRADIENT - {"zero_gradients"}),
        (
            reversed_gradient,
            NO_GRADIENT - {"zero_gradients"} | {"loss_below_clean", "label_leaking", "floor_not_reached"},
        ),
        (with_dropout, {"random_model"}),
    ],
)
def test_a_masked_model_trips_the_checks_its_masking_is_about(model: Model, expected: set[str]) -> None:
    tripped, findings, told = checked(model)
    unsure = {"black_box_beats_white_box"} if model is scaled else set()  # one video below its threshold
    assert tripped - unsure == expected
    assert told == [finding.message for finding in findings if finding.tripped]


def test_a_hidden_gradient_is_found_by_another_models() -> None:
    plain = {"plain": trained("undefended")}
    assert "transfer_beats_white_box" in checked(quantised, surrogates=plain)[0]
    assert "transfer_beats_white_box" not in {finding.check for finding in checked(quantised)[1]}


def test_dropout_that_is_off_is_no_random_model() -> None:
    assert checked(trained("dropout"))[0] == set()


def test_the_batch_size_does_not_matter() -> None:
    together, apart = (checked(straight_through, batch_size=size)[1] for size in (64, 9))
    assert [finding.check for finding in together] == [finding.check for finding in apart]
    for one, other in zip(together, apart, strict=True):
        assert one.value == pytest.approx(other.value, abs=1 / 64 + 1e-9)  # a video on the edge may fall over it


def test_the_parameters_are_left_alone_and_a_ball_may_be_of_any_scope() -> None:
    model = trained("undefended")
    for scope in ("frame", "modality"):
        assert checked(model, scope=scope, epsilon=0.3)[0] == set()
    assert all(parameter.grad is None or not parameter.grad.isnan().any() for parameter in model.parameters())


def test_nothing_to_check_is_refused() -> None:
    x, y, mask = videos(4, seed=0)
    with pytest.raises(ValueError, match=r"epsilon .*greater than 0, got 0"):
        check_model(toy.model(), x, y, mask, epsilon=0.0)
    with pytest.raises(ValueError, match="checked on videos, and x has none"):
        check_model(toy.model(), x[:0], y[:0], mask[:0], epsilon=1.0)


def test_it_needs_nothing_but_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)  # importing it fails, as where only the library is installed
    assert len(checked(toy.model(), progress=True, queries=2, steps=1)[1]) == len(PAGES) - 1
    code = (
        "import sys, artpaper.checks;"
        "heavy = {'tensorflow', 'pyarrow', 'pandas', 'dvc', 'papermill', 'IPython', 'matplotlib', 'safetensors',"
        "'ruamel'} & set(sys.modules); sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- numbers alone

CLEAN = np.geomspace(1e-3, 1.0, 1000)  # easy and hard videos, a thousand times apart
HONEST = {
    "clean": CLEAN,
    "clean_again": CLEAN,
    "random": CLEAN * 1.001,
    "one_step": CLEAN * 1.10,
    "one_step_predicted": CLEAN * 1.05,
    "pgd": CLEAN * 1.12,
    "square": CLEAN * 1.02,
    "transfer": CLEAN * 1.06,
    "epsilon_64": CLEAN * 9.0,
}
GAPS = {0.0: 0.4, 1.5: 0.2, 90.0: 0.001}


def tripped(losses: dict, zero: int = 0, gaps: dict | None = None, **choices: Any) -> set[str]:
    flags = {"one_step": np.arange(len(losses["clean"])) < zero}
    return {one.check for one in check_results(losses, flags, gaps or GAPS, **choices) if one.tripped}


def test_honest_numbers_trip_nothing_however_unlike_the_videos_are() -> None:
    flags = {"one_step": np.zeros(1000, bool)}
    findings = check_results(HONEST, flags, GAPS, not_finite=flags)
    assert [finding.check for finding in findings] == list(PAGES)
    assert not any(finding.tripped for finding in findings)


@pytest.mark.parametrize(
    ("check", "attack", "factor", "most"),
    [  # most = 1000 * (p + 3 * sqrt(p * (1 - p) / 1000)), rounded down, for p of 0, 1 and 25 %
        ("random_model", "clean_again", 1.0001, 0),
        ("noise_as_good_as_gradient", "random", 1.0953, 19),  # and 1.05 * 0.0953 > 0.1
        ("black_box_beats_white_box", "square", 1.127, 19),  # 0.127 > 1.05 * 0.12
        ("transfer_beats_white_box", "transfer", 1.127, 19),
        ("more_steps_do_not_help", "pgd", 1.095, 19),
        ("loss_below_clean", "pgd", 0.999, 19),
        ("label_leaking", "one_step_predicted", 1.106, 291),
    ],
)
def test_the_threshold_is_what_is_tolerated_and_three_standard_errors(
    check: str, attack: str, factor: float, most: int
) -> None:
    rng = np.random.default_rng(0)
    for count in (most, most + 1):
        changed = HONEST[attack].copy()
        rows = rng.permutation(1000)[:count]
        changed[rows] = factor * CLEAN[rows]
        assert (check in tripped(HONEST | {attack: changed})) == (count > most)


def test_one_video_without_a_gradient_is_enough() -> None:
    assert tripped(HONEST, zero=1) == {"zero_gradients"}


def test_one_video_without_a_result_is_enough_whatever_the_attack() -> None:
    flags = {"square": np.arange(1000) == 7, "pgd": np.zeros(1000, bool)}
    assert tripped(HONEST, not_finite=flags) == {"gradient_not_finite"}


def test_gap_that_stays_up() -> None:
    assert tripped(HONEST, gaps={0.0: 0.4, 90.0: 0.0401}) == {"floor_not_reached"}
    assert tripped(HONEST, gaps={90.0: 0.0399, 0.0: 0.4}) == set()
    assert tripped(HONEST, gaps={0.0: 0.4, 90.0: 0.13}, lowest_gap=0.1) == set()
    assert tripped(HONEST, gaps={0.0: 0.4, 90.0: 0.14}, lowest_gap=0.1) == {"floor_not_reached"}


def test_ties_count_against_the_gradient_and_for_more_steps() -> None:
    same = HONEST | {"one_step": HONEST["random"], "one_step_predicted": CLEAN}
    assert tripped(same) == {"noise_as_good_as_gradient"}
    assert tripped(HONEST | {"pgd": HONEST["one_step"]}) == set()
    stuck = HONEST | {"pgd": CLEAN, "one_step": CLEAN, "one_step_predicted": CLEAN}
    assert {"noise_as_good_as_gradient", "more_steps_do_not_help"} <= tripped(stuck)


def test_videos_are_compared_one_by_one() -> None:
    """On average the black box does worse; on every tenth video it does better."""
    square = np.where(np.arange(1000) % 10 == 0, 1.2, 1.0) * CLEAN
    assert square.mean() < HONEST["pgd"].mean()
    assert tripped(HONEST | {"square": square}) == {"black_box_beats_white_box"}


def test_any_white_box_attack_speaks_for_all() -> None:
    strong = {"square": CLEAN * 1.3}
    assert tripped(HONEST | strong) == {"black_box_beats_white_box"}
    assert tripped(HONEST | strong | {"apgd_margin": CLEAN * 1.4}) == set()
    assert tripped(HONEST | strong | {"epsilon_64": CLEAN * 1.4}) == {"black_box_beats_white_box"}


def test_a_random_model_has_no_other_finding() -> None:
    noisy = {"clean": CLEAN, "clean_again": CLEAN * 1.5, "one_step": CLEAN * 0.5, "random": CLEAN}
    assert [finding.check for finding in check_results(noisy, {}, GAPS)] == ["random_model"]


def test_a_check_without_its_numbers_is_not_made() -> None:
    assert check_results({"clean": CLEAN}, {}, {}) == []
    assert check_results({"clean": CLEAN, "square": CLEAN * 2, "frames_1": CLEAN}, {}, {1.5: 0.2}) == []


def test_numbers_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="'clean'"):
        check_results({"pgd": CLEAN}, {}, {})
    with pytest.raises(ValueError, match="no videos"):
        check_results({"clean": CLEAN[:0]}, {}, {})
    with pytest.raises(ValueError, match="'pgd' are of 999 videos"):
        check_results({"clean": CLEAN, "pgd": CLEAN[1:]}, {}, {})
    with pytest.raises(ValueError, match="'pgd' are not finite"):
        check_results({"clean": CLEAN, "pgd": np.where(CLEAN > 0.5, np.nan, CLEAN)}, {}, {})


# ---------------------------------------------------------------- pages


def test_every_check_has_its_page_and_every_page_its_check() -> None:
    assert sorted(PAGES.values()) == sorted(f"docs/checks/{path.name}" for path in ROOT.glob("docs/checks/*"))
    rows = re.findall(r"^\| \[`(\w+)`\]\((.*)\) \| (.*)\? \| (.*) \|$", INDEX, re.M)
    assert [(check, f"docs/{link}") for check, link, *_ in rows] == list(PAGES.items())
    assert re.findall(r"^checks/(\w+)$", INDEX, re.M) == list(PAGES)
    for check, _, question, tolerated in rows:
        text = (ROOT / PAGES[check]).read_text(encoding="utf-8")
        title = re.match(r"# (\w+): (.*)\?\n", text)
        assert (title[1], title[2].lower()) == (check, question.lower())
        sections = dict(zip(SECTIONS, re.split(r"^## .*\n", text, flags=re.M)[1:], strict=True))
        assert re.findall(r"^## (.*)$", text, re.M) == SECTIONS
        assert all(section.strip() for section in sections.values())
        share = tolerated.partition(" %")[0] if "%" in tolerated else "0"
        assert sections["Threshold"].strip().startswith(f"{share} %")


def test_thresholds_on_the_pages_are_those_of_the_code() -> None:
    for count in (64, 256, 8092):
        losses = {name: np.ones(count) for name in HONEST}
        flags = {"one_step": np.zeros(count, bool)}
        findings = check_results(losses | {"clean_again": losses["clean"]}, flags, GAPS, not_finite=flags)
        assert len(findings) == len(PAGES)
        for finding in findings:
            text = " ".join((ROOT / finding.page).read_text(encoding="utf-8").split())
            if "three standard errors" in text:
                assert re.search(rf"{100 * finding.threshold:.1f} % of {count:,}\b", text), finding


def test_a_message_names_the_number_the_threshold_and_the_page() -> None:
    finding = next(one for one in check_results(HONEST | {"square": CLEAN * 2}, {}, {}) if one.tripped)
    assert finding.message.startswith("black_box_beats_white_box: the black-box attack beats")
    assert "for 100.0% of 1000 videos, at most 1.9% is expected; see docs/checks/black_box" in finding.message
