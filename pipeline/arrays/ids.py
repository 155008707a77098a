"""The name of a video in labels.csv and that of its array: which forms are the same, and which was probably meant."""

import difflib
import itertools
import re
import unicodedata
from collections.abc import Iterable

COMPARED = 10_000  # names; letter by letter takes a millisecond for every ten


def forms(name: str) -> list[str]:
    """A name in Unicode's composed and its decomposed form, where these differ: some systems store the second."""
    return [name] if name.isascii() else list(dict.fromkeys([name, unicodedata.normalize("NFD", name)]))


def alike(name: str, there: Iterable[str]) -> str | None:
    """The file or dataset that was probably meant; None if none is near.

    Args:
        name: an id.
        there: the names of all.
    Returns:
        One that differs in Unicode form, capitals, invisible characters, leading zeros, or extension alone, if there is
        one; otherwise the nearest.
    """
    known = sorted(there)
    core = _core(name)
    same = next((other for other in known if _core(other) == core), None)
    if same is not None:
        return same
    names = {other.removesuffix(".npy"): other for other in itertools.islice(known, COMPARED)}
    return next((names[near] for near in difflib.get_close_matches(name, names, n=1, cutoff=0.6)), None)


def meant(near: str | None, suffix: str = "") -> str:
    """The end of a message about a missing array: what :func:`alike` found, and the id of that one.

    Args:
        near: what was found.
        suffix: of all arrays of this modality.
    """
    if near is None:
        return ""
    if not near.endswith(suffix):
        return f"; the nearest there is {_spelt(near)}, which is no {suffix} file"
    return f"; the nearest there is {_spelt(near)}: if it is meant, make {_spelt(near.removesuffix(suffix))} the id"


def _spelt(name: str) -> str:
    """A name, and its letters one by one where they may look like others."""
    return name if name.isascii() and name == name.strip() else f"{name} ({name!a})"


def _core(name: str) -> str:
    """What is left of a name without its way of writing."""
    seen = "".join(letter for letter in unicodedata.normalize("NFKC", name) if letter.isprintable() and letter != " ")
    stem = re.sub(r"(\.[a-z]\w{1,4}|\.0)+$", "", seen.casefold())
    return re.sub(r"0*(\d+)", r"\1", unicodedata.normalize("NFKC", stem))
