"""The process a notebook runs in: always this interpreter, without anybody's profile, and with a reason when it dies.

Jupyter would take the first ``python3`` it finds, in JUPYTER_PATH or the user's home, and IPython would run the user's
startup files: results of another Python under the provenance of this one. What the caller's PYTHONPATH and PYTHONHOME
say holds here as there, for the caller runs under them too.
"""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import ensure_event_loop, run_sync
from nbclient.exceptions import CellExecutionError
from papermill.exceptions import PapermillExecutionError

from pipeline.base.errors import ArtpaperError
from pipeline.base.sockets import PREFIX, socket_folder

PATIENCE = 300  # seconds to start: libraries may come over a network
SETTLE = 30.0  # seconds to end when asked to
LAST = 8  # lines of its last words
AGAIN = "the same command goes on where it stopped"

CRASHED = "compiled code crashed; install anew (`make clean setup`), and if it crashes again, its last words say where"
REASONS: dict[int, str] = {
    **dict.fromkeys((signal.SIGTERM, signal.SIGHUP, signal.SIGINT), "somebody, or the batch system, ended it"),
    signal.SIGKILL: "so ends what takes more memory than there is, or than a batch system allows; free some, ask for "
    "more, or lower compute.workers",
    signal.SIGXCPU: "it used up its processor time; raise the limit (`ulimit -t`)",
    signal.SIGILL: "an installed package uses an instruction that this processor lacks; install one built for it",
    signal.SIGBUS: "a file shrank, or a disk filled up, while it was being read; see `df -h`",
}


class NotebookError(ArtpaperError):
    """A notebook stopped with an error of its own, or its process ended before it did."""


class Kernel(AsyncKernelManager):
    """A process of this interpreter for one notebook; it talks over Unix sockets, so nothing listens on a port."""

    def __init__(self, folder: Path) -> None:
        """Keep its sockets, its IPython files and what it says on its way out in ``folder``, a short path."""
        super().__init__(connection_file=str(folder / "kernel.json"), transport="ipc", ip=str(folder / "kernel"))
        self.shutdown_wait_time = 2 * SETTLE
        self._folder, self._words = folder, folder / "words"
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[Any] = []

    @property
    def kernel_spec(self) -> KernelSpec:
        """This interpreter, whatever kernelspecs, settings and the notebook itself name."""
        command = ["-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}"]  # as ipykernel's own
        local = {"provisioner_name": "local-provisioner"}  # or JUPYTER_DEFAULT_PROVISIONER_NAME chooses
        return KernelSpec(
            argv=[sys.executable, *command, "--IPKernelApp.capture_fd_output=False"],
            display_name="Python 3",
            language="python",
            metadata={"kernel_provisioner": local},
        )

    async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
        """Start it. What cells print comes as messages; what compiled code and workers write to stderr is kept."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONSTARTUP"}
        environment |= {"IPYTHONDIR": str(self._folder / "ipython"), "PYTHONUTF8": "1", "PYTHONFAULTHANDLER": "1"}
        environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow greets whoever imports it
        if "utf" not in str(getattr(sys.stderr, "encoding", "")).lower():
            environment.setdefault("TQDM_ASCII", " #")  # bars that can be shown
        with open(self._words, "wb") as words:
            await super().start_kernel(**options | {"env": environment, "stderr": words})
        self._process = getattr(self.provisioner, "process", None)

    def client(self, **options: Any) -> Any:
        """Of nbclient, which leaves it open."""
        self._clients.append(super().client(**options))
        return self._clients[-1]

    async def end(self, *, interrupt: bool) -> None:
        """Ask it to end, wait until it has, pass on what it wrote to stderr, and close what is left.

        ``interrupt`` stops the cell that is running; an idle process would take the signal as an error, and leave its
        tasks behind with words of asyncio. It is asked as a cell would, by exit: Jupyter's own request is answered in
        a thread that may then wait 10 s, and 10 more, for another thread that has ended.
        """
        if self._process is not None and self._process.poll() is None:
            if not interrupt:
                self._clients[-1].execute("exit", silent=True)
                await self.finish_shutdown()
                sys.stderr.write(self._words.read_text(encoding="utf-8", errors="replace"))
            await self.shutdown_kernel()
        await self.cleanup_resources()
        for client in self._clients:
            client.stop_channels()

    def death(self) -> str | None:
        """Why it ended: signal or exit status, the remedy, and its last words. None while it runs."""
        status = self._process.poll() if self._process is not None else None
        if status is None:
            return None
        if status < 0:
            name = next((known.name for known in signal.Signals if known == -status), "of real time")
            reason = f"its process was ended by signal {-status} ({name}): {REASONS.get(-status, CRASHED)}; {AGAIN}"
        else:
            reason = f"its process ended by itself, with exit status {status}; `make lab` runs it cell by cell"
        words = [line[:200] for line in self._words.read_text(encoding="utf-8", errors="replace").splitlines() if line]
        crash = [place for place, line in enumerate(words) if line.startswith("Current thread")]  # innermost call first
        words = words[crash[-1] :][:LAST] if crash else words[-LAST:]
        return "\n  ".join([reason + (". Its last words:" if words else ""), *words])


@contextmanager
def kernel(notebook: Path) -> Iterator[Kernel]:
    """A kernel for one notebook, ended with all that belongs to it; a NotebookError says why it ended in here."""
    logging.getLogger("papermill").addHandler(logging.NullHandler())  # it tells deaths too, without their reason
    with tempfile.TemporaryDirectory(
        prefix=PREFIX, dir=socket_folder("kernel-9"), ignore_cleanup_errors=True
    ) as folder:
        process, idle = Kernel(Path(folder)), False
        try:
            yield process
            idle = True
        except (CellExecutionError, PapermillExecutionError):
            idle = True
            raise
        except Exception as error:
            reason = process.death()
            if "respond in" in str(error):  # and was ended for it
                reason = f"its process did not answer within {PATIENCE} s of its start; {AGAIN}"
            if reason is None:
                raise
            raise NotebookError(f"{notebook}: {reason}") from None
        finally:
            run_sync(process.end)(interrupt=not idle)
            _close_loop()


def _close_loop() -> None:
    """End the event loop on which papermill ran, with what still waits there; in an own loop of the caller, nothing."""
    loop = ensure_event_loop()
    if loop.is_running():
        return
    waiting = asyncio.all_tasks(loop)
    for task in waiting:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*waiting, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
