"""Where work runs: in processes of this machine, or in those of a Ray cluster. The only module that knows Ray.

All machines of a cluster see the project's folder under one path, as on a network file system: what is sent around is
small (which shard to read, where to write), and results are files, whole or not there, as they are on one machine.
"""

import math
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pipeline.base.errors import ArtpaperError
from pipeline.base.groups import Compute
from pipeline.base.identity import ROOT, code
from pipeline.base.sockets import socket_folder
from pipeline.scale.workers import in_processes, threads_each, torch_threads

Item = TypeVar("Item")
Result = TypeVar("Result")
Message = TypeVar("Message")

RESTARTS = 3  # how often lost work is begun again, before someone has to look
PATIENCE = 10.0  # seconds for a cluster to answer; Ray itself would try for minutes
RAY_SOCKET = "ray/session_2000-01-01_00-00-00_000000_1234567/sockets/plasma_store"
AGAIN = "run the same command again: it goes on where it stopped"

_ours = False  # whether Ray started this process for a piece of our work


def spreads(compute: Compute) -> bool:
    """Whether work goes to a cluster: the parameters say so, and this process is not itself one of the cluster's."""
    return compute.engine == "ray" and not _ours


def each(
    work: Callable[[Item], Result], items: Sequence[Item], compute: Compute, *, most: int | None = None,
    gpu: bool = False,
) -> Iterator[tuple[Item, Result]]:  # fmt: skip
    """Do ``work`` on every item, ``compute.workers`` at a time, each finished one at once with its result.

    Every process has its part of the machine's cores: as many threads of PyTorch, here as there. ``work`` is a
    function of a module; ``most`` processes of this machine pay for their start; ``gpu`` says whether a GPU helps.

    Raises:
        ArtpaperError: a worker process was killed, on a cluster again and again; the cluster does not answer, or one of
            its machines cannot do the work; Ray is not installed. What ``work`` itself raises is passed on.
    """
    if spreads(compute):
        if items:  # or a cluster would be asked for nothing
            yield from _each_on_ray(work, items, compute, gpu)
    else:
        processes = min(compute.workers, most or compute.workers)
        yield from in_processes(partial(_with_threads, work, threads_each(compute.workers)), items, processes)


def together(
    work: Callable[[Callable[[Message], None]], None], compute: Compute, heard: Callable[[Message], None]
) -> None:
    """Run ``work`` in ``compute.workers`` processes of a cluster at once, which torch.distributed joins.

    If one is lost, all are started again; ``work`` is to go on from what it kept. It is called with a function that
    sends a message to the caller, where ``heard`` is called with every one, in order.

    Raises:
        ArtpaperError: what ``work`` raises of this kind; or processes were lost more often than can be chance; or as
            :func:`each`.
    """
    with _cluster(compute, gpu=True, all_at_once=True) as place:
        for _ in range(1 + RESTARTS):
            failure = _train_once(work, compute, place.shared, heard)
            if failure is None:
                return
    reason = str(failure).strip().splitlines() or ["no message"]
    raise ArtpaperError(
        f"the training was lost {1 + RESTARTS} times, the last time by {type(failure).__name__}: {reason[-1]}; {AGAIN}"
    )


@dataclass(frozen=True)
class _Place:
    """What a process of the cluster is given: the caller's folder, one for scratch, and its part of a machine."""

    folder: str
    shared: str
    cpus: int
    gpus: float

    @classmethod
    def on_cluster(cls, compute: Compute, shared: str, *, gpu: bool, all_at_once: bool) -> "_Place":
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


def _each_on_ray(
    work: Callable[[Item], Result], items: Sequence[Item], compute: Compute, gpu: bool
) -> Iterator[tuple[Item, Result]]:
    with _cluster(compute, gpu=gpu, all_at_once=False) as place:
        import ray
        from ray.exceptions import RayError, RayTaskError

        task = ray.remote(_task).options(
            num_cpus=place.cpus, num_gpus=place.gpus, runtime_env=place.environment,
            max_retries=RESTARTS, scheduling_strategy="SPREAD",
        )  # fmt: skip
        sent, left = ray.put(work), iter(items)
        waiting: dict[Any, Item] = {}
        try:
            while True:
                for item in islice(left, compute.workers - len(waiting)):
                    waiting[task.remote(place, sent, item)] = item
                if not waiting:
                    return
                (done, *_), _ = ray.wait(list(waiting))
                yield waiting.pop(done), ray.get(done)
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise ArtpaperError(
                f"a worker process was lost {1 + RESTARTS} times, often for lack of memory ({type(error).__name__}); "
                f"lower compute.workers and {AGAIN}"
            ) from None
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)


def _task(place: _Place, work: Callable[[Item], Result], item: Item) -> Result:
    place.enter()
    return work(item)


def _train_once(
    work: Callable[[Callable[[Message], None]], None], compute: Compute, shared: str, heard: Callable[[Message], None]
) -> Exception | SystemExit | None:
    """One attempt; the reason why it failed, if that may be chance."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.util.queue import Empty, Queue

    place = _Place.on_cluster(compute, shared, gpu=True, all_at_once=True)  # anew: a machine may have left
    here = _on(ray.get_runtime_context().get_node_id())
    messages = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    resources = {"CPU": place.cpus} | ({"GPU": 1} if place.gpus else {})
    trainer = TorchTrainer(
        partial(_member, place, work, messages),
        torch_config=TorchConfig("cpu:gloo,cuda:nccl" if place.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=compute.workers, use_gpu=place.gpus > 0, resources_per_worker=resources,
            placement_strategy="SPREAD",
        ),
        run_config=RunConfig(storage_path=shared, name="train", worker_runtime_env=place.environment),
    )  # fmt: skip
    failures: list[Exception | SystemExit] = []

    def fit() -> None:
        try:
            trainer.fit()
        except (Exception, SystemExit) as error:  # Ray's way to end who waits when the cluster is left
            failures.append(error)

    # not here: it would keep Ctrl-C for itself
    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    checked = time.monotonic()
    while thread.is_alive() or not messages.empty():
        try:
            message = messages.get(timeout=1)
        except Empty:
            if time.monotonic() - checked > PATIENCE:  # Ray would wait for lost machines to come back
                _Place.on_cluster(compute, shared, gpu=True, all_at_once=True)
                checked = time.monotonic()
            continue
        if isinstance(message, ArtpaperError):
            raise message
        heard(message)
    messages.shutdown()
    return failures[0] if failures else None


def _member(place: _Place, work: Callable[[Callable[[Message], None]], None], messages: Any) -> None:
    place.enter()
    try:
        work(messages.put)
    except ArtpaperError as error:
        messages.put(error)
        raise


def _with_threads(work: Callable[[Item], Result], threads: int, item: Item) -> Result:
    with torch_threads(threads):  # the same in this process as in another, however many items are left
        return work(item)


@contextmanager
def _cluster(compute: Compute, *, gpu: bool, all_at_once: bool) -> Iterator[_Place]:
    """Joined in here, and left afterwards."""
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
        _join(compute.address)
    try:
        scratch = Path(".resume").resolve()
        scratch.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="ray-", dir=scratch, ignore_cleanup_errors=True) as shared:
            place = _Place.on_cluster(compute, shared, gpu=gpu, all_at_once=all_at_once)
            _check_machines(place)
            yield place
    finally:
        if joins:
            ray.shutdown()


def _join(address: str | None) -> None:
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


def _check_machines(place: _Place) -> None:
    """Refuse a machine that sees another folder or has other code, before any work is done."""
    import ray
    from ray.exceptions import RayError

    machines = [machine for machine in ray.nodes() if machine["Alive"]]
    how = {"num_cpus": 0, "runtime_env": place.environment}  # as the work's, which goes on in the same processes
    look = ray.remote(_look)
    answers = [look.options(**how, scheduling_strategy=_on(machine["NodeID"])).remote(place) for machine in machines]
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


def _look(place: _Place) -> tuple[bool, str]:
    return os.path.isdir(place.shared), code()


def _unseen(host: str, folder: str) -> str:
    return (
        f"machine {host} of the cluster does not see the folder {folder}; the project must lie where all machines have "
        "it under the same path, as on NFS"
    )


def _on(machine: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(machine, soft=False)
