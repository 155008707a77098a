"""The report page, read back as a reader's browser would, against the files it was made from."""

import base64
import html.parser
import json
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from ruamel.yaml import YAML

from pipeline.base.errors import ConfigError, DataError
from pipeline.base.parameters import Params, build, load_params
from pipeline.paper.claims_page import claims_table
from pipeline.paper.evidence import Evidence
from pipeline.report.background import compared_parameters, profile
from pipeline.report.contents import CLAIM
from pipeline.report.page import fragment, page, write_report
from pipeline.report.parts import Run, duration
from pipeline.run.cli import main
from pipeline.run.profiles import whole
from pipeline.stress.verdict.statements import STATEMENTS
from tests.executed import PNG, fabricate, rendered, write_notebook
from tests.pipeline import ROOT

PUBLISHED = ["synthetic", "audioset"]
STRESSED = "under-stronger-attacks"  # the section
VOID = {"meta", "link", "img", "br", "hr", "input"}
LINES = {"paper": ("paper", "paper_std"), "ours": ("ours", "std"), "difference": ("difference", None),
         "± over seeds": ("seed_std", None)}  # fmt: skip


def read(text: str) -> BeautifulSoup:
    return BeautifulSoup(text, "html.parser")


@pytest.fixture(scope="module", params=PUBLISHED)
def run(request: pytest.FixtureRequest) -> tuple[Path, str, BeautifulSoup]:
    """A published run, its page, and the page as it is read."""
    folder = ROOT / "results" / request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        text = rendered(folder)
    return folder, text, read(text)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return fabricate(tmp_path)


class Nesting(html.parser.HTMLParser):
    """Every tag that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def check_form(text: str, folder: Path = ROOT) -> BeautifulSoup:
    """Well-formed, self-contained, every picture described, every place linked to there once, headings in order.

    ``folder`` is where it would lie.
    """
    parser = Nesting()
    parser.feed(text)
    assert parser.open == []
    soup = read(text)
    assert soup.html["lang"] == "en"
    for tag in soup.find_all(True):
        for name, value in tag.attrs.items():
            if tag.name != "a" and name in ("src", "href", "srcset", "action", "data", "poster"):
                assert value.startswith("data:"), tag
            assert not name.startswith("on"), tag
    assert not soup.find_all(["script", "iframe", "object"])
    assert not re.search(r"url\((?!#)|@import", soup.style.string)
    assert all(image["alt"].strip() for image in soup.find_all("img"))
    places = [tag["id"] for tag in soup.find_all(id=True)]
    assert len(places) == len(set(places))
    inner = {tag["href"][1:] for tag in soup.find_all("a", href=True) if tag["href"].startswith("#")}
    assert len(inner) > 10
    assert inner <= set(places)
    outer = [tag["href"] for tag in soup.find_all("a", href=True) if not tag["href"].startswith(("#", "https://"))]
    assert [place for place in outer if not (folder / place).is_file()] == []  # a published run's notebooks
    levels = [int(tag.name[1]) for tag in soup.find_all(re.compile(r"^h[1-6]$"))]
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in zip(levels[:1] + levels, levels, strict=False))
    assert all(tag.get("scope") for tag in soup.find_all("th"))
    return soup


def test_formulas_of_notebooks_are_drawn_without_scripts() -> None:
    """Every one, on a line of its own or within one; what stands in code is none."""
    own = [nbformat.v4.new_markdown_cell("# T\n$$\\frac{a_1}{b_2} < c$$\nwhere $a_1 = *2*$, at `$5` and `$6`")]
    text = fragment(nbformat.v4.new_notebook(cells=own), "own")
    soup = read(text)
    assert [formula.get("display") for formula in soup.find_all("math")] == ["block", None]
    assert [part.text for part in soup.mfrac.find_all("mn")] == ["1", "2"]
    assert [part.text for part in soup.find_all("code")] == ["$5", "$6"]
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
        assert "$" not in read(fragment(notebook, path.stem)).text


def test_a_published_run_is_whole_and_self_contained(run: tuple[Path, str, BeautifulSoup]) -> None:
    folder, text, soup = run
    check_form(text, folder)
    lacking = [] if (folder / "stress").is_dir() else ["The stress test: not made in this run."]
    lacking += [] if (folder / "figures" / "curves.png").is_file() else ["The training curves: not made in this run."]
    assert [box.strong.text for box in soup.select(".missing")] == lacking
    assert len(soup.select("#figures img")) == 6
    said = soup.select_one(".notice").text
    assert ("SYNTHETIC" in said) == (folder.name == "synthetic")
    assert ("AudioSet" in said) == (folder.name == "audioset")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_tables_are_those_of_the_csv_files(run: tuple[Path, str, BeautifulSoup], number: int) -> None:
    folder, _, soup = run
    cells = pd.read_csv(folder / "tables" / f"table{number}.csv")
    table = soup.select("#tables table")[number - 1]
    assert table.caption.text.startswith(f"Table {number}: ")
    columns = [th.text.split(": ") for th in table.select("thead th")[1:]]
    assert table.th.text == "Metric"
    seen, metric = 0, ""
    for line in table.select("tbody tr"):
        metric = line.td.text or metric
        value, std = LINES[line.find_all("td")[1].text]
        for (test, column), cell in zip(columns, line.find_all("td")[2:], strict=True):
            split = {"Test": "test", "Adv.": "adversarial"}[test]
            wanted = cells.query("metric == @metric and split == @split and column == @column")
            assert len(wanted) == 1
            exact = wanted.iloc[0]
            printed = [float(part) for part in cell.text.split(" ± ") if part != "–"]
            exact = [exact[name] for name in (value, std) if name and not pd.isna(exact[name])]
            assert printed == pytest.approx(exact, abs=0.005001), (metric, split, column)
            seen += len(printed)
    names = [name for pair in LINES.values() for name in pair if name]
    assert seen == cells[names].notna().sum().sum()  # nothing of the file is left out


def test_every_claim_is_there_with_its_verdict_and_numbers(run: tuple[Path, str, BeautifulSoup]) -> None:
    folder, _, soup = run
    claims = claims_table({"this run": Evidence(folder)})
    rows = [row for row in soup.select("#the-paper-s-claims tbody tr") if row.find("a")]
    told = {int(row.find("a").text): row.find_all("td")[-1].strong.text for row in rows}
    assert sorted(told) == list(range(1, 21))
    for position, rows_of in claims.groupby("claim"):
        verdict = rows_of["verdict"].iloc[0]
        assert told[position] == verdict
        below = soup.select_one(f"#claim-{position}").find_parent("p").find_next("li")
        assert f": {verdict}: " in below.text
        shown = below.text.replace("\n", " ")
        for row in rows_of.itertuples():
            texts = re.findall(rf"[ ,(]{re.escape(row.name)} (-?[\d.]+(?:e-?\d+)?)", shown)
            near = pytest.approx(row.value, rel=0.005, abs=0.0051 if abs(row.value) >= 1 else 5e-5)
            assert any(float(text) == near for text in texts), (position, row.name)
    counts = {item.text.split(maxsplit=1)[1]: int(item.b.text) for item in soup.select(".counts li")}
    assert {verdict: list(told.values()).count(verdict) for verdict in counts} == counts
    assert sum(counts.values()) == 20


def test_every_parameter_is_there_and_what_differs_is_marked(run: tuple[Path, str, BeautifulSoup]) -> None:
    folder, _, soup = run
    few, all_ = soup.select("#parameters table")
    rows = {row.th.text: [cell.text for cell in row.find_all("td")] for row in all_.select("tbody tr")}
    yaml = YAML(typ="safe", pure=True)
    ours, theirs = yaml.load(folder / "params.yaml"), yaml.load(whole(ROOT / "profiles" / "paper.yaml"))

    def leaves(values: Any, prefix: str = "") -> dict[str, Any]:
        if not isinstance(values, dict):
            return {prefix[:-1]: values}
        return {name: value for key in values for name, value in leaves(values[key], f"{prefix}{key}.").items()}

    ours, theirs = leaves(ours), leaves(theirs)
    assert set(rows) == set(ours)
    for name, value in ours.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            assert float(rows[name][0]) == value
        elif isinstance(value, str):
            assert rows[name][0] == (value.split("/")[-1] if name == "data.path" else value)
        unread = name.startswith("synthetic.") and ours["data.source"] != "synthetic"
        assert rows[name][2] == ("not read" if unread else "differs" if value != theirs[name] else "the same"), name
    assert [row.th.text for row in few.select("tbody tr")] == [n for n, cells in rows.items() if cells[2] == "differs"]
    written = (folder / "params.yaml").read_text().replace("../shared/data/audioset/", "")  # where it lay is no matter
    assert written in [pre.text for pre in soup.select("#parameters pre")]


def test_what_real_data_do_not_read_differs_from_nothing(tmp_path: Path) -> None:
    text = whole(ROOT / "profiles" / "audioset.yaml")
    (tmp_path / "p.yaml").write_text(text.replace("difficulty: 1.0", "difficulty: 0.5").replace("heads: 8", "heads: 4"))
    found = compared_parameters(Run(load_params(tmp_path / "p.yaml"), tmp_path), tmp_path / "p.yaml")["comparison"]
    assert found["synthetic.difficulty"] == "not read"
    assert found["model.heads"] == "differs"


def test_provenance_is_that_of_the_files(run: tuple[Path, str, BeautifulSoup]) -> None:
    folder, _, soup = run
    summary, made = (json.loads((folder / name).read_text()) for name in ("summary.json", "provenance.json"))
    rows = {row.th.text: [cell.text for cell in row.find_all("td")] for row in soup.select("#data tbody tr")}
    for split, counted in summary["splits"].items():
        assert rows[split][:2] == [f"{counted['videos']:,}", f"{counted['frames']:,}"]
    assert summary["provenance"]["licence"] in soup.select_one("#data").text
    assert summary["provenance"]["attribution"] in soup.select_one("#data").text
    versions = soup.select_one("#versions").text
    for value in (made["commit"], made["python"], made["machine"]["processor"], *made["packages"].values()):
        assert value in versions
    assert made["command"] in soup.select_one("#run-it-again pre").text
    kept = [*folder.glob("notebooks/**/*.ipynb")]
    assert ("not kept" in soup.select_one("#how-long-it-took").text) == (not kept)
    assert len(soup.select("a.file")) == len(kept)


def verdict_of(folder: Path) -> Path:
    """A project's own stress test, whose files are those of the published one."""
    shutil.copytree(ROOT / "results" / "audioset" / "stress", folder / "verdict")
    (folder / "verdict" / "stress.png").rename(folder / "figures" / "stress.png")
    return folder / "verdict"


@pytest.mark.parametrize("published", [True, False])
def test_the_stress_test_is_told_as_its_files_tell_it(project: Path, published: bool) -> None:
    files = ROOT / "results" / "audioset" / "stress" if published else verdict_of(project)
    section = read(rendered(ROOT / "results" / "audioset" if published else project)).select_one("#" + STRESSED)
    rows = pd.read_csv(files / "verdict.csv").drop_duplicates("statement")
    told = [[cell.text for cell in row.find_all("td")] for row in section.table.select("tbody tr")]
    assert told == [[str(row.statement), row.text, row.verdict] for row in rows.itertuples()]
    assert len(told) == len(STATEMENTS)
    [claim] = rows[rows["text"] == CLAIM].itertuples()
    notice = section.select_one(".notice")
    assert notice.strong.text == f"{CLAIM}: {claim.verdict}."
    assert f"{claim.name} {claim.value:+.2f} [{claim.low:+.2f}, {claim.high:+.2f}]" in notice.text
    assert "Rule" not in notice.text
    png = files / "stress.png" if published else project / "figures" / "stress.png"
    assert base64.b64decode(section.img["src"].partition(",")[2]) == png.read_bytes()
    evidence, models = section.select("details")
    assert [heading.text for heading in evidence.select("h3")] == ["The evidence", "The rules"]
    assert len(re.findall("Rule: ", evidence.text)) == len(told)
    best = pd.read_csv(files / "leaderboard.csv")["model"].count()
    assert len(models.select("tbody tr")) == best


def test_without_a_stress_test_one_line_says_what_makes_it(project: Path) -> None:
    section = read(rendered(project)).select_one("#" + STRESSED)
    [line] = section.select(".missing")
    told = "dvc repro stress/dvc.yaml takes hours; dvc repro -fs report shows it here."
    assert line.text == f"The stress test: not made in this run. {told}"
    assert not section.select("img, table, details")
    shutil.rmtree(verdict_of(project).parent / "figures")
    (project / "verdict" / "verdict.md").write_text("# Is A-ART robust?\n\nNothing is told.\n")  # of other statements
    section = read(rendered(project)).select_one("#" + STRESSED)
    assert not section.select(".notice")
    assert "Nothing is told." in section.text
    assert "The figure of the stress test: not made" in section.select_one(".missing").text


def test_a_stress_test_older_than_the_code_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict_of(project)
    monkeypatch.setattr("pipeline.report.parts.outdated", lambda folder: ["stress/dvc.yaml:attacks"])
    [alarm] = read(rendered(project)).select(".alarm")
    assert "(stress/dvc.yaml:attacks). dvc repro stress/dvc.yaml brings them up to date" in alarm.text
    assert alarm.find_parent("section")["id"] == STRESSED


def test_a_published_run_s_notebooks_unfold_and_link_to_their_files(project: Path) -> None:
    (project / "provenance.json").write_bytes((ROOT / "results" / "synthetic" / "provenance.json").read_bytes())
    (project / "frames" / "summary.json").rename(project / "summary.json")
    (project / "reports").rename(project / "notebooks" / "kept")
    (project / "notebooks").rename(project / "of the project")
    (project / "of the project" / "kept").rename(project / "notebooks")
    for place, hour in (("tables", 14), ("prepare", 13), ("train/art-seed0", 12)):
        path = project / "notebooks" / f"{place}.ipynb"
        path.write_text(path.read_text().replace("T12:00", f"T{hour}:00"))
    soup = read(rendered(project, files="results/mine"))
    names = ["train/art-seed0", "prepare", "tables"]  # as they ran
    assert [summary.text for summary in soup.select("details.notebook > summary")] == names
    assert [link["href"] for link in soup.select("details.notebook a.file")] == [
        f"results/mine/notebooks/{name}.ipynb" for name in names
    ]
    rows = [row.th.text for row in soup.select("#how-long-it-took tbody tr")]
    assert rows == [*names, "sum"]


def test_every_picture_opens_whole_and_closes_where_it_was(project: Path) -> None:
    soup = check_form(rendered(project))
    pictures = soup.select("img")
    assert len(pictures) > 8
    for image in pictures:
        whole = soup.find(id=image.find_parent("a")["href"].removeprefix("#"))
        assert image in whole.find_all("img")
        close = whole.select_one("a.close")
        assert soup.find(id=close["href"].removeprefix("#")) == whole.parent


def test_times_are_papermills_and_a_notebook_that_stopped_is_not_counted(project: Path) -> None:
    soup = check_form(rendered(project))
    trs = soup.select("#how-long-it-took tbody tr")
    rows = {row.th.text: [cell.text for cell in row.find_all("td")] for row in trs}
    assert rows == {
        "prepare": ["2026-01-31 12:00 UTC", "1 min 23 s", "complete"],
        "train@art-0": ["2026-01-31 12:00 UTC", "5.2 s", "complete"],
        "train@a_art-0": ["–", "–", "not here"],
        "tables": ["2026-01-31 12:00 UTC", "–", "stopped before its end"],
        "sum": ["", "1 min 29 s", "2 of 4 stages"],
    }


def test_notebooks_are_rendered_clean_and_safe(project: Path) -> None:
    soup = check_form(rendered(project))
    notebooks = soup.select("details.notebook")
    assert [notebook.summary.text for notebook in notebooks] == ["prepare", "train@art-0", "tables"]
    notebook = notebooks[2]
    assert notebook.h3.text == "Title of it"
    assert notebook.p.text == "Words, and "
    code, bar, out, *_, error = notebook.find_all("pre")
    assert code.text.strip() == "print('<code> & more')"
    assert bar.text.strip() == "train: 100%|####| 9/9"
    assert out.text.strip() == "red & <b>bold</b>"
    assert error.text.strip() == "E: v <w>"
    assert notebook.img["src"].strip() == f"data:image/png;base64,{PNG}"
    assert notebook.img["alt"] == "Picture of notebook tables: Title of it"
    frame, table = notebook.find_all("table")
    assert [cell.text for cell in frame.find_all(["th", "td"])] == ["", "a & b", "0", "1 < 2"]
    assert "color" not in notebook.text
    assert "alert" not in notebook.text
    assert frame.th.attrs == {"scope": "col"}
    assert table.td.text == "x"
    assert not table.td.a


def test_what_is_missing_is_named_with_its_command(project: Path) -> None:
    for name in ("tables/table3.csv", "figures/figure4.png", "figures/figure3.csv", "frames/summary.json"):
        (project / name).unlink()
    shutil.rmtree(project / "models")
    soup = check_form(rendered(project))
    told = " ".join(box.text for box in soup.select(".missing"))
    for what, stage in (("Table 3", "tables"), ("Figure 4", "robustness"), ("Figure 3", "hyperparameters"),
                        ("The frames", "prepare"), ("The models", "train")):  # fmt: skip
        assert re.search(rf"{what}[^.]*: not made in this run. dvc repro {stage}", told), what
    assert "The claims cannot be judged: tables/table3.csv: no such table" in told
    assert soup.select_one("#at-a-glance table")
    assert len(soup.select("#figures img")) == 4


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("reports/prepare.ipynb", "{", r"prepare\.ipynb: not a valid notebook"),
        ("tables/table1.csv", "", r"table1\.csv: missing or damaged"),
        ("tables/table1.csv", "table,group,metric\n1,all,GAP\n", r"table1\.csv: no column split"),
        ("tables/table2.md", None, r"table2\.md: missing or damaged"),
        ("figures/figure3.csv", "", r"figure3\.csv: missing or damaged"),
        ("models/art/seed0/model.json", "{", r"model\.json: missing or damaged"),
        ("models/art/seed0/model.json", "[]", r"model\.json: no JSON object"),
        ("models/art/seed0/model.json", "{}", r"model\.json: no key name"),
        ("frames/summary.json", '{"seed": 0}', r"summary\.json: no key provenance"),
    ],
)
def test_a_damaged_file_is_named(project: Path, name: str, text: str | None, said: str) -> None:
    if text is None:
        (project / name).unlink()
    else:
        (project / name).write_text(text)
    with pytest.raises(DataError, match=f"{said}.*dvc repro"):
        rendered(project)


def test_a_table_that_was_cut_is_named(project: Path) -> None:
    path = project / "tables" / "table1.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match=r"table1\.csv: cells are missing or there twice.*dvc repro"):
        rendered(project)


def test_claims_without_sound_numbers_are_not_judged(project: Path) -> None:
    (project / "figures" / "figure4.csv").write_text("")
    words = read(rendered(project)).select_one("#the-paper-s-claims .missing").text
    assert words.startswith("The claims cannot be judged: figures/figure4.csv: missing or damaged")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no run here \(no params\.yaml\)"):
        write_report(tmp_path, tmp_path / "x.html", ROOT)
    shutil.copy(ROOT / "params.yaml", tmp_path)  # nor is what is missing made, which takes hours
    with pytest.raises(ConfigError, match=r"no run here \(no provenance\.json\)"):
        write_report(tmp_path, tmp_path / "x.html", ROOT)
    assert not (tmp_path / "x.html").exists()


def test_damaged_shards_that_were_left_out_are_named(project: Path) -> None:
    assert not check_form(rendered(project)).select("#data .alarm")
    path = project / "frames" / "summary.json"
    one = {"partition": "train", "shard": "train07.tfrecord", "reason": "record 3: checksum does not match"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"damaged": [one, one]}))
    [told] = check_form(rendered(project)).select("#data .alarm")
    assert "2 damaged shards were left out" in told.text
    assert [item.text for item in told.select("li")] == [f"train: train07.tfrecord: {one['reason']}"] * 2


def test_one_s_own_arrays_are_told_as_they_are(project: Path) -> None:
    """Arrays have no licence and no shards, may bring a test set, and lie where nobody else need know."""
    text = whole(ROOT / "profiles" / "arrays.yaml").replace("path: null", "path: /home/someone/clips & more/set")
    (project / "params.yaml").write_text(text)
    path = project / "frames" / "summary.json"
    summary = json.loads(path.read_text())
    arrays = {"source": "arrays", "path": "/home/someone/clips & more/set", "videos": 17_000,
              "arrays": "rgb float32", "arrays_without_a_row": "rgb 3"}  # fmt: skip
    summary["partitions"]["test"] = {"videos_read": 3_992, "left_out_without_class": 0}
    path.write_text(json.dumps(summary | {"provenance": arrays}))
    write_notebook(project / "reports" / "prepare.ipynb", 1.0, said="path='/home/someone/clips & more/set' it was")
    soup = check_form(rendered(project))
    told = {name.text: value.text for name, value in zip(soup.select("#data dt"), soup.select("#data dd"), strict=True)}
    assert list(told) == ["source", "path", "videos", "arrays", "arrays without a row", "classes", "numbers a frame"]
    assert told["source"] == "OWN data"
    assert told["path"] == "set"
    assert told["arrays without a row"] == "rgb 3"
    assert soup.select_one("#data caption").text == "Splits, as the data name them"
    assert "path='set' it was" in soup.select_one("details.notebook").text
    assert "someone" not in soup.text
    assert "artpaper use arrays --path FOLDER" in soup.select_one("#run-it-again pre").text


@pytest.mark.parametrize(
    ("path", "vocabulary", "told"),
    [("/home/o'neil & co/set", "/home/o'neil & co/set/names.csv", "read set and names.csv."),
     (".", None, "read . and None.")],
)  # fmt: skip
def test_of_the_paths_of_the_data_the_last_part_is_told(path: str, vocabulary: str | None, told: str) -> None:
    params = build(Params, {"data": {"path": path, "vocabulary": vocabulary}}, "test")
    words = nbformat.v4.new_markdown_cell(f"read {path} and {vocabulary}.")
    assert read(page(nbformat.v4.new_notebook(cells=[words]), params)).p.text == told


def test_odd_names_several_seeds_and_models_of_one_s_own(project: Path) -> None:
    """A group called <b>&", models that the paper has not, one called NA, and models that are no longer asked for."""
    values = YAML(typ="safe", pure=True).load(project / "params.yaml")
    values["models"]["NA"] = values["models"]["art"]
    values["experiment"] = {"models": ["art", "NA"], "seeds": [0, 1]}
    YAML().dump(values, project / "params.yaml")
    cells = pd.read_csv(project / "tables" / "table1.csv")
    own = cells[cells["column"] == "ART"].assign(column="NA", paper=None, paper_std=None, difference=None)
    cells.loc[cells["column"].isin(["Non-ART", "A-ART", "Gain"]), ["ours", "std", "difference"]] = None
    pd.concat([cells, own]).to_csv(project / "tables" / "table1.csv", index=False)
    path = project / "tables" / "table2.csv"
    pd.read_csv(path).assign(group='<b>&"').to_csv(path, index=False)
    for seed in (0, 1):
        for model in ("art", "NA"):
            note = json.loads((project / "models" / "a_art" / "seed0" / "model.json").read_text())
            folder = project / "models" / model / f"seed{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "model.json").write_text(json.dumps(note | {"name": model, "seed": seed}))
    soup = check_form(rendered(project))
    assert "nan" not in re.findall(r"\w+", soup.text)
    rows = {row.th.text: [cell.text for cell in row.find_all("td")] for row in soup.select("#at-a-glance tbody tr")}
    assert list(rows) == ["ART", "NA"]
    assert rows["NA"][:3] == rows["ART"][:3]
    assert rows["NA"][3:] == ["–"] * 3
    assert [heading.text for heading in soup.select("#tables h3")][1] == 'Table 2: <b>&"'
    trained = [
        [cell.text for cell in row.find_all("td")][:2] for row in soup.select("#how-the-models-trained tbody tr")
    ]
    assert trained == [["ART", "0"], ["ART", "1"], ["NA", "0"], ["NA", "1"]]
    assert "training seeds 0, 1" in soup.select_one("#at-a-glance caption").text


def test_what_was_not_measured_is_a_dash(project: Path) -> None:
    path = project / "figures" / "figure3.csv"
    points = pd.read_csv(path)
    points.loc[0, "one_step"] = None
    points.to_csv(path, index=False)
    row = read(rendered(project)).find("caption", string=re.compile("Numbers of Figure 3")).parent.tbody.tr
    assert "–" in [cell.text for cell in row.find_all("td")]


def test_the_training_curves_are_those_of_their_stage(project: Path) -> None:
    image = read(rendered(project)).select_one("#how-the-models-trained img")
    assert image["src"] == f"data:image/png;base64,{PNG}"
    assert all(panel in image["alt"] for panel in ("validation GAP", "cross-entropy", "loss"))


def test_a_published_run_is_checked_out_before_it_is_set_up(run: tuple[Path, str, BeautifulSoup]) -> None:
    folder, _, soup = run
    made = json.loads((folder / "provenance.json").read_text())
    lines = soup.select_one("#run-it-again pre").text.split("\n")
    assert lines[:4] == [f"git checkout {made['commit']}", "make setup", "source .venv/bin/activate", made["command"]]
    assert "make report" not in lines


def test_the_paper_s_own_parameters_differ_in_nothing(project: Path) -> None:
    (project / "params.yaml").write_text(whole(ROOT / "profiles" / "paper.yaml"))
    section = read(rendered(project)).select_one("#parameters")
    assert "0 of them differ" in " ".join(section.text.split())
    assert len(section.select("table")) == 1


@pytest.mark.parametrize(
    ("name", "data", "command"),
    [("default", {}, "default"), ("audioset", {"path": "x.tar.gz"}, "audioset --path features.tar.gz"),
     ("audioset", {"path": "x.tar.gz", "vocabulary": "l.csv"}, "audioset --path features.tar.gz --vocabulary FILE"),
     ("arrays", {"path": "mine"}, "arrays --path FOLDER"), ("paper", {"path": "x"}, "paper --path FOLDER")],
)  # fmt: skip
def test_the_command_that_writes_the_parameters(tmp_path: Path, name: str, data: dict[str, str], command: str) -> None:
    text = whole(ROOT / "profiles" / f"{name}.yaml")
    for key, value in data.items():
        text = text.replace(f"  {key}: null", f"  {key}: {value}", 1)
    (tmp_path / "p.yaml").write_text(text)
    assert profile(Run(load_params(tmp_path / "p.yaml"), tmp_path)) == command
    (tmp_path / "p.yaml").write_text(text.replace("seed: 0", "seed: 7", 1))
    assert profile(Run(load_params(tmp_path / "p.yaml"), tmp_path)) == ""


@pytest.mark.parametrize(
    ("options", "made"), [([], "report.html"), (["--results", "results/audioset"], "audioset.html"),
                          (["--results", "results/audioset", "--output", "x.html"], "x.html")],
)  # fmt: skip
def test_a_published_run_does_not_take_the_place_of_the_report(
    options: list[str], made: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.report.page.write_report", lambda folder, target, project: target)
    assert main(["report", *options]) == 0
    assert capsys.readouterr().out.strip() == made


def test_durations() -> None:
    assert [duration(s) for s in (5.64, 59.94, 60.0, 3599.6, 7384.0)] == [
        "5.6 s",
        "59.9 s",
        "1 min 00 s",
        "1 h 00 min",
        "2 h 03 min",
    ]
