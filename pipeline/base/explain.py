"""What does not fit in a parameter file, in words: the key, the value, and the nearest name that would do."""

import dataclasses
import difflib
from typing import Any

SHOWN = 200  # characters of a wrong value


def explain(cls: type, item: Any) -> str:
    """One line about one of pydantic's errors on ``cls``."""
    place = [str(part) for part in item["loc"]]
    name = ".".join(place) or cls.__name__
    if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown parameter {name}{nearest(place[-1], _known_names(cls, place[:-1]))}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{name}: {message}" if place else message
    given = repr(item["input"])
    shown = given if len(given) <= SHOWN else f"{given[:SHOWN]} ..."
    return f"{name}: {message[0].lower()}{message[1:]}, got {shown}"


def _known_names(cls: Any, place: list[str]) -> list[str]:
    for part in place:
        if dataclasses.is_dataclass(cls):
            cls = next((field.type for field in dataclasses.fields(cls) if field.name == part), None)
        elif getattr(cls, "__origin__", None) is dict:
            cls = cls.__args__[1]
    return [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []


def nearest(name: str, known: list[str]) -> str:
    """The end of a message about an unknown name: the one that was probably meant, or all there are."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known here: {', '.join(known)}" if known else ""
