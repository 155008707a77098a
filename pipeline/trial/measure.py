"""One trained model under the trial's conditions: GAP with its bootstrap draws, what the maps do, what swaps cost."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int16
from torch import Tensor

from artpaper.attacks import apgd, fgm
from artpaper.models import FrameTransformer
from artpaper.shapes import Mask
from pipeline.base.parameters import Params
from pipeline.data.store import FrameStore
from pipeline.predict.one_step import attention_under_attack
from pipeline.stress.verdict.statistics import Gap
from pipeline.trial.rules import Answers, inputs, lengths
from pipeline.trial.sets import draw_counts

STEPS, RESTARTS = 100, 5  # of the costly attack
TOGETHER = 64  # videos of one length
SMALL = 16  # videos attacked at a time by the costly attack
UNIT = 0.01  # of the draws: a hundredth of a point of GAP
SWAPS = ("swap_uniform", "swap_other", "swap_position")
WHOLE = ("clean", "one_step", *SWAPS)  # on all test videos of the trial
PART = ("clean_part", "one_step_part", "apgd")  # on the videos of the costly attack
Numbers = dict[str, float]


@dataclass(frozen=True)
class Measured:
    """GAP by condition: ``points`` in percent, ``draws`` in hundredths of a point; ``maps`` and how many were drawn.

    ``clean``, ``one_step`` and the swaps are on all test videos of the trial, ``clean_part``, ``one_step_part`` and
    ``apgd`` on those that the costly attack is run on.
    """

    points: Numbers
    draws: dict[str, Int16[np.ndarray, " draws"]]
    maps: Numbers
    drawn: dict[str, int]


def measure(
    model: FrameTransformer, params: Params, train: FrameStore, test: FrameStore, part: FrameStore, people: str
) -> Measured:
    """Everything about one model, in eval mode, under the attack of ``params``; ``train`` is for the mean map."""
    test, part = by_length(test, params), by_length(part, params)
    answers: dict[str, Answers] = defaultdict(Answers)
    maps: dict[str, list[np.ndarray]] = defaultdict(list)
    _whole(model, params, test, mean_maps(model, params, train), answers, maps)
    _part(model, params, part, answers, maps)
    points, draws, drawn = gap_and_draws({name: answers[name] for name in WHOLE}, test.ids, people)
    of_part, part_draws, part_drawn = gap_and_draws({name: answers[name] for name in PART}, part.ids, people)
    numbers = {name: float(np.nanmean(np.concatenate(values))) for name, values in maps.items()}
    return Measured(points | of_part, draws | part_draws, numbers, {"all": drawn, "part": part_drawn})


def gap_and_draws(
    answers: Mapping[str, Answers], ids: Sequence[str], people: str
) -> tuple[Numbers, dict[str, Int16[np.ndarray, " draws"]], int]:
    """GAP of each condition and its draws, in the units of :class:`Measured`; how many videos or people were drawn."""
    taken, drawn = draw_counts(ids, people)
    points, draws = {}, {}
    for name, answer in answers.items():
        gap = Gap(*answer.lists)
        points[name] = 100 * gap.value
        draws[name] = np.rint(100 * np.array([gap.resampled(row) for row in taken]) / UNIT).astype(np.int16)
    return points, draws, drawn


def by_length(store: FrameStore, params: Params) -> FrameStore:
    """The same videos, those of one length together: they are one another's partners, and little is padded."""
    return store.subset(np.argsort(lengths(store, params), kind="stable").tolist())


def _whole(
    model: FrameTransformer, params: Params, store: FrameStore, mean: dict[str, Tensor],
    answers: dict[str, Answers], maps: dict[str, list[np.ndarray]],
) -> None:  # fmt: skip
    """Clean, one step and the swaps."""
    contexts: dict[str, Callable[[], Any]] = {"clean": nullcontext}
    contexts |= {name: partial(swapped, model, name, mean) for name in SWAPS}
    frames = lengths(store, params)
    for length in np.unique(frames):  # a batch is of one length, for the swaps
        group = store.subset(np.flatnonzero(frames == length).tolist())
        for batch in group.batches(TOGETHER, max_frames=params.features.max_frames):
            x, y, mask = inputs(model, batch, params)
            attack = fgm(model, x, y, mask, epsilon=params.attack.epsilon)
            answers["one_step"].add(attack.adversarial_logits, batch.labels)
            for name, context in contexts.items():
                with context(), torch.no_grad():
                    answers[name].add(model(x, mask), batch.labels)
            _maps(model, x, x + attack.perturbation, mask, "one_step", maps)


def _part(
    model: FrameTransformer, params: Params, store: FrameStore, answers: dict[str, Answers],
    maps: dict[str, list[np.ndarray]],
) -> None:  # fmt: skip
    """Clean, one step and the costly attack."""
    for batch in store.batches(SMALL, max_frames=params.features.max_frames):
        x, y, mask = inputs(model, batch, params)
        once = fgm(model, x, y, mask, epsilon=params.attack.epsilon)
        long = apgd(model, x, y, mask, epsilon=params.attack.epsilon, steps=STEPS, restarts=RESTARTS)
        for name, logits in (("clean_part", once.clean_logits), ("one_step_part", once.adversarial_logits),
                             ("apgd", long.adversarial_logits)):  # fmt: skip
            answers[name].add(logits, batch.labels)
        _maps(model, x, x + long.perturbation, mask, "apgd", maps)


def _maps(
    model: FrameTransformer, x: Tensor, attacked: Tensor, mask: Mask, attack: str, maps: dict[str, list[np.ndarray]]
) -> None:
    """Per video, summed over modalities as in the attention term: ||A - A_adv||, ||A - A of its partner||, ||A - 1/T||.

    Norms are in those of the uniform map, which is 1; the mean over videos leaves out those without a partner.
    """
    numbers = attention_under_attack(model, x, attacked, mask).values()
    frames = mask.sum(dim=1)
    named = {f"change_{attack}": "mse"} | ({"unrelated": "unrelated_mse", "uniform": "uniform_mse"}
                                           if attack == "one_step" else {})  # fmt: skip
    for name, key in named.items():
        total = torch.stack([each[key].sqrt() * frames for each in numbers]).sum(dim=0)
        maps[name].append(total.cpu().numpy())


def mean_maps(
    model: FrameTransformer, params: Params, store: FrameStore
) -> dict[str, Float[Tensor, "heads time time"]]:
    """Of every modality the mean map by position, over all videos that have both positions; uniform where none has."""
    size = params.features.max_frames
    sums: dict[str, Tensor] = {name: torch.zeros(params.model.heads, size, size) for name in model.modalities}
    counts = torch.zeros(size, size)
    for batch in store.batches(SMALL, max_frames=size):
        x, _, mask = inputs(model, batch, params)
        time = mask.shape[1]
        with torch.no_grad():
            for name, heads in model.attention_heads(x, mask).items():
                sums[name][:, :time, :time] += heads.sum(dim=0).cpu()
        counts[:time, :time] += torch.einsum("bi,bj->ij", mask.float(), mask.float()).cpu()
    known = counts > 0
    return {name: torch.where(known, total / counts.clamp(min=1), 1 / size) for name, total in sums.items()}


@contextmanager
def swapped(model: FrameTransformer, how: str, mean: dict[str, Float[Tensor, "heads time time"]]) -> Iterator[None]:
    """In here the model pays attention by other maps; a model without queries and keys is left as it is.

    ``swap_uniform``: every real frame the same weight; ``swap_other``: that of the next video of the batch, whose
    videos must be of one length; ``swap_position``: ``mean``, scaled to rows that sum to 1.
    """
    every: dict[str, Any] = dict(model.encoders.items())
    encoders = {name: encoder for name, encoder in every.items() if encoder.query_key is not None}
    for name, encoder in encoders.items():
        if how == "swap_position":
            encoder._weights = partial(_by_position, mean[name])
            encoder._attend = partial(_with_weights, encoder)  # the other ways to the same make none
        else:
            change = torch.zeros_like if how == "swap_uniform" else partial(torch.roll, shifts=-1, dims=0)
            encoder._queries_and_keys = partial(_changed, change, encoder._queries_and_keys)
    try:
        yield
    finally:
        for encoder in encoders.values():  # the class's own are there again
            for own in ("_weights", "_attend") if how == "swap_position" else ("_queries_and_keys",):
                delattr(encoder, own)


def _changed(change: Callable[[Tensor], Tensor], made: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
    return change(made(hidden))


def _with_weights(encoder: Any, hidden: Tensor, mask: Mask, with_map: bool) -> tuple[Tensor, Tensor | None]:
    attended, average = encoder._mix(encoder._queries_and_keys(hidden), encoder.value(hidden), mask)
    return attended, average if with_map else None


def _by_position(mean: Tensor, query_key: Tensor, mask: Mask) -> Tensor:
    time = mask.shape[1]
    pairs = mask[:, None, :, None] & mask[:, None, None, :]
    heads = mean[:, :time, :time].to(query_key) * pairs  # (B, H, T, T)
    return heads / heads.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(heads.dtype).tiny)
