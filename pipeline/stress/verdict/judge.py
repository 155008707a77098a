"""From the stress test's files to what they say, in one call: tables, leaderboard, checks, figures and the verdict."""

from pathlib import Path

from pipeline.base.parameters import Params
from pipeline.paper.style import save_figure, save_table, save_text
from pipeline.stress.verdict.checks import checks_markdown, checks_table
from pipeline.stress.verdict.figure import stress_figure, sweep_figure
from pipeline.stress.verdict.leaderboard import leaderboard, read_training, write_leaderboard
from pipeline.stress.verdict.predictions import read_stress
from pipeline.stress.verdict.statements import write_verdict
from pipeline.stress.verdict.tables import stress_table, sweep_table, write_stress
from pipeline.stress.verdict.verdict import read_tables


def judge(params: Params, folder: str | Path, out: str | Path) -> Path:
    """Write everything that ``verdict.ipynb`` shows.

    Args:
        params: all parameters; group ``verdict`` has the rules.
        folder: the stress test's, with ``predictions/`` and ``training.csv``.
        out: where the tables, ``stress.png``, ``sweeps.png`` and ``verdict.md`` go.
    Returns:
        The page with the verdicts.
    Raises:
        DataError: the stress test's files are missing, damaged, or not about the same videos.
        OSError: the folder cannot be written, or the disk is full.
    """
    folder, out = Path(folder), Path(out)
    stress = read_stress(folder, params.verdict.draws)
    write_stress(stress, out)
    table = stress_table(stress)
    epsilon, steps = (sweep_table(table, key) for key in ("epsilon", "steps"))
    write_leaderboard(leaderboard(table, read_training(folder / "training.csv")), out)
    checks = checks_table(folder, epsilon)
    save_table(checks, out / "checks.csv")
    save_text(checks_markdown(checks), out / "checks.md")
    save_figure(stress_figure(table), out / "stress")
    if len(epsilon) or len(steps):
        save_figure(sweep_figure(epsilon, steps), out / "sweeps")
    write_verdict(read_tables(out, folder / "training.csv"), params.verdict, out)
    return out / "verdict.md"
