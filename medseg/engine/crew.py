"""Workers fed with jobs; those that die are replaced, and their jobs tried again."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Generic

from medseg.engine.member import Member
from medseg.engine.outcome import Job, Outcome, Result, WorkerDiedError
from medseg.engine.source import Source, Task
from medseg.engine.worker import TICK

STARTS = 2
"""How often a worker is started, if it dies before it is ready, until its place is given up."""

Spawn = Callable[[int], Member[Job]]
"""Starts a worker; takes how often one was started in its place, this one included."""

Listen = Callable[[Sequence[Any], float], Iterable[Member[Job]]]
"""Waits for workers to say something or to die, at most so many seconds; returns those."""

log = logging.getLogger("medseg")


class Crew(Generic[Job, Result]):
    """Workers of one kind, and the jobs that are to be tried again.

    Args:
        spawn: Starts a worker.
        listen: Waits for workers.
        source: Where jobs come from.
        attempts: How often a job is tried whose worker dies.

    Attributes:
        members: The workers.
    """

    def __init__(
        self, spawn: Spawn[Job], listen: Listen[Job], source: Source[Job], attempts: int
    ) -> None:
        self._spawn, self._listen, self._source, self._attempts = spawn, listen, source, attempts
        self._again: deque[Task[Job]] = deque()
        self.members: list[Member[Job]] = []

    def run(self, workers: int) -> Iterator[Outcome[Job, Result]]:
        """Yield what becomes of each job; no worker is left behind."""
        try:
            for _ in range(max(workers, 1)):
                self.members.append(self._spawn(1))
            while self._has_more() or any(worker.held for worker in self.members):
                hungry = [self._feed(worker) for worker in self.members]
                for worker in self._listen(self.members, 0 if any(hungry) else TICK):
                    yield from self._hear(worker)
            for worker in self.members:
                worker.dismiss()
        except BaseException:
            for worker in self.members:
                worker.kill()
            raise
        finally:
            for worker in self.members:
                worker.end()

    def _has_more(self) -> bool:
        """Return whether there may be jobs to send; if they may not be sent, there are none."""
        if not self._source.may_send():
            self._again.clear()
            return False
        return bool(self._again) or self._source.is_open

    def _feed(self, worker: Member[Job]) -> bool:
        """Offer one job to a worker; return whether it should be offered another at once."""
        if not worker.has_room or not self._has_more():
            return False
        if self._again and not worker.held:
            worker.give(self._again.popleft(), alone=True)
        elif task := self._source.take():
            worker.give(task)
        return worker.has_room and self._source.is_open

    def _hear(self, worker: Member[Job]) -> Iterator[Outcome[Job, Result]]:
        """Take one message from a worker."""
        try:
            what, key, content = worker.receive()
        except EOFError:
            yield from self._bury(worker, None)
            return
        match what:
            case "ready":
                worker.ready = True
            case "begun":
                worker.begun.add(key)
            case "done":
                task = worker.answered(key)
                yield Outcome(task.job, content, None, task.attempt)
            case "failed" if worker.ready:
                yield from self._bury(worker, content)
            case "failed":
                raise content

    def _bury(self, worker: Member[Job], error: Exception | None) -> Iterator[Outcome[Job, Result]]:
        """Put another one in the place of a worker that died; try its jobs again, or give up."""
        how = worker.end()
        self.members.remove(worker)
        suspects = worker.suspects()
        for task in worker.held.values():
            if task.key not in suspects:
                self._again.append(task)
            elif len(suspects) > 1 or task.attempt < self._attempts:
                # Among several, nobody knows which one has killed it.
                self._again.append(replace(task, attempt=task.attempt + 1))
            else:
                words = f"its process {how} in attempt {task.attempt}, while it did nothing else."
                yield Outcome(task.job, None, error or WorkerDiedError(words), task.attempt)
        if self._has_more():
            self._replace(worker, how)

    def _replace(self, worker: Member[Job], how: str) -> None:
        if worker.ready or worker.tries < STARTS:
            self.members.append(self._spawn(1 if worker.ready else worker.tries + 1))
        elif self.members:
            words = "a worker %s before it was ready, %d times; the work goes on with %d"
            log.warning(words, how, STARTS, len(self.members))
        else:
            raise WorkerDiedError(
                f"a worker {how} before it was ready, {STARTS} times in a row. Free memory, or "
                "take fewer workers."
            )
