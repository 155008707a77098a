"""A project with executed notebooks, fabricated: their times and outputs are known, and as nasty as outputs get."""

import ast
import base64
import shutil
from pathlib import Path
from typing import Any

import nbformat
from ruamel.yaml import YAML

from pipeline.base.parameters import load_params
from pipeline.report.page import page
from tests.pipeline import ROOT

PNG = (  # one grey dot
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)


def fabricate(folder: Path) -> Path:
    """A project of published results with four stages and the executed notebooks of three; one of these failed."""
    kept = shutil.ignore_patterns("notebooks", "explorer")  # which a run has elsewhere
    shutil.copytree(ROOT / "results" / "synthetic", folder, dirs_exist_ok=True, ignore=kept)
    (folder / "provenance.json").unlink()
    add_curves(folder)
    (folder / "frames").mkdir()
    (folder / "summary.json").rename(folder / "frames" / "summary.json")
    values = YAML(typ="safe", pure=True).load(folder / "params.yaml")
    values["experiment"]["models"] = ["art", "a_art"]
    values["experiment"]["seeds"] = [0]
    YAML().dump(values, folder / "params.yaml")
    stages: dict[str, Any] = {
        "notebooks": {"outs": [".clean"]},
        "prepare": {"outs": ["reports/prepare.ipynb", "frames"]},
        "train": {"matrix": {}, "outs": ["reports/train/${item.model}-seed${item.seed}.ipynb"]},
        "tables": {"outs": ["reports/tables.ipynb", "tables"]},
        "report": {"outs": ["report.html"]},
    }
    YAML().dump({"stages": stages}, folder / "dvc.yaml")
    for name in ("notebooks", "profiles"):
        shutil.copytree(ROOT / name, folder / name)
    write_notebook(folder / "reports" / "prepare.ipynb", 83.4)
    write_notebook(folder / "reports" / "train" / "art-seed0.ipynb", 5.25)
    write_notebook(folder / "reports" / "tables.ipynb", 1.0, exception=True)
    return folder


def add_curves(folder: Path) -> None:
    """What stage ``curves`` leaves, in small."""
    rows = ["quantity,model,seed,step,value", "validation GAP (%),art,0,80,41.5", "validation GAP (%),art,0,160,40"]
    (folder / "figures" / "curves.csv").write_text("\n".join(rows) + "\n")
    (folder / "figures" / "curves.png").write_bytes(base64.b64decode(PNG))


def write_notebook(path: Path, seconds: float, exception: bool = False, said: str = "") -> None:
    new = nbformat.v4
    bar = ["\rtrain:   0%|    | 0/9", "\rtrain:  50%|##  | 4/9", "\rtrain: 100%|####| 9/9", "\n"]
    outputs = [new.new_output("stream", name="stderr", text=text) for text in bar]
    outputs += [
        new.new_output("stream", name="stdout", text="\x1b[31mred\x1b[0m & <b>bold</b>\n" + said),
        new.new_output("display_data", {"image/png": PNG + "\n", "text/plain": "<Figure size 9x3>"}),
        new.new_output("execute_result", {"text/html": "<style>p {color: red}</style><table border='1'><thead>"
            "<tr><th></th>"
            "<th onclick='x()'>a & b</th></tr></thead><tr><th>0</th><td>1 < 2</td></tr></table><script src='https://a.b/c.js'></script>",
            "text/plain": "   a & b"}),
        new.new_output("execute_result", {"text/markdown": "| a |\n|--:|\n| [x](../tables/t.csv) |\n\n<img src=http://a.b/c.png>",
            "text/plain": "..."}),
    ]  # fmt: skip
    if exception:
        outputs.append(new.new_output("error", ename="E", evalue="v", traceback=["\x1b[0;31mE\x1b[0m: v <w>"]))
    cells = [new.new_markdown_cell("# Title of it\nWords, *and* <script>alert(1)</script>"),
             new.new_code_cell("print('<code> & more')", outputs=outputs)]  # fmt: skip
    about = {"start_time": "2026-01-31T12:00:00.5+00:00", "duration": seconds, "exception": exception or None}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new.new_notebook(cells=cells, metadata={"papermill": about}), path)


def rendered(folder: Path, files: str = ".") -> str:
    """The report of a run, its notebook executed in this process: as ``write_report`` has it, but quickly.

    The current folder is the project's.
    """
    document = nbformat.read(ROOT / "notebooks" / "report.ipynb", as_version=4)
    names: dict[str, Any] = {}
    for cell in document.cells:
        if cell.cell_type == "code":
            tree = ast.parse(cell.source)
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, "cell", "exec"), names)
            if "parameters" in cell.metadata.get("tags", []):
                names |= {"params": str(folder / "params.yaml"), "workspace": str(folder)}
            shown = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None
            kind = "text/markdown" if hasattr(shown, "_repr_markdown_") else "text/html"
            cell.outputs = [nbformat.v4.new_output("display_data", {kind: shown.data})] if shown else []
    return page(document, load_params(folder / "params.yaml"), files)
