"""The explorer without a kernel: one page with everything computed before, drawn by the same script."""

import base64
import json
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from pipeline.base.atomic import save_text
from pipeline.explorer.choices import ATTACKS
from pipeline.explorer.explorer import Explorer
from pipeline.explorer.scene import (
    SHOWN,
    State,
    about,
    curve_epsilons,
    first_state,
    look_of,
    moved_of,
    number,
    run_key,
    scenes_of,
)
from pipeline.explorer.videos import Run
from pipeline.predict.deepfool import subset

HERE = Path(__file__).parent
VIDEOS = 30
EPSILONS = (0.0, 0.5, 1.0, 1.5, 2.0, 4.0)  # of the published page, in pipeline's epsilons
FINER = tuple(step / 2 for step in range(11))  # of the page of one view
BUDGET = 6_500_000  # bytes of maps; as text they take a third more, and with the rest a page stays under 10 MB
TEMPLATE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Attention, clean and attacked</title>
<style>
:root {{ color-scheme: light dark; font-family: system-ui, sans-serif; }} body {{ margin: 0; padding: 8px 12px; }}
{css}</style>
<main><h1>Attention, clean and attacked</h1><p>{text}</p><div id="explorer"></div></main>
<script type="application/json" id="explorer-data">{data}</script>
<script type="module">{script}</script>
</html>
"""


def write_page(explorer: Explorer, folder: Path) -> Path:
    """Write ``index.html`` with some thirty test videos, a third each the most changed, the fooled and any others."""
    runs = [run for run in explorer.runs if run[1] == explorer.runs[0][1]][:SHOWN]
    radius = explorer.epsilon or 1.0
    state = first_state(explorer) | {"models": [run_key(run) for run in runs], "modalities": list(explorer.modalities)}
    ids = [explorer.videos.id(row) for row in chosen(explorer, runs[0])]
    states = [
        state | {"video": video, "epsilon": share * radius, "head": head}
        for video in ids for share in EPSILONS for head in ("mean", "all")
    ]  # fmt: skip
    text = (
        f"{len(ids)} of {len(explorer.videos):,} test videos, a third each those whose maps the attack changes most, "
        "those that fool the first model, and others; computed beforehand. All videos, every attack and any ε are in "
        "the notebook explore_attention.ipynb."
    )
    attacked = next(state for state in states if state["epsilon"] == radius)
    return save_text(page_of(explorer, states, text, attacked), folder / "index.html")


def one_page(explorer: Explorer, state: State) -> dict[str, Any]:
    """A view as a page of its own: its video, models and attack, with epsilon to drag."""
    radius = explorer.epsilon or 1.0
    epsilons = sorted({*(share * radius for share in FINER), state["epsilon"]})
    heads = dict.fromkeys(("mean", "all", state["head"]))
    states = [
        {**state, "epsilon": epsilon, "head": head, "modalities": list(explorer.modalities), "zoom": None}
        for epsilon in epsilons for head in heads
    ]  # fmt: skip
    text = f"Test video {state['video']}, computed beforehand."
    content = page_of(explorer, states, text, state)
    return {"name": f"attention-{state['video']}.html", "content": content.encode()}


def chosen(explorer: Explorer, run: Run, count: int = VIDEOS) -> list[int]:
    """Rows of the videos of a page, in the order of the store."""
    attack, radius = explorer.pipeline_attack, explorer.epsilon
    ids = explorer.videos.ids
    orders: list[Iterable[int]] = [
        explorer.find("changed", "", run, attack, radius).rows.tolist(),
        explorer.find("fooled", "", run, attack, radius).rows.tolist(), subset(ids, count, explorer.params.base.seed),
    ]  # fmt: skip
    taken: dict[int, None] = {}
    for part, rows in enumerate(orders, start=1):
        for row in rows:
            if len(taken) < count * part // len(orders):
                taken[row] = None
    return sorted(taken)


def page_of(explorer: Explorer, states: list[dict[str, Any]], text: str, first: State | None = None) -> str:
    """One HTML file with the views of all ``states``, which opens on ``first``, else on the first of them."""
    if (pixels := fitting(explorer, states)) < explorer.params.features.max_frames:  # then better the mean alone
        states = [state for state in states if state["head"] != "all"] or states
        pixels = fitting(explorer, states)
    buffers: list[str] = []

    @cache
    def buffered(data: bytes) -> dict[str, int]:
        """Bytes as text, each once; what stands for them where they were."""
        buffers.append(base64.b64encode(data).decode())
        return {"buffer": len(buffers) - 1}

    looks = [look_of(state, explorer) for state in states]
    margins = {}
    for state, look in zip(states, looks, strict=True):
        key = json.dumps([state["video"], state["attack"], state["masked"]], ensure_ascii=False, separators=(",", ":"))
        if key not in margins and ATTACKS[look.attack].takes_epsilon:
            curve = curve_epsilons(explorer)
            of = {
                run_key(run): [number(m) for m in explorer.margins(look.row, run, look.attack, curve, look.masked)]
                for run in look.runs
            }  # fmt: skip
            margins[key] = {"epsilons": curve, "of": of}
    rows = dict.fromkeys(look.row for look in looks)
    videos = [[explorer.videos.id(row), ", ".join(explorer.videos.labels(row))] for row in rows]
    data = {
        "about": about(explorer) | {"classes": [], "note": ""}, "state": first or states[0],
        "scenes": [list(scenes_of(explorer, state, pixels))[-1] for state in states], "margins": margins,
        "moved": moved_of(explorer, looks[0].runs), "listing": {"text": f"{len(videos)} videos", "videos": videos},
        "buffers": buffers,  # last, when all are there
    }  # fmt: skip
    as_text = json.dumps(data, default=buffered, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    script, css = (HERE.joinpath(name).read_text(encoding="utf-8") for name in ("widget.js", "widget.css"))
    return TEMPLATE.format(text=escape(text), css=css, data=as_text, script=script)


def fitting(explorer: Explorer, states: Sequence[State]) -> int:
    """Pixels a side with which all maps of these states are within the budget; clean ones are kept once."""
    looks = [look_of(state, explorer) for state in states]
    changes = sum(len(look.runs) * len(look.modalities) * len(look.heads) for look in looks)
    clean = {(look.row, run, look.masked, name, head) for look in looks for run in look.runs
             for name in look.modalities for head in look.heads}  # fmt: skip
    return max(1, int((BUDGET / 2 / (changes + len(clean))) ** 0.5))
