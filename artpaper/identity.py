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
def code() -> str:
    """12 hex digits of a hash of this package's source, so that no run is begun by one version and ended by another."""
    told = hashlib.blake2b(digest_size=6)
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        told.update(path.read_bytes())
    return told.hexdigest()
