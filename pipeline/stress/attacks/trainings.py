"""What is trained for the stress test: the paper's models and their controls, at equal cost, over many seeds."""

import dataclasses
from functools import partial
from pathlib import Path

from tqdm import tqdm

from artpaper.settings import Control, Loss
from pipeline.base.parameters import Params
from pipeline.predict.study import Variation
from pipeline.scale.engine import each
from pipeline.train.checkpoints import read_note

STANDARD = 2  # forward-backward passes of a step of ART, which the cost of the others is measured by


def variations(params: Params) -> list[Variation]:
    """Every model and seed of group ``stress``, seed by seed, so that a run cut short has whole seeds.

    A model whose step takes more passes than ART's is given fewer steps, unless ``stress.equal_cost`` is false; the
    validations stay as many steps apart.
    """
    params, stress = params.with_controls(), params.stress
    trainings = []
    for seed in stress.seeds:
        for name in stress.models:
            steps = stress.max_steps or params.train.max_steps
            if stress.equal_cost:
                steps = max(1, steps * STANDARD // max(STANDARD, passes(params.models[name])))
            own = dataclasses.replace(params, train=dataclasses.replace(params.train, max_steps=steps))
            trainings.append(Variation(own, name, seed))
    return trainings


def passes(loss: Loss) -> int:
    """Forward-backward passes of one training step; the part of A-ART's that goes through the maps is not counted."""
    if isinstance(loss, Control):
        return loss.passes
    return STANDARD if loss.alpha or loss.beta else 1


def train_all(params: Params, workspace: Path, *, progress: bool = True) -> None:
    """Train what has not been trained before, ``compute.workers`` at a time.

    They are kept in ``study/`` of the workspace; the pipeline's own models serve where they are the same training.
    """
    trainings = variations(params)
    waiting = [variation for variation in trainings if not (variation.model(workspace) / "model.safetensors").is_file()]
    work = partial(_train, workspace=workspace)
    done = len(trainings) - len(waiting)
    with tqdm(total=len(trainings), initial=done, unit="model", desc="train", disable=not progress) as bar:
        for variation, gap in each(work, waiting, params.compute, gpu=True):
            bar.set_postfix_str(f"{variation.name} seed {variation.seed}: GAP {100 * gap:.2f} %")
            bar.update(1)


def _train(variation: Variation, workspace: Path) -> float:
    return float(read_note(variation.trained(workspace))["best_validation_gap"])


def describe(params: Params, name: str) -> str:
    """What sets a model apart, as the parameter file says it: ``like art, attention uniform``."""
    if name in params.controls:
        return ", ".join(f"{key} {value}" for key, value in params.controls[name].items())
    loss = params.models[name]
    return f"alpha {loss.alpha:g}, epsilon {loss.epsilon:g}, beta {loss.beta:g}"
