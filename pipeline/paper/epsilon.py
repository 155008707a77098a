"""Which epsilon? The readings of the paper's 0.5 side by side, on Non-ART alone (row 1 of docs/ambiguities.md).

ART and A-ART have no part in this: a reading is judged by how much of Non-ART's score the one-step attack takes away,
beside how much the paper reports, so it can be fixed before anybody knows what it means for the paper's claim.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline.base.parameters import Params
from pipeline.paper.paper import METRICS, paper_lost, row
from pipeline.paper.style import DATA, markdown_table, panels


def epsilon_table(readings: pd.DataFrame) -> pd.DataFrame:
    """The readings, as :func:`pipeline.predict.readings.measure_readings` gives them, each beside the paper's Table 1.

    Added are ``distance``, the mean over metrics of how far the share lost is from the paper's (points), and
    ``closest``, true for the smallest; numbers are rounded to six places.
    """
    table = readings.drop(columns="in_use")
    lost = np.stack([np.abs(table[f"{metric} lost"] - paper_lost(metric)) for metric in METRICS])
    table["distance"] = lost.mean(axis=0)
    table["closest"] = table["distance"] == table["distance"].min()
    table["in_use"] = readings["in_use"]
    exact = table.select_dtypes("float").columns
    table[exact] = table[exact].round(6)
    return table


def epsilon_figure(table: pd.DataFrame, source: str) -> Figure:
    """Share of each metric lost, per reading, beside the paper's."""
    figure, grid = panels(1, 3, (9.6, 0.5 * len(table) + 1.6), sharex=True, sharey=True)
    names = [_name(reading) for _, reading in table.iterrows()]
    hatches = ["//" if used else "" for used in table["in_use"]]
    for axes, metric in zip(grid, METRICS, strict=True):
        axes.barh(names, table[f"{metric} lost"], color="0.75", edgecolor="black", height=0.6, hatch=hatches)
        axes.axvline(paper_lost(metric), color="black", linestyle="--")
        axes.set(title=metric, xlabel="share lost to the attack (%)", xlim=(0, 100), xticks=range(0, 100, 25))
    grid[0].invert_yaxis()
    figure.suptitle(
        f"Non-ART under each reading of epsilon, {DATA[source]}; dashed: the paper; hatched: in use", fontsize=10
    )
    return figure


def epsilon_markdown(table: pd.DataFrame, params: Params) -> str:
    """The table for people, and a sentence that says what is in use and what the calibration alone would choose."""
    header = ["features", "ball", "", "epsilon", "perturbation / video"]
    header += [*(f"{metric}, clean → attacked (lost)" for metric in METRICS), "distance"]
    lines = []
    for _, reading in table.iterrows():
        marks = [mark.replace("_", " ") for mark in ("closest", "in_use") if reading[mark]]
        cells = [reading["features"], reading["ball"], ", ".join(marks), f"{reading['epsilon']:g}"]
        cells.append(f"{reading['relative_norm']:.2f} %")
        for metric in METRICS:
            clean, attacked, lost = (reading[f"{metric} {what}"] for what in ("clean", "attacked", "lost"))
            cells.append(f"{clean:.2f} → {attacked:.2f} ({lost:.0f} %)")
        lines.append([*cells, f"{reading['distance']:.1f}"])
    printed = [
        f"{row(1, metric, 'test').non_art} → {row(1, metric, 'adversarial').non_art} ({paper_lost(metric):.0f} %)"
        for metric in METRICS
    ]
    lines.append(["the paper", "", "", "0.5", "", *printed, ""])
    seeds = len(params.experiment.seeds)
    text = [
        f"**Which epsilon?** Non-ART alone, validation set, {DATA[params.data.source]}, "
        f"{seeds} training seed{'s' if seeds > 1 else ''}; percent. Distance: mean over metrics of the difference "
        "between the share lost here and in the paper, in points.",
        "",
        markdown_table(header, lines, names=3),
        _verdict(table),
    ]
    return "\n".join(text) + "\n"


def _verdict(table: pd.DataFrame) -> str:
    closest = table[table["closest"]].iloc[0]
    used = table[table["in_use"]]
    if used.empty:
        return f"Closest to the paper: {_name(closest)}. The reading in use is not among these."
    if used.iloc[0]["closest"]:
        return f"Closest to the paper, and in use: {_name(closest)}."
    used = used.iloc[0]
    stronger = np.mean([used[f"{metric} lost"] - paper_lost(metric) for metric in METRICS]) > 0
    return (
        f"Closest to the paper: {_name(closest)}. In use is {_name(used)}, {used['relative_norm']:.1f} % of a video's "
        f"norm; it takes {'more' if stronger else 'less'} from Non-ART than the paper's attack did."
    )


def _name(reading: pd.Series) -> str:
    return f"{reading['features']}, {reading['ball']}, {reading['epsilon']:g}"
