"""One function over many jobs in worker processes; a worker that dies takes only its job along."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from types import ModuleType
from typing import TypeVar

from medseg.core.errors import MedsegError

Job = TypeVar("Job")
Result = TypeVar("Result")

MOST_WORKERS = 8
"""More of them wait for the disk or fill the memory, each with volumes of its own."""


class WorkerDiedError(MedsegError):
    """The process of a job was killed, twice: among others, and alone."""


def default_workers() -> int:
    """Return how many workers fit this machine: one for each core this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    return min(os.cpu_count() or 1, MOST_WORKERS)


def run_jobs(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[tuple[Job, Result | Exception]]:
    """Run a function over jobs and yield each job with its result, as they finish.

    Args:
        function: Of an importable module, since workers are fresh interpreters (no fork, which
            breaks threads and CUDA).
        jobs: Picklable.
        workers: Processes; with 0 or 1, or a single job, all runs in this process.

    Yields:
        A job, and its result or the exception it raised.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        for job in jobs:
            yield job, _attempt(function, job)
        return
    orphans = []
    with _pool(workers) as pool:
        with _without_main():
            futures = {pool.submit(function, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                outcome = _outcome(future)
                if isinstance(outcome, BrokenProcessPool):
                    orphans.append(futures[future])
                else:
                    yield futures[future], outcome
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    # When one worker dies the pool gives up every job; run alone, only the culprit dies again.
    for job in orphans:
        with _pool(1) as pool, _without_main():
            outcome = _outcome(pool.submit(function, job))
        if isinstance(outcome, BrokenProcessPool):
            outcome = WorkerDiedError(
                "its process died, alone as among others; most often memory has run out."
            )
        yield job, outcome


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=_ignore_interrupts)


@contextmanager
def _without_main() -> Iterator[None]:
    """Start workers that do not import the running script.

    Jobs do not need it, and a script without a `__main__` guard, as some installers write for
    console commands, would start the whole command again in every worker.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the parent, which lets running jobs finish and starts no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _attempt(function: Callable[[Job], Result], job: Job) -> Result | Exception:
    try:
        return function(job)
    except Exception as error:  # noqa: BLE001 - handed to the caller, as from a worker
        return error


def _outcome(future: Future[Result]) -> Result | Exception:
    error = future.exception()
    return error if isinstance(error, Exception) else future.result()
