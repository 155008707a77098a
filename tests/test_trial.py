"""The trial: its statistics against scipy and simulation, rules, swaps, and its numbers from published files."""

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from scipy import stats

from artpaper.attacks import OBJECTIVES, apgd, fgm, transfer
from artpaper.losses import attention_adversarial, defended
from artpaper.metrics import gap_from_top
from artpaper.models import FrameTransformer
from artpaper.settings import Control
from pipeline.base.errors import ArtpaperError, ConfigError, DataError
from pipeline.base.parameters import Params, as_dict, load_params
from pipeline.data.batches import model_inputs
from pipeline.data.store import FrameStore
from pipeline.train.history import attention_share
from pipeline.trial import audit as audit_module
from pipeline.trial import measure as measure_module
from pipeline.trial import rules as rules_module
from pipeline.trial import sets as sets_module
from pipeline.trial import units as unit_module
from pipeline.trial.audit import audit
from pipeline.trial.fronts import _centre
from pipeline.trial.measure import SWAPS, Measured, by_length, gap_and_draws, mean_maps, measure, swapped
from pipeline.trial.overall import overall, overall_figure, overall_page, read_sets, write_overall
from pipeline.trial.page import ATTACKS, model_table, page, unit_table, verdict, write_page
from pipeline.trial.rules import (
    LOST,
    Answers,
    Rules,
    calibrate,
    epsilon_of,
    grid,
    inputs,
    lengths,
    loss_and_change,
    one_step_gap,
    read_rules,
)
from pipeline.trial.sets import ASIDE, SETS, draw_counts, in_trial, set_name, trial_params
from pipeline.trial.statistics import difference, planned, read_results, won_back
from pipeline.trial.units import make_unit, read_unit, run_trial, write_unit
from pipeline.trial.variants import PLANNED, Unit, undefended, units, variant_name, variants, with_variant
from tests import toy
from tests.pipeline import changed

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = sorted(path.parent for path in (ROOT / "results").glob("*/trial/rules.json"))
RULES = Rules(70.0, {0.1: [(0.9, 0.8)], 0.2: [(0.9, 0.72)], 0.4: [(0.9, 0.4)]}, 0.05, 0.8, 1.5, {"commit": "none"}, 0.7)
CONDITIONS = ("clean", "one_step", *SWAPS, "clean_part", "one_step_part", "apgd")


def test_without_chance_over_videos_it_is_students_paired_test() -> None:
    """The fault it alone catches: a variance or degrees of freedom that are not those of the seeds."""
    points = np.random.default_rng(0).normal(0.5, 1.0, 8)
    found = difference(points, np.repeat(points[:, None], 30, axis=1), 500)
    expected = stats.ttest_1samp(points, 0.0)
    interval = expected.confidence_interval(0.95)
    assert [found.p, found.low, found.high] == pytest.approx([expected.pvalue, interval.low, interval.high])
    sides = (
        stats.ttest_1samp(points, end, alternative=side).pvalue for end, side in ((-1.5, "greater"), (1.5, "less"))
    )
    assert found.equivalent(1.5) == pytest.approx(max(sides))


def test_without_chance_over_seeds_it_is_students_test_of_the_people() -> None:
    """The fault it alone catches: a bootstrap of three people taken at its face value, or as if they were many."""
    people = np.array([1.0, 4.0, 2.5])  # the difference of each, the same for every seed
    rng = np.random.default_rng(1)
    draws = people[rng.integers(3, size=(20_000, 3))].mean(axis=1)
    found = difference(np.full(8, people.mean()), np.tile(draws, (8, 1)), 3)
    expected = stats.ttest_1samp(people, 0.0)
    assert found.freedom == pytest.approx(2)
    assert found.p == pytest.approx(expected.pvalue, rel=0.03)


@pytest.mark.parametrize(("drawn", "residual"), [(60, 12.0), (60, 0.0), (4, 1.0)])
def test_intervals_cover_what_they_say(drawn: int, residual: float) -> None:
    """Seeds, videos and what a seed adds on single videos, crossed: in 95 of 100 worlds the interval has the truth."""
    rng = np.random.default_rng(2)
    counts = rng.multinomial(drawn, [1 / drawn] * drawn, size=300) / drawn  # (draws, videos)
    worlds, inside = 1500, 0
    for _ in range(worlds):
        seeds, videos = rng.normal(0, 0.5, (8, 1)), rng.normal(0, 3.0, (1, drawn))
        values = 0.7 + seeds + videos + rng.normal(0, residual, (8, drawn))  # (seeds, videos)
        found = difference(values.mean(axis=1), values @ counts.T, drawn)
        inside += found.low <= 0.7 <= found.high
    assert inside / worlds == pytest.approx(0.95, abs=0.02)


def test_the_smallest_difference_told_is_told_eight_times_in_ten() -> None:
    points = np.random.default_rng(3).normal(0, 1.0, 8)
    found = difference(points, np.repeat(points[:, None], 30, axis=1), 500)
    worlds = np.random.default_rng(4).normal(found.told(), found.error * 8**0.5, (20_000, 8))
    told = (stats.ttest_1samp(worlds, 0.0, axis=1).pvalue < 0.05).mean()
    # the spread of each world is estimated, as that of the noncentral t has it
    assert told == pytest.approx(0.8, abs=0.01)


def test_one_seed_decides_nothing() -> None:
    with pytest.raises(ValueError, match="1 seeds"):
        difference(np.ones(1), np.ones((1, 30)), 100)


def test_epsilon_is_the_nearest_and_must_be_bracketed() -> None:
    curve = {radius: [(0.9, 0.9 * (1 - lost))] for radius, lost in ((1, 0.1), (2, LOST - 0.02), (3, LOST + 0.03))}
    assert epsilon_of(curve) == 2
    for lacking in ({1: curve[1], 2: curve[2]}, {3: curve[3]}):
        with pytest.raises(DataError, match="of GAP, not 20"):
            epsilon_of(lacking)
    radii = grid(212.0)
    assert radii[6] == pytest.approx(0.495, abs=1e-3)  # the paper's 0.5, to the two digits of 3.4 %
    assert [radii[0] * 8, radii[-1] / 4] == pytest.approx([radii[6]] * 2, rel=1e-5)
    assert np.diff(np.log2(radii)) == pytest.approx(0.5, abs=1e-4)


def test_units_use_what_the_rules_give(tmp_path: Path) -> None:
    """The fault it alone catches: an epsilon or a beta in a model, or in rules.json, that no measurement led to."""
    losses = variants(RULES)
    assert RULES.epsilon == 0.2
    assert losses["a_art"].beta * RULES.change == pytest.approx(0.2 * RULES.loss)
    assert losses["contrast"].beta * RULES.contrast == pytest.approx(0.2 * RULES.loss)
    assert losses["a_art_squared"].beta * 0.7 == pytest.approx(0.2 * RULES.loss)
    assert losses["a_art_squared"].attention_squared
    assert losses["a_art_detached"] == dataclasses.replace(losses["a_art"], attention_detach_clean=True)
    assert "a_art_squared" not in variants(dataclasses.replace(RULES, squared=None))  # of an older calibration
    assert {losses[name].epsilon for name in PLANNED[1:]} == {0.2}
    assert losses["art_4e"].epsilon == losses["a_art_share0.4_4e"].epsilon == 0.8
    own = with_variant(trial_params("utd_mhad", ROOT), RULES, "a_art")
    assert own.attack.epsilon == 0.2
    assert own.models["a_art"] == losses["a_art"]
    paper = with_variant(trial_params("utd_mhad", ROOT), RULES, "a_art_paper")
    assert paper.attack.epsilon == paper.models["a_art_paper"].epsilon == pytest.approx(0.034 * 70**0.5)
    assert paper.models["a_art_paper"].beta == losses["a_art"].beta
    assert [undefended(name) for name in ("a_art", "a_art_paper")] == ["non_art", "non_art_paper"]  # as attacked
    assert list(units(RULES))[:5] == [*(Unit(name, 0) for name in PLANNED), Unit("non_art", 1)]
    values = json.loads(json.dumps(RULES.to_json()))
    for name, value in (("epsilon", 0.4), ("beta", values["beta"] | {"0.2": 1.0})):
        (tmp_path / "rules.json").write_text(json.dumps(values | {name: value}))
        with pytest.raises(DataError, match="calibrate again"):
            read_rules(tmp_path / "rules.json")


def test_every_set_follows_the_same_rules() -> None:
    every = [trial_params(name, ROOT) for name in SETS]
    assert {(p.features.norm, p.attack.scope, p.model.scale_input) for p in every} == {("l2_frame", "joint", True)}
    assert len({p.train.early_stop_patience for p in every}) == 1
    synthetic = {name for name, p in zip(SETS, every, strict=True) if p.data.source == "synthetic"}
    assert {name for name in SETS if set_name(name).endswith(" (synthetic)")} == synthetic
    assert all("synthetic" in SETS[name].note for name in synthetic)


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda path: path.parent.name)
def test_a_profile_of_the_trial_holds_what_the_rules_gave(folder: Path) -> None:
    rules = read_rules(folder / "rules.json")
    profile = load_params(ROOT / "profiles" / f"{folder.parent.name}.yaml")
    assert profile.attack.epsilon == profile.models["art"].epsilon == pytest.approx(rules.epsilon, rel=0.01)
    assert profile.models["a_art"].beta == pytest.approx(rules.beta(0.2), rel=0.01)


def test_a_fifth_is_put_aside_by_id_alone() -> None:
    ids = [f"video{number}" for number in range(5000)]
    kept = {ids[place] for place in in_trial(ids)}
    assert len(kept) == pytest.approx((1 - ASIDE) * 5000, rel=0.03)
    backwards = ids[::-1]
    assert {backwards[place] for place in in_trial(backwards)} == kept
    few = {ids[place] for place in in_trial(ids, 100)}
    assert few < kept
    more = [ids[place] for place in in_trial(ids[:2500])]
    assert set(more) == kept & set(ids[:2500])


def test_people_are_drawn_whole() -> None:
    ids = [f"a{action}_s{person}_t1" for person in (2, 4, 6) for action in range(5)]
    counts, drawn = draw_counts(ids, SETS["utd_mhad"].people)
    assert drawn == 3
    by_person = counts.reshape(-1, 3, 5)
    assert (by_person == by_person[:, :, :1]).all()
    assert (by_person[:, :, 0].sum(axis=1) == 3).all()


def test_swaps_are_the_maps_that_they_say() -> None:
    """Against models that have these maps by construction; the hooks and the map by position are gone afterwards."""
    net, uniform = toy.model(dtype=torch.float64), toy.model(attention="uniform", dtype=torch.float64)
    uniform.load_state_dict(net.state_dict(), strict=False)
    x, _, _ = toy.batch(videos=3, dtype=torch.float64)
    mask = torch.ones(3, 9, dtype=torch.bool)
    with torch.no_grad():
        clean, heads = net(x, mask), net.attention_heads(x, mask)
        with swapped(net, "swap_uniform", {}):
            assert torch.allclose(net(x, mask), uniform(x, mask), atol=1e-12)
        with swapped(net, "swap_other", {}):
            assert torch.allclose(net.attention_heads(x, mask)["rgb"], heads["rgb"].roll(-1, 0), atol=1e-12)
            other = net(x, mask)
        mean = {name: maps[1] for name, maps in heads.items()}  # the map that video 0 was given just now
        with swapped(net, "swap_position", mean):
            assert torch.allclose(net(x, mask)[0], other[0], atol=1e-12)
            short = net.attention_heads(x[:, :5], mask[:, :5])["rgb"]
            assert torch.allclose(short.sum(dim=-1), torch.ones_like(short[..., 0]), atol=1e-12)
            padded = mask & (torch.arange(9) < 5)
            assert torch.allclose(net(x, padded), net(x[:, :5], mask[:, :5]), atol=1e-12)  # padding is paid none
        assert (other - clean).abs().max() > 1e-3
        assert torch.equal(net(x, mask), clean)
        fixed = toy.model(attention="position", dtype=torch.float64)  # another video's map is its own
        with swapped(fixed, "swap_other", {}):
            other = fixed(x, mask)
        assert torch.equal(other, fixed(x, mask))


def fabricated(folder: Path, seeds: int = 4) -> Path:
    """Units of the planned models whose numbers are drawn, and the rules they would follow."""
    (folder / "units").mkdir(parents=True)
    (folder / "rules.json").write_text(json.dumps(RULES.to_json()))
    rng = np.random.default_rng(5)
    shared = rng.normal(0, 100, 200)  # of the videos; each model differs by its own share of it
    params = trial_params("utd_mhad", ROOT)
    for place, variant in enumerate(PLANNED):
        for seed in range(seeds):
            gap = {name: 80 - 5 * number + place + rng.normal() for number, name in enumerate(CONDITIONS)}
            draws = {name: np.rint(100 * value + (1 + place) * shared + rng.normal(0, 30, 200)).astype(np.int16)
                     for name, value in gap.items()}  # fmt: skip
            own = with_variant(params, RULES, variant)
            about: dict[str, Any] = {
                "set": "utd_mhad", "variant": variant, "seed": seed, "gap": gap, "frames": "f", "attention_share": 0.1,
                "maps": dict.fromkeys(("change_one_step", "change_apgd", "unrelated", "uniform"), 1.0),
                "videos": {"all": 258, "part": 128}, "drawn": {"all": 3, "part": 2},
                "seconds": {"train": 1.0, "attack": 1.0, "wall": 3.0}, "training": {"steps": 9, "stopped": "early"},
                "parameters": {"loss": as_dict(own.models[variant]), "attack": as_dict(own.attack)},
                "provenance": {"commit": "0" * 40, "code": "c"},
            }  # fmt: skip
            write_unit(folder / "units" / Unit(variant, seed).file, about, draws)
    return folder


def recomputed(folder: Path) -> dict[int, dict[str, float]]:
    """The planned comparisons once more, from the files alone: nothing of the project is used in here."""
    gap: dict[tuple[str, int], dict[str, float]] = {}
    draws: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    drawn: dict[str, int] = {}
    for path in folder.glob("units/*.parquet"):
        table = pq.read_table(path)
        about = json.loads(table.schema.metadata[b"artpaper"])
        key = about["variant"], about["seed"]
        gap[key], drawn = about["gap"], about["drawn"]
        draws[key] = {name: table[name].to_numpy() / 100 for name in table.column_names}
    rows: dict[int, dict[str, float]] = {}
    comparisons = ((1, "art", "one_step"), (2, "art", "apgd"), (3, "uniform_art", "apgd"), (4, "art", "clean"))
    for number, over, attack in comparisons:
        seeds = sorted(seed for model, seed in gap if model == "a_art" and (over, seed) in gap)
        if len(seeds) < 2:
            continue
        n, clusters = len(seeds), drawn["part" if attack == "apgd" else "all"]
        d = np.array([gap["a_art", seed][attack] - gap[over, seed][attack] for seed in seeds])
        b = np.array([draws["a_art", seed][attack] - draws[over, seed][attack] for seed in seeds])
        of_seeds = d.var(ddof=1) / n
        deviation = b - b.mean(axis=1)[:, None]
        single = np.mean([np.var(column, ddof=1) for column in deviation.T]) / n
        of_videos = max(np.var(b.mean(axis=0), ddof=1) - single, 0) * clusters / (clusters - 1)
        variance = of_seeds + of_videos
        freedom = variance**2 / (of_seeds**2 / (n - 1) + of_videos**2 / (clusters - 1))
        error = math.sqrt(variance)
        half = stats.t.ppf(0.975, freedom) * error
        rows[number] = {"difference": d.mean(), "low": d.mean() - half, "high": d.mean() + half}
        rows[number]["p"] = 2 * stats.t.sf(abs(d.mean()) / error, freedom)
        if number == 4 and sum(model == "non_art" for model, _ in gap) > 1:
            width = 2 * np.std([values["clean"] for (model, _), values in gap.items() if model == "non_art"], ddof=1)
            rows[number]["equivalence_p"] = stats.t.sf((width - abs(d.mean())) / error, freedom)
    ps = sorted((rows[number]["p"], number) for number in rows if number < 4)
    highest = 0.0
    for place, (p, number) in enumerate(ps):
        highest = rows[number]["holm_p"] = max(highest, min(1.0, (3 - place) * p))  # those not made yet, too
    return rows


@pytest.mark.parametrize("folder", [None, *PUBLISHED], ids=lambda path: path.parent.name if path else "fabricated")
def test_planned_comparisons_are_recomputed_from_published_files(folder: Path | None, tmp_path: Path) -> None:
    """And the page of a set that is published is the one that its files make."""
    if folder is None:
        folder = fabricated(tmp_path / "utd_mhad" / "trial")
        write_page(folder)
    elif not any(folder.glob("units/*.parquet")):
        pytest.skip(f"{folder}: no unit is finished yet")
    results, audited = read_results(folder), read_results(folder, "audit")
    models, compared = model_table(results), planned(results)
    assert page(folder, results, models, compared, audited) == (folder / "README.md").read_text()
    for name, made in (("models", models), ("units", unit_table(results))):
        kept = pd.read_csv(folder / f"{name}.csv", dtype={"commit": str})
        pd.testing.assert_frame_equal(made.reset_index(drop=True), kept, rtol=1e-6, check_dtype=False)
    x, y, wide, high = _centre(results, "art")
    for at, half, name in ((x, wide, "clean_part"), (y, high, "apgd")):
        interval = stats.ttest_1samp(results.points("art", name, results.seeds("art")), 0).confidence_interval(0.95)
        assert (at - half, at + half) == pytest.approx(interval)
    text = (folder / "planned.csv").read_text()
    table = pd.read_csv(folder / "planned.csv").set_index("number") if text.strip() else pd.DataFrame()
    rows = recomputed(folder)
    assert sorted(rows) == sorted(table.index)
    alone = [str(number) for number, row in table.iterrows() if round(row["freedom"], 9) == row["seeds"] - 1]
    told = f"estimated as 0 in {', '.join(alone)}: " if alone else "estimated as 0"
    assert (told in (folder / "README.md").read_text()) == bool(alone)
    for number, expected in rows.items():
        for name, value in expected.items():
            assert table.loc[number, name] == pytest.approx(value, rel=1e-6), (number, name)


def test_all_sets_together_say_what_each_says(tmp_path: Path) -> None:
    """The fault it alone catches: README's picture shows other numbers than the sets' pages, or in another row."""
    assert write_overall(tmp_path) == []  # nothing to compare is nothing to draw
    sets = read_sets(ROOT / "results")
    table = overall(sets)
    pd.testing.assert_frame_equal(table, pd.read_csv(ROOT / "results" / "trial.csv"), rtol=1e-6, check_dtype=False)
    axes = overall_figure(table).axes[0]
    marks = [line for line in axes.lines if len(line.get_xdata()) > 2][::3]  # then the two ends of their bars
    rows = [label.get_text() for label in axes.get_yticklabels()]
    for line, (_, of_set) in zip(marks, table.groupby("set", sort=False), strict=True):
        assert line.get_xdata().tolist() == of_set["difference"].tolist()
        assert [rows[round(y)] for y in line.get_ydata()] == of_set["compared"].tolist()
    for name, of_set in table.groupby("set"):
        planned = pd.read_csv(ROOT / "results" / str(name) / "trial" / "planned.csv").set_index("number")
        for number, title in ((1, "one step"), (2, "Auto-PGD"), (4, "clean")):
            told = of_set.set_index("compared").loc[f"A-ART - ART, {title}"]
            for column in ("difference", "low", "high", "seeds"):
                assert told[column] == pytest.approx(planned.loc[number, column], rel=1e-6)
        units = pd.read_csv(ROOT / "results" / str(name) / "trial" / "units.csv")
        clean = units.pivot_table("clean", "seed", "variant")
        assert of_set["worth"].iloc[0] == pytest.approx((clean["art"] - clean["uniform_art"]).mean())
    text = (ROOT / "results" / "trial.md").read_text(encoding="utf-8")
    assert text == overall_page(sets, table)
    assert "in the paper 48 and 95" in text
    for name in table["set"].unique():  # as its own page has them
        says, about = ([cell.strip() for cell in line.split("|")[1:-1]] for line in text.replace("\\", "").splitlines()
                       if line.startswith(f"| {name} "))  # fmt: skip
        lines = (ROOT / "results" / name / "trial" / "README.md").read_text(encoding="utf-8").splitlines()
        own = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
        fewest = pd.read_csv(ROOT / "results" / name / "trial" / "planned.csv")["seeds"].min()
        assert says[1] == str(fewest)
        rows = [next(line for line in own if line[0] == number) for number in "1234"]
        assert says[2:] == [f"{line[2]}: {line[4]}".replace("\\", "") for line in rows]
        [model] = [line for line in own if line[0] == "A-ART" and len(line) == 15]
        assert [about[6], about[7], about[9], about[11]] == [model[10], model[11], model[12], model[5]]
        assert float(about[8]) == pytest.approx(float(model[8]), abs=0.051)  # to a digit less
        units = pd.read_csv(ROOT / "results" / name / "trial" / "units.csv").query("variant == 'art'")
        assert about[4] == f"{(units['one_step_part'] - units['apgd']).mean():.1f}"


def test_a_set_without_a_art_yet_is_left_out(tmp_path: Path) -> None:
    """The fault it alone catches: one set that is only begun, and no page of all sets can be made."""
    folder = fabricated(tmp_path / "utd_mhad" / "trial")
    moved(folder, "contrast", apgd=1.0)
    assert len(write_overall(tmp_path)) == 4
    assert "| utd_mhad " in (tmp_path / "trial.md").read_text().replace("\\", "")
    for path in folder.glob("units/a_art-*.parquet"):
        path.unlink()
    write_overall(tmp_path)
    assert "| utd_mhad " not in (tmp_path / "trial.md").read_text().replace("\\", "")


def test_the_table_of_the_readme_holds_the_planned_differences() -> None:
    """The fault it alone catches: README's numbers are left behind when seeds are added."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line for line in readme.partition("## Does the claim hold?")[2].splitlines() if line.startswith("|")][3:7]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    for (title, art, *cells), name in zip(found, ("audioset", "yt8m_speech", "utd_mhad", "default"), strict=True):
        folder = ROOT / "results" / name / "trial"
        means = pd.read_csv(folder / "units.csv").groupby("variant")["one_step"].mean()
        assert art == f"{means['art'] - means['non_art']:+.1f}", name
        table = pd.read_csv(folder / "planned.csv").set_index("number")
        for cell, number in zip(cells, (1, 2, 4, 3), strict=True):
            row = table.loc[number]
            told = row["holm_p"] <= 0.05 if number < 4 else row["low"] > 0 or row["high"] < 0
            plain = f"{row['difference']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]"
            assert cell == (f"**{plain}**" if told else plain), (name, number)
        fewest = int(table["seeds"].min())
        assert title.endswith(f", {fewest} seeds") == (fewest < 8), name  # the others have eight, as the text says


def test_the_audit_takes_the_worst_of_its_attacks(
    tiny: Path, tiny_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault it alone catches: an attack of the audit that is not shown, not in the worst, or on another model."""
    for name, value in (("STEPS", 3), ("RESTARTS", 2), ("QUERIES", 5)):
        monkeypatch.setattr(audit_module, name, value)
    store = FrameStore(tiny / "frames" / "test").subset(range(20))
    torch.manual_seed(0)
    net, other = (FrameTransformer(tiny_params.model, store.modalities, len(store.label_space.classes)).eval()
                  for _ in range(2))  # fmt: skip
    with torch.no_grad():
        other.classifier.weight.zero_()
    found = audit(net, tiny_params, store, "", {"art": net, "a_art": other})
    assert set(found.points) == set(ATTACKS)
    assert sum(found.maps.values()) == pytest.approx(1)
    assert found.maps.keys() == {f"won_{name}" for name in ATTACKS if name not in ("clean_part", "worst")}
    assert found.maps["won_transfer_a_art"] == 0  # from a model that says the same of all videos nothing transfers
    assert found.points["transfer_a_art"] == pytest.approx(found.points["clean_part"], abs=1.0)
    answers = Answers()
    for batch in by_length(store, tiny_params).batches(16, max_frames=tiny_params.features.max_frames):
        given = model_inputs(batch, tiny_params.features, net.modalities, torch.device("cpu"))
        attack = apgd(net, *given, epsilon=tiny_params.attack.epsilon, steps=3, restarts=2)
        answers.add(attack.adversarial_logits, batch.labels)
    assert found.points["apgd"] == pytest.approx(100 * gap_from_top(*answers.lists), abs=1e-6)

    folder = fabricated(tmp_path / "utd_mhad" / "trial")
    (folder / "audit").mkdir()
    for path in folder.glob("units/*art-*.parquet"):  # the planned models' numbers, under the audit's names
        about, draws = read_unit(path)
        about |= {
            "gap": dict.fromkeys(ATTACKS, about["gap"]["apgd"]),
            "maps": found.maps,
            "drawn": {"all": 2, "part": 2},
        }
        write_unit(
            folder / "audit" / path.name, about, dict.fromkeys(ATTACKS, np.rint(100 * draws["apgd"]).astype(np.int16))
        )
    text = write_page(folder).read_text()
    planned = pd.read_csv(folder / "planned.csv").set_index("number")
    for number, over in ((2, "ART"), (3, "uniform + ART")):  # the same differences, so the same intervals
        row = planned.loc[number]
        interval = f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
        assert f"A-ART - {over} is {interval}, 4 seeds" in text
    for name in ("non_art-seed0.parquet", "a_art-seed0.parquet"):
        (folder / "audit" / name).write_bytes(b"no Parquet")
    with pytest.raises(DataError, match="no unit of the trial"):
        write_page(folder)


def moved(folder: Path, variant: str, **more: float) -> None:
    """Units of another variant: A-ART's, with so much more GAP under the conditions named."""
    own = with_variant(trial_params("utd_mhad", ROOT), RULES, variant)
    for path in folder.glob("units/a_art-*.parquet"):
        about, draws = read_unit(path)
        about |= {"variant": variant, "gap": {name: gap + more.get(name, 0.0) for name, gap in about["gap"].items()}}
        about["parameters"] = {"loss": as_dict(own.models[variant]), "attack": as_dict(own.attack)}
        write_unit(folder / "units" / path.name.replace("a_art", variant), about,
                   {name: np.rint(100 * values).astype(np.int16) for name, values in draws.items()})  # fmt: skip


@pytest.mark.parametrize(
    ("more", "says"), [(0.5, "by the means, ART at 2ε has"), (-0.5, "By the means, no point of ART's front has")]
)
def test_whether_a_art_lies_above_the_front_of_art(more: float, says: str, tmp_path: Path) -> None:
    """The fault it alone catches: a point of the front that has less of one counted as better, or a sign turned."""
    folder = fabricated(tmp_path / "utd_mhad" / "trial")
    moved(folder, "art_2e", clean_part=more, apgd=3.0)
    text = write_page(folder).read_text()
    assert says in text
    assert "has more under Auto-PGD" not in text  # for the clean GAP differs by more than chance
    [line] = [line for line in text.splitlines() if line.startswith("| ART at 2ε - A-ART ")]
    told = f"{more:+.2f} [{more:+.2f}, {more:+.2f}]"
    assert line.replace("\\", "").split("|")[2:5] == [f" {told} ", " +3.00 [+3.00, +3.00] ", "     4 "]


def test_models_that_were_not_planned_stand_beside_art_and_a_art(tmp_path: Path) -> None:
    """The fault it alone catches: a model beside the wrong one, or in the cell of another attention or loss."""
    folder = fabricated(tmp_path / "utd_mhad" / "trial")
    for heading in ("## Other models beside ART and A-ART", "## Attention by loss"):
        assert heading not in write_page(folder).read_text().splitlines()
    moved(folder, "contrast", clean_part=1.0, apgd=-2.0)
    moved(folder, "position_art", clean_part=-4.0, apgd=5.0)
    lines = write_page(folder).read_text().replace("\\", "").splitlines()
    results = read_results(folder)
    art, own = (results.points(name, "apgd", [0, 1, 2, 3]).mean() for name in ("art", "a_art"))
    clean = results.points("a_art", "clean_part", [0, 1, 2, 3]).mean()
    [beside] = [line.split("|") for line in lines if line.startswith("| contrastive ") and "]" in line]
    assert beside[4].strip() == "+1.00 [+1.00, +1.00]"  # over A-ART, clean; then under the attack
    assert beside[5].strip() == "-2.00 [-2.00, -2.00]"
    assert beside[3].split()[0] == f"{own - 2 - art:+.2f}"
    [row] = [line for line in lines if line.startswith("| by position alone ")]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        "by position alone", "–", f"{clean - 4:.1f} / {own + 5:.1f} (4)"
    ]  # fmt: skip
    assert "| attention " in lines[lines.index(row) - 4]
    assert "no defence" in lines[lines.index(row) - 4]


def test_the_share_won_back_is_all_of_it_where_nothing_is_lost(tmp_path: Path) -> None:
    results = read_results(fabricated(tmp_path / "utd_mhad" / "trial"))
    clean, attacked = (results.points("non_art", name, [0, 1, 2, 3]) for name in ("clean", "one_step"))
    lost, won = clean - attacked, results.points("art", "one_step", [0, 1, 2, 3]) - attacked
    found = won_back(results, "art", "one_step")
    assert found.value == pytest.approx(100 * won.mean() / lost.mean())
    assert found.low < found.value < found.high
    for (variant, _), about in results.about.items():
        if variant == "art":
            about["gap"]["one_step"] = results.about["non_art", about["seed"]]["gap"]["clean"]
    assert won_back(results, "art", "one_step").value == pytest.approx(100)
    for seed in range(4):  # whose videos under APGD are fewer than those of the clean GAP
        results.about["art", seed]["gap"]["apgd"] = results.about["non_art", seed]["gap"]["clean_part"]
    assert won_back(results, "art", "apgd").value == pytest.approx(100)


def test_attention_is_alive_where_maps_differ_and_another_videos_map_costs(tmp_path: Path) -> None:
    """The fault it alone catches: the cost of another swap, or a share of what is not ART's."""
    results = read_results(fabricated(tmp_path / "utd_mhad" / "trial", seeds=1))
    about = results.about["a_art", 0]  # ART's unrelated maps differ by 1.0
    for cost, unrelated, alive in ((2.5, 0.6, True), (1.5, 0.6, False), (2.5, 0.4, False)):
        about["gap"]["swap_other"], about["maps"]["unrelated"] = about["gap"]["clean"] - cost, unrelated
        row = model_table(results).set_index("variant").loc["a_art"]
        assert (row["alive"], row["cost_other"]) == (alive, pytest.approx(cost))


def test_units_of_other_rules_are_refused(tmp_path: Path) -> None:
    folder = fabricated(tmp_path / "utd_mhad" / "trial", seeds=1)
    path = folder / "units" / "a_art-seed0.parquet"
    about, _ = read_unit(path)
    about["parameters"]["loss"]["beta"] = 0.5
    write_unit(path, about, {"clean": np.zeros(5, np.int16)})
    with pytest.raises(DataError, match="not what"):
        read_results(folder)
    original = json.loads(pq.read_schema(folder / "units" / "art-seed0.parquet").metadata[b"artpaper"])
    about = original | {"variant": "a_art", "frames": "those of another test set"}
    about["parameters"] = {"loss": as_dict(variants(RULES)["a_art"]), "attack": {"epsilon": 0.2}}
    write_unit(path, about, {"clean": np.zeros(5, np.int16)})
    with pytest.raises(DataError, match="about other videos"):
        read_results(folder)
    about["parameters"]["attack"]["epsilon"] = 0.1
    write_unit(path, about | {"frames": "f"}, {"clean": np.zeros(5, np.int16)})
    with pytest.raises(DataError, match=r"another epsilon than 0\.2"):
        read_results(folder)
    path.write_bytes(b"no Parquet")
    with pytest.raises(DataError, match="no unit of the trial"):
        read_results(folder)


def test_a_switch_that_a_loss_was_given_later_leaves_older_units_as_they_are(tmp_path: Path) -> None:
    """Or whoever adds a defence makes every published unit unreadable."""
    folder = fabricated(tmp_path / "utd_mhad" / "trial", seeds=1)
    path = folder / "units" / "a_art-seed0.parquet"
    about, draws = read_unit(path)
    assert about["parameters"]["loss"].pop("attention_contrast") is False
    write_unit(path, about, {name: np.rint(100 * values).astype(np.int16) for name, values in draws.items()})
    assert ("a_art", 0) in read_results(folder).about


@pytest.mark.parametrize(
    ("variant", "words"),
    [("non_art", "Non-ART"), ("uniform_art_2e", "uniform + ART, 2ε"), ("a_art_share0.2_2e", "A-ART, share 0.2, 2ε"),
     ("a_art_nominal", "A-ART, β 0.001"), ("art_paper", "ART, at 3.4 %"), ("position_pgd10", "position + PGD-10"),
     ("a_art_detached", "A-ART, clean map fixed"), ("a_art_squared", "A-ART, norm squared"),
     ("temperature_art", "temperature + ART"), ("random", "random")],
)  # fmt: skip
def test_pages_name_models_in_words(variant: str, words: str) -> None:
    assert variant_name(variant) == words


def test_what_is_finished_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault it alone catches: a resumed run that makes a unit twice, or begins one that has no time left."""
    (tmp_path / "profiles").symlink_to(ROOT / "profiles")
    folder = fabricated(tmp_path / "results" / "utd_mhad" / "trial", seeds=1)
    made: list[Path] = []
    monkeypatch.setattr(unit_module, "revision", lambda root: ("0" * 40, []))
    monkeypatch.setattr(unit_module, "prepare", lambda *given, **how: None)
    monkeypatch.setattr(unit_module, "make_unit", lambda *given: made.append(given[4]) or ({"clean": 1.0}, 1e9))
    said: list[str] = []
    run_trial("utd_mhad", tmp_path, minutes=1, say=said.append)
    assert [path.name for path in made] == [Unit(name, 1).file for name in PLANNED]  # then Non-ART has no time left
    assert {path.parent for path in made} == {folder / "units"}
    assert said[-1].startswith("stopped")
    made.clear()
    run_trial("utd_mhad", tmp_path, minutes=1, say=said.append, only=["art_2e"])
    run_trial("utd_mhad", tmp_path, minutes=1, say=said.append, audited=True)
    assert [path.relative_to(folder) for path in made] == [
        Path("units") / Unit("art_2e", 0).file,
        Path("audit") / Unit("art", 0).file,
    ]  # each says that it took too long for another
    with pytest.raises(ConfigError, match="no variant 'art_2'; did you mean"):
        run_trial("utd_mhad", tmp_path / "new", minutes=1, only=["art_2"])  # where nothing is calibrated yet
    rules = folder / "rules.json"  # of a calibration that did not measure the squares
    rules.write_text(json.dumps(dataclasses.replace(RULES, squared=None).to_json()))
    with pytest.raises(ConfigError, match=r"a_art_squared: .*rules\.json is of a calibration that did not"):
        run_trial("utd_mhad", tmp_path, minutes=1, only=["a_art_detached", "a_art_squared"])
    monkeypatch.setattr(unit_module, "revision", lambda root: ("0" * 40, ["artpaper/losses.py"]))
    with pytest.raises(ArtpaperError, match="commit these first"):
        run_trial("utd_mhad", tmp_path, minutes=1)


def test_the_mean_map_is_that_of_the_videos_that_have_the_position(tiny: Path, tiny_params: Params) -> None:
    """Video by video here, in padded batches there: padding that counted would lower the mean of the last frames."""
    store = FrameStore(tiny / "frames" / "test").subset(range(20))
    torch.manual_seed(0)
    net = FrameTransformer(tiny_params.model, store.modalities, len(store.label_space.classes)).eval()
    means = mean_maps(net, tiny_params, store)
    maps = []
    for row in range(len(store)):
        (batch,) = store.subset([row]).batches(1, max_frames=tiny_params.features.max_frames)
        x, _, mask = model_inputs(batch, tiny_params.features, net.modalities, torch.device("cpu"))
        with torch.no_grad():
            maps.append(net.attention_heads(x, mask)["rgb"][0])
    for at in range(tiny_params.features.max_frames):
        column = [each[:, at, 0] for each in maps if each.shape[1] > at]
        torch.testing.assert_close(means["rgb"][:, at, 0], torch.stack(column).mean(dim=0))


def test_videos_that_are_cut_to_one_length_stand_together(tiny: Path, tiny_params: Params) -> None:
    """The fault it alone catches: partners of other lengths, whose maps cannot be swapped."""
    store, cut = FrameStore(tiny / "frames" / "test"), changed(tiny_params, features={"max_frames": 4})
    assert lengths(store, cut).tolist() == [min(frames, 4) for frames in store.lengths]
    together = by_length(store, cut)
    assert sorted(together.ids) == sorted(store.ids)
    assert (np.diff(lengths(together, cut)) >= 0).all()


def test_the_best_classes_are_kept_with_whether_they_are_right() -> None:
    answers = Answers()
    answers.add(torch.tensor([[0.0, 3.0, 1.0], [2.0, -1.0, 5.0]]), torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    assert answers.scores[0].tolist() == [[3.0, 1.0, 0.0], [5.0, 2.0, -1.0]]
    assert answers.hits[0].tolist() == [[True, False, False], [False, True, False]]
    assert answers.positives[0].tolist() == [1, 1]


@pytest.fixture(scope="module")
def untrained(tiny: Path, tiny_params: Params) -> tuple[FrameTransformer, FrameStore]:
    """A model in eval mode whose attention varies, and some videos of several lengths."""
    store = FrameStore(tiny / "frames" / "test").subset(range(12))
    torch.manual_seed(0)
    net = FrameTransformer(tiny_params.model, store.modalities, len(store.label_space.classes))
    for encoder in net.encoders.values():
        torch.nn.init.normal_(encoder.query_key.weight)
    return net.eval(), store


def test_a_unit_is_measured_as_the_rules_say(
    untrained: tuple[FrameTransformer, FrameStore], tiny_params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer steps or restarts than are told, GAPs that draw other people than their videos', maps that are not summed.

    Against the same once more: videos one by one, in the order of the store, and the one step in APGD's place.
    """
    net, store = untrained
    epsilon, asked = tiny_params.attack.epsilon, []
    monkeypatch.setattr(
        measure_module, "apgd", lambda *given, **how: asked.append(how) or fgm(*given, epsilon=how["epsilon"])
    )
    monkeypatch.setattr(sets_module, "DRAWS", 50)
    people, part = r"(.)$", store.subset(range(3, 9))  # the last sign of an id is the person
    found = measure(net, tiny_params, part, store, part, people)
    mean = mean_maps(net, tiny_params, part)
    assert asked == [{"epsilon": epsilon, "steps": 100, "restarts": 5}]
    norms: dict[str, list[float]] = {"change": [], "uniform": []}
    every = ("clean", "one_step", "swap_uniform", "swap_position")
    answers = {name: Answers() for name in (*every, "clean_part", "apgd")}
    for row, name in enumerate(store.ids):
        (batch,) = store.subset([row]).batches(1, max_frames=tiny_params.features.max_frames)
        x, y, mask = inputs(net, batch, tiny_params)
        attack = fgm(net, x, y, mask, epsilon=epsilon)
        for key, logits in (("clean", attack.clean_logits), ("one_step", attack.adversarial_logits)):
            answers[key].add(logits, batch.labels)
            if name in part.ids:
                answers["clean_part" if key == "clean" else "apgd"].add(logits, batch.labels)
        with torch.no_grad():
            maps, moved = (net(frames, mask, True)[1] for frames in (x, x + attack.perturbation))
            for key in every[2:]:
                with swapped(net, key, mean):
                    answers[key].add(net(x, mask), batch.labels)
        even = 1 / x.shape[1]
        norms["change"].append(sum((maps[key] - moved[key]).norm().item() for key in maps))
        norms["uniform"].append(sum((each - even).norm().item() for each in maps.values()))
    for kind, videos, names in (("all", store, every), ("part", part, ("clean_part", "apgd"))):
        points, draws, drawn = gap_and_draws({name: answers[name] for name in names}, videos.ids, people)
        assert found.drawn[kind] == drawn == len({name[-1] for name in videos.ids})
        for name in names:
            assert found.points[name] == pytest.approx(points[name], abs=1e-4)
            assert np.abs(found.draws[name] - draws[name].astype(int)).max() <= 1
    assert found.points["one_step_part"] == found.points["apgd"]
    assert found.maps["change_one_step"] == pytest.approx(np.mean(norms["change"]), rel=1e-4)
    assert found.maps["uniform"] == pytest.approx(np.mean(norms["uniform"]), rel=1e-4)
    own = [change for change, name in zip(norms["change"], store.ids, strict=True) if name in part.ids]
    assert found.maps["change_apgd"] == pytest.approx(np.mean(own), rel=1e-4)
    clean, attacked = one_step_gap(net, store, tiny_params, epsilon)
    assert (100 * clean, 100 * attacked) == pytest.approx((found.points["clean"], found.points["one_step"]))


def test_the_calibration_measures_what_the_losses_train_on(
    untrained: tuple[FrameTransformer, FrameStore], tiny_params: Params
) -> None:
    """The fault it alone catches: a beta of a loss or a change that no training has, or that hangs on batch sizes."""
    net, store = untrained
    (batch,) = store.batches(len(store), max_frames=tiny_params.features.max_frames)
    given = inputs(net, batch, tiny_params)
    loss = Control(alpha=1.0, beta=1.0, epsilon=0.5)
    _, parts = attention_adversarial(net, *given, loss)
    _, contrast = defended(net, *given, Control(alpha=1.0, beta=1.0, epsilon=0.5, attention_contrast=True))
    _, squared = attention_adversarial(net, *given, dataclasses.replace(loss, attention_squared=True))
    terms = [each["attention"] for each in (parts, contrast, squared)]
    expected = [parts["cross_entropy"] + parts["adversarial"], *terms]
    found = loss_and_change(net, store, tiny_params, 0.5)
    assert found == pytest.approx([float(value) for value in expected], rel=1e-4)
    uneven = loss_and_change(net, store, changed(tiny_params, attack={"batch_size": 8}), 0.5)
    assert uneven[:2] == pytest.approx(found[:2], rel=1e-4)


def test_the_calibration_looks_at_validation_videos_and_brackets_the_papers_share(
    tiny: Path, tiny_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault it alone catches: epsilon or beta set on test videos, on other seeds, or on ART of another radius."""
    seen: list[Any] = []
    trained: list[tuple[str, int, float, float]] = []

    def fit(params: Params, name: str, seed: int, workspace: Path) -> str:
        trained.append((name, seed, params.models[name].alpha, params.models[name].epsilon))
        return name

    def one_step(model: str, store: FrameStore, params: Params, radius: float) -> tuple[float, float]:
        seen.append((model, store.path.name))
        return 0.8, 0.8 * (1 - min(0.9, radius / 8))

    def change(model: str, store: FrameStore, params: Params, epsilon: float) -> tuple[float, float, float, float]:
        seen.append((model, store.path.name))
        return 2.0 + trained[-1][1], 0.5 * epsilon, 4.0, 5.0

    for name, value in (("fit", fit), ("one_step_gap", one_step), ("loss_and_change", change)):
        monkeypatch.setattr(rules_module, name, value)
    rules = calibrate(tiny_params, tiny, tmp_path / "rules.json", {"commit": "c"}, say=lambda _: None)
    assert set(seen) == {("non_art", "validation"), ("art", "validation")}
    assert rules.epsilon == pytest.approx(8 * LOST, rel=0.2)  # beyond the first grid, on it as it was extended
    assert trained == [("non_art", seed, 0.0, trained[0][3]) for seed in range(3)] + [
        ("art", seed, 1.0, rules.epsilon) for seed in range(3)
    ]
    assert (rules.loss, rules.change) == (3.0, pytest.approx(0.5 * rules.epsilon))
    assert (rules.contrast, rules.squared) == (4.0, 5.0)
    assert rules.frames == np.median(np.minimum(FrameStore(tiny / "frames" / "train").lengths, 6))
    assert read_rules(tmp_path / "rules.json") == rules


def test_a_unit_is_of_the_videos_of_the_trial_and_its_surrogates_of_their_own_seed(
    tiny: Path, tiny_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault it alone catches: a model that is its own surrogate, and videos that are put aside."""
    fitted: list[tuple[str, int]] = []
    given: dict[str, tuple] = {}

    def fit(params: Params, name: str, seed: int, workspace: Path) -> tuple[str, int]:
        fitted.append((name, seed))
        return name, seed

    def measured(kind: str, *args: Any) -> Measured:
        given[kind] = args
        return Measured({"clean": 50.0}, {"clean": np.array([5000], np.int16)}, {}, {"all": 3, "part": 2})

    (tmp_path / "model").mkdir()
    note = {"steps": 9, "best_step": 6, "best_validation_gap": 0.5, "stopped": "early"}
    (tmp_path / "model" / "model.json").write_text(json.dumps(note))
    (tmp_path / "model" / "history.csv").write_text("step,loss,attention\n1,2.0,1.0\n")
    monkeypatch.setattr(unit_module.Variation, "model", lambda self, workspace: tmp_path / "model")
    monkeypatch.setattr(unit_module, "fit", fit)
    monkeypatch.setattr(unit_module, "measure", lambda *args: measured("units", *args))
    monkeypatch.setattr(unit_module, "audit", lambda *args: measured("audit", *args))
    monkeypatch.setitem(SETS, "utd_mhad", dataclasses.replace(SETS["utd_mhad"], attacked=9))
    for unit in (Unit("a_art", 2), Unit("a_art", 2, "audit")):
        path = tmp_path / "utd_mhad" / "trial" / unit.kind / unit.file
        make_unit(unit, tiny_params, RULES, tiny, path, {"commit": "c"})
    assert fitted == [("a_art", 2), ("art", 7), ("a_art", 7), ("a_art", 2)]
    assert given["audit"][4] == {"art": ("art", 7), "a_art": ("a_art", 7)}
    test = FrameStore(tiny / "frames" / "test")
    kept, few = ([test.ids[place] for place in in_trial(test.ids, most)] for most in (None, 9))
    model, params, train, every, part, people = given["units"]
    assert (model, params.attack.epsilon, train.path.name) == (("a_art", 2), RULES.epsilon, "train")
    assert (every.ids, part.ids, given["audit"][2].ids) == (kept, few, few)
    assert people == given["audit"][3] == SETS["utd_mhad"].people
    about, draws = read_unit(path)
    assert about["videos"] == {"all": len(kept), "part": 9}
    assert draws["clean"].tolist() == [50.0]  # hundredths of a point in the file


def test_betas_share_is_that_of_the_end_of_the_training(tmp_path: Path) -> None:
    path, attention = tmp_path / "history.csv", [1.0] * 18 + [100.0, 100.0]
    pd.DataFrame({"loss": [9.0] * 18 + [0.5, 1.1], "attention": attention}).to_csv(path)
    assert attention_share(path, 0.001) == pytest.approx((0.1 / 0.4 + 0.1 / 1.0) / 2)
    assert attention_share(path, 0.0) == 0.0


def test_the_page_tells_a_difference_by_its_corrected_p_alone() -> None:
    """The fault it alone catches: words that follow the uncorrected p, or the wrong end of an interval."""
    row = {"number": 2, "difference": 1.0, "p": 0.02, "holm_p": 0.06}
    assert verdict(row) == "cannot be told (Holm p 0.06)"
    assert verdict(row | {"holm_p": 0.05}) == "more (Holm p 0.05)"
    assert verdict(row | {"holm_p": 0.05, "difference": -1.0}) == "less (Holm p 0.05)"
    row = {"number": 4, "low": -3.0, "high": -1.0, "margin": 2.0, "equivalence_p": 0.4, "p": 0.01}
    for ends, p, word in (((-3, -1), 0.4, "worse"), ((1, 3), 0.4, "better"), ((-3, 1), 0.4, "cannot be told"),
                          ((-1, -0.5), 0.04, "equivalent")):  # fmt: skip
        assert verdict(row | {"low": ends[0], "high": ends[1], "equivalence_p": p}).startswith(f"{word} (margin 2.00")
    assert verdict({"number": 4}) == "cannot be told"


def test_the_audits_attacks_have_the_budget_that_its_page_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault it alone catches: an attack of the audit with another's options, or with the library's defaults."""

    def told(attack: Any) -> Any:
        return functools.wraps(attack)(lambda *given, **how: how)

    stand_in = told(apgd)
    listed = [dataclasses.replace(each, attack=told(each.attack)) for each in audit_module.ATTACKS]
    for name, value in (("apgd", stand_in), ("transfer", told(transfer)), ("ATTACKS", listed)):
        monkeypatch.setattr(audit_module, name, value)
    found: dict[str, Any] = audit_module._attacks("net", ("x", "y", "mask"), 0.5, {"art": "its surrogate"})
    once = {"epsilon": 0.5, "steps": 100, "restarts": 1}
    assert found["apgd"] == {"epsilon": 0.5, "steps": 100, "restarts": 5}
    for name in ("margin", "dlr", "top_k_ap"):
        assert found[f"apgd_{name}"] == once | {"objective": OBJECTIVES[name]}
    for over, weight in (("maps", 0.1), ("scores", 0.01)):
        assert found[f"attention_{over}"] == once | {"over": over, "weight": weight, "attack": stand_in}
    assert found["square"] == {"epsilon": 0.5, "queries": 1000}
    search = found["transfer_art"].pop("attack")
    assert (search.func, search.keywords) == (stand_in, {"epsilon": 0.5, "steps": 100})
    assert found["transfer_art"] == {"surrogate": "its surrogate"}
