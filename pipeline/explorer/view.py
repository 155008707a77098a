"""The attention explorer as a widget: all that it shows is in its traits, so a late or reloaded page misses nothing."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from pipeline.base.errors import ArtpaperError
from pipeline.explorer import scene
from pipeline.explorer.choices import ATTACKS
from pipeline.explorer.explorer import Explorer
from pipeline.explorer.static import one_page

HERE = Path(__file__).parent
PIXELS = 256  # of a map on the screen, until the page has said how many it has
SLOW = 150  # milliseconds that a view took: from here on the maps of the next are shown before the models have answered
PATIENCE = 1.0  # seconds that a view may take before a newer one is begun: a drag shows what lies on its way


class Superseded(Exception):
    """Something newer was asked for."""


class Newest:
    """A thread that does the newest of the work asked for; what it was to do before is forgotten."""

    def __init__(self, work: Callable[[Any], None]) -> None:
        self._work, self._changed = work, threading.Condition()
        self._waiting: list[Any] = []
        self._busy, self._open, self._since, self._patience = False, True, 0.0, 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def ask(self, request: Any) -> None:
        """Have this done next, in place of what was to be next."""
        with self._changed:
            self._waiting = [request]
            self._changed.notify_all()

    @contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """What is done in here is given up so many seconds from now, if by then something newer is asked for."""
        self._since, self._patience = time.monotonic(), seconds
        yield
        self._patience = 0.0

    def give_way(self) -> None:
        """Raise :class:`Superseded` in the thread's own work, where something newer waits."""
        late = time.monotonic() - self._since > self._patience
        if self._waiting and late and threading.current_thread() is self._thread:
            raise Superseded

    def wait(self, seconds: float) -> bool:
        """Whether all is done within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._busy or self._waiting), seconds)

    def close(self) -> None:
        """End the thread, once what it is at is done."""
        with self._changed:
            self._open = False
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or not self._open)
                if not self._open:
                    return
                request, self._waiting, self._busy = self._waiting[0], [], True
            try:
                self._work(request)
            except Superseded:
                pass
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()


class ExplorerView(anywidget.AnyWidget):
    """The page, to be displayed as a cell's last value; ``shown`` is a state as JSON, such as somebody has sent.

    ``state`` is what is looked at, as :func:`pipeline.explorer.scene.first_state` has it; the page and whoever holds
    this may set it, whole. The other traits follow from it.
    """

    _esm, _css = HERE / "widget.js", HERE / "widget.css"
    about = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)
    pixels = traitlets.Int(PIXELS).tag(sync=True)
    arrived = traitlets.Float().tag(sync=True)  # when a page came, by its clock
    wanted = traitlets.Int().tag(sync=True)  # how often the one-file page was asked for
    scene = traitlets.Dict().tag(sync=True)
    listing = traitlets.Dict().tag(sync=True)
    moved = traitlets.Dict().tag(sync=True)
    margins = traitlets.Dict().tag(sync=True)
    page = traitlets.Dict().tag(sync=True)

    def __init__(self, explorer: Explorer, shown: str = "") -> None:
        self.explorer = explorer
        self._done: dict[str, Any] = {}
        self._slow = False
        super().__init__(about=scene.about(explorer), state=scene.first_state(explorer) | json.loads(shown or "{}"))
        self._worker = Newest(self._work)
        explorer.pause = self._worker.give_way
        self.observe(self._ask, ["state", "pixels", "wanted"])
        self.observe(self._tell_again, "arrived")
        self._ask()

    def wait(self, seconds: float = 60) -> None:
        """Return once everything that was asked for is in the traits."""
        if not self._worker.wait(seconds):
            raise TimeoutError(f"the explorer is not ready after {seconds} s")

    def close(self) -> None:
        """End the thread as well, and take the page away."""
        self._worker.close()
        super().close()

    def _ask(self, _: Any = None) -> None:
        self._worker.ask((dict(self.state), self.pixels, self.wanted))

    def _tell_again(self, _: Any) -> None:
        """A page whose script was slow to load may have missed what was sent meanwhile."""
        self.send_state(["about", "scene", "listing", "moved", "margins"])

    def _work(self, request: tuple[dict[str, Any], int, int]) -> None:
        state, pixels, wanted = request
        asked = [state.get(name) for name in scene.ASKED]
        try:
            with self._worker.patient(PATIENCE):
                self._bring("scene", [asked, pixels], lambda: self._scene(state, pixels))
            look = scene.look_of(state, self.explorer)
            self._bring("listing", state["find"], lambda: scene.listing_of(self.explorer, state))
            self._bring("moved", [look.runs[0], look.runs[-1]], lambda: scene.moved_of(self.explorer, look.runs))
            if wanted:
                self._bring("page", wanted, lambda: one_page(self.explorer, state))
            self._margins(state)
        except Superseded:
            raise
        except Exception as error:  # a thread's last words would be lost
            text = str(error) if isinstance(error, ArtpaperError) else f"{type(error).__name__}: {error}"
            self._done.pop("scene", None)
            self.scene = {"asked": asked, "error": text}

    def _bring(self, name: str, asked: Any, make: Callable[[], dict[str, Any]]) -> None:
        if self._done.get(name) != asked:
            setattr(self, name, make())
            self._done[name] = asked

    def _scene(self, state: dict[str, Any], pixels: int) -> dict[str, Any]:
        started, parts = time.perf_counter(), scene.scenes_of(self.explorer, state, pixels)
        maps = next(parts)
        if self._slow:
            self.scene = maps
        whole, milliseconds = next(parts), 1000 * (time.perf_counter() - started)
        self._slow = milliseconds > SLOW
        return whole | {"milliseconds": milliseconds}

    def _margins(self, state: dict[str, Any]) -> None:
        """The margins of every model on show, an epsilon after the other, as long as nothing newer is asked for."""
        look = scene.look_of(state, self.explorer)
        asked = [look.row, look.attack, look.masked]
        if self._done.get("margins") != asked:
            self.margins = {"epsilons": scene.curve_epsilons(self.explorer), "of": {}}
            self._done["margins"] = asked
        if not ATTACKS[look.attack].takes_epsilon:
            return
        epsilons = self.margins["epsilons"]
        for run in look.runs:
            key = scene.run_key(run)
            known = self.margins["of"].get(key, [])
            rest = epsilons[len(known) :]
            for margin in self.explorer.margins(look.row, run, look.attack, rest, look.masked):
                known = [*known, scene.number(margin)]
                self.margins = self.margins | {"of": self.margins["of"] | {key: known}}
                self._worker.give_way()
