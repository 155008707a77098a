"""What the finished units of a set say: tables, and the page that holds them and the fronts."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.base.errors import DataError
from pipeline.paper.attention_rules import ALIVE_SHARE
from pipeline.paper.style import markdown_table, number_or_dash, save_figure, save_table, save_text
from pipeline.trial.audit import QUERIES, SURROGATE_SEED
from pipeline.trial.exploratory import attention_by_loss, beside_lines
from pipeline.trial.fronts import front_lines, fronts_figure
from pipeline.trial.measure import STEPS
from pipeline.trial.rules import CALIBRATED, LOST, PAPER, base_radius, lost_share, read_rules
from pipeline.trial.sets import SETS, set_name
from pipeline.trial.statistics import ALIVE_COST, LEVEL, Results, planned, read_results, with_interval, won_back
from pipeline.trial.variants import PLANNED_SEEDS, undefended, variant_name

WORDS = {"one_step": "one step", "apgd": "Auto-PGD", "clean": "clean"}
ATTACKS = {
    "clean_part": "clean", "apgd": "loss, 5 restarts", "apgd_margin": "margin", "apgd_dlr": "DLR",
    "apgd_top_k_ap": "top-k AP", "attention_maps": "loss and maps", "attention_scores": "loss and scores",
    "square": "Square", "transfer_art": "from ART", "transfer_a_art": "from A-ART", "worst": "worst of all",
}  # fmt: skip


def write_page(folder: Path) -> Path:
    """Make ``units.csv``, ``models.csv``, ``planned.csv``, ``fronts.*`` and the page itself from a set's units."""
    results = read_results(folder)
    if not results.about:
        raise DataError(f"{folder / 'units'}: no unit is finished; `artpaper trial {folder.parent.name}` makes them")
    models, compared = model_table(results), planned(results)
    audited = read_results(folder, "audit")
    save_table(unit_table(results), folder / "units.csv")
    save_table(models, folder / "models.csv")
    save_table(compared, folder / "planned.csv")
    if audited.about:
        save_table(audit_table(audited), folder / "audit.csv")
    save_figure(fronts_figure(results, set_name(folder.parent.name)), folder / "fronts")
    return save_text(page(folder, results, models, compared, audited), folder / "README.md")


def unit_table(results: Results) -> pd.DataFrame:
    """A row a unit: GAP by condition (percent), numbers of the maps, training, seconds, commit and code."""
    rows = []
    for (variant, seed), about in results.about.items():
        row = {"variant": variant, "seed": seed} | about["gap"] | about["maps"]
        row |= {key: about["training"][key] for key in ("steps", "stopped")} | {"share": about["attention_share"]}
        row |= {f"seconds_{key}": value for key, value in about["seconds"].items()}
        rows.append(row | {key: about["provenance"][key] for key in ("commit", "code")})
    return pd.DataFrame(rows)


def model_table(results: Results) -> pd.DataFrame:
    """A row a variant: means over seeds of GAP, the share won back, what swaps cost; whether attention is alive."""
    rows = []
    for variant in results.variants:
        seeds = results.seeds(variant)
        row: dict[str, object] = {"variant": variant, "seeds": len(seeds)}
        row |= {
            name: results.points(variant, name, seeds).mean() for name in ("clean", "one_step", "clean_part", "apgd")
        }
        paired = len(results.seeds(variant, undefended(variant))) > 1 and variant != undefended(variant)
        for name in ("one_step", "apgd"):
            row[f"won_back_{name}"] = won_back(results, variant, name).value if paired else np.nan
        for swap in ("uniform", "other", "position"):
            clean, changed = (results.points(variant, name, seeds) for name in ("clean", f"swap_{swap}"))
            row[f"cost_{swap}"] = (clean - changed).mean()
        row |= {
            name: results.maps(variant, name) for name in ("change_one_step", "change_apgd", "unrelated", "uniform")
        }
        has_art = bool(results.seeds("art"))
        for name, number in (("change_share", "change_one_step"), ("unrelated_share", "unrelated")):
            row[name] = results.maps(variant, number) / results.maps("art", number) if has_art else np.nan
        row["alive"] = row["unrelated_share"] >= ALIVE_SHARE and row["cost_other"] >= ALIVE_COST  # type: ignore[operator]
        of_seeds = [results.about[variant, seed] for seed in seeds]
        row["share"] = np.mean([about["attention_share"] for about in of_seeds])
        row["steps"] = np.mean([about["training"]["steps"] for about in of_seeds])
        row["early"] = all(about["training"]["stopped"] == "early" for about in of_seeds)
        rows.append(row)
    return pd.DataFrame(rows)


def audit_table(results: Results) -> pd.DataFrame:
    """A row a variant: GAP (percent) under each attack, and the share of videos (0 to 1) on which each is the worst."""
    rows = []
    for variant in results.variants:
        seeds = results.seeds(variant)
        row: dict[str, object] = {"variant": variant, "seeds": len(seeds)}
        row |= {name: results.points(variant, name, seeds).mean() for name in ATTACKS}
        row |= {name: results.maps(variant, name) for name in results.about[variant, seeds[0]]["maps"]}
        rows.append(row)
    return pd.DataFrame(rows)


def page(folder: Path, results: Results, models: pd.DataFrame, compared: pd.DataFrame, audited: Results) -> str:
    """The page for people."""
    name, rules = folder.parent.name, read_rules(folder / "rules.json")
    any_unit = next(iter(results.about.values()))
    text = [
        f"# The trial on {set_name(name)}",
        "",
        f"By the rules of [docs/trial.md](../../../docs/trial.md). {SETS[name].note} All of it is made "
        f"from `rules.json` and `units/` by `artpaper trial {name} --report`. {len(results.about)} units; clean and "
        f"one step on {any_unit['videos']['all']:,} test videos, Auto-PGD on {any_unit['videos']['part']:,} of them; a "
        "fifth of the test set is put aside. Trained and attacked at commit "
        + ", ".join(sorted({about["provenance"]["commit"][:12] for about in results.about.values()}))
        + ".",
        "",
        "## Epsilon and beta",
        "",
        f"The median video has {rules.frames:g} frames, and {100 * PAPER:g} % of its norm is "
        f"{base_radius(rules.frames):.3g}. Nearest to the paper's {LOST:.1%} of lost GAP is epsilon {rules.epsilon:g}. "
        f"ART's loss there is {rules.loss:.4g}, the change of its maps {rules.change:.4g}: beta "
        f"{rules.beta(CALIBRATED):.4g} has a share of {CALIBRATED:g}.",
        "",
        markdown_table(
            ["radius", "Non-ART, clean", "one step", "lost (%)"],
            [[f"{radius:g}", *(f"{100 * gap:.2f}" for gap in np.mean(rows, axis=0)), f"{100 * lost_share(rows):.1f}"]
             for radius, rows in rules.curve.items()],
        ),
        "## Planned comparisons",
        "",
        *_planned_lines(compared, "people" if SETS[name].people else "videos"),
        "## Models",
        "",
        f"GAP in percent, means over seeds. *Won back* is the share of the GAP that Non-ART loses. *Swaps* cost so "
        "many points of clean GAP. *Changed* is what the one step changes a video's maps by, and *unrelated* what two "
        "videos' maps differ by, both over ART's, as norms. Attention is alive where the latter is at least "
        f"{ALIVE_SHARE:g} and another video's map costs {ALIVE_COST:g} points or more; "
        "*share* is beta's term over the rest of the loss at the end of the training. All but the planned models are "
        "exploratory.",
        "",
        markdown_table(
            ["model", "seeds", "clean", "one step", "Auto-PGD", "won back, one step", "Auto-PGD", "swap: uniform",
             "other", "position", "changed", "unrelated", "alive", "share", "steps"],
            [_model_line(row) for row in models.to_dict("records")],
        ),
        "![fronts](fronts.png)",
        "",
    ]  # fmt: skip
    if not models["early"].all():
        late = "; ".join(map(variant_name, models.loc[~models["early"], "variant"]))
        text += [f"Not all trainings ended early: {late}.", ""]
    text += front_lines(results) + beside_lines(results) + attention_by_loss(results)
    if audited.about:
        text += _audit_lines(audited, audit_table(audited))
    return "\n".join(text)


def _planned_lines(compared: pd.DataFrame, drawn: str) -> list[str]:
    if compared.empty:
        return ["Not two seeds of any are finished.", ""]
    lines = []
    for row in compared.to_dict("records"):
        what = f"{variant_name(row['model'])} - {variant_name(row['over'])}, {WORDS[row['condition']]}"
        lines.append([str(row["number"]), what, found(row), f"{row['told']:.2f}", verdict(row), str(row["seeds"])])
    fewest = int(compared["seeds"].min())
    early = f"**An early look: {fewest} of {PLANNED_SEEDS} planned seeds.** " * (fewest < PLANNED_SEEDS)
    # all of the degrees of freedom are then the seeds'
    alone = compared.loc[np.isclose(compared["freedom"], compared["seeds"] - 1), "number"].astype(str)
    return [
        f"{early}Points of GAP with 95 % intervals over seeds and {drawn}; *told* is the smallest difference that "
        "would have been told with a power of 80 %."
        + f" What {drawn} add to the spread is estimated as 0 in {', '.join(alone)}: there the interval is over seeds "
        "alone." * bool(len(alone)),
        "",
        markdown_table(["", "difference", "found", "told", "says", "seeds"], lines, 2),
    ]


def found(row: dict) -> str:
    """A planned comparison's difference with its interval."""
    return with_interval(row["difference"], row["low"], row["high"])


def verdict(row: dict) -> str:
    """What a planned comparison says, in words, with its p value."""
    if row["number"] == 4:
        p = row.get("equivalence_p", np.nan)
        if np.isnan(p):
            return "cannot be told"
        words = "equivalent" if p <= LEVEL else "worse" if row["high"] < 0 else "better" if row["low"] > 0 else ""
        return f"{words or 'cannot be told'} (margin {row['margin']:.2f}, p {p:.2g})"
    words = ("more" if row["difference"] > 0 else "less") if row["holm_p"] <= LEVEL else "cannot be told"
    return f"{words} (Holm p {row['holm_p']:.2g})"


def _model_line(row: dict) -> list[str]:
    cells = [variant_name(row["variant"]), str(row["seeds"])]
    cells += [f"{row[name]:.2f}" for name in ("clean", "one_step", "apgd")]
    cells += [number_or_dash(row[f"won_back_{name}"], ".0f") for name in ("one_step", "apgd")]
    cells += [f"{row[f'cost_{swap}']:.2f}" for swap in ("uniform", "other", "position")]
    cells += [number_or_dash(row[name], ".2f") for name in ("change_share", "unrelated_share")]
    cells.append("yes" if row["alive"] else "no")
    return [*cells, f"{row['share']:.3f}", f"{row['steps']:,.0f}"]


def _audit_lines(results: Results, table: pd.DataFrame) -> list[str]:
    """The page's section."""
    cells = [[variant_name(row["variant"]), str(row["seeds"]), *(f"{row[name]:.2f}" for name in ATTACKS)]
             for row in table.to_dict("records")]  # fmt: skip
    lines = [
        "## The attack audit",
        "",
        "GAP in percent under attacks in the same ball, on the videos of the costly attack; exploratory. Auto-PGD of "
        f"{STEPS} steps on the loss, with restarts, and on other objectives; Auto-PGD on the loss and on the change of "
        f"the attention's maps or scores together, then on the loss from there; Square Attack, {QUERIES:,} "
        f"queries; what Auto-PGD finds for ART and A-ART of seed {SURROGATE_SEED}. *Worst*: of each video the attack "
        "that raises its loss most.",
        "",
        markdown_table(["model", "seeds", *ATTACKS.values()], cells),
    ]
    for over in ("art", "uniform_art"):
        if len(results.seeds("a_art", over)) > 1:
            worst = results.compare((1, "a_art", "worst"), (-1, over, "worst"))
            lines += [f"Under the worst of all, {variant_name('a_art')} - {variant_name(over)} is {worst.words}, "
                      f"{worst.seeds} seeds.", ""]  # fmt: skip
    return lines
