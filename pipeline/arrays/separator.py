"""Where one label ends and the next begins in a cell of labels.csv: declared, seen from the whole file, or asked for.

A guess that is wrong makes each combination of labels a class of its own, and nothing fails. So a separator is taken
from the file only where the file leaves no doubt; elsewhere the message names ``data.separator``.
"""

import ast
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from pipeline.base.errors import DataError

SEPARATORS = {  # by their names in data.separator: the characters, with those that other scripts use for them
    "semicolon": ";；﹔؛",
    "line": "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029",
    "tab": "\t",
    "bar": "|｜¦",
    "comma": ",，、،､﹐﹑",
    "slash": "/／",
    "plus": "+＋",
    "blank": " ",
}
SHOWN = {"semicolon": '";"', "line": "line breaks", "tab": "tabs", "bar": '"|"', "comma": '","', "slash": '"/"',
         "plus": '"+"', "blank": "blanks"}  # fmt: skip
KNOWN = set("".join(SEPARATORS.values())) | set("()[]{}'\"")
CERTAIN = ("semicolon", "line", "tab", "bar")  # no name of a class holds one of these
MOST = 100_000  # different cells that are looked at; the labels of millions of videos need not fit into memory

BLANKS = "\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
INVISIBLE = "\xad\u180e\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
PLAIN = str.maketrans(BLANKS, " " * len(BLANKS), INVISIBLE)
QUOTED = re.compile(r"""(['"])([^'"]+)\1""")
LIST = re.compile(r"(array|Index|set|frozenset|tuple|list)?\(*[\[({].*[\])}]\)*", re.DOTALL)
INSIDE_LIST = re.compile(r"""['",:]|\d\.?\s|{}""")
ZERO_ONE = {"0", "1", "0.", "1.", "0.0", "1.0", "false", "true"}
BROKEN = (
    (re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]"), "has a tab, a line break or another control character inside"),
    (re.compile(r"\ufffd"), "has lost a letter to a wrong encoding"),
    (re.compile(r"&(amp|lt|gt|quot|nbsp|#\w+)$"), "is a piece of HTML"),
    (re.compile(r"^[,|]|[,|]$"), "begins or ends with a separator"),
    (
        re.compile(r'^(?=.*\w)(\([^)]*|\[[^]]*|{[^}]*|"[^"]*|[^(]*\)|[^[]*\]|[^{]*})$'),
        "has half a pair of brackets or quotes",
    ),
)


def tidy(text: str) -> str:
    """One way of writing: Unicode's composed form, plain blanks, nothing invisible, no blanks around."""
    return text.strip() if text.isascii() else unicodedata.normalize("NFC", text.translate(PLAIN)).strip()


def split(cell: str, separator: str) -> tuple[str, ...]:
    """The labels of one cell in their order, those of a set sorted; ``separator`` as :func:`find_separator` gives it.

    ValueError says which label can be none and why, or that a cell is no list where all are.
    """
    cell = tidy(cell)
    parts = _listed(cell) if separator == "list" and cell else _cut(cell, separator)
    if parts is None:
        raise ValueError(f"{cell!r} is no list of names as Python or JSON writes it")
    return tuple(filter(None, map(_name, parts)))


def find_separator(
    path: Path, cells: Iterable[tuple[int, str]], known: Collection[str] = (), declared: bool = True
) -> str:
    """The separator of a column: ``list``, ``none`` or one of :data:`SEPARATORS`.

    ``cells`` are the line and the labels of each video, or the groups of each class. Where the classes are ``known``,
    it is the separator that makes these names. ``declared`` says whether ``data.separator`` can say it. Cells that can
    be read in two ways are refused.
    """
    seen: dict[str, int] = {}
    letters: set[str] = set()
    for line, raw in cells:
        cell = tidy(raw)
        letters.update(cell)
        if cell and len(seen) < MOST:
            seen.setdefault(cell, line)
    candidates = [separator for separator in SEPARATORS if letters.intersection(SEPARATORS[separator])]
    if known and (fitting := _fitting(seen, known, candidates)):
        return fitting
    if _all_listed(path, seen, declared):
        return "list"
    for separator in CERTAIN:
        if separator in candidates:
            return separator
    marks = (letter for letter in letters - KNOWN if unicodedata.category(letter)[0] in "PS")
    for separator in ("comma", "slash", "plus", *sorted(marks), "blank"):
        several = {cell: names for cell in seen if len(names := _cut(cell, separator)) > 1}
        if not several:
            continue
        alone = {name for cell in seen for name in _cut(cell, separator)}
        numbers, explained = all(map(str.isdecimal, alone)), _explained(seen, separator)
        if separator in ("comma", "blank") and numbers:
            return separator
        if separator == "comma" and (explained or all(map(_close, several))):
            return separator
        if separator == "comma" or (numbers and separator in SEPARATORS) or (explained and len(alone) < len(seen)):
            cell, parts = next(iter(several.items()))
            choice = f"none or to {separator}" if separator in SEPARATORS else "none, or put ';' in its place"
            raise DataError(
                f"{path}: line {seen[cell]}: {cell!r} may be one name, or {len(parts)} with "
                f"{SHOWN.get(separator, repr(separator))} between them; {_remedy(declared, choice)}"
            )
    return "none"


def refuse_multi_hot(path: Path, cells: Iterable[tuple[int, str]], separator: str) -> None:
    """Refuse a column of which every cell has a 0 or 1 for each class: these would be two classes, which all have."""
    lengths, shown = set[int](), ""
    for line, raw in cells:
        cell = tidy(raw)
        parts = (_listed(cell) if separator == "list" else _cut(cell, separator)) or []
        lengths.add(len(parts))
        shown = shown or f"line {line}: {cell!r}"
        if len(parts) < 2 or len(lengths) > 1 or not ZERO_ONE.issuperset(map(str.casefold, parts)):
            return
    raise DataError(f"{path}: {shown}, as all cells, is 0 or 1 for each class; write the names of those that are 1")


def describe(separator: str) -> str:
    """How the labels of a cell are told apart, in words."""
    if separator in SHOWN:
        return f"labels are separated by {SHOWN[separator]}"
    return {"list": "labels are lists, as Python and JSON write them", "none": "each cell is one label"}[separator]


def check_names(path: Path, lines: Mapping[str, int], separator: str, declared: bool = True) -> None:
    """Refuse names of which one is probably another in disguise; ``lines`` says where each first stands."""
    alike: dict[str, str] = {}
    for name, line in lines.items():
        other = alike.setdefault(_bare(name), name)
        if other != name:
            raise DataError(
                f"{path}: line {line}: {name!r} differs from {other!r} (line {lines[other]}) in capitals, width "
                "or invisible characters alone; write both alike, or, if they are two classes, list them in classes.csv"
            )
    for rest in SEPARATORS if separator != "none" else ():
        doubted = next((name for name in lines if _is_several(name, rest, lines)), None)
        if doubted:
            raise DataError(
                f"{path}: line {lines[doubted]}: {doubted!r} has {SHOWN[rest]} between what may be other names, and "
                f"elsewhere {describe(separator)}; write all alike, or, if it is one, {_remedy(declared, separator)}"
            )


def doubts(names: Collection[str], videos: int) -> list[str]:
    """What looks odd about the classes of so many videos, in words; none if nothing does."""
    messages = []
    if 2 * len(names) > videos:
        messages.append(f"{len(names)} classes for {videos} videos, nearly one a video")
    for separator, shown in SHOWN.items():
        if separator != "blank" and 2 * sum(len(_cut(name, separator)) > 1 for name in names) > len(names):
            messages.append(f"most names of classes have {shown} inside")
    return [f"{message}; if it is the separator, say which one with data.separator" for message in messages]


def _remedy(declared: bool, choice: str) -> str:
    return f"set data.separator to {choice}" if declared else "put ';' after each name"


def _cut(cell: str, separator: str) -> list[str]:
    """The names in a cell; ``separator`` may also be a letter."""
    if separator == "none" or (separator == "slash" and cell.startswith("/")):  # /m/04rlf is one name
        return [cell]
    return [part for piece in _pattern(separator).split(cell) if (part := piece.strip())]


@lru_cache
def _pattern(separator: str) -> re.Pattern[str]:
    return re.compile(f"[{re.escape(SEPARATORS.get(separator, separator))}]")


@lru_cache(1 << 16)
def _name(text: str) -> str:
    """One label, in one way of writing."""
    name = re.sub(" +", " ", text.strip())
    quoted = QUOTED.fullmatch(name)
    name = quoted[2].strip() if quoted else name
    for pattern, why in BROKEN:
        if pattern.search(name):
            raise ValueError(f"label {name!r} {why}; write the name alone")
    return name


def _bare(name: str) -> str:
    """What is left of a name without capitals, width and whatever cannot be seen."""
    letters = (letter for letter in unicodedata.normalize("NFKC", name) if unicodedata.category(letter) != "Cf")
    return unicodedata.normalize("NFKC", "".join(letters).casefold())


def _listed(cell: str) -> list[str] | None:
    """The names in a list as Python or JSON writes it; None if it is none."""
    if not LIST.fullmatch(cell):
        return None
    try:
        names = json.loads(cell)
    except (ValueError, RecursionError):
        if re.search(r"""['"]\s+['"]""", cell):  # NumPy prints no commas, and Python takes 'a' 'b' for 'ab'
            return None
        try:
            names = ast.literal_eval(cell.removeprefix("frozenset").removeprefix("set"))
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return None
    if not isinstance(names, list | tuple | set) or not all(type(name) in (str, int) for name in names):
        return None
    tidied = [tidy(str(name)) for name in names]
    return sorted(tidied) if isinstance(names, set) else tidied


def _all_listed(path: Path, seen: Mapping[str, int], declared: bool) -> bool:
    """Whether every cell is a list; refuses some that are, and what looks like one and is none."""
    listed = {cell for cell in seen if _listed(cell) is not None}
    for cell, line in seen.items():
        if cell in listed:
            continue
        if LIST.fullmatch(cell) and INSIDE_LIST.search(cell):
            raise DataError(
                f"{path}: line {line}: {cell!r} looks like a list or an object, but is no list of names as Python or "
                f"JSON writes it; write the names with ';' between them, or, if it is one, {_remedy(declared, 'none')}"
            )
        if listed:
            other = next(iter(listed))
            raise DataError(
                f"{path}: line {line}: {cell!r} is no list, but line {seen[other]} has {other!r}; write all alike, or, "
                f"if they are names, {_remedy(declared, 'none')}"
            )
    return bool(listed)


def _fitting(seen: Mapping[str, int], known: Collection[str], candidates: Sequence[str]) -> str | None:
    """The separator that makes known names of most cells, the fewest cuts first; None if it makes none."""
    names = frozenset(known)

    def fits(separator: str) -> int:
        count = 0
        for cell in seen:
            try:
                count += names.issuperset(split(cell, separator))
            except ValueError:
                continue
        return count

    best = max(("none", *candidates, "list"), key=fits)
    return best if fits(best) else None


def _close(cell: str) -> bool:
    """Whether commas stand as they do not inside a name: no blank after one, and not between two digits."""
    return not re.search(r",(\s|(?<=\d,)\d)", cell)


def _explained(cells: Collection[str], separator: str) -> bool:
    """Whether of the cells with the separator at least half have names alone that other cells have too."""
    where = Counter(name for cell in cells for name in set(_cut(cell, separator)))
    several = [names for cell in cells if len(names := _cut(cell, separator)) > 1]
    return 0 < len(several) <= 2 * sum(all(where[name] > 1 for name in names) for names in several)


def _is_several(name: str, separator: str, names: Collection[str]) -> bool:
    """Whether a name is probably several, with another separator between them than elsewhere."""
    parts = _cut(name, separator)
    if len(parts) < 2 or separator in CERTAIN:
        return len(parts) > 1
    if separator == "blank":
        return all(map(str.isdecimal, parts))
    return all(part in names for part in parts) or (separator == "comma" and _close(name))
