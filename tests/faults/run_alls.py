"""Run All, again and again: how often the explorer's page stays empty, or says that something is wrong.

    python -m tests.faults.run_alls               # a hundred times: an hour on two busy cores
    python -m tests.faults.run_alls --times 3

Each time the notebook is as a reader finds it: a new page without a cache, a new kernel, and no view from before. The
first view has to come without a click. The machine should have other work meanwhile: a page that waits for a message is
lost only where something is late. Results, written after each: tests/faults/results/run_alls.json. One that was stopped
before its last goes on.
"""

import argparse
import datetime
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Error, Page, expect
from tqdm import tqdm

from benchmarks.measure import machine
from pipeline.base.atomic import save_json
from pipeline.explorer.explorer import open_explorer
from tests.browser.conftest import launched, new_page
from tests.browser.lab import jupyter_lab
from tests.browser.test_explorer import PLOTS, SERVED, SMALL, Shown, copy_notebook, run_all

RESULTS = Path(__file__).parent / "results"


def once(browser: Browser, address: str) -> dict[str, Any]:
    """Open the notebook, run it, look, and end its kernel.

    Returns:
        ``plots`` on the page, how many of them are ``empty`` (all, where no view came), what was said to be ``wrong``
        in the page or in a cell, ``seconds`` from Run All until the last plot was there, ``load`` of the machine then.
    """
    with new_page(browser) as seen:
        seen.page.goto(address)
        run_all(seen.page)
        began, wrong = time.monotonic(), []
        try:
            shown = Shown(seen.page.locator(".explorer").first).ready()
            expect(shown.root.locator(".together .plot")).to_have_count(2)  # the last to come
            plots, empty = shown.root.evaluate(PLOTS)
        except (AssertionError, Error) as error:
            plots, empty = 0, 0
            wrong.append(str(error))
        seconds = time.monotonic() - began
        wrong += seen.page.locator("[data-mime-type*=stderr], [data-mime-type*=error]").all_inner_texts()
        wrong += seen.errors
        end_kernels(seen.page)
    load = round(os.getloadavg()[0], 1)
    return {"plots": plots, "empty": empty, "wrong": wrong, "seconds": round(seconds, 1), "load": load}


def end_kernels(page: Page) -> None:
    """End what the server runs, so that the next Run All begins with a new kernel."""
    place = urlsplit(page.url)
    token = next(cookie["value"] for cookie in page.context.cookies() if cookie["name"] == "_xsrf")
    server = f"{place.scheme}://{place.netloc}/api/sessions"
    for session in page.request.get(server).json():
        ended = page.request.delete(f"{server}/{session['id']}", headers={"X-XSRFToken": token})
        assert ended.ok, ended.text()


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What is published of the runs so far."""
    seconds, load = ([run[name] for run in runs] for name in ("seconds", "load"))
    return {
        "times": len(runs),
        "stayed_empty": sum(not run["plots"] for run in runs),
        "plots": sum(run["plots"] for run in runs),
        "empty_plots": sum(run["empty"] for run in runs),
        "said_something_wrong": sum(bool(run["wrong"]) for run in runs),
        "seconds": {"median": statistics.median(seconds), "most": max(seconds)},
        "load": {"least": min(load), "median": statistics.median(load), "most": max(load)},
        "date": datetime.date.today().isoformat(),
        "machine": machine(),  # of the last run, and the date too
        "runs": runs,
    }


def main() -> None:
    """Run them, and write what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--out", type=Path, default=RESULTS / "run_alls.json")
    arguments = parser.parse_args()
    open_explorer(**SMALL)  # the models are made, if no run has left them, and are no part of what is measured
    SERVED.mkdir(parents=True, exist_ok=True)
    former = json.loads(arguments.out.read_text())["runs"] if arguments.out.is_file() else []
    runs: list[dict[str, Any]] = former if len(former) < arguments.times else []
    with tempfile.TemporaryDirectory() as private, jupyter_lab(SERVED, Path(private)) as lab, launched() as browser:
        for _ in (bar := tqdm(range(len(runs), arguments.times), unit="run")):
            copy_notebook(SERVED / "often.ipynb", **SMALL)
            runs.append(once(browser, lab.format("often")))
            if not right(runs[-1]):
                tqdm.write(str(runs[-1]))
            save_json(summary(runs), arguments.out)
            bar.set_postfix(not_right=sum(not right(run) for run in runs))
    sys.exit(not all(right(run) for run in runs))


def right(run: dict[str, Any]) -> bool:
    """Whether every plot came, none of them empty, and nothing was said to be wrong."""
    return run["plots"] > 0 and not run["empty"] and not run["wrong"]


if __name__ == "__main__":
    main()
