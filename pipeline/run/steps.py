"""The pipeline's steps as commands: each reads a parameter file and a folder of results, and adds to that folder."""

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from pipeline.base.parameters import Params
from pipeline.run.command import PARAMS, WORKSPACE
from pipeline.run.in_use import opened

Work = Callable[..., Any]
ONE_MODEL = (
    click.option("--model", "name", required=True, help="Entry of group models, such as a_art."),
    click.option("--seed", type=click.IntRange(min=0), metavar="N", default=0, help="Training seed."),
)
QUICK = click.option("--quick", is_flag=True, help="Minutes instead of hours; its numbers prove nothing.")


def steps() -> Iterator[click.Command]:
    """All of them."""
    yield _step("prepare", _imported("pipeline.prepare.prepare:prepare"), "Make frame stores of frame features.")
    unchanged = "Tell whether frame stores and data are as they were prepared."
    yield _step("verify", _imported("pipeline.prepare.verify:verify"), unchanged)
    yield _step("train", _imported("pipeline.train.training:train"), "Train one model.", *ONE_MODEL)
    one_step = "Make the one-step predictions of one model."
    yield _step("attack", _imported("pipeline.predict.one_step:attack"), one_step, *ONE_MODEL)
    shortest = _imported("pipeline.predict.deepfool:minimal_perturbations")
    yield _step("deepfool", shortest, "Find minimal perturbations of one model.", *ONE_MODEL)
    yield _step("study", _study, "Do the trainings of Figure 3; those done before are kept.")
    yield _step("tables", _imported("pipeline.paper.tables:tables"), "Make Tables 1-3 from predictions.")
    strong = "Put strong attacks to models and controls, for the verdict."
    yield _step("stress", _stress, strong, QUICK)


def _step(name: str, work: Work, text: str, *options: Callable[[Any], Any]) -> click.Command:
    """One command; it prints where its results are, or what they say."""

    def step(params: Path, workspace: Path, **given: Any) -> None:
        result = work(params=opened(params), workspace=workspace, **given)
        if isinstance(result, str | Path):
            print(result)

    command = click.Command(name, callback=step, help=text)
    for option in (*options, PARAMS, WORKSPACE):
        option(command)
    return command


def _imported(place: str) -> Work:
    """What stands at ``module:function``, imported when it is called: no help waits for torch."""
    module, _, name = place.partition(":")
    return lambda **given: getattr(import_module(module), name)(**given)


def _study(params: Params, workspace: Path) -> str:
    from pipeline.paper.hyperparameters import summary
    from pipeline.predict.sweep import sweep

    return str(summary(sweep(params, workspace)).to_string(index=False))


def _stress(params: Params, workspace: Path, quick: bool) -> Path:
    from pipeline.stress.attacks import stress
    from pipeline.stress.verdict.page import stress_verdict

    target, out = workspace / "stress", workspace / "verdict"
    if quick:
        params, target, out = stress.quick(params), target / "quick", target / "quick" / "verdict"
    return stress_verdict(params, stress.stress(params, workspace, target=target), out)
