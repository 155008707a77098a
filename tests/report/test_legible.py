"""Names that the figures' font lacks are written in Latin letters, and it is said which stands for what."""

import warnings
from unittest.mock import MagicMock

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

from pipeline.base.groups import Features
from pipeline.data.store import FrameStore
from pipeline.data.video import Video
from pipeline.paper.curves import training_curves
from pipeline.paper.datasets import video_figure
from pipeline.paper.style import legible, save_figure
from pipeline.stress.verdict.figure import stress_figure
from pipeline.stress.verdict.tables import stress_table
from tests.report.test_stress import made


@pytest.fixture(autouse=True)
def _strict():
    """matplotlib draws a box for what the font lacks, and warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph")
        yield
    plt.close("all")


def texts(figure) -> list[str]:
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(Text)]


def test_what_the_font_lacks_is_written_and_told_and_the_rest_is_as_it_was(tmp_path, capsys):
    figure, axes = plt.subplots()
    axes.plot([0, 1], label="한국어 model")
    axes.legend()
    kept = ["موسيقى", "שלום", "Ελλάδα", "Мир", "naïve – 5 %", r"$\epsilon$ = 0.5"]
    axes.set(title="\n".join(kept), xlabel="🎵 音楽", ylabel="\t")
    axes.set_xticks([0, 1], ["音", "银"])  # both read Yin
    axes.set_yticks([0, 1], ["＄x", "＄^"])  # two dollars would start a formula
    save_figure(figure, tmp_path / "it")
    shown = texts(figure)
    assert {"HanGugEo model", "\n".join(kept), ":musical_note: YinLe", "U+0009"} <= {*shown}
    assert {"Yin", "Yin (U+94F6)", r"\$x", r"\$^"} <= {*shown}
    told = capsys.readouterr().out
    assert told.startswith("in Latin letters, for want of others in the figure's font: ")
    assert "Yin is 音, Yin (U+94F6) is 银" in told
    assert "HanGugEo is 한국어" in told
    save_figure(figure, tmp_path / "again")
    assert capsys.readouterr().out == ""  # once


def test_nothing_is_said_or_changed_where_the_font_has_all(capsys):
    figure, axes = plt.subplots()
    axes.set_xticks([0, 1], ["a", "b"])
    before = texts(figure)
    assert texts(legible(figure)) == before
    assert capsys.readouterr().out == ""


def test_figures_that_are_shown_and_not_saved(capsys):
    labels = MagicMock(classes=["A$AP $^ 音"])  # two dollars would start a formula
    store = MagicMock(spec=FrameStore, modalities={"音": 4}, dtype="uint8", label_space=labels)
    store.__getitem__.return_value = Video("$id", (0,), (np.ones((3, 4), np.uint8),))
    assert video_figure(store, 0, Features()).get_suptitle() == r"video \$id: A\$AP \$^ Yin"
    assert training_curves([{"step": 1, "cross_entropy": 1.0}], "模型 seed 0").get_suptitle() == "MoXing seed 0"
    for number in plt.get_fignums():
        texts(plt.figure(number))
    assert "MoXing is 模型" in capsys.readouterr().out


def test_names_are_placed_as_they_will_be_read(tmp_path):
    figure = stress_figure(stress_table(made(["uniform_art", "art", "防御", "モデル"])))
    save_figure(figure, tmp_path / "it")
    assert {"FangYu", "moderu"} <= {*texts(figure)}
