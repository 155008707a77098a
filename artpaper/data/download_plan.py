"""Which files to download, from where, and under which names: the published plan of YouTube-8M, and AudioSet's files.

YouTube-8M's servers hold 3,844 shards a split, named ``train`` or ``validate``, two characters and ``.tfrecord``. The
first character counts 62, the second 1, in the order a-z, A-Z, 0-9: ``trainaa`` is train0000, ``trainab`` train0001,
``trainba`` train0062 and ``train99`` train3843. A part ``X,Y`` holds the shards whose name's MD5, as a number, leaves
X - 1 when divided by Y: it follows from the names alone, so that every download of a part is of the same videos.
"""

import hashlib
import json
import re
import string
from typing import Any
from urllib.parse import urlsplit

from artpaper.data.download_file import Remote
from artpaper.errors import DownloadError

SPLITS = ("train", "validate")  # the test split's labels were never released
MIRRORS = ("us", "eu", "asia")
CHARACTERS = string.ascii_lowercase + string.ascii_uppercase + string.digits
PLAN_LIMIT = 4 << 20  # bytes; a real plan has 0.2 MB


def plan_url(split: str, server: str | None) -> str:
    """The address of a split's plan, Google's or that of ``server`` with the same layout."""
    return f"{server or 'http://data.yt8m.org'}/2/download_plans/frame_{split}.json"


def read_plan(
    content: bytes, split: str, part: tuple[int, int], mirror: str = "us", server: str | None = None
) -> list[Remote]:
    """The files of a part of a plan, in the order of their names here.

    Args:
        content: JSON, ``{"files": {name: MD5}}``.
        split: ``train`` or ``validate``.
        part: (X, Y), the X-th of Y parts.
        mirror: ``us``, ``eu`` or ``asia``.
        server: instead of the mirror.
    Raises:
        DownloadError: it is no such plan, or names what no split has, such as a file outside the folder; or no file is
            in this part.
    """
    where = plan_url(split, server)
    base = f"{server or f'http://{mirror}.data.yt8m.org'}/2/frame/{split}"
    try:
        plan: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DownloadError(_no_plan(where, f"no JSON ({type(error).__name__})")) from None
    files = plan.get("files") if isinstance(plan, dict) else None
    if not isinstance(files, dict) or not files:
        raise DownloadError(_no_plan(where, 'no {"files": {name: MD5}}'))
    found = []
    for name, md5 in files.items():
        if not isinstance(md5, str) or not re.fullmatch("[0-9a-fA-F]{32}", md5):
            raise DownloadError(_no_plan(where, f"{name[:80]!r} has no MD5 of 32 hex digits"))
        try:
            file = Remote(f"{base}/{name}", local_name(name, split), md5.lower())
        except ValueError:
            raise DownloadError(_no_plan(where, f"{name[:80]!r} is no shard of {split}")) from None
        if in_part(name, part):
            found.append(file)
    if not found:
        raise DownloadError(
            f"part {part[0]},{part[1]} has none of the {len(files)} shards of {split}; lower the {part[1]}"
        )
    return sorted(found, key=lambda file: file.name)


def local_name(name: str, split: str) -> str:
    """``trainab.tfrecord`` is ``train0001.tfrecord``, as the published script has it.

    Raises:
        ValueError: it is not the name of a shard of ``split``.
    """
    found = re.fullmatch(rf"{split}([a-zA-Z0-9])([a-zA-Z0-9])\.tfrecord", name)
    if not found:
        raise ValueError(name)
    first, second = (CHARACTERS.index(character) for character in found.groups())
    return f"{split}{len(CHARACTERS) * first + second:04d}.tfrecord"


def in_part(name: str, part: tuple[int, int]) -> bool:
    """Whether the shard ``name``, as the server has it, belongs to part (X, Y)."""
    digest = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    return int(digest, 16) % part[1] == part[0] - 1


def audioset_files(mirror: str, server: str | None = None) -> list[Remote]:
    """AudioSet's features and its class list, which were published without MD5.

    Args:
        mirror: ``us``, ``eu`` or ``asia``, of the features; the class list is in the first alone.
        server: instead of both, with the same layout.
    """
    features, classes = (f"{server or f'https://storage.googleapis.com/{at}_audioset'}" for at in (mirror, MIRRORS[0]))
    return [
        Remote(f"{classes}/youtube_corpus/v1/csv/class_labels_indices.csv", "class_labels_indices.csv"),
        Remote(f"{features}/youtube_corpus/v1/features/features.tar.gz", "features.tar.gz"),
    ]


def vocabulary_url(server: str | None) -> str:
    """The address of YouTube-8M's vocabulary of 2018."""
    return f"{server or 'https://research.google.com'}/youtube8m/csv/2/vocabulary.csv"


def checked_server(server: str | None) -> str | None:
    """``server`` without a slash at its end.

    Raises:
        DownloadError: it is no http or https address.
    """
    if server is None:
        return None
    try:
        parts = urlsplit(server)
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or bool(parts.query or parts.fragment)
    except ValueError:
        wrong = True
    if wrong:
        raise DownloadError(f"--server {server}: no address of a server; expected such as http://localhost:8000")
    return server.rstrip("/")


def _no_plan(where: str, why: str) -> str:
    return (
        f"{where}: not a plan of YouTube-8M: {why}; nothing was fetched. Is there a proxy or a login page in between?"
    )
