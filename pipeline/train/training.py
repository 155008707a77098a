"""The training loop: Adam, validation GAP, early stopping, and a run that survives being killed.

Everything random is derived from (seed, step), nothing is carried along, so a run that resumes from its last state ends
with the bits of one that was never interrupted. Several processes may train one model (:mod:`pipeline.scale.team`):
each takes its share of every batch, all take the same steps and decisions, and the first one writes what there is to
write.
"""

import inspect
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts, or its matrix products vary
import torch

from artpaper.guarded import Guarded
from artpaper.losses import COUNTED, Parts, loss_for
from artpaper.models import FrameTransformer
from artpaper.settings import Loss
from pipeline.base.alone import alone
from pipeline.base.atomic import replace_folder
from pipeline.base.errors import ArtpaperError, ConfigError
from pipeline.base.groups import Features, Train
from pipeline.base.identity import fingerprint, resume_key
from pipeline.base.memory import keep_freed, lower_if_short
from pipeline.base.parameters import Params
from pipeline.data.batches import model_inputs
from pipeline.data.splits import training_splits
from pipeline.data.store import Batch, FrameStore
from pipeline.scale.cluster import spreads
from pipeline.scale.engine import together
from pipeline.scale.team import Team
from pipeline.train import checkpoints
from pipeline.train.device import best_device, native_precision, seed_everything
from pipeline.train.history import Row, Screen, Watcher, write_history
from pipeline.train.validation import clean_gap

AHEAD = 2  # batches made while the model works on another; a GPU would otherwise wait for them
INTERVAL = 1.0  # seconds between two messages about the steps from another machine
Progress = tuple[int, list[Row] | None]  # how many steps are done, and the history where the last one added to it
Seen = Callable[[int, list[Row] | None], None]  # called with the same after every step


def train(
    params: Params, name: str, seed: int, workspace: Path, *, target: Path | None = None, watch: Watcher | None = None,
    progress: bool = True,
) -> Path:  # fmt: skip
    """Train one model of group ``models`` (section 3.1); the folder with model.safetensors, model.json, history.csv.

    It has the best checkpoint; it is ``target``, by default ``workspace/models/<name>/seed<seed>``. ``seed`` is for the
    weights, the order of the videos and the dropout; ``watch`` is called with the history so far after every
    validation. Whatever ends a run, its last good state is kept, for the next to go on from.

    With ``compute.engine`` ray, ``compute.workers`` processes of the cluster train it. The process keeps the memory it
    needed (:func:`pipeline.base.memory.keep_freed`).
    """
    folder = target or workspace / "models" / name / f"seed{seed}"
    config = params.train
    title = f"train {name} seed {seed}"
    with closing(Screen(title, config.max_steps, config.batch_size, watch, progress)) as screen:
        if spreads(params.compute):
            work = partial(_train_as_one, params, name, seed, workspace, folder)
            together(work, params.compute, lambda message: screen(*message))
        else:
            _train(params, name, seed, workspace, folder, screen)
    return folder


def _train_as_one(
    params: Params, name: str, seed: int, workspace: Path, folder: Path, tell: Callable[[Progress], None]
) -> None:
    """What each process of a team runs; the first one tells how far they are."""
    last = 0.0

    def seen(step: int, history: list[Row] | None) -> None:
        nonlocal last
        if history is not None or time.monotonic() - last > INTERVAL:
            tell((step, history))
            last = time.monotonic()

    _train(params, name, seed, workspace, folder, seen)


def _train(params: Params, name: str, seed: int, workspace: Path, folder: Path, seen: Seen) -> None:
    architecture = params.model_for(name)
    stores = training_splits(params, name, workspace)
    seed_everything(seed)
    try:
        model = FrameTransformer(architecture, stores[0].modalities, len(stores[0].label_space.classes))
    except ValueError as error:
        raise ConfigError(f"group model: {error}") from None
    identity = checkpoints.run_identity(params, name, seed, stores)
    state_folder = workspace / ".resume" / f"train-{name}-seed{seed}-{resume_key(__name__, identity)}"
    sizes = {"train.batch_size": params.train.batch_size, "features.max_frames": params.features.max_frames}
    run = Run(model, params.models[name], params.train, params.features, stores[0], stores[1], seed, identity)
    keep_freed()
    # another run must neither train this nor put another training in its place
    names = (state_folder.name, f"train-to-{fingerprint(str(folder.resolve()))}") if run.team.leads else ()
    with alone(workspace / ".resume", *names), lower_if_short(f"training {name} seed {seed}", sizes):
        run.resume(state_folder)
        run.fit(state_folder, seen)
        if run.team.leads:
            run.publish(state_folder, folder)


class Run:
    """One training run: the model, trained in place on the best device, its optimiser, and what a resumed run needs.

    ``loss`` is the entry of group ``models``, ``seed`` that of shuffling and dropout, ``identity`` what a resumed run
    must agree with, as :func:`pipeline.train.checkpoints.run_identity` gives it.
    """

    def __init__(
        self, model: FrameTransformer, loss: Loss, train: Train, inputs: Features, train_store: FrameStore,
        validation_store: FrameStore, seed: int, identity: dict[str, Any],
    ) -> None:  # fmt: skip
        self.device, self.team = best_device(), Team.here()
        precision = native_precision(self.device) if train.precision == "auto" else train.precision
        self.precision = self.team.tell(precision)  # machines may differ in what they multiply natively
        self.model, self.loss, self.config, self.inputs = model.to(self.device), loss, train, inputs
        self.train_store, self.validation_store = train_store, validation_store
        self.seed, self.identity = seed, identity
        self.optimizer = torch.optim.Adam(model.parameters(), lr=train.learning_rate, fused=True)
        # threshold 0: any improvement of the validation GAP counts, for the rate as for early stopping
        self.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, mode="max", factor=train.lr_factor, patience=train.lr_patience, threshold=0.0
        )
        self.step, self.best_gap, self.best_step, self.bad_validations = 0, -1.0, 0, 0
        self.history: list[Row] = []
        self.sums: dict[str, float] = {}
        self.guarded = Guarded(self.model)  # one for all steps: it looks at the first answer, and waits for that alone
        self.waiting: list[Parts] = []  # what the last steps say of their losses, still on the device

    @property
    def finished(self) -> bool:
        """Whether early stopping or the step limit has ended the run."""
        return self.step >= self.config.max_steps or self.bad_validations >= self.config.early_stop_patience

    def fit(self, state_folder: Path, seen: Seen) -> None:
        """Train until :attr:`finished`, writing a state every ``checkpoint_every`` steps and at every validation.

        Of a team the first process alone writes, and calls ``seen``.
        """
        batches = self._batches()
        while not self.finished:
            self._train_step(next(batches))
            validate = self.step % self.config.validate_every == 0 or self.step == self.config.max_steps
            log = validate or self.step % max(1, self.config.validate_every // 10) == 0
            if log:
                self._log(validate=validate, state_folder=state_folder)
            if self.team.leads:
                seen(self.step, self.history if log else None)
            if validate or self.finished or self.step % self.config.checkpoint_every == 0:
                self.save(state_folder)

    def save(self, state_folder: Path) -> None:
        """Write everything :meth:`resume` needs, whole or not at all."""
        self._fetch()
        if self.team.leads:
            checkpoints.save_tensors(state_folder / "state.safetensors", *self._state())

    def resume(self, state_folder: Path) -> None:
        """Continue from the state in ``state_folder``, or start afresh where there is none.

        The processes of a team begin as the first one does. A damaged state, or one of another run, is refused.
        """
        path = state_folder / "state.safetensors"
        if self.team.leads and path.exists():
            tensors, note = checkpoints.load_tensors(path)
            checkpoints.expect(note, self.identity, path)
            self._restore(tensors, note)
        if self.team.size > 1:
            tensors, note = self._state()
            self._restore(*self.team.tell(({name: tensor.cpu() for name, tensor in tensors.items()}, note)))

    def _state(self) -> tuple[checkpoints.Tensors, dict[str, Any]]:
        weights = {f"model.{key}": value for key, value in self.model.state_dict().items()}
        progress = {key: getattr(self, key) for key in ("step", "best_gap", "best_step", "bad_validations", "history",
                                                        "sums")}  # fmt: skip
        schedule = {key: value for key, value in self.schedule.state_dict().items() if not callable(value)}
        note = {**self.identity, "progress": progress, "schedule": schedule, "learning_rate": self._learning_rate}
        return weights | checkpoints.flatten_optimizer(self.optimizer), note

    def _restore(self, tensors: checkpoints.Tensors, note: dict[str, Any]) -> None:
        self.model.load_state_dict({key[6:]: value for key, value in tensors.items() if key.startswith("model.")})
        checkpoints.restore_optimizer(self.optimizer, tensors)
        self.schedule.load_state_dict(note["schedule"])
        for group in self.optimizer.param_groups:
            group["lr"] = note["learning_rate"]
        for key, value in note["progress"].items():
            setattr(self, key, value)

    def publish(self, state_folder: Path, folder: Path) -> None:
        """Put the best model and the history in ``folder`` and drop the resumable state."""
        self.model.load_state_dict(checkpoints.load_tensors(state_folder / "best.safetensors")[0])
        folder_to_be = state_folder / "publish"
        stopped = "early" if self.bad_validations >= self.config.early_stop_patience else "at max_steps"
        counts = {name: sum(row.get(name, 0) for row in self.history) for name in COUNTED}
        outcome = {"best_step": self.best_step, "best_validation_gap": self.best_gap, "steps": self.step,
                   "stopped": stopped, **counts, "precision": self.precision}  # fmt: skip
        checkpoints.save_model(folder_to_be, self.model, {**self.identity, **outcome})
        write_history(folder_to_be / "history.csv", self.history)
        replace_folder(folder_to_be, folder)
        (state_folder / "state.safetensors").unlink()  # first: a state without its best model could not be resumed
        shutil.rmtree(state_folder)

    def _train_step(self, batch: Batch) -> None:
        seed_everything(self.seed, self.step, self.team.rank)  # a zero at the end changes nothing
        self.optimizer.zero_grad(set_to_none=True)
        parts = self._backward(batch) if batch.ids else {}
        self.waiting.append(self.team.average(self.model.parameters(), parts, len(batch.ids)))
        self.optimizer.step()
        self.step += 1

    def _backward(self, batch: Batch) -> Parts:
        x, y, mask = model_inputs(batch, self.inputs, self.model.modalities, self.device)
        self.model.train()
        torch.set_deterministic_debug_mode("error")  # at "warn" CUDA's fused attention goes back in any order
        with self._autocast():  # the loss without its checks, for what a store holds was checked when it was prepared
            loss, parts = inspect.unwrap(loss_for(self.loss))(self.guarded, x, y, mask, self.loss)
        loss.backward(inputs=list(self.model.parameters()))  # not for x, whose gradient A-ART has already used
        torch.set_deterministic_debug_mode("warn")
        return parts

    def _fetch(self) -> None:
        """Sum up what the steps say of their losses, before a row or a state is made of them: one wait for them all.

        So a loss that is not finite stops the run when the next is due, with the step that it was first seen at.
        """
        if not self.waiting:
            return
        names, first = list(self.waiting[0]), self.step - len(self.waiting)
        told = torch.stack([torch.stack([parts[name] for name in names]) for parts in self.waiting]).tolist()
        self.waiting = []
        for step, values in enumerate(told, first):
            parts = dict(zip(names, values, strict=True))
            if not math.isfinite(parts["loss"]):
                raise self._diverged(f"the loss is {parts['loss']}", step)
            for key, value in {**parts, "steps": 1.0}.items():
                self.sums[key] = self.sums.get(key, 0.0) + value

    def _log(self, *, validate: bool, state_folder: Path) -> None:
        self._fetch()
        steps = self.sums.pop("steps")
        counts = {name: int(self.sums.pop(name)) for name in COUNTED if name in self.sums}
        row: Row = {"step": self.step, "learning_rate": self._learning_rate}
        row |= {key: value / steps for key, value in self.sums.items()} | counts
        self.sums = {}
        if validate:
            row["validation_gap"] = self._validate(state_folder)
        self.history.append(row)

    def _validate(self, state_folder: Path) -> float:
        try:
            with self._autocast():
                gap = clean_gap(
                    self.model, self.validation_store, self.config.batch_size, self.inputs, self.device, self.team
                )
        except ValueError as error:  # NaN scores: the weights have outgrown the number format
            raise self._diverged(str(error), self.step) from None
        if gap > self.best_gap:
            self.best_gap, self.best_step, self.bad_validations = gap, self.step, 0
            if self.team.leads:
                note = {"step": self.step, "gap": gap}
                checkpoints.save_tensors(state_folder / "best.safetensors", self.model.state_dict(), note)
        else:
            self.bad_validations += 1
        self.schedule.step(gap)
        return gap

    def _diverged(self, what: str, step: int) -> ArtpaperError:
        return ArtpaperError(
            f"training {self.identity['name']} seed {self.seed}: {what} at step {step}; the last state is kept. "
            "Lower train.learning_rate, or set train.precision to fp32"
        )

    def _batches(self) -> Iterator[Batch]:
        size = self.config.batch_size
        per_epoch = math.ceil(len(self.train_store) / size)
        epoch, start = divmod(self.step, per_epoch)
        while True:
            yield from self.train_store.batches(
                size, max_frames=self.inputs.max_frames, seed=self.seed, epoch=epoch, start=start, ahead=AHEAD,
                share=(self.team.rank, self.team.size),
            )  # fmt: skip
            epoch, start = epoch + 1, 0

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @property
    def _learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])
