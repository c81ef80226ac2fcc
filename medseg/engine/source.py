"""Jobs that wait to be sent for the first time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Generic

from medseg.engine.outcome import Job


@dataclass(frozen=True)
class Task(Generic[Job]):
    """A job on its way.

    Attributes:
        key: Unique.
        job: The job.
        attempt: Counted from 1.
    """

    key: int
    job: Job
    attempt: int = 1


class Source(Generic[Job]):
    """The jobs that were never sent, in their order, one at a time.

    Args:
        jobs: May be lazy.
        claim: Whether a job may be had; asked when it is taken.
        conditions: All must hold for anything to be sent.

    Attributes:
        is_open: There may be another job.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        claim: Callable[[Job], bool] | None,
        conditions: Iterable[Callable[[], bool]],
    ) -> None:
        self._tasks = map(Task[Job], count(), jobs)
        self._claim, self._conditions = claim, tuple(conditions)
        self.is_open = True

    def may_send(self) -> bool:
        """Return whether all conditions hold."""
        return all(condition() for condition in self._conditions)

    def take(self) -> Task[Job] | None:
        """Return the next job; None if there is none, or if somebody else has it."""
        task = next(self._tasks, None)
        if task is None:
            self.is_open = False
        elif self._claim is None or self._claim(task.job):
            return task
        return None
