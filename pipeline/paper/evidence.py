"""Numbers out of the tables that a run wrote, each with its standard error and the place it was read from."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.base.errors import DataError
from pipeline.paper.paper import MODELS
from pipeline.paper.results import read_table


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
    """The tables of one run.

    Attributes:
        folder: the project's folder after ``dvc repro``, or a folder below ``results/``.
    Raises:
        DataError: any of its methods, where a table or one of its columns is missing.
        NotMeasured: any of its methods, where the table has no such row.
    """

    folder: Path

    def score(self, table: int, metric: str, split: str, model: str) -> Number:
        """A model's figure in Tables 1-3, in percent.

        The error is that of the mean over training seeds. With one seed it is the sampling error of the test videos,
        from Table 1's partitions and the number of videos.

        Args:
            table: 1, 2 or 3.
            metric: "GAP", "PERR" or "Hit@1".
            split: "test" or "adversarial".
            model: name in group ``models``.
        """
        where = {"metric": metric, "split": split, "column": MODELS[model]}
        file = f"tables/table{table}.csv"
        row = self._rows(file, where).iloc[0]
        if row["seeds"] > 1:
            error = row["seed_std"] / np.sqrt(row["seeds"])
        else:
            whole = self._rows("tables/table1.csv", where).iloc[0]
            error = whole["std"] * np.sqrt(whole["n"] / whole["partitions"] / max(1, row["n"]))
        return Number(float(row["ours"]), float(error), file, where, "ours")

    def gain(self, table: int, metric: str, split: str, model: str, over: str) -> Number:
        """How much a model's figure exceeds Non-ART's or ART's, in points, with the error of the paired difference.

        Args:
            table, metric, split, model: as in :meth:`score`.
            over: "non_art" or "art".
        """
        where = {"metric": metric, "split": split, "column": MODELS[model]}
        file, column = f"tables/table{table}.csv", f"over_{over}"
        row = self._rows(file, where).iloc[0]
        return Number(float(row[column]), float(row[f"{column}_error"]), file, where, column)

    def videos(self, table: int) -> int:
        """How many test videos a table is about."""
        return int(self._rows(f"tables/table{table}.csv", {})["n"].iloc[0])

    def group(self, table: int) -> str:
        """The vertical, or the AudioSet family in its place, that a table is about."""
        return str(self._rows(f"tables/table{table}.csv", {})["group"].iloc[0])

    def shortened(self) -> int | None:
        """Steps of the trainings of Figure 3 where they are fewer than a full training's; None where they are not."""
        found = self._rows("figures/figure3.csv", {})
        return int(found["steps"].max()) if found["shortened"].any() else None

    def attention(self, model: str, number: str) -> Number:
        """One of the attention numbers of a model: mean over test videos, modalities and seeds."""
        return self._mean("figures/attention.csv", {"model": model}, number)

    def attention_by_seed(self, model: str, number: str) -> "pd.Series[float]":
        """The same for each seed."""
        return self._rows("figures/attention.csv", {"model": model}).groupby("seed")[number].mean()

    def rho(self, model: str, criterion: str) -> Number:
        """Mean relative size of a model's minimal perturbations, over its fooled videos."""
        return self._mean("figures/figure4.csv", {"criterion": criterion, "model": model, "seed": "all"}, "mean_rho")

    def rho_difference(self, low: str, high: str, criterion: str) -> tuple[Number, Number, Number]:
        """How much rho of one model exceeds another's on the same videos, as a share of the video's norm.

        Args:
            low: "non_art" or "art".
            high: the model expected above it.
            criterion: what counts as fooled.
        Returns:
            The difference, its error over training seeds (NaN with one), and both ends of its 95 % interval over
            videos.
        """
        prefix = "art_difference" if low == "art" else "difference"
        file, where = "figures/figure4.csv", {"criterion": criterion, "model": high}
        every = self._rows(file, where)
        each = every.loc[every["seed"].map(_text) != "all", prefix]
        error = float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else float("nan")
        where |= {"seed": "all"}
        difference, lowest, largest = (self._mean(file, where, f"{prefix}{end}") for end in ("", "_low", "_high"))
        return replace(difference, error=error), lowest, largest

    def _mean(self, file: str, where: dict[str, str], column: str) -> Number:
        found = self._rows(file, where)
        error = float("nan")
        by_seed = found.groupby("seed")[column].mean()
        if len(by_seed) > 1:
            error = float(by_seed.std(ddof=1) / np.sqrt(len(by_seed)))
        return Number(float(found[column].mean()), error, file, where, column)

    def point(self, model: str, key: str, value: float | None, what: str = "clean") -> Number:
        """Validation GAP at one point of Figure 3, in percent.

        Args:
            model: name in group ``models``.
            key: "epsilon", "alpha" or "beta"; "reference" for Non-ART.
            value: of that key; None for the reference.
            what: "clean" or "one_step".
        """
        where = {"model": model, "key": key} | ({} if value is None else {"value": f"{value:g}"})
        found = self._rows("figures/figure3.csv", where)
        number = self._mean("figures/figure3.csv", where, what)
        error = number.error if len(found) > 1 else float(found[f"{what}_error"].iloc[0])
        return Number(number.value, error, number.file, where, what)

    def grid(self, model: str, key: str) -> list[float]:
        """The values of one curve of Figure 3, ascending."""
        return sorted(self._rows("figures/figure3.csv", {"model": model, "key": key})["value"].unique())

    def _rows(self, file: str, where: dict[str, str]) -> pd.DataFrame:
        path = self.folder / file
        if not path.is_file():
            raise DataError(f"{path}: no such table; `dvc repro` makes it")
        found = _read(path, path.stat().st_mtime_ns)
        for name, wanted in where.items():
            if name not in found:
                raise DataError(f"{self.folder / file}: no column {name}; make it anew with `dvc repro`")
            found = found[found[name].map(_text) == wanted]
        if found.empty:
            raise NotMeasured(f"{self.folder / file}: no row with {where}")
        return found


@cache
def _read(path: Path, changed: int) -> pd.DataFrame:
    return read_table(path)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
