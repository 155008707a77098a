"""The report notebook as one HTML file: rendered by nbconvert, then made to be read by everybody, alone, and on paper.

What nbconvert leaves to do: tables without captions and scopes, pictures without words, the page around the cells, and
whatever in an output would load from elsewhere or run.
"""

import html
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
from bs4 import BeautifulSoup
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from nbconvert import HTMLExporter

from pipeline.base.atomic import save_text
from pipeline.base.errors import ConfigError
from pipeline.base.parameters import Params, load_params
from pipeline.run.notebooks import run

NOTEBOOK = Path("notebooks", "report.ipynb")
TITLE = "Can't Fool Me, reproduced"
ALLOWED = re.compile(
    "a|b|blockquote|br|caption|code|dd|details|div|dl|dt|em|figcaption|figure|h[1-6]|hr|i|img|li|ol|p|pre|small|span|"
    "strong|sub|summary|sup|table|tbody|td|tfoot|th|thead|tr|ul|"
    "math|m(frac|i|n|o|over|padded|row|space|sqrt|style|sub|subsup|sup|table|td|text|tr|under|underover)"
)
FORMULA = re.compile(r"(`[^`]*`)|\$\$(?P<block>[^$]+)\$\$|\$(?P<inline>[^$\s](?:[^$]*[^$\s])?)\$(?!\d)")  # `$` is none
SILENT = ("script", "style", "iframe", "object", "title")  # dropped with what is in them
ATTRIBUTES = {"alt", "class", "colspan", "href", "id", "rowspan", "scope", "src", "start"}
OF_FORMULAS = {"accent", "display", "displaystyle", "mathvariant", "movablelimits", "scriptlevel", "stretchy", "width"}
BELOW = 2  # the headings of an executed notebook stand below that of their section


def write_report(folder: Path, target: Path, project: Path) -> Path:
    """Write the report of a run: the project's folder after ``dvc repro``, or one below ``results/``."""
    params = folder / "params.yaml"
    needed = ["params.yaml"] + ["provenance.json"] * (folder.resolve() != project.resolve())  # else it would be trained
    if missing := [name for name in needed if not (folder / name).is_file()]:
        raise ConfigError(f"{folder}: no run here (no {missing[0]}); give the project's folder or one below results/")
    executed = project / ".resume" / f"report-{folder.resolve().name}.ipynb"  # each run its own, as two may be at work
    run(project / NOTEBOOK, executed, {"params": str(params.resolve()), "workspace": str(folder.resolve())})
    beside = Path(os.path.relpath(folder, target.parent)).as_posix()
    text = page(nbformat.read(executed, as_version=4), load_params(params), beside)
    return save_text(text, target)


def page(notebook: Any, params: Params, files: str = ".") -> str:
    """The executed report as HTML that needs nothing beside it; of the paths of the data only the last part is told.

    ``files`` is the way from the page to the folder of its run, for links to the notebooks that are kept there.
    """
    soup = BeautifulSoup(_rendered(notebook, exclude_input=True), "html.parser")
    _clean(soup, files)
    _describe_tables(soup)
    _enlarge_pictures(soup)
    contents, section = "", None
    for cell in soup.find_all(class_="cell", recursive=False):
        if cell.h2:
            section = cell.wrap(soup.new_tag("section", attrs={"id": re.sub(r"\W+", "-", cell.h2.text.lower())}))
            contents += f"<li><a href='#{section['id']}'>{html.escape(cell.h2.text)}</a></li>"
        elif section:
            section.append(cell.extract())
    style, dark = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "dark.svg"))
    text = (
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n<meta name='viewport' "
        "content='width=device-width, initial-scale=1'>\n<meta name='color-scheme' content='light dark'>\n"
        f"<link rel='icon' href='data:,'>\n<title>{TITLE}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<a class='skip' href='#main'>Skip to the report</a>\n<nav aria-label='Contents'><ol>{contents}</ol></nav>\n"
        f"<main id='main' tabindex='-1'>\n{soup}\n</main>\n{dark}</body>\n</html>\n"
    )
    # who gets the page need not know this machine's folders; the longest first, for one may lie in the other
    for place in sorted(filter(None, (params.data.path, params.data.vocabulary)), key=len, reverse=True):
        name = Path(place).name or place  # a folder such as . has none
        text = text.replace(html.escape(place, quote=False), html.escape(name, quote=False))
    return text


def fragment(notebook: Any, stage: str) -> str:
    """An executed notebook, code and outputs, as HTML to stand inside the report."""
    heading = stage
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = next((line.strip("# ") for line in cell.source.splitlines() if line.startswith("#")), heading)
            cell.source = FORMULA.sub(_formula, cell.source)
        cell.metadata["alt"] = f"Picture of notebook {stage}: {heading}"
    soup = BeautifulSoup(_rendered(notebook), "html.parser")
    for tag in soup.find_all(True):
        tag.attrs.pop("id", None)
        if re.fullmatch("h[1-6]", tag.name):
            tag.name = f"h{min(6, int(tag.name[1]) + BELOW)}"
    return str(soup)


def _formula(found: re.Match[str]) -> str:
    """A formula as MathML, which browsers draw by themselves; what is none, as it is."""
    formula = found["block"] or found["inline"]
    try:
        return re.sub(r"\n\s*", "", tex2mathml(formula, as_block=bool(found["block"]))) if formula else found[0]
    except MathError:
        return found[0]


def _rendered(notebook: Any, **options: bool) -> str:
    """Its cells as HTML, pictures inside, of a progress bar the last state alone."""
    return _exporter(**options).from_notebook_node(notebook)[0]


@cache  # with the templates that it compiles
def _exporter(**options: bool) -> HTMLExporter:
    options |= {"exclude_anchor_links": True, "exclude_input_prompt": True, "exclude_output_prompt": True}
    exporter = HTMLExporter(template_name="basic", **options)
    exporter.register_preprocessor("nbconvert.preprocessors.CoalesceStreamsPreprocessor", enabled=True)
    return exporter


def _clean(soup: BeautifulSoup, files: str) -> None:
    """Nothing is left that runs, loads, or leads to a file, but for the notebooks of a published run."""
    for tag in soup.find_all(SILENT):
        tag.decompose()
    for tag in soup.find_all(True):
        old = {name: str(value) for name, value in tag.attrs.items()}
        kept = ATTRIBUTES | OF_FORMULAS if tag.find_parent("math") or tag.name == "math" else ATTRIBUTES
        tag.attrs = {name: value for name, value in tag.attrs.items() if name in kept}
        if "right" in old.get("style", ""):  # as a table in Markdown has it
            tag["class"] = "right"
        if tag.get("display") == "block":  # a formula, which scrolls where it is wider than the screen
            tag["tabindex"] = "0"
        if tag.name == "a" and "file" in tag.get_attribute_list("class"):
            tag["href"] = f"{files}/{old['href']}"
            continue
        outside = tag.name == "a" and not re.match("https?://|#", old.get("href", "#"))
        if tag.name == "img" and not old.get("src", "").startswith("data:"):
            tag.replace_with(old.get("alt", ""))
        elif outside or not ALLOWED.fullmatch(tag.name) or (tag.name == "span" and tag.find_parent("pre")):
            tag.unwrap()


def _describe_tables(soup: BeautifulSoup) -> None:
    """Captions and scopes for who cannot see a table, and a frame that scrolls where it is wider than the screen."""
    for table in soup.find_all("table"):
        caption = table.find("caption")
        if caption is None:
            caption = soup.new_tag("caption", attrs={"class": "unseen"})
            above = table.find_previous(re.compile("^(h[1-6]|summary)$"))
            caption.string = above.text.strip() if above else "Table"
            table.insert(0, caption)
        for cell in table.find_all("th"):
            if not cell.text.strip():  # an empty header names nothing
                cell.name = "td"
            else:
                columns = "colgroup" if cell.get("colspan") else "col"
                cell["scope"] = columns if cell.find_parent("thead") else "row"
        label = {"class": "scroll", "role": "group", "tabindex": "0", "aria-label": caption.text}
        table.wrap(soup.new_tag("div", attrs=label))


def _enlarge_pictures(soup: BeautifulSoup) -> None:
    """A picture is a link that opens it whole, at its own size, over the page; *Close*, and the way back, end that."""
    for number, image in enumerate(soup.find_all("img"), start=1):
        place = f"picture-{number}"
        link = image.wrap(soup.new_tag("a", attrs={"href": f"#{place}-whole"}))
        link.append(soup.new_tag("small", string="Open the picture whole"))
        whole = link.wrap(soup.new_tag("span", attrs={"id": f"{place}-whole"}))
        whole.insert(0, soup.new_tag("a", attrs={"href": f"#{place}", "class": "close"}, string="Close"))
        whole.wrap(soup.new_tag("span", attrs={"id": place, "class": "picture"}))
