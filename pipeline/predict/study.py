"""Many trainings, each a variation of the pipeline's, measured on the validation set and kept one by one.

What Figure 3 and the calibration of epsilon are made of. A training that was done before, here or by the pipeline's own
train stage, is not done again; nor is one that a killed run had finished.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from artpaper import metrics
from artpaper.attention import NUMBERS
from pipeline.base.atomic import save_json
from pipeline.base.identity import content, resume_key
from pipeline.base.parameters import Params, as_dict
from pipeline.data.splits import training_splits
from pipeline.predict.bootstrap import bootstrap_counts
from pipeline.predict.files import read_file
from pipeline.predict.one_step import attack
from pipeline.predict.predictions import attention_column, read_predictions, schema
from pipeline.scale.engine import each
from pipeline.train.checkpoints import read_note, run_identity
from pipeline.train.training import train

TRAINED_BY = "pipeline.train.training"  # the module that decides, with all it imports, what a training comes out as
Measured = dict[str, float]


@dataclass(frozen=True)
class Variation:
    """One training: entry ``name`` of group ``models`` as ``params`` have it, with this seed."""

    params: Params
    name: str
    seed: int

    def folder(self, workspace: Path) -> Path:
        """Where the model and its measurements are kept: another name for other parameters, frames or code."""
        key = resume_key(TRAINED_BY, self._identity(workspace))
        return workspace / "study" / f"{self.name}-seed{self.seed}-{key}"

    def result(self, workspace: Path) -> Path:
        """The file of the measurement under ``params.attack``."""
        model = self.model(workspace)
        own = "" if self.folder(workspace) in model.parents else content(model / "model.safetensors")
        return self.folder(workspace) / f"validation-{resume_key(__name__, as_dict(self.params.attack), own)}.json"

    def model(self, workspace: Path) -> Path:
        """The folder of the trained model: the pipeline's own where it is the same training."""
        own = workspace / "models" / self.name / f"seed{self.seed}"
        identity = self._identity(workspace)
        if (own / "model.json").is_file():
            note = read_note(own)
            if all(note.get(key) == value for key, value in identity.items()):
                return own
        return self.folder(workspace) / "model"

    def trained(self, workspace: Path) -> Path:
        """The folder of the trained model, trained now if it was not before."""
        folder = self.model(workspace)
        if not (folder / "model.safetensors").is_file():
            train(self.params, self.name, self.seed, workspace, target=folder, progress=False)
        return folder

    def _identity(self, workspace: Path) -> dict:
        splits = training_splits(self.params, self.name, workspace)
        return run_identity(self.params, self.name, self.seed, splits)


def measure_all(
    variations: Sequence[Variation], workspace: Path, title: str, *, progress: bool = True
) -> list[Measured]:
    """Train and measure every variation, ``compute.workers`` at a time; one measurement each, in order.

    One that is there twice, or was done before, is trained once; all are kept in ``workspace/study``. ``title`` is that
    of the progress bar, which counts points.
    """
    results = [variation.result(workspace) for variation in variations]
    waiting: dict[Path, dict[Path, Variation]] = {}
    for variation, result in zip(variations, results, strict=True):
        if not result.is_file():  # what is one training goes to one process, or two would train it at once
            waiting.setdefault(variation.folder(workspace), {})[result] = variation
    work = partial(_measure_group, workspace=workspace)
    groups = [tuple(group.values()) for group in waiting.values()]
    with tqdm(total=len(set(results)), unit="point", desc=title, disable=not progress) as bar:
        bar.update(len(set(results)) - sum(map(len, waiting.values())))
        for group, points in each(work, groups, variations[0].params.compute, gpu=True):
            bar.set_postfix_str(f"{group[-1].name} seed {group[-1].seed}: GAP {100 * points[-1]['test_gap']:.2f} %")
            bar.update(len(group))
    return [json.loads(result.read_text(encoding="utf-8")) for result in results]


def _measure_group(group: Sequence[Variation], workspace: Path) -> list[Measured]:
    return [measure(variation, workspace) for variation in group]


def measure(variation: Variation, workspace: Path) -> Measured:
    """Train one variation if need be, attack it on the validation set, and keep what came out.

    Returns:
        ``test_gap``, ``test_perr``, ``test_hit_at_1`` (clean) and the same of ``adversarial``, as fractions; of each
        GAP the ``_error``, its bootstrap standard error over videos; means over videos of ``relative_norm`` and, per
        modality, of the attention numbers; ``steps`` trained.
    """
    params, name, seed = variation.params, variation.name, variation.seed
    model = variation.trained(workspace)
    result = variation.result(workspace)
    target = result.with_suffix("")  # not the training's folder: it may be measured under several attacks
    path = attack(params, name, seed, workspace, split="validation", model=model, target=target, progress=False)
    measured: Measured = {}
    for split, (scores, hits, positives) in read_predictions(path).lists.items():
        top = hits[:, : scores.shape[1]]
        measured[f"{split}_gap"] = metrics.gap_from_top(scores, top, positives)
        measured[f"{split}_gap_error"] = _gap_error(scores, top, positives)
        measured[f"{split}_perr"] = metrics.perr_from_top(hits, positives)
        measured[f"{split}_hit_at_1"] = metrics.hit_at_1_from_top(hits)
    modalities = read_note(model)["modalities"]
    columns = [attention_column(modality, number) for modality, _ in modalities for number in NUMBERS]
    fields = schema(modality for modality, _ in modalities)
    table, _ = read_file(path, fields, (), columns=["relative_norm", *columns])
    measured |= {str(column): float(value) for column, value in table.to_pandas().mean().items()}
    history = pd.read_csv(model / "history.csv")
    measured["steps"] = float(history["step"].max())
    save_json(measured, result)
    return measured


def _gap_error(scores: np.ndarray, hits: np.ndarray, positives: np.ndarray) -> float:
    """Standard error of GAP for the choice of videos: 100 bootstrap samples, the same ones every time."""
    samples = (np.repeat(np.arange(len(scores)), counts) for counts in bootstrap_counts(len(scores), 100, 0))
    return float(np.std([metrics.gap_from_top(scores[rows], hits[rows], positives[rows]) for rows in samples], ddof=1))
