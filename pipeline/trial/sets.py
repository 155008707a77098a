"""The data sets of the trial: their parameters, the fifth that is put aside, and what is drawn when videos are."""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from artpaper.settings import Loss
from pipeline.base.errors import ConfigError
from pipeline.base.explain import nearest
from pipeline.base.groups import Data
from pipeline.base.parameters import Params, as_dict, build, load_params
from pipeline.predict.bootstrap import bootstrap_counts

DRAWS = 1000
VALIDATIONS = 60  # at most; every training is to end before, by early stopping
ASIDE = 0.2
KEY = b"a fifth of each test set"  # of the hash that puts videos aside, and takes those for the costly attack


@dataclasses.dataclass(frozen=True)
class TrialSet:
    """What a set has beyond its profile.

    ``attacked`` is how many test videos the costly attack is run on; ``people`` a pattern whose first group is, in a
    video's id, the person: then people are drawn and not videos; ``note`` what pages say of the set.
    """

    attacked: int
    people: str = ""
    note: str = ""
    synthetic: bool = False


SETS = {
    "utd_mhad": TrialSet(128, people=r"_s(\d+)_", note="People are drawn, not recordings."),
    "default": TrialSet(
        256,
        note="Its videos are synthetic, 8 to 16 frames each.",
        synthetic=True,
    ),
    "audioset": TrialSet(512, note="Frames are scaled to norm 1, where the stress test has them raw."),
    "long_40": TrialSet(64, note="Its videos are synthetic, 100 frames each.", synthetic=True),
    "yt8m_speech": TrialSet(128, note="Features are of words, not pictures."),
    "long_5": TrialSet(64, note="Its videos are synthetic, 100 frames each.", synthetic=True),
}
"""By the name of their profile, the cheapest evidence first."""


def set_name(name: str) -> str:
    """As pages and pictures have it: what is synthetic says so."""
    return f"{name} (synthetic)" if SETS[name].synthetic else name


def trial_params(name: str, root: Path, data: Path | None = None) -> Params:
    """The parameters of a set: its profile, under what the rules say of all sets."""
    if name not in SETS:
        raise ConfigError(f"no set {name!r} in the trial{nearest(name, list(SETS))}")
    params = load_params(root / "profiles" / f"{name}.yaml")
    return dataclasses.replace(
        params,
        data=build(Data, as_dict(params.data) | ({"path": str(data)} if data else {}), f"{name}: data"),
        features=dataclasses.replace(params.features, norm="l2_frame"),
        model=dataclasses.replace(params.model, scale_input=True),
        train=dataclasses.replace(params.train, max_steps=VALIDATIONS * params.train.validate_every),
        attack=dataclasses.replace(params.attack, scope="joint", labels="truth"),
    )


def with_loss(params: Params, name: str, loss: Loss, epsilon: float | None = None) -> Params:
    """The same parameters with one model, and with the attack at ``epsilon`` (unit of the features) if one is given."""
    attack = params.attack if epsilon is None else dataclasses.replace(params.attack, epsilon=epsilon)
    alone = dataclasses.replace(params.experiment, models=(name,))
    stress = dataclasses.replace(params.stress, models=(name,), surrogates=())
    return dataclasses.replace(params, models={name: loss}, controls={}, attack=attack, experiment=alone, stress=stress)


def in_trial(ids: Sequence[str], attacked: int | None = None) -> Integer[np.ndarray, " videos"]:
    """Positions of the test videos that are not put aside; with ``attacked`` so many of them, the first by their hash.

    Who is put aside depends on a video's own id alone.
    """
    places = np.array([_place(name) for name in ids])
    kept = np.flatnonzero(places >= ASIDE)
    return kept if attacked is None else np.sort(kept[np.argsort(places[kept], kind="stable")][:attacked])


def draw_counts(ids: Sequence[str], people: str = "") -> tuple[Integer[np.ndarray, "draws videos"], int]:
    """How often each video is in each bootstrap sample, and how many units were drawn: videos, or people.

    Equal ids give equal samples, so that differences of models are paired.
    """
    if not people:
        return bootstrap_counts(len(ids), DRAWS, 0), len(ids)
    named = [re.search(people, name) for name in ids]
    names, person = np.unique([match[1] if match else name for match, name in zip(named, ids, strict=True)],
                              return_inverse=True)  # fmt: skip
    return bootstrap_counts(len(names), DRAWS, 0)[:, person], len(names)


def _place(name: str) -> float:
    """Between 0 and 1."""
    digest = hashlib.blake2b(name.encode(), digest_size=8, key=KEY).digest()
    return int.from_bytes(digest, "big") / 2**64
