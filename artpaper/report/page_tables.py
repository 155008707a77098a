"""Tables 1-3, the claims and the parameters of a run, ready to be set on the page."""

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from artpaper.config import as_dict, load_params
from artpaper.errors import DataError
from artpaper.report.claims import CLAIMS, Claim
from artpaper.report.claims_page import findings, number_text
from artpaper.report.evidence import Evidence
from artpaper.report.markup import prose
from artpaper.report.paper import GAIN, METRICS, SPLITS
from artpaper.report.verdicts import DIRECTION, FAILS, HOLDS, OPEN, Finding

MARKS = {HOLDS: "✓", DIRECTION: "◐", FAILS: "✗", OPEN: "?"}  # so that no verdict is told by its colour alone
LINES = (("paper", "paper", "paper_std"), ("ours", "ours", "std"), ("difference", "difference", None),
         ("± over seeds", "seed_std", None))  # fmt: skip


@dataclass(frozen=True)
class PrintedTable:
    """One of Tables 1-3 as it is set.

    Attributes:
        name: of its files.
        title: number and group.
        columns: models and gain, under each of the two test sets.
        metrics: name -> lines, each a name and a text per column, test set by test set.
        caption, notes: what stands in the Markdown file beside it.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    metrics: dict[str, list[tuple[str, list[str]]]]
    caption: Markup
    notes: Markup

    @property
    def compared(self) -> bool:
        """The paper's figures are in it; they are not where its vertical does not exist."""
        return any(name == "paper" for lines in self.metrics.values() for name, _ in lines)


def printed_tables(folder: Path) -> list[PrintedTable]:
    """The tables of a run from their CSV files, two decimals; those that were not made are left out.

    Args:
        folder: the project's folder, or one below ``results/``.
    """
    return [_printed(path) for path in sorted((folder / "tables").glob("table*.csv"))]


def _printed(path: Path) -> PrintedTable:
    cells = pd.read_csv(path)
    columns = tuple(dict.fromkeys(cells["column"]))
    places = list(itertools.product(SPLITS, columns))
    metrics = {}
    for metric in METRICS:
        found = cells[cells["metric"] == metric].set_index(["split", "column"])
        metrics[metric] = [
            (name, [_text(found.loc[place], value, std, place[1] == GAIN) for place in places])
            for name, value, std in LINES
            if value == "ours" or found[value].notna().any()
        ]
    second = ", models trained on it alone" if path.stem.endswith("_retrained") else ""
    group = cells["group"].iloc[0]
    title = f"Table {cells['table'].iloc[0]}: {'the whole test set' if group == 'all' else group}{second}"
    caption, _, below = path.with_suffix(".md").read_text(encoding="utf-8").partition("\n")
    notes = "\n".join(line for line in below.splitlines() if line.startswith("- "))
    return PrintedTable(path.stem, title, columns, metrics, prose(caption), prose(notes))


def _text(cell: pd.Series, value: str, std: str | None, gain: bool) -> str:
    if pd.isna(cell[value]):
        return "–"
    number = round(cell[value], 2) + 0.0  # no -0.00
    text = f"{number:+.2f}" if value == "difference" or (gain and value != "seed_std") else f"{number:.2f}"
    return text if std is None or pd.isna(cell[std]) else f"{text} ± {cell[std]:.2f}"


@dataclass(frozen=True)
class JudgedClaim:
    """A claim and what this run says of it."""

    claim: Claim
    finding: Finding

    @property
    def mark(self) -> str:
        """A sign for the verdict, beside its words."""
        return MARKS[self.finding.verdict]

    @property
    def numbers(self) -> dict[str, str]:
        """The numbers as the claims page prints them."""
        return {name: number_text(number.value, number.error) for name, number in self.finding.numbers.items()}

    @property
    def files(self) -> list[str]:
        """Where they stand."""
        return sorted({number.file for number in self.finding.numbers.values()})


def judged_claims(folder: Path) -> tuple[list[JudgedClaim], str]:
    """Every claim with its verdict on a run; or none, and the reason: a table that was not made."""
    try:
        found = findings(Evidence(folder))
    except DataError as error:
        return [], str(error).replace(f"{folder}/", "")
    return [JudgedClaim(claim, finding) for claim, finding in zip(CLAIMS, found, strict=True)], ""


def verdict_counts(claims: list[JudgedClaim]) -> list[tuple[str, str, int]]:
    """Mark, verdict and how many claims have it, every verdict once."""
    count = Counter(claim.finding.verdict for claim in claims)
    return [(mark, verdict, count[verdict]) for verdict, mark in MARKS.items()]


@dataclass(frozen=True)
class Parameter:
    """One value in force, and the paper profile's; ``read`` is False for what this run has no use for."""

    name: str
    value: str
    paper: str
    read: bool

    @property
    def differs(self) -> bool:
        """It is read and is not the paper profile's."""
        return self.read and self.value != self.paper


def parameters(params: Path, profile: Path) -> list[Parameter]:
    """Every parameter in force, in the file's order.

    Args:
        params: the parameters of the run.
        profile: the paper's.
    Raises:
        ConfigError: one of the files is missing or does not fit.
    """
    ours, theirs = (_flat(as_dict(load_params(path))) for path in (params, profile))
    synthetic = ours["data.source"] == "synthetic"
    return [
        Parameter(name, _shown(value), _shown(theirs[name]) if name in theirs else "–",
                  synthetic or not name.startswith("synthetic."))
        for name, value in ours.items()
    ]  # fmt: skip


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, Mapping):
        return {prefix.removesuffix("."): values}
    return {name: value for key in values for name, value in _flat(values[key], f"{prefix}{key}.").items()}


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_shown, value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_shown(item)}" for key, item in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)
