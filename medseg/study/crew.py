"""Does the runs of a study, some side by side: in threads of this process, or on Ray."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import FrameType

from medseg.engine.cluster import supervise_on_ray
from medseg.engine.outcome import Handler
from medseg.engine.parallel import default_workers
from medseg.study.doing import Doer, End
from medseg.study.options import StudyOptions
from medseg.study.planned import Planned
from medseg.study.rest import Rest

SIGNALS = (signal.SIGINT, signal.SIGTERM)

Job = tuple[Planned, int | None]
"""A run, and the epochs after which its training is to pause."""

log = logging.getLogger("medseg")


class Crew:
    """Does runs and says how they get on; a signal ends all of them in good order.

    Args:
        options: Of the study.
        predicted: Seconds of runs, by name; empty if not known.

    Attributes:
        signalled: The signal that ended the work; 0 if there was none.
        failures: Why runs failed, by name, the first failure first.
    """

    def __init__(self, options: StudyOptions, predicted: Mapping[str, float]) -> None:
        self.options = options
        self.signalled = 0
        self.failures: dict[str, str] = {}
        self._workers = max(options.workers, 1)
        self._threads = threads_of(options)
        self._predicted = predicted
        self._rest = Rest([], {}, self._workers)
        self._resumed: set[str] = set()
        self._doer = Doer(self._threads, begins=self._begin)

    def close(self) -> None:
        """Give back what was kept from one run to the next."""
        self._doer.close()

    def work(self, planned: Sequence[Planned], pause_after: int | None = None) -> None:
        """Do what is left of runs, or only their trainings up to a pause."""
        if self._doer.stopped.is_set() or not planned:
            return
        self._rest = Rest([e.run.name for e in planned], self._predicted, self._workers)
        # Where learning rates are halved, all go on from the same pause.
        going_on = (e for e in planned if e.state == "interrupted" and not e.run.rungs)
        self._resumed = {entry.run.name for entry in going_on}
        handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
        work = self._on_ray if self.options.engine == "ray" else self._here
        try:
            work([(entry, pause_after) for entry in planned])
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _here(self, jobs: Sequence[Job]) -> None:
        def one(job: Job) -> None:
            self._take(job, self._doer.do(*job))

        with ThreadPoolExecutor(self._workers) as pool:
            list(pool.map(one, jobs))

    def _on_ray(self, jobs: Sequence[Job]) -> None:
        outcomes = supervise_on_ray(
            partial(_start, self._threads, Path.cwd()),
            jobs,
            workers=min(self._workers, len(jobs)),
            address=self.options.ray_address,
            gpus_per_worker=self.options.gpus,
            cpus_per_worker=self._threads,
            claim=self._claim,
            may_go_on=self._may_go_on,
        )
        try:
            for outcome in outcomes:
                self._take(outcome.job, outcome.result or End("failed", str(outcome.error)))
        except _Signalled:  # closing the generator has ended the actors
            for entry, _ in jobs:
                if entry.record.get("status") == "running":
                    entry.note(status="interrupted")

    def _claim(self, job: Job) -> bool:
        """Say that a run goes to Ray; none is refused."""
        if not job[0].is_done:
            self._begin(*job)
        return True

    def _begin(self, entry: Planned, pause_after: int | None) -> None:
        """Say that a run begins, and where its words go."""
        verb = next(entry.steps(pause_after), ["fit"])[0]
        log.info("started     %s, %s; its log: %s", entry.run.name,
                 self._rest.begin(entry.run.name), entry.files.run_dir / f"{verb}.log")  # fmt: skip

    def _may_go_on(self) -> bool:
        if self.signalled:
            raise _Signalled
        return not self._doer.stopped.is_set()

    def _take(self, job: Job, end: End) -> None:
        """Say how a run ended, and how long the others take."""
        (entry, pause_after), reason = job, end.reason
        name, rest = entry.run.name, ""
        if not pause_after:  # what follows a pause is not known yet
            tells = end.status == "scored" and name not in self._resumed
            rest = self._rest.end(name, tells)
        if end.status == "failed":
            log.error("failed      %s: %s", name, reason)
            self.failures[name] = reason
            if self.options.fail_fast:
                self._doer.stop(interrupt=False)
        elif end.status in ("scored", "paused", "diverged"):
            told = "done" if end.status == "scored" else end.status
            log.info("%-11s %s%s", told, name, rest)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signalled = number
        self._doer.stop(interrupt=True)


def threads_of(options: StudyOptions) -> int:
    """Return the CPU threads of each run."""
    # Of a cluster this machine's cores tell nothing.
    share = 1 if options.engine == "ray" else default_workers() // max(options.workers, 1)
    return options.threads or max(1, share)


class _Signalled(Exception):  # noqa: N818 - no error
    """Ends the work on Ray at once."""


def _start(threads: int, folder: Path) -> Handler[Job, End]:
    """Return what does runs in an actor, where relative paths mean what they mean here."""
    os.chdir(folder)
    # Ray ends the children of an actor with it, but not the children of those.
    doer = Doer(threads, preloads=False)

    def handle(jobs: Iterator[tuple[int, Job]]) -> Iterator[tuple[int, End]]:
        for key, job in jobs:
            yield key, doer.do(*job)

    return handle
