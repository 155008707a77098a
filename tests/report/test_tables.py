"""Tables 1-3 from fabricated predictions whose metrics are known beforehand."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artpaper import metrics
from artpaper.attacks.result import FLAGS
from pipeline.base.errors import DataError
from pipeline.base.groups import Base, Data, Experiment
from pipeline.base.groups import Tables as TablesConfig
from pipeline.base.parameters import Params
from pipeline.paper import paper, render
from pipeline.paper.tables import CELLS, make_tables, partitions, write_tables
from pipeline.paper.tables import tables as make_all_tables

CLASSES = 30
LISTS = pa.list_(pa.int32()), pa.list_(pa.float32())
LABEL_SPACE = {
    "name": "h317",
    "note": "Surrogate: 100% of the R&D_team's classes.",
    "classes": [f"class {index}" for index in range(CLASSES)],
    "groups": [["Arts & Entertainment"]] * 2 + [["Finance", "News"]] + [[]] * (CLASSES - 3),
    "entity_classes": [[index] for index in range(CLASSES)],
}


def write_predictions(
    path, model, labels, clean, adversarial, *, seed=0, ids=None, params=None, order=None, **settings
):
    """A predictions file from label sets and dense logits (videos, CLASSES), listed as the attack stage does."""
    params = params or Params()
    ids = ids or [f"v{index:04d}" for index in range(len(labels))]
    columns = {"id": pa.array(ids), "labels": pa.array(labels, LISTS[0])}
    columns["frames"] = pa.array(np.full(len(ids), 12, dtype=np.int32))
    for name, logits in (("clean", clean), ("adversarial", adversarial)):
        best = np.argsort(-logits, axis=1, kind="stable")
        best = [row[: max(20, len(wanted))] for row, wanted in zip(best, labels, strict=True)]
        columns[f"{name}_classes"] = pa.array([row.tolist() for row in best], LISTS[0])
        scores = [logits[video, row].tolist() for video, row in enumerate(best)]
        columns[f"{name}_scores"] = pa.array(scores, LISTS[1])
    columns["relative_norm"] = pa.array(np.full(len(ids), 0.034))
    columns["zero_gradient"] = pa.array(np.arange(len(ids)) == 0)
    columns |= dict.fromkeys(FLAGS, pa.array(np.zeros(len(ids), bool)))
    columns["fooled"] = pa.array(np.arange(len(ids)) % 2 == 0)
    table = pa.table(columns)
    note = {"model": model, "seed": seed, "label_space": "h317", "classes": CLASSES, "epsilon": 0.5, "scope": "joint"}
    note |= {"source": params.data.source, "labels": params.attack.labels, "feature_norm": params.features.norm}
    note |= {"max_frames": params.features.max_frames} | settings
    path.parent.mkdir(parents=True, exist_ok=True)
    table = table if order is None else table.take(order)
    pq.write_table(table.replace_schema_metadata({"artpaper": json.dumps(note)}), path)
    return path


def logits_of(labels, right):
    """Logits that put a video's labels on top (at 5) where ``right``, and below all others elsewhere."""
    logits = np.tile(np.linspace(1, 0, CLASSES), (len(labels), 1))
    for video, wanted in enumerate(labels):
        logits[video, wanted] = 5.0 if right[video] else -5.0
    return logits


@pytest.fixture
def setting(tmp_path):
    """100 videos with one label each; the models are right on the clean (attacked) first 90 (40), 90 (60), 95 (85)."""
    (tmp_path / "label_space.json").write_text(json.dumps(LABEL_SPACE))
    labels = [[index % 4] for index in range(100)]
    shares = {"non_art": (90, 40), "art": (90, 60), "a_art": (95, 85)}
    return tmp_path, labels, shares


def write_all(folder, labels, shares, **settings):
    return {
        model: [
            write_predictions(
                folder / model / "one_step.parquet",
                model,
                labels,
                *(logits_of(labels, np.arange(len(labels)) < count) for count in counts),
                **settings,
            )
        ]
        for model, counts in shares.items()
    }


def tables_of(folder, predictions, parts=5, seed=0):
    return make_tables(predictions, folder / "label_space.json", TablesConfig(partitions=parts), seed)


def cells_of(tables):
    return pd.concat([table.cells for table in tables.tables], ignore_index=True)


def cell(tables, table, metric, split, column, field="ours"):
    cells = cells_of(tables).set_index(["table", "metric", "split", "column"])
    return cells.loc[(table, metric, split, column), field]


@pytest.mark.parametrize("metric", paper.METRICS)
def test_known_shares_come_out(setting, metric):
    folder, labels, shares = setting
    tables = tables_of(folder, write_all(folder, labels, shares))
    for model, (clean, attacked) in shares.items():
        column = paper.MODELS[model]
        assert cell(tables, 1, metric, "test", column) == pytest.approx(clean)
        assert cell(tables, 1, metric, "adversarial", column) == pytest.approx(attacked)
        # of the 25 videos with class 2 those below `attacked` are right
        right = sum(1 for index in range(attacked) if index % 4 == 2)
        assert cell(tables, 3, metric, "adversarial", column) == pytest.approx(100 * right / 25)
    assert cell(tables, 2, metric, "test", "ART", "n") == 50
    assert cell(tables, 3, metric, "test", "ART", "n") == 25


def test_gains_and_differences_are_recomputed(setting):
    folder, labels, shares = setting
    tables = tables_of(folder, write_all(folder, labels, shares))
    assert cell(tables, 1, "GAP", "adversarial", "Gain") == pytest.approx(45)
    assert cell(tables, 1, "GAP", "adversarial", "Gain", "paper") == 18.15
    assert cell(tables, 1, "GAP", "adversarial", "Gain", "difference") == pytest.approx(45 - 18.15)
    assert cell(tables, 1, "GAP", "test", "ART", "difference") == pytest.approx(90 - 92.38)
    assert cell(tables, 2, "Hit@1", "test", "Gain", "paper") == 0.12
    assert any("prints a gain of +0.01" in note and "give +0.12" in note for note in tables.tables[1].notes)


def test_the_papers_gains_fit_its_columns_but_one():
    assert len(paper.ROWS) == 18
    assert [row for row in paper.ROWS if row.gain != row.printed_gain] == [paper.row(2, "Hit@1", "test")]
    assert not paper.slips(1)
    assert not paper.slips(3)


def test_the_spread_is_over_partitions_and_gap_is_computed_on_each(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "label_space.json").write_text(json.dumps(LABEL_SPACE))
    multi_hot = random.random((60, CLASSES)) < 0.15
    multi_hot[7] = True  # more labels than 20
    labels = [row.nonzero()[0].tolist() for row in multi_hot]
    clean, attacked = random.standard_normal((2, 60, CLASSES)).astype(np.float32)
    path = write_predictions(tmp_path / "p.parquet", "a_art", labels, clean, attacked)
    tables = tables_of(tmp_path, {"a_art": [path]}, parts=4, seed=3)
    parts = partitions([f"v{index:04d}" for index in range(60)], 4, 3)
    for metric, function in (("GAP", metrics.gap), ("PERR", metrics.perr), ("Hit@1", metrics.hit_at_1)):
        probabilities = 1 / (1 + np.exp(-attacked.astype(np.float64)))
        values = [100 * function(probabilities[rows], multi_hot[rows]) for rows in parts]
        assert cell(tables, 1, metric, "adversarial", "A-ART") == pytest.approx(np.mean(values), abs=1e-6)
        assert cell(tables, 1, metric, "adversarial", "A-ART", "std") == pytest.approx(np.std(values, ddof=1), abs=1e-6)
    assert np.isnan(cell(tables, 1, "GAP", "test", "Non-ART"))
    assert cell(tables, 1, "GAP", "test", "Non-ART", "paper") == 91.97
    assert np.isnan(cell(tables, 1, "GAP", "test", "Gain"))


def test_partitions_are_disjoint_even_and_free_of_order():
    ids = [f"video {index}" for index in range(103)]
    parts = partitions(ids, 5, seed=0)
    assert sorted(len(rows) for rows in parts) == [20, 20, 21, 21, 21]
    assert sorted(np.concatenate(parts)) == list(range(103))
    backwards = partitions(ids[::-1], 5, seed=0)
    assert [{ids[row] for row in rows} for rows in parts] == [{ids[::-1][row] for row in rows} for rows in backwards]
    assert {*parts[0]} != {*partitions(ids, 5, seed=1)[0]}
    with pytest.raises(DataError, match=r"4 test videos cannot make 5 partitions"):
        partitions(ids[:4], 5, seed=0)


def test_the_order_of_the_videos_is_irrelevant(setting):
    folder, labels, shares = setting
    straight = tables_of(folder, write_all(folder, labels, shares))
    shuffled = np.random.default_rng(0).permutation(100)
    turned = tables_of(folder, write_all(folder, labels, shares, order=shuffled))
    assert cells_of(straight).equals(cells_of(turned))


def test_several_seeds_give_their_mean_and_spread(setting):
    folder, labels, _ = setting
    predictions = {}
    for model, counts in {"non_art": (40, 50), "a_art": (80, 70)}.items():
        predictions[model] = [
            write_predictions(folder / f"{model}{seed}", model, labels, logits, logits, seed=seed)
            for seed, logits in enumerate(logits_of(labels, np.arange(100) < count) for count in counts)
        ]
    tables = tables_of(folder, predictions)
    assert cell(tables, 1, "GAP", "test", "Non-ART") == pytest.approx(45)
    assert cell(tables, 1, "GAP", "test", "Non-ART", "seed_std") == pytest.approx(np.std([40, 50], ddof=1))
    assert cell(tables, 1, "GAP", "test", "Gain", "seed_std") == pytest.approx(np.std([40, 20], ddof=1))
    assert (cells_of(tables)["seeds"] == 2).all()
    spread = next(line for line in render.markdown(tables.tables[0]).splitlines() if "| ± over seeds" in line)
    assert [part.strip() for part in spread.split("|")[3:7]] == ["7.07", "–", "7.07", "14.14"]
    assert "training seeds 0, 1" in tables.tables[0].caption
    assert "zero gradient on 1 and fooled on 50 of 100 videos" in tables.tables[0].notes[-1]
    with pytest.raises(DataError, match="different seeds"):
        tables_of(folder, predictions | {"a_art": predictions["a_art"][:1]})
    with pytest.raises(DataError, match="the same seeds, each once"):  # one training is not two
        tables_of(folder, {model: paths[:1] * 2 for model, paths in predictions.items()})


def test_differences_between_models_are_paired(setting):
    """Over seeds: each seed's own difference; with one seed: each partition's, scaled to the number of videos."""
    folder, labels, _ = setting
    counts = {"non_art": [40, 50, 60], "art": [60, 70, 90]}
    predictions = {
        model: [
            write_predictions(
                folder / f"{model}{seed}.parquet",
                model,
                labels,
                *[logits_of(labels, np.arange(100) < right)] * 2,
                seed=seed,
            )
            for seed, right in enumerate(rights)
        ]
        for model, rights in counts.items()
    }
    tables = tables_of(folder, predictions)
    assert cell(tables, 1, "Hit@1", "test", "ART", "over_non_art") == pytest.approx((20 + 20 + 30) / 3)
    assert cell(tables, 1, "Hit@1", "test", "ART", "over_non_art_error") == pytest.approx(
        np.std([20, 20, 30], ddof=1) / 3**0.5, abs=1e-5
    )
    assert np.isnan(cell(tables, 1, "Hit@1", "test", "ART", "over_art"))
    ours, base = ([cell(tables, group, "Hit@1", "test", name) for group in (2, 3)] for name in ("ART", "Non-ART"))
    over = [cell(tables, group, "Hit@1", "test", "ART", "over_non_art") for group in (2, 3)]
    assert over == pytest.approx(np.subtract(ours, base), abs=1e-5)  # of the group's videos, not of all
    assert abs(over[0] - over[1]) > 1  # or the test could not tell
    single = tables_of(folder, {model: paths[:1] for model, paths in predictions.items()})
    right = {model: np.arange(100) < rights[0] for model, rights in counts.items()}
    ids = [f"v{index:04d}" for index in range(100)]
    over = [100 * (right["art"][rows].mean() - right["non_art"][rows].mean()) for rows in partitions(ids, 5, 0)]
    error = np.std(over, ddof=1) / 5**0.5
    assert cell(single, 1, "Hit@1", "test", "ART", "over_non_art_error") == pytest.approx(error, abs=1e-5)
    assert cell(single, 3, "Hit@1", "test", "ART", "over_non_art_error") == pytest.approx(2 * error, abs=1e-5)


def test_a_control_gets_a_column_without_the_papers_figures(setting):
    folder, labels, shares = setting
    tables = tables_of(folder, write_all(folder, labels, shares | {"uniform": (70, 30)}))
    assert cell(tables, 1, "GAP", "adversarial", "uniform") == pytest.approx(30)
    assert np.isnan(cell(tables, 1, "GAP", "adversarial", "uniform", "paper"))
    assert list(dict.fromkeys(cells_of(tables)["column"])) == ["Non-ART", "ART", "A-ART", "Gain", "uniform"]
    with pytest.raises(DataError, match="cannot be named ART"):
        paper.check_columns({"art": None, "ART": None}, ())


def test_models_of_one_vertical_get_a_table_of_their_own(setting):
    """The second reading: the same rows of videos, other models; Table 1 is without them."""
    folder, labels, shares = setting
    first = write_all(folder, labels, shares)
    alone = {"non_art_x": (80, 20), "a_art_finance": (60, 40)}
    second = write_all(folder, labels, alone, loss={"vertical": "Finance"})
    tables = tables_of(folder, first | second)
    assert [table.name for table in tables.tables] == ["table1", "table2", "table3", "table3_retrained"]
    assert set(tables.tables[0].cells["column"]) == {"Non-ART", "ART", "A-ART", "Gain"}
    cells = tables.tables[3].cells.set_index(["metric", "split", "column"])
    on_clean = [100 * sum(index % 4 == 2 for index in range(right)) / 25 for right in (80, 60)]
    assert cells.loc[("GAP", "test", "Non-ART"), "ours"] == pytest.approx(on_clean[0])
    assert cells.loc[("GAP", "test", "A-ART"), "ours"] == pytest.approx(on_clean[1])
    assert cells.loc[("GAP", "test", "Gain"), "ours"] == pytest.approx(on_clean[1] - on_clean[0])
    assert np.isnan(cells.loc[("GAP", "test", "ART"), "ours"])
    assert "SECOND READING" in tables.tables[3].caption
    assert "SECOND READING" not in tables.tables[2].caption
    assert tables.metrics == tables_of(folder, first).metrics
    write_tables(tables, folder / "out")
    assert (folder / "out" / "table3_retrained.md").read_text() != (folder / "out" / "table3.md").read_text()


def test_a_vertical_without_a_table_is_refused(setting):
    folder, labels, shares = setting
    first = write_all(folder, labels, shares)
    for name, vertical in (("art_news", "News"), ("finance", "Finance")):
        other = write_all(folder, labels, {name: (50, 20)}, loss={"vertical": vertical})
        with pytest.raises(DataError, match=f"model {name} was trained on {vertical} alone and fits no table"):
            tables_of(folder, first | other)
    with pytest.raises(DataError, match="no model was trained on all videos"):
        tables_of(folder, other)
    with pytest.raises(DataError, match=r"model art_y was trained on Finance alone and fits no table: .*, one of each"):
        paper.check_columns({"art": None, "art_x": "Finance", "art_y": "Finance"}, ["Finance"])


def test_a_group_without_videos_is_said_and_a_small_one_flagged(setting):
    folder, _, shares = setting
    tables = tables_of(folder, write_all(folder, [[0]] * 100, shares))
    finance, arts = tables.tables[2], tables.tables[1]
    assert "NO video" in finance.caption
    assert "TOO FEW" not in arts.caption
    assert finance.cells["ours"].isna().all()
    assert finance.cells["paper"].notna().all()
    assert tables.metrics["table3"]["art"] == {"group": "Finance", "videos": 0}
    assert " – |" in render.markdown(finance)
    fewer = tables_of(folder, write_all(folder, [[0]] * 99 + [[5]], shares))
    assert "Only 99 videos: TOO FEW" in fewer.tables[1].caption


def test_videos_without_labels_count_nothing(setting):
    folder, _, _ = setting
    logits = np.tile(np.linspace(1, 0, CLASSES), (10, 1))
    path = write_predictions(folder / "p.parquet", "art", [[]] * 10, logits, logits)
    tables = tables_of(folder, {"art": [path]})
    assert [cell(tables, 1, metric, "test", "ART") for metric in paper.METRICS] == [0.0, 0.0, 0.0]


def test_audioset_has_its_own_groups_and_no_paper_beside_them(setting):
    folder, labels, shares = setting
    space = LABEL_SPACE | {"name": "audioset527", "groups": [["Music"], ["Speech"], ["Speech"]] + [[]] * 27}
    (folder / "label_space.json").write_text(json.dumps(space))
    params = dataclasses.replace(Params(), data=Data(source="audioset", label_space="audioset527"))
    tables = tables_of(folder, write_all(folder, labels, shares, params=params, label_space="audioset527"))
    whole, music, speech = tables.tables
    assert "AudioSet" in whole.caption
    assert "vertical Arts & Entertainment does not exist here; Music takes its place" in music.caption
    assert music.cells["paper"].isna().all()
    assert (speech.cells["n"] == 50).all()
    assert "paper" not in render.markdown(music).split("|", 1)[1]
    assert not any("prints a gain" in note for note in music.notes)


def test_captions_say_what_was_measured(setting):
    folder, labels, shares = setting
    params = dataclasses.replace(Params(), data=Data(source="synthetic"))
    caption = tables_of(folder, write_all(folder, labels, shares, params=params)).tables[0].caption
    for said in ("100 test videos", "5 disjoint partitions", "ddof = 1", "SYNTHETIC", "h317", "not the paper's own"):
        assert said in caption
    assert "ε = 0.5 in the L2 ball around each video, frames scaled to unit norm" in caption


def test_captions_name_the_damaged_shards_that_were_left_out(setting):
    folder, labels, shares = setting
    left_out = [f"train: train00{number}.tfrecord" for number in range(12)]
    made = tables_of(folder, write_all(folder, labels, shares, damaged_shards=left_out))
    told = f" LEFT OUT as damaged: 12 shards ({', '.join(left_out[:10])} and 2 more, which frames/summary.json lists)."
    assert all(told in table.caption for table in made.tables)
    assert "LEFT OUT" not in tables_of(folder, write_all(folder, labels, shares)).tables[0].caption
    assert render.left_out(left_out[:1]) == " LEFT OUT as damaged: 1 shard (train: train000.tfrecord)."
    odd = write_all(folder / "odd", labels, shares, damaged_shards=["x"])
    with pytest.raises(DataError, match="damaged shards"):
        tables_of(folder, write_all(folder, labels, shares) | {"art": odd["art"]})


def test_files_that_do_not_belong_together_are_refused(setting):
    folder, labels, shares = setting
    made = write_all(folder, labels, shares)
    logits = logits_of(labels, np.ones(100, dtype=bool))

    def refused(match, **changed):
        given = {"model": "art", "labels": labels, "clean": logits, "adversarial": logits} | changed
        with pytest.raises(DataError, match=match):
            tables_of(folder, made | {"art": [write_predictions(folder / "odd", **given)]})

    refused("scope frame against joint", scope="frame")
    refused("epsilon 1.0 against 0.5", epsilon=1.0)
    refused("label space h431 of 30 classes, but the frames' is h317", label_space="h431")
    refused("31 classes", classes=31)
    refused("different videos", ids=[f"w{index}" for index in range(100)])
    refused("different labels", labels=[[3]] * 100)
    refused("holds model a_art, expected art", model="a_art")
    refused(
        "adversarial scores of video v0007 are NaN", adversarial=np.where(np.arange(100)[:, None] == 7, np.nan, logits)
    )


def test_missing_and_damaged_files_are_refused(setting):
    folder, labels, shares = setting
    made = write_all(folder, labels, shares)
    with pytest.raises(DataError, match=r"no such predictions file; make it with `dvc repro`"):
        tables_of(folder, made | {"art": [folder / "absent.parquet"]})
    (folder / "odd").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="not a predictions file"):
        tables_of(folder, made | {"art": [folder / "odd"]})
    table = pq.read_table(made["art"][0])
    pq.write_table(table.replace_schema_metadata(None), folder / "odd")
    with pytest.raises(DataError, match="not a predictions file"):
        tables_of(folder, made | {"art": [folder / "odd"]})
    pq.write_table(table.drop_columns(["labels"]), folder / "odd")
    with pytest.raises(DataError, match="not a predictions file"):
        tables_of(folder, made | {"art": [folder / "odd"]})
    for listed in (19, 20):  # the first too few for GAP, the second for PERR of a video with 21 labels
        short = table
        for name, kind in (("clean_classes", LISTS[0]), ("clean_scores", LISTS[1])):
            lists = [row[:listed] for row in table[name].to_pylist()]
            short = short.set_column(table.schema.get_field_index(name), name, pa.array(lists, kind))
        if listed == 20:
            many = pa.array([list(range(21)), *labels[1:]], LISTS[0])
            short = short.set_column(table.schema.get_field_index("labels"), "labels", many)
        pq.write_table(short, folder / "odd")
        with pytest.raises(DataError, match="clean lists are shorter"):
            tables_of(folder, {"art": [folder / "odd"]})
    upwards = pa.array([list(range(20))] * 100, LISTS[1])
    pq.write_table(
        table.set_column(table.schema.get_field_index("clean_scores"), "clean_scores", upwards), folder / "odd"
    )
    with pytest.raises(DataError, match="descending"):
        tables_of(folder, made | {"art": [folder / "odd"]})
    pq.write_table(table.slice(0, 0), folder / "odd")
    with pytest.raises(DataError, match="holds no video"):
        tables_of(folder, made | {"art": [folder / "odd"]})
    with pytest.raises(DataError, match="no predictions"):
        tables_of(folder, {})
    (folder / "label_space.json").write_text("[]")
    with pytest.raises(DataError, match="no label space"):
        tables_of(folder, made)
    (folder / "label_space.json").unlink()
    with pytest.raises(DataError, match="no label space"):
        tables_of(folder, made)


def test_metrics_are_a_row_a_model_in_each_table(setting):
    folder, labels, shares = setting
    found = tables_of(folder, write_all(folder, labels, shares)).metrics
    assert list(found) == ["table1", "table2", "table3"]
    assert {model: row["gap_attacked"] for model, row in found["table1"].items()} == {
        "non_art": 40.0, "art": 60.0, "a_art": 85.0,
    }  # fmt: skip
    assert found["table1"]["a_art"]["hit_at_1"] == 95.0
    of_the_attack = ("group", "videos", "relative_norm", "zero_gradient", "fooled")
    assert [found["table1"]["art"][name] for name in of_the_attack] == ["all", 100, 3.4, 1.0, 50.0]
    # Finance has every fourth video from the second on: all of them fooled, none without a gradient
    assert [found["table3"]["art"][name] for name in of_the_attack] == ["Finance", 25, 3.4, 0.0, 100.0]


def test_files_are_written_the_same_byte_for_byte(setting):
    folder, labels, shares = setting
    tables = tables_of(folder, write_all(folder, labels, shares))
    for name in ("one", "two"):
        write_tables(tables, folder / name)
    names = sorted(path.name for path in (folder / "one").iterdir())
    assert names == [f"table{i}.{kind}" for i in (1, 2, 3) for kind in ("csv", "md", "tex")]
    assert all((folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes() for name in names)
    header, line, *_ = (folder / "one" / "table3.csv").read_text().splitlines()
    assert header.split(",") == CELLS
    assert line.startswith("3,Finance,GAP,test,Non-ART,")
    assert line.endswith(",25,1,5,,,0.000000,0.000000")


def test_markdown_stands_ours_beside_the_papers(setting):
    folder, labels, shares = setting
    tables = tables_of(folder, write_all(folder, labels, shares | {"odd|name": (1, 1)}))
    lines = [line for line in render.markdown(tables.tables[0]).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 3 * 3
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "odd\\|name" in lines[0]
    cells = [[part.strip() for part in line.split("|")[1:4]] for line in lines[2:5]]
    assert [line[:2] for line in cells] == [["GAP", "paper"], ["", "ours"], ["", "difference"]]
    assert cells[0][2] == "91.97 ± 0.02"
    assert cells[1][2].startswith("90.00 ± ")
    assert cells[2][2] == "-1.97"
    assert lines[4].split("|")[5].strip() == "+3.00"
    gains = [line.split("|")[6].strip() for line in lines[2:5]]
    assert (gains[0], gains[2]) == ("+0.03", "+4.97")
    assert gains[1].startswith("+5.00 ± ")


def test_latex_escapes_what_latex_would_read(setting):
    folder, labels, shares = setting
    text = render.latex(tables_of(folder, write_all(folder, labels, shares | {"50%_&#{x}": (1, 1)})).tables[1])
    first = render.latex(tables_of(folder, write_all(folder, labels, shares)).tables[0])
    assert r"$91.97 \pm 0.02$" in first
    assert not set("±ε–") & set(first)
    assert r"50\%\_\&\#\{x\}" in text
    assert r"100\% of the R\&D\_team's classes" in text
    assert r"Arts \& Entertainment" in text
    assert "$+0.12$" in text
    assert not set("±ε–") & set(text)
    rows = [line for line in text.splitlines() if line.endswith(r" \\") and "multicolumn" not in line]
    assert {line.replace(r"\&", "").count("&") for line in rows} == {2 + 2 * 5 - 1}
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_a_video_of_two_classes_of_a_group_counts_once(setting):
    """Half of the videos with a class of the group have both of its classes; the model is right on the others alone."""
    folder, _, _ = setting
    labels = [[0, 1] if index < 25 else [index % 2] if index < 50 else [5] for index in range(100)]
    right = np.arange(100) >= 25
    path = write_predictions(folder / "p.parquet", "art", labels, *[logits_of(labels, right)] * 2)
    tables = tables_of(folder, {"art": [path]})
    assert cell(tables, 2, "Hit@1", "test", "ART", "n") == 50
    assert [cell(tables, 2, metric, "test", "ART") for metric in ("Hit@1", "PERR")] == [50.0, 50.0]
    assert cell(tables, 2, "GAP", "test", "ART") == pytest.approx(100 * 25 / 75)  # 25 of 75 labels, all on top


def test_the_spread_over_partitions_is_that_of_each_seed(setting):
    """Two seeds that are right on opposite halves: their mean is the same everywhere, and neither is."""
    folder, labels, _ = setting
    halves = [np.arange(100) < 50, np.arange(100) >= 50]
    paths = [
        write_predictions(folder / f"{seed}.parquet", "art", labels, *[logits_of(labels, right)] * 2, seed=seed)
        for seed, right in enumerate(halves)
    ]
    parts = partitions([f"v{index:04d}" for index in range(100)], 5, 0)
    spreads = [np.std([100 * right[rows].mean() for rows in parts], ddof=1) for right in halves]
    assert cell(tables_of(folder, {"art": paths}), 1, "Hit@1", "test", "ART", "std") == pytest.approx(
        np.mean(spreads), abs=1e-6
    )


def test_the_partitions_follow_the_seed_of_the_splits(setting):
    folder, labels, _ = setting
    logits = [logits_of(labels, np.arange(100) < 50)] * 2
    write_predictions(folder / "predictions" / "art" / "seed0" / "one_step.parquet", "art", labels, *logits)
    (folder / "frames").mkdir()
    (folder / "label_space.json").rename(folder / "frames" / "label_space.json")
    given = Params(base=Base(seed=7), experiment=Experiment(models=("art",)))
    written = pd.read_csv(make_all_tables(given, folder) / "table1.csv").set_index(["metric", "split", "column"])
    right, names = np.arange(100) < 50, [f"v{index:04d}" for index in range(100)]
    spread = [np.std([100 * right[rows].mean() for rows in partitions(names, 5, seed)], ddof=1) for seed in (7, 0)]
    assert written.loc[("Hit@1", "test", "ART"), "std"] == pytest.approx(spread[0], abs=1e-6) != spread[1]
