"""How far videos must move to fool each model, from DeepFool files alone: Figure 4 and its table (section 3.2.4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from artpaper.attacks.result import FLAGS
from pipeline.base.errors import DataError
from pipeline.paper.style import (
    DATA,
    ModelStyle,
    count_text,
    left_out,
    markdown_table,
    model_styles,
    model_title,
    number_or_dash,
    panels,
    save_table,
    save_text,
    seeds_text,
    wrapped,
)
from pipeline.predict.bootstrap import bootstrap_counts
from pipeline.predict.deepfool import CRITERIA, SCHEMA
from pipeline.predict.files import DAMAGED, check_comparable, read_file

COLUMNS = ["id", "criterion", "norm", "relative_norm", "iterations", "zero_gradient", "already_wrong", "fooled", *FLAGS]
SHARED = ("source", "split", "label_space", "feature_norm", "max_frames", "deepfool", "test_videos")
CHUNK = 4_000_000  # entries of the resampling counts that are multiplied at once
FEW = 30  # with fewer videos a criterion is left to the table
POINTS = 500  # of a curve, evenly spaced over the videos
MEANING = {
    "top1_change": "the top label changes, whatever the true ones are (the paper's Figure 4)",
    "hit1_loss": "the top label is no longer a true one (the headline where labels are nested)",
    "threshold": "any label crosses probability 0.5",
    "multilabel": "all true labels leave, the others stay (Song et al. 2018)",
}
READING = {
    "videos": "asked about, the same for every model.",
    "already wrong": "wrong before any attack, so rho is 0; not in *mean rho*.",
    "not fooled": "not fooled when the steps ran out: rho is larger than what was tried; not in *mean rho*.",
    "zero gradient": "videos that had no way to go.",
    "mean rho": "L2 norm of the minimal perturbation over that of the video, mean over the fooled videos, with its "
    "95 % bootstrap interval over videos.",
    "median": "the same, median.",
    "over all": "mean over all videos, the already wrong as 0, the not fooled at what was tried.",
    "norm": "of the perturbation itself, mean over the fooled videos, unit of the normalised features.",
    "steps": "iterations, mean over the fooled videos.",
    "more than FIRST": "rho minus FIRST's, mean over the videos that were fooled for both, in points of percent. An "
    "interval that holds 0 shows no difference. It need not be the difference of the means, which are of other videos.",
    "more than ART": "the same against ART.",
}


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


def robustness_figure(files: Mapping[str, Sequence[str | Path]], table: pd.DataFrame) -> Figure:
    """Figure 4 for each criterion: above the means with their intervals, below how the videos are spread.

    The curves count every video: they begin at the share that was already wrong and end at the share that was fooled. A
    criterion with fewer than :data:`FEW` videos is left out. All seeds are pooled in the
    curves.
    """
    results = read_robustness(files)
    videos = {criterion: columns["fooled"].shape[-1] for criterion, columns in results.columns.items()}
    shown = [criterion for criterion, count in videos.items() if count >= FEW] or list(videos)
    styles = model_styles(results.models)
    size = (1.2 + max(3.3, 0.95 * len(results.models)) * len(shown), 7)
    figure, grid = panels(2, len(shown), size, squeeze=False, height_ratios=(1.2, 1))
    for (above, below), criterion in zip(grid.T, shown, strict=True):
        rows = table[table["criterion"] == criterion]
        _bars(above, rows, results, styles)
        above.set_title(f"{criterion} ({videos[criterion]:,} videos)\n" + wrapped([MEANING[criterion]], 44), fontsize=9)
        for place, model in enumerate(results.models):
            own = {name: values[place] for name, values in results.columns[criterion].items()}
            _curve(below, own, styles[model], model_title(model))
        below.set(xscale="log", ylim=(-3, 103), xlabel="perturbation / video (% of the L2 norm)")
        below.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    grid[0, 0].set_ylabel("minimal perturbation / video\n(% of the L2 norm), mean")
    grid[1, 0].set_ylabel("videos wrong at or below (%)")
    handles, names = grid[1, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    settings = results.settings
    dots = "; dots: each seed; counts: mean over seeds" if len(results.seeds) > 1 else ""
    lines = [
        f"Minimal perturbations (DeepFool): {DATA[settings['source']]}, a subset of {settings['test_videos']:,} test "
        f"videos, {seeds_text(results.seeds)}",
        "bars: mean over the videos that were fooled (hit1_loss: those right before), 95 % bootstrap interval over "
        f"videos{dots}",
    ]
    figure.suptitle(wrapped(lines, int(13 * figure.get_figwidth())), fontsize=10)
    return figure


def _bars(axes: Axes, rows: pd.DataFrame, results: Robustness, styles: Mapping[str, ModelStyle]) -> None:
    """Means over seeds as bars; below each how many videos it leaves out."""
    labels = []
    for place, model in enumerate(results.models):
        own = rows[rows["model"] == model].set_index("seed")
        overall, style = own.loc["all"], styles[model]
        mean = 100 * overall["mean_rho"]
        outside = " / ".join(count_text(overall[name]) for name in ("already_wrong", "not_fooled"))
        labels.append(f"{model_title(model)}\n{outside}")
        if np.isnan(mean):
            continue
        axes.bar(place, mean, 0.62, linewidth=1.5, **style.bar)
        reach = [[mean - 100 * overall["ci_low"]], [100 * overall["ci_high"] - mean]]
        axes.errorbar(place, mean, yerr=np.maximum(reach, 0), color="black", capsize=6, linewidth=1.8)
        each = 100 * own.drop("all")["mean_rho"]
        top = np.nanmax([mean, 100 * overall["ci_high"], *each])
        axes.annotate(
            f"{mean:#.3g}".removesuffix("."), (place, top), (0, 6), ha="center",
            textcoords="offset points", fontsize=10, zorder=5, bbox={"facecolor": "white", "linewidth": 0, "pad": 0.5},
        )  # fmt: skip
        if len(results.seeds) > 1:
            spread = place + np.linspace(-0.18, 0.18, len(each))
            axes.plot(spread, each, "o", color="white", markeredgecolor="black", markersize=5, zorder=4)
    axes.set_xticks(range(len(labels)), labels, fontsize=9)
    axes.set_xlabel(f"already wrong / not fooled, of {int(rows['videos'].iloc[0]):,}", fontsize=9)
    axes.set_xlim(-0.55, len(labels) - 0.45)
    axes.margins(y=0.12)
    axes.set_ylim(0, None)
    axes.grid(visible=False, axis="x")


def _curve(axes: Axes, columns: Mapping[str, np.ndarray], style: ModelStyle, label: str) -> None:
    """Share of the videos (of all seeds) that are wrong once moved by so much."""
    rho = np.sort(100 * columns["relative_norm"][columns["fooled"]])  # (fooled,)
    total, wrong = columns["fooled"].size, int(columns["already_wrong"].sum())
    at = np.unique(np.linspace(0, len(rho) - 1, POINTS).round().astype(int)) if len(rho) else np.array([], int)
    marks: dict[str, Any] = {"marker": style.marker, "markersize": 5, "markevery": max(1, len(at) // 6)}
    shares = 100 * (wrong + at + 1) / total
    if len(at):  # from the level of those already wrong up to the first that is fooled
        axes.plot([rho[0], rho[0]], [100 * wrong / total, shares[0]], **style.line)
    axes.plot(rho[at], shares, label=label, **style.line, **marks)


def write_robustness(files: Mapping[str, Sequence[str | Path]], table: pd.DataFrame, folder: str | Path) -> None:
    """Write ``figure4.csv`` (every row) and ``figure4.md`` (means over seeds, how to read each column)."""
    save_table(table, Path(folder) / "figure4.csv")
    save_text(_markdown(read_robustness(files), table), Path(folder) / "figure4.md")


def _markdown(results: Robustness, table: pd.DataFrame) -> str:
    first = model_title(results.models[0])
    reading = {name.replace("FIRST", first): text.replace("FIRST", first) for name, text in READING.items()}
    beside_art = "art" in results.models[1:]
    if not beside_art and first != "ART":
        del reading["more than ART"]
    text = [
        f"**Minimal perturbations by DeepFool** (section 3.2.4, Figure 4). {DATA[results.settings['source']]}: a "
        f"seeded subset of {results.settings['test_videos']:,} test videos, {seeds_text(results.seeds)}"
        f"{', means over seeds; ± over seeds, ddof = 1' if len(results.seeds) > 1 else ''}. rho and "
        f"its differences in percent of the video's L2 norm.{left_out(results.settings[DAMAGED])}",
        "",
    ]
    for criterion, columns in results.columns.items():
        rows = table[(table["criterion"] == criterion) & (table["seed"] == "all")]
        lines = [_line(row, beside_art) for row in rows.to_dict("records")]
        lost = int(columns["no_result"].sum())
        unknown = f" NO RESULT, a gradient or an answer not being a finite number, in {lost} rows." if lost else ""
        text += [f"`{criterion}`: {MEANING[criterion]}.{unknown}", "", markdown_table(["model", *reading], lines)]
    return "\n".join([*text, *(f"- **{name}**: {meaning}" for name, meaning in reading.items())]) + "\n"


def _line(row: Mapping[Any, Any], beside_art: bool) -> list[str]:
    def percent(name: str, form: str = ".3f") -> str:
        return number_or_dash(100 * row[name], form)

    def interval(name: str, low: str, high: str, form: str = ".3f") -> str:
        ends = "" if np.isnan(row[name]) else f" [{percent(low, form)}, {percent(high, form)}]"
        return percent(name, form) + ends

    std = "" if np.isnan(row["seed_std"]) else f" ± {percent('seed_std')}"
    cells = [model_title(row["model"]), number_or_dash(row["videos"], ",.0f")]
    cells += [count_text(row[name]) for name in ("already_wrong", "not_fooled", "zero_gradient")]
    cells += [interval("mean_rho", "ci_low", "ci_high") + std, percent("median_rho"), percent("mean_rho_all")]
    cells += [number_or_dash(row["mean_norm"], ".3g"), number_or_dash(row["mean_iterations"], ".1f")]
    for prefix in ("", "art_") if beside_art else ("",):
        name = f"{prefix}difference"
        cells.append(interval(name, f"{name}_low", f"{name}_high", "+.3f"))
    return cells
