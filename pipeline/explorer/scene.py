"""What the page draws: a choice of what to look at, as JSON that can be sent, and its numbers, ready to travel."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from pipeline.base.errors import ArtpaperError
from pipeline.base.groups import AttackConfig
from pipeline.base.sources import SOURCES
from pipeline.explorer.choices import ATTACKS
from pipeline.explorer.explorer import Explorer, View, run_title
from pipeline.explorer.videos import Run, public_address
from pipeline.paper.style import DATA
from pipeline.predict.deepfool import subset

FINE = 32_767  # steps from 0 to a map's largest number: they travel as 16-bit integers
SHOWN = 3  # models beside one another, at most
LISTED = 200  # videos in the list at most; a search finds the others
DOTS = 4_000  # videos on the map of all at most, chosen by a hash of their ids
PAPER_EPSILON = AttackConfig().epsilon
REACH = 5  # epsilon can be dragged to so many times the pipeline's
NOTCHES = 20  # on the way to the pipeline's epsilon
CURVE = 16  # epsilons at which margins are computed, denser near 0
ASKED = ("video", "models", "modalities", "head", "attack", "epsilon", "masked", "zoom")  # of a state: to be computed
ORDERS = {
    "store": "as stored",
    "changed": "most changed by the pipeline's attack",
    "fooled": "fooled by the attack at this ε",
}
State = Mapping[str, Any]
Scene = dict[str, Any]
Map = Float64[np.ndarray, "rows columns"]


@dataclass(frozen=True)
class Look:
    """What a state asks for. Frames and heads are counted from 0; a head that is None is the mean over heads."""

    row: int
    runs: tuple[Run, ...]
    attack: str
    epsilon: float
    masked: tuple[int, ...]
    modalities: tuple[str, ...]
    heads: tuple[int | None, ...]
    zoom: tuple[int, int] | None


def run_key(run: Run) -> str:
    """A trained model in a state: its name and its seed."""
    return f"{run[0]}/{run[1]}"


def first_state(explorer: Explorer) -> dict[str, Any]:
    """What the page opens on. Frames and heads are counted from 1, for people read this too."""
    return {
        "video": explorer.videos.id(0), "models": [run_key(run) for run in explorer.first],
        "modalities": [explorer.modalities[0]], "head": "mean", "attack": explorer.pipeline_attack,
        "epsilon": explorer.epsilon, "masked": [], "zoom": None, "frames": None, "scale": "largest",
        "find": {"text": "", "order": "store"},
    }  # fmt: skip


def look_of(state: State, explorer: Explorer) -> Look:
    """What a state asks for; an error says what of it this run does not have."""
    by_key = {run_key(run): run for run in explorer.runs}
    heads = explorer.params.model.heads
    try:
        runs = tuple(by_key[key] for key in state["models"])[:SHOWN]
        modalities = tuple(name for name in explorer.modalities if name in state["modalities"])
        several: dict[Any, tuple[int | None, ...]] = {"mean": (None,), "all": tuple(range(heads))}
        chosen = several.get(state["head"]) or (range(1, heads + 1).index(state["head"]),)
        masked = tuple(sorted({int(frame) - 1 for frame in state["masked"]}))
        zoom = (int(state["zoom"][0]) - 1, int(state["zoom"][1])) if state["zoom"] else None
        epsilon = float(state["epsilon"])
        if not runs or not modalities or state["attack"] not in ATTACKS or not 0 <= epsilon < math.inf:
            raise ValueError("it has no model, no modality, an unknown attack or an epsilon below 0")
        return Look(
            explorer.videos.row(state["video"]), runs, state["attack"], epsilon, masked, modalities, chosen, zoom
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ArtpaperError(f"this view asks for something that this run does not have: {error}") from None


def about(explorer: Explorer) -> dict[str, Any]:
    """What there is to choose from, and what it is called."""
    unit = explorer.epsilon or PAPER_EPSILON
    return {
        "models": [[run_key(run), run_title(run, explorer.runs)] for run in explorer.runs],
        "modalities": list(explorer.modalities), "heads": explorer.params.model.heads, "shown": SHOWN,
        "attacks": [[name, choice.title, choice.takes_epsilon] for name, choice in ATTACKS.items()],
        "orders": list(ORDERS.items()), "classes": sorted(set(explorer.classes)),
        "most": REACH * unit, "notch": unit / NOTCHES, "note": explorer.note, "fine": FINE,
        "data": DATA[explorer.videos.source], "seconds": bool(SOURCES[explorer.videos.source].frame_unit),
        "asked": ASKED,
    }  # fmt: skip


def scenes_of(explorer: Explorer, state: State, pixels: int) -> Iterator[Scene]:
    """The numbers behind a view, first with the maps alone, while the models are yet to be asked, then whole.

    Each map is brought to at most so many pixels a side: a pixel is a mean over frames.
    """
    look = look_of(state, explorer)
    views = [explorer.look(look.row, run, look.attack, look.epsilon, look.masked) for run in look.runs]
    frames = len(views[0].frame_norms)
    first, last = look.zoom or (0, frames)
    first, last = max(0, min(first, frames - 1)), min(frames, max(last, first + 1))
    step = -(-(last - first) // max(1, pixels))
    maps = [
        {"model": number, "modality": modality, "head": None if head is None else head + 1}
        | drawn(*view.maps(modality, head), slice(first, last), step)
        for number, view in enumerate(views) for modality in look.modalities for head in look.heads
    ]  # fmt: skip
    scene: Scene = {
        "video": views[0].video, "labels": views[0].labels,
        "address": public_address(explorer.videos.source, views[0].video),
        "frames": frames, "window": [first, last], "step": step, "strength": strength(explorer, look, views),
        "models": [model_of(explorer, view) for view in views], "maps": maps,
    }  # fmt: skip
    yield scene
    models = [model | answer_of(view) for model, view in zip(scene["models"], views, strict=True)]
    yield scene | {"asked": [state[name] for name in ASKED], "models": models}


def drawn(before: Map, after: Map, window: slice, step: int) -> Scene:
    """One map and its change in a window of frames, and what each frame of the video receives, clean and attacked."""
    clean = pooled(before[window, window], step)
    change = pooled((after - before)[window, window], step)
    most, widest = float(clean.max()), float(np.abs(change).max())
    return {
        "clean": packed(clean, most), "change": packed(change, widest), "most": most, "widest": widest,
        "mse": float(((after - before) ** 2).mean()),
        "received": np.stack([before.mean(axis=0), after.mean(axis=0)]).astype("<f4").tobytes(),  # (2, T)
    }  # fmt: skip


def pooled(values: Map, step: int) -> Float64[np.ndarray, "squares squares"]:
    """The mean of every square of ``step`` frames a side; at the far edges squares are cut."""
    if step == 1:
        return values
    starts = np.arange(0, len(values), step)
    counts = np.diff([*starts, len(values)])
    sums = np.add.reduceat(np.add.reduceat(values, starts, axis=0), starts, axis=1)
    return sums / np.outer(counts, counts)


def packed(values: Map, most: float) -> bytes:
    """Shares of ``most``, as 16-bit integers."""
    return np.rint(values * (FINE / (most or 1))).astype("<i2").tobytes()


def model_of(explorer: Explorer, view: View) -> Scene:
    """One model, and its answer to the clean video."""
    return {
        "key": run_key(view.run), "title": run_title(view.run, explorer.runs), "verdict": "…",
        "top": [list(label) for label in view.before.top], "norms": view.frame_norms.astype("<f4").tobytes(),
    }  # fmt: skip


def answer_of(view: View) -> Scene:
    """Its answer to the attacked one."""
    margins = [number(answer.margin) for answer in (view.before, view.after)]
    return {"verdict": verdict(view), "attacked_top": [list(label) for label in view.after.top], "margins": margins}


def number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def verdict(view: View) -> str:
    """Whether the model is fooled, in words."""
    if not view.before.right:
        return "the top label is wrong before any attack"
    return "not fooled: the top label is still a true one" if view.after.right else "FOOLED: the top label is wrong"


def strength(explorer: Explorer, look: Look, views: Sequence[View]) -> str:
    """Epsilon in the units that people compare: of the video's norm, and beside the paper's."""
    norm, scope = views[0].video_norm, explorer.params.attack.scope
    reached = " and ".join(f"{view.norm:.4g} ({share(view.norm, norm)})" for view in views)
    if not ATTACKS[look.attack].takes_epsilon:
        text = f"norm reached, model by model: {reached}; the video's norm is {norm:.3g}"
    elif scope == "joint":
        text = f"ε is {share(look.epsilon, norm)} of the video's norm {norm:.3g}"
    else:
        text = f"ε is the norm of each {scope}, in all {reached} of the video's norm {norm:.3g}"
    return (
        f"{text}. The pipeline's ε is {explorer.epsilon:g}, the paper's {PAPER_EPSILON:g} "
        f"({share(PAPER_EPSILON, norm)} of this video's norm)."
    )


def share(part: float, whole: float) -> str:
    """In percent; a video of nothing but zeros has no norm to be a share of."""
    return f"{100 * part / whole:.2f} %" if whole else "no share"


def listing_of(explorer: Explorer, state: State) -> Scene:
    """The videos that a state's ``find`` asks for, with the models, the attack and the epsilon of that time."""
    find = state["find"]
    of_then = {name: find[name] for name in ("models", "attack", "epsilon") if name in find}
    look = look_of({**state, **of_then}, explorer)
    found = explorer.find(find["order"], find["text"], look.runs[0], look.attack, look.epsilon)
    cut = f"; the first {LISTED} are listed" if len(found.rows) > LISTED else ""
    videos = explorer.videos
    listed = [[videos.id(row), ", ".join(videos.labels(row))] for row in found.rows[:LISTED].tolist()]
    return {"text": found.text + cut, "videos": listed}


def moved_of(explorer: Explorer, runs: Sequence[Run]) -> Scene:
    """How far the pipeline's attack moves the maps of each test video, for the first and the last of some models."""
    ids = explorer.videos.ids
    rows = subset(ids, DOTS, explorer.params.base.seed)
    ends = (runs[0], runs[-1])
    moved = np.stack([np.sqrt(explorer.videos.change(run)[rows]) for run in ends]).astype("<f4")  # (2, videos)
    fooled = np.stack([explorer.videos.fooled(run)[rows] for run in ends]).astype(np.uint8)
    return {
        "titles": [run_title(run, explorer.runs) for run in ends], "ids": [ids[row] for row in rows],
        "moved": moved.tobytes(), "fooled": fooled.tobytes(), "of": len(ids),
    }  # fmt: skip


def curve_epsilons(explorer: Explorer) -> list[float]:
    """Where margins are computed: from 0 to the end of the slider."""
    most = REACH * (explorer.epsilon or PAPER_EPSILON)
    return [most * (step / (CURVE - 1)) ** 2 for step in range(CURVE)]
