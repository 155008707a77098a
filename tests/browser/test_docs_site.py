"""The documentation site as a reader opens it: from the disk, without network, whole, and accessible."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import ROOT, Watched, background, pixels

PAGES = {
    "index": "index.html",
    "api": "api/attacks.html",
    "ambiguity": "ambiguities/01-epsilon.html",
    "ambiguities": "ambiguities.html",
    "appendix": "appendix.html",
    "notebook": "notebooks/attack.html",
    "result": "results/audioset/README.html",
    "table": "results/audioset/figures/figure4.html",
}


@pytest.fixture(scope="module")
def site() -> Path:
    """As `make docs` has left it, brought up to date; warnings are errors."""
    target = ROOT / "docs" / "_build" / "html"
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        str(ROOT / "docs"),
        str(target),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_alone_and_accessible(site: Path, watched: Watched, screenshots: Path, name: str) -> None:
    for scheme in ("light", "dark"):
        watched.page.emulate_media(color_scheme=scheme)
        watched.page.goto((site / PAGES[name]).as_uri(), wait_until="networkidle")
        assert watched.page.locator("h1").count() == 1
        watched.page.screenshot(path=screenshots / f"docs-{name}-{scheme}.png")
        assert watched.errors == []
        assert [url for url in watched.requests if not url.startswith(("file:", "data:"))] == []
        # without `preload`: axe would ask for the style sheets, which a page on disk may not, at a moment of its own
        found = Axe().run(watched.page, options={"preload": False}).response["violations"]
        grave = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
        assert grave == []


@pytest.mark.parametrize("width", [1440, 390])
def test_it_opens_with_the_answer(site: Path, watched: Watched, screenshots: Path, width: int) -> None:
    """That of the README: the same table, and its picture, which opens whole."""
    page = watched.page
    page.set_viewport_size({"width": width, "height": 1000})
    page.goto((site / "index.html").as_uri(), wait_until="networkidle")
    page.screenshot(path=screenshots / f"docs-answer-{width}.png", full_page=True)
    answer = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Two commands")[0]
    numbers = re.compile(r"\d+\.\d+")
    assert numbers.findall(page.locator("article table").first.inner_text()) == [
        number for line in answer.splitlines() if line.startswith("|") for number in numbers.findall(line)
    ]
    page.locator("article a.picture").first.click()
    assert page.url.endswith("trial.png")


def test_in_the_dark_no_picture_lies_on_white_paper(site: Path, watched: Watched) -> None:
    page = watched.page
    page.emulate_media(color_scheme="dark")
    page.goto((site / "results.html").as_uri(), wait_until="networkidle")
    for image in page.locator("article img").all():
        assert np.abs(pixels(image)[[2, 2, -2, -2], [2, -2, 2, -2]] - background(page)).max() <= 3


def test_a_table_that_is_wider_than_the_screen_shows_that_it_goes_on(site: Path, watched: Watched) -> None:
    page = watched.page
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto((site / "results/audioset/tables/table1.html").as_uri(), wait_until="networkidle")
    table = page.locator(".table-wrapper").first
    assert table.evaluate("table => table.scrollWidth > table.clientWidth")
    right = np.abs(pixels(table)[:, -2] - background(page)).sum(axis=-1)
    assert np.median(right) > 30


def test_the_explorer_of_a_published_run_is_on_the_site_and_linked_to_where_there_is_one(site: Path) -> None:
    pages = {page.relative_to(ROOT).as_posix(): page for page in ROOT.glob("results/*/explorer/index.html")}
    assert all((site / place).read_bytes() == page.read_bytes() for place, page in pages.items())
    linked = re.findall(r'href="([^"]+/explorer/index.html)"', (site / "notebooks.html").read_text(encoding="utf-8"))
    assert linked == [place for place in ("results/synthetic/explorer/index.html",) if place in pages]


def test_the_search_finds_a_function(site: Path, watched: Watched) -> None:
    watched.page.goto((site / "search.html").as_uri() + "?q=multilabel_deepfool", wait_until="networkidle")
    watched.page.wait_for_selector("#search-results li a")
    assert watched.page.locator("#search-results li").count() > 1
    assert watched.errors == []


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    """Links may lead away; scripts, styles, pictures and fonts may not."""
    loads = re.compile(r"<(?:script|link|img|iframe|source|video)\b[^>]*?(?:src|href)=\"((?:https?:)?//[^\"]+)\"")
    pages = [*site.rglob("*.html")]
    assert len(pages) > 50
    assert {address for page in pages for address in loads.findall(page.read_text(encoding="utf-8"))} == set()
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert not [style for style in styles if re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style)]


def test_every_link_inside_the_site_leads_somewhere(site: Path) -> None:
    """The page or file is there, and so is the place in it."""
    ids = {page: set(re.findall(r'\bid="([^"]+)"', page.read_text(encoding="utf-8"))) for page in site.rglob("*.html")}
    dead = set()
    for page in ids:
        for link in re.findall(r'<a\b[^>]*?\bhref="([^"]+)"', page.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, place = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.is_file() or (place and target in ids and place not in ids[target]):
                dead.add(f"{page.relative_to(site)}: {link}")
    assert dead == set()
