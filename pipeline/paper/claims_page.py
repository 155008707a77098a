"""The claims as a page: a table to read first, then every claim with its numbers and the files they stand in."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.base.errors import DataError
from pipeline.base.sources import SOURCES
from pipeline.paper import paper
from pipeline.paper.claims import CLAIMS, Claim
from pipeline.paper.evidence import Evidence, NotMeasured
from pipeline.paper.style import save_text
from pipeline.paper.verdicts import OPEN, Finding

RULES = """A verdict is computed, not written. A difference **holds** if it exceeds twice its standard error and is at
least half the paper's; smaller than half, it **holds in direction**. Within twice its error it **does not hold**,
unless the paper's own difference is within that too: then these data are too few to tell, and it
**cannot be tested here**, as on fewer than 100 test videos. Claims without a number in the paper have a rule of their
own, given with the claim. GAP, PERR and Hit@1 are in percent, rho and attention weights are shares; ± is the standard
error of what stands before it: over training seeds, or over the videos where there is one seed."""


def findings(evidence: Evidence) -> list[Finding]:
    """What a run says about each of :data:`pipeline.paper.claims.CLAIMS`, in order.

    Raises:
        DataError: the run lacks a table.
    """
    return [_finding(claim, evidence) for claim in CLAIMS]


def _finding(claim: Claim, evidence: Evidence) -> Finding:
    try:
        found = claim.check.judge(evidence)
    except NotMeasured as error:
        return Finding({}, OPEN, f"not measured in this run ({str(error).partition(': ')[2]})")
    missing = [name for name, number in found.numbers.items() if np.isnan(number.value)]
    return Finding(found.numbers, OPEN, f"no value for {', '.join(missing)}") if missing else found


def claims_table(runs: Mapping[str, Evidence]) -> pd.DataFrame:
    """Every number of the page: a row per claim, run and number.

    Args:
        runs: name of the data -> the run's tables.
    Returns:
        Columns claim (its number), data, name, value, error, verdict (of the claim), file (below the run's folder),
        where (JSON: columns and their values) and column: the value is the mean of that column over those rows.
    """
    rows = []
    for data, evidence in runs.items():
        for position, found in enumerate(findings(evidence), start=1):
            for name, number in found.numbers.items():
                rows.append(
                    (position, data, name, number.value, number.error, found.verdict, number.file,
                     json.dumps(number.where, sort_keys=True), number.column)
                )  # fmt: skip
    columns = ["claim", "data", "name", "value", "error", "verdict", "file", "where", "column"]
    return pd.DataFrame(rows, columns=columns)


def claims_markdown(runs: Mapping[str, Evidence], commands: Mapping[str, str], folders: Mapping[str, str]) -> str:
    """The page.

    Args:
        runs: name of the data -> the run's tables.
        commands: name of the data -> what a reader types to make the run again.
        folders: name of the data -> the folder to link to, as seen from the page.
    Returns:
        Markdown.
    Raises:
        DataError: a run lacks a table.
    """
    found = {data: findings(evidence) for data, evidence in runs.items()}
    header = ["#", "claim", "where", "the paper", *(f"on {data}" for data in runs)]
    lines = ["# The paper's claims, one by one", "", RULES, "", _row(header), _row(["---"] * len(header))]
    for position, claim in enumerate(CLAIMS):
        verdicts = [f"**{found[data][position].verdict}**" for data in runs]
        link = f"[{position + 1}](#claim-{position + 1})"
        lines.append(_row([link, claim.text, claim.place, claim.paper, *verdicts]))
    lines += ["", "To make the numbers of a run again:", ""]
    lines += [f"- {data}: `{command}`" for data, command in commands.items()]
    lines += ["", "## The numbers", ""]
    for position, claim in enumerate(CLAIMS):
        parts = {data: found[data][position] for data in runs}
        lines += _claim(position + 1, claim, parts, folders)
    lines += ["## The paper's own slips", ""]
    lines += [f"- Table {table}: {slip}" for table in (1, 2, 3) for slip in paper.slips(table)]
    lines += [f"- {slip}" for slip in paper.other_slips()]
    return "\n".join(lines) + "\n"


def _claim(position: int, claim: Claim, parts: Mapping[str, Finding], folders: Mapping[str, str]) -> list[str]:
    lines = [f'<a id="claim-{position}"></a>**{position}. {claim.text}** ({claim.place}; the paper: {claim.paper}; '
             f"`dvc repro {claim.stage}`). Rule: {claim.check.rule}.", ""]  # fmt: skip
    for data, found in parts.items():
        numbers = ", ".join(f"{name} {number_text(n.value, n.error)}" for name, n in found.numbers.items())
        files = sorted({number.file for number in found.numbers.values()})
        links = ", ".join(f"[{file}]({folders[data]}/{file})" for file in files)
        lines += [f"- {data}: *{found.verdict}*: {found.reason}.", f"  {numbers} ({links})"]
    return [*lines, ""]


def number_text(value: float, error: float) -> str:
    """A number and its standard error (NaN: none), with the digits that the page shows."""
    digits = 2 if abs(value) >= 1 else 4
    shown = f"{value:.{digits}f}" if abs(value) >= 0.01 else f"{value:.2e}"
    if np.isnan(error):
        return shown
    return f"{shown} ± {error:.{digits}f}" if abs(value) >= 0.01 else f"{shown} ± {error:.0e}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def write_claims(results: Path, page: Path) -> list[str]:
    """Write the page of the published runs: every folder of ``results`` that has claims of its own.

    Args:
        results: folder of published runs, one a data source, as :mod:`pipeline.paper.publish` makes them.
        page: the Markdown file to write, in the folder that holds ``results``.
    Returns:
        The names of the runs.
    Raises:
        DataError: no run there, or one that lacks a table.
    """
    folders = sorted(
        (folder.parent for folder in results.glob("*/provenance.json")), key=lambda f: f.name, reverse=True
    )
    if not folders:
        raise DataError(f"{results}: no published run here; `artpaper publish {results}/NAME` makes one")
    runs = {SOURCES[folder.name].name if folder.name in SOURCES else folder.name: folder for folder in folders}
    commands = {
        data: json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["command"]
        for data, folder in runs.items()
    }
    places = {data: folder.relative_to(page.parent).as_posix() for data, folder in runs.items()}
    text = claims_markdown({data: Evidence(folder) for data, folder in runs.items()}, commands, places)
    save_text(text, page)
    return list(runs)
