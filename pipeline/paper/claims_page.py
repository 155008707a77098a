"""The claims as a page: a table to read first, then every claim with its numbers and the files they stand in."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.base.errors import DataError
from pipeline.base.parameters import parse
from pipeline.base.sources import SOURCES
from pipeline.paper import paper
from pipeline.paper.claims import CLAIMS, Claim, judgements
from pipeline.paper.evidence import Evidence, NotMeasured
from pipeline.paper.results import read_json, read_text
from pipeline.paper.rules import ClaimJudgement
from pipeline.paper.style import save_text
from pipeline.train.history import attention_share

RULES = """A verdict is computed, not written. A difference **holds** if its 95 % interval lies above 0 and it is at
least half the paper's; if at least a tenth of the paper's, it **holds in direction**. Otherwise it **does not hold**,
unless the paper's own difference lies in the interval too: then these data are too few to tell, and it
**cannot be tested here**, as on fewer than 100 test videos. Under attack, the paper's difference counts as a share of
what the attack takes from Non-ART, there and here, for no defence can win back more. The interval is Student's over
training seeds; one seed tells the direction at most. Claims without a number in the paper have a rule of their own,
given with the claim. GAP, PERR and Hit@1 are in percent, rho and attention weights are shares; ± is the standard error
of what stands before it: over training seeds, or over the videos where there is one seed."""
KINDS = {
    "headline": "What the paper stands on",
    "supporting": "What it rests this on",
    "incidental": "What it says beside",
}
PARTS = {
    "non_art": ("art", "adversarial training: ART over Non-ART"),
    "art": ("a_art", "the attention term: A-ART over ART"),
}


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


def claims_markdown(
    runs: Mapping[str, Evidence], commands: Mapping[str, str], folders: Mapping[str, str],
    weights: Mapping[str, str] | None = None,
) -> str:  # fmt: skip
    """The page; of each run, by the name of its data, its tables, what makes it again, and the folder to link to.

    ``weights``, if given, are in words A-ART's epsilon and beta in each run.
    """
    by_run = {data: judgements(evidence) for data, evidence in runs.items()}
    header = ["#", "claim", "where", "the paper", *(f"on {data}" for data in runs)]
    tables: dict[str, list[str]] = {kind: [] for kind in KINDS}
    details: list[str] = []
    for position, claim in enumerate(CLAIMS, start=1):
        own = {data: every[position - 1] for data, every in by_run.items()}
        verdicts = [f"**{judgement.verdict}**: {judgement.reason.partition(';')[0]}" for judgement in own.values()]
        row = _row([f"[{position}](#claim-{position})", claim.text, claim.place, claim.paper, *verdicts])
        tables[claim.kind].append(row)
        details += _details(position, claim, own, folders)
    lines = ["# The paper's claims, one by one", "", *_conclusion(runs, weights)]
    for kind, title in KINDS.items():
        lines += [f"## {title}", "", _row(header), _row(["---"] * len(header)), *tables[kind], ""]
    lines += ["## How they are judged", "", RULES]
    lines += ["", "To make the numbers of a run again:", ""]
    lines += [f"- {data}: `{command}`" for data, command in commands.items()]
    lines += ["", "## The numbers", "", *details, "## The paper's own slips", ""]
    lines += [f"- Table {table}: {slip}" for table in (1, 2, 3) for slip in paper.slips(table)]
    lines += [f"- {slip}" for slip in paper.other_slips()]
    return "\n".join(lines) + "\n"


def _conclusion(runs: Mapping[str, Evidence], weights: Mapping[str, str] | None) -> list[str]:
    """The two contributions under the paper's own attack, each in points of GAP."""
    header = ["GAP under the paper's attack, points", "the paper", *runs]
    lines = [_row(header), _row(["---"] * len(header))]
    for low, (high, words) in PARTS.items():
        printed = paper.row(1, "GAP", "adversarial")
        cells = [words, f"{getattr(printed, high) - getattr(printed, low):+.2f}"]
        for evidence in runs.values():
            try:
                gain = evidence.gain(1, "GAP", "adversarial", high, low)
                cells.append(f"{gain.value:+.2f} ± {gain.error:.2f}")
            except NotMeasured:
                cells.append("–")
        lines.append(_row(cells))
    after = "What stronger attacks and controls say stands in `docs/stress.md` and `results/trial.md`."
    if weights:
        own = "; ".join(f"{data} {text}" for data, text in weights.items())
        after = (
            f"ε of A-ART, in the unit of each one's features, and β: the paper 0.5, 0.001; {own}. In brackets the "
            "attention term over the rest of the loss, at the end of the training: where it is a fraction of a "
            "percent, a verdict on A-ART says what the paper's printed weight does on these data, and little of the "
            "term. "
            f"{after} In the trial both weights follow from rules on every set."
        )
    return [*lines, "", after, ""]


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
    used = {data: parse(read_text(folder / "params.yaml"), str(folder)) for data, folder in runs.items()}
    weights = {
        data: _weights(runs[data], params["models"]["a_art"])
        for data, params in used.items()
        if "a_art" in params["experiment"]["models"]
    }
    places = {data: folder.relative_to(page.parent).as_posix() for data, folder in runs.items()}
    evidence = {data: Evidence(folder) for data, folder in runs.items()}
    save_text(claims_markdown(evidence, commands, places, weights), page)
    return list(runs)


def _weights(folder: Path, a_art: Mapping[str, float]) -> str:
    shares = [attention_share(path, a_art["beta"]) for path in folder.glob("models/a_art/*/history.csv")]
    told = f" ({100 * np.mean(shares):.1f} %)" if shares else ""
    return f"{a_art['epsilon']:g}, {a_art['beta']:g}{told}"
