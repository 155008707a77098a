"""Numbers out of the tables that a run wrote, each with its standard error and the place it was read from."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student

from pipeline.base.errors import DataError
from pipeline.paper.paper import MODELS
from pipeline.paper.results import read_table

CURVES, MAPS, MOVES = "figures/figure3.csv", "figures/attention.csv", "figures/figure4.csv"


class NotMeasured(DataError):
    """The run has no such number: it was made without that model or that point."""


@dataclass(frozen=True)
class Number:
    """A value, its standard error (NaN where nothing tells it), and where it stands.

    It is the mean of ``column`` over the rows of ``file`` that have the values ``where``: one row, or a row per seed
    and modality.
    """

    value: float
    error: float
    file: str
    where: dict[str, str]
    column: str


@dataclass(frozen=True)
class Evidence:
    """The tables of one run, in the project's folder after ``dvc repro`` or in a folder below ``results/``.

    Models are names of group ``models``; metrics and splits are those of :mod:`pipeline.paper.paper`. All methods raise
    DataError where a table or one of its columns is missing, and NotMeasured where a table has no such row.
    """

    folder: Path

    def score(self, table: int, metric: str, split: str, model: str) -> Number:
        """A model's figure in Tables 1-3, in percent.

        The error is that of the mean over training seeds. With one seed it is the sampling error of the test videos,
        from Table 1's partitions and the number of videos.
        """
        file, where = _cell(table, metric, split, model)
        row = self._rows(file, where).iloc[0]
        if row["seeds"] > 1:
            error = row["seed_std"] / np.sqrt(row["seeds"])
        else:
            whole = self._rows("tables/table1.csv", where).iloc[0]
            error = whole["std"] * np.sqrt(whole["n"] / whole["partitions"] / max(1, row["n"]))
        return Number(float(row["ours"]), float(error), file, where, "ours")

    def gain(self, table: int, metric: str, split: str, model: str, over: str) -> Number:
        """How much a model's figure exceeds that of ``over`` ("non_art" or "art"), in points; the error is paired."""
        file, where = _cell(table, metric, split, model)
        column = f"over_{over}"
        row = self._rows(file, where).iloc[0]
        return Number(float(row[column]), float(row[f"{column}_error"]), file, where, column)

    def seeds(self, file: str = "tables/table1.csv") -> int:
        """How many trainings of each model Table 1, or Figure 3, stands on."""
        if file == CURVES:
            return int(self._rows(CURVES, {})["seed"].nunique())
        return int(self._rows("tables/table1.csv", {})["seeds"].iloc[0])

    def times(self) -> float:
        """How many standard errors a 95 % interval reaches: Student's for these seeds; with one, of videos, 2."""
        seeds = self.seeds()
        return float(student.ppf(0.975, seeds - 1)) if seeds > 1 else 2.0

    def videos(self, table: int) -> int:
        """How many test videos a table is about."""
        return int(self._rows(f"tables/table{table}.csv", {})["n"].iloc[0])

    def group(self, table: int) -> str:
        """The vertical, or the AudioSet family in its place, that a table is about."""
        return str(self._rows(f"tables/table{table}.csv", {})["group"].iloc[0])

    def attention(self, model: str, number: str) -> Number:
        """One of the attention numbers of a model: mean over test videos, modalities and seeds."""
        return self._mean(MAPS, {"model": model}, number)

    def attention_by_seed(self, model: str, number: str) -> "pd.Series[float]":
        """The same for each seed."""
        return self._rows(MAPS, {"model": model}).groupby("seed")[number].mean()

    def rho(self, model: str, criterion: str) -> Number:
        """Mean relative size of a model's minimal perturbations, over its fooled videos."""
        return self._mean(MOVES, {"criterion": criterion, "model": model, "seed": "all"}, "mean_rho")

    def rho_difference(self, low: str, high: str, criterion: str) -> tuple[Number, Number, Number]:
        """How much rho of ``high`` exceeds that of ``low`` ("non_art" or "art") on the same videos, as a share of norm.

        Returns:
            The difference, its error over training seeds (NaN with one), and both ends of its 95 % interval over
            videos.
        """
        prefix = "art_difference" if low == "art" else "difference"
        where = {"criterion": criterion, "model": high}
        rows = self._rows(MOVES, where)
        error = float(rows.loc[rows["seed"].map(_text) != "all", prefix].sem())
        where |= {"seed": "all"}
        difference, lowest, largest = (self._mean(MOVES, where, f"{prefix}{end}") for end in ("", "_low", "_high"))
        return replace(difference, error=error), lowest, largest

    def point(self, model: str, key: str, value: float | None, what: str = "clean") -> Number:
        """Validation GAP, "clean" or "one_step", at one point of Figure 3, in percent.

        ``key`` is "epsilon", "alpha", "beta", or "reference" for Non-ART, which has no ``value``.
        """
        where = {"model": model, "key": key} | ({} if value is None else {"value": f"{value:g}"})
        rows = self._rows(CURVES, where)
        number = self._mean(CURVES, where, what)
        return number if len(rows) > 1 else replace(number, error=float(rows[f"{what}_error"].iloc[0]))

    def without_term(self, what: str) -> Number:
        """ART as A-ART's curve over beta has it at 0: a point of its own over alpha or, if there is none, epsilon."""
        try:
            return self.point("art", "alpha", 1.0, what)
        except NotMeasured:
            in_use = self._rows(CURVES, {"model": "a_art", "key": "beta"})["epsilon"].iloc[0]
            return self.point("art", "epsilon", in_use, what)

    def grid(self, model: str, key: str) -> list[float]:
        """The values of one curve of Figure 3, ascending."""
        return sorted(self._rows(CURVES, {"model": model, "key": key})["value"].unique())

    def shortened(self) -> int | None:
        """Steps of the trainings of Figure 3 where they are fewer than a full training's; None where they are not."""
        rows = self._rows(CURVES, {})
        return int(rows["steps"].max()) if rows["shortened"].any() else None

    def _mean(self, file: str, where: dict[str, str], column: str) -> Number:
        rows = self._rows(file, where)
        error = rows.groupby("seed")[column].mean().sem()  # NaN of one seed
        return Number(float(rows[column].mean()), float(error), file, where, column)

    def _rows(self, file: str, where: dict[str, str]) -> pd.DataFrame:
        path = self.folder / file
        if not path.is_file():
            raise DataError(f"{path}: no such table; `dvc repro` makes it")
        table, texts = _table(path, path.stat().st_mtime_ns)
        chosen = np.ones(len(table), bool)
        for name, wanted in where.items():
            if name not in table:
                raise DataError(f"{path}: no column {name}; make it anew with `dvc repro`")
            chosen &= texts[name] == wanted
        if not chosen.any():
            wanted = " and ".join(f"{name} {value}" for name, value in where.items())
            remedy = "; `artpaper use figure3` asks for its points" * (file == CURVES)
            raise NotMeasured(f"{path}: no row with {wanted}{remedy}")
        return table[chosen]


def _cell(table: int, metric: str, split: str, model: str) -> tuple[str, dict[str, str]]:
    return f"tables/table{table}.csv", {"metric": metric, "split": split, "column": MODELS[model]}


@cache
def _table(path: Path, changed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table, and the same in texts, as :attr:`Number.where` has them."""
    table = read_table(path)
    return table, table.map(_text)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
