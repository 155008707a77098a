"""Whether the frame store, and the source it was made from, are still what they were when it was prepared.

``frames/shards.json`` has the size and the SHA-256 of every shard, taken while it was written, and the size of every
shard of the source. The store itself looks at the sizes of the shards that it opens; here all of it is read.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.base.atomic import save_json
from pipeline.base.errors import DataError
from pipeline.base.identity import content
from pipeline.base.parameters import Params
from pipeline.base.sources import SOURCES
from pipeline.data.store import SHARDS
from pipeline.data.video import resolve


def write_record(path: Path, shards: Mapping[str, tuple[int, str]], inputs: Mapping[str, Mapping[str, int]]) -> None:
    """Keep what :func:`verify` compares with: bytes and SHA-256 of each shard, bytes of the source's, by partition."""
    written = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in shards.items()}
    save_json({"shards": written, "inputs": inputs}, path)


def verify(params: Params, workspace: Path, *, progress: bool = True) -> str:
    """Read every shard of ``workspace/frames`` and compare it, and look at the sizes of the source's files.

    What was generated or unpacked is not asked for, nor are one's own arrays. DataError lists what has changed.
    """
    folder = workspace / "frames"
    try:
        record: dict[str, Any] = json.loads((folder / SHARDS).read_text(encoding="utf-8"))
        shards, inputs = record["shards"], record["inputs"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / SHARDS}: nothing to compare with ({error}); run the prepare stage again") from None
    changed = []
    total = sum(shard["bytes"] for shard in shards.values())
    with tqdm(total=total, unit="B", unit_scale=True, desc="verify", disable=not progress) as bar:
        for name, shard in shards.items():
            path = folder / "shards" / name
            if not path.is_file():
                changed.append(f"{path}: is gone")
            elif path.stat().st_size != shard["bytes"]:
                changed.append(f"{path}: has {path.stat().st_size:,} bytes, {shard['bytes']:,} were written")
            elif content(path, "sha256") != shard["sha256"]:
                changed.append(f"{path}: other bytes than were written")
            bar.update(shard["bytes"])
    if changed:
        raise DataError("\n".join([*changed, "bring them back with `dvc checkout`, or run the prepare stage again"]))
    message = f"{len(shards)} shards are as they were written"
    source = SOURCES[params.data.source]
    if source.shards and source.path and params.data.path and Path(params.data.path).is_dir():
        message += f"; {_compare_inputs(params, workspace, inputs)} shards of the source have the size they had"
    return message


def _compare_inputs(params: Params, workspace: Path, known: Mapping[str, Mapping[str, int]]) -> int:
    """The number of the source's files, if all are there and of the size they had."""
    now = {
        f"{partition}: {piece.name}": piece.size
        for partition, pieces in resolve(params, workspace, progress=False).partitions.items()
        for piece in pieces
    }
    then = {f"{partition}: {name}": size for partition, sizes in known.items() for name, size in sizes.items()}
    lines = [
        f"{name}: {then.get(name, 'no')} bytes when it was prepared, {now.get(name, 'none')} now"
        for name in sorted(now.keys() | then.keys())
        if now.get(name) != then.get(name)
    ]
    if lines:
        head = f"{params.data.path}: has changed since it was prepared:"
        raise DataError("\n".join([head, *lines, "run the prepare stage again"]))
    return len(now)
