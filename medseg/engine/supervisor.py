"""Jobs in spawned workers: a worker that dies takes nothing along but a job that kills twice."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from functools import partial

from medseg.engine.crew import Crew
from medseg.engine.interrupts import Interrupts
from medseg.engine.outcome import Job, Outcome, Result, Start
from medseg.engine.source import Source
from medseg.engine.spawned import Spawned, talking


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
) -> Generator[Outcome[Job, Result], None, None]:
    """Run jobs in worker processes and yield what becomes of each, as they finish.

    When a worker dies, each job it held is tried again in a worker that holds nothing else. A job
    is lost if its worker dies in the last attempt while it has begun no other; no other job is.

    The first Ctrl-C, or `may_go_on` returning False, ends the sending: jobs that were sent finish
    and are yielded, except those that would have to be tried again. After Ctrl-C,
    `KeyboardInterrupt` follows; a second one kills the workers. So does closing this generator, or
    any other exception: jobs that are being worked on are then left undone.

    Args:
        start: Runs once in each worker and returns its handler.
        jobs: Picklable; taken one at a time when there is a worker for it.
        workers: Processes; with 0, and on Windows, all is done in this one, and nothing is isolated
            or tried again.
        ahead: Jobs that a worker is sent before it has answered the last one.
        attempts: How often a job is tried whose worker dies in it.
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
    with Interrupts() as interrupts:
        source = Source(jobs, claim, (interrupts.none, may_go_on or interrupts.none))
        if workers == 0 or sys.platform == "win32":
            yield from _here(start, source)
        else:
            spawn = partial(Spawned[Job], start, 1 + ahead, environment or {})
            crew = Crew[Job, Result](spawn, talking, source, attempts)
            yield from crew.run(workers)
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
