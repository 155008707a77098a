"""A real browser for the tests that look at what a reader sees: Debian's Chromium, driven by Playwright."""

import io
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
expect.set_options(timeout=60_000)  # milliseconds; a slow machine is no failure
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@dataclass
class Watched:
    """A page, and what it said and asked for since it was opened."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def pixels(shown: Locator) -> np.ndarray:
    """What is seen of an element: (height, width, 3), 0 to 255."""
    return np.asarray(Image.open(io.BytesIO(shown.screenshot())).convert("RGB"), dtype=int)


def background(page: Page) -> np.ndarray:
    """The colour of the page."""
    said = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return np.array([int(part) for part in re.findall(r"\d+", said)[:3]])


@contextmanager
def launched() -> Iterator[Browser]:
    """The browser; $CHROMIUM names another one than the first on the path."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:  # an absent browser must not look like a passed test
        pytest.fail("no Chromium on the path: apt-get install chromium, or set CHROMIUM to its path", pytrace=False)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def new_page(browser: Browser) -> Iterator[Watched]:
    """A page of 1440 x 1000 pixels that keeps its console errors and the addresses it asked for."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    seen = Watched(context.new_page())
    seen.page.on("console", lambda said: seen.errors.append(said.text) if said.type == "error" else None)
    seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
    seen.page.on("request", lambda request: seen.requests.append(request.url))
    yield seen
    context.close()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests."""
    with launched() as browser:
        yield browser


@pytest.fixture
def watched(chromium: Browser) -> Iterator[Watched]:
    """A new page for one test."""
    with new_page(chromium) as seen:
        yield seen


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where the pictures go that the tests take."""
    folder = ROOT / "reports" / "browser"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")
