"""One run at a time makes one thing: the second is told at once who is at work, and since when."""

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from pipeline.base.atomic import writing
from pipeline.base.errors import BusyError


@contextmanager
def alone(folder: Path, *names: str) -> Iterator[None]:
    """Hold ``folder/<name>.lock`` for every name; the locks go with the process, however that ends.

    Whatever two runs must not do at once needs a name that both hold; the second gets a BusyError that names the first.
    """
    with ExitStack() as held:
        for name in sorted(set(names)):
            held.enter_context(_held(folder / f"{name}.lock"))
        yield


@contextmanager
def _held(path: Path) -> Iterator[None]:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        locked = _locked(path)
    with locked as file:
        try:
            now = datetime.now(UTC).isoformat(" ", "seconds")  # told to people; nothing is decided by it
            with writing(path):
                file.write(f"process {os.getpid()} on {platform.node()}, since {now}\n".encode())
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is held: who waits for this file sees that it is gone


def _locked(path: Path) -> FileIO:
    while True:
        file = open(path, "ab+", buffering=0)  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            other = file.read().decode(errors="replace").strip() or "a process that has just begun"
            file.close()
            raise BusyError(
                f"{path.parent.resolve()}: another run is at work on {path.stem} here ({other}); wait for it, or "
                "stop it, and run again: what is finished is kept"
            ) from None
        except OSError:
            pass  # a file system without locks, as Lustre often is
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)  # what a killed holder wrote
                return file
        except FileNotFoundError:
            pass
        file.close()  # its holder removed it between our opening and our locking it
