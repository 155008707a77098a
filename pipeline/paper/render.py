"""The computed tables in words and symbols: captions, Markdown, LaTeX, and the files.

A metric has a line of the paper's figures, a line of ours and their difference.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from artpaper.attacks.result import FLAGS
from pipeline.base.sources import SOURCES
from pipeline.paper.paper import GAIN, GROUPS, METRICS, SPLITS, slips
from pipeline.paper.style import MARKDOWN_CHARACTERS, count_text, left_out, padded, save_text

FEW_VIDEOS = 100  # below this a group's differences are mostly chance: the standard error of Hit@1 is 3 points or more
SCOPES = {"joint": "around each video", "modality": "around each modality of a video", "frame": "around each frame"}
NORMS = {
    "none": "features as stored",
    "l2_frame": "frames scaled to unit norm",
    "l2_frame_per_modality": "frames scaled to unit norm, each modality by itself",
}
TARGETS = {"truth": "the true labels", "predicted": "the labels that the model predicts"}
LATEX_CHARACTERS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "ε": r"$\varepsilon$", "‖": r"$\|$", "–": "--",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """One of the paper's tables: its number, its caption and notes in plain text, and its cells in long format.

    ``cells`` has the columns table, group, metric, split, column (as displayed), ours, std, seed_std, paper, paper_std,
    difference (figures in percent, NaN where there is none), n (videos), seeds, partitions, and over_non_art and
    over_art: how much a model's figure exceeds theirs on the same videos, with its standard error. ``retrained``: the
    second reading of Tables 2 and 3, models trained on the group's videos alone.
    """

    number: int
    caption: str
    notes: tuple[str, ...]
    cells: pd.DataFrame
    retrained: bool = False

    @property
    def name(self) -> str:
        """Of its files."""
        return f"table{self.number}" + ("_retrained" if self.retrained else "")


@dataclass(frozen=True)
class PaperTables:
    """Tables 1-3; ``metrics`` holds our own figures for ``dvc metrics``: a row a model under each table's name."""

    tables: tuple[Table, ...]
    metrics: dict[str, dict[str, dict[str, Any]]]


def write_tables(tables: PaperTables, folder: str | Path) -> None:
    """Write ``table1.csv``, ``.md`` and ``.tex`` and the same for the others; equal input, equal bytes."""
    for table in tables.tables:
        path = Path(folder) / table.name
        cells = table.cells.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        for suffix, text in ((".csv", cells), (".md", markdown(table)), (".tex", latex(table))):
            save_text(text, path.with_suffix(suffix))


def describe(
    number: int, group: str | None, videos: int, partitions: int, seeds: Sequence[int], settings: dict[str, Any],
    label_space_note: str, retrained: bool,
) -> str:  # fmt: skip
    """The caption: which videos in how many parts, data, label space, attack and training seeds.

    ``group`` is None for the whole test set, ``settings`` is what the predictions files say of themselves, and
    ``retrained`` says whether the models were trained on the group's videos alone.
    """
    if group is None:
        where = (
            f"{videos:,} test videos: mean ± standard deviation (ddof = 1) over {partitions} disjoint partitions of "
            "the test set, drawn by a seeded hash of the ids."
        )
    else:
        where = f"{videos:,} test videos of {group} (those with at least one of its classes), every class ranked."
    text = [f"GAP, PERR and Hit@1 in percent on {where}"]
    if retrained:
        text.append("SECOND READING: the models were trained and validated on such videos alone.")
    if group is not None and group != GROUPS[number]:
        text.append(f"The paper's vertical {GROUPS[number]} does not exist here; {group} takes its place.")
    if videos == 0:
        text.append("The test set holds NO video of this group, so there is nothing of ours to show.")
        if not SOURCES[settings["data source"]].shards:
            text.append("Two groups of classes in classes.csv take the places of the paper's (docs/own_data.md).")
    elif videos < FEW_VIDEOS:
        text.append(f"Only {videos} videos: TOO FEW to read differences.")
    text.append(SOURCES[settings["data source"]].caption + left_out(settings["damaged shards"]))
    text.append(
        f"Label space {settings['label space']}, {settings['classes']} classes, not the paper's own. "
        f"{label_space_note.rstrip('. ')}."
    )
    text.append(
        f"Adversarial test: one gradient step (Eq. 4) against each model on {TARGETS[settings['attack labels']]}, "
        f"ε = {settings['epsilon']:g} in the L2 ball {SCOPES[settings['scope']]}, {NORMS[settings['feature norm']]}."
    )
    if len(seeds) == 1:
        text.append(f"Training seed {seeds[0]}.")
    else:
        text.append(
            f'Mean over training seeds {", ".join(map(str, seeds))}; the line "± over seeds" is the standard deviation '
            "(ddof = 1) over them of the value on all these videos at once."
        )
    return " ".join(text)


def notes(
    number: int, videos: int, printed: bool, diagnostics: dict[str, list[pd.DataFrame]],
    weights: Mapping[str, tuple[float, float]],
) -> tuple[str, ...]:  # fmt: skip
    """What stands below a table: how to read the gains, the paper's slips, and what the attack did to each model.

    ``printed`` says whether the paper's figures stand in the table; ``diagnostics`` has for each column a table a seed
    of its ``videos``, and ``weights`` for those with an attention term beta and the term's share of the rest of the
    loss.
    """
    lines = [f"{GAIN}: A-ART minus Non-ART, in points, recomputed from the columns."]
    lines += [
        f"Attention term of {column}: β = {beta:g}; over the last tenth of the training it is {100 * share:.1f} % "
        "of the rest of the loss."
        for column, (beta, share) in weights.items()
    ]
    lines += slips(number) if printed else []
    for column, runs in diagnostics.items() if videos else ():
        every = pd.concat(runs)
        lines.append(
            f"Attack on {column}: perturbation / video norm {100 * every['relative_norm'].mean():.2f} % on average, "
            f"zero gradient on {_count(every['zero_gradient'], runs)} and fooled on {_count(every['fooled'], runs)} of "
            f"{videos:,} videos."
        )
        lost = every[[*FLAGS]].any(axis=1)
        if lost.any():
            lines[-1] += (
                f" NO RESULT on {_count(lost, runs)}, where a gradient or an answer was not a finite number: they are "
                "in the table as if they had not been attacked."
            )
    return tuple(lines)


def _count(flags: pd.Series, runs: Sequence[pd.DataFrame]) -> str:
    return count_text(flags.sum() / len(runs))


def markdown(table: Table) -> str:
    """The table as a GitHub-flavoured Markdown fragment, caption first, notes last."""
    columns = printed_columns(table.cells)
    header = ["Metric", "", *(f"{short}: {column}" for short in ("Test", "Adv.") for column in columns)]
    rows = [_escape(header, MARKDOWN_CHARACTERS), ["---", "---", *["---:"] * (len(header) - 2)]]
    for metric, line, values in _lines(table):
        rows.append([metric, line, *(value or "–" for value in values)])
    caption, *notes = _escape([table.caption, *table.notes], MARKDOWN_CHARACTERS)
    return f"**Table {table.number}.** {caption}\n\n{padded(rows, 2)}\n" + "".join(f"- {note}\n" for note in notes)


def latex(table: Table) -> str:
    """The table as a LaTeX float; needs the packages booktabs and graphicx, and UTF-8 input."""
    columns = printed_columns(table.cells)
    count = len(columns)
    spans = " & ".join(rf"\multicolumn{{{count}}}{{c}}{{{name}}}" for name in SPLITS.values())
    rules = rf"\cmidrule(lr){{3-{2 + count}}} \cmidrule(lr){{{3 + count}-{2 + 2 * count}}}"
    body: list[str] = []
    for metric, line, values in _lines(table):
        if metric and body:
            body.append(r"\addlinespace")
        cells = [f"${value.replace('±', chr(92) + 'pm')}$" if value else "--" for value in values]
        body.append(" & ".join([metric, *_escape([line], LATEX_CHARACTERS), *cells]) + r" \\")
    names = " & ".join(_escape(columns, LATEX_CHARACTERS) * len(SPLITS))
    caption = " ".join(_escape([table.caption, *table.notes], LATEX_CHARACTERS))
    return "\n".join(
        [
            r"\begin{table*}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:table{table.number}}}",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{ll{'r' * 2 * count}}}",
            r"\toprule",
            rf"& & {spans} \\",
            rules,
            rf"Metric & & {names} \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table*}",
            "",
        ]
    )


def printed_columns(cells: pd.DataFrame) -> list[str]:
    """The columns of a table as displayed, in order: models and gain."""
    return list(dict.fromkeys(cells["column"]))


def _lines(table: Table) -> list[tuple[str, str, list[str]]]:
    """A table's printed lines: the metric on its first line only, what a line holds, and a text for each column.

    Columns go test set by test set, empty where there is no figure; lines without any figure are left out.
    """
    places = [(split, column) for split in SPLITS for column in printed_columns(table.cells)]
    kinds = [("paper", "paper", "paper_std"), ("ours", "ours", "std"), ("difference", "difference", None)]
    lines = []
    for metric in METRICS:
        own = table.cells[table.cells["metric"] == metric].set_index(["split", "column"])
        first = metric
        for name, value, std in [*kinds, ("± over seeds", "seed_std", None)]:
            if value == "ours" or own[value].notna().any():
                lines.append((first, name, [_text(own, place, value, std) for place in places]))
                first = ""
    return lines


def _text(cells: pd.DataFrame, place: tuple[str, str], column: str, std: str | None) -> str:
    value = cells.loc[place, column]
    if pd.isna(value):
        return ""
    signed = column == "difference" or (place[1] == GAIN and column != "seed_std")
    text = f"{round(value, 2) + 0.0:{'+' if signed else ''}.2f}"  # no -0.00
    return text if std is None or pd.isna(cells.loc[place, std]) else f"{text} ± {cells.loc[place, std]:.2f}"


def _escape(texts: Iterable[str], characters: dict[str, str]) -> list[str]:
    table = str.maketrans(characters)
    return [" ".join(text.split()).translate(table) for text in texts]
