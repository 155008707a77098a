"""What ``dvc metrics`` shows: a folder a table, a file a model in it, so that each of its rows is one model.

One nested file would be one row of sixty columns. Shares are in percent.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from pipeline.base.atomic import atomic_file

Row = dict[str, str | int | float]
SUFFIXES = {"test": "", "adversarial": "_attacked"}


def table_metrics(
    cells: pd.DataFrame, models: Mapping[str, str], diagnostics: Mapping[str, Sequence[pd.DataFrame]]
) -> dict[str, Row]:
    """The figures of one of Tables 1-3, and what the attack did to the videos it is about.

    Args:
        cells: as :class:`pipeline.paper.render.Table` holds them.
        models: column as displayed -> model name; other columns are left out.
        diagnostics: per column the attack's diagnostics of these videos, one table a seed.
    Returns:
        Per model ``group``, ``videos``, ``gap``, ``gap_attacked`` and so on; ``group`` and ``videos`` alone where the
        group has no video.
    """
    first = cells.iloc[0]
    rows: dict[str, Row] = {
        model: {"group": str(first["group"]), "videos": int(first["n"])} for model in models.values()
    }
    for cell in cells.dropna(subset="ours").to_dict("records"):
        if cell["column"] in models:
            name = cell["metric"].lower().replace("@", "_at_") + SUFFIXES[cell["split"]]
            rows[models[cell["column"]]][name] = cell["ours"]
    if first["n"]:
        for column, model in models.items():
            rows[model] |= (100 * pd.concat(diagnostics[column]).astype(float).mean()).round(6).to_dict()
    return rows


def robustness_metrics(table: pd.DataFrame) -> dict[str, Row]:
    """Mean rho of Figure 4 under each criterion, over all seeds; none where no video was fooled.

    Args:
        table: as :func:`pipeline.paper.robustness.robustness_table` returns it.
    Returns:
        Per model ``videos`` (of the first criterion) and ``rho_top1_change`` and so on.
    """
    rows: dict[str, Row] = {}
    for found in table[table["seed"] == "all"].to_dict("records"):
        row = rows.setdefault(found["model"], {"videos": int(found["videos"])})
        if pd.notna(found["mean_rho"]):
            row[f"rho_{found['criterion']}"] = round(100 * found["mean_rho"], 6)
    return rows


def attention_metrics(table: pd.DataFrame) -> dict[str, Row]:
    """The change of the attention maps under attack (section 3.2.2), its mean over seeds, for each modality.

    Args:
        table: as :func:`pipeline.paper.attention.attention_table` returns it.
    Returns:
        Per model ``videos`` and ``attention_mse_rgb_e6`` and so on: millionths, for dvc shows five decimals.
    """
    rows: dict[str, Row] = {}
    for (model, modality), runs in table.groupby(["model", "modality"], sort=False):
        row = rows.setdefault(str(model), {"videos": int(runs["videos"].iloc[0])})
        row[f"attention_mse_{modality}_e6"] = float(f"{1e6 * runs['mse'].mean():.6g}")
    return rows


def write_metrics(rows: Mapping[str, Row], folder: str | Path) -> None:
    """Write ``<model>.json`` for every model; equal rows, equal bytes.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    for model, row in rows.items():
        with atomic_file(Path(folder) / f"{model}.json") as temporary:
            text = json.dumps(row, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
            temporary.write_text(text, encoding="utf-8")
