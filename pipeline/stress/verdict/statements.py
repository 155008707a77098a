"""The statements about A-ART that a stress test decides, and the page that says what it found."""

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd

from pipeline.base.groups import Rules
from pipeline.paper import paper
from pipeline.paper.evidence import NotMeasured
from pipeline.paper.style import markdown_table, save_table, save_text
from pipeline.stress.verdict.predictions import attack_name, data_note, model_name
from pipeline.stress.verdict.verdict import (
    FAILS,
    HOLDS,
    UNTOLD,
    Effect,
    Statement,
    Tables,
    Verdict,
    above,
    effect_text,
    every,
    no_worse,
    opposite,
    some,
    verdicts,
)

REFERENCE = "uniform_art"  # attention that no perturbation can move, trained with ART's term
UNIFORM = (REFERENCE, "uniform_wide")  # what a defence must beat, each of them


def more_robust(model: str, over: str, attack: str) -> Statement:
    """One model keeps more GAP than another under an attack.

    Args:
        model: expected above.
        over: expected below.
        attack: a declared comparison of the two under it must exist.
    """

    def judge(tables: Tables, rules: Rules) -> Verdict:
        effect = tables.difference(model, attack, over)
        return Verdict((effect,), above(effect, rules), effect_text(effect))

    under = {"one_step": "the paper's own one-step attack"}.get(attack, f"the {attack_name(attack)} of attacks")
    return Statement(
        f"{model_name(model)} is more robust than {model_name(over)} under {under}", "above the margin, in GAP", judge
    )


def overstates(tables: Tables, rules: Rules) -> Verdict:
    """A-ART's GAP falls from the one-step attack to the ensemble."""
    effect = tables.difference("a_art", "ensemble", "a_art", "one_step")
    return Verdict((effect,), above(opposite(effect), rules), effect_text(effect))


def masked(tables: Tables, rules: Rules) -> Verdict:
    """An attack without A-ART's gradients raises its loss more than one with them."""
    effects, missing = [], []
    for attack in ("square", "transfer"):
        try:
            effects.append(tables.difference("a_art", attack, "a_art", "pgd", "loss"))
        except NotMeasured as error:
            missing.append(f"not measured: {error}")
    parts = [above(effect, rules, margin=0.0) for effect in effects] + [UNTOLD] * len(missing)
    return Verdict(tuple(effects), some(parts), "; ".join([*map(effect_text, effects), *missing]))


def uniform_is_enough(tables: Tables, rules: Rules) -> Verdict:
    """Uniform attention with ART's term keeps as much as A-ART under the ensemble."""
    effect = tables.difference("a_art", "ensemble", REFERENCE)
    return Verdict((effect,), no_worse(opposite(effect), rules), effect_text(effect))


def adversarial_term(tables: Tables, rules: Rules) -> Verdict:
    """ART's term makes models robust with and without attention, and A-ART's attention adds nothing to it."""
    with_attention = tables.difference("art", "ensemble", "non_art")
    without = tables.difference(REFERENCE, "ensemble", "uniform")
    attention = tables.difference("a_art", "ensemble", REFERENCE)
    parts = [above(with_attention, rules), above(without, rules), no_worse(opposite(attention), rules)]
    effects = (with_attention, without, attention)
    return Verdict(effects, every(parts), "; ".join(map(effect_text, effects)))


def approaches_uniform(tables: Tables, rules: Rules) -> Verdict:
    """With a large beta clean attention is close to uniform, for every seed."""
    (strong, each), (art, reference) = tables.flatness("a_art_strong"), tables.flatness("art")
    shares = each / reference.mean()
    reason = f"its distance to uniform is {shares.min():.3f} to {shares.max():.3f} of ART's over {len(shares)} seeds"
    flat = shares <= rules.flat
    decided = HOLDS if flat.all() else FAILS if not flat.any() else UNTOLD
    return Verdict((strong, art), decided if len(shares) > 1 else UNTOLD, reason)


def beats_uniform(tables: Tables, rules: Rules) -> Verdict:
    """Some model that keeps its attention beats every uniform control under the ensemble at no lower clean GAP.

    Raises:
        NotMeasured: no such model was compared with the controls.
    """
    _, reference = tables.flatness("art")
    far = tables.training.groupby("model")["attention_uniform_rms"].mean() >= rules.kept * reference.mean()
    found = []
    absent: set[str] = set()
    for model in far[far].index:
        pairs, gone = [], set()
        for control in UNIFORM:
            try:
                clean, attacked = (
                    tables.difference(model, attack, control, family="defences") for attack in ("clean", "ensemble")
                )
            except NotMeasured:
                gone.add(control)
                continue
            pairs.append((every([above(attacked, rules), no_worse(clean, rules)]), attacked, clean))
        if pairs:
            absent |= gone
            found.append((every([*(decided for decided, *_ in pairs), *[UNTOLD] * len(gone)]), pairs))
    if not found:
        raise NotMeasured(f"no model that keeps its attention beside {' or '.join(UNIFORM)}")
    told = [
        "; ".join(f"{effect_text(attacked)}, {effect_text(clean)}" for _, attacked, clean in pairs)
        for decided, pairs in found
        if decided == HOLDS
    ]
    if not told:
        # of each model the control that it does worst against, and of these the best
        best = max((min((one[1] for one in pairs), key=_value) for _, pairs in found), key=_value)
        told = [f"of {len(found)} models that keep their attention none surely does; the nearest: {effect_text(best)}"]
    told += [f"not measured: {control}" for control in sorted(absent)]
    effects = tuple(effect for _, pairs in found for _, *both in pairs for effect in both)
    return Verdict(effects, some([decided for decided, _ in found]), "; ".join(told))


def _value(effect: Effect) -> float:
    return effect.value


def keeps_its_score(tables: Tables, rules: Rules) -> Verdict:
    """The share of its clean GAP that A-ART loses under the ensemble is about what it loses in the paper."""
    clean = tables.gap("a_art", "clean")
    fall = opposite(tables.difference("a_art", "ensemble", "a_art", "clean"))
    printed = [paper.row(1, "GAP", split).a_art for split in paper.SPLITS]
    theirs = 1 - printed[1] / printed[0]
    lost = fall.value / clean.value
    least, most = fall.low / clean.high, fall.high / clean.low  # the clean score is not exact either
    allowed = rules.lost * theirs
    decided = HOLDS if most <= allowed else FAILS if least > allowed else UNTOLD
    reason = (
        f"it loses {100 * lost:.1f} % [{100 * least:.1f}, {100 * most:.1f}] of its clean GAP, {100 * theirs:.1f} % "
    )
    reason += f"in the paper; the same share of the paper's clean {printed[0]:.2f} would leave "
    reason += (
        f"{printed[0] * (1 - lost):.1f}, not {printed[1]:.2f}" if decided == FAILS else f"{printed[0] * (1 - lost):.1f}"
    )
    return Verdict((clean, opposite(fall)), UNTOLD if fall.seeds == 1 else decided, reason)


STATEMENTS = (
    more_robust("a_art", "art", "one_step"),
    more_robust("a_art", "art", "ensemble"),
    Statement(
        "The one-step attack overstates A-ART's robustness", "GAP falls by more than the margin to the ensemble",
        overstates,
    ),
    Statement(
        "A-ART's gradients are masked: Square or transfer harms it more than PGD does", "the mean loss is higher",
        masked,
    ),
    Statement(
        "Uniform attention with ART's term is at least as robust as A-ART", "no lower by the margin under the ensemble",
        uniform_is_enough,
    ),
    Statement(
        "What robustness there is comes from the adversarial term, not from attention",
        "under the ensemble ART's term adds more than the margin with softmax and with uniform attention, and uniform "
        "attention with it is no lower than A-ART by the margin", adversarial_term,
    ),
    more_robust("a_art_strong", "random_att", "ensemble"),
    Statement(
        "A large beta approaches uniform attention", "distance to uniform at most `flat` of ART's for every seed",
        approaches_uniform,
    ),
    Statement(
        "A defence that keeps its attention beats uniform attention with ART's term, at no lower clean GAP",
        "distance to uniform at least `kept` of ART's; against each uniform control, at ART's radius and at four times "
        "it, under the ensemble above the margin, and clean no lower "
        "by the margin", beats_uniform,
    ),
    Statement(
        "A-ART keeps its clean score under the ensemble as the paper's does under one step (91.04 of 92.00)",
        "it loses at most `lost` times the share that it loses in the paper", keeps_its_score,
    ),
)  # fmt: skip


def verdict_table(found: Sequence[Verdict]) -> pd.DataFrame:
    """Every number of the page: a row per statement and number.

    Args:
        found: what was found about each of :data:`STATEMENTS`, in order.
    Returns:
        Columns statement (its number), text, verdict, name, value, low, high, p, seeds, videos, file, where (JSON:
        columns and their values) and column: the value is the mean of that column over those rows. A statement without
        numbers has one row with empty cells.
    """
    columns = ["name", "value", "low", "high", "p", "seeds", "videos", "file", "where", "column"]
    rows = []
    for place, (statement, one) in enumerate(zip(STATEMENTS, found, strict=True), start=1):
        told = (place, statement.text, one.verdict)
        for effect in one.evidence:
            cells = [getattr(effect, name) for name in columns]
            cells[columns.index("where")] = json.dumps(dict(effect.where), sort_keys=True)
            rows.append((*told, *cells))
        if not one.evidence:
            rows.append((*told, *[None] * len(columns)))
    return pd.DataFrame(rows, columns=["statement", "text", "verdict", *columns])


def verdict_markdown(tables: Tables, rules: Rules) -> str:
    """The page: the verdicts to read first, then the evidence of each, the rules, and what another margin changes.

    Args:
        tables: of one stress test.
        rules: when a statement counts as decided.
    """
    found = verdicts(tables, STATEMENTS, rules)
    lines = [
        [str(place), statement.text, one.verdict]
        for place, (statement, one) in enumerate(zip(STATEMENTS, found, strict=True), start=1)
    ]
    values = ", ".join(
        f"`{field.name}` {getattr(rules, field.name):g}" for field in fields(rules) if field.name != "draws"
    )
    text = [
        "# Is A-ART robust?",
        "",
        f"{data_note(tables.board)} Verdicts are computed by rule from the stress test's tables; differences of GAP "
        "are in points of percent, brackets are 95 % intervals over training seeds and videos, p is Holm's over the "
        "family of comparisons. With one training seed nothing is told of training, so nothing that needs it is "
        "decided.",
        "",
        markdown_table(["#", "statement", "verdict"], lines, 3),
        "## The evidence",
        "",
    ]
    for place, (statement, one) in enumerate(zip(STATEMENTS, found, strict=True), start=1):
        text += [f"**{place}. {statement.text}**: *{one.verdict}*. {one.reason}. Rule: {statement.rule}.", ""]
    text += [
        "## The rules",
        "",
        f"Parameters: {values}. A difference is **above** the margin ({rules.margin:g} points; 0 for the loss) if it "
        f"is positive with p at most {rules.alpha:g}; it is not if its whole interval lies below the margin. One is "
        f"**no lower** if its whole interval lies above minus the margin; it is lower if p is at most {rules.alpha:g} "
        "otherwise. All else cannot be told.",
        "",
        *(_with_margin(tables, rules, found, factor * rules.margin) for factor in (0.5, 2)),
    ]
    return "\n".join(text) + "\n"


def write_verdict(tables: Tables, rules: Rules, folder: str | Path) -> list[Verdict]:
    """Judge every statement and write ``verdict.csv`` and ``verdict.md``.

    Args:
        tables: of one stress test.
        rules: when a statement counts as decided.
        folder: where the files go.
    Returns:
        What was found about each of :data:`STATEMENTS`.
    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    found = verdicts(tables, STATEMENTS, rules)
    save_table(verdict_table(found), Path(folder) / "verdict.csv")
    save_text(verdict_markdown(tables, rules), Path(folder) / "verdict.md")
    return found


def _with_margin(tables: Tables, rules: Rules, found: Sequence[Verdict], margin: float) -> str:
    others = verdicts(tables, STATEMENTS, replace(rules, margin=min(margin, 100.0)))
    changed = [
        f"statement {place} {other.verdict}"
        for place, (one, other) in enumerate(zip(found, others, strict=True), start=1)
        if one.verdict != other.verdict
    ]
    return f"- With a margin of {margin:g}: {', '.join(changed) or 'the same verdicts'}."
