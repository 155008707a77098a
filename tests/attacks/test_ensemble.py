"""The worst case over attacks, against a loop over videos and for what it refuses."""

import dataclasses

import pytest
import torch
from torch import Tensor

from artpaper.attacks import Attack, bce, ensemble, fgm, hit, random_direction
from tests import toy


def three() -> tuple[dict[str, Attack], Tensor]:
    """Three attacks of which none is the worst for every video: one follows the gradient, two walk blindly."""
    net = toy.model()
    x, y, mask = toy.batch(videos=24)
    blind = {f"blind_{seed}": random_direction(net, x, y, mask, epsilon=3.0, seed=seed) for seed in (1, 2)}
    short = fgm(net, x, y, mask, epsilon=0.02)
    return {"short": short, **blind}, y


def margin(logits: Tensor, y: Tensor) -> Tensor:
    return logits.masked_fill(y > 0, -torch.inf).amax(1) - logits.masked_fill(y == 0, torch.inf).amin(1)


@pytest.mark.parametrize("objective", [bce, margin])
def test_every_video_has_the_row_of_its_worst_attack(objective) -> None:
    attacks, y = three()
    worst, names = ensemble(attacks, y, objective)
    assert set(names) == set(attacks)
    for i, name in enumerate(names):
        losses = {
            key: objective(one.adversarial_logits[i : i + 1], y[i : i + 1]).item() for key, one in attacks.items()
        }
        assert name == max(losses, key=losses.__getitem__)
        assert torch.equal(worst.perturbation[i], attacks[name].perturbation[i])
        assert torch.equal(worst.adversarial_logits[i], attacks[name].adversarial_logits[i])
        for key in worst.diagnostics.keys() - {"gradient_norm", "fooled"}:  # NaN where no gradient was taken
            assert worst.diagnostics[key][i] == attacks[name].diagnostics[key][i]
        assert worst.diagnostics["gradient_norm"][i].isnan() == name.startswith("blind")
    assert torch.equal(worst.clean_logits, attacks["short"].clean_logits)


def test_the_order_of_the_attacks_matters_only_in_ties() -> None:
    attacks, y = three()
    worst, names = ensemble(attacks, y)
    turned, turned_names = ensemble(dict(reversed(attacks.items())), y)
    assert names == turned_names
    assert torch.equal(worst.perturbation, turned.perturbation)
    same = {"a": attacks["short"], "b": attacks["short"]}
    assert ensemble(same, y)[1] == ["a"] * 24


def test_a_loss_that_is_no_number_loses_and_an_infinite_one_wins() -> None:
    attacks, y = three()
    logits = attacks["blind_1"].adversarial_logits.clone()
    logits[0], logits[1] = torch.nan, torch.where(y[1] > 0, -torch.inf, 0.0)  # the margin is inf
    attacks["blind_1"] = dataclasses.replace(attacks["blind_1"], adversarial_logits=logits)
    _, names = ensemble(attacks, y, margin)
    assert names[0] != "blind_1"
    assert names[1] == "blind_1"
    every = {name: dataclasses.replace(one, adversarial_logits=logits) for name, one in attacks.items()}
    assert ensemble(every, y, margin)[1][0] == "short"


def test_saturated_losses_are_still_told_apart() -> None:
    """In float32 the loss of a logit of -20 on a wrong label and that of -30 are the same beside a loss of 50."""
    attacks, y = three()
    y = torch.zeros_like(y)
    y[:, 0] = 1
    logits = torch.full_like(y, -30.0)
    logits[:, 0] = -50.0
    higher = logits.clone()
    higher[:, 1] = -20.0
    assert torch.equal(bce(logits, y), bce(higher, y))
    pair = {
        "low": dataclasses.replace(attacks["short"], adversarial_logits=logits),
        "high": dataclasses.replace(attacks["short"], adversarial_logits=higher),
    }
    assert set(ensemble(pair, y)[1]) == {"high"}


def test_fooled_is_about_the_top_label() -> None:
    attacks, y = three()
    odd = torch.arange(24) % 2 == 0  # as an attack with a goal of its own may say
    renamed = {
        name: dataclasses.replace(one, diagnostics=one.diagnostics | {"fooled": odd, "already_wrong": ~odd})
        for name, one in attacks.items()
    }
    worst, _ = ensemble(renamed, y)
    assert torch.equal(worst.diagnostics["already_wrong"], ~hit(worst.clean_logits, y))
    any_of_them = torch.stack([~hit(one.adversarial_logits, y) for one in attacks.values()]).any(dim=0)
    assert torch.equal(worst.diagnostics["fooled"], hit(worst.clean_logits, y) & any_of_them)


def test_what_any_attack_fools_is_fooled() -> None:
    """The fault it alone catches: an attack more, of higher loss, that takes a fooled video from the count."""
    attacks, _ = three()
    clean = torch.tensor([[2.0, -1.0, -1.0]])
    answers = {"fools": [1.0, 1.1, -5.0], "worse": [0.5, 0.49, 0.49], "broken": [torch.nan] * 3}
    still = {name: rows[:1] for name, rows in attacks["short"].diagnostics.items()}
    made = {
        name: Attack(torch.zeros(1, 1, 1), clean, torch.tensor([answer]),
                     still | {"logits_not_finite": torch.tensor([name == "broken"])})
        for name, answer in answers.items()
    }  # fmt: skip
    worst, names = ensemble(made, torch.tensor([[1.0, 0.0, 0.0]]))
    assert names == ["worse"]
    assert worst.diagnostics["fooled"].tolist() == [True]
    assert worst.diagnostics["logits_not_finite"].tolist() == [False]


def test_one_attack_is_its_own_worst_case() -> None:
    attacks, y = three()
    worst, names = ensemble({"short": attacks["short"]}, y)
    assert names == ["short"] * 24
    assert torch.equal(worst.perturbation, attacks["short"].perturbation)


def test_attacks_that_do_not_belong_together_are_refused() -> None:
    attacks, y = three()
    with pytest.raises(ValueError, match="at least one"):
        ensemble({}, y)
    x, _, mask = toy.batch(videos=24)
    other_model = fgm(toy.model(seed=1), x, y, mask, epsilon=0.5)
    with pytest.raises(ValueError, match="'blind_2' and 'other' have clean logits"):
        ensemble({**attacks, "other": other_model}, y)
    order = torch.arange(24).flip(0)
    reordered = fgm(toy.model(), x[order], y[order], mask[order], epsilon=0.5)
    with pytest.raises(ValueError, match="'other' and 'short' have clean logits"):
        ensemble({"other": reordered, **attacks}, y)
    fewer = fgm(toy.model(), x[:5], y[:5], mask[:5], epsilon=0.5)
    with pytest.raises(ValueError, match="'blind_2' and 'fewer' are on other videos"):
        ensemble({**attacks, "fewer": fewer}, y)


def test_diagnostics_are_those_that_all_attacks_have() -> None:
    attacks, y = three()
    for extra in ("short", "blind_2"):
        one = attacks[extra]
        more = dataclasses.replace(one, diagnostics=one.diagnostics | {"queries": torch.ones(24)})
        assert ensemble({**attacks, extra: more}, y)[0].diagnostics.keys() == one.diagnostics.keys()


def test_rounding_apart_is_the_same_model() -> None:
    attacks, y = three()
    rounded = dataclasses.replace(attacks["short"], clean_logits=attacks["short"].clean_logits + 1e-6)
    assert len(ensemble({**attacks, "rounded": rounded}, y)[1]) == 24


@pytest.mark.parametrize("flag", ["gradient_not_finite", "logits_not_finite"])
def test_a_video_of_which_one_attack_has_no_result_has_none_unless_another_fools(flag: str) -> None:
    """The fault it alone catches: a video that counts as robust because the attack that might have won broke down."""
    attacks, y = three()
    worst, _ = ensemble(attacks, y)
    fooled = worst.diagnostics["fooled"]
    assert fooled.any()
    assert not fooled.all()
    lost = torch.ones(24, dtype=torch.bool)
    broken = dataclasses.replace(attacks["short"], diagnostics=attacks["short"].diagnostics | {flag: lost})
    found, _ = ensemble(attacks | {"short": broken}, y)
    assert torch.equal(found.diagnostics[flag], ~fooled)
    assert torch.equal(found.diagnostics["fooled"], fooled)
