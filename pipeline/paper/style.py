"""One look for all figures and texts: what colour tells apart, line styles, markers and hatches tell apart too."""

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, groupby
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from anyascii import anyascii
from matplotlib.artist import setp
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator

from pipeline.base.atomic import atomic_file, save_json, save_text
from pipeline.base.sources import SOURCES
from pipeline.paper.paper import MODELS

# what a title calls the data: synthetic results are labelled wherever they appear
DATA = {name: source.title for name, source in SOURCES.items()}
DPI = 150
SETTLED = 3  # rounds of the layout's search; each leaves about a thousandth of the error of the one before
CONTENT: dict[Any, Any] = {"pdf.fonttype": 42, "pdf.compression": 6, "savefig.bbox": None, "savefig.facecolor": "auto"}
MARKDOWN_CHARACTERS = {character: "\\" + character for character in "\\|*_`<["}
NAMED_SHARDS = 10  # damaged ones that a caption names


@dataclass(frozen=True)
class ModelStyle:
    """How a model looks: a colour of the colour-blind palette, and what stands for it in black and white.

    ``width`` of its lines: ART's are wide, so that they are seen under A-ART's where the two are the same.
    """

    color: str
    marker: str
    linestyle: str | tuple[int, tuple[int, ...]]
    hatch: str
    width: float = 1.5

    @property
    def line(self) -> dict[str, Any]:
        """Keywords of a line."""
        return {"color": self.color, "linestyle": self.linestyle, "linewidth": self.width}

    @property
    def bar(self) -> dict[str, Any]:
        """Keywords of a bar or a box: hatched in its colour on white."""
        return {"facecolor": "white", "edgecolor": self.color, "hatch": self.hatch}


MODEL_STYLES = {
    "non_art": ModelStyle("#0173b2", "o", "-", ""),
    "art": ModelStyle("#de8f05", "s", "--", "///", width=3.0),
    "a_art": ModelStyle("#029e73", "^", "-.", "xxx"),
}
OTHER_STYLES = (
    ModelStyle("#cc78bc", "D", ":", "..."),
    ModelStyle("#ca9161", "v", (0, (5, 1, 1, 1, 1, 1)), "|||"),
    ModelStyle("#949494", "P", (0, (8, 3)), "---"),
    ModelStyle("#d55e00", "X", (0, (1, 3)), "ooo"),
)
HALO: list[AbstractPathEffect] = [withStroke(linewidth=3, foreground="white")]  # of words over lines
ADVERSARIAL = MODEL_STYLES["art"].color  # beside clean in black; the dashes say the same in grey


def panels(
    rows: int, columns: int, size: tuple[float, float], look: str = "whitegrid", **how: Any
) -> tuple[Figure, Any]:
    """A figure of this size in inches, and its axes as ``matplotlib.pyplot.subplots`` gives them."""
    with sns.axes_style(look):
        return plt.subplots(rows, columns, figsize=size, layout="constrained", **how)


def model_styles(models: Iterable[str]) -> dict[str, ModelStyle]:
    """A style for each name of group ``models``, in order; the controls take :data:`OTHER_STYLES` in turn."""
    others = cycle(OTHER_STYLES)
    return {model: MODEL_STYLES.get(model) or next(others) for model in models}


def model_title(model: object) -> str:
    """What tables and figures call a model of group ``models``."""
    return MODELS.get(str(model), str(model))


def seeds_text(seeds: Sequence[int]) -> str:
    """The training seeds in words."""
    return f"training {'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}"


def seed_counts(counts: Collection[int]) -> str:
    """How many seeds several results have: "3 seeds", "3 to 8 seeds"."""
    fewest, most = min(counts), max(counts)
    return f"{fewest} seeds" if fewest == most else f"{fewest} to {most} seeds"


def number_or_dash(value: float, form: str, unit: str = "") -> str:
    """A number in a table's cell, a dash for NaN."""
    return "–" if np.isnan(value) else f"{value:{form}}{unit}"


def count_text(count: float) -> str:
    """A count, which as a mean over seeds may have a decimal."""
    return f"{count:,.1f}".removesuffix(".0")


def wrapped(lines: Iterable[str], width: int) -> str:
    """Each line broken at so many characters."""
    return "\n".join(part for line in lines for part in textwrap.wrap(line, width))


def left_out(shards: Sequence[str]) -> str:
    """What a caption says, after a space, of the damaged shards that ``data.damaged`` skipped; nothing if none was."""
    if not shards:
        return ""
    rest = len(shards) - NAMED_SHARDS
    more = f" and {rest} more, which frames/summary.json lists" if rest > 0 else ""
    count = f"{len(shards)} shard{'s' if len(shards) > 1 else ''}"
    return f" LEFT OUT as damaged: {count} ({', '.join(shards[:NAMED_SHARDS])}{more})."


def plain(name: str) -> str:
    """A name as a figure shows it: no dollar may start a formula."""
    return name.replace("$", r"\$")


def legible(figure: Figure) -> Figure:
    """Write in Latin letters, in place, what the font lacks, such as Japanese or an emoji; print what stands for what.

    matplotlib's font has Latin, Greek, Cyrillic, Arabic and Hebrew. Two names that read alike are told apart by their
    code points. Numbers, and the tables beside the figure, keep the names as they are.
    """
    read: dict[str, str] = {}  # Latin letters -> what they stand for
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_locator(), FixedLocator):  # set as a whole; one alone would not last
                names = [label.get_text() for label in axis.get_ticklabels()]
                labels = [_in_letters(text, _characters(FontProperties()), read) for text in names]
                if labels != names:
                    axis.set_ticks(axis.get_ticklocs(), labels)
    for text in figure.findobj(Text):
        text.set_text(_in_letters(text.get_text(), _characters(text.get_fontproperties()), read))
    if read:
        meanings = ", ".join(f"{letters} is {name}" for letters, name in read.items())
        print(f"in Latin letters, for want of others in the figure's font: {meanings}")
    return figure


def _characters(font: FontProperties) -> Collection[int]:
    return get_font(findfont(font)).get_charmap()


def _in_letters(text: str, drawn: Collection[int], read: dict[str, str]) -> str:
    parts = []
    for missing, group in groupby(text, lambda character: character != "\n" and ord(character) not in drawn):
        part = "".join(group)
        if missing:
            codes = " ".join(f"U+{ord(character):04X}" for character in part)
            letters = "".join(filter(str.isprintable, anyascii(part))) or codes
            if read.setdefault(letters, part) != part:
                letters = f"{letters} ({codes})"
                read[letters] = part
            part = plain(letters)
        parts.append(part)
    return "".join(parts)


def save_figure(figure: Figure, path: str | Path) -> tuple[Path, Path]:
    """Write a figure, made legible and its layout settled for good, as ``path.png`` and ``path.pdf`` (text stays text).

    Equal figures give equal bytes.
    """
    png, pdf = Path(f"{path}.png"), Path(f"{path}.pdf")
    _settle(legible(figure))
    # neither dates nor versions: they would change the bytes without changing the figure
    for target, left_away in ((png, ["Software"]), (pdf, ["CreationDate", "Creator", "Producer"])):
        with atomic_file(target) as temporary, matplotlib.rc_context(CONTENT):
            figure.savefig(temporary, format=target.suffix[1:], dpi=DPI, metadata=dict.fromkeys(left_away))
    return png, pdf


def save_table(table: pd.DataFrame, path: str | Path) -> Path:
    """Write a table as CSV, nine significant digits; equal tables, equal bytes."""
    return save_text(table.to_csv(index=False, float_format="%.9g", lineterminator="\n"), path)


def save_metrics(rows: Mapping[str, Mapping[str, str | int | float]], folder: str | Path) -> None:
    """Write what ``dvc metrics`` shows of a table: a file ``<model>.json`` for every model, each one of its rows."""
    for model, row in rows.items():
        save_json(row, Path(folder) / f"{model}.json", indent=2, ensure_ascii=False, allow_nan=False)


def markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]], names: int = 1) -> str:
    """A GitHub-flavoured Markdown table, escaped, and padded so that its source is readable too.

    The first ``names`` columns are set to the left, the others to the right.
    """
    escape = str.maketrans(MARKDOWN_CHARACTERS)
    rows = [[cell.translate(escape) for cell in line] for line in (header, *lines)]
    rows.insert(1, [":--" if place < names else "--:" for place in range(len(header))])
    return padded(rows, names)


def padded(rows: Sequence[Sequence[str]], names: int) -> str:
    """Rows of a Markdown table, every cell as wide as its column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [str.ljust] * names + [str.rjust] * (len(widths) - names)
    lines = [[side(cell, width) for side, cell, width in zip(sides, row, widths, strict=True)] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _settle(figure: Figure) -> None:
    """End the layout's search for places, which goes on from drawing to drawing: shown before or not, equal bytes."""
    engine = figure.get_layout_engine()
    if not isinstance(engine, ConstrainedLayoutEngine):
        return
    shown_at = figure.dpi
    figure.set_dpi(DPI)
    for _ in range(SETTLED):
        engine.execute(figure)
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(tuple(round(bound, 6) for bound in axes.get_position(original=True).bounds))
    figure.set_dpi(shown_at)


def tell_apart(axes: Axes) -> None:
    """Give the lines of a seaborn plot different styles, in the plot and in its legend.

    There is a line per hue, drawn in the reverse order of the legend, as seaborn does.
    """
    legend = axes.get_legend()
    handles = reversed(legend.legend_handles) if legend is not None else [None] * len(axes.lines)
    for line, handle, style in zip(axes.lines, handles, ("-", "--", ":", "-."), strict=False):
        setp(line, linestyle=style)
        if handle is not None:
            setp(handle, linestyle=style)
