"""The report in a real browser: opened from the file system it asks the network for nothing, and all can read it."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from pipeline.report.page import write_report
from tests.browser.conftest import Watched
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
