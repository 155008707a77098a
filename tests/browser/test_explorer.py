"""The attention explorer as a reader meets it: in JupyterLab, by mouse and keyboard, and as a page without a kernel.

What the browser shows is compared with what the library says of the same video, model, attack and epsilon. One
JupyterLab and one open notebook serve all tests that need no other; each begins by pasting the first view again.
"""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from matplotlib import colormaps
from playwright.sync_api import Browser, Locator, Page, expect

from pipeline.explorer.choices import ATTACKS
from pipeline.explorer.explorer import Explorer, open_explorer, run_title
from pipeline.explorer.scene import first_state, run_key
from pipeline.explorer.static import page_of
from pipeline.run.workspace import open_workspace
from tests.browser.conftest import ROOT, Watched
from tests.browser.lab import jupyter_lab
from tests.small_run import small_run

SERVED = ROOT / "reports" / "browser" / "lab"
NOTEBOOK = ROOT / "notebooks" / "explore_attention.ipynb"
SMALL = {"params": "profiles/small.yaml", "workspace": "small"}
PATIENCE = 300_000  # milliseconds for a first run on a busy machine
KINDS = ("clean", "adversarial", "difference")
# A second page in the same notebook, whose script takes 3 s to load: by then anywidget has given up on it.
LATE = """
from pipeline.explorer.view import HERE

class Late(ExplorerView):
    _esm = "await new Promise(done => setTimeout(done, 3000));\\n" + (HERE / "widget.js").read_text()

Late(explorer)
"""
# Every line of text that can be seen, and the box around it; what a box with hidden overflow cuts off does not count.
LINES = """root => {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT), lines = [], range = document.createRange();
  while (walker.nextNode()) {
    const node = walker.currentNode, parent = node.parentElement;
    if (!node.data.trim() || parent.closest('option, datalist, .tip, [hidden], script')) continue;
    range.selectNodeContents(node);
    for (let { left, right, top, bottom } of range.getClientRects()) {
      for (const around of ['td, th', '.scrolls']) {
        const cut = parent.closest(around)?.getBoundingClientRect();
        if (cut) [left, right] = [Math.max(left, cut.left), Math.min(right, cut.right)];
      }
      if (right > left) lines.push([node.data.trim(), left, right, top, bottom]);
    }
  }
  return lines;
}"""
# Every plot on show, and those of them that show nothing: no drawing in it, or a map of one colour.
PLOTS = """root => {
  const blank = canvas => {
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    return data.every((value, at) => value === data[at % 4]);
  };
  const plots = [...root.querySelectorAll('.plot')].map(plot => [...plot.querySelectorAll('canvas, svg')]);
  const empty = drawn => !drawn.length || drawn.some(one => one.tagName === 'CANVAS' && one.width && blank(one));
  return [plots.length, plots.filter(empty).length];
}"""
CONTRAST = """root => {
  const pen = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const light = colour => {
    pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
    const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map(v => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const { color, backgroundColor } = getComputedStyle(root), paper = light(backgroundColor);
  const ratio = one => (Math.max(one, paper) + 0.05) / (Math.min(one, paper) + 0.05);
  const strokes = [...root.querySelectorAll('svg [stroke]')].map(one => one.getAttribute('stroke'));
  const drawn = new Set(strokes.filter(stroke => stroke[0] === '#'));
  return [ratio(light(color)), ...[...drawn].map(one => ratio(light(one)))];
}"""


class Shown:
    """One explorer on a page."""

    def __init__(self, root: Locator) -> None:
        self.root, self.page = root, root.page

    def ready(self) -> "Shown":
        expect(self.root.locator("canvas").first).to_be_visible(timeout=PATIENCE)
        expect(self.root).not_to_have_attribute("data-busy", "")
        return self

    def control(self, name: str) -> Locator:
        return self.root.get_by_label(name, exact=True)

    def choose(self, label: str, option: str) -> None:
        self.control(label).select_option(label=option)

    def state(self) -> dict:
        self.page.evaluate("() => new Promise(requestAnimationFrame)")  # what is drawn with the next frame is said then
        return json.loads(self.control("This view").input_value())

    def show(self, state: dict) -> None:
        """By pasting a view, as one would that somebody has sent."""
        self.control("This view").fill(json.dumps(state))
        self.control("This view").press("Enter")
        self.control("This view").blur()
        self.ready()

    def reading(self) -> dict:
        return self.root.evaluate(
            "root => { const { maps, ...rest } = root.reading(); return { ...rest, maps: maps.map(map => ({ ...map,"
            " values: Object.fromEntries(Object.entries(map.values).map(([k, v]) => [k, [...v]])),"
            " received: map.received.map(v => [...v]) })) } }"
        )

    def expect_maps(self, explorer: Explorer, row: int, attack: str) -> None:
        """All maps on show are those that the library computes, to the half step that they travel with."""
        self.ready()
        state, read = self.state(), self.reading()
        epsilon, masked = state["epsilon"], [frame - 1 for frame in state["masked"]]
        runs = [run for key in state["models"] for run in explorer.runs if run_key(run) == key]
        heads = [None] if state["head"] == "mean" else range(explorer.params.model.heads)
        heads = [state["head"] - 1] if isinstance(state["head"], int) else heads
        wanted = [(run, name, head) for run in runs for name in state["modalities"] for head in heads]
        assert len(read["maps"]) == len(wanted)
        for told, (run, name, head) in zip(read["maps"], wanted, strict=True):
            before, after = explorer.look(row, run, attack, epsilon, masked).maps(name, head)
            fine = (before.max() + abs(after - before).max()) / 32_767
            for kind, expected in zip(KINDS, (before, after, after - before), strict=True):
                np.testing.assert_allclose(np.array(told["values"][kind]), expected.ravel(), atol=fine)
            np.testing.assert_allclose(told["received"], [before.mean(axis=0), after.mean(axis=0)], atol=1e-6)
            assert told["mse"] == pytest.approx(((after - before) ** 2).mean())

    def drag(self, pixels: int, steps: int) -> None:
        """Drag the handle of epsilon."""
        box, slider = self.control("Epsilon ε").bounding_box(), self.control("Epsilon ε")
        share = float(slider.input_value()) / float(slider.get_attribute("max"))
        x, y = box["x"] + 8 + share * (box["width"] - 16), box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        for step in range(1, steps + 1):
            self.page.mouse.move(x + pixels * step / steps, y)
        self.page.mouse.up()


def copy_notebook(path: Path, *cells: str, **parameters: str) -> None:
    """The notebook with other parameters and more cells; the tracked file is never opened by the server."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    for name, value in parameters.items():
        cell.source = re.sub(rf"^{name} = .*$", f"{name} = {json.dumps(value)}", cell.source, flags=re.MULTILINE)
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def run_all(page: Page) -> None:
    page.set_default_timeout(60_000)
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=PATIENCE)
    page.get_by_text("| Idle").wait_for(timeout=PATIENCE)  # without a kernel, running would only ask for one
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on a folder inside the project that git ignores, where notebooks find the project above them.

    Their small workspace holds the run that tests share.
    """
    small_run()
    SERVED.mkdir(parents=True, exist_ok=True)
    with jupyter_lab(SERVED, tmp_path_factory.mktemp("lab")) as address:
        yield address


@pytest.fixture(scope="module")
def explorer(lab: str) -> Explorer:
    return open_explorer(**SMALL)


@pytest.fixture(scope="module")
def opened(chromium: Browser, lab: str) -> Iterator[Watched]:
    """The notebook, all of it run, with a page that was late below the first one."""
    context = chromium.new_context(viewport={"width": 1440, "height": 1000}, accept_downloads=True)
    seen = Watched(context.new_page())
    seen.page.on("console", lambda said: seen.errors.append(said.text) if said.type == "error" else None)
    seen.page.on("request", lambda request: seen.requests.append(request.url))
    copy_notebook(SERVED / "explorer.ipynb", LATE, **SMALL)
    seen.page.goto(lab.format("explorer"))
    run_all(seen.page)
    yield seen
    context.close()


@pytest.fixture
def shown(opened: Watched, explorer: Explorer, screenshots: Path, request: pytest.FixtureRequest) -> Iterator[Shown]:
    """The explorer at its first view, in the light, at full width."""
    opened.page.set_viewport_size({"width": 1440, "height": 1000})
    page = Shown(opened.page.locator(".explorer").first).ready()
    page.show(first_state(explorer))
    page.root.evaluate("root => root.scrollIntoView()")
    yield page
    opened.page.screenshot(path=screenshots / f"explorer-{request.node.name.removeprefix('test_')}.png")


@pytest.mark.timeout(900)
def test_it_draws_though_its_script_was_late(opened: Watched, explorer: Explorer) -> None:
    """Fails with a page that waits for messages instead of reading traits: they were lost before it could hear them."""
    late = Shown(opened.page.locator(".explorer").nth(1)).ready()
    late.expect_maps(explorer, 0, "one_step")
    late.choose("Model 2", "ART")  # and it hears what is sent from now on
    late.expect_maps(explorer, 0, "one_step")
    opened.errors.clear()


def test_a_reloaded_page_draws_the_same(opened: Watched, shown: Shown, explorer: Explorer) -> None:
    page = opened.page
    shown.choose("Model 2", "ART")
    shown.ready()
    page.locator(".jp-Notebook").first.press("Control+s")
    page.wait_for_timeout(500)
    page.reload()
    again = Shown(page.locator(".explorer").first).ready()
    assert again.state()["models"] == ["non_art/0", "art/0"]
    again.expect_maps(explorer, 0, "one_step")


def test_maps_follow_every_control(shown: Shown, explorer: Explorer) -> None:
    heads, rows = explorer.params.model.heads, explorer.videos
    expect(shown.root.get_by_text(f"Test video {rows.id(0)}")).to_be_visible()
    shown.expect_maps(explorer, 0, "one_step")
    shown.control("Test video").focus()
    shown.page.keyboard.press("ArrowDown")
    expect(shown.root.get_by_text(f"Test video {rows.id(1)}")).to_be_visible()
    for name in rows.labels(1):
        expect(shown.root.locator(".video")).to_contain_text(name)
    shown.expect_maps(explorer, 1, "one_step")
    top = shown.root.locator("table").first.inner_text()
    shown.drag(60, 12)
    assert shown.state()["epsilon"] > explorer.epsilon
    shown.expect_maps(explorer, 1, "one_step")
    assert shown.root.locator("table").first.inner_text() != top
    shown.drag(-90, 60)  # fast: whatever the kernel could not keep up with, the last value counts
    shown.expect_maps(explorer, 1, "one_step")
    shown.control("Epsilon ε").focus()
    before = shown.state()["epsilon"]
    shown.page.keyboard.press("ArrowRight")
    shown.page.keyboard.press("ArrowRight")
    for _ in range(100):  # the page tells of its state when it has drawn, on a busy machine a moment later
        if shown.state()["epsilon"] == pytest.approx(before + 2 * explorer.epsilon / 20, rel=1e-3):
            break
        shown.page.wait_for_timeout(50)
    else:
        pytest.fail(f"two steps from {before} lead to {shown.state()['epsilon']}")
    shown.choose("Head", f"head {heads}")
    shown.choose("Model 2", "ART")
    shown.choose("Model 3", "A-ART")
    shown.choose("Modality", "rgb and audio")
    shown.expect_maps(explorer, 1, "one_step")
    assert len(shown.reading()["maps"]) == 6
    for name, choice in ATTACKS.items():
        shown.choose("Attack", choice.title)
        shown.expect_maps(explorer, 1, name)
        expect(shown.control("Epsilon ε")).to_be_enabled(enabled=choice.takes_epsilon)
    shown.choose("Differences", "colours on the maps' scale")
    read = shown.reading()
    assert read["reach"] == read["most"]


def test_all_heads_are_small_multiples(shown: Shown, explorer: Explorer) -> None:
    shown.choose("Head", f"all {explorer.params.model.heads} heads")
    shown.expect_maps(explorer, 0, "one_step")
    assert shown.root.locator(".models canvas").count() == 2 * 3 * explorer.params.model.heads


def test_colours_are_those_of_the_clean_maps_whatever_epsilon(shown: Shown) -> None:
    """Against matplotlib's own colours; the clean map does not darken while epsilon is dragged."""
    read = "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    clean = shown.root.locator("canvas").first
    pixels = np.array(clean.evaluate(read)).reshape(-1, 4)
    told = shown.reading()
    wanted = 255 * colormaps["viridis"](np.array(told["maps"][0]["values"]["clean"]) / told["most"])
    assert np.abs(pixels - wanted).max() < 8  # sixteen stations of the scale, straight lines between them
    shown.show(shown.state() | {"epsilon": 0.5})
    np.testing.assert_array_equal(np.array(clean.evaluate(read)).reshape(-1, 4), pixels)


def test_frames_are_marked_summed_zoomed_and_masked(shown: Shown, explorer: Explorer) -> None:
    run, frames = explorer.runs[0], len(explorer.look(0, explorer.runs[0], "random", 0.0).frame_norms)
    box = shown.root.locator("canvas").first.bounding_box()
    wide, y = box["width"] / frames, box["y"] + 20
    shown.page.mouse.move(box["x"] + 2.5 * wide, y)
    expect(shown.root.locator(".tip")).to_contain_text("attends to frame 3 with")
    shown.page.mouse.down()
    shown.page.mouse.move(box["x"] + 4.5 * wide, y, steps=3)
    shown.page.mouse.up()
    expect(shown.root.get_by_text("who attends to frames 3–5").first).to_be_visible()
    assert shown.state()["frames"] == [3, 5]
    before, _ = explorer.look(0, run, "one_step", explorer.epsilon).maps("rgb")
    line = shown.root.locator(".pair .panel").nth(1).locator("polyline").first.get_attribute("points")
    heights = np.array([float(point.split(",")[1]) for point in line.split()])
    assert np.corrcoef(heights, before[:, 2:5].sum(axis=1))[0, 1] == pytest.approx(-1, abs=1e-3)
    shown.root.get_by_role("button", name="Zoom to these frames").click()
    shown.ready()
    read = shown.reading()
    assert (read["first"], read["last"]) == (2, 5)
    assert all(
        map["values"]["clean"] and len(map["values"]["clean"]) == 9 for map in read["maps"]
    )  # both models together
    np.testing.assert_allclose(read["maps"][0]["values"]["clean"], before[2:5, 2:5].ravel(), atol=1e-4)
    shown.root.get_by_role("button", name="Whole video").click()
    shown.control("Frames from").fill("2")
    shown.control("Frames from").press("Tab")
    shown.control("to").fill("2")
    shown.control("to").press("Tab")
    shown.root.get_by_role("button", name="Mask these frames").click()
    shown.ready()
    assert shown.state()["masked"] == [2]
    shown.expect_maps(explorer, 0, "one_step")
    assert shown.reading()["maps"][0]["received"][0][1] == 0


def test_margins_say_where_each_model_is_fooled(shown: Shown, explorer: Explorer) -> None:
    legend = shown.root.locator(".together .legend")
    expect(legend).not_to_contain_text("…")
    said = dict(re.findall(r"(Non-ART|A-ART): fooled from ε ≈ ([\d.]+)", legend.inner_text()))
    for run in explorer.first:
        title = run_title(run, explorer.runs)
        if title in said:  # read off the line between two epsilons
            at = float(said[title])
            assert explorer.look(0, run, "one_step", 0.8 * at).after.margin > 0
            assert explorer.look(0, run, "one_step", 1.2 * at).after.margin < 0
        else:
            assert "wrong at ε = 0" in legend.inner_text() or "not fooled" in legend.inner_text()


def test_a_dot_of_the_map_of_all_videos_opens_its_video(shown: Shown, explorer: Explorer) -> None:
    moved = np.stack([np.sqrt(explorer.videos.change(run)) for run in explorer.first])
    row = int(np.argmax(moved[0]))
    box = shown.root.locator(".moved canvas").bounding_box()
    x, y = np.sqrt(moved[:, row] / moved.max(axis=1))
    shown.root.locator(".moved canvas").scroll_into_view_if_needed()
    box = shown.root.locator(".moved canvas").bounding_box()
    shown.page.mouse.click(
        box["x"] + 4 + x * (box["width"] - 8), box["y"] + box["height"] - 4 - y * (box["height"] - 8)
    )
    expect(shown.root.get_by_text(f"Test video {explorer.videos.id(row)}")).to_be_visible()
    shown.expect_maps(explorer, row, "one_step")


def test_videos_are_found_by_label_and_by_who_was_fooled(shown: Shown, explorer: Explorer) -> None:
    shown.choose("Videos", "fooled by the attack at this ε")
    fooled = explorer.find("fooled", "", explorer.runs[0], "one_step", explorer.epsilon)
    expect(shown.root.get_by_text(fooled.text)).to_be_visible()
    expect(shown.root.get_by_role("button", name="Search again at this ε")).to_be_visible()
    entries = shown.control("Test video").locator("option").all_inner_texts()
    assert [entry.split()[0] for entry in entries] == [explorer.videos.id(int(row)) for row in fooled.rows[:200]]
    if entries:
        shown.control("Test video").select_option(index=0)
        expect(shown.root.locator(".verdict").first).to_have_text("FOOLED: the top label is wrong")
    wanted = explorer.videos.labels(1)[0]
    shown.choose("Videos", "as stored")
    shown.control("Search").fill(wanted)
    shown.page.keyboard.press("Enter")
    rows = [row for row in range(len(explorer.videos)) if wanted in explorer.videos.labels(row)][:200]
    expect(shown.control("Test video").locator("option")).to_have_count(len(rows))
    shown.control("Search").fill("no such thing")
    shown.page.keyboard.press("Enter")
    expect(shown.root.get_by_text("no test video has “no such thing” in its id or as a label")).to_be_visible()
    expect(shown.control("Test video").locator("option")).to_have_count(0)


def test_what_is_on_show_can_be_taken_away(shown: Shown, explorer: Explorer, chromium: Browser, tmp_path: Path) -> None:
    taken = {}
    for name in ("SVG", "CSV", "one HTML page"):
        with shown.page.expect_download() as download:
            shown.root.get_by_role("button", name=f"Save as {name}").click()
        taken[name] = tmp_path / download.value.suggested_filename
        download.value.save_as(taken[name])
    before, after = explorer.look(0, explorer.runs[0], "one_step", explorer.epsilon).maps("rgb")
    with open(taken["CSV"], newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == "Non-ART"]
    values = {(row["quantity"], row["attending"], row["attended"]): float(row["value"]) for row in rows if row["value"]}
    assert values["adversarial", "2", "4"] == pytest.approx(after[1, 3], abs=2e-5)
    assert values["received, clean", "", "4"] == pytest.approx(before[:, 3].mean(), abs=1e-6)
    page = chromium.new_page()
    page.goto(taken["SVG"].as_uri())
    assert page.locator("image").count() == 7
    assert (
        "not fooled" in page.locator("svg").first.text_content() or "FOOLED" in page.locator("svg").first.text_content()
    )
    page.goto(taken["one HTML page"].as_uri())
    alone = Shown(page.locator(".explorer")).ready()
    alone.expect_maps(explorer, 0, "one_step")
    page.close()


OVERLAP = 3.0  # pixels that the boxes of two lines may share: so do lines that lie close to each other


def check_layout(shown: Shown) -> None:
    lines = shown.root.evaluate(LINES)
    assert len(lines) > 60
    over = []
    for k, (one, left, right, top, bottom) in enumerate(lines):
        for other, start, end, above, below in lines[k + 1 :]:
            across, down = min(right, end) - max(left, start), min(bottom, below) - max(top, above)
            if one != other and across > OVERLAP and down > OVERLAP:
                over.append((one, other))
    assert over == []
    assert shown.root.evaluate("root => root.scrollWidth - root.clientWidth") <= 1
    small = "one => one.offsetParent && (one.offsetWidth < 34 || one.offsetHeight < 16)"
    assert (
        shown.root.evaluate(f"root => [...root.querySelectorAll('select, input, button')].filter({small}).length") == 0
    )


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_it_fits_every_width_in_both_themes(shown: Shown, screenshots: Path, theme: str) -> None:
    """JupyterLab as it opens, without its side bar, narrower, on a telephone without it, at 200 % (half as wide)."""
    page = shown.page
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.get_by_text("Theme", exact=True).hover()
    page.get_by_text(f"JupyterLab {theme}", exact=True).click()
    page.wait_for_function(f"document.body.dataset.jpThemeLight === '{str(theme == 'Light').lower()}'")
    widths = []
    for name, size, bar in (
        ("open", 1440, False),
        ("wide", 1440, True),
        ("1024", 1024, False),
        ("390", 390, True),
        ("zoom", 720, False),
    ):
        page.set_viewport_size({"width": size, "height": 1000})
        if bar:
            page.keyboard.press("Control+b")
        page.wait_for_timeout(400)
        shown.ready()
        shown.root.evaluate("root => root.scrollIntoView()")
        page.screenshot(path=screenshots / f"explorer-{name}-{theme.lower()}.png")
        check_layout(shown)
        widths.append(shown.root.locator("canvas").first.bounding_box()["width"])
        if bar:
            page.keyboard.press("Control+b")
    assert widths[1] > widths[0]  # it noticed the room
    words, *drawn = shown.root.evaluate(CONTRAST)
    assert words >= 4.5
    assert min(drawn) >= 3  # WCAG's least for what is not text
    rules = ["color-contrast", "label", "select-name", "button-name", "aria-input-field-name", "svg-img-alt"]
    rules += ["role-img-alt", "scrollable-region-focusable"]
    found = Axe().run(page, ".explorer", {"runOnly": rules})
    assert not found.response["violations"], found.generate_report()


def test_nothing_was_wrong_and_nothing_came_from_elsewhere(opened: Watched, shown: Shown) -> None:
    """After all of the above, on the same page."""
    assert not [text for text in opened.errors if "anywidget" not in text]
    assert not [url for url in opened.requests if not re.match(r"(https?://127\.0\.0\.1:|data:|blob:)", url)]


def test_a_page_without_a_kernel_draws_the_same(
    explorer: Explorer, watched: Watched, tmp_path: Path, screenshots: Path
) -> None:
    first = first_state(explorer)
    states = [first | {"epsilon": epsilon, "head": head} for epsilon in (0.0, 0.1, 0.4) for head in ("mean", "all")]
    (tmp_path / "index.html").write_text(page_of(explorer, states, "A few videos."))
    page = watched.page
    page.goto((tmp_path / "index.html").as_uri())
    shown = Shown(page.locator(".explorer")).ready()
    shown.expect_maps(explorer, 0, "one_step")
    shown.control("Epsilon ε").press("End")
    assert shown.state()["epsilon"] == 0.4
    shown.expect_maps(explorer, 0, "one_step")
    plots, empty = shown.root.evaluate(PLOTS)
    assert plots > empty == 0
    shown.root.locator("canvas").first.evaluate("canvas => canvas.getContext('2d').reset()")
    assert shown.root.evaluate(PLOTS) == [plots, 1]  # an empty one would be seen
    shown.choose("Head", "head 2")
    shown.expect_maps(explorer, 0, "one_step")
    page.reload()  # the address holds the view
    again = Shown(page.locator(".explorer")).ready()
    assert (again.state()["head"], again.state()["epsilon"]) == (2, 0.4)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=screenshots / f"explorer-static-{scheme}.png", full_page=True)
        assert shown.root.evaluate(CONTRAST)[0] >= 4.5
        found = Axe().run(page).response["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    page.set_viewport_size({"width": 390, "height": 800})
    check_layout(again)
    assert watched.errors == []
    assert [url for url in watched.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def fresh_project(folder: Path) -> Path:
    """What git would give of a project, as far as the explorer asks for it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("dvc.yaml", "params.yaml"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.mark.timeout(600)
def test_before_the_first_run_auto_shows_the_small_models_and_says_so(
    watched: Watched, lab: str, explorer: Explorer, screenshots: Path
) -> None:
    """A project that was never run; its small workspace is this one's, less one model."""
    lost = explorer.runs[1]
    folder = fresh_project(SERVED / "fresh")
    made = open_workspace("profiles/small.yaml", "small").root
    models = [path for path in (made / "models").iterdir() if path.name != lost[0]]
    (folder / "small" / made.name / "models").mkdir(parents=True, exist_ok=True)
    links = {folder / "profiles": ROOT / "profiles"}
    links |= {
        folder / "small" / path.relative_to(made.parent): path
        for path in (made / "frames", made / "predictions", *models)
    }
    for link, target in links.items():
        link.unlink(missing_ok=True)
        link.symlink_to(target, target_is_directory=True)
    copy_notebook(folder / "fresh.ipynb", workspace="auto")
    watched.page.goto(lab.replace("tree/{0}", "tree/fresh/{0}").format("fresh"))
    run_all(watched.page)
    shown = Shown(watched.page.locator(".explorer")).ready()
    expect(shown.root.locator(".box")).to_contain_text("`dvc repro` makes it")
    shown.expect_maps(explorer, 0, "one_step")
    # a model that is not there is told, and no picture of another one stays
    shown.choose("Model 2", run_title(lost, explorer.runs))
    expect(shown.root.get_by_role("alert")).to_contain_text(f"models/{lost[0]}/seed0")
    expect(shown.root.locator("canvas")).to_have_count(0)
    watched.page.screenshot(path=screenshots / "explorer-lost.png")
    shown.choose("Model 2", run_title(explorer.runs[-1], explorer.runs))
    shown.expect_maps(explorer, 0, "one_step")
    assert not watched.errors


@pytest.mark.timeout(600)
def test_without_models_the_page_names_the_command(watched: Watched, lab: str) -> None:
    """What the pipeline would read is not there, and no traceback hides the remedy."""
    copy_notebook(fresh_project(SERVED / "empty") / "empty.ipynb", workspace=".")
    watched.page.goto(lab.replace("tree/{0}", "tree/empty/{0}").format("empty"))
    run_all(watched.page)
    said = watched.page.locator(".jp-OutputArea-output", has_text="not made yet")
    said.wait_for(timeout=PATIENCE)
    assert "`dvc repro` makes it" in said.inner_text()
    assert "Traceback" not in said.inner_text()
