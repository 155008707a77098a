"""What stands behind a run's results: its parameters, its data, its executed notebooks and times, and what made it."""

import html
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from IPython.display import HTML
from ruamel.yaml import YAML

from pipeline.base.errors import DataError
from pipeline.base.git import NO_COMMIT
from pipeline.base.parameters import as_dict, flat, load_params
from pipeline.base.project import project_root
from pipeline.base.sources import SOURCES
from pipeline.paper.results import executed_notebooks, read_json, read_text
from pipeline.paper.style import DATA
from pipeline.report.page import fragment
from pipeline.report.parts import Run, described, duration, missing, moment, table

SUMMARY = ("provenance", "seed", "label_space", "label_space_note", "classes", "classes_without_train_video",
           "modalities", "partitions", "splits")  # fmt: skip


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
    made = run.provenance
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


def again(run: Run) -> HTML:
    """The commands that make the run anew."""
    commit = run.provenance["commit"]
    lines = ["make setup", "source .venv/bin/activate"]
    if run.published:
        lines = [f"git checkout {commit}"] * (commit != NO_COMMIT) + [*lines, run.command]
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
