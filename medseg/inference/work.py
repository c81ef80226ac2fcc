"""One call of `medseg predict`: its cases, its workers, its journal."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from medseg.core.errors import OptionError
from medseg.core.runs import JOURNAL_NAME
from medseg.data.transforms import Reading
from medseg.engine.claims import Claims
from medseg.engine.cluster import supervise_on_ray
from medseg.engine.interrupts import terminations
from medseg.engine.journal import Journal
from medseg.engine.outcome import Outcome
from medseg.engine.progress import duration, printable, track
from medseg.engine.shards import parse_shard
from medseg.engine.supervisor import supervise
from medseg.inference.ensemble import check_together, mirror_axes, request_of
from medseg.inference.inputs import Job, list_jobs
from medseg.inference.labeller import Order, Record, failure
from medseg.inference.options import PredictOptions
from medseg.inference.plan import Request
from medseg.inference.predictor import Predictor
from medseg.inference.preflight import (
    SUPERVISOR_BYTES,
    Forecast,
    look_at,
)
from medseg.inference.records import Ledger
from medseg.inference.settings import find_device
from medseg.inference.sharing import settings_of
from medseg.io.atomic import sweep
from medseg.io.memory import parse_bytes, size

SOME_FAILED = 3
TERMINATED = 143
"""Exit status after SIGTERM, as a shell gives it."""

AHEAD = 2
"""Cases a worker holds besides the one its network is at: one is read, one written."""

PRIVATE = ".medseg"
"""Folder of journals and claims within the output folder."""

log = logging.getLogger("medseg")


class Work:
    """One call of `medseg predict`.

    Args:
        options: Its flags.
        order: What workers are told.
        request: What is asked of each case.
        ledger: What the journal says of each.
        workers: Processes that label.
    """

    def __init__(
        self,
        options: PredictOptions,
        order: Order,
        request: Request,
        ledger: Ledger,
        workers: int,
    ) -> None:
        self.options, self.order, self.request, self.ledger = options, order, request, ledger
        self.workers = workers
        self.allowed = parse_bytes("--max_memory", options.max_memory)
        self._private = options.output / PRIVATE
        self._journal = Journal(self._private)
        self._known: dict[str, str] = {}  # when the records were made that were there before
        self._failed = 0

    @classmethod
    def of(cls, options: PredictOptions, workers: int) -> Work:
        """Find the networks and what they ask of each case."""
        settings = settings_of(options, workers)
        is_named = options.checkpoint in ("best", "last")
        is_path = not is_named and Path(options.checkpoint).is_file()
        order = Order(
            tuple(path.absolute() for path in (*options.run, *options.model)),
            str(Path(options.checkpoint).absolute()) if is_path else options.checkpoint,
            settings,
            Reading(options.on_conflict, options.series_uid),
            options.output.absolute(),
            options.format,
            options.probabilities,
            options.uncertainty,
        )
        members = order.load()
        descriptions = check_together([member.description for member in members])
        if settings.tta:
            for description in descriptions:
                mirror_axes(description)
        request = order.asked(request_of(members, settings, find_device(options.device)))
        names = [str(name) for name in (*options.run, *options.model)]
        ledger = Ledger.of(order, descriptions, names)
        return cls(options, order, request, ledger, workers)

    @property
    def has_room(self) -> bool:
        """Whether the processes fit what is allowed."""
        return (self.order.settings.max_memory or 0) > self.request.fixed_bytes

    @property
    def case_bytes(self) -> int:
        """Most bytes that a case may take.

        Raises:
            OptionError: If not even the processes fit what is allowed.
        """
        if not self.has_room:
            least = SUPERVISOR_BYTES + max(self.workers, 1) * self.request.fixed_bytes
            raise OptionError(
                f"--max_memory {self.options.max_memory} does not suffice for {self.workers} "
                f"workers, which take {size(least)} without any case. Raise it, or take fewer."
            )
        return (self.order.settings.max_memory or 0) - self.request.fixed_bytes

    def jobs(self) -> list[Job]:
        """Return the cases of this call."""
        options = self.options
        jobs = list_jobs(
            options.input,
            self.request.footprints[0].channels,
            options.root,
            options.fold,
            options.output,
            options.format,
            options.probabilities or options.uncertainty,
            self.ledger.descriptions[0].task["channel_names"],
        )
        shard = parse_shard(options.shard or "0/1")
        return [job for position, job in enumerate(jobs) if shard.takes(position)]

    def look_ahead(self) -> tuple[list[Job], Forecast]:
        """Return the cases that are to be done, and what they will take."""
        jobs = self.jobs()
        todo = []
        for job in jobs:
            record = self._journal.newest(job.output)
            if record is not None:
                self._known[job.output] = record["time"]
            if self.options.overwrite or not self.ledger.is_done(job, record):
                todo.append(job)
        if len(todo) < len(jobs):
            log.info("%d of %d cases are done already", len(jobs) - len(todo), len(jobs))
        return look_at(todo, self.request, self.order.reading, self.case_bytes)

    def tell_time(self, windows: int) -> None:
        """Time a window and log what all of them take."""
        members = self.order.load()
        seconds = Predictor(members, self.order.settings).time_window()
        rest = seconds * windows / len(members) / max(self.workers, 1)
        log.info("a window takes %.3g s here: about %s for all, reading and writing beside it",
                 seconds, duration(rest))  # fmt: skip

    def do(self, jobs: Sequence[Job]) -> int:
        """Label the cases; return the exit status."""
        labelled = 0
        with terminations() as terminated, Claims(self._private / "claims") as claims:
            try:
                with closing(self._outcomes(jobs, claims, terminated)) as outcomes:
                    shown = track(outcomes, "predicting", len(jobs), lambda o: o.job.case_id)
                    for outcome in shown:
                        labelled += self._note(outcome)
                        claims.release(outcome.job.output)
            finally:
                self._journal.merge(self.options.output / JOURNAL_NAME)
                sweep(self.options.output)
        log.info("%d of %d cases labelled in %s", labelled, len(jobs), self.options.output)
        if terminated.is_set():
            raise SystemExit(TERMINATED)
        return SOME_FAILED if self._failed else 0

    def _outcomes(
        self, jobs: Sequence[Job], claims: Claims, terminated: threading.Event
    ) -> Generator[Outcome[Job, Record]]:
        """Yield what becomes of each case."""

        def claim(job: Job) -> bool:
            return self._is_ours(job, claims)

        def may_go_on() -> bool:
            return not (terminated.is_set() or self._has_failed_enough)

        for job in jobs:
            if job.problem and may_go_on() and claim(job):
                yield Outcome(job, failure(OptionError(job.problem), job.code), None, 1)
        sound = [job for job in jobs if not job.problem]
        if sound:
            yield from self._engine(sound, claim, may_go_on)

    def _engine(
        self, jobs: Sequence[Job], claim: Callable[[Job], bool], may_go_on: Callable[[], bool]
    ) -> Iterator[Outcome[Job, Record]]:
        workers = min(self.workers, len(jobs))
        if self.options.engine == "local":
            return supervise(
                self.order, jobs, workers=workers, ahead=AHEAD, claim=claim, may_go_on=may_go_on
            )
        return supervise_on_ray(
            self.order,
            jobs,
            workers=max(workers, 1),
            address=self.options.ray_address,
            gpus_per_worker=0 if self.request.on_host else 1,
            cpus_per_worker=self.order.settings.threads or 1,
            claim=claim,
            may_go_on=may_go_on,
        )

    def _is_ours(self, job: Job, claims: Claims) -> bool:
        """Claim a case, unless somebody else has seen to it since this call began."""
        if not claims.take(job.output):
            return False
        self._journal.refresh()
        newest = self._journal.newest(job.output)
        # Not by the clock: those of two machines may differ.
        is_old = newest is None or newest.get("time") == self._known.get(job.output)
        if is_old or not self.ledger.is_of(job, newest or {}):
            return True
        claims.release(job.output)
        return False

    @property
    def _has_failed_enough(self) -> bool:
        most = 1 if self.options.fail_fast else self.options.max_failures
        return most is not None and self._failed >= most

    def _note(self, outcome: Outcome[Job, Record]) -> bool:
        """Write what became of a case into the journal; return whether it was labelled."""
        found = outcome.result
        if found is None:
            found = failure(outcome.error or RuntimeError("no outcome"), "worker-died")
        self._journal.add(self.ledger.record(outcome.job, found, outcome.attempt))
        if found["status"] == "ok":
            return True
        self._failed += 1
        log.warning("%s failed: %s", printable(outcome.job.case_id), printable(found["message"]))
        return False
