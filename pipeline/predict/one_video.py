"""One test video and its one-step adversary as each model sees them: what Figures 1 and 2 are drawn from (Eq. 4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64

from artpaper.attention import attention_profile
from pipeline.base.errors import DataError
from pipeline.base.parameters import Params
from pipeline.data.batches import model_inputs
from pipeline.data.store import FrameStore
from pipeline.predict.one_step import adversaries
from pipeline.train.checkpoints import trained_model

Maps = dict[str, Float64[np.ndarray, "time time"]]


@dataclass(frozen=True)
class Seen:
    """What one model makes of a video and of its adversary."""

    clean: Maps  # per modality, mean over heads; rows attend, columns are attended to
    adversarial: Maps
    top: str  # name of the top class
    attacked_top: str
    right: bool  # whether it is a true one
    attacked_right: bool


@dataclass(frozen=True)
class Example:
    """One test video as each model sees it: its id, the names of its true classes, and what the figures must say."""

    video: str
    how: str
    labels: tuple[str, ...]
    source: str
    epsilon: float
    seed: int
    models: dict[str, Seen]

    @property
    def modalities(self) -> tuple[str, ...]:
        """In the order of the models' input."""
        return tuple(next(iter(self.models.values())).clean)

    @property
    def profiles(self) -> pd.DataFrame:
        """Attention that each frame receives (weight; the mean of a map's column, so all frames sum to 1).

        Returns:
            A row per model, modality and frame (from 0) with the columns ``clean`` and ``adversarial``.
        Source: Figure 2; row 18 of docs/ambiguities.md has the other reading.
        """
        parts = []
        for model, seen in self.models.items():
            for modality in self.modalities:
                values = {"clean": _profile(seen.clean[modality]), "adversarial": _profile(seen.adversarial[modality])}
                frames = {"model": model, "modality": modality, "frame": np.arange(len(values["clean"]))}
                parts.append(pd.DataFrame(frames | values))
        return pd.concat(parts, ignore_index=True)


def example(params: Params, workspace: Path, models: Sequence[str], seed: int, video: str, how: str) -> Example:
    """Put one test video, by its id, to each of ``models`` (names of group ``models``), and its one-step adversary too.

    White box: the adversary is made for each model. ``how`` the video was chosen is for the figures.
    """
    whole = FrameStore(workspace / "frames" / "test")
    ids = whole.ids
    if video not in ids:
        raise DataError(f"{whole.path}: no test video {video!r}")
    store = whole.subset([ids.index(video)])
    (batch,) = store.batches(1, max_frames=params.features.max_frames)
    config, names = params.attack, store.label_space.classes
    seen = {}
    for name in models:
        model, _ = trained_model(params, name, seed, workspace)
        x, y, mask = model_inputs(batch, params.features, model.modalities, next(model.parameters()).device)
        attack = adversaries(model, x, y, mask, config)
        with torch.no_grad():
            clean, adversarial = (_maps(model.attention_heads(part, mask)) for part in (x, x + attack.perturbation))
        tops = [int(logits[0].argmax()) for logits in (attack.clean_logits, attack.adversarial_logits)]
        right = [bool(y[0, top] > 0) for top in tops]
        seen[name] = Seen(clean, adversarial, names[tops[0]], names[tops[1]], right[0], right[1])
    labels = tuple(names[label] for label in store[0].labels)
    return Example(video, how, labels, params.data.source, config.epsilon, seed, seen)


def _maps(heads: dict[str, torch.Tensor]) -> Maps:
    return {modality: maps[0].double().mean(dim=0).cpu().numpy() for modality, maps in heads.items()}


def _profile(attention: Float64[np.ndarray, "time time"]) -> Float64[np.ndarray, " time"]:
    maps = torch.from_numpy(attention)[None]
    return attention_profile(maps, torch.ones(maps.shape[:2], dtype=torch.bool))[0].numpy()
