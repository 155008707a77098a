"""The claims as a page: a table to read first, then every claim with its numbers and the files they stand in."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.base.errors import DataError
from pipeline.base.sources import SOURCES
from pipeline.paper import paper
from pipeline.paper.claims import CLAIMS, Claim, ClaimJudgement, judgements
from pipeline.paper.evidence import Evidence
from pipeline.paper.results import read_json
from pipeline.paper.style import save_text

RULES = """A verdict is computed, not written. A difference **holds** if it exceeds twice its standard error and is at
least half the paper's; smaller than half, it **holds in direction**. Within twice its error it **does not hold**,
unless the paper's own difference is within that too: then these data are too few to tell, and it
**cannot be tested here**, as on fewer than 100 test videos. Claims without a number in the paper have a rule of their
own, given with the claim. GAP, PERR and Hit@1 are in percent, rho and attention weights are shares; ± is the standard
error of what stands before it: over training seeds, or over the videos where there is one seed."""


def claims_table(runs: Mapping[str, Evidence]) -> pd.DataFrame:
    """Every number of the page of these runs (name of the data -> tables): a row per claim, run and number.

    ``file``, ``where`` (JSON: columns and their values) and ``column`` say where it stands: ``value`` is the mean of
    that column over those rows.
    """
    rows = []
    for data, evidence in runs.items():
        for position, judgement in enumerate(judgements(evidence), start=1):
            for name, number in judgement.numbers.items():
                rows.append(
                    (position, data, name, number.value, number.error, judgement.verdict, number.file,
                     json.dumps(number.where, sort_keys=True), number.column)
                )  # fmt: skip
    columns = ["claim", "data", "name", "value", "error", "verdict", "file", "where", "column"]
    return pd.DataFrame(rows, columns=columns)


def claims_markdown(runs: Mapping[str, Evidence], commands: Mapping[str, str], folders: Mapping[str, str]) -> str:
    """The page; of each run, by the name of its data, its tables, what makes it again, and the folder to link to."""
    by_run = {data: judgements(evidence) for data, evidence in runs.items()}
    header = ["#", "claim", "where", "the paper", *(f"on {data}" for data in runs)]
    lines = ["# The paper's claims, one by one", "", RULES, "", _row(header), _row(["---"] * len(header))]
    details: list[str] = []
    for position, claim in enumerate(CLAIMS, start=1):
        own = {data: every[position - 1] for data, every in by_run.items()}
        verdicts = [f"**{judgement.verdict}**" for judgement in own.values()]
        lines.append(_row([f"[{position}](#claim-{position})", claim.text, claim.place, claim.paper, *verdicts]))
        details += _details(position, claim, own, folders)
    lines += ["", "To make the numbers of a run again:", ""]
    lines += [f"- {data}: `{command}`" for data, command in commands.items()]
    lines += ["", "## The numbers", "", *details, "## The paper's own slips", ""]
    lines += [f"- Table {table}: {slip}" for table in (1, 2, 3) for slip in paper.slips(table)]
    lines += [f"- {slip}" for slip in paper.other_slips()]
    return "\n".join(lines) + "\n"


def _details(
    position: int, claim: Claim, by_run: Mapping[str, ClaimJudgement], folders: Mapping[str, str]
) -> list[str]:
    lines = [f'<a id="claim-{position}"></a>**{position}. {claim.text}** ({claim.place}; the paper: {claim.paper}; '
             f"`dvc repro {claim.stage}`). Rule: {claim.rule.text}.", ""]  # fmt: skip
    for data, judgement in by_run.items():
        numbers = ", ".join(f"{name} {_number(n.value, n.error)}" for name, n in judgement.numbers.items())
        files = sorted({number.file for number in judgement.numbers.values()})
        links = ", ".join(f"[{file}]({folders[data]}/{file})" for file in files)
        lines += [f"- {data}: *{judgement.verdict}*: {judgement.reason}.", f"  {numbers} ({links})"]
    return [*lines, ""]


def _number(value: float, error: float) -> str:
    digits = 2 if abs(value) >= 1 else 4
    text = f"{value:.{digits}f}" if abs(value) >= 0.01 else f"{value:.2e}"
    if np.isnan(error):
        return text
    return f"{text} ± {error:.{digits}f}" if abs(value) >= 0.01 else f"{text} ± {error:.0e}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def write_claims(results: Path, page: Path) -> list[str]:
    """Write the page of the runs that :mod:`pipeline.paper.publish` made below ``results``, and return their names."""
    folders = sorted(
        (folder.parent for folder in results.glob("*/provenance.json")), key=lambda f: f.name, reverse=True
    )
    if not folders:
        raise DataError(f"{results}: no published run here; `artpaper publish {results}/NAME` makes one")
    runs = {SOURCES[folder.name].name if folder.name in SOURCES else folder.name: folder for folder in folders}
    commands = {data: read_json(folder / "provenance.json", "command")["command"] for data, folder in runs.items()}
    places = {data: folder.relative_to(page.parent).as_posix() for data, folder in runs.items()}
    save_text(claims_markdown({data: Evidence(folder) for data, folder in runs.items()}, commands, places), page)
    return list(runs)
