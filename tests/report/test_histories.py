"""The curves of all models in one table, from hand-written histories."""

from pathlib import Path

import pytest

from pipeline.base.errors import DataError
from pipeline.paper.curves import QUANTITIES, histories, histories_figure

HEADER = "step,learning_rate,loss,cross_entropy,adversarial,validation_gap\n"


def run_of(folder: Path, rows: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "history.csv").write_text(HEADER + rows)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, list[Path]]:
    art = [
        run_of(tmp_path / "art" / f"seed{seed}", f"5,0.1,0.8,0.4,0.4,\n10,0.1,0.6,0.3,0.3,0.{seed}\n")
        for seed in (1, 2)
    ]
    return {"non_art": [run_of(tmp_path / "non_art" / "seed1", "5,0.1,0.5,0.5,,\n")], "art": art}


def test_every_measured_point_is_one_row_and_no_other(runs) -> None:
    table = histories(runs)
    found = {tuple(row[:4]): row[4] for row in table.itertuples(index=False)}
    gap, cross_entropy, loss = QUANTITIES.values()
    assert len(found) == len(table) == 2 + 2 * 5
    assert found[gap, "art", 2, 10] == pytest.approx(20.0)
    assert found[gap, "art", 1, 10] == pytest.approx(10.0)
    assert found[loss, "art", 1, 5] == 0.8
    assert found[cross_entropy, "art", 2, 10] == 0.3
    assert (gap, "art", 1, 5) not in found
    assert found[cross_entropy, "non_art", 1, 5] == 0.5


def test_the_figure_has_a_line_a_run_and_a_name_a_model(runs) -> None:
    figure = histories_figure(histories(runs), "test")
    gap, cross_entropy, loss = figure.axes
    assert [len(axes.lines) for axes in (gap, cross_entropy, loss)] == [2, 3, 3]
    assert [text.get_text() for text in cross_entropy.get_legend().get_texts()] == ["Non-ART", "ART"]
    assert [line.get_ydata().tolist() for line in gap.lines] == [[pytest.approx(10.0)], [pytest.approx(20.0)]]


def test_a_model_without_the_first_seed_has_its_name_too(runs) -> None:
    figure = histories_figure(histories({"art": runs["art"], "non_art": runs["non_art"], "a_art": runs["art"][1:]}), "")
    assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == ["ART", "Non-ART", "A-ART"]


def test_a_missing_or_odd_history_is_refused(runs, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"seed7.history\.csv: no training history.*dvc repro"):
        histories(runs | {"art": [tmp_path / "art" / "seed7"]})
    (runs["non_art"][0] / "history.csv").write_text("step,loss\n1,2\n")
    with pytest.raises(DataError, match="no training history"):
        histories(runs)
