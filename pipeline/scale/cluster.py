"""A Ray cluster: joined and left again, its machines looked at, and what a process on one of them is given.

Only this module and :mod:`pipeline.scale.engine`, which gives it work, know Ray.
"""

import math
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.errors import ArtpaperError
from pipeline.base.groups import Compute
from pipeline.base.identity import ROOT, code
from pipeline.base.sockets import socket_folder

PATIENCE = 10.0  # seconds for a cluster to answer; Ray itself would try for minutes
RAY_SOCKET = "ray/session_2000-01-01_00-00-00_000000_1234567/sockets/plasma_store"

_ours = False  # whether Ray started this process for a piece of our work


def spreads(compute: Compute) -> bool:
    """Whether work goes to a cluster: the parameters say so, and this process is not itself one of the cluster's."""
    return compute.engine == "ray" and not _ours


@dataclass(frozen=True)
class Place:
    """What a process of the cluster is given: the caller's folder, one for scratch, and its part of a machine."""

    folder: str
    shared: str
    cpus: int
    gpus: float

    @classmethod
    def on_cluster(cls, compute: Compute, shared: str, *, gpu: bool, all_at_once: bool) -> "Place":
        """An equal part for each worker, as large as the machines allow; of GPUs a whole one where all run at once."""
        import ray

        resources = [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
        machines = [(int(have.get("CPU", 0)), int(have.get("GPU", 0))) for have in resources]
        gpus = sum(gpus for _, gpus in machines) if gpu else 0
        on_one = math.ceil(compute.workers / gpus) if gpus and not all_at_once else 1  # workers on a GPU

        def room(part: int) -> int:
            return sum(min(cores // part, own * on_one) if gpus else cores // part for cores, own in machines)

        parts = [part for part in range(1, 1 + max(cores for cores, _ in machines)) if room(part) >= compute.workers]
        if not room(1) or (all_at_once and not parts):
            sizes = ", ".join(f"{cores} cores and {own} GPUs" if gpus else f"{cores} cores" for cores, own in machines)
            raise ArtpaperError(
                f"compute.workers is {compute.workers}, but the cluster has room for {room(1)}: machines of {sizes}; "
                "lower it, or add machines"
            )
        return cls(os.getcwd(), shared, max(parts, default=1), 1 / on_one if gpus else 0.0)

    @property
    def environment(self) -> dict[str, dict[str, str]]:
        """Ray's runtime_env: TensorFlow and PyTorch read their number of threads when they are imported."""
        names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
        return {"env_vars": dict.fromkeys(names, str(self.cpus))}

    def enter(self) -> None:
        """Make this process, which Ray started, one of ours."""
        global _ours
        import torch

        _ours = True
        torch.set_num_threads(self.cpus)
        try:
            os.chdir(self.folder)
        except OSError as error:
            raise ArtpaperError(_unseen(socket.gethostname(), self.folder)) from error


@contextmanager
def joined(compute: Compute, *, gpu: bool, all_at_once: bool) -> Iterator[Place]:
    """What each worker is given of the cluster, which is joined in here, unless it is already, and left afterwards."""
    if compute.address is None or compute.address.startswith(("127.0.0.1:", "localhost:")):
        # despite its name: every port of Ray's is then open to this machine alone, and 127.0.0.1 means what it says
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise ArtpaperError(
            "compute.engine is ray, which is not installed: pip install -e './pipeline[ray]', or set it to local"
        ) from None
    joins = not ray.is_initialized()
    if joins:
        join(compute.address)
    try:
        scratch = Path(".resume").resolve()
        scratch.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="ray-", dir=scratch, ignore_cleanup_errors=True) as shared:
            place = Place.on_cluster(compute, shared, gpu=gpu, all_at_once=all_at_once)
            _check_machines(place)
            yield place
    finally:
        if joins:
            ray.shutdown()


def join(address: str | None) -> None:
    """Join the cluster at an address, or without one start a cluster of this machine alone."""
    import ray

    if address and address != "auto":
        host, port = address.rsplit(":", 1)
        try:
            socket.create_connection((host, int(port)), PATIENCE).close()
        except OSError as error:
            raise ArtpaperError(_unanswered(address, error)) from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of it
    if address is None:
        os.environ.setdefault("RAY_TMPDIR", str(socket_folder(RAY_SOCKET)))
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        ray.init(
            address or "local", runtime_env={"env_vars": {"PYTHONPATH": path}}, log_to_driver=False,
            logging_level="ERROR", include_dashboard=None if address else False,
        )  # fmt: skip
    except Exception as error:  # Ray raises it bare where a machine is too slow to start
        raise ArtpaperError(_unanswered(address or "local", error)) from None


def _unanswered(address: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or ["no message"])[0]
    return (
        f"compute.address {address}: no Ray cluster answers there ({reason}); start one with `ray start --head`, join "
        "it on this machine too, or set compute.address to null"
    )


def _check_machines(place: Place) -> None:
    """Refuse a machine that sees another folder or has other code, before any work is done."""
    import ray
    from ray.exceptions import RayError

    machines = [machine for machine in ray.nodes() if machine["Alive"]]
    how = {"num_cpus": 0, "runtime_env": place.environment}  # as the work's, which goes on in the same processes
    look = ray.remote(_look)
    answers = [
        look.options(**how, scheduling_strategy=on_machine(machine["NodeID"])).remote(place) for machine in machines
    ]
    for machine, answer in zip(machines, answers, strict=True):
        host = machine["NodeManagerHostname"]
        try:
            sees, has = ray.get(answer)
        except RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ArtpaperError(
                f"machine {host} of the cluster cannot run artpaper: {reason}; install it there"
            ) from None
        if not sees:
            raise ArtpaperError(_unseen(host, place.folder))
        if has != code():
            raise ArtpaperError(
                f"machine {host} of the cluster has another version of artpaper; install the same there"
            )


def _look(place: Place) -> tuple[bool, str]:
    return os.path.isdir(place.shared), code()


def _unseen(host: str, folder: str) -> str:
    return (
        f"machine {host} of the cluster does not see the folder {folder}; the project must lie where all machines have "
        "it under the same path, as on NFS"
    )


def on_machine(machine: str) -> Any:
    """How Ray is told to run something on one machine, by its id, and on no other."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(machine, soft=False)
