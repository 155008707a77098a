"""The documentation says what the code, the parameters and the published results say."""

import re
import shlex
import shutil
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.base.parameters import load_params
from pipeline.run.cli import main
from pipeline.run.profiles import whole
from tests.test_imports import ORDER, modules

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
INDEX = (DOCS / "ambiguities.md").read_text(encoding="utf-8")
PAGES = {int(path.name[:2]): path for path in sorted((DOCS / "ambiguities").glob("[0-9][0-9]-*.md"))}
NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d+(?:e-?\d+)?")
SECTIONS = ["What the paper says", "How it is read here", "Parameter", "Measured"]


def load(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


@cache
def paper_profile() -> Any:
    return load(whole(ROOT / "profiles" / "paper.yaml"))


def table(text: str, first: str) -> list[list[str]]:
    """The rows of the table whose header begins with ``first``, as cells."""
    block = re.search(rf"^\| {first} \|.*\n\|[-:| ]+\|\n((?:\|.*\n)+)", text, re.M)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in block[1].splitlines()] if block else []


def section(page: Path, title: str) -> str:
    return page.read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_every_row_has_its_page_and_every_page_its_row() -> None:
    rows = table(INDEX, "row")
    assert [int(row[0]) for row in rows] == list(range(1, 35)) == list(PAGES)
    for number, question, _, parameters in rows:
        page = PAGES[int(number)]
        assert f"](ambiguities/{page.name})" in question
        asked = re.match(r"\[(.*)\]\(", question)[1]
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# Row {number}: {asked}\n")
        assert re.findall(r"^## (.*)$", text, re.M) == SECTIONS
        assert all(section(page, title).strip() for title in SECTIONS)
        named = [row[0] for row in table(section(page, "Parameter"), "parameter")]
        assert parameters == (", ".join(named) or "none")


@pytest.mark.parametrize("number", PAGES)
def test_parameters_exist_with_the_default_on_the_page(number: int) -> None:
    """The default is the profile `paper`'s; `models.*` means each of the three models."""
    for key, default, _ in table(section(PAGES[number], "Parameter"), "parameter"):
        for values in found(paper_profile(), key.strip("`").split(".")):
            assert values == load(default.strip("`")), key


def found(values: Any, path: list[str]) -> Iterator[Any]:
    if not path:
        yield values
    elif path[0] == "*":
        for value in values.values():
            yield from found(value, path[1:])
    else:
        yield from found(values[path[0]], path[1:])


def commands(text: str) -> list[list[str]]:
    """The arguments of each `artpaper use` in a page's shell blocks, but those that name data of the reader's own."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.S)).replace("\\\n", " ")
    lines = [part.strip() for line in blocks.splitlines() for part in line.partition("#")[0].split("&&")]
    return [shlex.split(line)[1:] for line in lines if line.startswith("artpaper use") and "--path" not in line]


def test_every_command_of_the_pages_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    tried = 0
    for page in (*PAGES.values(), DOCS / "run.md"):
        for arguments in commands(page.read_text(encoding="utf-8")):
            assert main(arguments) == 0, f"{page.name}: {arguments}"
            load_params("params.yaml")
            tried += 1
    assert tried > 20


def test_a_row_with_a_parameter_has_a_command_that_sets_it() -> None:
    for page in PAGES.values():
        keys = [row[0].strip("`") for row in table(section(page, "Parameter"), "parameter")]
        told = {item.partition("=")[0] for line in commands(page.read_text(encoding="utf-8")) for item in line}
        retrained = any("--retrain" in line for line in commands(page.read_text(encoding="utf-8")))
        patterns = [re.escape(key).replace(r"\*", r"\w+") for key in keys]
        assert not keys or retrained or any(re.fullmatch(pattern, name) for pattern in patterns for name in told), page


def test_stages_named_in_commands_exist() -> None:
    stages = load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    named = set()
    for page in (*PAGES.values(), DOCS / "run.md", DOCS / "appendix.md", DOCS / "own_data.md"):
        for line in re.findall(r"dvc repro((?: +[a-z_]+)+)", page.read_text(encoding="utf-8")):
            named |= set(line.split())
    assert {"tables", "robustness"} <= named <= set(stages)


@pytest.mark.parametrize("path", sorted(ROOT.glob("profiles/*.yaml")), ids=lambda path: path.name)
def test_rows_named_in_parameter_files_are_about_that_parameter(path: Path) -> None:
    """The comment "row n" stands beside a key that the page of row n lists, or beside the head of its group."""
    rows = {int(row[0]): set(re.findall(r"`([^`]+)`", row[3])) for row in table(INDEX, "row")}
    place: list[str] = []
    named = 0
    for line in whole(path).splitlines():
        key = re.match(r"( *)(\w+):", line)
        if not key:
            continue
        place[len(key[1]) // 2 :] = [key[2]]
        for number in map(int, re.findall(r"\brow (\d+)", line)):
            named += 1
            name = re.sub(r"^models\.\w+\.", "models.*.", ".".join(place))
            assert number in rows
            assert name in rows[number] or len(place) == 1, f"{name} is not in row {number}: {rows[number]}"
    assert named > 15


def test_rows_named_in_the_code_exist() -> None:
    code = (path for package in ("artpaper", "pipeline") for path in (ROOT / package).rglob("*.py"))
    files = [*code, *(ROOT / "notebooks").glob("*.ipynb"), ROOT / "README.md"]
    named = {int(n) for path in files for n in re.findall(r"\brows? (\d+)\b(?! and)", path.read_text(encoding="utf-8"))}
    assert named
    assert named <= set(PAGES)


@pytest.mark.parametrize("number", PAGES)
def test_numbers_measured_stand_in_the_files_cited(number: int) -> None:
    """Every decimal number under "Measured" stands in one of the published files the section links."""
    text = " ".join(section(PAGES[number], "Measured").partition("**In the code:**")[0].split())
    cited = [(PAGES[number].parent / link).resolve() for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text)]
    assert all(path.is_file() for path in cited)
    readable = [path for path in cited if path.suffix in (".md", ".csv", ".json") and DOCS not in path.parents]
    published = {value for path in readable for value in NUMBER.findall(path.read_text(encoding="utf-8"))}
    claimed = text.replace(" beta 0.001", "").replace(" to 0.1 ", " ")  # settings, not measurements
    for value in NUMBER.findall(re.sub(r"`[^`]*`|\]\([^)]*\)", "", claimed)):
        assert as_written(value, published), f"{value} is in none of {[path.name for path in readable]}"


def as_written(value: str, published: set[str]) -> bool:
    """Whether a published number, rounded to as many decimals, reads ``value``."""
    decimals = len(value.partition(".")[2])
    return value in published or any("e" not in one and f"{float(one):.{decimals}f}" == value for one in published)


def test_every_module_of_the_library_is_on_an_api_page() -> None:
    """A module that is new must be listed: add it to the page of its part in docs/api/."""
    pages = [page.read_text(encoding="utf-8") for page in DOCS.glob("api/*.md")]
    listed = [name for page in pages for name in re.findall(r"automodule:: (\S+)", page)]
    assert sorted(listed) == sorted(name for name in modules() if name.startswith("artpaper"))


def test_the_page_of_the_pipeline_has_its_folders_in_the_order_of_imports_and_their_stages() -> None:
    rows = table((DOCS / "api" / "pipeline.md").read_text(encoding="utf-8"), "folder")
    assert [row[0].strip("`/").removesuffix(".py").replace("/", ".") for row in rows] == list(ORDER)
    stages = {"stress/dvc.yaml:" * (name != ".") + stage for name in (".", "stress")
              for stage in load((ROOT / name / "dvc.yaml").read_text(encoding="utf-8"))["stages"]}  # fmt: skip
    named = [stage for row in rows for stage in re.findall("`([^`]+)`", row[2])]
    assert sorted(named) == sorted(stages)


NAMED = re.compile(r"(?:`|python -m )((?:artpaper|pipeline|benchmarks|tests)(?:\.\w+)+)")


def test_modules_named_in_the_documentation_exist() -> None:
    """And what is named of them: ``artpaper.metrics.gap`` is in that module."""
    pages = [ROOT / "README.md", *DOCS.glob("*.md"), *DOCS.glob("ambiguities/*.md"), *DOCS.glob("checks/*.md")]
    pages = [page for page in pages if page.name != "CHANGELOG.md"]  # it tells of former names; `make docs` copies it
    named = {(page.name, name) for page in pages for name in NAMED.findall(page.read_text(encoding="utf-8"))}
    assert len(named) > 30
    assert not sorted((page, name) for page, name in named if not exists(name))


def exists(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    if module in modules():
        return name in modules() or hasattr(import_module(module), attribute)
    return name in modules() or (ROOT / f"{name.replace('.', '/')}.py").is_file()
