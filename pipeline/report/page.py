"""The report: one HTML file that says what a run found, from what, with which parameters, how, and in what time.

All of it is inside the file: pictures, style, no script; it is read without a network. What a run lacks is named there
with the command that makes it.
"""

import importlib.resources
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from ruamel.yaml import YAML

from artpaper import __version__
from pipeline.base.atomic import atomic_file
from pipeline.base.errors import ArtpaperError, ConfigError
from pipeline.base.git import NO_COMMIT, revision, tell_dvc
from pipeline.base.parameters import Params, load_params
from pipeline.base.sources import SOURCES
from pipeline.paper import paper
from pipeline.paper.publish import environment
from pipeline.paper.results import read_json, read_text
from pipeline.paper.style import DATA
from pipeline.report.executed import executions
from pipeline.report.page_figures import drawings, training
from pipeline.report.page_tables import glance, judged_claims, parameters, printed_tables, verdict_counts

STAGE = "report"  # the one that writes the page
PROVENANCE = ("commit", "command", "machine", "python", "packages")
SUMMARY = ("provenance", "seed", "label_space", "label_space_note", "classes", "classes_without_train_video",
           "modalities", "partitions", "splits")  # fmt: skip
Text = TypeVar("Text", bound=str)


def write_page(folder: Path, target: Path, project: Path) -> Path:
    """Write the report of a run.

    Args:
        folder: the project's folder after ``dvc repro``, or one below ``results/``.
        target: the HTML file.
        project: the project's folder, for the paper's profile and the commit.
    Returns:
        The file.
    Raises:
        ConfigError: the folder has no ``params.yaml``, or one that does not fit.
        DataError: a file of the run is damaged.
        ArtpaperError: DVC cannot say what is outdated.
    """
    text = page(folder, project)
    with atomic_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def page(folder: Path, project: Path) -> str:
    """The report as HTML; arguments and errors are those of :func:`write_page`.

    Raises:
        ConfigError: as :func:`write_page`.
        DataError: as :func:`write_page`.
        ArtpaperError: as :func:`write_page`.
    """
    if not (folder / "params.yaml").is_file():
        raise ConfigError(f"{folder}: no run here (no params.yaml); give the project's folder or one below results/")
    params = load_params(folder / "params.yaml")
    tables, figures, models = printed_tables(folder), drawings(folder), training(folder, params)  # refuse damaged files
    claims, unjudged = judged_claims(folder)
    stages = executions(folder)
    values = parameters(folder / "params.yaml", project / "profiles" / "paper.yaml")
    templates = Environment(
        loader=PackageLoader("pipeline.report", "."), autoescape=select_autoescape(default=True),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    templates.filters |= {"duration": duration, "moment": moment, "local": _local(params)}
    style = importlib.resources.files("pipeline.report").joinpath("page.css").read_text(encoding="utf-8")
    return templates.get_template("page.html.j2").render(
        style=Markup(style),
        version=__version__, data=DATA[params.data.source], warning=SOURCES[params.data.source].caption, params=params,
        written=datetime.now(UTC), outdated=outdated(folder), provenance=provenance(folder, project),
        claims=claims, unjudged=unjudged, verdicts=verdict_counts(claims), glance=glance(folder),
        tables=tables, slips=[*(slip for n in (1, 2, 3) for slip in paper.slips(n)),
                                             *paper.other_slips()],
        drawings=figures, training=models, values=values,
        params_text=read_text(folder / "params.yaml"), summary=summary(folder), no_commit=NO_COMMIT,
        stages=stages, profile=profile(params, project / "profiles"), splits=paper.SPLITS,
    )  # fmt: skip


def outdated(folder: Path) -> list[str]:
    """The stages whose results are older than the parameters or the code, by ``dvc status``; none without DVC.

    Raises:
        ArtpaperError: ``dvc status`` fails.
    """
    if not (folder / "dvc.yaml").is_file() or not (folder / ".dvc").is_dir():
        return []
    tell_dvc(folder)
    # while DVC runs the page's own stage, its output is locked, so the others are asked for by name
    others = [stage for stage in YAML(typ="safe").load(folder / "dvc.yaml")["stages"] if stage != STAGE]
    command = [sys.executable, "-m", "dvc", "status", "--json", *others]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise ArtpaperError(f"{folder}: dvc status failed: {done.stderr.strip()}")
    return list(json.loads(done.stdout))


def provenance(folder: Path, project: Path) -> dict[str, Any]:
    """Commit, machine and versions: what a published run says, or what there is here and now.

    Returns:
        commit or ``no commit``, machine, python and packages as in ``provenance.json``; ``changed``: files that are not
        as committed; ``published``: whether it is the former.
    Raises:
        DataError: ``provenance.json`` is damaged.
    """
    if (folder / "provenance.json").is_file():
        return {**read_json(folder / "provenance.json", *PROVENANCE), "changed": [], "published": True}
    commit, changed = revision(project)
    return {**environment(), "commit": commit, "changed": changed, "published": False}


def summary(folder: Path) -> dict[str, Any]:
    """What ``prepare`` said of the data.

    Returns:
        ``summary.json`` as :func:`pipeline.prepare.prepare.prepare` wrote it; empty if it has not run.
    Raises:
        DataError: ``summary.json`` is damaged.
    """
    for name in ("frames/summary.json", "summary.json"):
        if (folder / name).is_file():
            return read_json(folder / name, *SUMMARY)
    return {}


def profile(params: Params, profiles: Path) -> str:
    """What ``artpaper use`` needs to write these parameters; empty if they are no profile's."""
    for path in sorted(profiles.glob("*.yaml")):
        theirs = load_params(path)
        if theirs.data.source != params.data.source:
            continue
        here = replace(theirs.data, path=params.data.path, vocabulary=params.data.vocabulary)  # wherever the data lie
        if replace(theirs, data=here) == params:
            place = SOURCES[params.data.source].path
            options = f" --path {place}" * bool(place) + " --vocabulary FILE" * bool(params.data.vocabulary)
            return path.stem + options
    return ""


def _local(params: Params) -> Callable[[Text], Text]:
    """Takes the folders out of the paths of the data: a page that is passed on tells nothing of its machine's disk."""
    places = [place for place in (params.data.path, params.data.vocabulary) if place and Path(place).name]

    def shortened(text: Text) -> Text:
        for place in sorted(places, key=len, reverse=True):
            text = text.replace(place, Path(place).name)  # type: ignore[assignment]
        return text

    return shortened


def duration(seconds: float) -> str:
    """Seconds as ``1 h 02 min``, ``3 min 04 s`` or ``5.6 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def moment(time: datetime) -> str:
    """A time as ``2026-01-31 12:00 UTC``."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
