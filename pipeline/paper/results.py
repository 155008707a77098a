"""Read back the files that a run wrote; one that is cut or damaged is named, with what makes it anew."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from pipeline.base.errors import DataError

T = TypeVar("T")


def read_table(path: Path, *columns: str) -> pd.DataFrame:
    """A CSV file; only an empty cell is a missing value, for a group or a model may be called NA.

    Args:
        path: the file.
        columns: those that it must have.
    Raises:
        DataError: it is missing, no table, or lacks a column.
    """
    table = _read(path, lambda text: pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""]))
    lacking = [column for column in columns if column not in table]
    if lacking:
        raise DataError(f"{path}: no column {', '.join(lacking)}; make it anew with `dvc repro`")
    return table


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """A JSON object.

    Args:
        path: the file.
        keys: those that it must have.
    Returns:
        Its values by key.
    Raises:
        DataError: it is missing, no JSON object, or lacks a key.
    """
    values = _read(path, json.loads)
    if not isinstance(values, dict):
        raise DataError(f"{path}: no JSON object; make it anew with `dvc repro`")
    lacking = [key for key in keys if key not in values]
    if lacking:
        raise DataError(f"{path}: no key {', '.join(lacking)}; make it anew with `dvc repro`")
    return values


def read_text(path: Path) -> str:
    """A UTF-8 text.

    Raises:
        DataError: it is missing, or not UTF-8.
    """
    return _read(path, str)


def _read(path: Path, parse: Callable[[str], T]) -> T:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:  # ValueError: of json, pandas and Unicode alike
        raise DataError(f"{path}: missing or damaged ({error}); make it anew with `dvc repro`") from None
