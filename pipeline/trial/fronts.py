"""The fronts: clean GAP against GAP under the costly attack along each loss's own parameter, and A-ART beside ART's."""

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from scipy.stats import t as student

from pipeline.paper.style import HALO, markdown_table, panels, seed_counts
from pipeline.trial.rules import CALIBRATED
from pipeline.trial.statistics import LEVEL, Results
from pipeline.trial.variants import variant_name

FRONTS = {  # line of the figure -> its variants along its own parameter; its colour in the palette, marker and dashes
    "ART, over ε": (("art_0.5e", "art", "art_2e", "art_4e"), 1, "o", "-"),
    "A-ART, over β's share": (("a_art_nominal", "a_art_share0.1", "a_art", "a_art_share0.4"), 2, "s", (0, (5, 2))),
    "A-ART at 2ε": (("a_art_share0.2_2e",), 9, "<", "-"),
    "A-ART at 4ε, over β's share": (
        ("a_art_share0.1_4e", "a_art_share0.2_4e", "a_art_share0.4_4e"), 4, "D", (0, (1, 1)),
    ),
    "uniform + ART, over ε": (("uniform_art_0.5e", "uniform_art", "uniform_art_2e", "uniform_art_4e"), 7, "v", "-."),
    "position + ART, over ε": (
        ("position_art_0.5e", "position_art", "position_art_2e", "position_art_4e"), 5, "^", (0, (3, 1, 1, 1, 1, 1)),
    ),
    "contrastive": (("contrast", "contrast_4e"), 6, "P", "--"),
    "Non-ART": (("non_art",), 0, "*", "-"),
    "temperature": (("temperature_art",), 3, "X", "-"),
    "entropy": (("entropy_art",), 8, "p", "-"),
}  # fmt: skip


def fronts_figure(results: Results, name: str) -> Figure:
    """Clean GAP against GAP under Auto-PGD, on the same videos; crosses are 95 % over seeds, Student's."""
    figure, axes = panels(1, 1, (7.2, 5.4))
    palette = sns.color_palette("colorblind")
    for label, (variants, shade, marker, dashes) in FRONTS.items():
        color = palette[shade]
        found = [variant for variant in variants if results.seeds(variant)]
        if not found:
            continue
        points = [_centre(results, variant) for variant in found]
        x, y, wide, high = (np.array(column) for column in zip(*points, strict=True))
        axes.errorbar(x, y, xerr=wide, yerr=high, color=color, alpha=0.5, linestyle="none", linewidth=1)
        axes.plot(x, y, color=color, marker=marker, linestyle=dashes, label=label, markersize=8)
        for variant, across, up in zip(found, x, y, strict=True) if len(found) > 1 else ():
            mark = axes.annotate(_mark(variant), (across, up), (8, 8), textcoords="offset points", fontsize=9, zorder=5)
            mark.set_path_effects(HALO)
    seeds = seed_counts([len(results.seeds(variant)) for variant in results.variants])
    axes.set(xlabel="GAP, clean (%)", ylabel="GAP under Auto-PGD, 100 steps, 5 restarts (%)")
    axes.set_title(f"{name}: better is up and to the right; {seeds}, bars 95 % over seeds", fontsize=10)
    axes.legend(fontsize=8)
    return figure


def _mark(variant: str) -> str:
    """Where on its line a point lies: the share or the value of its beta, or its radius."""
    own = {"a_art": f"{CALIBRATED:g}"} | dict.fromkeys(("art", "uniform_art", "position_art", "contrast"), "ε")
    return own.get(variant) or variant_name(variant).partition(", ")[2].partition(", ")[0].removeprefix("share ")


def _centre(results: Results, variant: str) -> tuple[float, float, float, float]:
    seeds = results.seeds(variant)
    columns = [results.points(variant, name, seeds) for name in ("clean_part", "apgd")]
    edge = student.ppf(1 - LEVEL / 2, len(seeds) - 1) / len(seeds) ** 0.5 if len(seeds) > 1 else 0.0
    x, y = (float(values.mean()) for values in columns)
    wide, high = (float(edge * values.std(ddof=1)) if len(seeds) > 1 else 0.0 for values in columns)
    return x, y, wide, high


def front_lines(results: Results) -> list[str]:
    """ART at other radii beside A-ART, which by the rule lies above ART's front if no point has as much of both.

    And A-ART at another radius beside ART there.
    """
    ahead = {"clean_part": "clean", "apgd": "Auto-PGD"}
    pairs = {f"ART at {_mark(name)} - A-ART": (name, "a_art") for name in FRONTS["ART, over ε"][0] if name != "art"}
    pairs |= {f"A-ART at {times}ε - ART at {times}ε": (f"a_art_share{CALIBRATED}_{times}e", f"art_{times}e")
              for times in (2, 4)}  # fmt: skip
    cells: list[list[str]] = []
    as_good, above = [], []
    for title, (model, over) in pairs.items():
        if len(results.seeds(model, over)) > 1:
            clean, attacked = (results.compare((1, model, name), (-1, over, name)) for name in ahead)
            cells.append([title, clean.words, attacked.words, str(clean.seeds)])
            if over == "a_art":
                as_good += [_mark(model)] * (clean.value >= 0 and attacked.value >= 0)
                above += [_mark(model)] * (attacked.low > 0 and clean.low <= 0 <= clean.high)
    if not cells:
        return []
    says = "By the means, no point of ART's front has as much of both as A-ART."
    if as_good:
        says = (
            f"A-ART does not lie above ART's front: by the means, ART at {' and '.join(as_good)} has as much of both."
        )
    if above:
        says += (
            f" ART at {' and '.join(above)} has more under Auto-PGD, and a clean GAP that cannot be told from A-ART's."
        )
    return [
        "## The front of ART",
        "",
        "Models trained at other radii, all attacked at ε: differences in points of GAP on the videos of the costly "
        f"attack, seeds paired, with 95 % intervals. Exploratory. {says}",
        "",
        markdown_table(["difference", *ahead.values(), "seeds"], cells),
    ]
