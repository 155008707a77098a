"""What was not planned: the other models beside ART and A-ART, and the controls, attention by loss."""

from pipeline.paper.style import markdown_table
from pipeline.trial.statistics import Results
from pipeline.trial.variants import ATTENTIONS, PLANNED, TABLE_LOSSES, cell_name, undefended, variant_name

CONDITIONS = ("clean_part", "apgd")
WORDS = {"softmax": "learnt", "uniform": "uniform", "position": "by position alone", "random": "frozen random"}


def beside_lines(results: Results) -> list[str]:
    """The difference of each, attacked at epsilon, from ART and from A-ART, clean and attacked, with intervals."""
    cells = []
    for variant in results.variants:
        seeds = results.seeds(variant, "art", "a_art")
        if variant in PLANNED or undefended(variant) != "non_art" or len(seeds) < 2:
            continue
        found = [
            results.compare((1, variant, name), (-1, over, name), (0, other, name))  # of the same seeds, all four
            for over, other in (("art", "a_art"), ("a_art", "art"))
            for name in CONDITIONS
        ]
        cells.append([variant_name(variant), *(one.words for one in found), str(len(seeds))])
    if not cells:
        return []
    return [
        "## Other models beside ART and A-ART",
        "",
        "Differences in points of GAP on the videos of the costly attack, seeds paired, with 95 % intervals. "
        "Exploratory: no correction for their number.",
        "",
        markdown_table(["model", "- ART, clean", "Auto-PGD", "- A-ART, clean", "Auto-PGD", "seeds"], cells),
    ]


def attention_by_loss(results: Results) -> list[str]:
    """GAP of the controls, a row an attention and a column a loss; nothing where the planned models are all."""
    made = set(results.variants)
    losses = [loss for loss in TABLE_LOSSES if made & {cell_name(attention, loss) for attention in ATTENTIONS}]
    if not made & {cell_name(attention, loss) for attention in ATTENTIONS for loss in losses} - set(PLANNED):
        return []
    rows = []
    for attention in ATTENTIONS:
        cells = [_cell(results, cell_name(attention, loss)) for loss in losses]
        if any(cells):
            rows.append([WORDS[attention], *(cell or "–" for cell in cells)])
    return [
        "## Attention by loss",
        "",
        "GAP in percent, clean / under Auto-PGD, on the same videos; means over the seeds in brackets. Exploratory.",
        "",
        markdown_table(["attention", *(_column(loss) for loss in losses)], rows),
    ]


def _column(loss: str) -> str:
    return "no defence" if loss == "none" else variant_name(loss)


def _cell(results: Results, variant: str) -> str:
    seeds = results.seeds(variant)
    clean, attacked = (results.points(variant, name, seeds) for name in CONDITIONS)
    return f"{clean.mean():.1f} / {attacked.mean():.1f} ({len(seeds)})" if seeds else ""
