"""What ``notebooks/report.ipynb`` shows of a run, from its files; what is missing is named with what makes it."""

import base64
import html
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from IPython.display import HTML, Markdown
from nbconvert.filters import markdown2html
from ruamel.yaml import YAML

from artpaper import __version__
from pipeline.base.errors import DataError
from pipeline.base.git import NO_COMMIT, dvc, revision, tell_dvc
from pipeline.base.parameters import Params, as_dict, flat, load_params
from pipeline.base.project import project_root
from pipeline.base.sources import SOURCES
from pipeline.paper.claims import DIRECTION, FAILS, HOLDS, OPEN, judgements
from pipeline.paper.claims_page import claims_markdown
from pipeline.paper.evidence import Evidence
from pipeline.paper.paper import GAIN, METRICS, MODELS, SPLITS
from pipeline.paper.publish import environment
from pipeline.paper.results import executed_notebooks, read_json, read_table, read_text
from pipeline.paper.style import DATA
from pipeline.report.page import fragment

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
STRESS = "stress/dvc.yaml"
STRESS_SEEN = (
    "Left, clean GAP against GAP under the worst of all attacks, a mark for each model with its intervals; right, GAP "
    "along the strength of the attack, a line for each of the main models."
)
TRAINED = {"name": "model", "seed": "seed", "steps": "steps", "stopped": "stopped", "best_step": "best step",
           "best_validation_gap": "its validation GAP (%)", "zero_gradients": "zero gradients"}  # fmt: skip
SUMMARY = ("provenance", "seed", "label_space", "label_space_note", "classes", "classes_without_train_video",
           "modalities", "partitions", "splits")  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A folder of results, the project's after ``dvc repro`` or one below ``results/``, and their parameters."""

    params: Params
    root: Path

    @property
    def published(self) -> bool:
        """``artpaper publish`` has kept it, with what made it."""
        return (self.root / "provenance.json").is_file()

    @cached_property
    def outdated(self) -> list[str]:
        """As :func:`outdated`, asked once, for DVC takes two seconds."""
        return outdated(self.root)


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


def outdated(folder: Path) -> list[str]:
    """The stages whose results are older than the parameters or the code, by ``dvc status``; none without DVC.

    Those of the stress test, where it has run, are named ``stress/dvc.yaml:<stage>``.
    """
    if not (folder / "dvc.yaml").is_file() or not (folder / ".dvc").is_dir():
        return []
    tell_dvc(folder)
    # while DVC runs the report's own stage, its output is locked, so the others are asked for by name
    named = [stage for stage in _stages(folder / "dvc.yaml") if stage != "report"]
    if (folder / "verdict" / "verdict.md").is_file():
        named += [f"{STRESS}:{stage}" for stage in _stages(folder / STRESS)]
    return list(json.loads(dvc(folder, "status", "--json", *named)))


def _stages(pipeline: Path) -> list[str]:
    return list(YAML(typ="safe").load(pipeline)["stages"])


def alarm(stages: list[str], remedy: str) -> str:
    """That results are older than what they were made from, if any are."""
    if not stages:
        return ""
    return (
        "<p class='alarm'><strong>Outdated.</strong> Parameters, code or data have changed since these results were "
        f"made ({', '.join(stages)}). {remedy}.</p>"
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
    seeds = ", ".join(map(str, run.params.experiment.seeds))
    caption = (
        "Global average precision (GAP) in percent, clean and under the one-step attack; "
        f"{int(gap['n'].iloc[0]):,} test videos, training seed{'s' * (len(run.params.experiment.seeds) > 1)} {seeds}"
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
    text = claims_markdown({data: evidence}, {data: command(run)}, {data: "."}).partition("\n")[2]
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


def picture(png: Path, seen: str) -> str:
    """A picture as HTML, with what is seen in it for who cannot; empty if it is not there."""
    if not png.is_file():
        return ""
    data = base64.b64encode(png.read_bytes()).decode()
    return f"<figure><img alt='{html.escape(seen)}' src='data:image/png;base64,{data}'></figure>"


def training(run: Run) -> HTML:
    """The training curves, and where each model of the experiment stopped."""
    experiment = run.params.experiment
    folders = [run.root / "models" / name / f"seed{seed}" for name in experiment.models for seed in experiment.seeds]
    places = [folder / "model.json" for folder in folders]
    notes = pd.DataFrame([read_json(place, *TRAINED) for place in places if place.is_file()])
    if notes.empty:
        return HTML(figure(run.root / "figures", "curves") + missing("The models", "train"))
    notes["name"] = notes["name"].map(lambda name: MODELS.get(name, name))
    notes["best_validation_gap"] = (100 * notes["best_validation_gap"]).map("{:.2f}".format)
    stops = notes[list(TRAINED)].rename(columns=TRAINED)
    return HTML(figure(run.root / "figures", "curves") + table(stops, "Where each model stopped", index=False))


def parameters(run: Run, path: Path) -> HTML:
    """The parameters in force beside those of the paper's profile, and their file, ``path``, as it is."""
    rows = compared_parameters(run, path)
    differ = rows[rows["comparison"] == "differs"].drop(columns="comparison")
    words = (
        f"{len(rows)} parameters are in force; {len(differ)} of them differ from the profile with the paper's values "
        "(<code>profiles/paper.yaml</code>)."
    )
    if "not read" in set(rows["comparison"]):
        words += " Those that only the synthetic data use are not read here."
    few = table(differ, "What differs from the paper's profile", numbers=False) if len(differ) else ""
    every = table(rows, "Every parameter in force", numbers=False)
    return HTML(
        f"<p>{words}</p>{few}<details><summary>All {len(rows)} parameters</summary>{every}</details><details><summary>"
        f"The parameter file as it is, with its comments</summary><pre>{html.escape(read_text(path))}</pre></details>"
    )


def compared_parameters(run: Run, path: Path) -> pd.DataFrame:
    """Every parameter that a file names: its value, the paper profile's, and whether they differ or none is read."""
    ours = flat(as_dict(run.params))
    theirs = flat(as_dict(load_params(project_root() / "profiles" / "paper.yaml")))
    named = flat(YAML(typ="safe", pure=True).load(read_text(path)))
    rows = {}
    for name in (name for name in ours if "like" in named or name in named):
        here, there = _shown(ours[name]), _shown(theirs[name]) if name in theirs else "–"
        unread = name.partition(".")[0] in {*SOURCES} - {run.params.data.source}  # that source alone reads such a group
        rows[name] = (here, there, "not read" if unread else "the same" if here == there else "differs")
    columns = ["in force", "the paper's profile", "comparison"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_shown, value))
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def data(run: Run) -> HTML:
    """Where the data came from, and how many videos each split has."""
    paths = [path for path in (run.root / "frames" / "summary.json", run.root / "summary.json") if path.is_file()]
    if not paths:
        return HTML(missing("The frames", "prepare"))
    summary = read_json(paths[0], *SUMMARY)
    source = {name.replace("_", " "): value for name, value in summary["provenance"].items() if name != "source"}
    if "path" in source:
        source["path"] = source["path"].rstrip("/").split("/")[-1]
    facts = {
        "source": DATA[run.params.data.source],
        **source,
        "classes": f"{summary['classes']}, label space {summary['label_space']}. {summary['label_space_note']} "
        f"{summary['classes_without_train_video']} without a training video.",
        "numbers a frame": ", ".join(f"{name} {width}" for name, width in summary["modalities"].items()),
    }
    splits = pd.DataFrame(summary["splits"]).T
    splits["frames a video"] = [f"{row.frames / row.videos:.1f}" if row.videos else "–" for row in splits.itertuples()]
    for column in ("videos", "frames"):
        splits[column] = splits[column].map("{:,}".format)
    hashed = f"; a hash of the video ids with seed {summary['seed']} divides the partition validate into two"
    caption = "Splits" + (", as the data name them" if "test" in summary["partitions"] else hashed)
    read = " ".join(
        f"Of the partition {name} {partition['videos_read']:,} videos were read and "
        f"{partition['left_out_without_class']:,} left out for having no class of the label space."
        for name, partition in summary["partitions"].items()
    )
    return HTML(f"{described(facts)}{table(splits, caption)}<p>{html.escape(read)}</p>{_left_out(summary)}")


def _left_out(summary: dict[str, Any]) -> str:
    if "damaged" not in summary:
        return ""
    items = [f"{shard['partition']}: {shard['shard']}: {shard['reason']}" for shard in summary["damaged"]]
    count = f"{len(items)} damaged {'shard was' if len(items) == 1 else 'shards were'} left out"
    listed = "".join(f"<li>{html.escape(item)}</li>" for item in items)
    return f"<div class='alarm'><strong>{count}</strong> (<code>data.damaged</code> is skip):<ul>{listed}</ul></div>"


def executed(run: Run) -> Iterator[tuple[str, Path, Any]]:
    """Stage, path and notebook (None if it is not there) of all that were executed, in the order of the pipeline."""
    if run.published:
        kept = [(path, _read(path, path.stem)) for path in (run.root / "notebooks").rglob("*.ipynb")]
        for path, notebook in sorted(
            kept, key=lambda one: one[1].metadata.get("papermill", {}).get("start_time") or ""
        ):
            yield path.relative_to(run.root / "notebooks").with_suffix("").as_posix(), path, notebook
    elif (run.root / "dvc.yaml").is_file():
        for stage, path in executed_notebooks(run.root, run.params).items():
            yield stage, path, _read(path, stage) if path.is_file() else None


def _read(path: Path, stage: str) -> Any:
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, nbformat.ValidationError, nbformat.reader.NotJSONError) as error:
        raise DataError(f"{path}: not a valid notebook: {error}; `dvc repro -fs {stage}` makes it") from None


def times(run: Run) -> HTML:
    """When each stage began and how long it took, out of its executed notebook."""
    rows, known = {}, []
    for stage, _, notebook in executed(run):
        about = notebook.metadata.get("papermill", {}) if notebook else {}
        began = moment(datetime.fromisoformat(about["start_time"])) if about.get("start_time") else "–"
        if about.get("duration") is not None and not about.get("exception"):
            known.append(about["duration"])
            rows[stage] = (began, duration(about["duration"]), "complete")
        else:
            rows[stage] = (began, "–", "stopped before its end" if notebook else "not here")
    if run.published and not rows:
        return HTML("<p>The executed notebooks of this published run, which hold its times, are not kept with it.</p>")
    if not rows:
        return HTML("<p>No pipeline lies beside these results, so there are no times.</p>")
    rows["sum"] = ("", duration(sum(known)), f"{len(known)} of {len(rows)} stages")
    stages = pd.DataFrame.from_dict(rows, orient="index", columns=["began", "took", "notebook"])
    return HTML(table(stages, "Stages in the pipeline's order", numbers=False))


def notebooks(run: Run) -> HTML:
    """Every executed notebook of the run, to unfold; of a published one also the files."""
    parts, absent = [], []
    for stage, path, notebook in executed(run):
        place = path.relative_to(run.root).as_posix()
        if notebook is None:
            absent.append(f"<code>{place}</code>")
            continue
        file = f"<p><a class='file' href='{place}'>{place}</a></p>" if run.published else ""
        shown = f"<summary>{stage}</summary>{file}{fragment(notebook, stage)}"
        parts.append(f"<details class='notebook'>{shown}</details>")
    if absent:
        parts.append(
            f"<p class='missing'><strong>Not here:</strong> {', '.join(absent)}. <code>dvc repro</code> makes them.</p>"
        )
    return HTML("".join(parts) or "<p>This published run keeps its results, not its notebooks.</p>")


def versions(run: Run) -> HTML:
    """Commit, machine, versions: of the published run, or of the machine that writes this."""
    made = provenance(run)
    commit = made["commit"]
    if made["changed"]:
        commit += f", with changes that are not committed: {', '.join(made['changed'])}"
    machine = made["machine"]
    facts = {
        "commit": commit,
        "machine": f"{machine['processor']}, {machine['cores']} cores, {machine['system']}",
        "Python": made["python"],
        **made["packages"],
        **({"note": made["note"]} if "note" in made else {}),
    }
    return HTML(described(facts))


def provenance(run: Run) -> dict[str, Any]:
    """What a published run's ``provenance.json`` says, or the same of here and now; and files not as committed."""
    if run.published:
        keys = ("commit", "command", "machine", "python", "packages")
        return {**read_json(run.root / "provenance.json", *keys), "changed": []}
    commit, changed = revision(project_root())
    return {**environment(), "commit": commit, "changed": changed}


def command(run: Run) -> str:
    """What makes the results of a run."""
    return provenance(run)["command"] if run.published else "dvc repro"


def again(run: Run) -> HTML:
    """The commands that make the run anew."""
    commit = provenance(run)["commit"]
    lines = ["make setup", "source .venv/bin/activate"]
    if run.published:
        lines = [f"git checkout {commit}"] * (commit != NO_COMMIT) + [*lines, command(run)]
    else:
        name = profile(run) or "mine.yaml   # a file with the parameters that are shown above"
        lines += [f"artpaper use {name}", "dvc repro"]
    return HTML(f"<pre>{html.escape(chr(10).join(lines))}</pre>")


def profile(run: Run) -> str:
    """What ``artpaper use`` needs to write these parameters; empty if they are no profile's."""
    ours = run.params
    for path in sorted((project_root() / "profiles").glob("*.yaml")):
        theirs = load_params(path)
        if theirs.data.source != ours.data.source:
            continue
        here = replace(theirs.data, path=ours.data.path, vocabulary=ours.data.vocabulary)  # wherever the data lie
        if replace(theirs, data=here) == ours:
            vocabulary = " --vocabulary FILE" * bool(ours.data.vocabulary)
            place = SOURCES[ours.data.source].path
            return path.stem + f" --path {place}" * bool(place) + vocabulary
    return ""


def missing(what: str, stage: str, makes: str = "makes it") -> str:
    """That something was not made, and what makes it."""
    return (
        f"<p class='missing'><strong>{what}: not made in this run.</strong> <code>dvc repro {stage}</code> {makes}.</p>"
    )


def table(frame: pd.DataFrame, caption: str, *, index: bool = True, numbers: bool = True) -> str:
    """A table as HTML with a caption, four significant digits, a dash where a value is missing."""
    text = frame.to_html(
        index=index, na_rep="–", float_format="{:.4g}".format, border=0, index_names=False, classes="numbers" * numbers
    )
    return text.replace("<thead>", f"<caption>{html.escape(caption)}</caption><thead>", 1)


def described(facts: Mapping[str, Any]) -> str:
    """Names and values as an HTML list."""
    items = (f"<dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd>" for name, value in facts.items())
    return f"<dl>{''.join(items)}</dl>"


def duration(seconds: float) -> str:
    """Seconds as ``1 h 02 min``, ``3 min 04 s`` or ``5.6 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def moment(time: datetime) -> str:
    """A time as ``2026-01-31 12:00 UTC``."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
