"""The results of a run, as ``notebooks/report.ipynb`` shows them; what is missing is named with what makes it."""

import html
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from IPython.display import HTML, Markdown
from nbconvert.filters import markdown2html

from artpaper import __version__
from pipeline.base.errors import DataError
from pipeline.base.sources import SOURCES
from pipeline.paper.claims import judgements
from pipeline.paper.claims_page import claims_markdown
from pipeline.paper.evidence import Evidence
from pipeline.paper.paper import GAIN, METRICS, SPLITS
from pipeline.paper.results import read_json, read_table, read_text
from pipeline.paper.rules import DIRECTION, FAILS, HOLDS, OPEN
from pipeline.paper.style import DATA, model_title, seeds_text
from pipeline.report.parts import STRESS, Run, alarm, missing, moment, picture, table

CELLS = ("group", "metric", "split", "column", "ours", "paper", "n", "seeds")
FIGURES = {  # name: title, stage, how to read it, what is seen
    "figure1": (
        "Figure 1: attention maps of one video", "attention",
        "The weight that each frame (row) gives to each frame (column), heads averaged. The paper shows that ART's "
        "maps change under attack and A-ART's do not.",
        "Heat maps of attention weights, a row for each model: of the video and of its adversary, and their "
        "difference, for each modality. A vertical stripe is a frame that all frames attend to."),
    "figure2": (
        "Figure 2: attention profiles of the same video", "attention",
        "The attention that each frame receives, the mean over a map's rows. The paper shows an A-ART profile that is "
        "flatter by an order of magnitude and the same under attack.",
        "Line plots of the attention that each frame receives, clean and adversarial, for each model and modality."),
    "attention": (
        "Attention over the whole test set (section 3.2.2)", "attention",
        "The paper gives a change of 4e-5 for ART and 3e-8 for A-ART. Such a number needs two yardsticks: how far "
        "apart the maps of unrelated videos are, and how far a map is from uniform, where no change is left to make.",
        "Box plots over the test videos of the mean squared change of the maps, beside the distance between unrelated "
        "videos and to the uniform map; below, the entropy of the maps and their largest weight."),
    "figure3": (
        "Figure 3: epsilon, alpha and beta", "hyperparameters",
        "Validation GAP, one value changed at a time. The upper row is the paper's quantity, the lower row GAP under "
        "the one-step attack. The paper's curves peak at epsilon 0.5 and alpha 1.",
        "Line plots of validation GAP, clean and attacked, over epsilon, alpha and beta, a line for each model."),
    "figure4": (
        "Figure 4: the smallest perturbation that fools a model", "robustness",
        "DeepFool's perturbation over the norm of the video, for four meanings of fooled; the first is the paper's. "
        "The paper finds A-ART hardest to fool.",
        "Bars of the mean minimal perturbation of each model, and its distribution below, for each meaning of fooled."),
    "epsilon": (
        "What epsilon means", "epsilon",
        "The paper's 0.5 has no unit. Each reading is tried on Non-ART alone and compared with what the paper's attack "
        "took from its Non-ART.",
        "Bars of the share of GAP, PERR and Hit@1 that Non-ART loses under each reading of epsilon."),
    "curves": (
        "The training curves", "curves",
        "A line for each model and seed: GAP on the clean validation set, cross-entropy on the clean training videos, "
        "and the loss that is minimised, a sum of different terms for each model: compare its shape, not its height.",
        "Line plots over training steps, a line for each model and seed: validation GAP, cross-entropy, and loss."),
}  # fmt: skip
CLAIM = "A-ART is more robust than ART under the ensemble of attacks"  # what the stress test's statements come to
STRESS_SEEN = (
    "Left, clean GAP against GAP under the worst of all attacks, a mark for each model with its intervals; right, GAP "
    "along the strength of the attack, a line for each of the main models."
)
TRAINED = {"name": "model", "seed": "seed", "steps": "steps", "stopped": "stopped", "best_step": "best step",
           "best_validation_gap": "its validation GAP (%)", "zero_gradients": "zero gradients"}  # fmt: skip


def headline(run: Run) -> HTML:
    """On what data the paper was run again, by what, and whether the results are those of the code and parameters."""
    source = run.params.data.source
    old = [stage for stage in run.outdated if not stage.startswith(STRESS)]
    return HTML(
        f"<p>Run again on <strong>{DATA[source]}</strong> by <code>artpaper</code> {__version__}. "
        f"Written {moment(datetime.now(UTC))}.</p>"
        f"{alarm(old, '<code>make report</code> brings results and report up to date')}"
        f"<p class='notice'><strong>{SOURCES[source].caption}</strong></p>"
    )


def glance(run: Run) -> HTML:
    """GAP of each model, clean and attacked, here and in the paper."""
    path = run.root / "tables" / "table1.csv"
    if not path.is_file():
        return HTML(missing("Table 1", "tables"))
    cells = table_cells(path)
    gap = cells[(cells["metric"] == "GAP") & (cells["column"] != GAIN)].dropna(subset="ours")
    clean, attacked = (gap[gap["split"] == split].set_index("column") for split in SPLITS)
    parts = {}
    for column, name in {"ours": "this run", "paper": "the paper, YouTube-8M"}.items():
        scores = {"clean": clean[column], "attacked": attacked[column], "change": attacked[column] - clean[column]}
        parts[name] = pd.DataFrame(scores)
        for what in scores:
            text = "{:+.2f}" if what == "change" else "{:.2f}"
            parts[name][what] = parts[name][what].map(text.format, na_action="ignore")
    caption = (
        "Global average precision (GAP) in percent, clean and under the one-step attack; "
        f"{int(gap['n'].iloc[0]):,} test videos, {seeds_text(run.params.experiment.seeds)}"
    )
    return HTML(table(pd.concat(parts, axis=1), caption))


def stress(run: Run) -> Markdown:
    """What the stress test found: whether the claim survives it, its figure, its statements, the evidence to unfold."""
    found, drawn = run.root / "verdict", run.root / "figures"
    then = "<code>dvc repro -fs report</code> shows it here"
    if run.published:
        found = drawn = run.root / "stress"
        then = "<code>artpaper publish --stress</code> keeps it with this run"
    if not (found / "verdict.md").is_file():
        return Markdown(missing("The stress test", STRESS, f"takes hours; {then}"))
    statements, heading, evidence = read_text(found / "verdict.md").partition("\n## The evidence\n")
    told = re.search(rf"^\*\*\d+\. {re.escape(CLAIM)}\*\*: \*(.+?)\*\. (.+?)\. Rule: ", evidence, re.M)
    old = [stage for stage in run.outdated if stage.startswith(STRESS)]
    parts = [
        alarm(old, f"<code>dvc repro {STRESS}</code> brings them up to date, then {then}"),
        f"<p class='notice'><strong>{CLAIM}: {told[1]}.</strong> {html.escape(told[2])}.</p>" if told else "",
        picture(drawn / "stress.png", STRESS_SEEN) or missing("The figure of the stress test", STRESS),
        statements.partition("\n")[2],  # without its title
        "<details><summary>The evidence of each, and the rules</summary>",
        f"#{heading.strip()}\n{evidence.replace(chr(10) + '## ', chr(10) + '### ')}",  # below their section's heading
        "</details>",
    ]
    if (found / "leaderboard.md").is_file():
        summary = "<details><summary>Every model: claimed beside measured</summary>"
        parts += [summary, read_text(found / "leaderboard.md"), "</details>"]
    return Markdown("\n\n".join(filter(None, parts)))


def table_cells(path: Path) -> pd.DataFrame:
    """The cells of one of Tables 1-3, one a row; refused if it does not hold every cell once."""
    cells = read_table(path, *CELLS)
    names = cells[["metric", "split", "column"]]
    whole = len(METRICS) * len(SPLITS) * cells["column"].nunique()
    if not len(cells) == len(names.drop_duplicates()) == whole or cells[["n", "seeds"]].isna().to_numpy().any():
        raise DataError(f"{path}: cells are missing or there twice; make it anew with `dvc repro`")
    return cells


def claims(run: Run) -> Markdown:
    """What the paper's two contributions gain here, then every claim with its verdict, its numbers and their rule."""
    evidence, data = Evidence(run.root), DATA[run.params.data.source]
    try:
        count = Counter(judgement.verdict for judgement in judgements(evidence))
    except DataError as error:
        reason = html.escape(str(error).replace(f"{run.root}/", ""))
        return Markdown(f"<p class='missing'><strong>The claims cannot be judged:</strong> {reason}.</p>")
    verdicts = "".join(f"<li><b>{count[verdict]}</b> {verdict}</li>" for verdict in (HOLDS, DIRECTION, FAILS, OPEN))
    text = claims_markdown({data: evidence}, {data: run.command}, {data: "."}).partition("\n")[2]
    text = re.sub(r" nan\b", " –", text.replace("\n## ", "\n### "))  # below the heading of its section
    first, _, rest = text.partition("\n### ")
    return Markdown(f"{first}\n<ul class='counts'>{verdicts}</ul>\n\n### {rest}")


def tables(run: Run) -> Markdown:
    """Tables 1-3 as they were written, with their captions and notes."""
    paths = sorted((run.root / "tables").glob("table*.csv"))
    parts = [_printed(path) for path in paths]
    names = {path.stem for path in paths}
    parts += [missing(f"Table {number}", "tables") for number in (1, 2, 3) if f"table{number}" not in names]
    return Markdown("\n\n".join(parts))


def _printed(path: Path) -> str:
    cells = table_cells(path)
    group = "the whole test set" if cells["group"].iloc[0] == "all" else html.escape(cells["group"].iloc[0])
    alone = ", models trained on it alone" if path.stem.endswith("_retrained") else ""
    return f"### Table {path.stem[5]}: {group}{alone}\n\n{read_text(path.with_suffix('.md'))}"


def figures(run: Run) -> HTML:
    """The paper's figures and those beside it, with the numbers behind them."""
    return HTML("".join(figure(run.root / "figures", name) for name in FIGURES if name != "curves"))


def figure(folder: Path, name: str) -> str:
    """One figure as HTML: title, how to read it, the picture, and its numbers to unfold."""
    title, stage, caption, seen = FIGURES[name]
    heading = f"<h3>{title}</h3>"
    png, csv, text = (folder / f"{name}.{kind}" for kind in ("png", "csv", "md"))
    if not png.is_file() or (name != "figure1" and not csv.is_file()):
        return heading + missing(title, stage)
    numbers = ""
    if text.is_file():
        numbers = markdown2html(read_text(text))
    elif csv.is_file() and name != "curves":  # which has thousands of points
        numbers = table(read_table(csv), f"Numbers of {title}", index=False)
    more = f"<details><summary>The numbers behind it</summary>{numbers}</details>" if numbers else ""
    return f"{heading}<p>{caption}</p>{picture(png, seen)}{more}"


def training(run: Run) -> HTML:
    """The training curves, and where each model of the experiment stopped."""
    experiment = run.params.experiment
    folders = [run.root / "models" / name / f"seed{seed}" for name in experiment.models for seed in experiment.seeds]
    places = [folder / "model.json" for folder in folders]
    notes = pd.DataFrame([read_json(place, *TRAINED) for place in places if place.is_file()])
    if notes.empty:
        return HTML(figure(run.root / "figures", "curves") + missing("The models", "train"))
    notes["name"] = notes["name"].map(model_title)
    notes["best_validation_gap"] = (100 * notes["best_validation_gap"]).map("{:.2f}".format)
    stops = notes[list(TRAINED)].rename(columns=TRAINED)
    return HTML(figure(run.root / "figures", "curves") + table(stops, "Where each model stopped", index=False))
