"""The stress test's files, read and checked: every model, seed and attack about the same videos."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from artpaper.metrics import hit_at_1_from_top
from pipeline.base.errors import DataError
from pipeline.base.sources import SOURCES
from pipeline.paper.evidence import NotMeasured
from pipeline.paper.paper import MODELS
from pipeline.paper.style import left_out
from pipeline.predict.bootstrap import bootstrap_counts
from pipeline.predict.files import DAMAGED, read_lists
from pipeline.stress.attacks.files import MAKER, read_attacked
from pipeline.stress.verdict.statistics import Gap, Sample

METRICS = {"gap": "GAP (%)", "hit_at_1": "Hit@1 (%)", "loss": "loss (nats)"}
COLUMNS = ["id", "labels", "classes", "scores", "loss"]
NAMES = MODELS | {
    "a_art_strong": "A-ART, β 1",
    "random_att": "A-ART, random step",
    "entropy_art": "entropy + ART",
    "temperature_art": "temperature + ART",
    "uniform": "uniform attention",
    "uniform_art": "uniform + ART",
    "uniform_wide": "uniform + ART, 4ε",
    "pgd_at": "PGD-AT",
    "trades": "TRADES",
    "vat": "VAT",
    "gradalign": "GradAlign",
    "art_wide": "ART, 4ε",
    "relative_att": "relative attention, 4ε",
    "relative_sharp": "relative + peaked, 4ε",
}
ATTACKS = {
    "clean": "clean",
    "random": "random",
    "one_step": "one step",
    "pgd": "PGD",
    "apgd_bce": "APGD, BCE",
    "apgd_margin": "APGD, margin",
    "apgd_dlr": "APGD, DLR",
    "apgd_top_k_ap": "APGD, top-k AP",
    "attention_maps": "attention, maps",
    "attention_scores": "attention, scores",
    "square": "Square",
    "transfer": "transfer",
    "ensemble": "ensemble",
    "one_step_predicted": "one step, predicted",
    "pgd_predicted": "PGD, predicted",
    "frames_1": "one frame",
    "universal": "universal",
    "fgsm_linf": "FGSM, L∞",
    "pgd_linf": "PGD, L∞",
}
SWEEPS = ("epsilon", "steps")


@dataclass(frozen=True)
class Stress:
    """Everything the stress test measured, ready to be compared.

    ``samples`` has under metric ("gap", "hit_at_1" in percent, "loss" in nats), model and attack its values over seeds
    and bootstrap samples; a model without some attack has no entry.
    """

    source: str  # ``data.source`` of the predictions
    videos: int  # how many test videos, the same for every model
    epsilon: Mapping[str, float]  # of each attack, unit of the normalised features; 0 on clean videos
    samples: Mapping[tuple[str, str, str], Sample]
    damaged: tuple[str, ...] = ()  # shards of the source that were left out

    @property
    def about(self) -> dict[str, str]:
        """Columns that every table has about its data, for :func:`data_note`."""
        return {"source": self.source, "left_out": " ".join(left_out(self.damaged).split())}

    @property
    def models(self) -> list[str]:
        """The paper's first, then the controls and baselines, then others, as :data:`NAMES` has them."""
        return _ordered({model for _, model, _ in self.samples}, NAMES)

    @property
    def attacks(self) -> list[str]:
        """In the order of :data:`ATTACKS`; others, the sweeps among them, after these by name."""
        return _ordered({attack for _, _, attack in self.samples}, ATTACKS)

    def sample(self, metric: str, model: str, attack: str) -> Sample:
        """One model under one attack."""
        if (metric, model, attack) not in self.samples:
            raise NotMeasured(f"stress/predictions: no {metric} of model {model} under attack {attack}")
        return self.samples[metric, model, attack]


def read_stress(folder: str | Path, draws: int = 1000) -> Stress:
    """Read ``predictions/<model>/seed<k>/<attack>.parquet``, each file once, and resample its videos, all alike."""
    folder = Path(folder)
    paths = sorted((folder / "predictions").glob("*/seed*/*.parquet"))
    if not paths:
        raise DataError(f"{folder / 'predictions'}: no predictions under attack; make them with {MAKER}")
    files = map(_read, paths)
    first = next(files)
    _, about, videos = first
    counts = bootstrap_counts(len(videos), draws, 0)
    epsilons: dict[str, tuple[Path, float]] = {}
    parts: dict[tuple[str, str, str], dict[int, tuple[float, np.ndarray]]] = {}
    for path, note, rows in itertools.chain([first], files):
        _check(path, note, rows, *first)
        known, epsilon = epsilons.setdefault(note["attack"], (path, note["epsilon"]))
        if epsilon != note["epsilon"]:
            raise DataError(f"{path} and {known}: epsilon {note['epsilon']} against {epsilon}; make both anew")
        for metric, values in _resample(path, rows, note["classes"], counts).items():
            parts.setdefault((metric, note["model"], note["attack"]), {})[note["seed"]] = values
    samples = {}
    for key, seeds in parts.items():
        order = tuple(sorted(seeds))
        points, resampled = zip(*(seeds[seed] for seed in order), strict=True)
        samples[key] = Sample(order, np.array(points), np.stack(resampled), len(videos))
    radii = {name: value for name, (_, value) in epsilons.items()}
    return Stress(about["source"], len(videos), radii, samples, about["damaged"])


def model_name(model: str) -> str:
    """What a model is called in tables and figures: the name itself where nothing better is known."""
    return NAMES.get(model, model.replace("_", " "))


def attack_name(attack: str) -> str:
    """What an attack is called in tables and figures."""
    return ATTACKS.get(attack, attack.replace("_", " "))


def counts_text(table: pd.DataFrame) -> str:
    """How many test videos and training seeds are behind a table."""
    least, most = int(table["seeds"].min()), int(table["seeds"].max())
    seeds = f"{least}" if least == most else f"{least} to {most}"
    return f"{int(table['videos'].iloc[0]):,} test videos, {seeds} training seed{'s' if most > 1 else ''}"


def data_note(table: pd.DataFrame) -> str:
    """What a caption says of the data of a table with :attr:`Stress.about`: where they are from, what is missing."""
    return " ".join([SOURCES[str(table["source"].iloc[0])].caption, *left_out_note(table)])


def left_out_note(table: pd.DataFrame) -> list[str]:
    """The sentence about the damaged shards that were left out, or nothing where there are none."""
    without = table["left_out"].iloc[0]
    return [without] if isinstance(without, str) and without else []  # of a CSV file an empty cell is NaN


def _read(path: Path) -> tuple[Path, dict[str, Any], pa.Table]:
    rows, note = read_attacked(path, *COLUMNS)
    return path, note | {"damaged": tuple(note.get(DAMAGED, ())), "epsilon": note["epsilon"] or 0.0}, rows


def _check(
    path: Path, note: dict[str, Any], rows: pa.Table, first: Path, first_note: dict[str, Any], first_rows: pa.Table
) -> None:
    model, seed, attack = path.parts[-3:]
    place = (note["model"], f"seed{note['seed']}", f"{note['attack']}.parquet")
    if place != (model, seed, attack):
        raise DataError(f"{path}: says of itself {'/'.join(place)}; make it anew with {MAKER}")
    if note["source"] not in SOURCES or note["source"] != first_note["source"]:
        raise DataError(f"{path}: data source {note['source']}, {first} has {first_note['source']}; make both anew")
    if note["damaged"] != first_note["damaged"]:
        raise DataError(f"{path} and {first}: other shards were left out as damaged; make both anew with {MAKER}")
    if len(rows["id"].unique()) < len(rows):
        raise DataError(f"{path}: holds a video twice; make it anew with {MAKER}")
    for column in ("id", "labels"):
        if not rows[column].equals(first_rows[column]):
            raise DataError(f"{path} and {first}: other videos or labels ({column}); make both anew with {MAKER}")


def _resample(path: Path, rows: pa.Table, classes: int, counts: np.ndarray) -> dict[str, tuple[float, np.ndarray]]:
    """Per metric its value and its values in the bootstrap samples (draws,)."""
    scores, hits, positives = read_lists(path, rows, "", classes)
    hits = hits[:, : scores.shape[1]]
    gap, first, loss = Gap(scores, hits, positives), hits[:, 0].astype(float), rows["loss"].to_numpy()
    if np.isnan(loss).any():
        raise DataError(f"{path}: the loss of video {rows['id'][int(np.isnan(loss).argmax())]} is NaN")
    resampled = np.array([gap.resampled(row) for row in counts])  # (draws,)
    return {
        "gap": (100 * gap.value, 100 * resampled),
        "hit_at_1": (100 * hit_at_1_from_top(hits), 100 * (counts @ first) / len(rows)),
        "loss": (float(loss.mean()), (counts @ loss) / len(rows)),
    }


def _ordered(names: set[str], known: Mapping[str, str]) -> list[str]:
    return [name for name in known if name in names] + sorted(names - set(known))
