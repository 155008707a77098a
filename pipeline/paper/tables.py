"""Tables 1-3 from predictions files: ours beside the paper's. Trainings' histories tell what weight a term had.

A partition of the test set (the ± of Table 1) and a vertical (Tables 2-3) are choices of rows of a predictions file, so
nothing here runs a model. Gains are A-ART minus Non-ART, ours and the paper's alike.
"""

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from jaxtyping import Integer

from artpaper import metrics
from pipeline.base.errors import DataError
from pipeline.base.groups import Tables
from pipeline.base.parameters import Params
from pipeline.data.labels import LabelSpace
from pipeline.paper import paper, render
from pipeline.paper.render import PaperTables, write_tables
from pipeline.paper.style import model_title, save_metrics
from pipeline.predict.files import check_comparable
from pipeline.predict.predictions import LISTS, Predictions, read_predictions
from pipeline.train.history import attention_share

CELLS = ["table", "group", "metric", "split", "column", "ours", "std", "seed_std"]
CELLS += ["paper", "paper_std", "difference", "n", "seeds", "partitions"]
OVER = ("non_art", "art")  # models that each model's figure is compared with, seed by seed
CELLS += [f"over_{base}{end}" for base in OVER for end in ("", "_error")]
Key = tuple[str, str]  # metric and split
Values = dict[str, dict[Key, np.ndarray]]  # model -> percent (seeds, 3 + partitions): all, the two groups, the parts


def tables(params: Params, workspace: Path) -> Path:
    """Make Tables 1-3 of a workspace in ``tables/``, which it returns, and for ``dvc metrics`` in ``metrics/``."""
    runs = {model: [f"{model}/seed{seed}" for seed in params.experiment.seeds] for model in params.experiment.models}
    files = {model: [workspace / "predictions" / run / "one_step.parquet" for run in runs[model]] for model in runs}
    models = workspace / "models"
    weights = {
        model: (
            beta,
            float(np.mean([attention_share(models / run / "history.csv", beta) for run in runs[model]])),
        )
        for model in runs
        if (beta := params.models[model].beta)
    }
    space = workspace / "frames" / "label_space.json"
    paper_tables = make_tables(files, space, params.tables, params.base.seed, weights)
    write_tables(paper_tables, workspace / "tables")
    for name, rows in paper_tables.metrics.items():
        save_metrics(rows, workspace / "metrics" / name)
    return workspace / "tables"


def make_tables(
    predictions: Mapping[str, Sequence[str | Path]], label_space: str | Path, config: Tables, split_seed: int,
    weights: Mapping[str, tuple[float, float]] | None = None,
) -> PaperTables:  # fmt: skip
    """Compute Tables 1-3 from the predictions files of each model, one a seed.

    The paper's models are non_art, art and a_art; others get columns of their own, and those trained on one vertical
    (``art_...`` for ART) a table of their own. ``label_space`` is that of the frames that were predicted. ``weights``:
    of each model with an attention term its beta, and the term's share of the rest of the loss as training ended.
    """
    space, weights = LabelSpace.load(label_space), weights or {}
    files = ((model, read_predictions(path)) for model, paths in predictions.items() for path in paths)
    named, first = next(files, (None, None))
    if named is None or first is None:
        raise DataError("no predictions files given; make them with `dvc repro`")
    groups = _groups(first, space)
    parts = partitions(first.ids.to_pylist(), config.partitions, split_seed)
    members = [np.arange(len(first.ids)), *groups.values(), *parts]
    measured: dict[str, list[dict[Key, np.ndarray]]] = defaultdict(list)
    diagnostics: dict[str, list[pd.DataFrame]] = defaultdict(list)
    seeds: dict[str, list[int]] = defaultdict(list)
    verticals: dict[str, str] = {}
    for model, file in itertools.chain([(named, first)], files):
        _check_alike(file, first, model, space)
        measured[model].append(_measure(file, members))
        diagnostics[model].append(file.diagnostics)
        seeds[model].append(file.seed)
        if file.vertical is not None:
            verticals[model] = file.vertical
    shared = next(iter(seeds.values()))
    if any(own != shared or len(set(own)) < len(own) for own in seeds.values()):
        raise DataError(f"every model needs the same seeds, each once, but they have different seeds: {dict(seeds)}")

    values: Values = {
        model: {key: np.stack([run[key] for run in runs]) for key in runs[0]} for model, runs in measured.items()
    }
    paper.check_columns({model: verticals.get(model) for model in values}, groups)
    whole = [model for model in values if model not in verticals]
    complete: list[render.Table] = []
    figures = {}
    for number, group, rows in zip((1, 2, 3), (None, *groups), members, strict=False):
        printed = group in (None, paper.GROUPS.get(number))
        size = (number, group, len(rows))
        retrained = _retrained(group, verticals)
        for second, chosen in ((False, {model: model for model in whole}), (True, retrained)):
            if not chosen:
                continue
            caption = render.describe(*size, config.partitions, shared, first.settings, space.note, second)
            attacked = {
                model_title(column): [run.iloc[rows] for run in diagnostics[model]] for column, model in chosen.items()
            }
            weighed = {model_title(name): weights[model] for name, model in chosen.items() if model in weights}
            notes = render.notes(number, len(rows), printed, attacked, weighed)
            cells = _cells(*size, printed, {column: values[model] for column, model in chosen.items()}, len(members[0]))
            complete.append(render.Table(number, caption, notes, cells, second))
            if not second:
                figures[f"table{number}"] = _metrics(cells, chosen, attacked)
    return PaperTables(tuple(complete), figures)


def partitions(ids: Sequence[str], count: int, seed: int) -> list[Integer[np.ndarray, " _"]]:
    """The rows of ``count`` disjoint parts of the videos, split by a seeded hash of their ids, whatever their order.

    The sizes of the parts differ by one at most.
    """
    if len(ids) < count:
        raise DataError(f"{len(ids)} test videos cannot make {count} partitions; lower tables.partitions")
    key = f"partitions {seed}".encode()
    digests = [hashlib.blake2b(name.encode(), key=key, digest_size=16).digest() for name in ids]
    order = np.array(sorted(range(len(ids)), key=digests.__getitem__))  # (videos,)
    return [order[part::count] for part in range(count)]


def _retrained(group: str | None, verticals: Mapping[str, str]) -> dict[str, str]:
    """The paper's models and, for each, the model of that kind which was trained on ``group`` alone."""
    return {
        base: model
        for base in paper.MODELS
        for model, vertical in verticals.items()
        if vertical == group and model.startswith(f"{base}_")
    }


def _groups(file: Predictions, space: LabelSpace) -> dict[str, np.ndarray]:
    """The rows of the groups of Tables 2 and 3: videos with at least one of the group's classes, maybe none."""
    names = paper.table_groups(file.settings["data source"], itertools.chain.from_iterable(space.groups))
    owners, classes = pc.list_parent_indices(file.labels).to_numpy(), file.labels.flatten()  # (labels,) each
    members = {name: space.members(name) if name in space.group_names else () for name in names.values()}
    return {name: np.unique(owners[np.isin(classes, wanted)]) for name, wanted in members.items()}


def _check_alike(file: Predictions, first: Predictions, model: str, space: LabelSpace) -> None:
    if file.model != model:
        raise DataError(f"{file.path}: holds model {file.model}, expected {model}")
    if (file.settings["label space"], file.settings["classes"]) != (space.name, len(space.classes)):
        raise DataError(
            f"{file.path}: label space {file.settings['label space']} of {file.settings['classes']} classes, "
            f"but the frames' is {space.name} of {len(space.classes)}"
        )
    check_comparable([(one.path, one.settings, one.ids) for one in (first, file)], file.settings)
    if not file.labels.equals(first.labels):
        raise DataError(f"{file.path} and {first.path} hold different labels; make both anew with `dvc repro`")


def _measure(file: Predictions, members: list[np.ndarray]) -> dict[Key, np.ndarray]:
    """(metric, split) -> percent on each set of rows (sets,); NaN for a set without videos."""
    empty = np.full(len(members), np.nan)
    values = {(metric, split): empty.copy() for metric in paper.METRICS for split in LISTS}
    for split, lists in file.lists.items():
        for place, rows in enumerate(members):
            if len(rows):
                top, right, positives = (part[rows] for part in lists)
                values["GAP", split][place] = metrics.gap_from_top(top, right[:, : top.shape[1]], positives)
                values["PERR", split][place] = metrics.perr_from_top(right, positives)
                values["Hit@1", split][place] = metrics.hit_at_1_from_top(right)
    return {key: 100 * value for key, value in values.items()}


def _cells(number: int, group: str | None, videos: int, printed: bool, values: Values, total: int) -> pd.DataFrame:
    """A table in long format, the paper's columns first."""
    seeds, sets = next(iter(next(iter(values.values())).values())).shape
    extra = [model for model in values if model not in paper.MODELS]
    rows = []
    for metric in paper.METRICS:
        for split in paper.SPLITS:
            for column in (*paper.MODELS, paper.GAIN, *extra):
                ours, std, seed_std = _summary(_column(values, column, (metric, split)), number)
                mean, spread = paper.row(number, metric, split).value(column) if printed else (np.nan, np.nan)
                place = (number, group or "all", metric, split, model_title(column))
                over = [_over(values, column, base, (metric, split), number, videos, total) for base in OVER]
                rows.append((*place, ours, std, seed_std, mean, spread, ours - mean, videos, seeds, sets - 3,
                             *itertools.chain.from_iterable(over)))  # fmt: skip
    cells = pd.DataFrame(rows, columns=CELLS)
    floats = cells.select_dtypes("float").columns
    cells[floats] = cells[floats].round(6) + 0.0  # the same digits on every machine, and no -0
    return cells


def _metrics(
    cells: pd.DataFrame, models: Iterable[str], diagnostics: Mapping[str, Sequence[pd.DataFrame]]
) -> dict[str, dict[str, Any]]:
    """For ``dvc metrics`` a row a model: its figures, and what the attack did to these videos; without any, neither."""
    first = cells.iloc[0]
    rows: dict[str, dict[str, Any]] = {}
    for model in models:
        row: dict[str, Any] = {"group": str(first["group"]), "videos": int(first["n"])}
        own = cells[cells["column"] == model_title(model)].dropna(subset="ours")
        for cell in own.to_dict("records"):
            attacked = "_attacked" if cell["split"] == "adversarial" else ""
            row[cell["metric"].lower().replace("@", "_at_") + attacked] = cell["ours"]
        if first["n"]:
            row |= (100 * pd.concat(diagnostics[model_title(model)]).astype(float).mean()).round(6).to_dict()
        rows[model] = row
    return rows


def _over(
    values: Values, column: str, base: str, key: Key, number: int, videos: int, total: int
) -> tuple[float, float]:
    """How much a model's value exceeds another's, and the standard error of that: over seeds, or with one over videos.

    The latter is the spread over Table 1's partitions, scaled to the number of videos.
    """
    if column == base or column == paper.GAIN or base not in values or column not in values:
        return np.nan, np.nan
    over = values[column][key] - values[base][key]  # (seeds, sets)
    whole, parts = over[:, number - 1], over[:, 3:]
    if len(whole) > 1:
        return whole.mean(), whole.std(ddof=1) / np.sqrt(len(whole))
    return whole.mean(), parts.std(ddof=1) * np.sqrt(total / parts.shape[1] / max(1, videos))


def _column(values: Values, column: str, key: Key) -> np.ndarray:
    """A model's values, or the gain's, paired by seed and set of rows (seeds, sets); NaN for a model we lack."""
    if column == paper.GAIN:
        return _column(values, "a_art", key) - _column(values, "non_art", key)
    some = next(iter(values.values()))[key]
    return values[column][key] if column in values else np.full_like(some, np.nan)


def _summary(values: np.ndarray, number: int) -> tuple[float, float, float]:
    """What a cell shows: value, standard deviation over partitions (Table 1 only) and over seeds, each with ddof 1."""
    whole = values[:, number - 1]  # (seeds,)
    seed_std = whole.std(ddof=1) if len(whole) > 1 else np.nan
    if number > 1:
        return whole.mean(), np.nan, seed_std
    parts = values[:, 3:]  # (seeds, partitions)
    return parts.mean(), parts.std(axis=1, ddof=1).mean(), seed_std
