"""Figure 4 from fabricated DeepFool files: means, intervals and differences against what can be worked out by hand."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artpaper.attacks.result import FLAGS
from pipeline.base.errors import DataError
from pipeline.paper.robustness import bootstrap_means, read_robustness, robustness_metrics, robustness_table
from pipeline.paper.robustness_figure import MEANING, robustness_figure, write_robustness
from pipeline.paper.style import save_figure
from pipeline.predict.deepfool import CRITERIA, SCHEMA


def write_deepfool(path, model, seed, rho, *, wrong=(), left=(), stuck=(), ids=None, order=None, **note):
    """A DeepFool file with the real columns.

    ``rho[criterion]`` gives the relative norms; ``wrong``, ``left`` and ``stuck`` the positions of the videos already
    wrong, not fooled and without a gradient, the same under each criterion.
    """
    parts = []
    for criterion, values in rho.items():
        values, places = np.asarray(values, float), np.arange(len(values))
        chosen = {"wrong": wrong, "left": left, "stuck": stuck}
        flags = {name: np.isin(places, list(which)) for name, which in chosen.items()}
        names = ids or [f"v{index:04d}" for index in places]
        columns = {"id": names, "frames": np.int32(12), "criterion": criterion, "norm": 10 * values}
        columns |= {"relative_norm": values, "gradient_norm": np.where(flags["wrong"], np.nan, 1.0)}
        columns |= dict.fromkeys(FLAGS, np.zeros(len(places), bool))
        columns |= {"zero_gradient": flags["stuck"], "iterations": 1 + places, "already_wrong": flags["wrong"]}
        parts.append(pd.DataFrame(columns | {"fooled": ~flags["wrong"] & ~flags["left"]}))
    rows = pd.concat(parts, ignore_index=True)
    rows = rows if order is None else rows.iloc[order]
    told = {"model": model, "seed": seed, "source": "synthetic", "split": "test", "label_space": "h317"}
    told |= {"feature_norm": "l2_frame", "max_frames": 12, "attack": "deepfool", "deepfool": {"steps": 50}}
    told |= {"test_videos": 4000} | note
    table = pa.Table.from_pandas(rows, schema=SCHEMA, preserve_index=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"artpaper": json.dumps(told)}), path)
    return path


def row(table, criterion, model, seed="all"):
    (found,) = table[
        (table["criterion"] == criterion) & (table["model"] == model) & (table["seed"] == str(seed))
    ].to_dict("records")
    return found


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def tiny(tmp_path):
    """Five videos, two models, two seeds; every number of the table can be worked out by hand."""

    def file(model, seed, rho, **given):
        return write_deepfool(tmp_path / f"{model}{seed}", model, seed, {"hit1_loss": rho}, **given)

    return {
        "non_art": [
            file("non_art", 0, [0, 0.02, 0.04, 0.5, 0.06], wrong=[0], left=[3], stuck=[3]),
            file("non_art", 1, [0.01, 0.03, 0, 0.05, 0.07], wrong=[2]),
        ],
        "art": [file("art", 0, [0.1, 0.2, 0.3, 0.4, 0.9], left=[4]), file("art", 1, [0.2, 0.3, 0.4, 0.5, 0.6])],
    }


def test_means_counts_and_differences_by_hand(tiny):
    table = robustness_table(tiny)
    assert len(table) == 2 * 3
    first = row(table, "hit1_loss", "non_art", 0)
    counts = {"videos": 5, "already_wrong": 1, "not_fooled": 1, "zero_gradient": 1}
    assert {name: first[name] for name in counts} == counts
    assert first["mean_rho"] == pytest.approx((0.02 + 0.04 + 0.06) / 3)
    assert first["median_rho"] == pytest.approx(0.04)
    assert first["mean_rho_all"] == pytest.approx((0 + 0.02 + 0.04 + 0.5 + 0.06) / 5)
    assert first["mean_norm"] == pytest.approx(10 * 0.12 / 3)
    assert first["mean_iterations"] == pytest.approx((2 + 3 + 5) / 3)
    assert np.isnan(first["seed_std"])
    means = [0.12 / 3, (0.01 + 0.03 + 0.05 + 0.07) / 4]
    both = row(table, "hit1_loss", "non_art")
    assert both["mean_rho"] == pytest.approx(np.mean(means))
    assert both["seed_std"] == pytest.approx(np.std(means, ddof=1))
    assert both["not_fooled"] == 0.5
    assert both["median_rho"] == pytest.approx((0.04 + 0.04) / 2)
    # the videos that were fooled for both: 1 and 2 of seed 0, all but 2 of seed 1
    art = row(table, "hit1_loss", "art", 0)
    assert art["difference"] == pytest.approx(((0.2 - 0.02) + (0.3 - 0.04)) / 2)
    assert art["pairs"] == 2
    art = row(table, "hit1_loss", "art")
    second = ((0.2 - 0.01) + (0.3 - 0.03) + (0.5 - 0.05) + (0.6 - 0.07)) / 4
    assert art["difference"] == pytest.approx((0.22 + second) / 2)
    assert art["pairs"] == 3
    assert art["difference_low"] < art["difference"] < art["difference_high"]
    assert row(table, "hit1_loss", "non_art")["art_difference"] == pytest.approx(-art["difference"])
    assert np.isnan([both["difference"], both["difference_low"], both["pairs"], art["art_difference"]]).all()


def test_the_interval_is_the_normal_one_on_plain_data(tmp_path):
    rho = np.random.default_rng(3).normal(1, 0.2, 3000)
    path = write_deepfool(tmp_path / "a", "art", 0, {"top1_change": rho}, left=range(1000))
    found = row(robustness_table({"art": [path]}, resamples=4000), "top1_change", "art")
    kept = rho[1000:]
    reach = 1.96 * kept.std(ddof=1) / np.sqrt(len(kept))
    assert found["mean_rho"] == pytest.approx(kept.mean())
    assert found["ci_low"] == pytest.approx(kept.mean() - reach, abs=0.08 * reach)
    assert found["ci_high"] == pytest.approx(kept.mean() + reach, abs=0.08 * reach)


def test_samples_are_means_over_drawn_videos():
    values, chosen = np.array([[1.0, 2.0, 4.0]]), np.array([[True, True, False]])
    means = bootstrap_means(values, chosen, 2000, 0)[:, 0]
    possible = {1.0, 2.0, 1.5, 4 / 3, 5 / 3}
    assert {round(float(mean), 9) for mean in means[~np.isnan(means)]} == {round(mean, 9) for mean in possible}
    assert np.isnan(means).mean() == pytest.approx(1 / 27, abs=0.015)  # only the third was drawn


def test_pairs_are_resampled_together(tmp_path):
    rho = np.random.default_rng(0).uniform(0.01, 1, 300)
    files = {
        "non_art": [write_deepfool(tmp_path / "n", "non_art", 0, {"top1_change": rho})],
        "art": [write_deepfool(tmp_path / "a", "art", 0, {"top1_change": rho + 0.004}, order=np.arange(300)[::-1])],
        "a_art": [write_deepfool(tmp_path / "aa", "a_art", 0, {"top1_change": rho + 0.005})],
    }
    table = robustness_table(files)
    found = row(table, "top1_change", "a_art")
    assert found["ci_high"] - found["ci_low"] > 0.05  # the videos differ by far more than the models
    for name, value in (("difference", 0.005), ("art_difference", 0.001)):
        assert [found[f"{name}{end}"] for end in ("", "_low", "_high")] == pytest.approx([value] * 3)


def test_the_same_videos_of_all_seeds_are_resampled(tmp_path):
    rho = np.random.default_rng(1).uniform(0, 1, 200)
    paths = [write_deepfool(tmp_path / f"a{seed}", "art", seed, {"top1_change": rho}) for seed in range(4)]
    table = robustness_table({"art": paths})
    one, every = row(table, "top1_change", "art", 2), row(table, "top1_change", "art")
    # equal results in four seeds are no four times as many videos
    assert (every["ci_low"], every["ci_high"]) == pytest.approx((one["ci_low"], one["ci_high"]))
    assert every["seed_std"] == pytest.approx(0, abs=1e-12)


def fabricated(folder, models=("non_art", "art", "a_art"), seeds=(0, 1), videos=60, few=4, **given):
    files = {}
    for place, model in enumerate(models):
        draw = np.random.default_rng(place)
        rho = {name: np.exp(draw.normal(size=few if name == "multilabel" else videos) - 4) for name in CRITERIA}
        files[model] = [
            write_deepfool(folder / f"{model}{seed}", model, seed, {n: v * (1 + seed) for n, v in rho.items()}, **given)
            for seed in seeds
        ]
    return files


def test_bars_and_curves_are_those_of_the_table(tmp_path):
    rho = {"hit1_loss": np.r_[np.zeros(10), np.arange(1, 41) / 1e3]}
    files = {"non_art": [write_deepfool(tmp_path / "n", "non_art", 0, rho, wrong=range(10), left=[49])]}
    table = robustness_table(files)
    figure = robustness_figure(files, table)
    above, below = figure.axes
    (bar,) = above.patches
    assert bar.get_height() == pytest.approx(100 * np.arange(1, 40).mean() / 1e3)
    assert above.get_xticklabels()[0].get_text() == "Non-ART\n10 / 1"
    assert above.get_xlabel() == "already wrong / not fooled, of 50"
    reach = above.collections[0].get_segments()[0][:, 1]
    found = row(table, "hit1_loss", "non_art")
    assert reach == pytest.approx([100 * found["ci_low"], 100 * found["ci_high"]])
    start, curve = below.lines
    assert start.get_ydata()[0] == pytest.approx(100 * 10 / 50)
    assert curve.get_xdata() == pytest.approx(np.arange(1, 40) / 10)
    assert curve.get_ydata() == pytest.approx(100 * np.arange(11, 50) / 50)
    assert "SYNTHETIC data, a subset of 4,000 test videos, training seed 0" in figure.get_suptitle().replace("\n", " ")


def test_sparse_criteria_are_left_to_the_table_and_extra_models_get_a_bar(tmp_path):
    files = fabricated(tmp_path, models=("non_art", "art", "a_art", "uniform"))
    table = robustness_table(files)
    figure = robustness_figure(files, table)
    assert [axes.get_title().split(" ")[0] for axes in figure.axes[:3]] == list(CRITERIA[:3])
    assert len(figure.axes) == 6
    assert len(figure.axes[0].patches) == 4
    assert len({str(line.get_linestyle()) + line.get_marker() for line in figure.axes[3].lines[1::2]}) == 4
    assert set(table["criterion"]) == set(CRITERIA) == set(MEANING)
    figure.draw_without_rendering()
    above = figure.axes[0]
    dots = [line for line in above.lines if len(line.get_xdata()) == 2 and line.get_marker() == "o"]
    assert len(dots) == len(above.texts) == 4
    for number, each in zip(above.texts, dots, strict=True):  # of two seeds: none lies under the number
        assert number.get_window_extent().y0 > above.transData.transform(each.get_xydata())[:, 1].max()


def test_models_that_nothing_fools_can_be_drawn(tmp_path):
    rho = {name: np.full(40, 0.1) for name in CRITERIA}
    files = {
        "non_art": [write_deepfool(tmp_path / "n", "non_art", 0, rho)],
        "art": [write_deepfool(tmp_path / "a", "art", 0, rho, left=range(40))],
    }
    table = robustness_table(files)
    found = row(table, "hit1_loss", "art")
    assert np.isnan([found["mean_rho"], found["ci_low"], found["median_rho"], found["difference"]]).all()
    assert (found["not_fooled"], found["pairs"]) == (40, 0)
    save_figure(robustness_figure(files, table), tmp_path / "figure4")
    write_robustness(files, table, tmp_path)
    assert " – |" in (tmp_path / "figure4.md").read_text()


def test_files_say_what_was_measured(tmp_path):
    files = fabricated(tmp_path)
    table = robustness_table(files)
    write_robustness(files, table, tmp_path)
    back = pd.read_csv(tmp_path / "figure4.csv", dtype={"seed": str})
    pd.testing.assert_frame_equal(back, table, rtol=1e-8, check_dtype=False)
    text = (tmp_path / "figure4.md").read_text()
    assert "SYNTHETIC data: a seeded subset of 4,000 test videos, training seeds 0, 1" in text
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == len(CRITERIA) * (2 + 3)
    header, _, *rows = lines[5:10]
    assert [line[0] for line in rows] == ["Non-ART", "ART", "A-ART"]
    found = row(table, "hit1_loss", "a_art")
    low, high = 100 * found["art_difference_low"], 100 * found["art_difference_high"]
    assert rows[2][header.index("more than ART")] == (
        f"{100 * found['art_difference']:+.3f} \\[{low:+.3f}, {high:+.3f}]"
    )
    assert rows[0][header.index("more than Non-ART")] == "–"
    assert f"± {100 * found['seed_std']:.3f}" in rows[2][header.index("mean rho")]
    assert all(f"- **{name}**: " in text for name in header[1:])


def test_the_same_input_gives_the_same_bytes(tmp_path):
    files = fabricated(tmp_path)
    for name in ("one", "two"):
        table = robustness_table(files)
        write_robustness(files, table, tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["figure4.csv", "figure4.md"]
    assert all((tmp_path / "one" / n).read_bytes() == (tmp_path / "two" / n).read_bytes() for n in names)
    other = robustness_table(files, seed=1)
    assert not other["ci_low"].equals(table["ci_low"])
    assert other["mean_rho"].equals(table["mean_rho"])


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    rho = {"top1_change": [0.1, 0.2]}
    good = write_deepfool(tmp_path / "good", "art", 0, rho)

    def refused(match, **given):
        odd = write_deepfool(tmp_path / "odd", **({"model": "a_art", "seed": 0, "rho": rho} | given))
        with pytest.raises(DataError, match=match):
            read_robustness({"art": [good], "a_art": [odd]})

    refused("odd: holds model art, expected a_art", model="art")
    refused("deepfool {'steps': 5} against {'steps': 50}", deepfool={"steps": 5})
    refused("source yt8m against synthetic; make both anew", source="yt8m")
    refused(r"damaged_shards \['train: t.tfrecord'\] against \[\]", damaged_shards=["train: t.tfrecord"])
    refused("different videos", ids=["v0000", "w0001"])
    refused("different videos", rho={"hit1_loss": [0.1, 0.2]})
    refused("same seeds, each once", seed=1)
    refused("not a DeepFool file: it is about the attack one_step", attack="one_step")
    refused("a video twice, or NaN", rho={"top1_change": [0.1, np.nan]})
    refused("a video twice, or NaN", ids=["v0000", "v0000"])
    refused(r"criteria \['luck'\]", rho={"luck": [0.1, 0.2]})
    refused("holds no video", rho={"top1_change": []})
    with pytest.raises(DataError, match="same seeds, each once"):
        read_robustness({"art": [good, good]})
    with pytest.raises(DataError, match=r"absent: no such DeepFool file; make it with `dvc repro`"):
        read_robustness({"art": [tmp_path / "absent"]})
    with pytest.raises(DataError, match="no DeepFool files given"):
        read_robustness({})
    (tmp_path / "odd").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="not a DeepFool file"):
        read_robustness({"art": [tmp_path / "odd"]})
    pq.write_table(pq.read_table(good).drop_columns(["fooled"]), tmp_path / "odd")
    with pytest.raises(DataError, match="not a DeepFool file"):
        read_robustness({"art": [tmp_path / "odd"]})


def test_rho_is_the_mean_over_all_seeds_in_percent() -> None:
    rows = [("top1_change", "art", "0", 9, 0.01), ("top1_change", "art", "all", 9, 0.02)]
    rows += [("multilabel", "art", "all", 4, 0.1), ("top1_change", "a_art", "all", 9, float("nan"))]
    table = pd.DataFrame(rows, columns=["criterion", "model", "seed", "videos", "mean_rho"])
    assert robustness_metrics(table) == {
        "art": {"videos": 9, "rho_top1_change": 2.0, "rho_multilabel": 10.0},
        "a_art": {"videos": 9},
    }
