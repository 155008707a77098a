"""Stage epsilon: Non-ART alone under each reading of the paper's "epsilon", on the validation set (section 2.1)."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from pipeline.base.groups import AttackConfig
from pipeline.base.parameters import Params
from pipeline.predict.study import Variation, measure_all

COLUMNS = {"GAP": "gap", "PERR": "perr", "Hit@1": "hit_at_1"}
FEATURES = {"none": "raw", "l2_frame": "unit-norm frames", "l2_frame_per_modality": "unit-norm frames per modality"}
BALLS = {"joint": "one ball a video", "modality": "one ball a modality", "frame": "one ball a frame"}


def measure_readings(params: Params, workspace: Path, *, progress: bool = True) -> pd.DataFrame:
    """Train Non-ART on each reading's features and attack it as each reading says.

    Returns:
        A row a reading of group ``calibration``: ``features``, ``ball``, ``epsilon``, ``relative_norm`` (perturbation
        over video, percent); per metric its clean and attacked value (percent) and ``lost``, the share of the clean
        value that the attack takes (percent), each the mean over ``experiment.seeds``; ``in_use`` for the reading that
        group ``attack`` uses.
    """
    seeds, used = params.experiment.seeds, (params.features.norm, params.attack.scope, params.attack.epsilon)
    variations = [Variation(changed, "non_art", seed) for changed in _changed(params) for seed in seeds]
    measured = iter(measure_all(variations, workspace, "which epsilon", progress=progress))
    rows = []
    for reading in params.calibration.readings:
        means = pd.DataFrame([next(measured) for _ in seeds]).mean()
        row: dict[str, object] = {
            "features": FEATURES[reading.norm], "ball": BALLS[reading.scope], "epsilon": reading.epsilon,
            "relative_norm": 100 * means["relative_norm"],
        }  # fmt: skip
        for metric, name in COLUMNS.items():
            clean, attacked = (100 * means[f"{split}_{name}"] for split in ("test", "adversarial"))
            lost = 100 * (1 - attacked / clean)
            row |= {f"{metric} clean": clean, f"{metric} attacked": attacked, f"{metric} lost": lost}
        rows.append(row | {"in_use": (reading.norm, reading.scope, reading.epsilon) == used})
    return pd.DataFrame(rows)


def _changed(params: Params) -> Iterator[Params]:
    """The parameters under each reading. Raw frames are long enough without the scaling of row 22."""
    for reading in params.calibration.readings:
        same = reading.norm == params.features.norm
        model = params.model if same else dataclasses.replace(params.model, scale_input=reading.norm != "none")
        attack = AttackConfig(reading.epsilon, reading.scope, params.attack.labels, params.attack.batch_size)
        features = dataclasses.replace(params.features, norm=reading.norm)
        yield dataclasses.replace(params, features=features, model=model, attack=attack)
