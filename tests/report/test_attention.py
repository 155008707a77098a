"""The attention table and figure, from fabricated predictions files whose numbers are known beforehand."""

import hashlib
import json
import os
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artpaper.attention import NUMBERS
from pipeline.base.errors import DataError
from pipeline.paper.attention import (
    attention_figure,
    attention_files,
    attention_metrics,
    attention_table,
    write_attention,
)
from pipeline.paper.style import MODEL_STYLES, OTHER_STYLES, markdown_table, model_styles, save_figure, save_metrics
from pipeline.predict.predictions import attention_column, schema
from tests.pipeline import ROOT

MODALITIES = ("rgb", "audio")


def write_predictions(
    path, model, seed=0, *, numbers=None, frames=None, ids=None, videos=8, modalities=MODALITIES, **note
):
    """A predictions file with the real columns; ``numbers[modality, number]`` overrides the made-up ones."""
    ids = ids or [f"v{index:03d}" for index in range(videos)]
    draw = np.random.default_rng([seed, *map(ord, model)])
    columns = schema(modalities)
    given = {"id": ids, "frames": np.full(len(ids), 12) if frames is None else frames}
    for modality in modalities:
        for number in NUMBERS:
            made = draw.uniform(0.5, 1, len(ids)) if number == "entropy" else np.exp(draw.normal(size=len(ids)) - 6)
            made = 1 + 100 * made if number in ("largest", "profile_max") else made
            given[attention_column(modality, number)] = (numbers or {}).get((modality, number), made)
    nothing = {pa.bool_(): False, pa.float64(): 0.0, pa.int64(): 1}
    arrays = [
        pa.array(given.get(field.name, [nothing.get(field.type, [])] * len(ids)), field.type) for field in columns
    ]
    told = {"model": model, "seed": seed, "source": "synthetic", "split": "test", "label_space": "h317", "epsilon": 0.5}
    told |= {"scope": "joint", "labels": "truth", "feature_norm": "l2_frame", "max_frames": 12}
    told |= {"modalities": dict.fromkeys(modalities, 8)} | note
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_arrays(arrays, schema=columns)
    pq.write_table(table.replace_schema_metadata({"artpaper": json.dumps(told, sort_keys=True)}), path)
    return path


def write_all(folder, models=("non_art", "art", "a_art"), seeds=(0, 1), **given):
    return {
        model: [write_predictions(folder / f"{model}{seed}.parquet", model, seed, **given) for seed in seeds]
        for model in models
    }


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_table_is_the_mean_over_videos(tmp_path):
    numbers = {("rgb", "mse"): [1e-4, 3e-4, 2e-4], ("rgb", "unrelated_mse"): [np.nan, 2.0, 4.0],
               ("audio", "unrelated_mse"): [np.nan] * 3}  # fmt: skip
    path = write_predictions(tmp_path / "a", "art", 7, numbers=numbers, videos=3)
    table = attention_table({"art": [path]})
    assert list(table.columns) == ["model", "seed", "modality", "videos", *NUMBERS, "unrelated_videos"]
    assert table[["model", "seed", "modality", "videos"]].to_numpy().tolist() == [
        ["art", 7, "rgb", 3],
        ["art", 7, "audio", 3],
    ]
    rgb, audio = table.to_dict("records")
    assert rgb["mse"] == pytest.approx(2e-4, rel=1e-12)
    assert (rgb["unrelated_mse"], rgb["unrelated_videos"]) == (3.0, 2)
    assert np.isnan(audio["unrelated_mse"])
    assert audio["unrelated_videos"] == 0
    raw = pq.read_table(path).to_pydict()
    for number in NUMBERS[:-1]:
        values = raw[attention_column("audio", number)]
        assert audio[number] == pytest.approx(sum(values) / 3, rel=1e-12)


def test_every_model_seed_and_modality_has_a_row(tmp_path):
    table = attention_table(write_all(tmp_path))
    assert len(table) == len(table.drop_duplicates(["model", "seed", "modality"])) == 3 * 2 * 2
    assert list(table["model"].unique()) == ["non_art", "art", "a_art"]


def test_figure_shows_medians_means_zeros_and_the_source(tmp_path):
    files = write_all(tmp_path)
    half = np.where(np.arange(8) < 4, 0.0, 1e-5)
    files["uniform"] = [
        write_predictions(
            tmp_path / f"u{seed}", "uniform", seed, numbers={("rgb", "mse"): np.zeros(8), ("audio", "mse"): half}
        )
        for seed in (0, 1)
    ]
    table = attention_table(files)
    figure = attention_figure(files, table)
    rgb, *_, audio = (axes for axes in figure.axes if axes.get_title())
    texts = [text.get_text() for text in rgb.texts]
    assert texts[3] == "mean 0.0e+00; 16 of 16 exactly 0"
    assert "exactly" not in "".join(texts[:3])
    assert audio.texts[3].get_text().endswith("8 of 16 exactly 0")
    assert rgb.get_xscale() == "log"
    assert [label.get_text() for label in rgb.get_yticklabels()] == ["Non-ART", "ART", "A-ART", "uniform"]
    pooled = np.concatenate(
        [pq.read_table(path)[attention_column("rgb", "mse")].to_numpy() for path in files["non_art"]]
    )
    drawn = [line.get_xdata() for line in rgb.lines]
    assert any(len(x) == 2 and np.allclose(x, np.median(pooled), rtol=1e-12) for x in drawn)
    assert any(len(x) == 1 and np.allclose(x, pooled.mean(), rtol=1e-12) for x in drawn)
    assert any(
        len(x) == 2
        and np.allclose(
            x,
            np.quantile(
                np.concatenate(
                    [pq.read_table(path)[attention_column("rgb", "unrelated_mse")] for path in files["art"]]
                ),
                (0.05, 0.95),
            ),
        )
        for x in drawn
    )
    assert "SYNTHETIC data, 8 test videos, training seeds 0, 1" in figure.get_suptitle()
    figure.draw_without_rendering()


def test_one_modality_without_unrelated_videos_can_be_drawn(tmp_path):
    numbers = {("audio", "unrelated_mse"): np.full(8, np.nan)}
    files = write_all(tmp_path, seeds=(0,), modalities=("audio",), numbers=numbers, source="audioset")
    figure = attention_figure(files, attention_table(files))
    assert "AudioSet" in figure.get_suptitle()
    figure.draw_without_rendering()
    write_attention(files, attention_table(files), tmp_path)
    assert " – |" in (tmp_path / "attention.md").read_text()


def test_files_stand_beside_the_paper_and_say_how_to_read_them(tmp_path):
    files = write_all(tmp_path)
    table = attention_table(files)
    write_attention(files, table, tmp_path)
    back = pd.read_csv(tmp_path / "attention.csv")
    pd.testing.assert_frame_equal(back, table, rtol=1e-8)
    text = (tmp_path / "attention.md").read_text()
    assert "SYNTHETIC data: means over 8 test videos, ε = 0.5, training seeds 0, 1" in text
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    header, _, *rows = lines
    assert [row[:2] for row in rows] == [[m, n] for m in MODALITIES for n in ("Non-ART", "ART", "A-ART")]
    assert [row[header.index("paper")] for row in rows] == ["–", "4e-05", "3e-08"] * 2
    own = table[(table["model"] == "art") & (table["modality"] == "rgb")]
    assert rows[1][2].split(" ± ") == [f"{own['mse'].mean():.2e}", f"{own['mse'].std(ddof=1):.1e}"]
    share = 100 * own["mse"].mean() / own["unrelated_mse"].mean()
    assert rows[1][header.index("share")] == f"{share:.3g} %"
    assert all(f"- **{name}**: " in text for name in header[2:])


def test_the_caption_names_the_damaged_shards_that_were_left_out(tmp_path):
    files = write_all(tmp_path, damaged_shards=["train: train0001.tfrecord"])
    write_attention(files, attention_table(files), tmp_path)
    caption, *_ = (tmp_path / "attention.md").read_text().splitlines()
    assert caption.endswith("ddof = 1. LEFT OUT as damaged: 1 shard (train: train0001.tfrecord).")
    with pytest.raises(DataError, match="cannot be compared: damaged_shards"):
        attention_files(files | {"uniform": [write_predictions(tmp_path / "whole", "uniform")]})


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    good = write_predictions(tmp_path / "good", "art")

    def refused(match, **given):
        odd = write_predictions(tmp_path / "odd", **({"model": "a_art"} | given))
        with pytest.raises(DataError, match=match):
            attention_files({"art": [good], "a_art": [odd]})

    refused("odd: holds model art, expected a_art", model="art")
    refused("epsilon 0.25 against 0.5", epsilon=0.25)
    refused(r"modalities \['rgb'\] against \['rgb', 'audio'\]", modalities=("rgb",))
    refused("different videos; make both anew", ids=[f"w{index}" for index in range(8)])
    refused("holds no video", videos=0)
    with pytest.raises(DataError, match=r"a seed twice: \[0, 0\]"):
        attention_files({"art": [good, good]})
    with pytest.raises(DataError, match=r"absent: no such predictions file; make it with `dvc repro`"):
        attention_files({"art": [tmp_path / "absent"]})
    with pytest.raises(DataError, match="no predictions files given"):
        attention_files({})


def test_damaged_files_are_refused(tmp_path):
    good, odd = write_predictions(tmp_path / "good", "art"), tmp_path / "odd"
    odd.write_bytes(b"no parquet")
    with pytest.raises(DataError, match="not a predictions file"):
        attention_files({"art": [odd]})
    table = pq.read_table(good)
    pq.write_table(table.replace_schema_metadata(None), odd)
    with pytest.raises(DataError, match="not a predictions file"):
        attention_files({"art": [odd]})
    pq.write_table(table.drop_columns(["audio_attention_entropy"]), odd)
    with pytest.raises(DataError, match="audio_attention_entropy"):
        attention_files({"art": [odd]})


PROGRAM = """
import sys
from pipeline.paper.attention import attention_figure, attention_table
from pipeline.paper.style import save_figure
files = {model: [f"{sys.argv[1]}/{model}0.parquet"] for model in ("non_art", "art", "a_art")}
figure = attention_figure(files, attention_table(files))
figure.savefig(sys.argv[2] + "-seen.png", dpi=72)
save_figure(figure, sys.argv[2])
"""


def test_figure_files_are_the_same_bytes_in_another_process_that_showed_it_before(tmp_path):
    files = write_all(tmp_path, seeds=(0,), modalities=("audio",))
    made = save_figure(attention_figure(files, attention_table(files)), tmp_path / "figure.one")
    environment = os.environ | {"PYTHONHASHSEED": "1", "MPLBACKEND": "Agg", "TZ": "Asia/Tokyo"}
    subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path, tmp_path / "figure.two"], check=True, cwd=ROOT, env=environment
    )
    for path, kind in zip(made, ("png", "pdf"), strict=True):
        assert path == tmp_path / f"figure.one.{kind}"
        other = tmp_path / f"figure.two.{kind}"
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()
    assert made[0].read_bytes()[:4] == b"\x89PNG"
    pdf = made[1].read_bytes()
    assert b"/FontFile2" in pdf  # TrueType: text stays text
    for word in (b"CreationDate", b"Producer", b"atplotlib"):
        assert word not in pdf
    assert b"atplotlib" not in made[0].read_bytes()


def test_a_figure_that_was_drawn_before_gives_the_same_bytes(tmp_path):
    def make():
        figure, grid = plt.subplots(2, 2, layout="constrained", figsize=(5, 3))
        image = grid[0, 0].imshow(np.arange(100.0).reshape(10, 10))
        figure.colorbar(image, ax=grid[0, 0], label="weight")
        figure.colorbar(image, ax=list(grid[:, 1]), location="bottom", label="weight")
        return figure

    plain, seen = make(), make()
    seen.savefig(tmp_path / "seen.png", dpi=72)
    seen.canvas.draw()
    for one, other in zip(save_figure(plain, tmp_path / "one"), save_figure(seen, tmp_path / "two"), strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert plain.dpi == plt.rcParams["figure.dpi"]


def test_models_are_told_apart_without_colour():
    styles = model_styles(["uniform", "a_art", "art", "non_art", "other"])
    assert [styles[name] for name in ("non_art", "art", "a_art")] == list(MODEL_STYLES.values())
    assert (styles["uniform"], styles["other"]) == OTHER_STYLES[:2]
    for kind in ("color", "marker", "linestyle", "hatch"):
        assert len({str(getattr(style, kind)) for style in styles.values()}) == len(styles)
    assert styles["art"].line["linewidth"] > styles["a_art"].line["linewidth"]  # seen under it where both are the same


def test_markdown_is_padded_and_escaped():
    assert markdown_table(["a", "b"], [["x|y", "1"]]) == "| a    |   b |\n| :--  | --: |\n| x\\|y |   1 |\n"


def test_the_change_of_attention_is_a_mean_over_seeds_of_one_modality() -> None:
    rows = [("art", 0, "rgb", 7, 1e-4), ("art", 1, "rgb", 7, 3e-4), ("art", 0, "audio", 7, 2.00049e-8)]
    table = pd.DataFrame(rows, columns=["model", "seed", "modality", "videos", "mse"])
    assert attention_metrics(table) == {
        "art": {"videos": 7, "attention_mse_rgb_e6": 200.0, "attention_mse_audio_e6": 0.0200049}
    }


def test_a_file_a_model(tmp_path) -> None:
    save_metrics({"art": {"gap": 1.5, "group": "Arts & Crafts"}, "a_art": {"gap": 2}}, tmp_path / "table1")
    read = {path.name: json.loads(path.read_text()) for path in (tmp_path / "table1").iterdir()}
    assert read == {"art.json": {"gap": 1.5, "group": "Arts & Crafts"}, "a_art.json": {"gap": 2}}
