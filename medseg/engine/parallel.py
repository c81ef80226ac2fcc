"""One function over many jobs in worker processes; a worker that dies takes only its job along."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, cast

from medseg.engine.outcome import Handler, Job, Result, WorkerDiedError
from medseg.engine.supervisor import supervise

__all__ = ["MOST_WORKERS", "WorkerDiedError", "default_workers", "run_jobs"]

MOST_WORKERS = 8
"""More of them wait for the disk or fill the memory, each with volumes of its own."""


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
        function: Of an importable module, since workers are fresh interpreters.
        jobs: Picklable.
        workers: Processes; with 0 or 1, or a single job, all runs in this process.

    Yields:
        A job, and its result or the exception it raised.
    """
    workers = min(workers, len(jobs))
    done = supervise(_Each(function), jobs, workers=workers if workers > 1 else 0)
    for outcome in done:
        yield outcome.job, cast("Result | Exception", outcome.error or outcome.result)


@dataclass(frozen=True)
class _Each(Generic[Job, Result]):
    """Starts a handler that calls a function, and answers with what it returns or raises."""

    function: Callable[[Job], Result]

    def __call__(self) -> Handler[Job, Result | Exception]:
        return self._handle

    def _handle(self, jobs: Iterator[tuple[int, Job]]) -> Iterator[tuple[int, Result | Exception]]:
        for key, job in jobs:
            yield key, self._attempt(job)

    def _attempt(self, job: Job) -> Result | Exception:
        try:
            return self.function(job)
        except Exception as error:  # noqa: BLE001 - handed to the caller
            return error
