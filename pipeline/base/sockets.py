"""Where Unix sockets fit: their paths are short (107 bytes on Linux), and not every file system takes them."""

import tempfile
from contextlib import suppress
from pathlib import Path
from socket import AF_UNIX, socket

from pipeline.base.errors import ConfigError

PREFIX = "artpaper-"
SHORT = ("/tmp", "/var/tmp", "/dev/shm")


def socket_folder(name: str) -> Path:
    """A folder for temporary files in which a folder with :data:`PREFIX` can hold a socket: TMPDIR, or a short one.

    ``name`` is the longest of the sockets, relative to the folder with the prefix.
    """
    reason = None
    with suppress(OSError):  # none at all, not even the current folder
        for folder in dict.fromkeys((tempfile.gettempdir(), *SHORT)):
            try:
                with tempfile.TemporaryDirectory(prefix=PREFIX, dir=folder) as tried, socket(AF_UNIX) as trial:
                    Path(tried, name).parent.mkdir(parents=True, exist_ok=True)
                    trial.bind(f"{tried}/{name}")
                return Path(folder)
            except OSError as error:
                reason = reason or f"{folder}: {error.strerror or error}"
    raise ConfigError(
        f"no folder for the Unix sockets of this run ({reason or 'none can be written'}; nor {', '.join(SHORT)}):"
        " set TMPDIR to a folder of this machine with a short path that can be written, such as TMPDIR=/run/user/$UID"
    )
