"""Write a file or a folder under a temporary name and give it its own name only when it is whole."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.base.errors import OutputError

AGAIN = "run again: what is finished is kept"
REMEDIES = {
    errno.ENOSPC: f"no space left on this disk; free some, or move the folder to a larger disk, then {AGAIN}",
    errno.EDQUOT: f"your quota on this disk is used up; free some, or move the folder to another disk, then {AGAIN}",
    errno.EFBIG: f"a file may not grow so large here; raise the limit (`ulimit -f`), then {AGAIN}",
    errno.EROFS: f"this file system is mounted read-only; move the folder to one that can be written, then {AGAIN}",
    errno.EACCES: f"no permission to write there; see `ls -ld`, get it with `chmod u+w`, then {AGAIN}",
    errno.EPERM: f"writing there is not permitted; see `ls -ld` and `lsattr -d`, then {AGAIN}",
}


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Say what to do where ``path`` cannot be written.

    Args:
        path: the file or folder that is being made in here.
    Raises:
        OutputError: no permission, a read-only file system or a full disk; other errors are passed on as they are.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        told = OutputError(f"{Path(path).absolute()}: cannot be written ({error.strerror}): {REMEDIES[error.errno]}")
        told.errno = error.errno
        raise told from None


@contextmanager
def atomic_file(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` on success, remove it on any error.

    Args:
        path: the file to make; missing parent folders are made.
        durable: wait until the disk has it, so that it survives a loss of power too; what can be remade need not wait.
    Raises:
        OutputError: the folder cannot be written, or the disk is full; nothing is left under ``path``'s name that was
            not there before.
    """
    with writing(path), _atomic_file(Path(path), durable) as temporary:
        yield temporary


@contextmanager
def _atomic_file(path: Path, durable: bool) -> Iterator[Path]:
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
        OutputError: the rename failed; ``made`` still holds everything.
    """
    made, path = Path(made), Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(made, path)
