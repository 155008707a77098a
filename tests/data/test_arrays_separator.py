"""Labels as people write them: understood, or refused with the line; never a class for each combination."""

import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.arrays.separator import find_separator, split
from pipeline.base.errors import ConfigError, DataError
from pipeline.base.groups import Data
from pipeline.base.parameters import build
from pipeline.data.store import FrameStore
from pipeline.prepare.prepare import prepare
from tests.data.test_arrays import config, stored, write_folder

FRAMES = np.ones((2, 3), np.float32)
SETS = [("Drum kit", "Bass"), ("Bass",), ("Drum kit",), ("Voice", "Bass"), ("Voice",), ("Voice", "Drum kit")]


def world(folder: Path, cells: list[str], header: str = "id,labels") -> Path:
    """24 videos; their labels are the cells, again and again."""
    names = [f"v{number:03d}" for number in range(24)]
    write_folder(folder, {name: {"rgb": FRAMES} for name in names})
    quoted = ['"' + cell.replace('"', '""') + '"' for cell in cells]
    rows = [f"{name},{quoted[number % len(cells)]}" for number, name in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8", newline="")
    return folder


UNDERSTOOD = {
    "semicolons": (lambda names: "; ".join(names), '";"'),
    "full-width semicolons": ("；".join, '";"'),
    "FSD50K": (",".join, '","'),
    "commas and blanks": (", ".join, '","'),
    "full-width commas": ("，".join, '","'),
    "ideographic commas": ("、".join, '","'),
    "bars": ("|".join, '"|"'),
    "bars and blanks": (" | ".join, '"|"'),
    "tabs": ("\t".join, "tabs"),
    "line breaks": ("\n".join, "line breaks"),
    "line breaks of Windows": ("\r\n".join, "line breaks"),
    "Python lists": (lambda names: repr(list(names)), "lists, as Python"),
    "Python tuples": (repr, "lists, as Python"),
    "Python sets": (lambda names: "{" + repr(names)[1:-1].rstrip(",") + "}", "lists, as Python"),
    "JSON": (lambda names: "[" + ", ".join(f'"{name}"' for name in names) + "]", "lists, as Python"),
    "quotes around each": (lambda names: ",".join(f'"{name}"' for name in names), '","'),
    "no-break spaces": (lambda names: ";".join(names).replace(" ", "\xa0"), '";"'),
    "zero-width spaces": (lambda names: ";\u200b".join(f"\ufeff{name}\u200b" for name in names), '";"'),
    "two blanks": (lambda names: " ; ".join(names).replace(" ", "  "), '";"'),
}


@pytest.mark.parametrize("way", UNDERSTOOD)
def test_a_way_of_writing_is_understood(tmp_path, capsys, way):
    """Each of these was one class a combination, or one class under two names."""
    write, shown = UNDERSTOOD[way]
    data = world(tmp_path / "data", [write(names) for names in SETS])
    prepare(config(data), tmp_path, progress=False)
    found = {name: set(classes) for name, (_, _, classes) in stored(tmp_path).items()}
    assert found == {f"v{number:03d}": set(SETS[number % len(SETS)]) for number in range(24)}
    told = capsys.readouterr().out
    assert re.search(rf"labels\.csv: labels are (separated by )?{re.escape(shown)}", told)
    assert "3 classes; most videos have: Bass (12), Drum kit (12), Voice (12)" in told


def test_numbers_of_youtube8m_and_audiosets_own_lines(tmp_path, capsys):
    data = world(tmp_path / "numbers", ["0 5", "5", "17 0"])
    prepare(config(data), tmp_path, progress=False)
    assert {classes for _, _, classes in stored(tmp_path).values()} == {("0", "5"), ("5",), ("0", "17")}
    assert "labels are separated by blanks" in capsys.readouterr().out
    data = world(tmp_path / "mids", ["x"])
    lines = ["# Segments csv created Sun Mar  5 10:54:31 2017", '# num_ytids=24, a "quote', "id, start, end, labels"]
    rows = [
        f'v{number:03d}, 30.000, 40.000, "{("/m/09x0r,/t/dd00088", "/m/04rlf")[number % 2]}"' for number in range(24)
    ]
    (data / "labels.csv").write_text("\n".join([*lines, *rows]) + "\n")
    prepare(config(data), tmp_path, progress=False)
    found = stored(tmp_path)
    assert found["v000"][2] == ("/m/09x0r", "/t/dd00088")
    assert found["v001"][2] == ("/m/04rlf",)
    (data / "labels.csv").write_text("\n".join([*lines[:2], "# YTID, start, end, positive_labels", *rows]) + "\n")
    with pytest.raises(DataError, match=r"its first line has v000, 30\.000, .*write such a line above line 4"):
        prepare(config(data), tmp_path, progress=False)


REFUSED = {
    "NumPy": (["['Bass' 'Voice']", "['Bass']"], r"line 2: .* looks like a list or an object, .*set data\.separator to"),
    "numbers as NumPy prints them": (["[1. 0. 0.]", "[0. 1. 0.]"], r"line 2: .* looks like a list or an object"),
    "multi-hot, blanks": (["1 0 0", "0 1 1"], r"line 2: '1 0 0', as all cells, is 0 or 1 for each class; write the n"),
    "multi-hot, commas": (["1,0", "0,1"], r"line 2: '1,0', as all cells, is 0 or 1"),
    "multi-hot, lists": (["[1, 0, 0]", "[0, 1, 1]"], r"line 2: '\[1, 0, 0\]', as all cells, is 0 or 1"),
    "multi-hot, words": (["True;False", "False;True"], r"line 2: 'True;False', as all cells, is 0 or 1"),
    "objects": (['{"Bass": 1}', '{"Voice": 1}'], r"line 2: .* looks like a list or an object"),
    "bare words": (["Bass", "[Bass, Voice]"], r"line 3: '\[Bass, Voice\]' looks like a list"),
    "arrays": (["array(['Bass'], dtype='<U4')", "Voice"], r"line 2: .* looks like a list"),
    "some lists": (["Bass", "['Voice']"], r"line 2: 'Bass' is no list, but line 3 has"),
    "commas in lists": (["['Bass,Voice']", "['Voice']"], r"line 2: 'Bass,Voice' has \",\" between what may be other"),
    "one comma": (["Bass guitar, acoustic", "Voice"], r"line 2: .* may be one name, or 2 with .* to none or to comma"),
    "blanks": (["Bass Voice", "Bass", "Voice", "Voice Drum", "Drum"], r"line 2: .* to none or to blank"),
    "slashes": (["Bass/Voice", "Bass", "Voice", "Voice/Drum", "Drum"], r"line 2: .* to none or to slash"),
    "plus": (["Bass + Voice", "Bass", "Voice", "Voice + Drum", "Drum"], r"line 2: .* to none or to plus"),
    "ampersands": (["Bass & Voice", "Bass", "Voice", "Voice & Drum", "Drum"], r"line 2: .* with '&' between them"),
    "two separators": (["Bass;Voice", "Bass|Voice"], r"line 3: 'Bass\|Voice' has \"\|\" .*elsewhere .* by \";\""),
    "commas beside": (["Bass;Voice", "Drum,Voice"], r"line 3: 'Drum,Voice' has \",\" between"),
    "a comma of two names": (["Bass;Voice", "Bass, Voice"], r"line 3: 'Bass, Voice' has \",\" between"),
    "numbers beside": (["0;5", "0 5"], r"line 3: '0 5' has blanks between"),
    "a line inside": (["Bass;Voice\nDrum", "Bass"], r"line 2: id v000: label .* a line break .* inside; write"),
    "HTML": (["Arts &amp; Crafts", "Bass"], r"line 2: id v000: label 'Arts &amp' is a piece of HTML"),
    "capitals": (["Bass", "Voice", "bass"], r"line 4: 'bass' differs from 'Bass' \(line 2\) in capitals"),
    "width": (["Bass", "Ｂass"], r"line 3: 'Ｂass' differs from 'Bass' \(line 2\)"),
    "joiners": (["Bass", "Ba\u200dss"], r"line 3: .* differs from 'Bass' \(line 2\)"),
    "half a bracket": (["Bass;Voice", "[Bass;Drum]"], r"line 3: .*looks like|line 3: id v001: label '\[Bass' has half"),
    "lost letters": (["Bass;Voice", "Caf\ufffd"], r"line 3: id v001: label .* has lost a letter to a wrong encoding"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_can_be_read_in_two_ways_is_refused(tmp_path, kind):
    cells, message = REFUSED[kind]
    with pytest.raises(DataError, match=r"labels\.csv: " + message):
        prepare(config(world(tmp_path / "data", cells)), tmp_path / "work", progress=False)


def test_classes_may_be_called_0_and_1(tmp_path):
    """A cell may hold one twice; and a name in brackets may have a full stop inside."""
    data = world(tmp_path / "data", ["0", "1;1", "0;1", "[misc. sounds]"])
    prepare(config(data), tmp_path, progress=False)
    assert {name: cells[2] for name, cells in stored(tmp_path).items()}["v002"] == ("0", "1")


def test_names_with_commas_and_blanks_beside_semicolons(tmp_path):
    """Where the separator is clearly in use, nothing else separates."""
    names = ("Drum kit", "Bass guitar, acoustic", "Bass guitar, electric", "AC/DC", "Arts & Crafts", "kit", "a-b_c+d")
    data = world(tmp_path / "data", [";".join(names[:3]), ";".join(names[2:]), names[1]])
    prepare(config(data), tmp_path, progress=False)
    found = stored(tmp_path)
    assert set(found["v000"][2]) == set(names[:3])
    assert set(found["v001"][2]) == set(names[2:])
    assert found["v002"][2] == names[1:2]


def test_classes_of_ones_own_decide(tmp_path):
    """A cell that is a class is one label; names that differ in capitals alone are two classes if both are listed."""
    cells = ["Bass guitar, acoustic", "a b", "A", "a"]
    data = world(tmp_path / "data", cells)
    (data / "classes.csv").write_text('class\n"Bass guitar, acoustic"\na b\nA\na\n')
    prepare(config(data), tmp_path, progress=False)
    assert {classes for _, _, classes in stored(tmp_path).values()} == {(cell,) for cell in cells}
    (data / "classes.csv").write_text("class\nBass guitar\nacoustic\na\nb\nA\n")
    assert find_separator(data / "labels.csv", [(2, "a b"), (3, "b")], ("a", "b")) == "blank"
    assert find_separator(data / "labels.csv", [(2, "a,b"), (3, "c")], ("a", "b")) == "comma"


@pytest.mark.parametrize(
    ("separator", "expected"),
    [
        ("none", [("Bass, Voice",), ("Bass",), ("Voice|Drum",)]),
        ("comma", [("Bass", "Voice"), ("Bass",), ("Voice|Drum",)]),
        ("bar", [("Bass, Voice",), ("Bass",), ("Drum", "Voice")]),
    ],
)
def test_a_declared_separator_is_the_only_one(tmp_path, separator, expected):
    data = world(tmp_path / "data", ["Bass, Voice", "Bass", "Voice|Drum"])
    prepare(config(data, separator=separator), tmp_path, progress=False)
    found = stored(tmp_path)
    assert [found[f"v00{number}"][2] for number in range(3)] == expected


def test_odd_numbers_of_classes_are_told(tmp_path, capsys):
    data = world(tmp_path / "data", [f"class {number}" for number in range(24)])
    prepare(config(data), tmp_path, progress=False)
    told = capsys.readouterr().out
    assert "24 classes for 24 videos, nearly one a video; if it is the separator, say which" in told
    assert "24 classes; most videos have: class 0 (1), class 1 (1), class 10 (1), class 11 (1), class 12 (1)\n" in told
    prepare(config(world(tmp_path / "more", ["a, b;c", "d, e"])), tmp_path, progress=False)
    assert 'most names of classes have "," inside' in capsys.readouterr().out


def test_groups_are_read_like_labels(tmp_path):
    data = world(tmp_path / "data", ["Bass", "Voice"])

    def groups(text):
        (data / "classes.csv").write_text(text, encoding="utf-8")
        prepare(config(data), tmp_path, progress=False)
        return FrameStore(tmp_path / "frames" / "test").label_space.groups

    assert groups('class,groups\nBass,"Low,Strings"\nVoice,Low\n') == (("Low", "Strings"), ("Low",))
    assert groups("class,groups\nBass,Low；Strings\nVoice,\n") == (("Low", "Strings"), ())
    with pytest.raises(
        DataError, match=r"classes\.csv: line 2: 'Low, deep' may be one name, .*; put ';' after each name"
    ):
        groups('class,groups\nBass,"Low, deep"\nVoice,\n')
    with pytest.raises(DataError, match=r"classes\.csv: line 3: 'low' differs from 'Low' \(line 2\)"):
        groups("class,groups\nBass,Low\nVoice,low\n")


def test_settings_are_for_arrays(tmp_path):
    for key, value in (("separator", "comma"), ("rates", "mean")):
        with pytest.raises(ValueError, match="separator and rates are for source 'arrays'"):
            Data(source="yt8m", **{key: value})
    with pytest.raises(ConfigError, match="separator"):
        build(Data, {"source": "arrays", "label_space": "given", "separator": ";"}, "params.yaml")


@pytest.mark.parametrize(
    "cell", ["[" * 30_000, "[1, NaN]", "[[1]]", "[null]", "[1.5]", "[" + "(" * 200 + "]", "\\", "'"]
)
def test_hostile_cells_are_refused_in_words(cell):
    with pytest.raises(ValueError, match="is no list of names"):
        split(cell, "list")


def test_order_of_a_set_is_settled():
    """Python prints sets in any order; a run that goes on must find its rows unchanged."""
    assert split("{'b', 'a', 'c'}", "list") == ("a", "b", "c")
