"""The stress test's tables and figures from fabricated predictions whose truth is known."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.text import Text

from artpaper.metrics import gap_from_top
from pipeline.base.errors import DataError
from pipeline.base.groups import Rules
from pipeline.paper.style import save_figure
from pipeline.stress.verdict.checks import checks_markdown, checks_table
from pipeline.stress.verdict.evidence import StressEvidence
from pipeline.stress.verdict.figure import stress_figure, sweep_figure
from pipeline.stress.verdict.leaderboard import leaderboard, leaderboard_markdown, read_training, write_leaderboard
from pipeline.stress.verdict.page import verdict_markdown
from pipeline.stress.verdict.predictions import Stress, read_stress
from pipeline.stress.verdict.statistics import Sample, holm
from pipeline.stress.verdict.tables import (
    differences_markdown,
    differences_table,
    stress_table,
    sweep_table,
    table_markdown,
    write_stress,
)
from tests.fabricated import fabricate

SMALL = {"models": ("art", "uniform_art"), "attacks": ("clean", "ensemble"), "videos": 40}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Like ART in truth: art, a_art, uniform_art; worse on purpose: weak, everywhere but clean."""
    skill = {("weak", attack): 0.8 for attack in ("one_step", "pgd", "ensemble")}
    attacks = ("clean", "one_step", "pgd", "ensemble", "epsilon_3.0", "epsilon_0.5", "steps_1", "steps_20")
    models = ("weak", "a_art", "uniform_art", "art", "non_art")
    return fabricate(tmp_path_factory.mktemp("stress"), models, attacks, videos=250, skill=skill)


@pytest.fixture(scope="module")
def stress(folder):
    return read_stress(folder, draws=200)


def one(table, **where):
    for column, value in where.items():
        table = table[table[column] == value]
    (found,) = table.to_dict("records")
    return found


def test_values_are_those_of_the_files(folder, stress):
    rows = pq.read_table(folder / "predictions" / "art" / "seed1" / "ensemble.parquet").to_pandas()
    hits = np.array([np.isin(c, labels) for c, labels in zip(rows["classes"], rows["labels"], strict=True)])
    gap = gap_from_top(np.stack(rows["scores"]), hits, rows["labels"].map(len).to_numpy())
    wanted = {"gap": 100 * gap, "hit_at_1": 100 * hits[:, 0].mean(), "loss": rows["loss"].mean()}
    for metric, value in wanted.items():
        sample = stress.sample(metric, "art", "ensemble")
        assert sample.points[1] == pytest.approx(value, abs=1e-9)
        assert sample.draws.shape == (3, 200)
        assert sample.draws[1].mean() == pytest.approx(value, abs=4 * sample.draws[1].std() / np.sqrt(200) + 0.5)
    assert sample.draws[1].std() == pytest.approx(rows["loss"].std() / np.sqrt(250), rel=0.2)
    assert stress.models == ["non_art", "art", "a_art", "uniform_art", "weak"]
    assert stress.attacks[:4] == ["clean", "one_step", "pgd", "ensemble"]
    assert (stress.videos, stress.source, stress.epsilon["clean"]) == (250, "synthetic", 0)


def test_a_worse_model_is_found_and_equal_ones_are_not_told_apart(stress):
    table = differences_table(stress)
    defences = table[table["family"] == "defences"]
    for attack in ("one_step", "pgd", "ensemble"):
        weak = one(defences, model="weak", attack=attack, over_model="art")
        assert weak["difference"] < -10
        assert weak["high"] < 0
        assert weak["holm_p"] < 0.05
        equal = one(defences, model="a_art", attack=attack, over_model="art")
        assert equal["low"] < 0 < equal["high"]
        assert equal["holm_p"] > 0.5
    clean = one(defences, model="weak", attack="clean", over_model="art")
    assert clean["holm_p"] > 0.05
    assert set(table["seeds"]) == {3}
    assert set(table["videos"]) == {250}


def test_every_pair_is_compared_once_and_corrected_within_its_family(stress):
    table = differences_table(stress)
    defences = table[table["family"] == "defences"]
    pairs = set(zip(defences["model"], defences["over_model"], strict=True))
    assert pairs == {(m, "uniform_art") for m in ("non_art", "art", "a_art", "weak")} | {
        (m, "art") for m in ("non_art", "a_art", "weak")
    }
    assert len(defences) == 4 * len(pairs) == defences["comparisons"].iloc[0]
    for _, family in table.groupby("family"):
        assert family["holm_p"].to_numpy() == pytest.approx(holm(family["p"].to_numpy()))
    fall = one(table, family="attacks", model="art", over_attack="one_step")
    gaps = [stress.sample("gap", "art", attack).points.mean() for attack in ("ensemble", "one_step")]
    assert fall["difference"] == pytest.approx(gaps[0] - gaps[1])
    assert set(table["family"]) == {"claims", "defences", "attacks"}


def test_what_was_not_tried_makes_smaller_tables(tmp_path):
    small = read_stress(fabricate(tmp_path, **SMALL, seeds=(0, 1)), draws=50)
    table = differences_table(small)
    assert set(table["model"]) == {"art", "uniform_art"}
    assert set(table["attack"]) == {"clean", "ensemble"}
    write_stress(small, tmp_path / "out")
    assert pd.read_csv(tmp_path / "out" / "epsilon.csv").empty
    stress_figure(stress_table(small))
    with pytest.raises(DataError, match="no sweep over epsilon or steps"):
        sweep_figure(sweep_table(stress_table(small), "epsilon"), sweep_table(stress_table(small), "steps"))
    alone = read_stress(fabricate(tmp_path / "alone", ("trades",), ("clean",), videos=30), draws=50)
    assert differences_table(alone).empty
    assert "Nothing that could be compared" in differences_markdown(differences_table(alone))
    board = leaderboard(stress_table(alone), pd.DataFrame(columns=["model", "seed", "steps", "passes_per_step",
                                                                  "attention_uniform_rms", "description"]))  # fmt: skip
    assert "| TRADES | " in leaderboard_markdown(board)
    with pytest.raises(DataError, match="no model has both clean and ensemble"):
        stress_figure(stress_table(alone))


def test_one_seed_has_no_p_value_and_says_so(tmp_path):
    alone = read_stress(fabricate(tmp_path, **SMALL, seeds=(4,)), draws=50)
    table, differences = stress_table(alone), differences_table(alone)
    assert set(table["basis"]) == set(differences["basis"]) == {"videos only"}
    assert differences["p"].isna().all()
    assert set(differences["comparisons"]) == {0}
    assert "videos only" in differences_markdown(differences)
    assert "One" not in table_markdown(table)
    assert "With one seed" in table_markdown(table)
    board = leaderboard(table, read_training(tmp_path / "training.csv"))
    assert "With one seed" in leaderboard_markdown(board)
    assert "with one seed" in stress_figure(table).get_suptitle()


def test_sweeps_ascend_from_clean(stress):
    table = stress_table(stress)
    swept = sweep_table(table, "epsilon")
    gap = swept[(swept["model"] == "art") & (swept["metric"] == "gap")]
    assert list(gap["value"]) == [0.5, 3]  # clean is the mean of more seeds than were swept, and no start of theirs
    assert list(gap["mean"]) == sorted(gap["mean"], reverse=True)
    alone = table.assign(seeds=1)
    gap = sweep_table(alone, "epsilon").query("model == 'art' and metric == 'gap'")
    assert list(gap["value"]) == [0, 0.5, 3]
    assert gap["mean"].iloc[0] == one(table, model="art", attack="clean", metric="gap")["mean"]
    assert sorted(sweep_table(alone, "steps")["value"].unique()) == [0, 1, 20]
    own = alone.assign(attack=alone["attack"].replace("epsilon_0.5", "epsilon_0"))
    assert sorted(sweep_table(own, "epsilon")["value"].unique()) == [0, 3]
    bad = table.assign(attack=table["attack"].replace("steps_1", "steps_many"))
    with pytest.raises(DataError, match="sweep over steps is misnamed"):
        sweep_table(bad, "steps")


def test_the_leaderboard_tells_which_single_attack_leaves_least(tmp_path):
    fabricate(tmp_path, ("art", "trades"), seeds=(0,), skill={("trades", "square"): 0.1})
    table = stress_table(read_stress(tmp_path, draws=20))
    board = leaderboard(table, read_training(tmp_path / "training.csv")).set_index("model")
    gap = table[table["metric"] == "gap"].set_index(["model", "attack"])["mean"]
    assert gap["art", "epsilon_3.0"] < gap["art", "pgd"]  # a larger ball does not count
    assert dict(board["lowest_attack"]) == {"art": "pgd", "trades": "square"}
    assert board.loc["trades", "lowest"] == gap["trades", "square"] < board.loc["trades", "ensemble"]
    assert f"| {gap['trades', 'square']:.2f}, Square |" in leaderboard_markdown(board.reset_index())


def test_the_leaderboard_has_the_papers_claims_beside_ours_sorted(folder, stress, tmp_path):
    table = stress_table(stress)
    board = leaderboard(table, read_training(folder / "training.csv"))
    assert list(board["ensemble"]) == sorted(board["ensemble"], reverse=True)
    found = one(board, model="a_art")
    assert (found["claimed_clean"], found["claimed_one_step"]) == (92.00, 91.04)
    for end, column in (("", "mean"), ("_low", "low"), ("_high", "high")):
        assert found[f"one_step{end}"] == one(table, model="a_art", attack="one_step", metric="gap")[column]
    assert found["attention_uniform_rms"] == pytest.approx(0.8 * 1.01)
    assert found["training_passes"] == 2000
    assert np.isnan(one(board, model="uniform_art")["claimed_clean"])
    write_leaderboard(board, tmp_path)
    text = (tmp_path / "leaderboard.md").read_text()
    assert "92.00 → 91.04" in text
    assert "SYNTHETIC" in text
    assert len(pd.read_csv(tmp_path / "leaderboard.csv")) == 5


def test_synthetic_results_are_labelled_wherever_they_appear(tmp_path):
    found = read_stress(fabricate(tmp_path, **SMALL, seeds=(0, 1), source="synthetic"), draws=50)
    table = stress_table(found)
    assert set(table["source"]) == {"synthetic"}
    for text in (table_markdown(table), differences_markdown(differences_table(found)),
                 leaderboard_markdown(leaderboard(table, read_training(tmp_path / "training.csv"))),
                 stress_figure(table).get_suptitle()):  # fmt: skip
        assert "SYNTHETIC data" in text


def test_damaged_shards_that_were_left_out_are_told_in_every_caption(tmp_path):
    for path in fabricate(tmp_path, **SMALL, seeds=(0, 1)).glob("predictions/*/*/*.parquet"):
        rewrite(path, damaged_shards=["train: train0001.tfrecord"])
    found = read_stress(tmp_path, draws=50)
    board = leaderboard(stress_table(found), read_training(tmp_path / "training.csv"))
    page = verdict_markdown(
        StressEvidence(differences_table(found), board, pd.DataFrame(columns=["model", "seed"])), Rules()
    )
    for text in (table_markdown(stress_table(found)), differences_markdown(differences_table(found)),
                 leaderboard_markdown(board), page, stress_figure(stress_table(found)).get_suptitle()):  # fmt: skip
        assert "LEFT OUT as damaged: 1 shard (train: train0001.tfrecord)." in text.replace("\n", " ")
    rewrite(path, damaged_shards=[])
    with pytest.raises(DataError, match="other shards were left out as damaged"):
        read_stress(tmp_path, draws=50)


def made(models, noise=0.4):
    """A stress test of many models, most of them close together."""
    draw = np.random.default_rng(0)
    samples = {}
    for place, model in enumerate(models):
        for attack, level in (("clean", 39.0), ("random", 38.5), ("one_step", 27.0), ("pgd", 24.0), ("ensemble", 22.0)):
            value = level + place / 3
            values = value + draw.normal(0, noise, 3)
            samples["gap", model, attack] = Sample(
                (0, 1, 2), values, values[:, None] + draw.normal(0, 0.3, (3, 90)), 900
            )
    return Stress("audioset", 900, dict.fromkeys(("clean", "random", "one_step", "pgd", "ensemble"), 1.5), samples)


def test_names_in_the_figure_hide_neither_points_nor_each_other():
    models = ["non_art", "art", "a_art", "a_art_strong", "uniform", "uniform_art", "temperature_art", "entropy_art"]
    models += ["random_att", "pgd_at", "trades", "vat", "gradalign", "proposed_one", "proposed_two"]
    figure = stress_figure(stress_table(made(models)))
    figure.draw_without_rendering()
    left, right = figure.axes
    for axes, count in ((left, len(models)), (right, 5)):
        boxes = [Text.get_window_extent(text) for text in axes.texts if text.get_text()]
        inside = axes.get_window_extent()
        assert len(boxes) == count
        over = [(a, b) for place, a in enumerate(boxes) for b in boxes[:place] if a.padded(-1).overlaps(b.padded(-1))]
        assert not over
        assert all(inside.padded(1).contains(*corner) for box in boxes for corner in box.corners())
    points = [axes_line.get_xydata()[0] for axes_line in left.lines if len(axes_line.get_xydata()) == 1]
    centres = left.transData.transform(points)
    boxes = [Text.get_window_extent(text) for text in left.texts if text.get_text()]
    assert not [point for point in centres for box in boxes if box.contains(*point)]


def test_the_front_is_the_best_of_the_uniform_controls():
    figure = stress_figure(stress_table(made(["uniform", "uniform_art", "art", "uniform_bad"], noise=0.0)))
    (front,) = [line for line in figure.axes[0].lines if line.get_label() == "front of uniform attention"]
    assert front.get_xdata().max() == pytest.approx(40, abs=1e-9)  # uniform_bad, the last, is best in both
    assert front.get_ydata().max() == pytest.approx(23, abs=1e-9)


def test_the_same_files_give_the_same_bytes(folder, stress, tmp_path):
    for name in ("one", "two"):
        table = stress_table(stress)
        write_stress(stress, tmp_path / name)
        save_figure(stress_figure(table), tmp_path / name / "stress")
        save_figure(
            sweep_figure(sweep_table(table, "epsilon"), sweep_table(table, "steps")), tmp_path / name / "sweeps"
        )
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["differences.csv", "differences.md", "epsilon.csv", "steps.csv", "stress.pdf", "stress.png",
                     "sweeps.pdf", "sweeps.png", "table.csv", "table.md"]  # fmt: skip
    assert all((tmp_path / "one" / n).read_bytes() == (tmp_path / "two" / n).read_bytes() for n in names)


def rewrite(path, column=None, value=None, **note):
    table = pq.read_table(path)
    told = json.loads(table.schema.metadata[b"artpaper"]) | note
    if column is not None:
        place = table.column_names.index(column)
        values = table[column].to_pylist()
        values[3] = value
        table = table.set_column(place, table.schema.field(column), pa.array(values, table.schema.field(column).type))
    pq.write_table(table.replace_schema_metadata({"artpaper": json.dumps(told)}), path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model": "vat"}, "says of itself vat/seed0/ensemble.parquet"),
        ({"seed": 7}, "says of itself uniform_art/seed7"),
        ({"source": "yt8m"}, "data source yt8m, .* has synthetic"),
        ({"source": "hearsay"}, "data source hearsay"),
        ({"epsilon": 2.0}, "epsilon 2.0 against 1.5"),
        ({"column": "id", "value": "other"}, "other videos or labels .id"),
        ({"column": "id", "value": "v00000"}, "holds a video twice"),
        ({"column": "labels", "value": [1]}, "other videos or labels .labels"),
        ({"column": "loss", "value": float("nan")}, "the loss of video v00003 is NaN"),
        ({"column": "scores", "value": [1.0]}, "differ in length"),
        ({"column": "scores", "value": [float(k) for k in range(20)]}, "not in descending order"),
        ({"column": "scores", "value": [float("nan")] * 20}, "scores of video v00003 are NaN"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(tmp_path, change, match):
    path = fabricate(tmp_path, **SMALL, seeds=(0,)) / "predictions" / "uniform_art" / "seed0" / "ensemble.parquet"
    rewrite(path, **change)
    with pytest.raises(DataError, match=match):
        read_stress(tmp_path, draws=5)


def test_a_missing_or_damaged_stress_test_is_named_with_its_remedy(tmp_path):
    with pytest.raises(DataError, match=r"no predictions under attack; make them with `dvc repro stress/dvc\.yaml`"):
        read_stress(tmp_path)
    path = fabricate(tmp_path, **SMALL, seeds=(0,)) / "predictions" / "art" / "seed0" / "clean.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"clean\.parquet: not a file of the stress test"):
        read_stress(tmp_path)


def test_the_checks_say_which_model_is_not_to_be_trusted(tmp_path) -> None:
    """ "masked" does worse under Square than under PGD, and keeps its GAP at any epsilon; the other is honest."""
    attacks = ("clean", "random", "one_step", "pgd", "square", "epsilon_0", "epsilon_99")
    skill = {("masked", "pgd"): 1.9, ("masked", "one_step"): 1.9, ("masked", "square"): 0.5}
    skill |= {("masked", "epsilon_99"): 1.9, ("art", "epsilon_99"): -9.0}
    folder = fabricate(tmp_path, ("art", "masked"), attacks, seeds=(0, 1), videos=200, skill=skill)
    table = checks_table(folder, sweep_table(stress_table(read_stress(folder, draws=20)), "epsilon"))
    tripped = table[table["tripped"]].groupby(["model", "seed"])["check"].agg(set).to_dict()
    assert tripped == {
        ("masked", 0): {"black_box_beats_white_box", "floor_not_reached"},
        ("masked", 1): {"black_box_beats_white_box"},  # not swept, so nothing is said of its floor
    }
    lines = [
        [cell.strip("` \\") for cell in line.split("|")]
        for line in checks_markdown(table).replace("\\", "").splitlines()
    ]
    told = {line[1]: line[2:6] for line in lines if len(line) > 5}
    assert told["black_box_beats_white_box"][0] == "masked seed 0, masked seed 1"
    assert told["zero_gradients"] == ["none", "0.000", "0.000", "4"]
    assert told["floor_not_reached"][3] == "2"  # asked of those that were swept
