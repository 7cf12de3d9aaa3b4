"""Doing many things at once, each in a process that may fail without harm to the others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")


def in_processes(
    function: Callable[[Task], Outcome],
    tasks: Sequence[Task],
    *,
    jobs: int,
    died: Callable[[Task], Outcome],
) -> Generator[tuple[Task, Outcome], None, None]:
    """Apply a function to tasks, several at once; outcomes come as they are ready.

    Args:
        function: can be pickled, as must be tasks and outcomes.
        tasks: each begun in the order given.
        jobs: processes; with one, everything happens in this process.
        died: the outcome of a task whose process ended without one, as for lack of memory.
    """
    if jobs == 1:
        yield from ((task, function(task)) for task in tasks)
        return
    waiting = dict(enumerate(tasks))
    while waiting:
        try:
            with _pool(min(jobs, len(waiting))) as pool:
                futures = {pool.submit(function, task): key for key, task in waiting.items()}
                for future in as_completed(futures):
                    outcome = future.result()
                    yield waiting.pop(futures[future]), outcome
        except BrokenProcessPool:
            # One of the first in the queue ended its process: alone, each shows whether it does.
            for key in list(waiting)[: jobs + 1]:
                task = waiting.pop(key)
                yield task, _alone(function, task, died)


def _alone(
    function: Callable[[Task], Outcome], task: Task, died: Callable[[Task], Outcome]
) -> Outcome:
    try:
        with _pool(1) as pool:
            return pool.submit(function, task).result()
    except BrokenProcessPool:
        return died(task)


@contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes, which end at once where the block ends by an error or this process dies."""
    spawn = multiprocessing.get_context("spawn")  # threads and CUDA do not survive a fork
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_prepare)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
    else:
        pool.shutdown()


def _prepare() -> None:
    """Leave Ctrl-C to the parent process, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
