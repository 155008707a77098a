"""The stress test in tables: what each model keeps, which differences are more than chance, and the sweeps."""

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.base.errors import DataError
from pipeline.paper.evidence import NotMeasured
from pipeline.paper.style import markdown_table, save_table, save_text
from pipeline.stress.verdict.predictions import METRICS, SWEEPS, Stress, attack_name, counts_text, data_note, model_name
from pipeline.stress.verdict.statistics import difference, estimate, holm

REFERENCES = ("uniform_art", "uniform_wide", "art")  # every model is compared with these
COMPARED = ("clean", "one_step", "pgd", "ensemble")  # on these test sets
FAMILIES = {
    "claims": "what the verdicts rest on, but for the search for a better defence, which rests on `defences`",
    "defences": "every model against ART, and against uniform attention with ART's term at its and at four times its "
    "radius",
    "attacks": "the same model under two attacks: the ensemble against one step and against no attack (GAP), the black "
    "box and transfer against PGD (loss)",
}


@dataclass(frozen=True)
class Comparison:
    """One difference of a family: a model under an attack, minus the same or another one under the same or another."""

    family: str
    metric: str
    model: str
    attack: str
    over_model: str
    over_attack: str


CLAIMS = (
    Comparison("claims", "gap", "a_art", "one_step", "art", "one_step"),
    Comparison("claims", "gap", "a_art", "ensemble", "art", "ensemble"),
    Comparison("claims", "gap", "art", "ensemble", "non_art", "ensemble"),
    Comparison("claims", "gap", "a_art", "ensemble", "uniform_art", "ensemble"),
    Comparison("claims", "gap", "uniform_art", "ensemble", "uniform", "ensemble"),
    Comparison("claims", "gap", "a_art_strong", "ensemble", "random_att", "ensemble"),  # both with a beta of 1
    Comparison("claims", "gap", "a_art", "ensemble", "a_art", "one_step"),
    Comparison("claims", "gap", "a_art", "ensemble", "a_art", "clean"),
    Comparison("claims", "loss", "a_art", "square", "a_art", "pgd"),
    Comparison("claims", "loss", "a_art", "transfer", "a_art", "pgd"),
)


def comparisons(models: list[str]) -> Iterator[Comparison]:
    """Every comparison that is made, declared before any number is seen; within a family each one once."""
    yield from CLAIMS
    for place, reference in enumerate(REFERENCES):
        for model in models:
            if model not in REFERENCES[: place + 1]:
                for attack in COMPARED:
                    yield Comparison("defences", "gap", model, attack, reference, attack)
    for model in models:
        for attack in ("one_step", "clean"):
            yield Comparison("attacks", "gap", model, "ensemble", model, attack)
        for attack in ("square", "transfer"):
            yield Comparison("attacks", "loss", model, attack, model, "pgd")


def stress_table(stress: Stress) -> pd.DataFrame:
    """What each model keeps under each attack.

    Returns:
        A row per model, attack and metric: ``epsilon``, ``mean`` over seeds with its 95 % interval ``low`` to ``high``
        (percent for "gap" and "hit_at_1", nats for "loss"), ``seeds``, ``videos``, ``basis`` of the interval (see
        :class:`pipeline.stress.verdict.statistics.Estimate`), ``source`` of the data and what was ``left_out``.
    """
    rows = []
    for model, attack, metric in itertools.product(stress.models, stress.attacks, METRICS):
        if (metric, model, attack) in stress.samples:
            mean = estimate(stress.samples[metric, model, attack])
            row = {"model": model, "attack": attack, "metric": metric, "epsilon": stress.epsilon[attack]}
            row |= {"mean": mean.value, "low": mean.low, "high": mean.high}
            rows.append(row | {name: getattr(mean, name) for name in ("seeds", "videos", "basis")} | stress.about)
    return pd.DataFrame(rows)


def differences_table(stress: Stress) -> pd.DataFrame:
    """Every declared comparison that was measured, corrected for their number.

    Returns:
        A row per :class:`Comparison`, its fields first: ``difference`` with its 95 % interval ``low`` to ``high`` and
        its standard ``error``; ``p`` and ``holm_p``, Holm's over the ``comparisons`` of the family that have a p value
        (NaN with one seed); ``freedom``, ``seeds``, ``videos``, ``basis``, ``source`` and ``left_out``. Intervals are
        for one comparison each.
    """
    rows = []
    for pair in comparisons(stress.models):
        try:
            high = stress.sample(pair.metric, pair.model, pair.attack)
            low = stress.sample(pair.metric, pair.over_model, pair.over_attack)
        except NotMeasured:
            continue
        result = asdict(difference(high, low))
        rows.append(asdict(pair) | {"difference": result.pop("value")} | result | stress.about)
    names = [*Comparison.__dataclass_fields__, "difference", "low", "high", "error", "p", "freedom"]
    table = pd.DataFrame(rows, columns=[*names, "seeds", "videos", "basis", *stress.about])
    families = table.groupby("family", sort=False)["p"]
    table.insert(names.index("p") + 1, "holm_p", families.transform(lambda p: holm(p.to_numpy())))
    table.insert(names.index("p") + 2, "comparisons", families.transform("count").astype(int))
    return table


def sweep_table(table: pd.DataFrame, key: str) -> pd.DataFrame:
    """PGD along one of its own numbers: "epsilon" (unit of the normalised features) or "steps".

    Returns:
        A row per model, value and metric, values ascending, with the columns of :func:`stress_table`, in which such an
        attack is called ``<key>_<value>``, and ``value``, 0 on clean videos of the same seeds.
    """
    swept = table["attack"].str.startswith(f"{key}_")
    parts = []
    for model in dict.fromkeys(table.loc[swept, "model"]):
        own = table["model"] == model
        # clean videos are its start, unless it has its own or was made on fewer seeds, whose clean GAP is another
        start = own & (table["attack"] == "clean") & (table["seeds"] == table.loc[own & swept, "seeds"].min())
        start &= not (table.loc[own & swept, "attack"] == f"{key}_0").any()
        part = table[(own & swept) | start]
        try:
            values = [0.0 if name == "clean" else float(name.removeprefix(f"{key}_")) for name in part["attack"]]
        except ValueError as error:
            raise DataError(f"stress/predictions: an attack of the sweep over {key} is misnamed: {error}") from None
        parts.append(part.assign(value=values).sort_values("value", kind="stable"))
    return pd.concat(parts) if parts else table[swept].assign(value=0.0)


def write_stress(stress: Stress, folder: str | Path) -> pd.DataFrame:
    """Write ``table``, which it returns, and ``differences`` as CSV and Markdown, and each sweep as CSV."""
    folder = Path(folder)
    table, differences = stress_table(stress), differences_table(stress)
    save_table(table, folder / "table.csv")
    save_text(table_markdown(table), folder / "table.md")
    save_table(differences, folder / "differences.csv")
    save_text(differences_markdown(differences), folder / "differences.md")
    for key in SWEEPS:
        save_table(sweep_table(table, key), folder / f"{key}.csv")
    return table


def table_markdown(table: pd.DataFrame) -> str:
    """GAP of every model under every attack but the sweeps', for people; intervals where they fit: see the CSV."""
    gap = table[(table["metric"] == "gap") & ~table["attack"].str.startswith(tuple(f"{key}_" for key in SWEEPS))]
    models, attacks = list(dict.fromkeys(gap["model"])), list(dict.fromkeys(gap["attack"]))
    cells = {(row.model, row.attack): row for row in gap.itertuples()}
    lines = []
    for attack in attacks:
        own = [cells.get((model, attack)) for model in models]
        values = ("–" if cell is None else f"{cell.mean:.2f} ± {(cell.high - cell.low) / 2:.2f}" for cell in own)
        lines.append([attack_name(attack), *values])
    text = f"GAP in percent, mean over training seeds ± half its 95 % interval. {_about(gap)}"
    return f"**What each model keeps under each attack.** {text}\n\n" + markdown_table(
        ["attack", *map(model_name, models)], lines
    )


def differences_markdown(table: pd.DataFrame) -> str:
    """The declared comparisons for people, a table a family."""
    text = [
        "**Which differences are more than chance?** Differences on the same videos, points of percent for GAP and "
        "nats for the loss, with the 95 % interval of each by itself; p is Holm's, corrected within each family. "
        f"{_about(table)}",
        "",
    ]
    for family, meaning in FAMILIES.items():
        rows = table[table["family"] == family]
        if rows.empty:
            continue
        lines = []
        for row in rows.to_dict("records"):
            same = row["model"] == row["over_model"]
            over = attack_name(row["over_attack"]) if same else model_name(row["over_model"])
            metric, digits = ("GAP", 2) if row["metric"] == "gap" else ("loss", 4)
            numbers = " to ".join(f"{row[end]:+.{digits}f}" for end in ("low", "high"))
            lines.append(
                [model_name(row["model"]), attack_name(row["attack"]), over, metric,
                 f"{row['difference']:+.{digits}f}", numbers, _p_text(row["holm_p"], row["basis"])]
            )  # fmt: skip
        count = int(rows["comparisons"].iloc[0])
        text += [f"`{family}`: {meaning} ({count} p values).", ""]
        text += [markdown_table(["model", "attack", "over", "metric", "difference", "95 % interval", "p"], lines, 4)]
    return "\n".join(text)


def _p_text(p: float, basis: str) -> str:
    """A corrected p value, or why there is none: the basis of the estimate."""
    if np.isnan(p):
        return basis
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.1 else f"{p:.2f}"


def _about(table: pd.DataFrame) -> str:
    if table.empty:
        return "Nothing that could be compared was measured."
    alone = ""
    if table["seeds"].min() == 1:
        alone = " With one seed an interval is about the videos only and says nothing of other trainings."
    return f"{counts_text(table)}.{alone} {data_note(table)}"
