"""The words follow the numbers and the rules: each statement is made to hold, to fail and to stay open."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.base.errors import ConfigError, DataError
from pipeline.base.groups import Rules
from pipeline.base.parameters import Params, build
from pipeline.paper.rules import FAILS, HOLDS
from pipeline.stress.verdict.evidence import Effect, StressEvidence, read_evidence
from pipeline.stress.verdict.leaderboard import leaderboard, read_training, write_leaderboard
from pipeline.stress.verdict.page import verdict_markdown, verdict_table, write_verdict
from pipeline.stress.verdict.predictions import read_stress
from pipeline.stress.verdict.statements import STATEMENTS, UNTOLD, above, all_of, any_of, no_worse, verdict_on, verdicts
from pipeline.stress.verdict.tables import CLAIMS, stress_table, write_stress
from tests.fabricated import fabricate

ONE_STEP, ENSEMBLE, OVERSTATES, MASKED, UNIFORM, TERM, RANDOM, FLAT, BEATS, KEEPS = range(10)


def effect(value, reach, p=0.001):
    return Effect(
        "x", float(value), float(value - reach), float(value + reach), p, 3, 100, "differences.csv", {}, "difference"
    )


def row(one, value, reach, p, seeds=3):
    p = np.nan if seeds == 1 else p
    return {"family": one[0], "metric": one[1], "model": one[2], "attack": one[3], "over_model": one[4],
            "over_attack": one[5], "difference": value, "low": value - reach, "high": value + reach, "holm_p": p,
            "basis": "videos only" if seeds == 1 else "seeds and videos", "seeds": seeds, "videos": 900}  # fmt: skip


NUMBERS = {  # (model, attack, over model, over attack): difference, half its interval, p
    ("a_art", "one_step", "art", "one_step"): (0.0, 1.0, 1.0),
    ("a_art", "ensemble", "art", "ensemble"): (0.0, 1.0, 1.0),
    ("art", "ensemble", "non_art", "ensemble"): (8.0, 1.0, 0.001),
    ("a_art", "ensemble", "uniform_art", "ensemble"): (0.0, 1.0, 1.0),
    ("uniform_art", "ensemble", "uniform", "ensemble"): (8.0, 1.0, 0.001),
    ("a_art_strong", "ensemble", "random_att", "ensemble"): (0.0, 1.0, 1.0),
    ("a_art", "ensemble", "a_art", "one_step"): (-5.0, 1.0, 0.001),
    ("a_art", "ensemble", "a_art", "clean"): (-16.0, 1.0, 0.001),
    ("a_art", "square", "a_art", "pgd"): (-0.1, 0.01, 0.001),
    ("a_art", "transfer", "a_art", "pgd"): (-0.1, 0.01, 0.001),
    ("pgd_at", "clean", "uniform_art", "clean"): (-0.5, 1.0, 1.0),
    ("pgd_at", "ensemble", "uniform_art", "ensemble"): (1.0, 0.5, 0.01),
    ("pgd_at", "clean", "uniform_wide", "clean"): (-0.5, 1.0, 1.0),
    ("pgd_at", "ensemble", "uniform_wide", "ensemble"): (6.0, 1.0, 0.001),
}


def tables(changed=None, flatness=None, seeds=3, without=()):
    numbers = NUMBERS | (changed or {})
    rows = []
    for key, (value, reach, p) in numbers.items():
        metric = "loss" if key[1] in ("square", "transfer") else "gap"
        family = "defences" if key[0] == "pgd_at" else "claims"
        if not set(key) & set(without):
            rows.append(row((family, metric, *key), value, reach, p, seeds))
    board = pd.DataFrame({"model": ["a_art"], "clean": [40.0], "clean_low": [39.0], "clean_high": [41.0]})
    flat = {"art": [1.0, 1.0], "a_art_strong": [0.05, 0.04], "pgd_at": [0.9, 0.9], "uniform_art": [0.0, 0.0]}
    trained = [
        {"model": model, "seed": seed, "attention_uniform_rms": value}
        for model, values in (flat | (flatness or {})).items()
        for seed, value in enumerate(values[: 1 if seeds == 1 else None])
        if model not in without
    ]
    board = board.assign(seeds=seeds, videos=900, source="synthetic", left_out=np.nan)  # as a file has it
    return StressEvidence(pd.DataFrame(rows), board, pd.DataFrame(trained))


def said(place, rules=None, **given):
    return verdict_on(STATEMENTS[place], tables(**given), rules or Rules()).verdict


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (effect(3, 0.5), HOLDS), (effect(3, 2.9), HOLDS), (effect(3, 0.5, 0.2), UNTOLD), (effect(0.1, 1.5, 1.0), FAILS),
        (effect(1.0, 0.5), FAILS), (effect(-3, 0.5), FAILS), (effect(0.0, 3.0, 1.0), UNTOLD),
        (effect(1.0, 1.05, 0.04), UNTOLD), (effect(3, 0.5, 0.06), UNTOLD), (effect(3, 0.5, np.nan), UNTOLD),
        (effect(-3, 0.5, np.nan), UNTOLD),
    ],
)  # fmt: skip
def test_above(one, expected):
    assert above(one, Rules()) == expected


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (effect(0, 1.5, 1.0), HOLDS), (effect(-1.0, 0.5), HOLDS), (effect(9, 1), HOLDS), (effect(-3, 0.5), FAILS),
        (effect(-3, 0.5, 0.2), UNTOLD), (effect(0, 4, 1.0), UNTOLD), (effect(0, 1, np.nan), UNTOLD),
    ],
)  # fmt: skip
def test_no_worse(one, expected):
    assert no_worse(one, Rules()) == expected


def test_parts_make_a_whole():
    assert [all_of(p) for p in ([HOLDS, FAILS], [HOLDS, UNTOLD], [UNTOLD, FAILS], [HOLDS])] == [
        FAILS,
        UNTOLD,
        FAILS,
        HOLDS,
    ]
    assert [any_of(p) for p in ([HOLDS, FAILS], [FAILS, UNTOLD], [UNTOLD, HOLDS], [FAILS])] == [
        HOLDS,
        UNTOLD,
        HOLDS,
        FAILS,
    ]
    back = effect(3, 1).opposite
    assert (back.value, back.low, back.high) == (-3, -4, -2)


BASE = [FAILS, FAILS, HOLDS, FAILS, HOLDS, HOLDS, FAILS, HOLDS, FAILS, FAILS]


def test_the_verdicts_of_the_base_case():
    assert [one.verdict for one in verdicts(tables(), Rules())] == BASE


A, U, E = "a_art", "uniform_art", "ensemble"
BEATEN = {("pgd_at", E, U, E): (6.0, 1.0, 0.001)}


@pytest.mark.parametrize(
    ("place", "given", "expected"),
    [
        (ONE_STEP, {"changed": {(A, "one_step", "art", "one_step"): (9.0, 1.0, 0.001)}}, HOLDS),
        (ONE_STEP, {"changed": {(A, "one_step", "art", "one_step"): (0.0, 3.0, 1.0)}}, UNTOLD),
        (ENSEMBLE, {"changed": {(A, E, "art", E): (9.0, 1.0, 0.001)}}, HOLDS),
        (RANDOM, {"changed": {("a_art_strong", E, "random_att", E): (9.0, 1.0, 0.001)}}, HOLDS),
        (OVERSTATES, {"changed": {(A, E, A, "one_step"): (-0.5, 0.2, 0.001)}}, FAILS),
        (OVERSTATES, {"changed": {(A, E, A, "one_step"): (-3.0, 4.0, 0.4)}}, UNTOLD),
        (MASKED, {"changed": {(A, "square", A, "pgd"): (0.1, 0.01, 0.001)}}, HOLDS),
        (MASKED, {"changed": {(A, "transfer", A, "pgd"): (0.1, 0.01, 0.001)}}, HOLDS),
        (MASKED, {"changed": {(A, "transfer", A, "pgd"): (0.0, 0.01, 1.0)}}, UNTOLD),
        (MASKED, {"changed": {(A, "square", A, "pgd"): (0.004, 0.001, 0.001)}}, HOLDS),  # however little
        (MASKED, {"without": ["transfer"]}, UNTOLD),
        (UNIFORM, {"changed": {(A, E, U, E): (9.0, 1.0, 0.001)}}, FAILS),
        (UNIFORM, {"changed": {(A, E, U, E): (0.0, 5.0, 1.0)}}, UNTOLD),
        (TERM, {"changed": {(A, E, U, E): (9.0, 1.0, 0.001)}}, FAILS),
        (TERM, {"changed": {("art", E, "non_art", E): (0.0, 1.0, 1.0)}}, FAILS),
        (TERM, {"changed": {(U, E, "uniform", E): (8.0, 9.0, 0.3)}}, UNTOLD),
        (FLAT, {"flatness": {"a_art_strong": [0.5, 0.4]}}, FAILS),
        (FLAT, {"flatness": {"a_art_strong": [0.5, 0.04]}}, UNTOLD),
        (BEATS, {"changed": BEATEN}, HOLDS),
        (BEATS, {"changed": BEATEN, "flatness": {"pgd_at": [0.01, 0.01]}}, UNTOLD),
        (BEATS, {"changed": {("pgd_at", E, U, E): (2.0, 3.0, 0.9)}}, UNTOLD),
        (BEATS, {"changed": BEATEN, "without": ["uniform_wide"]}, UNTOLD),  # one of the controls was not tried
        (BEATS, {"changed": BEATEN | {("pgd_at", "clean", U, "clean"): (-5.0, 5.1, 0.06)}}, UNTOLD),  # noise
        (KEEPS, {"changed": {(A, E, A, "clean"): (-0.3, 0.2, 0.01)}}, HOLDS),
        (KEEPS, {"changed": {(A, E, A, "clean"): (-0.8, 0.6, 0.01)}}, UNTOLD),
        # twice the paper's share is 2.09 %; the clean GAP of 40 may be 39 or 41
        (KEEPS, {"changed": {(A, E, A, "clean"): (-0.945, 0.1, 0.01)}}, UNTOLD),
        (KEEPS, {"changed": {(A, E, A, "clean"): (-0.725, 0.1, 0.01)}}, UNTOLD),
    ],
)  # fmt: skip
def test_each_statement_follows_its_numbers(place, given, expected):
    assert expected != BASE[place]
    assert said(place, **given) == expected


def test_of_models_that_beat_nothing_the_nearest_is_named():
    """Each model by the control that it does worst against."""
    others = {("trades", attack, *rest): numbers for (model, attack, *rest), numbers in NUMBERS.items()
              if model == "pgd_at"}  # fmt: skip
    changed = others | {("trades", E, "uniform_wide", E): (0.9, 0.5, 0.01), ("trades", E, U, E): (7.0, 0.5, 0.01)}
    given = tables(changed=changed, flatness={"trades": [0.9, 0.9]})
    rows = given.differences
    given = replace(given, differences=rows.assign(family=rows["family"].mask(rows["model"] == "trades", "defences")))
    found = verdicts(given, Rules())[BEATS]
    assert found.verdict == FAILS
    assert "of 2 models that keep their attention none surely does; the nearest: PGD-AT" in found.reason


def test_robustness_bought_with_clean_gap_beats_nothing():
    lower = BEATEN | {("pgd_at", "clean", U, "clean"): (-4.0, 1.0, 0.001)}
    wide = BEATEN | {("pgd_at", E, "uniform_wide", E): (-6.0, 1.0, 0.001)}  # the wider uniform control is stronger
    assert [said(BEATS, changed=changed) for changed in (BEATEN, lower, wide)] == [HOLDS, FAILS, FAILS]


@pytest.mark.parametrize(
    ("place", "rules", "expected"),
    [
        (ONE_STEP, {"margin": 0.5}, UNTOLD), (TERM, {"margin": 0.5}, UNTOLD), (OVERSTATES, {"alpha": 0.0001}, UNTOLD),
        (FLAT, {"flat": 0.01}, FAILS), (BEATS, {"kept": 0.95}, UNTOLD), (KEEPS, {"lost": 90.0}, HOLDS),
    ],
)  # fmt: skip
def test_whoever_disagrees_changes_one_parameter(place, rules, expected):
    assert said(place, replace(Rules(), **rules)) == expected != BASE[place]


def test_impossible_rules_are_refused():
    for wrong in ({"alpha": 1.5}, {"margin": -1.0}, {"lost": float("nan")}):
        with pytest.raises(ConfigError, match=f"verdict.{next(iter(wrong))}: "):
            build(Params, {"verdict": wrong}, "test")


def test_one_seed_decides_nothing():
    assert [one.verdict for one in verdicts(tables(seeds=1), Rules())] == [UNTOLD] * len(STATEMENTS)
    assert "one seed: the videos' chance only" in verdict_markdown(tables(seeds=1), Rules())


def test_what_was_not_measured_cannot_be_told_and_says_so():
    found = verdicts(tables(without=["uniform_art", "a_art_strong"]), Rules())
    for place in (UNIFORM, TERM, FLAT, BEATS):
        assert found[place].verdict == UNTOLD
        assert "not measured" in found[place].reason
    assert "model a_art_strong" in found[FLAT].reason
    assert found[OVERSTATES].verdict == HOLDS


def test_every_claim_that_is_corrected_for_is_used():
    """A comparison in the family that no statement reads would only make the others harder to show."""
    used = {
        tuple(one.where[name] for name in ("metric", "model", "attack", "over_model", "over_attack"))
        for verdict in verdicts(tables(), Rules())
        for one in verdict.numbers
        if one.where.get("family") == "claims"
    }
    assert used == {(one.metric, one.model, one.attack, one.over_model, one.over_attack) for one in CLAIMS}


def test_the_page_says_what_the_numbers_say_and_what_a_margin_changes():
    text = verdict_markdown(tables(), Rules())
    assert "SYNTHETIC data" in text
    assert text.count("*does not hold*") == BASE.count(FAILS)
    assert "A-ART, ensemble, over one step -5.00 [-6.00, -4.00], p 0.001 (n: 3 seeds, 900 videos)" in text
    assert "- With a margin of 1: " in text
    assert "- With a margin of 4: " in text
    assert "would leave 55.2, not 91.04" in text  # 92.00 * (1 - 16 / 40)
    kept = verdict_markdown(tables(changed={(A, E, A, "clean"): (-0.3, 0.2, 0.01)}), Rules())
    assert "not 91.04" not in kept


def test_from_files_to_words(tmp_path):
    """Files whose truth is known, through every table: uniform attention is better on purpose, A-ART is ART."""
    attacks = ("clean", "one_step", "pgd", "square", "transfer", "ensemble")
    skill = {("uniform_art", attack): 3.0 for attack in attacks}
    models = ("non_art", "art", "a_art", "uniform", "uniform_art", "a_art_strong", "random_att")
    fabricate(tmp_path, models, attacks, videos=200, skill=skill)
    stress = read_stress(tmp_path, draws=100)
    write_stress(stress, tmp_path)
    write_leaderboard(leaderboard(stress_table(stress), read_training(tmp_path / "training.csv")), tmp_path)
    given = read_evidence(tmp_path, tmp_path / "training.csv")
    found = write_verdict(given, Rules(), tmp_path)
    for place, expected in {
        OVERSTATES: HOLDS,
        MASKED: FAILS,
        UNIFORM: HOLDS,
        FLAT: HOLDS,
        BEATS: FAILS,
        KEEPS: FAILS,
    }.items():
        assert found[place].verdict == expected, STATEMENTS[place].text
    assert found[ONE_STEP].verdict != HOLDS
    assert "SYNTHETIC" in (tmp_path / "verdict.md").read_text()
    back = pd.read_csv(tmp_path / "verdict.csv")
    assert list(back.groupby("statement")["verdict"].first()) == [one.verdict for one in found]
    pd.testing.assert_frame_equal(
        back[["value", "low"]], verdict_table(found)[["value", "low"]], rtol=1e-7, check_dtype=False
    )
    (tmp_path / "differences.csv").unlink()
    with pytest.raises(DataError, match=r"differences\.csv: missing or damaged"):
        read_evidence(tmp_path, tmp_path / "training.csv")
