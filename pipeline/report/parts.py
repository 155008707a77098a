"""A run, and the pieces of HTML that sections are made of."""

import base64
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from pipeline.base.git import dvc, revision, tell_dvc
from pipeline.base.parameters import Params
from pipeline.base.project import project_root
from pipeline.paper.publish import environment
from pipeline.paper.results import read_json

STRESS = "stress/dvc.yaml"


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

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What a published run's ``provenance.json`` says, or the same of here and now; and files not as committed."""
        if self.published:
            keys = ("commit", "command", "machine", "python", "packages")
            return {**read_json(self.root / "provenance.json", *keys), "changed": []}
        commit, changed = revision(project_root())
        return {**environment(), "commit": commit, "changed": changed}

    @property
    def command(self) -> str:
        """What makes its results."""
        return self.provenance["command"] if self.published else "dvc repro"


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


def missing(what: str, stage: str, makes: str = "makes it") -> str:
    """That something was not made, and what makes it."""
    return (
        f"<p class='missing'><strong>{what}: not made in this run.</strong> <code>dvc repro {stage}</code> {makes}.</p>"
    )


def picture(png: Path, seen: str) -> str:
    """A picture as HTML, with what is seen in it for who cannot; empty if it is not there."""
    if not png.is_file():
        return ""
    data = base64.b64encode(png.read_bytes()).decode()
    return f"<figure><img alt='{html.escape(seen)}' src='data:image/png;base64,{data}'></figure>"


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
