"""Write a file or a folder under a temporary name and give it its own name only when it is whole."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    """Turn a lack of room or permission for ``path``, which is made in here, into an OutputError with its remedy."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        refusal = OutputError(f"{Path(path).absolute()}: cannot be written ({error.strerror}): {REMEDIES[error.errno]}")
        refusal.errno = error.errno
        raise refusal from None


@contextmanager
def atomic_file(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` on success, remove it on any error.

    ``durable`` waits until the disk has it, so that it survives a loss of power too; what can be remade need not wait.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            if durable:
                with open(temporary, "rb") as file:
                    os.fsync(file.fileno())
            temporary.chmod(0o644)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def save_text(text: str, path: str | Path, *, durable: bool = True) -> Path:
    """Write a text as UTF-8 with plain line ends."""
    with atomic_file(path, durable=durable) as temporary:
        temporary.write_bytes(text.encode())
    return Path(path)


def save_json(values: Any, path: str | Path, *, durable: bool = True, indent: int = 1, **how: Any) -> Path:
    """Write values as JSON, ``how`` as :func:`json.dumps` takes it, with a line end."""
    return save_text(json.dumps(values, indent=indent, **how) + "\n", path, durable=durable)


def replace_folder(finished: str | Path, path: str | Path) -> None:
    """Put the folder ``finished``, on the same file system, in the place of ``path``, removing what stood there."""
    finished, path = Path(finished), Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(finished, path)
