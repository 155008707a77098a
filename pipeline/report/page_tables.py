"""Tables 1-3, the claims and the parameters of a run, ready to be set on the page."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from ruamel.yaml import YAML

from pipeline.base.errors import DataError
from pipeline.base.parameters import as_dict, load_params
from pipeline.base.sources import SOURCES
from pipeline.paper.claims import CLAIMS, Claim
from pipeline.paper.claims_page import findings, number_text
from pipeline.paper.evidence import Evidence
from pipeline.paper.paper import GAIN, METRICS, SPLITS
from pipeline.paper.render import printed_columns, printed_lines
from pipeline.paper.results import read_table, read_text
from pipeline.paper.verdicts import DIRECTION, FAILS, HOLDS, OPEN, Finding
from pipeline.report.markup import prose
from pipeline.run.lineage import flat

MARKS = {HOLDS: "✓", DIRECTION: "◐", FAILS: "✗", OPEN: "?"}  # so that no verdict is told by its colour alone
CELLS = ("table", "group", "metric", "split", "column", "ours", "std", "seed_std", "paper", "paper_std", "difference",
         "n", "seeds", "partitions", "over_non_art", "over_non_art_error", "over_art", "over_art_error")  # fmt: skip


@dataclass(frozen=True)
class PrintedTable:
    """One of Tables 1-3 as it is set.

    Attributes:
        name: of its files.
        title: number and group.
        columns: models and gain, under each of the two test sets.
        metrics: as :func:`pipeline.paper.render.printed_lines` returns them.
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
    Raises:
        DataError: a table is damaged, or its Markdown file is missing.
    """
    return [_printed(path) for path in sorted((folder / "tables").glob("table*.csv"))]


def _printed(path: Path) -> PrintedTable:
    cells = table_cells(path)
    second = ", models trained on it alone" if path.stem.endswith("_retrained") else ""
    group = cells["group"].iloc[0]
    title = f"Table {cells['table'].iloc[0]}: {'the whole test set' if group == 'all' else group}{second}"
    caption, _, below = read_text(path.with_suffix(".md")).partition("\n")
    notes = "\n".join(line for line in below.splitlines() if line.startswith("- "))
    return PrintedTable(
        path.stem, title, tuple(printed_columns(cells)), printed_lines(cells), prose(caption), prose(notes)
    )


def table_cells(path: Path) -> pd.DataFrame:
    """The cells of one of Tables 1-3, one a row.

    Raises:
        DataError: the file is missing, damaged, or does not hold every cell once.
    """
    cells = read_table(path, *CELLS)
    names = cells[["metric", "split", "column"]]
    whole = len(METRICS) * len(SPLITS) * cells["column"].nunique()
    if not len(cells) == len(names.drop_duplicates()) == whole or cells[["n", "seeds"]].isna().to_numpy().any():
        raise DataError(f"{path}: cells are missing or there twice; make it anew with `dvc repro`")
    return cells


def glance(folder: Path) -> list[dict[str, Any]]:
    """GAP of each model, clean and attacked, ours and (NaN where it has none) the paper's, in percent, and the videos.

    None without Table 1.

    Args:
        folder: the project's folder, or one below ``results/``.
    Raises:
        DataError: Table 1 is damaged.
    """
    path = folder / "tables" / "table1.csv"
    if not path.is_file():
        return []
    cells = table_cells(path)
    found = cells[cells["metric"] == "GAP"].set_index(["split", "column"])
    rows = []
    for model in printed_columns(cells):
        clean, attacked = found.loc[("test", model)], found.loc[("adversarial", model)]
        if model != GAIN and not pd.isna(clean["ours"]):  # Table 1 has the paper's models, trained or not
            rows.append({"model": model, "videos": int(clean["n"]), "run": (clean["ours"], attacked["ours"]),
                         "paper": (clean["paper"], attacked["paper"])})  # fmt: skip
    return rows


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
        """The numbers as the claims page prints them, without those that this run has no value for."""
        found = {name: number for name, number in self.finding.numbers.items() if not pd.isna(number.value)}
        return {name: number_text(number.value, number.error) for name, number in found.items()}

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
    """Every parameter that the run's file names, in its order; one that came later, a published run did not have.

    Args:
        params: the parameters of the run.
        profile: the paper's.
    Raises:
        ConfigError: one of the files is missing or does not fit.
    """
    ours, theirs = (flat(as_dict(load_params(path))) for path in (params, profile))
    named = flat(YAML(typ="safe", pure=True).load(params.read_text(encoding="utf-8")))
    unread = {*SOURCES} - {ours["data.source"]}  # a group of a source's name is read by that source alone
    return [
        Parameter(name, _shown(value), _shown(theirs[name]) if name in theirs else "–",
                  name.partition(".")[0] not in unread)
        for name, value in ours.items() if name in named
    ]  # fmt: skip


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_shown, value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_shown(item)}" for key, item in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)
