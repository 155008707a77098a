"""Work spread over processes that end with their parent."""

import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import TypeVar, cast

from pipeline.base.errors import ArtpaperError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], processes: int
) -> Iterator[tuple[Item, Result]]:
    """Do ``work``, a function of a module, on every item, each finished one at once with its result, in any order.

    With one process everything happens here, in order. An ArtpaperError tells that a worker process was killed; what
    ``work`` itself raises is passed on.
    """
    if min(processes, len(items)) <= 1:
        for item in items:
            yield item, work(item)
        return
    context = multiprocessing.get_context("spawn")  # the threads of TensorFlow and PyTorch do not survive a fork
    executor = ProcessPoolExecutor(min(processes, len(items)), mp_context=context, initializer=_end_with_parent)
    try:
        futures: dict[Future[Result], Item] = {executor.submit(work, item): item for item in items}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        raise ArtpaperError(
            "a worker process was killed, often for lack of memory; lower compute.workers and run the same command "
            "again: it goes on where it stopped"
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], threads: int, stop: threading.Event
) -> Iterator[tuple[Item, Result]]:
    """The same in threads, for work that waits for others more than it computes; what it raises ends all.

    ``work`` looks at ``stop`` now and then and ends soon when it is set, which it is where the caller leaves early, by
    an error or Ctrl-C; a thread that hangs does not keep the process.
    """
    waiting: queue.SimpleQueue[Item] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Item, Result | None, BaseException | None]] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)

    def serve() -> None:
        while not stop.is_set():
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((item, work(item), None))
            except BaseException as error:
                done.put((item, None, error))
                return

    pool = [threading.Thread(target=serve, daemon=True) for _ in range(min(threads, len(items)))]
    for thread in pool:
        thread.start()
    try:
        for _ in items:
            item, result, error = done.get()
            if error is not None:
                raise error
            yield item, cast(Result, result)
    except BaseException:
        stop.set()
        raise
    finally:
        for thread in pool:
            thread.join(timeout=1 / len(pool))


def threads_each(processes: int) -> int:
    """PyTorch threads for each of so many processes, so that together they take the machine's cores.

    No more than OMP_NUM_THREADS allows: threads that wait for one another on cores which others use take many times
    as long as one alone.
    """
    share = max(1, (os.cpu_count() or 1) // processes)
    allowed = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # a list is one number a level
    return min(share, int(allowed)) if allowed.isdecimal() and int(allowed) else share


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """So many threads of PyTorch in here, in this process as in another; as many as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _end_with_parent() -> None:
    """A worker whose parent was killed would otherwise wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()
