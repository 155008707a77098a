"""Is A-ART robust? Statements that a stress test decides, each with its evidence; the words come from the numbers.

A statement holds, does not hold, or cannot be told. Which of them is said depends on the numbers in the stress test's
tables and on group ``verdict`` of the parameters (:class:`pipeline.base.parameters.Rules`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.base.groups import Rules
from pipeline.paper.evidence import NotMeasured
from pipeline.paper.results import read_table
from pipeline.paper.verdicts import FAILS, HOLDS
from pipeline.stress.verdict.leaderboard import read_training
from pipeline.stress.verdict.predictions import attack_name, model_name

UNTOLD = "cannot be told"


@dataclass(frozen=True)
class Effect:
    """A number of the stress test's tables.

    Attributes:
        name: what it is, for people.
        value: points of GAP, nats of the loss, or a share.
        low, high: its 95 % interval; NaN where there is none.
        p: corrected by Holm; NaN where there is none.
        seeds, videos: how many are behind it.
        file: the table it stands in.
        where: column -> value of its row, or rows over which it is the mean.
        column: of the table.
    """

    name: str
    value: float
    low: float
    high: float
    p: float
    seeds: int
    videos: int
    file: str
    where: Mapping[str, str]
    column: str


@dataclass(frozen=True)
class Tables:
    """The tables of a stress test.

    Attributes:
        differences: as :func:`pipeline.stress.verdict.tables.differences_table` returns it.
        board: as :func:`pipeline.stress.verdict.leaderboard.leaderboard` returns it.
        training: as :func:`pipeline.stress.verdict.leaderboard.read_training` returns it.
    """

    differences: pd.DataFrame
    board: pd.DataFrame
    training: pd.DataFrame

    def difference(
        self, model: str, attack: str, over: str, over_attack: str = "", metric: str = "gap", family: str = "claims"
    ) -> Effect:
        """A declared comparison.

        Args:
            model, attack: what is compared.
            over, over_attack: with what; the same attack if none is given.
            metric: "gap" (points of percent) or "loss" (nats).
            family: of comparisons, over which p is corrected.
        Raises:
            NotMeasured: a model or an attack was not tried.
        """
        where = {"family": family, "metric": metric, "model": model, "attack": attack, "over_model": over}
        where |= {"over_attack": over_attack or attack}
        row = _one(self.differences, where, "differences.csv")
        against = attack_name(over_attack) if model == over else model_name(over)
        name = f"{model_name(model)}, {attack_name(attack)}, over {against}"
        value, low, high, p = (float(row[column]) for column in ("difference", "low", "high", "holm_p"))
        counts = int(row["seeds"]), int(row["videos"])
        return Effect(name, value, low, high, p, *counts, "differences.csv", where, "difference")

    def gap(self, model: str, attack: str) -> Effect:
        """GAP of one model, percent.

        Args:
            model: its name.
            attack: a column of the leaderboard.
        Raises:
            NotMeasured: the model or the attack was not tried.
        """
        row = _one(self.board, {"model": model}, "leaderboard.csv")
        value, low, high = (float(row.get(attack + end, np.nan)) for end in ("", "_low", "_high"))
        if np.isnan(value):
            raise NotMeasured(f"leaderboard.csv: no {attack} of model {model}")
        name = f"GAP of {model_name(model)}, {attack_name(attack)}"
        counts = int(row["seeds"]), int(row["videos"])
        return Effect(name, value, low, high, float("nan"), *counts, "leaderboard.csv", {"model": model}, attack)

    def flatness(self, model: str) -> tuple[Effect, "pd.Series[float]"]:
        """Distance of a model's clean attention to uniform attention, relative to 1/T.

        Returns:
            The mean over seeds, and the value of each seed.
        Raises:
            NotMeasured: the model is not in the table of trainings.
        """
        rows = self.training[self.training["model"] == model]
        if rows.empty:
            raise NotMeasured(f"training.csv: no model {model}")
        each = rows.set_index("seed")["attention_uniform_rms"]
        name, nothing = f"distance to uniform of {model_name(model)}", float("nan")
        effect = Effect(name, float(each.mean()), nothing, nothing, nothing, len(each), 0, "training.csv",
                        {"model": model}, "attention_uniform_rms")  # fmt: skip
        return effect, each


@dataclass(frozen=True)
class Verdict:
    """What the stress test says about a statement: its evidence, the verdict, and why."""

    evidence: tuple[Effect, ...]
    verdict: str
    reason: str


@dataclass(frozen=True)
class Statement:
    """A sentence that numbers can decide, the rule in words, and the function that applies it."""

    text: str
    rule: str
    judge: Callable[[Tables, Rules], Verdict]


def read_tables(folder: str | Path, training: str | Path) -> Tables:
    """Read the tables that the verdicts rest on.

    Args:
        folder: where ``differences.csv`` and ``leaderboard.csv`` are.
        training: ``training.csv``.
    Raises:
        DataError: one is missing, damaged, or lacks a column.
    """
    folder = Path(folder)
    differences = read_table(folder / "differences.csv", "family", "difference", "low", "high", "holm_p", "basis")
    board = read_table(folder / "leaderboard.csv", "model", "clean", "source", "left_out")
    return Tables(differences, board, read_training(training))


def verdicts(tables: Tables, statements: tuple[Statement, ...], rules: Rules) -> list[Verdict]:
    """What the tables say about each statement, in order; what was not measured cannot be told.

    Args:
        tables: of one stress test.
        statements: such as :data:`pipeline.stress.verdict.statements.STATEMENTS`.
        rules: when a statement counts as decided.
    """
    found = []
    for statement in statements:
        try:
            found.append(statement.judge(tables, rules))
        except NotMeasured as error:
            found.append(Verdict((), UNTOLD, f"not measured: {error}"))
    return found


def above(effect: Effect, rules: Rules, margin: float | None = None) -> str:
    """Is a difference above 0, by more than chance and by enough to matter?

    Args:
        effect: a difference, in the direction of the statement.
        rules: its alpha, and its margin in points of GAP.
        margin: another margin, unit of the difference.
    Returns:
        "does not hold" if the whole interval lies below the margin; "holds" if not, and the difference is positive, at
        least the margin, with p at most alpha; "cannot be told" otherwise, and with one training seed.
    """
    if np.isnan(effect.p):
        return UNTOLD
    if effect.high < (rules.margin if margin is None else margin):
        return FAILS
    enough = effect.value > 0 and effect.value >= (rules.margin if margin is None else margin)
    return HOLDS if enough and effect.p <= rules.alpha else UNTOLD


def no_worse(effect: Effect, rules: Rules) -> str:
    """Is a difference of GAP no lower than minus the margin?

    Args:
        effect: a difference, in the direction of the statement.
        rules: its alpha and its margin.
    Returns:
        "holds" if the whole interval lies above minus the margin; "does not hold" if not, and the difference is
        negative with p at most alpha; "cannot be told" otherwise, and with one training seed.
    """
    if np.isnan(effect.p):
        return UNTOLD
    if effect.low > -rules.margin:
        return HOLDS
    return FAILS if effect.value < 0 and effect.p <= rules.alpha else UNTOLD


def every(parts: list[str]) -> str:
    """The verdict on a statement all of whose parts must hold."""
    return FAILS if FAILS in parts else UNTOLD if UNTOLD in parts else HOLDS


def some(parts: list[str]) -> str:
    """The verdict on a statement one of whose parts must hold."""
    return HOLDS if HOLDS in parts else UNTOLD if UNTOLD in parts else FAILS


def opposite(effect: Effect) -> Effect:
    """A difference read the other way round; it stands in its table as before."""
    return replace(effect, value=-effect.value, low=-effect.high, high=-effect.low)


def effect_text(effect: Effect) -> str:
    """A number with its interval, its p value and what is behind it, in words."""
    signed = "+" if effect.column == "difference" else ""
    digits = 4 if effect.where.get("metric") == "loss" or effect.file == "training.csv" else 2
    text = f"{effect.name} {effect.value:{signed}.{digits}f}"
    if not np.isnan(effect.low):
        text += f" [{effect.low:{signed}.{digits}f}, {effect.high:{signed}.{digits}f}]"
    if not np.isnan(effect.p):
        text += f", p {'< 0.0001' if effect.p < 0.0001 else f'{effect.p:.2g}'}"
    videos = f", {effect.videos:,} videos" if effect.videos else ""
    alone = " (one seed: the videos' chance only)" if effect.seeds == 1 else ""
    return f"{text} (n: {effect.seeds} seed{'s' if effect.seeds > 1 else ''}{videos}){alone}"


def _one(table: pd.DataFrame, where: Mapping[str, str], file: str) -> pd.Series:
    found = table
    for column, wanted in where.items():
        found = found[found[column] == wanted]
    if found.empty:
        wanted = ", ".join(f"{column} {value}" for column, value in where.items() if column != "family")
        raise NotMeasured(f"{file}: no row with {wanted}")
    return found.iloc[0]
