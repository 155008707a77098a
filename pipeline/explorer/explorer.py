"""The attention explorer without its widgets: one test video, one attack, one model, computed when asked for."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from artpaper.attacks import ATTACKS as LISTED
from artpaper.attacks import Attack, Listed, accepted, hit
from artpaper.models import FrameTransformer
from pipeline.base.errors import ArtpaperError, DataError
from pipeline.base.parameters import Params
from pipeline.data.batches import model_inputs
from pipeline.data.store import FrameStore
from pipeline.explorer.videos import Run, Videos
from pipeline.paper.paper import MODELS
from pipeline.predict.deepfool import subset
from pipeline.run.workspace import Workspace, open_workspace
from pipeline.train.checkpoints import trained_model

AUTO = "auto"
TOP = 5  # labels listed for a video
Maps = Float64[np.ndarray, "time time"]
Heads = dict[str, Float64[np.ndarray, "heads time time"]]


@dataclass(frozen=True)
class Choice:
    """An attack to choose: what a reader calls it, how it is run, and whether epsilon is its radius.

    ``run`` is called as ``run(model, x, y, mask, epsilon, params)``; a search tries it on ``searched`` videos at most.
    """

    title: str
    run: Callable[[FrameTransformer, Tensor, Tensor, Tensor, float, Params], Attack]
    takes_epsilon: bool = True
    searched: int = 512


def choices() -> dict[str, Choice]:
    """The listed attacks that have a title, the control last; of those that search only a few videos are tried."""
    offered = sorted((listed for listed in LISTED if listed.title), key=lambda listed: listed.kind == "noise")
    return {
        listed.name: Choice(
            listed.title, partial(_run, listed), listed.kind != "boundary",
            64 if accepted(listed.attack) & {"steps", "queries"} else 512,
        )
        for listed in offered
    }  # fmt: skip


def _run(
    listed: Listed, model: FrameTransformer, x: Tensor, y: Tensor, mask: Tensor, epsilon: float, params: Params
) -> Attack:
    settings = {"epsilon": epsilon, "scope": params.attack.scope, "seed": params.base.seed}
    group = params.deepfool if listed.kind == "boundary" else params.stress
    return listed.attack(model, x, y, mask, **listed.bound(vars(group) | settings))


ATTACKS = choices()


@dataclass(frozen=True)
class Label:
    """One of a model's best classes: its name, its probability (a fraction), and whether the video has it."""

    name: str
    probability: float
    true: bool


@dataclass(frozen=True)
class View:
    """What one model makes of a video and of its adversary.

    ``clean`` and ``adversarial`` hold per modality the map of every head (rows attend, columns are attended to),
    ``top`` and ``attacked_top`` the best classes, best first; ``frame_norms`` are the L2 norms of each frame's
    perturbation, in the unit of the features, ``norm`` and ``video_norm`` those of the perturbation and of the video.
    """

    video: str
    labels: tuple[str, ...]
    run: Run
    clean: Heads
    adversarial: Heads
    top: tuple[Label, ...]
    attacked_top: tuple[Label, ...]
    frame_norms: Float64[np.ndarray, " time"]
    norm: float
    video_norm: float

    @property
    def right(self) -> bool:
        """Whether the clean top label is a true one."""
        return self.top[0].true

    @property
    def attacked_right(self) -> bool:
        """Whether the adversarial top label is a true one."""
        return self.attacked_top[0].true

    def maps(self, modality: str, head: int | None = None) -> tuple[Maps, Maps]:
        """The clean and the adversarial map of one head, or with None the mean over heads (the paper's A)."""
        pair = (self.clean[modality], self.adversarial[modality])
        before, after = (heads.mean(axis=0) if head is None else heads[head] for heads in pair)
        return before, after


@dataclass(frozen=True)
class Selection:
    """Videos to choose from: their rows in the store, best match first, and a sentence that says what they are."""

    rows: Int64[np.ndarray, " rows"]
    text: str


class Explorer:
    """Everything the explorer shows, computed for one video and one model at a time.

    ``predictions`` has the trained models to choose from, which become ``runs``, each with its predictions file;
    ``workspace`` holds ``frames/`` and ``models/``; ``note`` is what a reader must know about where all this comes
    from, and may be empty. ``epsilon`` is the radius of the pipeline's attack, unit of the features.
    """

    def __init__(self, params: Params, workspace: Path, predictions: Mapping[Run, Path], note: str = "") -> None:
        self.params, self.note, self.runs = params, note, tuple(predictions)
        self._workspace, self._store = workspace, FrameStore(workspace / "frames" / "test")
        self.videos = Videos(predictions, self._store.label_space)
        self.videos.expect(params)
        self.modalities = tuple(self._store.modalities)
        self.epsilon = params.attack.epsilon
        self.classes = self._store.label_space.classes
        self._models: dict[Run, FrameTransformer] = {}
        for run in (self.runs[0], self.runs[-1]):  # shown first, so checked before there is a page
            self._model(run)

    def look(self, row: int, run: Run, attack: str, epsilon: float) -> View:
        """Attack the test video at a row of the store, white box, and say what the model makes of it before and after.

        ``attack`` is one of :data:`ATTACKS`; those that find their own radius ignore ``epsilon``, unit of the features.
        """
        model = self._model(run)
        x, y, mask = self._inputs([row], model)
        result = ATTACKS[attack].run(model, x, y, mask, epsilon, self.params)
        with torch.no_grad():
            clean, adversarial = (
                {name: maps[0].double().cpu().numpy() for name, maps in model.attention_heads(frames, mask).items()}
                for frames in (x, x + result.perturbation)
            )
        return View(
            self.videos.id(row), self.videos.labels(row), run, clean, adversarial,
            self._top(result.clean_logits[0], y[0]), self._top(result.adversarial_logits[0], y[0]),
            result.perturbation[0].double().norm(dim=1).cpu().numpy(),  # (T,)
            float(result.diagnostics["norm"][0]), float(x[0].double().norm()),
        )  # fmt: skip

    def find(self, order: str, text: str, run: Run, attack: str, epsilon: float) -> Selection:
        """The test videos of an id or a label (``text``, part of either) in an order, or those a model is fooled about.

        The order is "store", "changed" (the pipeline's attack changes the maps of ``run`` most) or "fooled" (the top
        label is a true one and ``attack`` at ``epsilon`` makes it a wrong one). For "fooled" the pipeline's own attack
        is looked up for all videos; any other is tried now, on :attr:`Choice.searched` of them at the most, chosen by a
        hash of their ids.
        """
        rows = self.videos.matching(text)
        if order == "store":
            return Selection(rows, f"{len(rows):,} of {len(self.videos):,} test videos")
        if order == "changed":
            most = np.argsort(-self.videos.change(run)[rows], kind="stable")
            rule = f"{len(rows):,} videos, those first whose maps the pipeline's attack (ε = {self.videos.epsilon:g})"
            return Selection(rows[most], f"{rule} changes most for {run_title(run, self.runs)}")
        what = f"{run_title(run, self.runs)}, {ATTACKS[attack].title}"
        what += f", ε = {epsilon:g}" if ATTACKS[attack].takes_epsilon else ""
        if attack == self.pipeline_attack and math.isclose(epsilon, self.videos.epsilon):
            fooled = rows[self.videos.fooled(run)[rows]]
            return Selection(fooled, f"{len(fooled):,} of {len(rows):,} videos are fooled: {what}")
        ids, count = [self.videos.id(row) for row in rows.tolist()], ATTACKS[attack].searched
        searched = rows[subset(ids, count, self.params.base.seed)]
        fooled = searched[self._fooled(searched, run, attack, epsilon)]
        of = f"{len(searched):,} searched of {len(rows):,}" if len(searched) < len(rows) else f"{len(rows):,}"
        return Selection(fooled, f"{len(fooled):,} of {of} videos are fooled: {what}")

    @property
    def pipeline_attack(self) -> str:
        """The one of :data:`ATTACKS` that made the predictions."""
        return "one_step" if self.params.attack.labels == "truth" else "one_step_predicted"

    def _fooled(self, rows: np.ndarray, run: Run, attack: str, epsilon: float) -> np.ndarray:
        model, size, parts = self._model(run), self.params.attack.batch_size, [np.zeros(0, bool)]
        for start in range(0, len(rows), size):
            x, y, mask = self._inputs(rows[start : start + size].tolist(), model)
            result = ATTACKS[attack].run(model, x, y, mask, epsilon, self.params)
            fooled = hit(result.clean_logits, y) & ~hit(result.adversarial_logits, y)
            parts.append(fooled.cpu().numpy())
        return np.concatenate(parts)

    def _model(self, run: Run) -> FrameTransformer:
        if run not in self._models:
            self._models[run], _ = trained_model(self.params, *run, self._workspace)
        return self._models[run]

    def _inputs(self, rows: Sequence[int], model: FrameTransformer) -> tuple[Tensor, Tensor, Tensor]:
        (batch,) = self._store.subset(rows).batches(len(rows), max_frames=self.params.features.max_frames)
        if batch.ids != [self.videos.id(row) for row in rows]:
            raise DataError(f"{self._store.path}: not the videos of the predictions; make both anew with `dvc repro`")
        return model_inputs(batch, self.params.features, model.modalities, next(model.parameters()).device)

    def _top(self, logits: Tensor, y: Tensor) -> tuple[Label, ...]:
        best = logits.argsort(descending=True, stable=True)[:TOP]
        probabilities = logits.double().sigmoid()
        return tuple(
            Label(self.classes[index], float(probabilities[index]), bool(y[index] > 0)) for index in best.tolist()
        )


def run_title(run: Run, among: Sequence[Run]) -> str:
    """What a reader calls a trained model; the seed is said where several were trained."""
    name, seed = run
    title = MODELS.get(name, name)
    return f"{title}, seed {seed}" if len({other for _, other in among}) > 1 else title


def open_explorer(params: str = "params.yaml", workspace: str = AUTO) -> Explorer:
    """Open the explorer on trained models; both paths are relative to the project's folder.

    "auto" is the pipeline's own workspace, and where that has no models of these parameters yet, the small profile's,
    made now if need be (about half a minute); the explorer's ``note`` then says so, and what makes the others.
    """
    if workspace != AUTO:
        return _explorer(open_workspace(params, workspace))
    try:
        return _explorer(open_workspace(params, "."))
    except ArtpaperError as error:
        note = f"These are the small profile's models, made to have something to look at. {error}."
        return _explorer(open_workspace("profiles/small.yaml", "small"), note)


def _explorer(workspace: Workspace, note: str = "") -> Explorer:
    """With every trained model: in a scratch workspace those missing are made, elsewhere any that are there will do."""
    experiment = workspace.params.experiment
    runs = [(name, seed) for name in experiment.models for seed in experiment.seeds]
    trained = [run for run in runs if workspace.predictions(*run).is_file()]
    chosen = runs if workspace.scratch or not trained else trained
    predictions = {run: workspace.need_predictions(*run) for run in chosen}
    return Explorer(workspace.params, workspace.root, predictions, note)
