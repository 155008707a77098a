"""Short names for what a result is made from, parameters and code: unfinished work goes on only under the same."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any


def fingerprint(values: Any) -> str:
    """12 hex digits of a hash of ``values`` as JSON."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=6).hexdigest()


@cache
def code(*names: str) -> str:
    """12 hex digits of a hash of this package's source, so that no run is begun by one version and ended by another.

    Args:
        names: modules (``losses.py``) and folders (``attacks``) of the package; all of it by default.
    """
    root = Path(__file__).parent
    told = hashlib.blake2b(digest_size=6)
    for place in [root / name for name in names] or [root]:
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            told.update(path.read_bytes())
    return told.hexdigest()


def content(path: Path, method: str = "blake2b") -> str:
    """A hash of a file's bytes, in hex digits.

    Args:
        path: of the file.
        method: any of ``hashlib``'s.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, method).hexdigest()
