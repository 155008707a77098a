"""Whether the frame store, and the source it was made from, are still what they were when it was prepared.

``frames/shards.json`` has the size and the SHA-256 of every shard, taken while it was written, and the size of every
shard of the source. The store itself looks at the sizes of the shards that it opens; here all of it is read.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.base.atomic import atomic_file
from pipeline.base.errors import DataError
from pipeline.base.identity import content
from pipeline.base.parameters import Params
from pipeline.data.store import SHARDS
from pipeline.prepare.sources import resolve

OUTSIDE = ("yt8m", "audioset")  # sources whose shards are not the project's own


def write_record(path: Path, shards: Mapping[str, tuple[int, str]], inputs: Mapping[str, Mapping[str, int]]) -> None:
    """Keep what :func:`verify` compares with.

    Args:
        path: ``frames/shards.json``.
        shards: size in bytes and SHA-256 of each, by name.
        inputs: per partition the size in bytes of each shard of the source, by name.
    Raises:
        OutputError: it cannot be written.
    """
    told = {"shards": {name: {"bytes": size, "sha256": digest} for name, (size, digest) in shards.items()}}
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps({**told, "inputs": inputs}, indent=1) + "\n", encoding="utf-8")


def verify(params: Params, workspace: Path, *, progress: bool = True) -> str:
    """Read every shard of ``workspace/frames`` and compare it, and look at the sizes of the source's files.

    Args:
        params: group ``data`` says where the source's shards lie; what was generated or unpacked is not asked, nor are
            one's own arrays.
        workspace: holds ``frames/``.
        progress: show a bar.
    Returns:
        What was found to be as it was, in a sentence.
    Raises:
        DataError: the frames were not prepared, or not by a version that kept hashes; or what has changed, one a line.
    """
    folder = Path(workspace) / "frames"
    try:
        known: dict[str, Any] = json.loads((folder / SHARDS).read_text(encoding="utf-8"))
        shards, inputs = known["shards"], known["inputs"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / SHARDS}: nothing to compare with ({error}); run the prepare stage again") from None
    changed = []
    with tqdm(total=sum(one["bytes"] for one in shards.values()), unit="B", unit_scale=True, desc="verify",
              disable=not progress) as bar:  # fmt: skip
        for name, one in shards.items():
            path = folder / "shards" / name
            if not path.is_file():
                changed.append(f"{path}: is gone")
            elif path.stat().st_size != one["bytes"]:
                changed.append(f"{path}: has {path.stat().st_size:,} bytes, {one['bytes']:,} were written")
            elif content(path, "sha256") != one["sha256"]:
                changed.append(f"{path}: other bytes than were written")
            bar.update(one["bytes"])
    if changed:
        raise DataError("\n".join([*changed, "bring them back with `dvc checkout`, or run the prepare stage again"]))
    told = f"{len(shards)} shards are as they were written"
    if params.data.source in OUTSIDE and params.data.path and Path(params.data.path).is_dir():
        told += f"; {_compare(params, Path(workspace), inputs)} shards of the source have the size they had"
    return told


def _compare(params: Params, workspace: Path, inputs: Mapping[str, Mapping[str, int]]) -> int:
    """The number of the source's files, if all are there and of the size they had."""
    found = {
        f"{partition}: {piece.name}": piece.size
        for partition, pieces in resolve(params, workspace, progress=False).partitions.items()
        for piece in pieces
    }
    known = {f"{partition}: {name}": size for partition, sizes in inputs.items() for name, size in sizes.items()}
    lines = [f"{name}: {known.get(name, 'no')} bytes when it was prepared, {found.get(name, 'none')} now"
             for name in sorted(found.keys() | known.keys()) if found.get(name) != known.get(name)]  # fmt: skip
    if lines:
        raise DataError(
            "\n".join(
                [f"{params.data.path}: has changed since it was prepared:", *lines, "run the prepare stage again"]
            )
        )
    return len(found)
