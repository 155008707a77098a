"""The documentation site: `make docs`. Nothing is executed and nothing is fetched, neither now nor by the reader."""

import ast
import dataclasses
import inspect
import os
import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

from artpaper import __version__

HERE = Path(__file__).parent
REPOSITORY = HERE.parent

project, author, release = "artpaper", "The artpaper authors", __version__
copyright = "The artpaper authors, Apache-2.0"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "conf.py", "results/*/notebooks"]  # the last are shown by the run's report

# What else is shown lies beside docs/, and Sphinx reads below it only: so, copies, in the same places.
SHOWN = ("notebooks", "results", "CLAIMS.md", "CHANGELOG.md")
for item in SHOWN:
    shutil.rmtree(HERE / item, ignore_errors=True)
    if (REPOSITORY / item).is_dir():
        shutil.copytree(REPOSITORY / item, HERE / item, ignore=shutil.ignore_patterns(".*", "*.pdf"))
    else:
        shutil.copy(REPOSITORY / item, HERE / item)
nb_execution_mode = "off"  # notebooks are shown with the outputs they are committed with
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # the default would fetch the widgets' scripts from the network

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_math_renderer = "mathml"  # which browsers draw by themselves; MathJax would be fetched
html_title = f"artpaper {__version__}"
html_theme_options = {"navigation_with_keys": True}
html_static_path, html_css_files = ["_static"], ["site.css"]
html_copy_source = False
html_show_search_summary = False  # it would fetch pages, which a browser refuses to a site on disk

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
toc_object_entries_show_parents = "hide"


def as_in_the_repository(app: Sphinx, name: str, source: list[str]) -> None:
    """Links that are right in the repository become right on the site; a page without a title gets its file's name."""
    if name.startswith("notebooks/"):
        return
    shown = name.startswith("results/") or f"{name}.md" in SHOWN
    place = (REPOSITORY if shown else HERE) / name

    def link(found: re.Match[str]) -> str:
        path, hash_, anchor = found[2].partition("#")
        target = os.path.relpath(place.parent / path, REPOSITORY)
        if (REPOSITORY / target).is_dir() and path:
            return found[1]  # nothing to open on a site
        if target.startswith("docs/"):
            site = HERE / target.removeprefix("docs/")
        else:
            site = (HERE if target.split("/")[0] in SHOWN else REPOSITORY) / target
        path = os.path.relpath(site, (HERE / name).parent) if path else ""
        if path.endswith("explorer/index.html"):  # a whole page, which MyST would offer to download
            return f'<a href="{path}">{found[1]}</a>' if site.is_file() else found[1]
        if re.fullmatch(r"claim-\d+", anchor):  # not a heading, so MyST does not know the place
            return f'<a href="{re.sub(".md$", ".html", path)}#{anchor}">{found[1]}</a>'
        return f"[{found[1]}]({path}{hash_}{anchor})"

    text = re.sub(r"\[([^\]\[]*)\]\((?![a-z]+:)([^)\s]+)\)", link, source[0])
    if re.fullmatch(r"results/[^/]+/README", name):
        text += "\n\n```{toctree}\n:glob:\n:hidden:\n\n*/*\n```\n"
    source[0] = text if re.search("^# ", text, re.M) else f"# {Path(name).name}\n\n{text}"


def as_written(app: Sphinx, what: str, name: str, obj: object, options: object, signature: str, returned: str):
    """The signature as the source has it: jaxtyping's shapes, and no default's repr of many lines."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(obj)))).body[0]  # type: ignore[arg-type]
    except (OSError, TypeError, IndentationError):
        return None
    tree = _Qualified(vars(inspect.getmodule(obj))).visit(tree)
    if isinstance(tree, ast.ClassDef):
        if dataclasses.is_dataclass(obj):
            return f"({', '.join(_field(line) for line in tree.body if isinstance(line, ast.AnnAssign))})", None
        made = [line for line in tree.body if isinstance(line, ast.FunctionDef) and line.name == "__init__"]
        return (_arguments(made[0]), None) if made else None
    if isinstance(tree, ast.FunctionDef):
        return _arguments(tree), ast.unparse(tree.returns) if tree.returns else None
    return None


class _Qualified(ast.NodeTransformer):
    """This project's own types by their full names, so that each links to the right one; the last part is shown."""

    def __init__(self, names: dict[str, object]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        meant = self.names.get(node.id)
        if inspect.isclass(meant) and meant.__module__.startswith("artpaper"):
            node.id = f"{meant.__module__}.{meant.__qualname__}"
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        if isinstance(node.value, str):
            node.value = node.value.strip()  # one-word shapes are written " batch", which is jaxtyping's way
        return node


def _arguments(function: ast.FunctionDef) -> str:
    arguments = function.args
    if arguments.args and arguments.args[0].arg in ("self", "cls"):
        del arguments.args[0]
    return f"({ast.unparse(arguments)})"


def _field(line: ast.AnnAssign) -> str:
    value = (
        "" if line.value is None else " = ..." if isinstance(line.value, ast.Call) else f" = {ast.unparse(line.value)}"
    )
    return f"{ast.unparse(line.target)}: {ast.unparse(line.annotation)}{value}"


def source_as_field(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """``Source: Eq. 4`` stands in the docstrings as one paragraph; on the site it is a field like the others."""
    for index, line in enumerate(lines):
        if found := re.match(r"Source: (.+)", line):
            lines[index] = f":Source: {found[1]}"
            lines.insert(index, "")
            for follow in range(index + 2, len(lines)):
                if not lines[follow].strip():
                    break
                lines[follow] = "    " + lines[follow].strip()
            return


def accessible(app: Sphinx, name: str, template: str, context: dict[str, Any], tree: object) -> None:
    """What scrolls can be focused, navigation headings have a level, a signature is no list of definitions.

    And a picture, made small on a narrow screen, is a link to itself, and has no white paper in the dark theme.
    """
    body = context.get("body", "").replace("<pre>", '<pre tabindex="0">')
    body = re.sub(r'<div class="(table-wrapper[^"]*)">', r'<div class="\1" tabindex="0">', body)
    body = re.sub(r'(<a\b[^>]*>\s*)?(<img\b[^>]*\bsrc="([^"]+)"[^>]*>)', _linked, body)
    body += (REPOSITORY / "pipeline" / "report" / "dark.svg").read_text(encoding="utf-8")
    context["body"] = re.sub(r"<dl>\n((?:<dd>.*</dd>\n)+)</dl>", _lines, body)
    levels = context.get("furo_navigation_tree", "").replace('role="heading"', 'role="heading" aria-level="2"')
    context["furo_navigation_tree"] = levels


def _linked(found: re.Match[str]) -> str:
    return found[0] if found[1] else f'<a class="picture" href="{found[3]}">{found[2]}</a>'


def _lines(found: re.Match[str]) -> str:
    return found[1].replace("<dd>", '<span style="display: block; padding-left: 2em">').replace("</dd>", "</span>")


def explorers(app: Sphinx, error: Exception | None) -> None:
    """The explorer's page of each published run that has one, as it is, beside the page of the run."""
    for page in HERE.glob("results/*/explorer/index.html"):
        target = Path(app.outdir) / page.relative_to(HERE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(page, target)


def inline_formula(writer: Any, node: nodes.math) -> None:
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def formula(writer: Any, node: nodes.math_block) -> None:
    """On a line of its own, which scrolls where it is wider than the page."""
    writer.body.append(f'<div class="formula" tabindex="0">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (inline_formula, None), (formula, None))
    app.connect("source-read", as_in_the_repository)
    app.connect("autodoc-process-signature", as_written)
    app.connect("autodoc-process-docstring", source_as_field, priority=400)  # before napoleon
    app.connect("html-page-context", accessible, priority=900)  # after the theme
    app.connect("build-finished", explorers)
