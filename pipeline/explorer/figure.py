"""The picture of the explorer: two models side by side, each with its maps, its profile and its perturbation."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float64

from pipeline.explorer.explorer import Run, View, run_title
from pipeline.paper.style import ADVERSARIAL

MAPS = ("clean", "adversarial", "difference")
PANELS = (*MAPS, "profile", "attends", "norm")
SIDES = ((0.035, 0.435), (0.505, 0.905))  # where each model's column lies, as shares of the width
ROWS = {"map": (0.60, 1.0), "profile": (0.29, 0.455), "norm": (0.0, 0.165)}
GAP = 0.008
HEIGHT = 520  # pixels
MARKED = 60  # frames of a profile at most that are marked one by one
ATTENDING = 3  # strongest attending frames that hovering over a frame names
FONT = {"family": "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif", "size": 12, "color": "#222"}
GRID = "#e4e4e4"


class ExplorerFigure:
    """Two models side by side in one plotly widget, which is made once and from then on only updated.

    Above, per model: the clean map, the adversarial one and their difference. Below: the attention that each frame
    receives, the norm of its perturbation, and who attends to one frame. The clean and the adversarial maps of both
    models share one colour scale, from 0 to the largest weight shown; the differences share another around 0.

    ``unit`` is that of a frame's number; ``widget`` the plotly widget.
    """

    def __init__(self, unit: str) -> None:
        self.widget = go.FigureWidget(list(_traces().values()), _layout(unit))
        buttons = [["toImage", "resetScale2d"]]
        self.widget._config = {"displaylogo": False, "responsive": True, "modeBarButtons": buttons}
        self.widget.observe(self._fill, "_view_count")
        self._traces = dict(zip(_traces(), self.widget.data, strict=True))
        self._marked: int | None = None

    def _fill(self, change: dict[str, Any]) -> None:
        """Take the width of the page once there is one: the widget is drawn before the page takes it in."""
        if change["new"]:
            for filled in (False, True):
                self.widget.layout.autosize = filled

    def on_frame(self, act: Callable[[int], None]) -> None:
        """Call ``act`` with the number of the frame that the pointer comes over: in a map, the attended one."""
        for key, trace in self._traces.items():
            if "attends" not in key and "uniform" not in key:
                trace.on_hover(lambda _, points, __: act(round(points.xs[0])) if points.xs else None)

    def draw(
        self, views: Sequence[View], runs: Sequence[Run], modality: str, head: int | None, frame: int, magnify: bool
    ) -> None:
        """Show what the left and the right model make of one video; the browser redraws once.

        ``runs`` are all models, for their titles; without a ``head`` maps are the mean over heads; ``frame`` is the
        attended frame that is marked, and whose attending frames are listed; ``magnify`` says whether the colours of
        the differences end at the largest difference, or at the largest weight.
        """
        pairs = [view.maps(modality, head) for view in views]
        most = max(float(attention.max()) for pair in pairs for attention in pair)
        widest = max(float(np.abs(after - before).max()) for before, after in pairs) or most
        reach = widest if magnify else most
        time = len(pairs[0][0])
        data, mode = self._traces, "lines+markers" if time <= MARKED else "lines"
        with self.widget.batch_update():
            for side, (view, (before, after)) in enumerate(zip(views, pairs, strict=True)):
                for name, attention in zip(MAPS, (before, after, after - before), strict=True):
                    data[f"{side} {name}"].z = attention.astype(np.float32)
                for name, attention in zip(("clean", "adversarial"), (before, after), strict=True):
                    data[f"{side} profile {name}"].update(
                        x=np.arange(time), y=attention.mean(axis=0), customdata=_attending(attention), mode=mode
                    )
                    data[f"{side} attends {name}"].update(x=np.arange(time), y=attention[:, frame], mode=mode)
                data[f"{side} uniform"].update(x=[-0.5, time - 0.5], y=[1 / time] * 2)
                data[f"{side} norm"].update(x=np.arange(time), y=view.frame_norms)
            layout = self.widget.layout
            layout.coloraxis.update(cmin=0, cmax=most)
            layout.coloraxis2.update(cmin=-reach, cmax=reach)
            ends = _ends(views, pairs, frame)
            for number in range(1, 2 * len(PANELS) + 1):
                panel = PANELS[(number - 1) % len(PANELS)]
                layout[f"xaxis{number}"].range = (-0.5, time - 0.5)
                if number == _upright(number):
                    layout[f"yaxis{number}"].range = (time - 0.5, -0.5) if panel in MAPS else (0, ends[panel])
            if len(layout.annotations) != len(titles := _titles(views, runs, pairs, frame)):
                layout.annotations = titles
            for annotation, title in zip(layout.annotations, titles, strict=True):
                if annotation.text != title["text"]:
                    annotation.text = title["text"]
            if self._marked != frame:
                layout.shapes, self._marked = _marks(frame), frame


def _attending(attention: Float64[np.ndarray, "time time"]) -> list[str]:
    """For each frame, in words, the frames that attend to it most."""
    strongest = np.argsort(-attention, axis=0, kind="stable")[:ATTENDING]  # (3, T)
    weights = np.take_along_axis(attention, strongest, axis=0)
    return [
        ", ".join(f"{row} ({weight:.3f})" for row, weight in zip(rows, values, strict=True))
        for rows, values in zip(strongest.T.tolist(), weights.T.tolist(), strict=True)
    ]


def _ends(views: Sequence[View], pairs: Sequence[tuple[np.ndarray, np.ndarray]], frame: int) -> dict[str, float]:
    """Upper ends of the axes that both models share."""
    maps = [attention for pair in pairs for attention in pair]
    highest = {
        "profile": max(attention.mean(axis=0).max() for attention in maps),
        "attends": max(attention[:, frame].max() for attention in maps),
        "norm": max(view.frame_norms.max() for view in views),
    }
    return {panel: 1.12 * float(value) or 1.0 for panel, value in highest.items()}


def _traces() -> dict[str, Any]:
    """Every trace of the figure, empty, in its order, under its side (0 or 1) and what it shows."""
    lines = {
        "clean": {"color": "black", "width": 2.2},
        "adversarial": {"color": ADVERSARIAL, "width": 2, "dash": "dash"},
    }
    weight = "frame %{y} attends to frame %{x}<br>weight %{z:.4f}"
    change = "attention of frame %{y} to frame %{x}<br>changes by %{z:+.2e}"
    receives = "frame %{x} receives %{y:.4f}<br>most from frames %{customdata}"
    attends, moved = "frame %{x} attends with %{y:.4f}", "frame %{x} is moved by %{y:.4f}"
    traces: dict[str, Any] = {}
    for side in range(2):
        axes = {
            panel: {"xaxis": _axis("x", number), "yaxis": _axis("y", _upright(number))}
            for number, panel in enumerate(PANELS, start=1 + side * len(PANELS))
        }
        for name in ("clean", "adversarial"):
            traces[f"{side} {name}"] = go.Heatmap(hovertemplate=weight, coloraxis="coloraxis", **axes[name])
        traces[f"{side} difference"] = go.Heatmap(hovertemplate=change, coloraxis="coloraxis2", **axes["difference"])
        flat = {"color": "#777", "dash": "dot", "width": 1.5}
        traces[f"{side} uniform"] = go.Scatter(mode="lines", line=flat, hoverinfo="skip", **axes["profile"])
        for name, line in lines.items():
            drawn: dict[str, Any] = {"mode": "lines+markers", "line": line, "marker": {"size": 4}}
            traces[f"{side} profile {name}"] = go.Scatter(hovertemplate=receives, **drawn, **axes["profile"])
            traces[f"{side} attends {name}"] = go.Scatter(hovertemplate=attends, **drawn, **axes["attends"])
        traces[f"{side} norm"] = go.Bar(hovertemplate=moved, marker={"color": "#8a8a8a"}, **axes["norm"])
    for key, trace in traces.items():
        trace.name = "uniform, 1/T" if "uniform" in key else key.split()[-1]
        trace.showlegend = key in ("0 profile clean", "0 profile adversarial", "0 uniform")
    return traces


def _axis(letter: str, number: int) -> str:
    """What plotly calls an axis where it is referred to: x, x2, x3."""
    return letter if number == 1 else f"{letter}{number}"


def _upright(number: int) -> int:
    """The upright axis of a panel: a side's three maps share that of the first, which is quicker to draw than three."""
    side, panel = divmod(number - 1, len(PANELS))
    return side * len(PANELS) + 1 if PANELS[panel] in MAPS else number


def _domain(side: int, panel: str) -> tuple[tuple[float, float], tuple[float, float]]:
    start, end = SIDES[side]
    width = (end - start) / 3
    if panel in MAPS:
        left = start + MAPS.index(panel) * width
        return (left + GAP / 2, left + width - GAP / 2), ROWS["map"]
    if panel == "attends":
        return (end - width + 4 * GAP, end), (ROWS["norm"][0], ROWS["profile"][1])
    return (start, end - width - GAP), ROWS[panel]


def _layout(unit: str) -> dict[str, Any]:
    layout: dict[str, Any] = {
        "height": HEIGHT, "autosize": True, "font": FONT, "paper_bgcolor": "white", "plot_bgcolor": "white",
        "margin": {"l": 45, "r": 10, "t": 40, "b": 62, "autoexpand": False},
        "hoverlabel": {"font": FONT, "bgcolor": "white", "bordercolor": "#555"}, "bargap": 0.25,
        "legend": {"orientation": "h", "x": 0.5, "xanchor": "center", "y": -0.09, "yanchor": "top"},
        "transition": {"duration": 0},
    }  # fmt: skip
    attending, attended = f"attending frame{unit}", f"attended frame{unit}"
    below = dict.fromkeys(MAPS, attended) | {"norm": f"frame{unit}", "attends": attending}
    beside = {"clean": attending, "profile": "attention received", "norm": "‖R<sub>t</sub>‖₂"}
    for number, panel in enumerate(2 * PANELS, start=1):
        across, up = _domain((number - 1) // len(PANELS), panel)
        upright, narrow = _upright(number), panel in (*MAPS, "attends")
        x: dict[str, Any] = {
            "domain": across, "anchor": _axis("y", upright), "showgrid": False, "zeroline": False, "tickformat": "d",
            "tickangle": 0, "nticks": 6 if narrow else 9, "ticks": "outside", "ticklen": 3,
            "fixedrange": panel not in MAPS, "title": {"text": below.get(panel, ""), "standoff": 4},
        }  # fmt: skip
        y: dict[str, Any] = {
            "domain": up, "anchor": _axis("x", number), "gridcolor": GRID, "zeroline": False, "nticks": 5,
            "showticklabels": panel not in MAPS[1:], "title": {"text": beside.get(panel, ""), "standoff": 5},
        }  # fmt: skip
        for axis in (x, y):  # measuring every label on every redraw is a fifth of its time
            axis["ticklabeloverflow"] = "allow"
        if panel in MAPS:
            x |= {"constrain": "domain", "scaleanchor": _axis("y", upright)}
            y |= {
                "constrain": "domain",
                "tickformat": "d",
                "ticks": "outside" if panel == "clean" else "",
                "ticklen": 3,
            }
        if panel == "profile":
            x["showticklabels"] = False
        layout[f"xaxis{number}"] = x
        if number == upright:
            layout[f"yaxis{number}"] = y
    bar: dict[str, Any] = {
        "x": 0.915, "xanchor": "left", "yanchor": "bottom", "thickness": 11, "lenmode": "fraction", "outlinewidth": 0,
        "nticks": 5,
    }  # fmt: skip
    low, high = ROWS["map"]
    layout["coloraxis"] = {
        "colorscale": "Viridis",
        "colorbar": bar | {"y": low, "len": high - low, "title": {"text": "weight", "side": "top"}},
    }
    bar |= {"y": ROWS["norm"][0] + 0.06, "len": high - low, "exponentformat": "power", "showexponent": "all"}
    layout["coloraxis2"] = {"colorscale": "PuOr_r", "colorbar": bar | {"title": {"text": "difference", "side": "top"}}}
    return layout


def _titles(
    views: Sequence[View], runs: Sequence[Run], pairs: Sequence[tuple[np.ndarray, np.ndarray]], frame: int
) -> list[dict[str, Any]]:
    """Text above every panel; the difference says its mean square, the paper's figure."""
    titles = []
    for side, (view, (before, after)) in enumerate(zip(views, pairs, strict=True)):
        texts = {
            "clean": "clean",
            "adversarial": "adversarial",
            "difference": f"difference, MSE {((after - before) ** 2).mean():.1e}",
            "profile": "attention that each frame receives",
            "attends": f"who attends to frame {frame}",
            "norm": "norm of each frame's perturbation",
        }
        for panel, text in texts.items():
            across, up = _domain(side, panel)
            titles.append(_text(text, sum(across) / 2, up[1], 12))
        titles.append(_text(f"<b>{run_title(view.run, runs)}</b>", sum(SIDES[side]) / 2, 1.0, 15))
    return titles


def _text(text: str, x: float, y: float, size: int) -> dict[str, Any]:
    place = {"xref": "paper", "yref": "paper", "x": x, "y": y, "xanchor": "center", "yanchor": "bottom"}
    return place | {"text": text, "showarrow": False, "font": {"size": size}, "yshift": 18 if size > 12 else 1}


def _marks(frame: int) -> list[dict[str, Any]]:
    """A box around the attended frame in every map, profile and perturbation."""
    line = {"color": "#d00", "width": 1.2}
    return [
        {
            "type": "rect", "xref": _axis("x", number), "yref": f"{_axis('y', _upright(number))} domain",
            "x0": frame - 0.5, "x1": frame + 0.5, "y0": 0, "y1": 1, "line": line,
        }
        for number, panel in enumerate(2 * PANELS, start=1)
        if panel != "attends"
    ]  # fmt: skip
