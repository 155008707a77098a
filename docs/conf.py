"""The documentation site: `make docs`. Nothing is executed and nothing is fetched, neither now nor by the reader."""

import ast
import dataclasses
import inspect
import re
import shutil
import textwrap
from pathlib import Path

from sphinx.application import Sphinx

from artpaper import __version__

HERE = Path(__file__).parent

project, author, release = "artpaper", "The artpaper authors", __version__
copyright = "The artpaper authors, Apache-2.0"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "conf.py"]

# Notebooks are shown as they are committed. They lie beside docs/, and Sphinx reads below it only: so, copies.
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # the default would fetch the widgets' scripts from the network
shutil.rmtree(HERE / "notebooks", ignore_errors=True)
shutil.copytree(HERE.parent / "notebooks", HERE / "notebooks", ignore=shutil.ignore_patterns(".*"))

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"artpaper {__version__}"
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"


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
    """This project's own types by their full names, so that each links to the right one; the site shows the last part."""

    def __init__(self, names: dict[str, object]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        meant = self.names.get(node.id)
        if inspect.isclass(meant) and meant.__module__.startswith("artpaper"):
            node.id = f"{meant.__module__}.{meant.__qualname__}"
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


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-signature", as_written)
    app.connect("autodoc-process-docstring", source_as_field, priority=400)  # before napoleon
