"""Where work runs: in processes of this machine, or in those of a Ray cluster (:mod:`pipeline.scale.cluster`).

All machines of a cluster see the project's folder under one path, as on a network file system: what is sent around is
small (which shard to read, where to write), and results are files, whole or not there, as they are on one machine.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from pipeline.base.errors import ArtpaperError
from pipeline.base.groups import Compute
from pipeline.scale.cluster import PATIENCE, Place, joined, on_machine, spreads
from pipeline.scale.workers import in_processes, threads_each, torch_threads

Item = TypeVar("Item")
Result = TypeVar("Result")
Message = TypeVar("Message")

RESTARTS = 3  # how often lost work is begun again, before someone has to look
AGAIN = "run the same command again: it goes on where it stopped"


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
    with joined(compute, gpu=True, all_at_once=True) as place:
        for _ in range(1 + RESTARTS):
            failure = _train_once(work, compute, place.shared, heard)
            if failure is None:
                return
    reason = str(failure).strip().splitlines() or ["no message"]
    raise ArtpaperError(
        f"the training was lost {1 + RESTARTS} times, the last time by {type(failure).__name__}: {reason[-1]}; {AGAIN}"
    )


def _each_on_ray(
    work: Callable[[Item], Result], items: Sequence[Item], compute: Compute, gpu: bool
) -> Iterator[tuple[Item, Result]]:
    with joined(compute, gpu=gpu, all_at_once=False) as place:
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


def _task(place: Place, work: Callable[[Item], Result], item: Item) -> Result:
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

    place = Place.on_cluster(compute, shared, gpu=True, all_at_once=True)  # anew: a machine may have left
    here = on_machine(ray.get_runtime_context().get_node_id())
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
                Place.on_cluster(compute, shared, gpu=True, all_at_once=True)
                checked = time.monotonic()
            continue
        if isinstance(message, ArtpaperError):
            raise message
        heard(message)
    messages.shutdown()
    return failures[0] if failures else None


def _member(place: Place, work: Callable[[Callable[[Message], None]], None], messages: Any) -> None:
    place.enter()
    try:
        work(messages.put)
    except ArtpaperError as error:
        messages.put(error)
        raise


def _with_threads(work: Callable[[Item], Result], threads: int, item: Item) -> Result:
    with torch_threads(threads):  # the same in this process as in another, however many items are left
        return work(item)
