"""What a training is judged by while it runs, and the best of it kept by: the GAP of the clean validation videos."""

import math

import numpy as np
import torch

from artpaper.metrics import TOP_K, gap_from_top, top_scores
from artpaper.models import FrameTransformer
from pipeline.base.groups import Features
from pipeline.data.batches import model_inputs
from pipeline.data.store import FrameStore
from pipeline.scale.team import ALONE, Team


def clean_gap(
    model: FrameTransformer, store: FrameStore, batch_size: int, inputs: Features, device: torch.device,
    team: Team = ALONE,
) -> float:  # fmt: skip
    """GAP, a fraction, of a model on a store's videos, in constant memory per class: only top lists are kept.

    The model is put into eval mode. A team shares the batches, whole ones; all its processes get the same number, to
    the bit that of one process.
    """
    model.eval()
    lists = []
    mine = store if team.size == 1 else store.subset(team.own_batches(len(store), batch_size))
    with torch.no_grad():
        for batch in mine.batches(batch_size, max_frames=inputs.max_frames):
            x, _, mask = model_inputs(batch, inputs, model.modalities, device)
            top, right = top_scores(model(x, mask).float(), batch.labels, TOP_K)
            lists.append((top, right, batch.labels.sum(dim=1).long().numpy()))
    every = team.gather(lists)
    in_order = [every[at % team.size][at // team.size] for at in range(math.ceil(len(store) / batch_size))]
    scores, hits, positives = (np.concatenate(column) for column in zip(*in_order, strict=True))
    return gap_from_top(scores, hits, positives)
