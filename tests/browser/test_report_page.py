"""The report in a real browser: opened from the file system it asks the network for nothing, and all can read it."""

from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from pipeline.report.page import write_report
from tests.browser.conftest import Watched, background, pixels
from tests.executed import fabricate
from tests.pipeline import ROOT

OPEN_ALL = "document.querySelectorAll('details').forEach(details => details.open = true)"
OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"


@pytest.fixture(scope="module", params=["synthetic", "audioset", "project"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a published run, or of a project with executed notebooks, some of them missing."""
    folder = tmp_path_factory.mktemp(request.param)
    run = fabricate(folder) if request.param == "project" else ROOT / "results" / request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run if request.param == "project" else ROOT)
        return write_report(run, folder / "report.html", Path.cwd())


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 1440), ("light", 390), ("dark", 390)])
def test_it_opens_alone_and_is_accessible(
    report: Path, scheme: str, width: int, watched: Watched, screenshots: Path
) -> None:
    page = watched.page
    page.context.set_offline(True)
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 1000})
    page.goto(report.as_uri())
    name = f"report-{report.parent.name[:-1]}-{scheme}-{width}"
    page.screenshot(path=screenshots / f"{name}.png", full_page=True)
    assert page.evaluate(OVERFLOW) <= 0
    page.evaluate(OPEN_ALL)
    assert page.evaluate(OVERFLOW) <= 0
    broken = "[...document.images].filter(image => !image.complete || image.naturalWidth === 0).length"
    assert page.evaluate(broken) == 0
    said = {violation["id"]: violation["impact"] for violation in Axe().run(page).response["violations"]}
    assert said == {}
    assert watched.errors == []
    assert [url for url in watched.requests if not url.startswith("data:")] == [report.as_uri()]


def test_on_a_narrow_screen_a_picture_opens_whole_and_closes_again(
    report: Path, watched: Watched, screenshots: Path
) -> None:
    page = watched.page
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(report.as_uri())
    image = page.locator("#figures img").first
    whole, narrow = image.evaluate("image => image.naturalWidth"), image.bounding_box()["width"]
    assert narrow <= 390 < whole
    for close in (page.locator("#figures a.close").first.click, page.go_back):
        image.click()
        assert image.bounding_box()["width"] >= whole
        page.screenshot(path=screenshots / f"report-{report.parent.name[:-1]}-picture.png")
        frame = page.locator("#figures .picture > span").first
        frame.evaluate("frame => frame.scrollTo(1e6, 1e6)")
        right, bottom = (image.bounding_box()[place] + image.bounding_box()[size] for place, size in
                         (("x", "width"), ("y", "height")))  # fmt: skip
        assert right <= 390  # all of it can be reached
        assert bottom <= 844
        close()
        assert image.bounding_box()["width"] == narrow
        assert 0 <= image.bounding_box()["y"] < 844  # where it was


def test_a_table_that_is_wider_than_the_screen_shows_that_it_goes_on(report: Path, watched: Watched) -> None:
    page = watched.page
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(report.as_uri())
    table = page.locator("#tables .scroll").first
    assert table.evaluate("table => table.scrollWidth > table.clientWidth")
    edges = {}
    for place in (0, 1e6):
        table.evaluate("(table, place) => table.scrollTo(place, 0)", place)
        seen = np.abs(pixels(table) - background(page)).sum(axis=-1)  # (height, width)
        edges[place] = [np.median(seen[:, column]) for column in (1, -2)]
    assert edges[0][0] == edges[1e6][1] == 0  # here it ends
    assert min(edges[0][1], edges[1e6][0]) > 30  # there it goes on


def test_in_the_dark_no_picture_lies_on_white_paper(report: Path, watched: Watched) -> None:
    page = watched.page
    page.emulate_media(color_scheme="dark")
    page.goto(report.as_uri())
    for image in page.locator("section > :not(details) img").all():
        if image.is_visible() and image.bounding_box()["width"] > 100:  # no single dot
            corners = pixels(image)[[12, 12, -12, -12], [12, -12, 12, -12]]
            assert np.abs(corners - background(page)).max() <= 3


def test_it_is_read_with_the_keyboard(report: Path, watched: Watched) -> None:
    page = watched.page
    page.goto(report.as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#main"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.click("nav a[href='#tables']")
    assert 0 <= page.locator("#tables").bounding_box()["y"] < 900


def test_it_is_printed_without_what_only_a_screen_has_a_use_for(report: Path, watched: Watched) -> None:
    page = watched.page
    page.goto(report.as_uri())
    assert page.locator("nav").is_visible()
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert page.locator("#tables table").first.is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"


def test_it_is_read_without_style(report: Path, chromium: Browser) -> None:
    """Colour and layout carry nothing alone: the verdict of every claim is in its row's text."""
    page = chromium.new_page()
    page.goto(report.as_uri())
    page.evaluate("document.querySelectorAll('style').forEach(style => style.remove())")
    assert page.evaluate("document.styleSheets.length") == 0
    verdicts = page.locator("#the-paper-s-claims tbody tr:has(a)").all_inner_texts()
    assert len(verdicts) == 20
    assert all(any(word in row for word in ("holds", "does not hold", "cannot be tested")) for row in verdicts)
    page.close()
