"""The notebooks that the pipeline executed: which stage ran each, when, for how long, and what it showed."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
from markupsafe import Markup
from ruamel.yaml import YAML

from pipeline.base.errors import DataError
from pipeline.report.markup import plain, prose, sanitised
from pipeline.run.lineage import KEY, Lineage

COMMAND = re.compile(r"artpaper run \S+ (\S+\.ipynb)")
BELOW = 3  # the headings of a notebook stand below its own on the page


@dataclass(frozen=True)
class Output:
    """What a cell showed: text (``stdout``, ``stderr``, ``result``, ``error``), ``markup`` or a ``picture``."""

    kind: str
    content: str | Markup
    alt: str = ""


@dataclass(frozen=True)
class Cell:
    """Prose, or code and what it showed."""

    prose: Markup | None = None
    code: str = ""
    outputs: tuple[Output, ...] = ()


@dataclass(frozen=True)
class Execution:
    """One stage of the pipeline and its executed notebook.

    Attributes:
        stage: as DVC calls it, such as ``train@a_art-0``.
        path: the executed notebook, relative to the project's folder; maybe missing.
        started: when it began, UTC; None if the notebook is missing or does not say.
        seconds: how long it took.
        complete: False if a cell failed or the run was cut off.
        changed: what the stage read then and is something else now, so that the results at hand are of another run;
            None where the notebook does not say what it read.
        cells: its contents.
    """

    stage: str
    path: Path
    started: datetime | None = None
    seconds: float | None = None
    complete: bool = False
    changed: tuple[str, ...] | None = None
    cells: tuple[Cell, ...] = field(default=(), repr=False)

    @property
    def of_this_run(self) -> bool:
        """The notebook is there, whole, and nothing says that it is of another run than the results."""
        return self.complete and not self.changed

    @property
    def anchor(self) -> str:
        """Its place on the page."""
        return "notebook-" + re.sub(r"[^A-Za-z0-9_-]", "-", self.stage)


def executions(folder: Path) -> list[Execution]:
    """Every stage that runs a notebook, in the pipeline's order, with what its executed notebook says.

    Args:
        folder: the project's folder, with ``dvc.yaml`` and ``params.yaml``; without the former there are none.
    Raises:
        DataError: an executed notebook is damaged.
    """
    if not (folder / "dvc.yaml").is_file():
        return []
    lineage = Lineage(folder)
    return [_execution(folder, stage, Path(report), lineage) for stage, report in _stages(folder)]


def _stages(folder: Path) -> Iterator[tuple[str, str]]:
    """Stage -> executed notebook, matrices resolved as DVC does."""
    yaml = YAML(typ="safe")
    pipeline, values = yaml.load(folder / "dvc.yaml")["stages"], yaml.load(folder / "params.yaml")
    for name, stage in pipeline.items():
        found = COMMAND.search(stage["cmd"])
        if not found:
            continue
        keys = list(stage.get("matrix", {}))
        axes = [_resolve(stage["matrix"][key], values) for key in keys]
        for item in itertools.product(*axes):
            report = found[1]
            for key, value in zip(keys, item, strict=True):
                report = report.replace(f"${{item.{key}}}", str(value))
            yield name + ("@" + "-".join(map(str, item)) if keys else ""), report


def _resolve(axis: Any, values: Any) -> list[Any]:
    if isinstance(axis, str):
        for key in axis.removeprefix("${").removesuffix("}").split("."):
            values = values[key]
        return values
    return axis


def _execution(folder: Path, stage: str, path: Path, lineage: Lineage) -> Execution:
    if not (folder / path).is_file():
        return Execution(stage, path)
    try:
        notebook = nbformat.read(folder / path, as_version=4)
    except (ValueError, nbformat.ValidationError, nbformat.reader.NotJSONError) as error:
        raise DataError(f"{folder / path}: not a valid notebook: {error}; `dvc repro -fs {stage}` makes it") from None
    about = notebook.metadata.get("papermill", {})
    started, seconds = about.get("start_time"), about.get("duration")
    return Execution(
        stage, path, datetime.fromisoformat(started) if started else None, seconds,
        seconds is not None and not about.get("exception"), lineage.changed_since(notebook.metadata.get(KEY), stage),
        tuple(_cells(notebook, stage)),
    )  # fmt: skip


def _cells(notebook: Any, stage: str) -> Iterator[Cell]:
    heading = stage
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = next((line.strip("# ") for line in cell.source.splitlines() if line.startswith("#")), heading)
            yield Cell(prose(cell.source, below=BELOW, label=f"{stage}: {heading}"))
        elif cell.cell_type == "code" and cell.source.strip():
            yield Cell(None, cell.source.rstrip(), tuple(_outputs(cell.outputs, f"{stage}: {heading}")))


def _outputs(outputs: list[Any], label: str) -> Iterator[Output]:
    # a progress bar comes as hundreds of pieces of one stream, with pictures in between
    told = plain("".join(output.text for output in outputs if output.get("name") == "stderr"))
    for kind, group in itertools.groupby(outputs, lambda output: output.get("name") or output.output_type):
        if kind == "stdout":
            yield Output(kind, plain("".join(output.text for output in group)))
        elif kind != "stderr":
            for output in group:
                if output.output_type == "error":
                    yield Output("error", plain("\n".join(output.traceback) or f"{output.ename}: {output.evalue}"))
                else:
                    yield _shown(output.data, label)
    if told:
        yield Output("stderr", told)


def _shown(data: Any, label: str) -> Output:
    if "image/png" in data:
        what = plain(data.get("text/plain", "")).strip("<>") or "picture"
        source = "data:image/png;base64," + "".join(data["image/png"].split())
        return Output("picture", source, f"Picture of notebook {label} ({what})")
    if "text/markdown" in data:
        return Output("markup", prose(data["text/markdown"], below=BELOW, label=label))
    if "text/html" in data:
        return Output("markup", sanitised(data["text/html"], label))
    return Output("result", plain(data.get("text/plain", "")))
