"""One list names the attacks: one more there is known to the stress test, the explorer and the checks."""

import warnings
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from artpaper.attacks import ATTACKS, Attack, Listed, checked
from artpaper.attacks.result import ask, attack_result
from artpaper.checks import check_model, check_results
from artpaper.settings import Count, NonNegative
from pipeline.base.parameters import Params
from pipeline.explorer.choices import choices
from pipeline.stress.attacks.plan import plan
from tests import toy

# published under these names, in this order, which decides ties of the ensemble
STRESS = ["random", "universal", "one_step", "one_step_predicted", "pgd", "pgd_predicted", "attention_maps",
          "attention_scores", "frames_1", "square", "apgd_bce", "apgd_margin", "apgd_dlr", "apgd_top_k_ap", "transfer",
          "only_rgb", "only_audio", "fgsm_linf", "pgd_linf"]  # fmt: skip
EXPLORER = ["one_step", "one_step_predicted", "pgd", "attention_maps", "apgd_margin", "deepfool", "random"]


def planned(params: Params) -> dict:
    return plan(params, {"art": toy.model(1)}, lambda: torch.ones(9, 24), toy.MODALITIES)


def test_names_passes_and_radii_are_those_published() -> None:
    params = Params()
    steps, both, queries = params.stress.steps, params.stress.steps * params.stress.restarts, params.stress.queries
    found = planned(params)
    assert list(found) == STRESS
    passes = [
        1 / 3,
        1 / 3,
        1,
        1,
        both,
        steps,
        2 * steps,
        2 * steps,
        steps,
        queries / 3,
        *[both] * 4,
        *[steps] * 3,
        1,
        steps,
    ]
    assert [attack.passes for attack in found.values()] == passes
    assert all(attack.member for attack in found.values())
    corner = params.attack.epsilon / (params.features.max_frames * 24) ** 0.5
    radii = [corner if name.endswith("_linf") else params.attack.epsilon for name in STRESS]
    assert [attack.epsilon for attack in found.values()] == radii
    assert list(plan(params, {}, lambda: torch.ones(9, 24), {"rgb": 24})) == [
        name for name in STRESS if name != "transfer" and not name.startswith("only_")
    ]
    assert list(choices()) == EXPLORER


@pytest.mark.parametrize("name", STRESS)
def test_every_attack_of_the_stress_test_runs(name: str, small_params: Params) -> None:
    attack = planned(small_params)[name].run(toy.model(), *toy.batch())
    assert attack.perturbation.isfinite().all()
    assert (attack.perturbation != 0).any()


@checked
def shove(model, x, y, mask, *, epsilon: NonNegative, steps: Count = 3) -> Attack:
    """Along the first feature, whatever the model: an attack that somebody adds."""
    step = torch.zeros_like(x)
    step[:, :, 0] = epsilon * mask / mask.sum(dim=1, keepdim=True).clamp(min=1).sqrt()
    return attack_result(model, x, y, mask, step, ask(model, x, mask), gradient=None, iterations=steps)


@pytest.fixture
def listed() -> Iterator[Listed]:
    """The attack, as one line in the list has it."""
    entry = Listed("shove", shove, title="a shove", checks=True)
    ATTACKS.append(entry)
    yield entry
    ATTACKS.pop()


def test_one_more_line_is_known_to_the_stress_test_and_the_explorer(listed: Listed, small_params: Params) -> None:
    found = planned(small_params)
    assert list(found) == [*STRESS, "shove"]
    assert found["shove"].passes == small_params.stress.steps
    x, y, mask = toy.batch()
    attack = found["shove"].run(toy.model(), x, y, mask)
    assert attack.diagnostics["norm"][0].item() == pytest.approx(small_params.attack.epsilon)
    assert attack.diagnostics["iterations"][0] == small_params.stress.steps
    offered = choices()["shove"]
    assert (offered.title, offered.takes_epsilon, offered.searched) == ("a shove", True, 64)
    shown = offered.run(toy.model(), x, y, mask, 0.25, small_params)
    assert shown.diagnostics["norm"][0].item() == pytest.approx(0.25)


def test_one_more_line_is_known_to_the_checks(listed: Listed) -> None:
    clean = torch.rand(50).double().numpy() + 0.1
    losses = {"clean": clean, "pgd": clean * 1.1, "square": clean * 1.5}

    def beaten(more: dict) -> bool:
        return {one.check: one for one in check_results(losses | more, {}, {})}["black_box_beats_white_box"].tripped

    assert beaten({})
    assert not beaten({"shove": clean * 1.6})  # a white box, and the strongest
    calls = []

    def watched(*given, epsilon: float, steps: int) -> Attack:
        calls.append((epsilon, steps))
        return shove(*given, epsilon=epsilon, steps=steps)

    ATTACKS[-1] = replace(listed, attack=watched)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_model(toy.model(), *toy.batch(), epsilon=0.5, steps=2, queries=3, progress=False)
    assert calls == [(0.5, 2)]
