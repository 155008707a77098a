"""The attention explorer as a page of controls: ipywidgets around one plotly widget."""

import time
from html import escape
from typing import Any

import anywidget
import ipywidgets as widgets

from pipeline.base.errors import ArtpaperError
from pipeline.base.groups import AttackConfig
from pipeline.base.sources import SOURCES
from pipeline.explorer.explorer import ATTACKS, Explorer, Label, View, run_title
from pipeline.explorer.figure import ExplorerFigure
from pipeline.explorer.videos import public_address
from pipeline.paper.style import DATA

LISTED = 200  # videos in the list at most; a search finds the others
PAPER_EPSILON = AttackConfig().epsilon
REACH = 5  # the slider ends at so many times the pipeline's epsilon
NOTCHES = 20  # of the slider, from 0 to the pipeline's epsilon
AVERAGE = -1  # the value of the control Head for the mean over heads: a list shows nothing for None
ORDERS = {
    "as stored": "store",
    "most changed by the pipeline's attack": "changed",
    "fooled by the attack at this ε": "fooled",
}
WIDE = widgets.Layout(width="auto")
STYLE = {"description_width": "104px"}


class Manners(anywidget.AnyWidget):
    """Invisible; what the box that it stands in lacks for the keyboard and for screen readers.

    In JupyterLab the arrow down in a list would choose the next cell, and the letter x cut it; and ipywidgets puts a
    slider's name beside it without saying that it is its name. Neither can be set from Python, so this script does.
    """

    _esm = """
    export default { render({ el }) {
      const mark = () => {
        const box = el.parentElement;
        if (!box) return requestAnimationFrame(mark);
        box.addEventListener("keydown", event => event.stopPropagation());
        for (const slider of box.querySelectorAll(".widget-slider"))
          slider.querySelector("[role=slider]").setAttribute("aria-label", slider.querySelector("label").textContent);
      };
      requestAnimationFrame(mark);
    } };
    """


class ExplorerView:
    """The controls, what they show, and the last figures shown.

    ``page`` is the widget to display; ``views`` are what the left and the right model make of the chosen video, none
    where that failed; ``milliseconds`` passed from a control's change to the last message to the browser.
    """

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
        self.views: list[View] = []
        self.milliseconds = 0.0
        self._unit = SOURCES[explorer.videos.source].frame_unit
        self._figure = ExplorerFigure(self._unit)
        self._pictures = widgets.VBox([self._figure.widget])
        self._make_controls()
        self.page = self._arrange()
        self._connect()
        self._search()

    def _make_controls(self) -> None:
        explorer = self.explorer
        runs = [(run_title(run, explorer.runs), run) for run in explorer.runs]
        epsilon = explorer.epsilon or PAPER_EPSILON

        def choose(name: str, options: Any, value: Any) -> widgets.Dropdown:
            return widgets.Dropdown(options=options, value=value, description=name, style=STYLE, layout=WIDE)

        self.text = widgets.Combobox(
            placeholder="part of an id, or a label", options=sorted(set(explorer.classes)), description="Search",
            continuous_update=False, style=STYLE, layout=WIDE,
        )  # fmt: skip
        self.order = choose("Videos", ORDERS, "store")
        self.again = widgets.Button(description="Search again at this ε", layout=widgets.Layout(width="auto"))
        self.video = widgets.Select(rows=5, description="Test video", style=STYLE, layout=WIDE)
        self.matches = widgets.HTML()
        self.left = choose("Left model", runs, runs[0][1])
        self.right = choose("Right model", runs, runs[-1][1])
        self.modality = choose("Modality", explorer.modalities, explorer.modalities[0])
        heads = explorer.params.model.heads
        self.head = choose(
            "Head", [(f"average of {heads} heads", AVERAGE), *((f"head {n + 1}", n) for n in range(heads))], AVERAGE
        )
        self.attack = choose("Attack", [(a.title, name) for name, a in ATTACKS.items()], explorer.pipeline_attack)
        self.epsilon = widgets.FloatSlider(
            value=explorer.epsilon, min=0, max=REACH * epsilon, step=epsilon / NOTCHES, readout_format=".4g",
            description="Epsilon ε", style=STYLE, layout=WIDE,
        )  # fmt: skip
        self.frame = widgets.IntSlider(
            value=0, min=0, max=0, description=f"Frame{self._unit}", style=STYLE, layout=WIDE
        )
        self.magnify = choose(
            "Differences", {"colours to the largest one": True, "colours on the maps' scale": False}, True
        )
        self.heading, self.strength, self.status = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.labels = (widgets.HTML(layout={"width": "49%"}), widgets.HTML(layout={"width": "49%"}))

    def _arrange(self) -> widgets.VBox:
        third = widgets.Layout(width="33%")
        finding = widgets.VBox([self.text, self.order, self.video, self.matches], layout=third)
        models = widgets.VBox([self.left, self.right, self.modality, self.head, self.magnify], layout=third)
        attack = widgets.VBox([self.attack, self.epsilon, self.strength, self.frame, self.again], layout=third)
        note = [widgets.HTML(f'<p style="{_BOX}">{escape(self.explorer.note)}</p>')] if self.explorer.note else []
        rows = [widgets.HBox([finding, models, attack]), self.heading, widgets.HBox(self.labels)]
        rows += [self._pictures, self.status]
        return widgets.VBox([*note, *rows, Manners()], layout={"width": "100%"})

    def _connect(self) -> None:
        for control in (self.text, self.order):
            control.observe(self._search, "value")
        self.again.on_click(self._search)
        for control in (self.video, self.left, self.right, self.attack, self.epsilon):
            control.observe(self._look, "value")
        for control in (self.modality, self.head, self.frame, self.magnify):
            control.observe(self._draw, "value")
        self._figure.on_frame(self._mark)

    def _mark(self, frame: int) -> None:
        self.frame.value = frame  # a control like the others: it redraws, and the arrow keys move it too

    def _search(self, _: Any = None) -> None:
        """List the videos that were asked for, and show the first of them."""
        order = self.order.value
        self.again.layout.display = "" if order == "fooled" else "none"
        self.matches.value = f'<div style="{_SMALL}">searching …</div>'  # DeepFool takes seconds
        try:
            selection = self.explorer.find(
                order, self.text.value, self.left.value, self.attack.value, self.epsilon.value
            )
        except ArtpaperError as error:
            self.matches.value = f'<p style="{_BOX}">{escape(str(error))}</p>'
            return
        cut = f"; the first {LISTED} are listed" if len(selection.rows) > LISTED else ""
        self.matches.value = f'<div style="{_SMALL}">{escape(selection.text)}{cut}</div>'
        options = [(self._entry(int(row)), int(row)) for row in selection.rows[:LISTED]]
        if not options:
            return  # the video on show stays; the sentence says that there is none
        self.video.unobserve(self._look, "value")
        self.video.options = options
        self.video.value = options[0][1]
        self.video.observe(self._look, "value")
        self._look()

    def _entry(self, row: int) -> str:
        labels = ", ".join(self.explorer.videos.labels(row))
        return f"{self.explorer.videos.id(row)}  {labels if len(labels) < 60 else labels[:59] + '…'}"

    def _look(self, _: Any = None) -> None:
        """Attack the chosen video for both models, and show it."""
        started = time.perf_counter()
        if self.video.value is None:
            return
        chosen = ATTACKS[self.attack.value]
        self.epsilon.disabled = not chosen.takes_epsilon
        try:
            self.views = [
                self.explorer.look(self.video.value, run, self.attack.value, self.epsilon.value)
                for run in (self.left.value, self.right.value)
            ]
        except ArtpaperError as error:
            self._fail(error)
            return
        self.frame.unobserve(self._draw, "value")
        if self.frame.max == 0:  # the first video of all: its most attended frame
            self.frame.max = len(self.views[0].frame_norms) - 1
            self.frame.value = int(self.views[0].maps(self.modality.value)[0].mean(axis=0).argmax())
        self.frame.max = len(self.views[0].frame_norms) - 1  # a shorter video takes the frame with it
        self.frame.observe(self._draw, "value")
        self._draw(started=started)

    def _fail(self, error: ArtpaperError) -> None:
        """Say what is wrong, and show nothing that belongs to an earlier choice."""
        self.views = []
        self._pictures.layout.visibility = "hidden"  # keeps its size, which plotly would not find again
        for place in (self.strength, *self.labels, self.status):
            place.value = ""
        self.heading.value = f'<p style="{_BOX}">{escape(str(error))}</p>'

    def _draw(self, _: Any = None, started: float | None = None) -> None:
        """Show the two views again: another modality, head, frame or scale, or the views are new."""
        if not self.views:
            return  # what went wrong stays on the page
        started = time.perf_counter() if started is None else started
        head = None if self.head.value == AVERAGE else self.head.value
        self._figure.draw(
            self.views, self.explorer.runs, self.modality.value, head, self.frame.value, self.magnify.value
        )
        self._pictures.layout.visibility = "visible"
        self.heading.value = self._heading()
        self.strength.value = self._strength()
        for place, view in zip(self.labels, self.views, strict=True):
            place.value = _label_table(view, run_title(view.run, self.explorer.runs))
        self.milliseconds = 1000 * (time.perf_counter() - started)
        self.status.value = f'<div style="{_SMALL}">computed and sent in {self.milliseconds:.0f} ms. {_CAPTION}</div>'

    def _heading(self) -> str:
        source = self.explorer.videos.source
        video = self.views[0].video
        link = ""
        if address := public_address(source, video):
            url, text = map(escape, address)
            attributes = f'target="_blank" rel="noopener noreferrer" style="{_LINK}"'
            link = f' · <a href="{url}" {attributes}>{url}</a>, {text}'
        labels = ", ".join(self.views[0].labels) or "none"
        return (
            f'<p style="font-size:15px;line-height:1.4;margin:6px 0 0">Test video <b>{escape(video)}</b> '
            f"({escape(DATA[source])}){link}<br>true labels: <b>{escape(labels)}</b></p>"
        )

    def _strength(self) -> str:
        """Epsilon in the units that people compare: of the video's norm, and beside the paper's."""
        norm, scope = self.views[0].video_norm, self.explorer.params.attack.scope
        reached = [f"{view.norm:.4g} ({_share(view.norm, norm)})" for view in self.views]
        if not ATTACKS[self.attack.value].takes_epsilon:
            text = f"norm reached, left and right: {' and '.join(reached)}; the video's norm is {norm:.3g}"
        elif scope == "joint":
            text = f"ε is {_share(self.epsilon.value, norm)} of the video's norm {norm:.3g}"
        else:
            text = f"ε is the norm of each {scope}, in all {' and '.join(reached)} of the video's norm {norm:.3g}"
        return (
            f"<div style=\"{_SMALL}\">{text}. The pipeline's ε is {self.explorer.epsilon:g}, the paper's "
            f"{PAPER_EPSILON:g} ({_share(PAPER_EPSILON, norm)} of this video's norm).</div>"
        )


_SMALL = "font-size:12px;line-height:1.35;color:#444;margin:2px 4px"
_LINK = "color:#0b57a4;text-decoration:underline"
_BOX = "background:#fff4d6;border-left:4px solid #b07d00;color:#222;padding:8px 12px;margin:4px 0;line-height:1.4"
_CELL = "padding:1px 8px;text-align:left;white-space:nowrap;overflow:hidden;text-overflow:ellipsis;max-width:190px"
_CAPTION = (
    "Clean and adversarial maps of both models share one colour scale; the differences, adversarial less clean, share "
    "another around 0. Rows attend, columns are attended to. Point at a frame, or move the slider Frame, to see who "
    "attends to it."
)


def _share(part: float, whole: float) -> str:
    """In percent; a video of nothing but zeros has no norm to be a share of."""
    return f"{100 * part / whole:.2f} %" if whole else "no share"


def _verdict(view: View) -> str:
    if not view.right:
        return "the top label is wrong before any attack"
    return "not fooled: the top label is still a true one" if view.attacked_right else "FOOLED: the top label is wrong"


def _label_table(view: View, model: str) -> str:
    """The best labels before and after; a true one has a check mark and the word, not a colour alone."""

    def cells(label: Label) -> str:
        mark = "<b>✓ true</b>" if label.true else ""
        name = f"<b>{escape(label.name)}</b>" if label.true else escape(label.name)
        shown = f'<td style="{_CELL}" title="{escape(label.name)}">{name}</td>'
        return f'{shown}<td style="{_CELL}">{100 * label.probability:.1f} %</td><td style="{_CELL}">{mark}</td>'

    head = "".join(
        f'<th scope="colgroup" colspan="3" style="{_CELL};border-bottom:1px solid #999">{name}</th>'
        for name in ("clean: top labels", "adversarial: top labels")
    )
    rows = "".join(
        f"<tr>{cells(before)}{cells(after)}</tr>" for before, after in zip(view.top, view.attacked_top, strict=True)
    )
    return (
        f'<div style="font-size:12px;line-height:1.25"><b>{escape(model)}</b>: {escape(_verdict(view))}'
        f'<table style="border-collapse:collapse"><tr>{head}</tr>{rows}</table></div>'
    )
