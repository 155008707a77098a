"""How far videos must move to fool each model, from DeepFool files alone: the numbers of Figure 4 (section 3.2.4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Float64

from artpaper.attacks.result import FLAGS
from pipeline.base.errors import DataError
from pipeline.predict.bootstrap import bootstrap_counts
from pipeline.predict.deepfool import CRITERIA, SCHEMA
from pipeline.predict.files import DAMAGED, check_comparable, read_file

COLUMNS = ["id", "criterion", "norm", "relative_norm", "iterations", "zero_gradient", "already_wrong", "fooled", *FLAGS]
SHARED = ("source", "split", "label_space", "feature_norm", "max_frames", "deepfool", "test_videos")
CHUNK = 4_000_000  # entries of the resampling counts that are multiplied at once


@dataclass(frozen=True)
class Robustness:
    """DeepFool results side by side, every model about the same videos.

    ``columns`` has per criterion and column of the files an array (models, seeds, videos); ``already_wrong`` is True
    only where nothing was moved, ``fooled`` never where it is, ``not_fooled`` is the rest.
    """

    models: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: dict[str, Any]  # what all files share
    columns: dict[str, dict[str, np.ndarray]]


def read_robustness(files: Mapping[str, Sequence[str | Path]]) -> Robustness:
    """Read the DeepFool files of each model, one a seed, and check that they can be compared."""
    read = {model: [_read(Path(path), model) for path in paths] for model, paths in files.items()}
    every = [file for runs in read.values() for file in runs]
    if not every:
        raise DataError("no DeepFool files given; make them with `dvc repro`")
    _, first_note, first = every[0]
    check_comparable([(path, note, table.index) for path, note, table in every], (*SHARED, DAMAGED))
    seeds = {model: tuple(int(note["seed"]) for _, note, _ in runs) for model, runs in read.items()}
    shared = next(iter(seeds.values()))
    if any(own != shared for own in seeds.values()) or len(set(shared)) < len(shared):
        raise DataError(f"every model needs the same seeds, each once, not {seeds}")
    present = set(first.index.get_level_values("criterion"))
    columns = {}
    for criterion in (name for name in CRITERIA if name in present):
        parts = [[table.xs(criterion, level="criterion") for _, _, table in runs] for runs in read.values()]
        arrays = {name: np.stack([[part[name].to_numpy() for part in runs] for runs in parts]) for name in COLUMNS[2:]}
        arrays["already_wrong"] = arrays["already_wrong"] & (arrays["norm"] == 0)
        arrays["fooled"] = arrays["fooled"] & ~arrays["already_wrong"]
        arrays["no_result"] = np.any([arrays[name] for name in FLAGS], axis=0)
        arrays["not_fooled"] = ~(arrays["fooled"] | arrays["already_wrong"] | arrays["no_result"])
        columns[criterion] = arrays
    settings = {name: first_note[name] for name in (*SHARED, DAMAGED)}
    return Robustness(tuple(files), shared, settings, columns)


def _read(path: Path, model: str) -> tuple[Path, dict[str, Any], pd.DataFrame]:
    fields = pa.schema([SCHEMA.field(name) for name in COLUMNS])
    table, note = read_file(path, fields, ("attack", "model", "seed", *SHARED), "DeepFool file")
    if note["attack"] != "deepfool":
        raise DataError(f"{path}: not a DeepFool file: it is about the attack {note['attack']}")
    if note["model"] != model:
        raise DataError(f"{path}: holds model {note['model']}, expected {model}")
    rows = table.to_pandas().set_index(["criterion", "id"]).sort_index()
    unknown = set(rows.index.get_level_values("criterion")) - set(CRITERIA)
    if unknown or rows.index.has_duplicates or rows[["norm", "relative_norm"]].isna().any(axis=None):
        why = f"criteria {sorted(unknown)}" if unknown else "a video twice, or NaN"
        raise DataError(f"{path}: holds {why}; delete it and make it anew with `dvc repro`")
    return path, {DAMAGED: []} | note, rows


def robustness_table(files: Mapping[str, Sequence[str | Path]], resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Mean minimal perturbations with confidence intervals, and whether one model's exceed another's.

    A video counts for ``mean_rho`` when it had to be moved and was fooled. One that the model was wrong about needs no
    perturbation, and one that outlasted the attack needs more than was tried: they are counted beside the mean, for a
    0 or a bound in it would make it depend on clean accuracy and on the number of steps. ``mean_rho_all`` has them in.

    Returns:
        A row per criterion, model and seed, and one with seed "all", the mean over seeds: ``videos``; numbers of those
        ``already_wrong``, ``not_fooled`` and (of all) with ``zero_gradient``; over fooled videos ``mean_rho`` (a share
        of the video's L2 norm) with its 95 % interval ``ci_low`` and ``ci_high``, ``median_rho``, ``mean_norm`` (unit
        of the normalised features) and ``mean_iterations``; over all videos ``mean_rho_all``; on "all" ``seed_std``,
        the standard deviation of ``mean_rho`` over seeds (ddof 1). Paired differences of rho from the first model
        (``difference``) and from ART (``art_difference``) over the videos that were fooled for both (``pairs``,
        ``art_pairs``), each with ``_low`` and ``_high``. NaN where there is nothing to average. Intervals tell the
        chance in the choice of videos, not in the training.
    Source: percentile bootstrap, Efron and Tibshirani 1993, chapter 13.
    """
    results = read_robustness(files)
    rows: list[dict[str, Any]] = []
    for criterion, columns in results.columns.items():
        rho, fooled = columns["relative_norm"], columns["fooled"]  # (models, seeds, videos) each
        bases = {"": 0} | ({"art_": results.models.index("art")} if "art" in results.models else {})
        values, chosen = [rho], [fooled]
        for base in bases.values():
            values.append(rho - rho[base])
            chosen.append(fooled & fooled[base])
        samples = bootstrap_means(np.stack(values), np.stack(chosen), resamples, seed)  # (samples, 1 + bases, M, S)
        middle = _means(np.stack(values), np.stack(chosen))  # (1 + bases, models, seeds)
        for place, model in enumerate(results.models):
            by_name = {str(seed): [run] for run, seed in enumerate(results.seeds)}
            for name, part in (by_name | {"all": list(range(len(results.seeds)))}).items():
                row: dict[str, Any] = {"criterion": criterion, "model": model, "seed": name, "videos": rho.shape[-1]}
                row |= _mean([_row(columns, place, run) for run in part])
                row["ci_low"], row["ci_high"] = _interval(samples[:, 0, place, part])
                row["seed_std"] = float(np.std(middle[0, place], ddof=1)) if len(part) > 1 else np.nan
                for number, (prefix, base) in enumerate(bases.items(), start=1):
                    compared = place != base and not np.isnan(middle[number, place, part]).all()
                    low, high = _interval(samples[:, number, place, part]) if compared else (np.nan, np.nan)
                    row[f"{prefix}difference"] = float(middle[number, place, part].mean()) if compared else np.nan
                    row |= {f"{prefix}difference_low": low, f"{prefix}difference_high": high}
                    pairs = float(chosen[number][place, part].sum(axis=-1).mean())
                    row[f"{prefix}pairs"] = pairs if place != base else np.nan
                rows.append(row)
    return pd.DataFrame(rows)


def bootstrap_means(
    values: Float64[np.ndarray, "*quantities videos"], chosen: Bool[np.ndarray, "*quantities videos"],
    resamples: int, seed: int,
) -> Float64[np.ndarray, "samples ..."]:  # fmt: skip
    """Means of each quantity over its chosen videos, in samples of the videos drawn with replacement.

    Every quantity sees the same samples, so differences of quantities are paired. NaN where no chosen video was drawn.
    """
    *shape, videos = values.shape
    sums = np.where(chosen, values, 0).reshape(-1, videos).T  # (videos, quantities)
    counted = chosen.reshape(-1, videos).T.astype(float)  # (videos, quantities)
    means = np.empty((resamples, sums.shape[1]))
    counts, size = bootstrap_counts(videos, resamples, seed), max(1, CHUNK // videos)
    for start in range(0, resamples, size):
        weights = counts[start : start + size].astype(float)
        total = weights @ counted  # (rows, quantities)
        means[start : start + size] = np.divide(weights @ sums, total, out=np.full_like(total, np.nan), where=total > 0)
    return means.reshape(resamples, *shape)


def _means(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Means over the chosen videos of the last axis, NaN without any."""
    total = chosen.sum(axis=-1).astype(float)
    return np.divide(np.where(chosen, values, 0).sum(axis=-1), total, out=np.full_like(total, np.nan), where=total > 0)


def _interval(samples: np.ndarray) -> tuple[float, float]:
    """95 % of the samples' means over seeds (samples, seeds)."""
    means = samples.mean(axis=1)
    means = means[~np.isnan(means)]
    if not len(means):
        return np.nan, np.nan
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def _row(columns: Mapping[str, np.ndarray], model: int, run: int) -> dict[str, float]:
    """What one DeepFool file says under one criterion."""
    own = {name: values[model, run] for name, values in columns.items()}
    rho, fooled = own["relative_norm"], own["fooled"]
    row = {name: float(own[name].sum()) for name in ("already_wrong", "not_fooled", "zero_gradient")}
    row |= {"mean_rho": float(_means(rho, fooled)), "ci_low": np.nan, "ci_high": np.nan}
    row["median_rho"] = float(np.median(rho[fooled])) if fooled.any() else np.nan
    row["mean_rho_all"] = float(_means(np.where(own["already_wrong"], 0, rho), ~own["no_result"]))
    row |= {f"mean_{name}": float(_means(own[name], fooled)) for name in ("norm", "iterations")}
    return row


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def robustness_metrics(table: pd.DataFrame) -> dict[str, dict[str, int | float]]:
    """For ``dvc metrics`` the mean rho under each criterion, over all seeds, in percent; a row a model."""
    rows: dict[str, dict[str, int | float]] = {}
    for means in table[table["seed"] == "all"].to_dict("records"):
        row = rows.setdefault(means["model"], {"videos": int(means["videos"])})
        if pd.notna(means["mean_rho"]):
            row[f"rho_{means['criterion']}"] = round(100 * means["mean_rho"], 6)
    return rows
