"""Are the stress test's own numbers to be trusted? Every model put to the checks of :mod:`artpaper.checks`."""

from pathlib import Path

import numpy as np
import pandas as pd

from artpaper.attacks.result import FLAGS
from artpaper.checks import check_results
from pipeline.paper.style import markdown_table
from pipeline.stress.attacks.files import read_attacked
from pipeline.stress.verdict.predictions import model_name

ATTENTION = ("attention_maps", "attention_scores")
Named = dict[str, np.ndarray]


def checks_table(folder: str | Path, gap: pd.DataFrame) -> pd.DataFrame:
    """What the checks find in the predictions of each model and seed of the stress test in ``folder``.

    ``gap`` is the sweep over epsilon, in percent. A row per model, seed and check: ``model, seed, check, tripped,
    value, threshold, message, page``.
    """
    rows = []
    for place in sorted(path for path in Path(folder).glob("predictions/*/seed*") if path.is_dir()):
        losses, silent, not_finite = _read(place)
        model, seed = place.parent.name, int(place.name.removeprefix("seed"))
        swept = gap[(gap["model"] == model) & (gap["metric"] == "gap") & any(place.glob("epsilon_*.parquet"))]
        by_epsilon = dict(zip(swept["value"], swept["mean"] / 100, strict=True))
        for finding in check_results(losses, silent, by_epsilon, not_finite=not_finite):
            rows.append({"model": model, "seed": seed} | vars(finding))
    return pd.DataFrame(rows, columns=["model", "seed", "check", "tripped", "value", "threshold", "message", "page"])


def checks_markdown(table: pd.DataFrame) -> str:
    """The checks for people: which tripped, and how near the others came."""
    runs = table.groupby(["model", "seed"]).ngroups
    lines = []
    for check, rows in table.groupby("check", sort=False):
        tripped = rows[rows["tripped"]]
        names = ", ".join(f"{model_name(row.model)} seed {row.seed}" for row in tripped.itertuples()) or "none"
        worst = rows.loc[(rows["value"] - rows["threshold"]).idxmax()]
        lines.append([check, names, f"{worst['value']:.3f}", f"{worst['threshold']:.3f}", f"{len(rows)}"])
    caption = f"**Checks** of {runs} trained models: does anything say that the attacks failed? See docs/checks.md."
    header = ["check", "tripped by", "nearest value", "its threshold", "models asked"]
    return caption + "\n\n" + markdown_table(header, lines, 2)


def _read(place: Path) -> tuple[Named, Named, Named]:
    """Losses, zero-gradient flags and flags of no result, all (videos,), by the names that the checks know."""
    losses, silent, not_finite = Named(), Named(), Named()
    for path in sorted(place.glob("*.parquet")):
        rows, _ = read_attacked(path, "loss", "clean_loss", "zero_gradient", *FLAGS)
        name = "attention" if path.stem in ATTENTION else path.stem
        loss = rows["loss"].to_numpy()
        losses[name] = np.maximum(losses[name], loss) if name in losses else loss
        if path.stem == "one_step":
            losses["clean_again"] = rows["clean_loss"].to_numpy()
        silent[path.stem] = rows["zero_gradient"].to_numpy()
        not_finite[path.stem] = np.any([rows[flag].to_numpy() for flag in FLAGS], axis=0)
    return losses, silent, not_finite
