"""The figures of the page: what each shows in words (with its numbers), and its caption; and where training ended."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from pipeline.base.parameters import Params
from pipeline.paper.histories import QUANTITIES
from pipeline.paper.paper import MODELS
from pipeline.paper.results import read_json, read_table, read_text
from pipeline.report.markup import prose, sanitised


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
    found = read_table(folder / "figures" / "figure2.csv", "model", "modality", "clean", "adversarial")
    most = found.groupby(["model", "modality"], sort=False)[["clean", "adversarial"]].max()
    told = "; ".join(
        f"{_model(model)}, {modality}: {row.clean:.2f} clean, {row.adversarial:.2f} adversarial"
        for (model, modality), row in zip(most.index, most.itertuples(), strict=True)
    )
    return f"Line plots of the attention that each frame receives, clean and adversarial. Largest weight: {told}."


def _sweep(folder: Path) -> str:
    found = read_table(folder / "figures" / "figure3.csv", "model", "key", "value", "clean", "one_step")
    means = found.groupby(["model", "key", "value"], sort=False)[["clean", "one_step"]].mean().reset_index()
    told = []
    for (model, key), line in means.groupby(["model", "key"], sort=False):
        clean, attacked = (line.loc[line[what].idxmax()] for what in ("clean", "one_step"))
        told.append(
            f"{_model(model)} over {key}: {clean.clean:.1f} % clean at {clean.value:g}, "
            f"{attacked.one_step:.1f} % attacked at {attacked.value:g}"
        )
    keys = ", ".join(dict.fromkeys(means["key"]))
    if not keys:
        return "Empty axes: this run has no grid of epsilon, alpha or beta."
    return f"Line plots of validation GAP, clean and attacked, over {keys}. Highest: {'; '.join(told)}."


def _perturbations(folder: Path) -> str:
    found = read_table(folder / "figures" / "figure4.csv", "criterion", "model", "seed", "mean_rho")
    found = found[found["seed"].astype(str) == "all"]
    told = [
        f"{criterion}: "
        + ", ".join(f"{_model(row.model)} {_percent(100 * row.mean_rho, 2)}" for row in rows.itertuples())
        for criterion, rows in found.groupby("criterion", sort=False)
    ]
    return f"Bars of the mean minimal perturbation, and its distribution below. {'; '.join(told)} of a video's norm."


def _attention(folder: Path) -> str:
    found = read_table(folder / "figures" / "attention.csv", "model", "seed", "modality", "mse")
    means = found.groupby(["modality", "model"], sort=False)["mse"].mean()
    told = ", ".join(f"{_model(model)} {modality} {value:.1e}" for (modality, model), value in means.items())
    return (
        f"Box plots over the test videos of the mean squared change of the maps (means: {told}), beside the distance "
        "between unrelated videos and to the uniform map; below, the entropy of the maps and their largest weight."
    )


def _readings(folder: Path) -> str:
    found = read_table(folder / "figures" / "epsilon.csv", "features", "ball", "epsilon", "GAP lost", "in_use")
    told = "; ".join(
        f"{row['features']}, {row['ball']}, {row['epsilon']:g}: {_percent(row['GAP lost'], 0)}"
        + ", in use" * bool(row["in_use"])
        for row in found.to_dict("records")
    )
    return f"Bars of the share of GAP, PERR and Hit@1 that Non-ART loses under each reading. Of GAP: {told}."


def _percent(value: float, digits: int) -> str:
    return "not measured" if pd.isna(value) else f"{value:.{digits}f} %"


def _curves(folder: Path) -> str:
    found = read_table(folder / "figures" / "curves.csv", "quantity", "model", "seed", "step", "value")
    best = found[found["quantity"] == QUANTITIES["validation_gap"]]
    best = best.loc[best.groupby(["model", "seed"], sort=False)["value"].idxmax()]
    told = ", ".join(
        f"{_model(row.model)} seed {row.seed} {row.value:.2f} % at step {row.step}" for row in best.itertuples()
    )
    return (
        f"Line plots over steps, a line for each model and seed: {'; '.join(QUANTITIES.values())}. Highest GAP: {told}."
    )


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


CURVES = (
    "curves", "How the models trained", "curves",
    "A line for each model and seed: GAP on the clean validation set, cross-entropy on the clean training videos, and "
    "the loss that is minimised, a sum of different terms for each model: compare its shape, not its height.", _curves,
)  # fmt: skip


def drawings(folder: Path) -> list[Drawing]:
    """The figures of a run, in the paper's order; those that were not made have no picture.

    Args:
        folder: the project's folder, or one below ``results/``.
    """
    return [_drawing(folder, *figure) for figure in FIGURES]


def _drawing(folder: Path, name: str, title: str, stage: str, caption: str, words: Words) -> Drawing:
    return Drawing(name, title, caption, stage, *_made(folder, name, title, words))


def _made(folder: Path, name: str, title: str, words: Words) -> tuple[str, str, Markup]:
    png, csv, text = (folder / "figures" / f"{name}.{kind}" for kind in ("png", "csv", "md"))
    if not png.is_file() or (name != "figure1" and not csv.is_file()):
        return "", "", Markup()
    if text.is_file():
        numbers = prose(read_text(text), below=3, label=f"numbers of {title}")
    else:
        shown = csv.is_file() and name != CURVES[0]  # which has thousands of points
        numbers = data_frame(read_table(csv), f"numbers of {title}") if shown else Markup()
    return _uri(png.read_bytes()), words(folder), numbers


def data_frame(table: pd.DataFrame, label: str) -> Markup:
    """A table as HTML, four significant digits, nothing where a value is missing."""
    return sanitised(table.to_html(index=False, na_rep="", float_format="{:.4g}".format), label)


def training(folder: Path, params: Params) -> tuple[Drawing, Markup]:
    """How the models of a run trained: the curves of stage ``curves``, and where each model stopped.

    Args:
        folder: holds ``models/<model>/seed<k>/model.json`` and ``figures/``.
        params: group ``experiment`` names the models and seeds; others that are left in the folder are passed over.
    Returns:
        The drawing, and a table, a row per model and seed; empty without models.
    Raises:
        DataError: a file is damaged.
    """
    places = [
        folder / "models" / model / f"seed{seed}" / "model.json"
        for model in params.experiment.models
        for seed in params.experiment.seeds
    ]
    keys = ("name", "seed", "steps", "stopped", "best_step", "best_validation_gap", "zero_gradients")
    notes = [read_json(place, *keys) for place in places if place.is_file()]
    rows = [
        (_model(note["name"]), note["seed"], f"{note['steps']:,}", note["stopped"], f"{note['best_step']:,}",
         f"{100 * note['best_validation_gap']:.2f}", int(note["zero_gradients"])) for note in notes
    ]  # fmt: skip
    header = ["model", "seed", "steps", "stopped", "best step", "its validation GAP (%)", "zero gradients"]
    table = sanitised(pd.DataFrame(rows, columns=header).to_html(index=False), "training") if rows else Markup()
    return _drawing(folder, *CURVES), table


def _model(name: str) -> str:
    return MODELS.get(name, name)


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
