"""The documentation site as a reader opens it: from the disk, without network, whole, and accessible."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import ROOT, Watched

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
