"""Work for other processes, in a module that they import at once."""

import os
import signal


def explode(item: int) -> int:
    """The square, but of 1 nothing: its process is killed."""
    if item == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item * item
