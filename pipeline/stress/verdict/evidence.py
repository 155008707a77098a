"""Numbers out of the stress test's tables, each with its uncertainty and the place it was read from."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.paper.evidence import NotMeasured
from pipeline.paper.results import read_table
from pipeline.stress.verdict.leaderboard import read_training
from pipeline.stress.verdict.predictions import attack_name, model_name

NAN = float("nan")


@dataclass(frozen=True)
class Effect:
    """A number of the stress test's tables."""

    name: str  # what it is, for people
    value: float  # points of GAP, nats of the loss, or a share
    low: float  # where its 95 % interval begins; NaN where there is none
    high: float  # and where it ends
    p: float  # corrected by Holm; NaN where there is none
    seeds: int  # trainings behind it
    videos: int  # test videos behind it
    file: str  # the table it stands in
    where: Mapping[str, str]  # column -> value of its row, or of the rows over which it is the mean
    column: str  # of the table

    @property
    def opposite(self) -> "Effect":
        """A difference read the other way round; it stands in its table as before."""
        return replace(self, value=-self.value, low=-self.high, high=-self.low)

    def __str__(self) -> str:
        """The number with its interval, its p value and what is behind it, in words."""
        signed = "+" if self.column == "difference" else ""
        digits = 4 if self.where.get("metric") == "loss" or self.file == "training.csv" else 2
        text = f"{self.name} {self.value:{signed}.{digits}f}"
        if not np.isnan(self.low):
            text += f" [{self.low:{signed}.{digits}f}, {self.high:{signed}.{digits}f}]"
        if not np.isnan(self.p):
            text += f", p {'< 0.0001' if self.p < 0.0001 else f'{self.p:.2g}'}"
        videos = f", {self.videos:,} videos" if self.videos else ""
        alone = " (one seed: the videos' chance only)" if self.seeds == 1 else ""
        return f"{text} (n: {self.seeds} seed{'s' if self.seeds > 1 else ''}{videos}){alone}"


@dataclass(frozen=True)
class StressEvidence:
    """The tables of a stress test: its differences, its leaderboard and its trainings.

    All methods raise NotMeasured where a model or an attack was not tried.
    """

    differences: pd.DataFrame
    board: pd.DataFrame
    training: pd.DataFrame

    def difference(
        self, model: str, attack: str, over: str, over_attack: str = "", metric: str = "gap", family: str = "claims"
    ) -> Effect:
        """A declared comparison, of GAP (points of percent) or "loss" (nats); the same attack if no other is given."""
        where = {"family": family, "metric": metric, "model": model, "attack": attack, "over_model": over}
        where |= {"over_attack": over_attack or attack}
        row = _row(self.differences, where, "differences.csv")
        against = attack_name(over_attack) if model == over else model_name(over)
        name = f"{model_name(model)}, {attack_name(attack)}, over {against}"
        value, low, high, p = (float(row[column]) for column in ("difference", "low", "high", "holm_p"))
        counts = int(row["seeds"]), int(row["videos"])
        return Effect(name, value, low, high, p, *counts, "differences.csv", where, "difference")

    def gap(self, model: str, attack: str) -> Effect:
        """GAP of one model under an attack that the leaderboard has, percent."""
        row = _row(self.board, {"model": model}, "leaderboard.csv")
        value, low, high = (float(row.get(attack + end, np.nan)) for end in ("", "_low", "_high"))
        if np.isnan(value):
            raise NotMeasured(f"leaderboard.csv: no {attack} of model {model}")
        name = f"GAP of {model_name(model)}, {attack_name(attack)}"
        counts = int(row["seeds"]), int(row["videos"])
        return Effect(name, value, low, high, NAN, *counts, "leaderboard.csv", {"model": model}, attack)

    def flatness(self, model: str) -> tuple[Effect, "pd.Series[float]"]:
        """Distance of a model's clean attention to uniform attention, relative to 1/T: mean over seeds, and of each."""
        rows = self.training[self.training["model"] == model]
        if rows.empty:
            raise NotMeasured(f"training.csv: no model {model}")
        column, name = "attention_uniform_rms", f"distance to uniform of {model_name(model)}"
        by_seed = rows.set_index("seed")[column]
        where, seeds = {"model": model}, len(by_seed)
        return Effect(name, float(by_seed.mean()), NAN, NAN, NAN, seeds, 0, "training.csv", where, column), by_seed


def read_evidence(folder: str | Path, training: str | Path) -> StressEvidence:
    """What the verdicts rest on: a folder's ``differences.csv`` and ``leaderboard.csv``, and trainings."""
    folder = Path(folder)
    differences = read_table(folder / "differences.csv", "family", "difference", "low", "high", "holm_p", "basis")
    board = read_table(folder / "leaderboard.csv", "model", "clean", "source", "left_out")
    return StressEvidence(differences, board, read_training(training))


def _row(table: pd.DataFrame, where: Mapping[str, str], file: str) -> pd.Series:
    rows = table[np.logical_and.reduce([table[column] == value for column, value in where.items()])]
    if rows.empty:
        wanted = ", ".join(f"{column} {value}" for column, value in where.items() if column != "family")
        raise NotMeasured(f"{file}: no row with {wanted}")
    return rows.iloc[0]
