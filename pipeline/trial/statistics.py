"""Differences of models over seeds and videos, and the planned comparisons, from the published units alone.

A difference is a mean over seeds, paired by seed. Its variance is that between the seeds' differences over their
number, and that of the mean over bootstrapped videos, or people, without what a seed adds by itself on single videos,
which the first has already; the degrees of freedom are Satterthwaite's. One seed decides nothing about training and is
refused.

Source: as :mod:`pipeline.stress.verdict.statistics`; Satterthwaite 1946, Biometrics Bulletin 2; Schuirmann 1987 for the
two one-sided tests.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64
from scipy.optimize import brentq
from scipy.stats import nct
from scipy.stats import t as student

from artpaper.settings import Control
from pipeline.base.errors import DataError
from pipeline.base.parameters import build
from pipeline.stress.verdict.statistics import Estimate, holm, own_noise, student_interval
from pipeline.trial.measure import PART
from pipeline.trial.rules import read_rules
from pipeline.trial.units import read_unit
from pipeline.trial.variants import radius, undefended, variants

LEVEL, POWER = 0.05, 0.8
CLEAN = {"one_step": "clean", "apgd": "clean_part"}  # the same videos without an attack
PLANNED = (
    (1, "a_art", "art", "one_step"),
    (2, "a_art", "art", "apgd"),
    (3, "a_art", "uniform_art", "apgd"),
    (4, "a_art", "art", "clean"),  # by equivalence
)
ALIVE_COST = 2.0  # points of GAP that another video's map costs; the rule's other half is ALIVE_SHARE


@dataclass(frozen=True)
class Difference(Estimate):
    """A mean over seeds in points of GAP; ``videos`` is how many videos, or people, were drawn."""

    @property
    def words(self) -> str:
        """The difference and its interval, as pages have them."""
        return with_interval(self.value, self.low, self.high)

    def told(self, level: float = LEVEL) -> float:
        """The smallest difference that a test at ``level`` with this error would have told, with a power of 80 %."""
        if not self.error:
            return 0.0
        freedom = min(self.freedom, 1e6)
        edge = student.ppf(1 - level / 2, freedom)

        def short(shift: float) -> float:
            return float(nct.sf(edge, freedom, shift)) - POWER  # to be told the wrong way round has no chance here

        most = edge
        while short(most) < 0:
            most *= 1.5
        return self.error * brentq(short, 0.0, most)

    def equivalent(self, margin: float) -> float:
        """The p value of the two one-sided tests that the difference lies within the margin."""
        if not self.error:
            return float(abs(self.value) >= margin)
        return float(student.sf((margin - abs(self.value)) / self.error, self.freedom))


def with_interval(value: float, low: float, high: float) -> str:
    """A difference and its interval, as pages have them."""
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def difference(
    points: Float64[np.ndarray, " seeds"], draws: Float64[np.ndarray, "seeds draws"], drawn: int
) -> Difference:
    """The mean of ``points``, whose values in bootstrap samples are ``draws``; ``drawn`` videos or people were drawn.

    Raises:
        ValueError: fewer than two seeds, or than two videos or people.
    """
    seeds = len(points)
    if seeds < 2 or drawn < 2:
        raise ValueError(f"{seeds} seeds, {drawn} drawn: of one of either nothing is told of others")
    enlarged = drawn / (drawn - 1)  # a bootstrap of few has too small a variance
    between = float(np.var(points, ddof=1)) / seeds
    over = float(draws.mean(axis=0).var(ddof=1)) * enlarged
    own = own_noise(draws) / seeds * enlarged
    videos = max(over - own, 0.0)
    variance = between + videos
    value, error = float(np.mean(points)), math.sqrt(variance)
    lost = between**2 / (seeds - 1) + videos**2 / (drawn - 1)
    freedom = variance**2 / lost if lost > 0 else math.inf
    interval = student_interval(value, error, freedom)
    return Difference(value, error, *interval, freedom, seeds, drawn, "seeds and videos")


@dataclass(frozen=True)
class Results:
    """The finished units of one set: what each says of itself, and its draws, by variant and seed."""

    about: dict[tuple[str, int], dict[str, Any]]
    draws: dict[tuple[str, int], dict[str, Float64[np.ndarray, " draws"]]]

    @property
    def variants(self) -> list[str]:
        """Those with any unit, in the order of worth."""
        return list(dict.fromkeys(variant for variant, _ in self.about))

    def seeds(self, *names: str) -> list[int]:
        """The seeds that all these variants have."""
        return sorted(set.intersection(*({s for v, s in self.about if v == name} for name in names)))

    def points(self, variant: str, condition: str, seeds: list[int]) -> Float64[np.ndarray, " seeds"]:
        """GAP in percent."""
        return np.array([self.about[variant, seed]["gap"][condition] for seed in seeds])

    def drawn(self, condition: str) -> int:
        """How many videos or people were drawn for each bootstrap sample."""
        return next(iter(self.about.values()))["drawn"]["part" if condition in PART else "all"]

    def compare(self, *terms: tuple[float, str, str]) -> Difference:
        """A signed sum of GAPs: weight, variant and condition of each, all of the same videos; paired by seed."""
        seeds = self.seeds(*(variant for _, variant, _ in terms))
        points = sum(weight * self.points(variant, condition, seeds) for weight, variant, condition in terms)
        draws = sum(weight * np.stack([self.draws[variant, seed][condition] for seed in seeds])
                    for weight, variant, condition in terms)  # fmt: skip
        return difference(np.asarray(points), np.asarray(draws), self.drawn(terms[0][2]))

    def maps(self, variant: str, number: str) -> float:
        """A number of the maps, mean over seeds."""
        return float(np.mean([self.about[variant, seed]["maps"][number] for seed in self.seeds(variant)]))


def read_results(folder: Path, kind: str = "units") -> Results:
    """The units in a set's ``trial`` folder, or those of its ``audit``.

    A DataError where one is not what the rules make, or of other videos.
    """
    rules = read_rules(folder / "rules.json")
    expected = variants(rules)
    found = {path: read_unit(path) for path in sorted((folder / kind).glob("*.parquet"))}
    first: tuple[Any, ...] = ()
    for path, (about, _) in found.items():
        # read as a loss: a switch that came later is off in the file, as it is by default
        if build(Control, about["parameters"]["loss"], str(path)) != expected.get(about["variant"]):
            raise DataError(
                f"{path}: its loss is not what {folder / 'rules.json'} makes; take it away and run it again"
            )
        if about["parameters"]["attack"]["epsilon"] != (epsilon := radius(rules, about["variant"])):
            raise DataError(f"{path}: attacked at another epsilon than {epsilon:g}, which the rules give; run it again")
        same = about["frames"], about["videos"], about["drawn"]
        if same != (first := first or same):
            raise DataError(f"{path}: about other videos than {next(iter(found))}; take it away and run it again")
    order = {name: place for place, name in enumerate(expected)}
    units = sorted(found.values(), key=lambda unit: (order[unit[0]["variant"]], unit[0]["seed"]))
    keys = [(about["variant"], about["seed"]) for about, _ in units]
    return Results(dict(zip(keys, (about for about, _ in units), strict=True)),
                   dict(zip(keys, (draws for _, draws in units), strict=True)))  # fmt: skip


def planned(results: Results) -> pd.DataFrame:
    """The planned comparisons that two or more seeds were run for: a row each.

    Returns:
        ``number, model, over, condition``; ``difference, low, high`` (points), ``error, freedom, p, seeds``; ``holm_p``
        of 1 to 3; for 4 ``margin`` and ``equivalence_p``; ``told``, the smallest difference told with a power of 80 %.
    """
    rows = []
    for number, model, over, condition in PLANNED:
        if len(results.seeds(model, over)) < 2:
            continue
        found = results.compare((1, model, condition), (-1, over, condition))
        row: dict[str, Any] = {"number": number, "model": model, "over": over, "condition": condition}
        row["difference"] = found.value
        row |= {name: getattr(found, name) for name in ("low", "high", "error", "freedom", "p", "seeds")}
        row["told"] = found.told(LEVEL / 3 if number < 4 else LEVEL)
        if number == 4 and len(results.seeds("non_art")) > 1:
            width = margin(results, condition)
            row |= {"margin": width, "equivalence_p": found.equivalent(width)}
        rows.append(row)
    table = pd.DataFrame(rows)
    if len(table):
        first = table["number"] < 4
        made = table.loc[first, "p"].to_numpy()
        # one that is not made yet counts among the three, as if it told nothing
        table.loc[first, "holm_p"] = holm(np.append(made, np.ones(3 - len(made))))[: len(made)]
    return table


def margin(results: Results, condition: str) -> float:
    """Twice the standard deviation over seeds of Non-ART's GAP."""
    return 2 * float(np.std(results.points("non_art", condition, results.seeds("non_art")), ddof=1))


def won_back(results: Results, variant: str, condition: str) -> Difference:
    """The share (percent) of the GAP that Non-ART loses to an attack and that a model wins back.

    The ratio of the means over seeds; its error is that of the ratio made linear at its value.
    """
    clean, other = CLEAN[condition], undefended(variant)
    gained = (1.0, variant, condition), (-1.0, other, condition)
    lost = (1.0, other, clean), (-1.0, other, condition)
    seeds = results.seeds(variant, other)
    top, bottom = (
        float(np.mean(sum(w * results.points(v, c, seeds) for w, v, c in terms))) for terms in (gained, lost)
    )
    ratio = top / bottom
    linear = results.compare(
        *((w / bottom, v, c) for w, v, c in gained), *((-ratio * w / bottom, v, c) for w, v, c in lost)
    )
    low, high = (100 * (ratio + end) for end in (linear.low, linear.high))
    return replace(linear, value=100 * ratio, error=100 * linear.error, low=low, high=high)
