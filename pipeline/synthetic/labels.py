"""Labels of the built-in synthetic videos: an invented vocabulary and the label set of each video.

A video first draws a vertical, then how many labels it has, then which of them stray to another vertical, then entities
inside each vertical by their popularity. Every constant below was fitted to the label sets of 57,975 released
YouTube-8M videos or to the 2018 vocabulary (``TrainVideoCount``), never to a model's result. What is not reproduced:
the finer hierarchy inside a vertical (a real video of "Car" always has "Vehicle" too), so label sets are more varied.
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from pipeline.base.atomic import atomic_file
from pipeline.base.groups import Synthetic
from pipeline.data.labels import NO_VERTICAL

COLUMNS = (
    *("Index", "TrainVideoCount", "KnowledgeGraphId", "Name", "WikiUrl"),
    *("Vertical1", "Vertical2", "Vertical3", "WikiDescription"),
)
# Vertical; entities that have it as Vertical1, and as Vertical2 or 3 (vocabulary); share of videos with any such entity
# (label sets). The pseudo-vertical (Unknown) is no vertical and never in second place.
VERTICALS = (
    ("Arts & Entertainment", 525, 3, 0.3986),
    ("Games", 734, 109, 0.2556),
    ("Sports", 167, 39, 0.1363),
    ("Autos & Vehicles", 466, 0, 0.1322),
    ("Computers & Electronics", 302, 10, 0.0781),
    ("Business & Industrial", 259, 28, 0.0780),
    ("Hobbies & Leisure", 132, 32, 0.0602),
    ("Science", 116, 100, 0.0577),
    ("Food & Drink", 278, 19, 0.0443),
    ("Shopping", 116, 49, 0.0418),
    ("Pets & Animals", 150, 15, 0.0398),
    ("Beauty & Fitness", 86, 0, 0.0357),
    ("Travel", 48, 31, 0.0303),
    ("Home & Garden", 120, 31, 0.0293),
    ("Internet & Telecom", 26, 41, 0.0244),
    ("Law & Government", 32, 14, 0.0223),
    ("News", 18, 25, 0.0158),
    ("Reference", 41, 23, 0.0140),
    ("People & Society", 46, 25, 0.0115),
    (NO_VERTICAL, 138, 0, 0.0105),
    ("Real Estate", 6, 2, 0.0066),
    ("Books & Literature", 20, 18, 0.0065),
    ("Jobs & Education", 12, 1, 0.0056),
    ("Health", 14, 1, 0.0022),
    ("Finance", 10, 0, 0.0011),
)
NAMES = tuple(row[0] for row in VERTICALS)
FULL_SIZE = 3862  # entities of YouTube-8M, 2018
SEVERAL, THREE = 584, 32  # of them with more than one vertical, and with three
# Videos with 1, 2, ... 19 labels among the 57,975 (mean 3.005).
LABEL_COUNTS = (14333, 13073, 10803, 9031, 5101, 2690, 1475, 725, 372, 186, 97, 49, 20, 7, 6, 2, 4, 0, 1)
POPULARITY = (1.3, 0.6, 2e-4)  # a, b, c: entity k of a vertical has weight (k + b) ** -a + c (TrainVideoCount by rank)
# Beta law of a video's chance that a further label stays in its vertical (videos of one vertical, by number of labels).
STAY = (0.80, 0.36)
THIRD = 0.2  # chance that a straying label goes to a third vertical (share of videos with three or more)

LABELS = np.array(LABEL_COUNTS) / sum(LABEL_COUNTS)  # (19,) chance of 1, 2, ... labels
GAP = 1.5  # with a floor, every vertical but the smallest gets at least this many floors, so that it stays the smallest
HEAD = 3  # a vertical's most popular entities keep one vertical; in YouTube-8M, too, the frequent ones rarely have two


@dataclass(frozen=True)
class SyntheticVocabulary:
    """The invented entities, most frequent first, and how often a synthetic video takes what."""

    names: tuple[str, ...]
    primary: Int64[np.ndarray, " entities"]  # first vertical, an index of NAMES
    extra: tuple[tuple[int, ...], ...]  # the others
    weight: Float64[np.ndarray, " entities"]  # popularity inside the first vertical
    share: Float64[np.ndarray, " entities"]  # expected fraction of videos that carry it
    topic: Float64[np.ndarray, " verticals"]  # distribution of a video's own vertical

    def verticals(self, entity: int) -> tuple[int, ...]:
        """Indices into :data:`NAMES` of the one to three verticals of an entity, its own first."""
        return (int(self.primary[entity]), *self.extra[entity])


def make_vocabulary(config: Synthetic, *, seed: int) -> SyntheticVocabulary:
    """Invent the entities and find the topic distribution that gives the verticals their shares of the videos.

    As in YouTube-8M 3,278, 552 and 32 of 3,862 entities have one, two and three verticals; a smaller vocabulary
    keeps the proportions, and every vertical has an entity.
    """
    rng = np.random.default_rng([seed, 0])
    sizes = _apportion(config.entities, [row[1] for row in VERTICALS], least=1)
    primary = np.repeat(np.arange(len(NAMES)), sizes)
    rank = np.concatenate([np.arange(size) for size in sizes])
    weight = (rank + POPULARITY[1]) ** -POPULARITY[0] + POPULARITY[2]
    at_home, away, visits = _inclusion(weight, sizes)
    target = target_shares(config.rare_vertical_floor)
    topic = target / target.sum()
    extra = _extra_verticals(rng, primary, rank, topic[primary] * at_home, target)
    for _ in range(50):  # a fixed point: topic -> shares of videos, strays and second verticals included -> topic
        second = topic * ((topic / (1 - topic)).sum() - topic / (1 - topic))  # (verticals,) drawn after another topic
        share = topic[primary] * at_home + second[primary] * away  # (entities,)
        absent = 1 - topic - second * visits
        for entity, others in enumerate(extra):
            for vertical in others:
                absent[vertical] *= 1 - share[entity]
        topic = np.maximum(topic * target / (1 - absent), 0.2 * target)  # second verticals alone never make a share
        topic /= topic.sum()
    order = np.argsort(-share, kind="stable")
    names, further = tuple(_names(rng, len(order))), tuple(extra[entity] for entity in order)
    return SyntheticVocabulary(names, primary[order], further, weight[order], share[order], topic)


def target_shares(floor: float) -> Float64[np.ndarray, " verticals"]:
    """Share of the videos that should have each vertical: YouTube-8M's, raised to ``floor`` where they are smaller.

    The smallest vertical (Finance) gets the floor itself and every other at least 1.5 times as much, so the smallest
    stays the smallest in any sample worth using. A floor above 0 is a deliberate deviation from YouTube-8M: with the
    real share of 0.1 % a small synthetic test set would hold a handful of Finance videos.
    """
    shares = np.array([row[3] for row in VERTICALS])
    return np.maximum(shares, np.where(shares == shares.min(), floor, GAP * floor))


def draw_label_sets(
    vocabulary: SyntheticVocabulary, rng: np.random.Generator, videos: int
) -> list[Int64[np.ndarray, " labels"]]:
    """Label sets of ``videos`` synthetic videos: sorted entity indices, none repeated, none empty.

    The videos' own verticals are stratified (their counts are the expected ones, up to rounding), so that a rare
    vertical is as frequent in one shard as in the next. A vertical asked for more entities than it has gives all.
    """
    position = (np.arange(videos) + rng.random()) / videos
    own = rng.permutation(np.searchsorted(np.cumsum(vocabulary.topic)[:-1], position))  # (videos,)
    labels = 1 + rng.choice(len(LABELS), size=videos, p=LABELS)  # (videos,)
    strays = rng.binomial(labels - 1, 1 - rng.beta(*STAY, size=videos))
    third = rng.binomial(strays, THIRD)
    ticket = np.log(vocabulary.topic) + rng.gumbel(size=(videos, len(NAMES)))  # (videos, verticals)
    ticket[np.arange(videos), own] = -np.inf
    others = np.argsort(-ticket, axis=1)[:, :2]  # (videos, 2) distinct, in proportion to topic

    counts = np.zeros((videos, len(NAMES)), dtype=int)  # (videos, verticals) entities that a video takes from each
    rows = np.arange(videos)
    counts[rows, own] = labels - strays
    counts[rows, others[:, 0]] = strays - third
    counts[rows, others[:, 1]] += third
    sets: list[list[int]] = [[] for _ in range(videos)]
    for vertical in range(len(NAMES)):
        entities = np.flatnonzero(vocabulary.primary == vertical)
        takers = np.flatnonzero(counts[:, vertical])
        keys = np.log(vocabulary.weight[entities]) + rng.gumbel(size=(len(takers), len(entities)))
        drawn = entities[np.argsort(-keys, axis=1)]  # (takers, entities) without replacement, popular ones first
        for video, row in zip(takers, drawn, strict=True):
            sets[video].extend(row[: counts[video, vertical]].tolist())
    return [np.array(sorted(labels), dtype=np.int64) for labels in sets]


def write_vocabulary(path: Path, vocabulary: SyntheticVocabulary, train_videos: int) -> None:
    """Write the vocabulary with YouTube-8M's columns; ``TrainVideoCount`` is the expected count, at least 1."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for index, name in enumerate(vocabulary.names):
            verticals = [NAMES[vertical] for vertical in vocabulary.verticals(index)]
            count = max(1, round(train_videos * float(vocabulary.share[index])))
            text = f"{name} is an invented entity of the synthetic data."
            writer.writerow(
                [index, count, f"/m/synthetic{index:04d}", name, "", *verticals, *[""] * (3 - len(verticals)), text]
            )


def _apportion(total: int, weights: list[int], least: int) -> Int64[np.ndarray, " parts"]:
    """Split ``total`` in proportion to ``weights`` (largest remainders), every part at least ``least``."""
    exact = np.array(weights) * (total / sum(weights))
    parts = np.maximum(np.floor(exact), least).astype(np.int64)
    while parts.sum() != total:
        step = 1 if parts.sum() < total else -1
        parts[np.argmax(np.where(parts + step >= least, step * (exact - parts), -np.inf))] += step
    return parts


def _inclusion(weight: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Chance of each entity in a video of its vertical and in one that strays there, and strays' verticals a video.

    Drawing c of a vertical's entities without replacement by weight w is waiting for the first c of exponential clocks
    with rates w; by then an entity has rung with chance about 1 - exp(-t w), t such that the chances add up to c.
    """
    count = np.arange(1, len(LABELS) + 1)  # (19,) entities asked of one vertical
    home, away = np.zeros((2, len(count)))  # (19,) chance of that many at home; expected verticals elsewhere
    for labels, chance in enumerate(LABELS, start=1):
        for strays in range(labels):
            both = chance * _beta_binomial(labels - 1, strays)
            home[labels - strays - 1] += both
            for third in range(strays + 1):
                split = both * math.comb(strays, third) * THIRD**third * (1 - THIRD) ** (strays - third)
                for taken in (third, strays - third):
                    if taken:
                        away[taken - 1] += split
    at_home, elsewhere = [], []
    for start, size in zip(np.cumsum(sizes) - sizes, sizes, strict=True):
        rates = weight[start : start + size]
        low, high = np.zeros((len(count), 1)), np.full((len(count), 1), 1e6)
        for _ in range(60):
            middle = (low + high) / 2
            enough = (1 - np.exp(-middle * rates)).sum(axis=1, keepdims=True) >= np.minimum(count, size - 1e-3)[:, None]
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        chance = 1 - np.exp(-high * rates)  # (19, size)
        at_home.append(home @ chance)
        elsewhere.append(away @ chance)
    return np.concatenate(at_home), np.concatenate(elsewhere), float(away.sum())


def _beta_binomial(trials: int, strays: int) -> float:
    """Chance that ``strays`` of a video's ``trials`` further labels leave its vertical."""

    def log_beta(stay: float, leave: float) -> float:
        return math.lgamma(stay) + math.lgamma(leave) - math.lgamma(stay + leave)

    drawn = log_beta(STAY[0] + trials - strays, STAY[1] + strays)
    return math.comb(trials, strays) * math.exp(drawn - log_beta(*STAY))


def _extra_verticals(
    rng: np.random.Generator, primary: np.ndarray, rank: np.ndarray, popularity: np.ndarray, target: np.ndarray
) -> list[tuple[int, ...]]:
    """Second and third verticals. A vertical gets them from entities so rare that they cannot swamp its share.

    All are (entities,), and ``target`` (verticals,).
    """
    total = len(primary)
    several, three = round(SEVERAL * total / FULL_SIZE), round(THREE * total / FULL_SIZE)
    wanted = [row[2] for row in VERTICALS]
    slots = rng.permutation(np.repeat(np.arange(len(NAMES)), _apportion(several + three, wanted, least=0)))
    limit = 0.6 * target / np.maximum(wanted, 1) * FULL_SIZE / total  # (verticals,)
    extra: list[tuple[int, ...]] = [()] * total
    held = np.zeros(total, dtype=int)
    allowed = (rank >= HEAD) & (primary != NAMES.index(NO_VERTICAL))
    for number, vertical in enumerate(slots):
        open_to = allowed & (primary != vertical) & (held == (number >= several))
        open_to &= np.array([vertical not in others for others in extra])
        rare = open_to & (popularity <= limit[vertical])
        rarest = np.where(open_to, popularity, np.inf).argmin()  # for vocabularies so small that none is rare enough
        entity = rng.choice(np.flatnonzero(rare)) if rare.any() else rarest
        extra[entity] += (int(vertical),)
        held[entity] += 1
    return extra


def _names(rng: np.random.Generator, count: int) -> Iterator[str]:
    """Invented, pronounceable, unique names of three or four syllables."""
    onsets = [*"bdfgklmnprstvz", "br", "dr", "gr", "kl", "pl", "sk", "st", "tr"]
    vowels, codas = [*"aeiou"], ["", "", "", "n", "r", "l", "x"]
    seen: set[str] = set()
    while len(seen) < count:
        syllables = [rng.choice(onsets) + rng.choice(vowels) + rng.choice(codas) for _ in range(rng.integers(3, 5))]
        name = "".join(syllables).capitalize()
        if name not in seen:
            seen.add(name)
            yield name
