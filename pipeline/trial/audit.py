"""Is what a model holds under Auto-PGD held under attacks on other objectives, on its attention, and blind ones too?"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import partial

from artpaper.attacks import ATTACKS, Attack, apgd, ensemble, transfer
from artpaper.models import FrameTransformer
from pipeline.base.parameters import Params
from pipeline.data.store import FrameStore
from pipeline.trial.measure import RESTARTS, SMALL, STEPS, Measured, by_length, gap_and_draws
from pipeline.trial.rules import Answers, inputs

SURROGATES = ("art", "a_art")
SURROGATE_SEED = 7  # no audited model is its own surrogate
NAMES = ("apgd_margin", "apgd_dlr", "apgd_top_k_ap", "attention_maps", "attention_scores", "square")
QUERIES = 1000  # of Square Attack


def audit(
    model: FrameTransformer, params: Params, part: FrameStore, people: str, surrogates: Mapping[str, FrameTransformer]
) -> Measured:
    """GAP under each attack, and under the one that raises a video's loss most; all models in eval mode.

    Returns:
        Measured: ``apgd`` is the trial's costly attack; ``maps`` holds the share of the videos on which each attack, as
        ``won_<name>``, is the worst.
    """
    part = by_length(part, params)
    answers: dict[str, Answers] = defaultdict(Answers)
    won: Counter[str] = Counter()
    for batch in part.batches(SMALL, max_frames=params.features.max_frames):
        given = inputs(model, batch, params)
        found = _attacks(model, given, params.attack.epsilon, surrogates)
        worst, winners = ensemble(found, given[1])
        won.update(winners)
        answers["clean_part"].add(worst.clean_logits, batch.labels)
        for name, attack in (found | {"worst": worst}).items():
            answers[name].add(attack.adversarial_logits, batch.labels)
    points, draws, drawn = gap_and_draws(answers, part.ids, people)
    shares = {f"won_{name}": won[name] / len(part) for name in found}
    return Measured(points, draws, shares, {"all": drawn, "part": drawn})


def _attacks(
    model: FrameTransformer, given: tuple, epsilon: float, surrogates: Mapping[str, FrameTransformer]
) -> dict[str, Attack]:
    """Each attack on one batch: ``given`` is frames, label sets, mask."""
    settings = {"steps": STEPS, "restarts": 1, "queries": QUERIES}
    listed = {each.name: each for each in ATTACKS}
    found = {"apgd": apgd(model, *given, epsilon=epsilon, steps=STEPS, restarts=RESTARTS)}
    for name in NAMES:
        inner = {"attack": apgd} if name.startswith("attention") else {}  # stronger than the list's PGD
        found[name] = listed[name].attack(model, *given, epsilon=epsilon, **listed[name].bound(settings), **inner)
    search = partial(apgd, epsilon=epsilon, steps=STEPS)
    for name, surrogate in surrogates.items():
        found[f"transfer_{name}"] = transfer(model, *given, surrogate=surrogate, attack=search)
    return found
