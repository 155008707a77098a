"""Read back the files that a run wrote; one that is cut or damaged is named, with what makes it anew."""

import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from ruamel.yaml import YAML

from pipeline.base.errors import DataError
from pipeline.base.parameters import Params

T = TypeVar("T")


def read_table(path: Path, *columns: str) -> pd.DataFrame:
    """A CSV file with these columns; only an empty cell is a missing value, for a group or a model may be called NA."""
    table = _read(path, lambda text: pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""]))
    _need(path, "column", [column for column in columns if column not in table])
    return table


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """A JSON object with these keys."""
    values = _read(path, json.loads)
    if not isinstance(values, dict):
        raise DataError(f"{path}: no JSON object; make it anew with `dvc repro`")
    _need(path, "key", [key for key in keys if key not in values])
    return values


def read_text(path: Path) -> str:
    """A UTF-8 text."""
    return _read(path, str)


def executed_notebooks(folder: Path, params: Params) -> dict[str, Path]:
    """Every stage of a project's pipeline that runs a notebook, in order, and where its executed copy goes."""
    found, experiment = {}, params.experiment
    for stage, entry in YAML(typ="safe").load(folder / "dvc.yaml")["stages"].items():
        kept = entry["outs"][0]
        if not kept.endswith(".ipynb"):
            continue
        if "matrix" not in entry:
            found[stage] = folder / kept
            continue
        for model, seed in itertools.product(experiment.models, experiment.seeds):
            path = kept.replace("${item.model}", model).replace("${item.seed}", str(seed))
            found[f"{stage}@{model}-{seed}"] = folder / path
    return found


def _read(path: Path, parse: Callable[[str], T]) -> T:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:  # ValueError: of json, pandas and Unicode alike
        raise DataError(f"{path}: missing or damaged ({error}); make it anew with `dvc repro`") from None


def _need(path: Path, kind: str, lacking: list[str]) -> None:
    if lacking:
        raise DataError(f"{path}: no {kind} {', '.join(lacking)}; make it anew with `dvc repro`")
