"""From the stress test's files to what they say: tables, leaderboard, checks, figures, and the page of the verdicts."""

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd

from pipeline.base.groups import Rules
from pipeline.base.parameters import Params
from pipeline.paper.style import markdown_table, save_figure, save_table, save_text
from pipeline.stress.verdict.checks import checks_markdown, checks_table
from pipeline.stress.verdict.evidence import StressEvidence, read_evidence
from pipeline.stress.verdict.figure import stress_figure, sweep_figure
from pipeline.stress.verdict.leaderboard import leaderboard, read_training, write_leaderboard
from pipeline.stress.verdict.predictions import data_note, read_stress
from pipeline.stress.verdict.statements import STATEMENTS, Verdict, verdicts
from pipeline.stress.verdict.tables import sweep_table, write_stress


def stress_verdict(params: Params, folder: str | Path, out: str | Path) -> Path:
    """Write to ``out`` all that ``verdict.ipynb`` shows of the stress test in ``folder``; the page of the verdicts."""
    folder, out = Path(folder), Path(out)
    table = write_stress(read_stress(folder, params.verdict.draws), out)
    epsilon, steps = (sweep_table(table, key) for key in ("epsilon", "steps"))
    write_leaderboard(leaderboard(table, read_training(folder / "training.csv")), out)
    checks = checks_table(folder, epsilon)
    save_table(checks, out / "checks.csv")
    save_text(checks_markdown(checks), out / "checks.md")
    save_figure(stress_figure(table), out / "stress")
    if len(epsilon) or len(steps):
        save_figure(sweep_figure(epsilon, steps), out / "sweeps")
    write_verdict(read_evidence(out, folder / "training.csv"), params.verdict, out)
    return out / "verdict.md"


def write_verdict(evidence: StressEvidence, rules: Rules, folder: str | Path) -> list[Verdict]:
    """Judge every statement, write ``verdict.csv`` and ``verdict.md``, and return what was found."""
    judged = verdicts(evidence, rules)
    save_table(verdict_table(judged), Path(folder) / "verdict.csv")
    save_text(verdict_markdown(evidence, rules), Path(folder) / "verdict.md")
    return judged


def verdict_table(judged: Sequence[Verdict]) -> pd.DataFrame:
    """Every number of the page: a row per statement of :data:`STATEMENTS` and number.

    ``file``, ``where`` (JSON: columns and their values) and ``column`` say where it stands: ``value`` is the mean of
    that column over those rows. A statement without numbers has one row with empty cells.
    """
    columns = ["name", "value", "low", "high", "p", "seeds", "videos", "file", "where", "column"]
    rows = []
    for place, (statement, verdict) in enumerate(zip(STATEMENTS, judged, strict=True), start=1):
        shared = (place, statement.text, verdict.verdict)
        for effect in verdict.numbers:
            where = json.dumps(dict(effect.where), sort_keys=True)
            rows.append((*shared, *(where if name == "where" else getattr(effect, name) for name in columns)))
        if not verdict.numbers:
            rows.append((*shared, *[None] * len(columns)))
    return pd.DataFrame(rows, columns=["statement", "text", "verdict", *columns])


def verdict_markdown(evidence: StressEvidence, rules: Rules) -> str:
    """The page: the verdicts to read first, then the evidence of each, the rules, and what another margin changes."""
    judged = verdicts(evidence, rules)
    lines, details = [], []
    for place, (statement, verdict) in enumerate(zip(STATEMENTS, judged, strict=True), start=1):
        lines.append([str(place), statement.text, verdict.verdict])
        head = f"**{place}. {statement.text}**: *{verdict.verdict}*."
        details += [f"{head} {verdict.reason}. Rule: {statement.rule}.", ""]
    values = ", ".join(
        f"`{field.name}` {getattr(rules, field.name):g}" for field in fields(rules) if field.name != "draws"
    )
    text = [
        "# Is A-ART robust?",
        "",
        f"{data_note(evidence.board)} Verdicts are computed by rule from the stress test's tables; differences of GAP "
        "are in points of percent, brackets are 95 % intervals over training seeds and videos, p is Holm's over the "
        "family of comparisons. With one training seed nothing is told of training, so nothing that needs it is "
        "decided. Of every number [verdict.csv](verdict.csv) names the file, rows and column; the predictions that "
        "these tables come from lie in `stress/predictions` of the run, and are not published.",
        "",
        markdown_table(["#", "statement", "verdict"], lines, 3),
        "## The evidence",
        "",
        *details,
        "## The rules",
        "",
        f"Parameters: {values}. A difference is **above** the margin ({rules.margin:g} points; 0 for the loss) if it "
        f"is positive with p at most {rules.alpha:g}; it is not if its whole interval lies below the margin. One is "
        f"**no lower** if its whole interval lies above minus the margin; it is lower if p is at most {rules.alpha:g} "
        "otherwise. All else cannot be told.",
        "",
        *(_with_margin(evidence, rules, judged, factor * rules.margin) for factor in (0.5, 2)),
    ]
    return "\n".join(text) + "\n"


def _with_margin(evidence: StressEvidence, rules: Rules, judged: Sequence[Verdict], margin: float) -> str:
    others = verdicts(evidence, replace(rules, margin=min(margin, 100.0)))
    changed = [
        f"statement {place} {other.verdict}"
        for place, (verdict, other) in enumerate(zip(judged, others, strict=True), start=1)
        if verdict.verdict != other.verdict
    ]
    return f"- With a margin of {margin:g}: {', '.join(changed) or 'the same verdicts'}."
