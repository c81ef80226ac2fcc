"""What every engine takes and gives: handlers, jobs, outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from medseg.core.errors import MedsegError

Job = TypeVar("Job")
Result = TypeVar("Result")

Handler = Callable[[Iterator[tuple[int, Job]]], Iterator[tuple[int, Result]]]
"""Takes pairs of key and job from an iterator that waits for the next job, and yields key and
result in any order, each as soon as it is known; it may read ahead in threads."""

Start = Callable[[], Handler[Job, Result]]
"""Builds the handler, once in each worker; picklable and of an importable module."""


class WorkerDiedError(MedsegError):
    """The process of a job was killed in every attempt, in the last one with no other job."""


@dataclass(frozen=True)
class Outcome(Generic[Job, Result]):
    """What became of one job.

    Attributes:
        job: The job.
        result: What the handler made of it; None if it was lost.
        error: Why it was lost: `WorkerDiedError`, or the exception that ended the handler.
        attempt: The attempt that this came of, from 1.
    """

    job: Job
    result: Result | None
    error: Exception | None
    attempt: int
