"""The attention explorer as a reader meets it: in JupyterLab, with a mouse and a keyboard.

What the browser shows is compared with what the library says of the same video, model, attack and epsilon.
"""

import json
import os
import platform
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from pipeline.explorer.explorer import ATTACKS, Explorer, open_explorer, run_title
from pipeline.paper.publish import processor
from pipeline.run.workspace import open_workspace
from tests.browser.conftest import ROOT, Watched
from tests.browser.lab import jupyter_lab
from tests.small_run import small_run

SERVED = ROOT / "reports" / "browser" / "lab"
NOTEBOOK = ROOT / "notebooks" / "explore_attention.ipynb"
MAPS = {"clean": 0, "adversarial": 1, "difference": 2}  # places of a side's first traces
TRACES = 9  # of a side
PATIENCE = 300_000  # milliseconds for a first run, models included, on a busy machine
DRAGS = 9  # steps of the handle that are timed

# From the pointer's movement to the picture: plotly has drawn, and the browser has shown two frames since.
WATCH_REDRAWS = """() => {
  window.moved = 0; window.redraws = [];
  document.addEventListener('pointermove', () => { window.moved = performance.now(); }, true);
  document.querySelector('.js-plotly-plot').on('plotly_afterplot', () => {
    const since = window.moved;
    requestAnimationFrame(() => requestAnimationFrame(() => window.redraws.push(performance.now() - since)));
  });
}"""

# Where a frame of the left model's clean profile lies in the window.
PLACE = """frame => {
  const gd = document.querySelector('.js-plotly-plot');
  const {xaxis, yaxis, y} = gd._fullData.find(trace => trace.type === 'scatter' && trace.name === 'clean');
  const [across, up] = [xaxis, yaxis].map(id => gd._fullLayout[id.replace(/^(.)/, '$1axis')]);
  const box = gd.getBoundingClientRect();
  return [box.x + across._offset + across.d2p(frame), box.y + up._offset + up.d2p(y[frame])];
}"""


@pytest.fixture
def watched(watched: Watched, screenshots: Path, request: pytest.FixtureRequest) -> Iterator[Watched]:
    """The page, and how it ended, whatever happened."""
    yield watched
    watched.page.screenshot(path=screenshots / f"explorer-last-{request.node.name}.png")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on a folder inside the project that git ignores, where notebooks find the project above them.

    Their small workspace holds the run that tests share.
    """
    small_run()
    SERVED.mkdir(parents=True, exist_ok=True)
    with jupyter_lab(SERVED, tmp_path_factory.mktemp("lab")) as address:
        yield address


class Shown:
    """The explorer in an open notebook."""

    def __init__(self, watched: Watched, lab: str, name: str, folder: Path, **parameters: str) -> None:
        self.page, self.failed = watched.page, []
        self.page.set_default_timeout(60_000)
        self.page.on("requestfailed", lambda request: self.failed.append(request.url))
        copy_notebook(folder / f"{name}.ipynb", **parameters)
        self.page.goto(lab.format(name))
        run_all(self.page)

    def wait(self) -> None:
        self.page.wait_for_selector(".js-plotly-plot .heatmaplayer image", timeout=PATIENCE)
        expect(self.page.get_by_text("computed and sent in")).to_be_visible()
        self.page.locator(".jp-OutputArea-output .widget-vbox").first.evaluate("box => box.scrollIntoView()")

    def choose(self, label: str, option: str) -> None:
        self.page.get_by_label(label, exact=True).select_option(label=option)

    @property
    def handle(self) -> Locator:
        return self.page.locator(".widget-slider", has_text="Epsilon").locator(".noUi-handle")

    @property
    def epsilon(self) -> float:
        return float(self.page.locator(".widget-slider", has_text="Epsilon").locator(".widget-readout").inner_text())

    def map(self, side: int, kind: str) -> np.ndarray:
        """The numbers behind a map, as plotly drew them."""
        read = "(gd, trace) => Array.from(gd.calcdata[trace][0].z, row => Array.from(row))"
        at = side * TRACES + MAPS[kind]
        return np.array(self.page.locator(".js-plotly-plot").evaluate(f"(gd) => ({read})(gd, {at})"), dtype=np.float64)

    def expect_maps(self, explorer: Explorer, row: int, runs: list, attack: str, modality: str, head: int | None):
        """Wait until both models' maps are those that the library computes."""
        at = self.epsilon
        for side, run in enumerate(runs):
            clean, adversarial = explorer.look(row, run, attack, at).maps(modality, head)
            wanted = {"clean": clean, "adversarial": adversarial, "difference": adversarial - clean}
            self.page.wait_for_function(
                "([at, wanted]) => { const z = document.querySelector('.js-plotly-plot').calcdata[at][0].z;"
                " return z.length === wanted.length && wanted.every((row, i) => row.every((v, j) => "
                "Math.abs(v - z[i][j]) < 2e-5)) }",
                arg=[side * TRACES + 1, wanted["adversarial"].tolist()],
            )
            for kind, expected in wanted.items():
                np.testing.assert_allclose(self.map(side, kind), expected, atol=2e-5)


def copy_notebook(path: Path, **parameters: str) -> None:
    """The notebook with other parameters; the tracked file is never opened by the server."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    cell.source = "\n".join([cell.source, *(f"{name} = {value!r}" for name, value in parameters.items())])
    nbformat.write(notebook, path)


def run_all(page: Page) -> None:
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=PATIENCE)
    page.get_by_text("| Idle").wait_for(timeout=PATIENCE)  # without a kernel, running would only ask for one
    page.keyboard.press("Control+b")  # the side bar goes
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()


def drag(shown: Shown, moves: int, pixels: int) -> list[float]:
    """Drag the handle step by step; the milliseconds from each movement to the redrawn picture."""
    page, taken = shown.page, []
    box = shown.handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(1, moves + 1):
        before = shown.map(0, "adversarial")
        page.evaluate("window.redraws = []")
        page.mouse.move(x + step * pixels, y)
        page.wait_for_function("window.redraws.length > 0")
        taken.append(page.evaluate("window.redraws[0]"))
        assert np.abs(shown.map(0, "adversarial") - before).max() > 0
    page.mouse.up()
    return taken


@pytest.mark.timeout(900)
@pytest.mark.parametrize("which", ["auto", "small"])
def test_a_reader_explores(watched: Watched, lab: str, screenshots: Path, which: str) -> None:
    given = {"workspace": "auto"} if which == "auto" else {"params": "profiles/small.yaml", "workspace": "small"}
    shown = Shown(watched, lab, f"explorer-{which}", SERVED, **given)
    shown.wait()
    page = shown.page

    def keep(step: str) -> None:
        page.wait_for_timeout(300)  # let the last frame be painted
        page.screenshot(path=screenshots / f"explorer-{which}-{step}.png")

    explorer = open_explorer(**given)  # the same one, made by now
    left, right = explorer.runs[0], explorer.runs[-1]
    modality, attack = explorer.modalities[0], explorer.pipeline_attack
    expect(page.get_by_text(f"Test video {explorer.videos.id(0)}")).to_be_visible()
    shown.expect_maps(explorer, 0, [left, right], attack, modality, None)
    keep("1-open")

    # another video, by the keyboard
    page.get_by_label("Test video").focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_text(f"Test video {explorer.videos.id(1)}")).to_be_visible()
    shown.expect_maps(explorer, 1, [left, right], attack, modality, None)
    for name in explorer.videos.labels(1):
        expect(page.locator(".widget-html", has_text="true labels:")).to_contain_text(name)
    keep("2-video")

    # epsilon, by the mouse: one redraw a step, and the labels follow
    page.evaluate(WATCH_REDRAWS)
    top = page.locator("table").first.inner_text()
    taken = drag(shown, DRAGS, 9)
    shown.expect_maps(explorer, 1, [left, right], attack, modality, None)
    assert page.locator("table").first.inner_text() != top
    keep("3-epsilon")
    record(taken, page, explorer, screenshots / "explorer.json", which)

    # a fast drag back: whatever the kernel could not keep up with, the last value counts
    box = shown.handle.bounding_box()
    page.mouse.move(box["x"] + 8, box["y"] + 8)
    page.mouse.down()
    for step in range(40):
        page.mouse.move(box["x"] + 8 - step, box["y"] + 8)
    page.mouse.up()
    shown.expect_maps(explorer, 1, [left, right], attack, modality, None)

    # head, model, modality, attack, colours
    heads = explorer.params.model.heads
    shown.choose("Head", f"head {heads}")
    shown.expect_maps(explorer, 1, [left, right], attack, modality, heads - 1)
    keep("4-head")
    other = explorer.runs[len(explorer.runs) // 2]
    shown.choose("Right model", run_title(other, explorer.runs))
    shown.expect_maps(explorer, 1, [left, other], attack, modality, heads - 1)
    keep("5-model")
    shown.choose("Modality", explorer.modalities[-1])
    shown.choose("Head", f"average of {heads} heads")
    shown.choose("Attack", "random direction (control)")
    shown.expect_maps(explorer, 1, [left, other], "random", explorer.modalities[-1], None)
    shown.choose("Differences", "colours on the maps' scale")
    scales = "gd => ['coloraxis', 'coloraxis2'].map(name => gd._fullLayout[name].cmax)"
    page.wait_for_function(f"(([a, b]) => a === b)(({scales})(document.querySelector('.js-plotly-plot')))")
    keep("6-random")

    # the keyboard reaches epsilon and moves it
    page.get_by_label("Attack", exact=True).focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className").startswith("noUi-handle")
    before = shown.epsilon
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert shown.epsilon == pytest.approx(before + 2 * explorer.epsilon / 20, rel=1e-3)
    shown.expect_maps(explorer, 1, [left, other], "random", explorer.modalities[-1], None)

    # pointing at a frame of the profile lists who attends to it
    title = page.locator(".js-plotly-plot .annotation-text", has_text="who attends to frame").first
    shown_before = title.text_content()
    count = explorer.look(1, left, "random", 0.0).frame_norms.size
    frame = (int(re.search(r"\d+", shown_before)[0]) + 2) % count
    page.mouse.move(*page.evaluate(PLACE, frame))
    expect(title).to_have_text(f"who attends to frame {frame}")
    hover = page.locator(".js-plotly-plot .hoverlayer").text_content()
    assert f"frame {frame} receives" in hover
    assert "most from frames" in hover
    keep("7-frame")

    # DeepFool finds its own norm
    shown.choose("Attack", "DeepFool: as far as the top label needs")
    expect(page.get_by_text("norm reached, left and right")).to_be_visible()
    shown.expect_maps(explorer, 1, [left, other], "deepfool", explorer.modalities[-1], None)
    assert shown.handle.locator("xpath=ancestor::*[@disabled]").count() == 1
    keep("8-deepfool")

    # videos by who was fooled, and by label
    shown.choose("Attack", ATTACKS[attack].title)
    shown.choose("Videos", "fooled by the attack at this ε")
    expect(page.get_by_role("button", name="Search again at this ε")).to_be_visible()
    fooled = explorer.find("fooled", "", left, attack, shown.epsilon)
    expect(page.get_by_text(fooled.text)).to_be_visible()
    if fooled.rows.size:  # or the video on show stays
        expect(page.get_by_text(f"Test video {explorer.videos.id(int(fooled.rows[0]))}")).to_be_visible()
        expect(page.locator("table").first.locator("..")).to_contain_text("FOOLED: the top label is wrong")
    keep("9-fooled")
    wanted = explorer.videos.labels(1)[0]
    shown.choose("Videos", "as stored")
    page.get_by_label("Search", exact=True).fill(wanted)
    page.keyboard.press("Enter")
    expect(page.get_by_label("Test video").locator("option").first).to_contain_text(wanted[:20])
    entries = page.get_by_label("Test video").locator("option").all_inner_texts()
    rows = [row for row in range(len(explorer.videos)) if wanted in explorer.videos.labels(row)][:200]
    assert len(entries) == len(rows)
    assert all(entry.startswith(explorer.videos.id(row)) for entry, row in zip(entries, rows, strict=True))
    keep("10-label")

    named = Axe().run(
        page, ".widget-vbox", {"runOnly": ["label", "select-name", "button-name", "aria-input-field-name"]}
    )
    assert not named.response["violations"], named.generate_report()
    assert not watched.errors
    assert not shown.failed
    assert not [url for url in watched.requests if not re.match(r"(https?://127\.0\.0\.1:|data:|blob:)", url)]


def record(taken: list[float], page: Page, explorer: Explorer, path: Path, which: str) -> None:
    """Print the time to redraw and keep it; a busy machine is no failure, so there is no bound."""
    told = re.search(r"computed and sent in (\d+) ms", page.content())
    measured = {
        "profile": "small" if which == "small" or explorer.note else explorer.params.data.source,
        "frames": int(explorer.look(1, explorer.runs[0], "one_step", 0.0).frame_norms.size),
        "models": 2,
        "milliseconds": {
            "from drag to redrawn, median": round(statistics.median(taken)),
            "each": [round(one) for one in taken],
            "of which in the kernel, last": int(told[1]),
        },
        "machine": {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "system": platform.system()},
        "load": round(os.getloadavg()[0], 1),
        "command": "python -m pytest -m browser tests/browser/test_explorer.py",
    }
    kept = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(kept | {which: measured}, indent=1) + "\n")
    print(json.dumps(measured["milliseconds"]), "load", measured["load"])


@pytest.mark.timeout(900)
def test_before_the_first_run_auto_shows_the_small_models_and_says_so(
    watched: Watched, tmp_path: Path, screenshots: Path
) -> None:
    """A project that was never run; its small workspace is this one's, made at the most once, less one model."""
    small = open_explorer("profiles/small.yaml", "small")
    first, lost, last = small.runs
    fresh_project(tmp_path)
    made = open_workspace("profiles/small.yaml", "small").root
    models = [path for path in (made / "models").iterdir() if path.name != lost[0]]
    (tmp_path / "profiles").symlink_to(ROOT / "profiles", target_is_directory=True)
    (tmp_path / "small" / made.name / "models").mkdir(parents=True)
    for path in (made / "frames", made / "predictions", *models):
        (tmp_path / "small" / path.relative_to(made.parent)).symlink_to(path, target_is_directory=True)
    with jupyter_lab(tmp_path, tmp_path / "private") as address:
        shown = Shown(watched, address, "explorer", tmp_path, workspace="auto")
        shown.wait()
        note = shown.page.locator(".widget-html", has_text="These are the small profile's models")
        expect(note).to_contain_text("`dvc repro` makes it")
        shown.expect_maps(small, 0, [first, last], "one_step", small.modalities[0], None)
        shown.page.screenshot(path=screenshots / "explorer-fresh.png")

        # a model that is not there is told, and no picture of another one stays
        picture = shown.page.locator(".js-plotly-plot")
        shown.choose("Right model", run_title(lost, small.runs))
        expect(shown.page.locator(".widget-html", has_text=f"models/{lost[0]}/seed0")).to_be_visible()
        expect(picture).to_be_hidden()
        shown.page.screenshot(path=screenshots / "explorer-lost.png")
        shown.choose("Head", "head 2")
        shown.choose("Right model", run_title(last, small.runs))
        expect(picture).to_be_visible()
        shown.expect_maps(small, 0, [first, last], "one_step", small.modalities[0], 1)
    assert not watched.errors


def fresh_project(folder: Path) -> None:
    """What git would give of a project, as far as the explorer asks for it, and room for a server's settings."""
    for name in ("dvc.yaml", "params.yaml"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    (folder / "private").mkdir()


@pytest.mark.timeout(600)
def test_without_models_the_page_names_the_command(watched: Watched, tmp_path: Path, screenshots: Path) -> None:
    """A project that was never run: what the pipeline would read is not there, and no traceback hides the remedy."""
    fresh_project(tmp_path)
    copy_notebook(tmp_path / "explorer.ipynb", workspace=".")
    with jupyter_lab(tmp_path, tmp_path / "private") as address:
        watched.page.goto(address.format("explorer"))
        run_all(watched.page)
        said = watched.page.locator(".jp-OutputArea-output", has_text="not made yet")
        said.wait_for(timeout=PATIENCE)
        assert "`dvc repro` makes it" in said.inner_text()
        assert "Traceback" not in said.inner_text()
        watched.page.screenshot(path=screenshots / "explorer-no-models.png")
