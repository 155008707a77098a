"""What the sets say together: the same differences of models on each, with what attention is worth there."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from pipeline.paper.paper import ATTENTION_MSE, row
from pipeline.paper.style import markdown_table, number_or_dash, panels, save_figure, save_table, save_text, seed_counts
from pipeline.trial.page import found, model_table, verdict
from pipeline.trial.rules import CALIBRATED, Rules, read_rules
from pipeline.trial.sets import SETS, set_name
from pipeline.trial.statistics import PLANNED, Results, planned, read_results
from pipeline.trial.variants import PLANNED_SEEDS

COMPARED = {  # row of the figure -> model, the one it is compared with, condition
    "A-ART - ART, clean": ("a_art", "art", "clean"),
    "A-ART - ART, one step": ("a_art", "art", "one_step"),
    "A-ART - ART, Auto-PGD": ("a_art", "art", "apgd"),
    "A-ART - uniform + ART, Auto-PGD": ("a_art", "uniform_art", "apgd"),
    "A-ART - position + ART, Auto-PGD": ("a_art", "position_art", "apgd"),
    "contrastive - ART, Auto-PGD": ("contrast", "art", "apgd"),
    "ART at 2ε - A-ART, Auto-PGD": ("art_2e", "a_art", "apgd"),
    "ART at 2ε - A-ART, clean": ("art_2e", "a_art", "clean_part"),
}
PLANNED_ROWS = [
    title for title, what in COMPARED.items() if what in {planned_[1:] for planned_ in PLANNED}
]  # the first
MARKERS = "osD^vP"
Sets = Mapping[str, tuple[Rules, Results]]  # by the sets' names, in their order
WON_BACK = ("won back: ART", "A-ART")


def write_overall(results: Path) -> list[Path]:
    """Make ``trial.png``, ``.pdf``, ``.csv`` and ``.md`` in ``results``, if any set has two seeds to compare."""
    sets = read_sets(results)
    table = overall(sets)
    if table.empty:
        return []
    files = [*save_figure(overall_figure(table), results / "trial"), save_table(table, results / "trial.csv")]
    return [*files, save_text(overall_page(sets, table), results / "trial.md")]


def read_sets(results: Path) -> Sets:
    """The rules and the finished units of every set that is calibrated."""
    folders = {name: results / name / "trial" for name in SETS}
    return {name: (read_rules(folder / "rules.json"), read_results(folder))
            for name, folder in folders.items() if (folder / "rules.json").is_file()}  # fmt: skip


def overall_page(sets: Sets, table: pd.DataFrame) -> str:
    """The planned comparisons' verdicts, a row a set, beside what may decide them; ``table`` is :func:`overall`'s."""
    about, says = [], []
    for name, of_set in table.groupby("set", sort=False):
        rules, units = sets[str(name)]
        art = units.seeds("art")
        if not units.seeds("art", "a_art"):
            continue
        models, compared = model_table(units).set_index("variant"), planned(units)
        words = {told["number"]: f"{found(told)}: {verdict(told)}" for told in compared.to_dict("records")}
        seeds = str(compared["seeds"].min() if words else 1)  # the fewest of the four
        says.append([set_name(str(name)), seeds, *(words.get(number, "not made yet") for number, *_ in PLANNED)])
        own = models.loc["a_art"]
        radius = 100 * rules.epsilon / rules.frames**0.5  # of the norm of a median video of unit-norm frames
        beyond = (units.points("art", "one_step_part", art) - units.points("art", "apgd", art)).mean()
        numbers = (radius, of_set["worth"].iloc[0], beyond, 100 * own["share"])
        cells = [f"{rules.frames:g}", *(number_or_dash(number, ".1f") for number in numbers)]
        cells += [number_or_dash(own[name], ".2f") for name in ("change_share", "unrelated_share")]
        cells += [f"{own['cost_other']:.1f}", "yes" if own["alive"] else "no"]
        won = (models.loc[model, "won_back_one_step"] for model in ("art", "a_art"))
        about.append([set_name(str(name)), *cells, *(number_or_dash(value, ".0f") for value in won)])
    clean, gap = row(1, "GAP", "test"), row(1, "GAP", "adversarial")
    lost = clean.non_art - gap.non_art
    says.append(["the paper", "–", f"{gap.a_art - gap.art:+.2f}", "–", "–", f"{clean.a_art - clean.art:+.2f}"])
    change = (ATTENTION_MSE["a_art"] / ATTENTION_MSE["art"]) ** 0.5
    return "\n".join(
        [
            "# The trial, all sets together",
            "",
            "By the rules of [docs/trial.md](../docs/trial.md). Made by `artpaper trial SET --report` from every set's "
            "units, as are the picture and its [numbers](trial.csv). The sets' own pages: "
            + ", ".join(f"[{set_name(name)}]({name}/trial/README.md)" for name in table["set"].unique())
            + ".",
            "",
            "![Differences of A-ART, ART, its controls and ART with a longer step on each set](trial.png)",
            "",
            "## What each set says",
            "",
            "The planned comparisons, points of GAP with 95 % intervals: A-ART - ART under the one step and under "
            "Auto-PGD, A-ART - uniform + ART under Auto-PGD, A-ART - ART clean. *More* is more than 0, not as much as "
            f"the paper has. Fewer than {PLANNED_SEEDS} seeds are an early look.",
            "",
            markdown_table(
                ["set", "seeds", "over ART, one step", "over ART, Auto-PGD", "over uniform + ART", "clean"], says, 6
            ),
            "## What may decide it",
            "",
            "*Frames* of the median video; *radius*: epsilon in percent of its norm; *worth*: the points of clean GAP "
            "that ART has over the same with uniform attention; *beyond*: what Auto-PGD takes from ART beyond the one "
            "step, points; *share*: beta's term over the rest of A-ART's loss at the end of the training, in percent "
            f"(by the rule {100 * CALIBRATED:g} of ART's loss); *changed*: what the one step changes a video's maps "
            f"by, A-ART's over ART's, as a norm (the paper: {change:.2f}); *unrelated*: what two videos' maps differ "
            "by, A-ART's over ART's; *other*: what another video's map costs A-ART, points; *alive*: its "
            "attention, by the rule. *Won back*: of what the one step takes from Non-ART, in percent; in the paper "
            + " and ".join(f"{100 * (value - gap.non_art) / lost:.0f}" for value in (gap.art, gap.a_art))
            + ".",
            "",
            markdown_table(
                [
                    "set",
                    "frames",
                    "radius",
                    "worth",
                    "beyond",
                    "share",
                    "changed",
                    "unrelated",
                    "other",
                    "alive",
                    *WON_BACK,
                ],
                about,
            ),
        ]
    )


def overall(sets: Sets) -> pd.DataFrame:
    """Every difference that two seeds or more tell of.

    Returns:
        ``set, compared, difference, low, high`` (points of GAP, 95 % over seeds and videos), ``seeds``; ``worth``, the
        clean GAP that ART has over the same with uniform attention, mean over the seeds that both have.
    """
    rows: list[dict[str, object]] = []
    for name, (_, units) in sets.items():
        seeds = units.seeds("art", "uniform_art")
        learnt, uniform = (units.points(model, "clean", seeds) for model in ("art", "uniform_art"))
        worth = (learnt - uniform).mean() if seeds else np.nan
        for title, (model, over, condition) in COMPARED.items():
            if len(units.seeds(model, over)) > 1:
                found = units.compare((1, model, condition), (-1, over, condition))
                ends = {"difference": found.value, "low": found.low, "high": found.high}
                rows.append({"set": name, "compared": title} | ends | {"seeds": found.seeds, "worth": worth})
    return pd.DataFrame(rows)


def overall_figure(table: pd.DataFrame) -> Figure:
    """A row a difference, a mark a set: right of zero the model named first is ahead."""
    names = list(table["set"].unique())
    figure, axes = panels(1, 1, (7.2, 1.2 + 0.24 * len(COMPARED) * len(names)))
    colors = sns.color_palette("colorblind", len(names))
    rows = {title: place for place, title in enumerate(COMPARED)}
    for place, name in enumerate(names):
        of_set = table[table["set"] == name]
        y = of_set["compared"].map(rows) + 0.7 * ((place + 0.5) / len(names) - 0.5)
        ends = of_set["difference"] - of_set["low"], of_set["high"] - of_set["difference"]
        worth = number_or_dash(of_set["worth"].iloc[0], ".1f")
        told = of_set["compared"].isin(PLANNED_ROWS)
        seeds = [seed_counts(of_set.loc[which, "seeds"]) for which in (told, ~told) if which.any()]
        label = f"{set_name(name)}: {', then '.join(dict.fromkeys(seeds))}; attention is worth {worth} points, clean"
        axes.errorbar(of_set["difference"], y, xerr=ends, fmt=MARKERS[place], color=colors[place], label=label,
                      markersize=4, capsize=3, linewidth=1.5)  # fmt: skip
    axes.axvline(0, color="black", linewidth=1)
    for edge in range(1, len(COMPARED)):
        first = edge == len(PLANNED_ROWS)
        axes.axhline(edge - 0.5, color="black" if first else "0.85", linewidth=1 if first else 0.8)
    for edge, words in ((0, "planned"), (len(PLANNED_ROWS), "exploratory")):
        axes.text(0.99, edge - 0.45, words, transform=axes.get_yaxis_transform(), fontsize=9, style="italic",
                  horizontalalignment="right", verticalalignment="top")  # fmt: skip
    axes.grid(visible=False, axis="y")
    axes.set_yticks(range(len(COMPARED)), labels=list(COMPARED))
    axes.set(ylim=(len(COMPARED) - 0.5, -0.5), xlabel="points of GAP, with 95 % intervals over seeds and videos")
    axes.set_title("The trial, all sets: right of zero, the model named first is ahead", fontsize=10)
    figure.legend(loc="outside lower center", fontsize=9, frameon=False)
    return figure
