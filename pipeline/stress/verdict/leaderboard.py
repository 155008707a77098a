"""One row a model: what the paper claims beside what is measured, in the manner of RobustBench."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.paper import paper
from pipeline.paper.results import read_table
from pipeline.paper.style import markdown_table, number_or_dash, save_table, save_text
from pipeline.stress.verdict.predictions import SWEEPS, attack_name, data_note, model_name

MEASURED = {"clean": "clean", "one_step": "one step", "pgd": "PGD", "ensemble": "ensemble"}
TRAINING = ("model", "seed", "steps", "passes_per_step", "attention_uniform_rms", "description")
_SWEPT = tuple(f"{key}_" for key in SWEEPS)
READING = {
    "claimed": "GAP in the paper's Table 1, on YouTube-8M, clean and under its one-step attack; it has no other model.",
    "one step, PGD, ensemble": "GAP under the paper's own attack, under projected gradient ascent, and under the worst "
    "of all attacks for each video, which is the one that raises its loss most.",
    "lowest": "GAP under the single attack that leaves least of it on all videos together; below the ensemble's where "
    "what raises the loss most is not what lowers GAP most.",
    "distance to uniform": "root mean square distance of the clean attention maps to uniform ones, as a share of the "
    "uniform weight 1/T; 0 is uniform attention.",
    "passes": "forward and backward passes over a batch that training took, thousands, mean over seeds.",
}


def read_training(path: str | Path) -> pd.DataFrame:
    """What the trainings cost and what attention they ended with: ``training.csv``, a row per model and seed."""
    return read_table(Path(path), *TRAINING)


def leaderboard(table: pd.DataFrame, training: pd.DataFrame) -> pd.DataFrame:
    """The models side by side, the most robust under the ensemble first; a model without a training has empty cells.

    Returns:
        A row per model: ``claimed_clean`` and ``claimed_one_step`` (the paper's, percent), GAP in percent under each of
        :data:`MEASURED` with ``_low`` and ``_high``, ``lowest`` and ``lowest_attack`` (of the single attacks, the one
        that leaves least of the mean GAP), ``attention_uniform_rms`` and ``training_passes`` (means over
        seeds), ``seeds``, ``videos``, ``source``, ``left_out`` and ``description``. NaN where nothing was claimed or
        measured.
    """
    gap = table[table["metric"] == "gap"]
    rows = []
    for model in dict.fromkeys(gap["model"]):
        row: dict[str, object] = {"model": model}
        for name, split in (("claimed_clean", "test"), ("claimed_one_step", "adversarial")):
            row[name] = getattr(paper.row(1, "GAP", split), model) if model in paper.MODELS else np.nan
        own = gap[gap["model"] == model].set_index("attack")
        for attack in MEASURED:
            for suffix, column in (("", "mean"), ("_low", "low"), ("_high", "high")):
                row[attack + suffix] = own[column].get(attack, np.nan)
        alone = own.loc[~own.index.isin(("clean", "ensemble")) & ~own.index.str.startswith(_SWEPT), "mean"]
        row["lowest"] = alone.min()
        row["lowest_attack"] = alone.idxmin() if len(alone) else ""
        trained = training[training["model"] == model]
        row["attention_uniform_rms"] = trained["attention_uniform_rms"].mean()
        row["training_passes"] = (trained["steps"] * trained["passes_per_step"]).mean()
        row |= {name: own[name].iloc[0] for name in ("videos", "source", "left_out")}
        row["seeds"] = own.loc[own.index.isin(MEASURED), "seeds"].min()  # sweeps have fewer
        row["description"] = trained["description"].iloc[0] if len(trained) else ""
        rows.append(row)
    return pd.DataFrame(rows).sort_values("ensemble", ascending=False, kind="stable", na_position="last")


def leaderboard_markdown(board: pd.DataFrame) -> str:
    """The leaderboard for people."""
    lines = []
    for row in board.to_dict("records"):
        claimed = "–"
        if not np.isnan(row["claimed_clean"]):
            claimed = f"{row['claimed_clean']:.2f} → {row['claimed_one_step']:.2f}"
        cells = [model_name(row["model"]), claimed]
        cells += [_interval(row, attack) for attack in MEASURED]
        cells.append(f"{row['lowest']:.2f}, {attack_name(row['lowest_attack'])}" if row["lowest_attack"] else "–")
        cells.append(number_or_dash(row["attention_uniform_rms"], ".3g"))
        cells.append(number_or_dash(row["training_passes"] / 1000, ",.1f"))
        lines.append([*cells, f"{row['seeds']}"])
    least, videos = int(board["seeds"].min()), int(board["videos"].iloc[0])
    text = [
        "**Claimed beside measured.** GAP in percent with its 95 % interval over training seeds and videos, "
        f"{videos:,} test videos, the most robust under the ensemble first. {data_note(board)}"
        + (" With one seed an interval is about the videos only." if least == 1 else ""),
        "",
        markdown_table(
            ["model", "claimed", *MEASURED.values(), "lowest", "distance to uniform", "passes", "seeds"], lines
        ),
        *(f"- **{name}**: {meaning}" for name, meaning in READING.items()),
    ]
    described = [(row["model"], str(row["description"])) for row in board.to_dict("records")]
    text += ["", *(f"- {model_name(model)}: {words}" for model, words in described if words)]
    return "\n".join(text) + "\n"


def write_leaderboard(board: pd.DataFrame, folder: str | Path) -> None:
    """Write ``leaderboard.csv`` and ``leaderboard.md``."""
    save_table(board, Path(folder) / "leaderboard.csv")
    save_text(leaderboard_markdown(board), Path(folder) / "leaderboard.md")


def _interval(row: Mapping[str, Any], attack: str) -> str:
    if np.isnan(row[attack]):
        return "–"
    return f"{row[attack]:.2f} [{row[f'{attack}_low']:.2f}, {row[f'{attack}_high']:.2f}]"
