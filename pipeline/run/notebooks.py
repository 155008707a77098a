"""Notebooks as pipeline stages: clean copies that saving does not change, and runs with checked parameters."""

import base64
import shutil
import sys
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from papermill.exceptions import PapermillExecutionError
from PIL import Image

from pipeline.base.atomic import atomic_file, replace_folder, save_json
from pipeline.base.errors import ArtpaperError, ConfigError
from pipeline.base.project import project_root
from pipeline.run.kernel import PATIENCE, NotebookError, kernel

EXPLORER = "explore_attention.ipynb"
CHECKED = "nbval-check-output"  # nbval compares the output of cells with this tag
PICTURE = "picture"  # the figure of a cell with this tag is committed, and not compared
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def clean(source: Path, target: Path) -> list[Path]:
    """Copy every notebook of one folder to another, replaced as a whole, without what running or saving changes.

    Kept are each cell's type, id, source and tags; outputs, execution counts and all other metadata go.
    """
    paths = sorted(source.glob("*.ipynb"))
    if not paths:
        raise ConfigError(f"{source}: no notebooks (*.ipynb) here")
    new = target.with_name(f"{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    for path in paths:
        cells = []
        for cell in _read(path).cells:
            kept = {"cell_type": cell.cell_type, "id": cell.id, "source": cell.source, "metadata": _tags(cell)}
            if cell.cell_type == "code":
                kept |= {"outputs": [], "execution_count": None}
            cells.append(kept)
        document = {"cells": cells, "metadata": {"kernelspec": KERNEL}, "nbformat": 4, "nbformat_minor": 5}
        save_json(document, new / path.name, sort_keys=True)
    replace_folder(new, target)
    return [target / path.name for path in paths]


def run(notebook: Path, report: Path, parameters: Mapping[str, str | int | float]) -> None:
    """Execute a notebook with papermill; its printed output is shown as it comes.

    ``report``, the executed copy, is saved while it runs, so it can be watched, and kept on an error. ``parameters``
    replace those of the cell that is tagged so. An error this project raised on purpose is passed on in its own words.
    """
    document = _checked(notebook, parameters)
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)  # or writing would go through DVC's link into its cache
    try:
        with kernel(notebook) as process:
            papermill.execute_notebook(
                document, report, dict(parameters), cwd=project_root(), km=process, start_timeout=PATIENCE,
                progress_bar=False, stdout_file=sys.stdout, stderr_file=sys.stderr, autosave_cell_every=10,
            )  # fmt: skip
    except PapermillExecutionError as error:
        if error.ename in _names(ArtpaperError):
            raise NotebookError(error.evalue) from None
        raise NotebookError(f"{notebook}: {error.ename}: {error.evalue}; the traceback is in {report}") from None


def refresh(notebook: Path) -> None:
    """Run a notebook where it lies and keep, in the file, the outputs that are committed, no others."""
    document = _read(notebook)
    place = {"metadata": {"path": str(notebook.parent)}}
    try:
        with kernel(notebook) as process:
            NotebookClient(document, km=process, startup_timeout=PATIENCE, resources=place).execute()
    except CellExecutionError as error:
        raise NotebookError(f"{notebook}: {error.ename}: {error.evalue}") from None
    _committed(document)
    with atomic_file(notebook) as temporary:
        nbformat.write(document, temporary)


def before_saving(model: dict[str, Any], path: str, **_: Any) -> None:
    """JupyterLab's hook (`make lab`): looking at the explorer leaves its file as it is in Git.

    What its page shows is alive only while its kernel is, so no output is lost.
    """
    if model["type"] == "notebook" and Path(path).name == EXPLORER:
        model["content"] = nbformat.from_dict(model["content"])
        _committed(model["content"])


def _committed(document: Any) -> None:
    """Leave of a notebook what is committed: sources, tags, what nbval compares, and the pictures, small."""
    count = 0
    for cell in document.cells:
        cell.metadata = _tags(cell)
        if cell.cell_type == "code":
            count += 1
            tags = set(cell.metadata.get("tags", []))
            if CHECKED not in tags:  # no progress bar beside a picture, nor anything where there is none
                pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
                cell.outputs = pictures if PICTURE in tags else []
                for output in cell.outputs:
                    output.data["image/png"] = _small(output.data["image/png"])
            cell.execution_count = count if {CHECKED, PICTURE} & tags else None
    document.metadata = {"kernelspec": KERNEL}


def _small(picture: str) -> str:
    """A PNG in base64, in at most 256 colours: a third of the bytes, and to the eye the same figure."""
    with Image.open(BytesIO(base64.b64decode(picture))) as image:
        palette = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    file = BytesIO()
    palette.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _read(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError(f"{path}: no such notebook")
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, nbformat.ValidationError, nbformat.reader.NotJSONError) as error:
        raise ConfigError(f"{path}: not a valid notebook: {error}") from None


def _tags(cell: Any) -> dict[str, Any]:
    """All that is kept of a cell's metadata."""
    return {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}


def _checked(notebook: Path, parameters: Mapping[str, str | int | float]) -> Any:
    """The notebook as this interpreter runs it, whatever kernel it names; it must have these parameters."""
    document = _read(notebook)
    document.metadata.kernelspec = KERNEL
    known = papermill.inspect_notebook(document)
    for name, value in parameters.items():
        if name not in known:
            raise ConfigError(f"{notebook}: unknown parameter {name}; it has {', '.join(known) or 'none'}")
        default = known[name]["default"]
        kind = str if default[:1] in "'\"" else float if "." in default else int
        if not isinstance(value, kind) and not (kind is float and isinstance(value, int)):
            raise ConfigError(f"{notebook}: {name}: expected {kind.__name__} like {default}, got {value!r}")
    return document


def _names(error: type[ArtpaperError]) -> Iterator[str]:
    """Of an error and all its kinds."""
    yield error.__name__
    for kind in error.__subclasses__():
        yield from _names(kind)
