"""The attention explorer without its page: one test video, one attack, one model, computed when asked for."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from artpaper.attacks import hit
from artpaper.models import FrameTransformer
from pipeline.base.errors import ArtpaperError, DataError
from pipeline.base.parameters import Params
from pipeline.data.batches import model_inputs
from pipeline.data.store import FrameStore
from pipeline.explorer.choices import ATTACKS
from pipeline.explorer.videos import Run, Videos
from pipeline.paper.style import model_title
from pipeline.predict.deepfool import subset
from pipeline.run.workspace import Workspace, open_workspace
from pipeline.train.checkpoints import trained_model

AUTO = "auto"
TOP = 5  # labels listed for a video
KEPT = 8  # clean videos whose maps are kept, and as many directions of a step: that of every model on show, and before
Maps = Float64[np.ndarray, "time time"]
Heads = dict[str, Float64[np.ndarray, "heads time time"]]


class Label(NamedTuple):
    """One of a model's best classes: its name, its probability (a fraction), and whether the video has it."""

    name: str
    probability: float
    true: bool


@dataclass(frozen=True)
class Answer:
    """What a model says of a video: its best classes, best first, and its margin.

    The margin is the best true logit less the best wrong one, so above 0 where the top label is a true one; NaN for a
    video without true or without wrong labels.
    """

    top: tuple[Label, ...]
    margin: float

    @property
    def right(self) -> bool:
        """Whether the top label is a true one."""
        return self.top[0].true


@dataclass(frozen=True)
class View:
    """What one model makes of a video and of its adversary.

    ``clean`` and ``adversarial`` hold per modality the map of every head (rows attend, columns are attended to);
    ``before`` is the answer to the clean video, and ``ask`` gives that to the attacked one, which takes several times
    as long as its maps. ``frame_norms`` are the L2 norms of each frame's perturbation, in the unit of the features,
    ``norm`` and ``video_norm`` those of the perturbation and of the video.
    """

    video: str
    labels: tuple[str, ...]
    run: Run
    clean: Heads
    adversarial: Heads
    before: Answer
    ask: Callable[[], Answer]
    frame_norms: Float64[np.ndarray, " time"]
    norm: float
    video_norm: float

    @cached_property
    def after(self) -> Answer:
        """The answer to the attacked video."""
        return self.ask()

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
    from, and may be empty. ``epsilon`` is the radius of the pipeline's attack, unit of the features. ``pause`` is
    called before every pass of a model, and may raise to give up what nobody waits for any more.
    """

    def __init__(self, params: Params, workspace: Path, predictions: Mapping[Run, Path], note: str = "") -> None:
        self.params, self.note, self.runs = params, note, tuple(predictions)
        self._workspace, self._store = workspace, FrameStore(workspace / "frames" / "test")
        self.videos = Videos(predictions, self._store.label_space)
        self.videos.expect(params)
        self.modalities = tuple(self._store.modalities)
        self.epsilon = params.attack.epsilon
        self.classes = self._store.label_space.classes
        self.pause: Callable[[], None] = lambda: None
        self._models: dict[Run, FrameTransformer] = {}
        self._clean, self._step = lru_cache(KEPT)(self._clean_answer), lru_cache(KEPT)(self._attacked)
        for run in self.first:  # shown first, so checked before there is a page
            self._model(run)

    @property
    def first(self) -> tuple[Run, ...]:
        """The models that are shown first: the first and the last of the first seed."""
        of_a_seed = [run for run in self.runs if run[1] == self.runs[0][1]]
        return tuple(dict.fromkeys((of_a_seed[0], of_a_seed[-1])))

    def look(self, row: int, run: Run, attack: str, epsilon: float, masked: Sequence[int] = ()) -> View:
        """Attack the test video at a row of the store, white box, and say what the model makes of it before and after.

        ``attack`` is one of :data:`pipeline.explorer.choices.ATTACKS`; those that find their own radius ignore
        ``epsilon``, unit of the features. Frames that are ``masked``, counted from 0, are padding to the model.
        """
        model, (x, y, mask) = self._model(run), self._video(row, run, tuple(masked))
        clean, before = self._clean(row, run, tuple(masked))
        perturbation = self._perturbation(row, run, attack, epsilon, tuple(masked))
        adversarial = x + perturbation
        moved = perturbation[0].double().norm(dim=1).cpu().numpy()  # (T,)
        return View(
            self.videos.id(row), self.videos.labels(row), run, clean, _heads(model, adversarial, mask), before,
            lambda: self._answer(model, adversarial, y, mask), moved, float(np.linalg.norm(moved)),
            float(x[0][mask[0]].double().norm()),
        )  # fmt: skip

    def margins(
        self, row: int, run: Run, attack: str, epsilons: Iterable[float], masked: Sequence[int] = ()
    ) -> Iterator[float]:
        """The margin of the true labels under the attack at each epsilon, as :class:`Answer` has it."""
        model, (x, y, mask) = self._model(run), self._video(row, run, tuple(masked))
        for epsilon in epsilons:
            with torch.no_grad():
                moved = x + self._perturbation(row, run, attack, epsilon, tuple(masked))
                yield lead(model(moved, mask)[0], y[0])

    def find(self, order: str, text: str, run: Run, attack: str, epsilon: float) -> Selection:
        """The test videos of an id or a label (``text``, part of either) in an order, or those a model is fooled about.

        The order is "store", "changed" (the pipeline's attack changes the maps of ``run`` most) or "fooled" (the top
        label is a true one and ``attack`` at ``epsilon`` makes it a wrong one). For "fooled" the pipeline's own attack
        is looked up for all videos; any other is tried now, on as many as its choice says at the most, chosen by a
        hash of their ids.
        """
        rows = self.videos.matching(text)
        if not len(rows):
            return Selection(rows, f"no test video has “{text.strip()}” in its id or as a label")
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
        """The one of :data:`pipeline.explorer.choices.ATTACKS` that made the predictions."""
        return "one_step" if self.params.attack.labels == "truth" else "one_step_predicted"

    def _fooled(self, rows: np.ndarray, run: Run, attack: str, epsilon: float) -> np.ndarray:
        # a search that does not settle ends elsewhere in another batch; the list and the view have to say the same
        size = self.params.attack.batch_size if ATTACKS[attack].straight else 1
        model, parts = self._model(run), [np.zeros(0, bool)]
        for start in range(0, len(rows), size):
            x, y, mask = self._inputs(rows[start : start + size].tolist(), model)
            result = ATTACKS[attack].run(model, x, y, mask, epsilon, self.params)
            fooled = hit(result.clean_logits, y) & ~hit(result.adversarial_logits, y)
            parts.append(fooled.cpu().numpy())
        return np.concatenate(parts)

    def _model(self, run: Run) -> FrameTransformer:
        if run not in self._models:
            model, _ = trained_model(self.params, *run, self._workspace)
            model.register_forward_pre_hook(lambda *_: self.pause())
            self._models[run] = model
        return self._models[run]

    def _video(self, row: int, run: Run, masked: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
        x, y, mask = self._inputs([row], self._model(run))
        if masked:
            mask = mask.index_fill(1, torch.tensor(masked, device=mask.device), False)
        if not mask.any():
            raise ArtpaperError(f"every frame of test video {self.videos.id(row)} is masked; leave one at least")
        return x, y, mask

    def _clean_answer(self, row: int, run: Run, masked: tuple[int, ...]) -> tuple[Heads, Answer]:
        model, (x, y, mask) = self._model(run), self._video(row, run, masked)
        return _heads(model, x, mask), self._answer(model, x, y, mask)

    def _attacked(self, row: int, run: Run, attack: str, epsilon: float, masked: tuple[int, ...]) -> Tensor:
        return ATTACKS[attack].run(self._model(run), *self._video(row, run, masked), epsilon, self.params).perturbation

    def _perturbation(self, row: int, run: Run, attack: str, epsilon: float, masked: tuple[int, ...]) -> Tensor:
        if ATTACKS[attack].straight:
            unit = self.epsilon or 1.0
            return self._step(row, run, attack, unit, masked) * (epsilon / unit)
        return self._attacked(row, run, attack, epsilon, masked)

    def _inputs(self, rows: Sequence[int], model: FrameTransformer) -> tuple[Tensor, Tensor, Tensor]:
        (batch,) = self._store.subset(rows).batches(len(rows), max_frames=self.params.features.max_frames)
        if batch.ids != [self.videos.id(row) for row in rows]:
            raise DataError(f"{self._store.path}: not the videos of the predictions; make both anew with `dvc repro`")
        return model_inputs(batch, self.params.features, model.modalities, next(model.parameters()).device)

    @torch.no_grad()
    def _answer(self, model: FrameTransformer, x: Tensor, y: Tensor, mask: Tensor) -> Answer:
        logits, true = model(x, mask)[0], y[0] > 0  # (K,)
        best = logits.argsort(descending=True, stable=True)[:TOP].tolist()
        probabilities = logits.double().sigmoid()
        top = tuple(Label(self.classes[index], float(probabilities[index]), bool(true[index])) for index in best)
        return Answer(top, lead(logits, y[0]))


@torch.no_grad()
def _heads(model: FrameTransformer, x: Tensor, mask: Tensor) -> Heads:
    return {name: maps[0].double().cpu().numpy() for name, maps in model.attention_heads(x, mask).items()}


def lead(logits: Float[Tensor, " classes"], y: Float[Tensor, " classes"]) -> float:
    """The best true logit less the best wrong one; NaN where all labels, or none, are true."""
    true, wrong = logits[y > 0], logits[y <= 0]
    return float(true.max() - wrong.max()) if len(true) and len(wrong) else math.nan


def run_title(run: Run, among: Sequence[Run]) -> str:
    """What a reader calls a trained model; the seed is said where several were trained."""
    name, seed = run
    return model_title(name) + (f", seed {seed}" if len({other for _, other in among}) > 1 else "")


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
