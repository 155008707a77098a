"""Write a file or a folder under a temporary name and give it its own name only when it is whole."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_file(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` on success, remove it on any error.

    Args:
        path: the file to make; missing parent folders are made.
        durable: wait until the disk has it, so that it survives a loss of power too; what can be remade need not wait.
    Raises:
        OSError: the folder cannot be written, or the disk is full; nothing is left under ``path``'s name that was not
            there before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if durable:
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace_folder(made: str | Path, path: str | Path) -> None:
    """Put the finished folder ``made`` in the place of ``path``, removing what stood there.

    Args:
        made: a complete folder on the same file system.
        path: its final place.
    Raises:
        OSError: the rename failed; ``made`` still holds everything.
    """
    made, path = Path(made), Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    os.replace(made, path)
