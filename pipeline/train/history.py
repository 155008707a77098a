"""What a training tells while it runs, on the screen, and afterwards, as a table."""

import csv
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from artpaper.losses import PARTS
from pipeline.base.atomic import atomic_file

Row = dict[str, float | int]
Watcher = Callable[[list[Row]], None]
COLUMNS = ("step", "learning_rate", *PARTS, "validation_gap")


class Screen:
    """A bar with rate and time left, and ``watch``, which is called with the history after every validation."""

    def __init__(self, title: str, steps: int, batch_size: int, watch: Watcher | None, progress: bool) -> None:
        self.batch_size, self.watch = batch_size, watch
        self.bar = tqdm(
            total=steps * batch_size, unit="video", unit_scale=True, desc=title, disable=not progress,
            delay=1e-6,  # not before the first step: what is refused until then is told alone
        )  # fmt: skip

    def __call__(self, step: int, history: list[Row] | None) -> None:
        """Show that ``step`` steps are done, fewer than before where a lost process made it go back.

        ``history`` is given if the step has added a row to it.
        """
        done = step * self.batch_size
        if self.bar.n == 0:
            self.bar.initial = done - self.batch_size  # what an earlier run did has no part in the rate
        if history:
            best = max((row["validation_gap"] for row in history if "validation_gap" in row), default=None)
            gap = "" if best is None else f", best GAP {100 * best:.2f} %"
            self.bar.set_postfix_str(f"loss {history[-1]['loss']:.4f}{gap}", refresh=False)
        if done < self.bar.n:
            self.bar.reset()
        self.bar.update(done - self.bar.n)
        if self.watch and history and "validation_gap" in history[-1]:
            self.watch(history)

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()


def write_history(path: Path, history: Iterable[Row]) -> None:
    """Write the training history as CSV, empty where a term or a validation does not apply."""
    with atomic_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


def attention_share(path: Path, beta: float) -> float:
    """beta times the attention term over the rest of the loss, mean of the last tenth of a training's history."""
    if not beta:
        return 0.0
    history = pd.read_csv(path)
    last = history.tail(max(1, len(history) // 10))
    term = beta * last["attention"]
    return float((term / (last["loss"] - term)).mean())
