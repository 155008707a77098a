"""Epsilon and beta by the rules: set on Non-ART and on ART alone, kept in ``rules.json``, read from there."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer

from artpaper.attacks import bce, fgm
from artpaper.defences.contrastive_attention import distance_to_next
from artpaper.losses import attention_change
from artpaper.metrics import TOP_K, gap_from_top, top_scores
from artpaper.models import FrameTransformer
from artpaper.settings import Control, Loss
from artpaper.shapes import Frames, LabelSets, Logits, Mask
from pipeline.base.atomic import save_json
from pipeline.base.errors import DataError
from pipeline.base.parameters import Params
from pipeline.data.batches import model_inputs
from pipeline.data.store import Batch, FrameStore
from pipeline.paper.paper import paper_lost
from pipeline.predict.study import Variation
from pipeline.train.checkpoints import trained_model
from pipeline.train.device import best_device
from pipeline.trial.sets import with_loss

LOST = paper_lost("GAP") / 100  # of Non-ART's GAP, by the paper's attack
PAPER = 0.034  # of a video's norm: epsilon 0.5 on 212 unit-norm frames
CALIBRATION_SEEDS = (0, 1, 2)
SHARES = (0.1, 0.2, 0.4)
CALIBRATED = 0.2  # the planned share
Curve = Mapping[float, Sequence[tuple[float, float]]]  # radius -> GAP, clean and attacked, of each seed


@dataclasses.dataclass(frozen=True)
class Rules:
    """What the calibration measured, and what the rules make of it."""

    frames: float  # of the median training video, cut as the model is given it
    curve: Curve  # radius -> clean and one-step GAP of Non-ART (fractions) for each calibration seed
    loss: float  # ART's, mean over seeds and validation videos
    change: float  # of ART's maps: the attention term of A-ART before beta
    contrast: float  # the same of the contrastive term
    provenance: Mapping[str, Any]  # of the calibration
    squared: float | None = None  # the same of A-ART's term with its norms squared, where the calibration measured it

    @property
    def epsilon(self) -> float:
        """The radius that takes the share of GAP nearest to the paper's."""
        return epsilon_of(self.curve)

    def beta(self, share: float) -> float:
        """With it, beta times the change of the maps is that share of ART's loss."""
        return share * self.loss / self.change

    def contrast_beta(self, share: float) -> float:
        """The same for the contrastive term."""
        return share * self.loss / self.contrast

    def squared_beta(self, share: float) -> float | None:
        """The same for the squared term, if the calibration measured it."""
        return share * self.loss / self.squared if self.squared else None

    def to_json(self) -> dict[str, Any]:
        """What ``rules.json`` holds: what was measured, and beside it, for readers, what follows."""
        measured = dataclasses.asdict(self) | {"curve": {f"{key:.6g}": rows for key, rows in self.curve.items()}}
        if self.squared is None:
            del measured["squared"]
        lost = {f"{key:.6g}": lost_share(rows) for key, rows in self.curve.items()}
        betas = {f"{share:g}": self.beta(share) for share in SHARES}
        return measured | {"lost": lost, "epsilon": self.epsilon, "beta": betas}


@dataclasses.dataclass
class Answers:
    """The best classes of some videos under one condition, collected batch by batch."""

    scores: list[Float[np.ndarray, "videos top"]] = dataclasses.field(default_factory=list)
    hits: list[Bool[np.ndarray, "videos top"]] = dataclasses.field(default_factory=list)
    positives: list[Integer[np.ndarray, " videos"]] = dataclasses.field(default_factory=list)

    def add(self, logits: Logits, labels: LabelSets) -> None:
        """Those of one more batch."""
        scores, hits = top_scores(logits.float().cpu(), labels, min(TOP_K, logits.shape[1]))
        self.scores.append(scores)
        self.hits.append(hits)
        self.positives.append(labels.sum(dim=1).long().numpy())

    @property
    def lists(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores (videos, top), hits (videos, top) and numbers of labels (videos,) of all videos."""
        return np.concatenate(self.scores), np.concatenate(self.hits), np.concatenate(self.positives)


def lengths(store: FrameStore, params: Params) -> Integer[np.ndarray, " videos"]:
    """How many frames of each video a model is given."""
    return np.minimum(store.lengths, params.features.max_frames)


def base_radius(frames: float) -> float:
    """3.4 % of the norm of a video of so many unit-norm frames."""
    return PAPER * frames**0.5


def grid(frames: float, below: int = 6, above: int = 4) -> list[float]:
    """Radii in steps of the square root of 2 around :func:`base_radius`; from an eighth of it to four times it."""
    return [float(f"{base_radius(frames) * 2 ** (step / 2):.6g}") for step in range(-below, above + 1)]


def lost_share(rows: Sequence[tuple[float, float]]) -> float:
    """The share of the clean GAP that the attack takes, of the means over seeds."""
    clean, attacked = np.mean(rows, axis=0)
    return float(1 - attacked / clean)


def epsilon_of(curve: Curve) -> float:
    """The radius whose share of lost GAP is nearest to the paper's; refused where the grid does not bracket it."""
    lost = {radius: lost_share(rows) for radius, rows in curve.items()}
    if not min(lost.values()) < LOST < max(lost.values()):
        raise DataError(f"the radii take {min(lost.values()):.1%} to {max(lost.values()):.1%} of GAP, not {LOST:.1%}")
    return min(lost, key=lambda radius: abs(lost[radius] - LOST))


def read_rules(path: Path) -> Rules:
    """From ``rules.json``; a DataError if what it says of epsilon does not follow from what it says was measured."""
    values = json.loads(path.read_text(encoding="utf-8"))
    # older calibrations have no squares
    fields = {field.name: values[field.name] for field in dataclasses.fields(Rules) if field.name in values}
    fields["curve"] = {float(radius): [tuple(row) for row in rows] for radius, rows in values["curve"].items()}
    rules = Rules(**fields)
    if json.loads(json.dumps(rules.to_json())) != values:
        raise DataError(f"{path}: epsilon or beta is not what the rule makes of the measured curve; calibrate again")
    return rules


def calibrate(params: Params, workspace: Path, path: Path, provenance: Mapping[str, Any], say: Any = print) -> Rules:
    """Train Non-ART, find the radius, train ART with it, find what its maps do; all on validation videos.

    The trained models are kept in ``study/`` of the workspace, where the units of the same seeds find them.
    """
    store = FrameStore(workspace / "frames" / "validation")
    frames = float(np.median(lengths(FrameStore(workspace / "frames" / "train"), params)))
    victims = []
    for seed in CALIBRATION_SEEDS:
        victims.append(fit(with_loss(params, "non_art", Control()), "non_art", seed, workspace))
        say(f"calibration: Non-ART seed {seed} trained")
    curve: dict[float, list[tuple[float, float]]] = {}
    below, above = 6, 4
    while True:
        for radius in (radius for radius in grid(frames, below, above) if radius not in curve):
            curve[radius] = [one_step_gap(model, store, params, radius) for model in victims]
            say(f"calibration: radius {radius:g} takes {lost_share(curve[radius]):.1%} of Non-ART's GAP")
        curve = dict(sorted(curve.items()))
        lost = [lost_share(rows) for rows in curve.values()]
        if min(lost) < LOST < max(lost):
            break
        below, above = below + 2 * (min(lost) >= LOST), above + 2 * (max(lost) <= LOST)
    art = Control(alpha=1.0, epsilon=epsilon_of(curve))
    numbers = []
    for seed in CALIBRATION_SEEDS:
        model = fit(with_loss(params, "art", art), "art", seed, workspace)
        numbers.append(loss_and_change(model, store, params, art.epsilon))
        say(f"calibration: ART seed {seed} trained; loss, change of the maps, contrast, squares {numbers[-1]}")
    loss, change, contrast, squared = np.mean(numbers, axis=0).tolist()
    rules = Rules(frames, curve, loss, change, contrast, provenance, squared)
    save_json(rules.to_json(), path)
    return read_rules(path)


def fit(params: Params, name: str, seed: int, workspace: Path) -> FrameTransformer:
    """The trained model of ``params``, trained now if it was not before, in eval mode."""
    return trained_model(params, name, seed, workspace, Variation(params, name, seed).trained(workspace))[0]


def one_step_gap(model: FrameTransformer, store: FrameStore, params: Params, epsilon: float) -> tuple[float, float]:
    """GAP, fractions, on the videos of a store, clean and under the one-step attack (Eq. 4)."""
    clean, attacked = Answers(), Answers()
    for batch in store.batches(params.attack.batch_size, max_frames=params.features.max_frames):
        result = fgm(model, *inputs(model, batch, params), epsilon=epsilon)
        clean.add(result.clean_logits, batch.labels)
        attacked.add(result.adversarial_logits, batch.labels)
    return gap_from_top(*clean.lists), gap_from_top(*attacked.lists)


def loss_and_change(
    model: FrameTransformer, store: FrameStore, params: Params, epsilon: float
) -> tuple[float, float, float, float]:
    """ART's loss; the change of the maps, the contrastive and the squared one, before beta; no dropout, over videos."""
    sums, seen = np.zeros(4), 0
    for batch in store.batches(params.attack.batch_size, max_frames=params.features.max_frames):
        x, y, mask = inputs(model, batch, params)
        attack = fgm(model, x, y, mask, epsilon=epsilon)
        with torch.no_grad():
            maps, attacked = (model(frames, mask, True)[1] for frames in (x, x + attack.perturbation))
        loss = (bce(attack.clean_logits, y) + bce(attack.adversarial_logits, y)).mean()
        change = attention_change(maps, attacked, Loss())
        contrast = attention_change(maps, attacked, Loss(), partial(distance_to_next, mask=mask))
        squared = attention_change(maps, attacked, Loss(attention_squared=True))
        sums += len(x) * np.array([value.item() for value in (loss, change, contrast, squared)])
        seen += len(x)
    return tuple((sums / seen).tolist())


def inputs(model: FrameTransformer, batch: Batch, params: Params) -> tuple[Frames, LabelSets, Mask]:
    """What a model is given of a batch: frames, label sets, mask."""
    return model_inputs(batch, params.features, model.modalities, best_device())
