"""The figures of the page: what each shows in words (with its numbers), its caption, and the curves of training."""

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from markupsafe import Markup

from artpaper.report.histories import histories, histories_figure
from artpaper.report.markup import prose, sanitised
from artpaper.report.paper import MODELS


@dataclass(frozen=True)
class Drawing:
    """One figure of a run.

    Attributes:
        name: of its files, such as ``figure3``.
        title: heading on the page.
        caption: how to read it.
        stage: what makes it.
        picture: the PNG as a data URI; empty if the run has none.
        alt: what is seen, in words and numbers.
        numbers: the table behind it, as HTML; empty if there is none.
    """

    name: str
    title: str
    caption: str
    stage: str
    picture: str
    alt: str
    numbers: Markup


def _maps(folder: Path) -> str:
    return (
        "Heat maps of attention weights, a row for each model: of the video and of its adversary, and their difference"
        ", for each modality. A vertical stripe is a frame that all frames attend to."
    )


def _profiles(folder: Path) -> str:
    found = pd.read_csv(folder / "figures" / "figure2.csv")
    most = found.groupby(["model", "modality"], sort=False)[["clean", "adversarial"]].max()
    told = "; ".join(
        f"{_model(model)}, {modality}: {row.clean:.2f} clean, {row.adversarial:.2f} adversarial"
        for (model, modality), row in zip(most.index, most.itertuples(), strict=True)
    )
    return f"Line plots of the attention that each frame receives, clean and adversarial. Largest weight: {told}."


def _sweep(folder: Path) -> str:
    found = pd.read_csv(folder / "figures" / "figure3.csv")
    means = found.groupby(["model", "key", "value"], sort=False)[["clean", "one_step"]].mean().reset_index()
    told = []
    for (model, key), line in means.groupby(["model", "key"], sort=False):
        clean, attacked = (line.loc[line[what].idxmax()] for what in ("clean", "one_step"))
        told.append(
            f"{_model(model)} over {key}: {clean.clean:.1f} % clean at {clean.value:g}, "
            f"{attacked.one_step:.1f} % attacked at {attacked.value:g}"
        )
    return f"Six line plots of validation GAP over epsilon, alpha and beta. Highest: {'; '.join(told)}."


def _perturbations(folder: Path) -> str:
    found = pd.read_csv(folder / "figures" / "figure4.csv")
    found = found[found["seed"].astype(str) == "all"]
    told = [
        f"{criterion}: " + ", ".join(f"{_model(row.model)} {100 * row.mean_rho:.2f} %" for row in rows.itertuples())
        for criterion, rows in found.groupby("criterion", sort=False)
    ]
    return f"Bars of the mean minimal perturbation, and its distribution below. {'; '.join(told)} of a video's norm."


def _attention(folder: Path) -> str:
    found = pd.read_csv(folder / "figures" / "attention.csv")
    means = found.groupby(["modality", "model"], sort=False)["mse"].mean()
    told = ", ".join(f"{_model(model)} {modality} {value:.1e}" for (modality, model), value in means.items())
    return (
        f"Box plots over the test videos of the mean squared change of the maps (means: {told}), beside the distance "
        "between unrelated videos and to the uniform map; below, the entropy of the maps and their largest weight."
    )


def _readings(folder: Path) -> str:
    found = pd.read_csv(folder / "figures" / "epsilon.csv")
    told = "; ".join(
        f"{row['features']}, {row['ball']}, {row['epsilon']:g}: {row['GAP lost']:.0f} %" + ", in use" * row["in_use"]
        for row in found.to_dict("records")
    )
    return f"Bars of the share of GAP, PERR and Hit@1 that Non-ART loses under each reading. Of GAP: {told}."


Words = Callable[[Path], str]
FIGURES: tuple[tuple[str, str, str, str, Words], ...] = (
    ("figure1", "Figure 1: attention maps of one video", "attention",
     "The weight that each frame (row) gives to each frame (column), heads averaged. The paper shows that ART's maps "
     "change under attack and A-ART's do not.", _maps),
    ("figure2", "Figure 2: attention profiles of the same video", "attention",
     "The attention that each frame receives, the mean over a map's rows. The paper shows an A-ART profile that is "
     "flatter by an order of magnitude and the same under attack.", _profiles),
    ("attention", "Attention over the whole test set (section 3.2.2)", "attention",
     "The paper gives a change of 4e-5 for ART and 3e-8 for A-ART. Such a number needs two yardsticks: how far apart "
     "the maps of unrelated videos are, and how far a map is from uniform, where no change is left to make.",
     _attention),
    ("figure3", "Figure 3: epsilon, alpha and beta", "hyperparameters",
     "Validation GAP, one value changed at a time. The upper row is the paper's quantity, the lower row GAP under the "
     "one-step attack. The paper's curves peak at epsilon 0.5 and alpha 1.", _sweep),
    ("figure4", "Figure 4: the smallest perturbation that fools a model", "robustness",
     "DeepFool's perturbation over the norm of the video, for four meanings of fooled; the first is the paper's. The "
     "paper finds A-ART hardest to fool.", _perturbations),
    ("epsilon", "What epsilon means", "epsilon",
     "The paper's 0.5 has no unit. Each reading is tried on Non-ART alone and compared with what the paper's attack "
     "took from its Non-ART.", _readings),
)  # fmt: skip


def drawings(folder: Path) -> list[Drawing]:
    """The figures of a run, in the paper's order; those that were not made have no picture.

    Args:
        folder: the project's folder, or one below ``results/``.
    """
    return [
        Drawing(name, title, caption, stage, *_made(folder, name, title, words))
        for name, title, stage, caption, words in FIGURES
    ]


def _made(folder: Path, name: str, title: str, words: Words) -> tuple[str, str, Markup]:
    png, csv, text = (folder / "figures" / f"{name}.{kind}" for kind in ("png", "csv", "md"))
    if not png.is_file() or (name != "figure1" and not csv.is_file()):
        return "", "", Markup()
    if text.is_file():
        numbers = prose(text.read_text(encoding="utf-8"), below=3, label=f"numbers of {title}")
    else:
        numbers = data_frame(pd.read_csv(csv), f"numbers of {title}") if csv.is_file() else Markup()
    return _uri(png.read_bytes()), words(folder), numbers


def data_frame(table: pd.DataFrame, label: str) -> Markup:
    """A table as HTML, four significant digits, nothing where a value is missing."""
    return sanitised(table.to_html(index=False, na_rep="", float_format="{:.4g}".format), label)


def training(folder: Path) -> tuple[str, str, Markup]:
    """How the models of a run trained: validation GAP and losses over steps, and where each stopped.

    Args:
        folder: holds ``models/<model>/seed<k>`` with ``history.csv`` and ``model.json``.
    Returns:
        The picture as a data URI, what is seen in words, and a table, a row per model and seed; all empty without
        models.
    """
    found = [(path, json.loads((path / "model.json").read_text(encoding="utf-8")))
             for path in sorted(folder.glob("models/*/seed*")) if (path / "history.csv").is_file()]  # fmt: skip
    if not found:
        return "", "", Markup()
    order = [*MODELS, *sorted({note["name"] for _, note in found} - set(MODELS))]
    found.sort(key=lambda run: (order.index(run[1]["name"]), run[1]["seed"]))
    runs: dict[str, list[Path]] = {}
    for path, note in found:
        runs.setdefault(note["name"], []).append(path)
    figure = histories_figure(histories(runs), "")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=130)
    plt.close(figure)
    rows = [
        (_model(note["name"]), note["seed"], f"{note['steps']:,}", note["stopped"], f"{note['best_step']:,}",
         f"{100 * note['best_validation_gap']:.2f}", int(note["zero_gradients"])) for _, note in found
    ]  # fmt: skip
    header = ["model", "seed", "steps", "stopped", "best step", "its validation GAP (%)", "zero gradients"]
    told = ", ".join(f"{row[0]} seed {row[1]} {row[5]} % at step {row[4]}" for row in rows)
    alt = f"Three line plots over steps, a line for each model and seed: validation GAP ({told}), cross-entropy, loss."
    return _uri(picture.getvalue()), alt, sanitised(pd.DataFrame(rows, columns=header).to_html(index=False), "training")


def _model(name: str) -> str:
    return MODELS.get(name, name)


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
