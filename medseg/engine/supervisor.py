"""Jobs in spawned workers: a worker that dies takes nothing along but a job that kills twice."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from multiprocessing.connection import wait
from typing import Generic

from medseg.engine.interrupts import Interrupts
from medseg.engine.outcome import Job, Outcome, Result, Start, WorkerDiedError
from medseg.engine.source import Source, Task
from medseg.engine.spawned import Worker
from medseg.engine.worker import TICK

STARTS = 2
"""How often a worker is started, if it dies before it is ready, until its place is given up."""

log = logging.getLogger("medseg")


def supervise(
    start: Start[Job, Result],
    jobs: Iterable[Job],
    *,
    workers: int,
    ahead: int = 0,
    attempts: int = 2,
    claim: Callable[[Job], bool] | None = None,
    may_go_on: Callable[[], bool] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Outcome[Job, Result]]:
    """Run jobs in worker processes and yield what becomes of each, as they finish.

    When a worker dies, each job it held is tried again in a worker that holds nothing else; a job
    whose process dies then too is lost, and no other with it.

    The first Ctrl-C, or `may_go_on` returning False, ends the sending: jobs that are being worked
    on finish and are yielded, except those that would have to be tried again. After Ctrl-C,
    `KeyboardInterrupt` follows; a second one kills the workers. So does closing this generator, or
    any other exception: jobs that are being worked on are then left undone.

    Args:
        start: Runs once in each worker and returns its handler.
        jobs: Picklable; taken one at a time when there is a worker for it.
        workers: Processes; with 0, and on Windows, all is done in this one, and nothing is isolated
            or tried again.
        ahead: Jobs that a worker is sent before it has answered the last one.
        attempts: How often a job is tried whose worker dies.
        claim: Asked right before a job is first sent; if it returns False, the job is left out.
        may_go_on: Asked before each sending.
        environment: Variables added to the workers' environment.

    Yields:
        One outcome per job.

    Raises:
        WorkerDiedError: If no worker lives long enough to be ready.
        KeyboardInterrupt: After Ctrl-C.
        Exception: Whatever `start` raised in a worker.
    """
    crew: list[Worker[Job]] = []
    with Interrupts(crew) as interrupts:
        source = Source(jobs, claim, (interrupts.none, may_go_on or interrupts.none))
        if workers == 0 or sys.platform == "win32":
            yield from _here(start, source)
        else:
            spawn = partial(Worker[Job], start, 1 + ahead, environment or {})
            yield from _Supervisor[Job, Result](crew, spawn, source, attempts).run(workers)
        if interrupts.count:
            raise KeyboardInterrupt


def _here(start: Start[Job, Result], source: Source[Job]) -> Iterator[Outcome[Job, Result]]:
    sent: dict[int, Job] = {}

    def pairs() -> Iterator[tuple[int, Job]]:
        while source.is_open and source.may_send():
            if task := source.take():
                sent[task.key] = task.job
                yield task.key, task.job

    for key, result in start()(pairs()):
        yield Outcome(sent.pop(key), result, None, 1)


class _Supervisor(Generic[Job, Result]):
    """Feeds workers and replaces those that die.

    Args:
        crew: The workers; filled here.
        spawn: Starts one.
        source: Where jobs come from.
        attempts: How often a job is tried whose worker dies.
    """

    def __init__(
        self,
        crew: list[Worker[Job]],
        spawn: Callable[..., Worker[Job]],
        source: Source[Job],
        attempts: int,
    ) -> None:
        self._crew, self._spawn, self._source, self._attempts = crew, spawn, source, attempts
        self._again: deque[Task[Job]] = deque()

    def run(self, workers: int) -> Iterator[Outcome[Job, Result]]:
        """Yield what becomes of each job; no worker is left behind."""
        try:
            for _ in range(workers):
                self._crew.append(self._spawn())
            while self._has_more() or any(worker.held for worker in self._crew):
                hungry = [self._feed(worker) for worker in self._crew]
                for worker in self._talking(0 if any(hungry) else TICK):
                    yield from self._hear(worker)
            for worker in self._crew:
                worker.dismiss()
        except BaseException:
            for worker in self._crew:
                worker.kill()
            raise
        finally:
            for worker in self._crew:
                worker.end()

    def _has_more(self) -> bool:
        """Return whether there may be jobs to send; if they may not be sent, there are none."""
        if not self._source.may_send():
            self._again.clear()
            return False
        return bool(self._again) or self._source.is_open

    def _feed(self, worker: Worker[Job]) -> bool:
        """Offer one job to a worker; return whether it should be offered another at once."""
        if not worker.has_room or not self._has_more():
            return False
        if self._again and not worker.held:
            worker.give(self._again.popleft(), alone=True)
        elif task := self._source.take():
            worker.give(task)
        return worker.has_room and self._source.is_open

    def _talking(self, timeout: float) -> list[Worker[Job]]:
        """Return the workers that have said something or have died, waiting for one."""
        pipes = wait([worker.pipe for worker in self._crew], timeout)
        return [worker for worker in self._crew if worker.pipe in pipes or worker.has_ended]

    def _hear(self, worker: Worker[Job]) -> Iterator[Outcome[Job, Result]]:
        """Take one message from a worker."""
        try:
            key, result, error = worker.receive()
        except EOFError:
            yield from self._bury(worker, None)
            return
        if key is not None:
            task = worker.answered(key)
            yield Outcome(task.job, result, None, task.attempt)
        elif error is None:
            worker.ready = True
        elif worker.ready:
            yield from self._bury(worker, error)
        else:
            raise error

    def _bury(self, worker: Worker[Job], error: Exception | None) -> Iterator[Outcome[Job, Result]]:
        """Put another one in the place of a worker that died; try its jobs again, or give up."""
        how = worker.end()
        self._crew.remove(worker)
        tasks = list(worker.held.values())
        # Among several, nobody knows which one has killed it.
        lost = [task for task in tasks if len(tasks) == 1 and task.attempt >= self._attempts]
        self._again += [replace(task, attempt=task.attempt + 1) for task in tasks if not lost]
        if self._has_more():
            self._replace(worker, how)
        for task in lost:
            words = f"its process {how} in attempt {task.attempt}, with no other job in it."
            yield Outcome(task.job, None, error or WorkerDiedError(words), task.attempt)

    def _replace(self, worker: Worker[Job], how: str) -> None:
        if worker.ready or worker.tries < STARTS:
            self._crew.append(self._spawn(tries=1 if worker.ready else worker.tries + 1))
        elif self._crew:
            words = "a worker %s before it was ready, %d times; the work goes on with %d"
            log.warning(words, how, STARTS, len(self._crew))
        else:
            raise WorkerDiedError(
                f"a worker {how} before it was ready, {STARTS} times in a row. Free memory, or "
                "take fewer workers."
            )
