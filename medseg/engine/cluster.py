"""Jobs in Ray actors: on one machine without any set-up, or on a cluster."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from medseg.core.errors import OptionError
from medseg.engine.crew import Crew
from medseg.engine.interrupts import Interrupts
from medseg.engine.member import Member
from medseg.engine.outcome import Handler, Job, Outcome, Result, Start
from medseg.engine.source import Source
from medseg.engine.worker import NO_JOB, Message, portable

ROOM = 2
"""Jobs at an actor: one that it works on, and the next, so that it need not wait for us."""

STORE = 256 * 2**20
"""Bytes of shared memory on one machine; jobs and results are small, and Ray would take 30 %."""


def supervise_on_ray(
    start: Start[Job, Result],
    jobs: Iterable[Job],
    *,
    workers: int,
    address: str | None = None,
    attempts: int = 2,
    gpus_per_worker: float = 0,
    cpus_per_worker: float = 1,
    claim: Callable[[Job], bool] | None = None,
    may_go_on: Callable[[], bool] | None = None,
) -> Iterator[Outcome[Job, Result]]:
    """Run jobs in Ray actors and yield what becomes of each, as they finish.

    All is as with `supervise`: who dies, with its node or alone, is replaced; its jobs are tried
    again, each in an actor that holds nothing else. Actors for which the cluster has no room are
    waited for while the others work. The modules of `start` and of the jobs must be importable on
    every node.

    Args:
        start: Runs once in each actor and returns its handler, which gets one job at a time.
        jobs: Picklable; taken one at a time when there is an actor for it.
        workers: Actors.
        address: Of a cluster, for instance `auto` or `ray://head:10001`; without one, that in
            RAY_ADDRESS, or else a Ray of our own on this machine, for as long as this runs.
        attempts: How often a job is tried whose actor dies.
        gpus_per_worker: What Ray reserves for an actor.
        cpus_per_worker: What Ray reserves for an actor; it sets OMP_NUM_THREADS to this.
        claim: Asked right before a job is first sent; if it returns False, the job is left out.
        may_go_on: Asked before each sending.

    Yields:
        One outcome per job.

    Raises:
        OptionError: If Ray is not installed, or no cluster answers.
        WorkerDiedError: If no actor lives long enough to be ready.
        KeyboardInterrupt: After Ctrl-C.
        Exception: Whatever `start` raised in an actor.
    """
    needs = {"num_cpus": cpus_per_worker, "num_gpus": gpus_per_worker}
    with Interrupts() as interrupts, _connected(address, workers, needs) as ray:
        source = Source(jobs, claim, (interrupts.none, may_go_on or interrupts.none))
        remote = ray.remote(**needs, max_restarts=0, max_task_retries=0)(_Remote)
        crew = Crew[Job, Result](
            partial(_Actor[Job], ray, remote, start), partial(_talking, ray), source, attempts
        )
        interrupts.at_second(crew.kill)
        yield from crew.run(workers)
        if interrupts.count:
            raise KeyboardInterrupt


class _Actor(Member[Job]):
    """One actor, seen from here.

    Args:
        ray: The package, connected.
        remote: Class of actors.
        start: What builds the handler.
        tries: How often an actor was started in this place, one after the other, this one included.

    Attributes:
        calls: What it was asked and has not answered.
    """

    def __init__(self, ray: Any, remote: Any, start: Start[Job, Any], tries: int) -> None:
        super().__init__(ROOM, tries)
        self._ray, self._end = ray, "died"
        self._actor = remote.remote()
        self.calls = [self._actor.start.remote(start)]

    def send(self, key: int, job: Job) -> None:
        """Ask for a job."""
        self.calls.append(self._actor.work.remote(key, job))

    def receive(self) -> Message:
        """Return the next answer.

        Raises:
            EOFError: If the actor has died.
        """
        done, self.calls = self._ray.wait(self.calls, num_returns=1)
        try:
            answer: Message = self._ray.get(done[0])
        except self._ray.exceptions.RayTaskError as error:  # what came could not be unpickled
            return "failed", NO_JOB, portable(error)
        except self._ray.exceptions.RayError as error:
            self._end = _words(str(error))
            raise EOFError from error
        return answer

    def dismiss(self) -> None:
        """End it, as it holds nothing."""
        self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._ray.kill(self._actor)

    def end(self) -> str:
        """End what is left of it; return how it ended."""
        self.kill()
        return self._end


class _Remote:
    """One actor, at its own place."""

    def start(self, start: Start[Any, Any]) -> Message:
        """Build the handler."""
        try:
            self._handler: Handler[Any, Any] = start()
        except Exception as error:  # noqa: BLE001 - told to the supervisor, who decides
            return "failed", NO_JOB, portable(error)
        return "ready", NO_JOB, None

    def work(self, key: int, job: Any) -> Message:
        """Handle one job."""
        try:
            ((_, result),) = self._handler(iter([(key, job)]))
        except Exception as error:  # noqa: BLE001 - told to the supervisor, who decides
            return "failed", NO_JOB, portable(error)
        return "done", key, portable(result) if isinstance(result, Exception) else result


def _talking(ray: Any, actors: Sequence[_Actor[Any]], timeout: float) -> list[_Actor[Any]]:
    """Return the actors that have answered or have died, waiting for one."""
    calls = {call: actor for actor in actors for call in actor.calls}
    if not calls:
        return []
    ray.wait(list(calls), num_returns=1, timeout=timeout)
    done, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
    return list(dict.fromkeys(calls[call] for call in done))


def _words(error: str) -> str:
    """Return the reason in Ray's many words."""
    found = re.search(r"The actor (?:is dead|died) because (.*?)[.\n]", error)
    return f"died ({found[1]})" if found else "died"


@contextmanager
def _connected(address: str | None, workers: int, needs: dict[str, float]) -> Iterator[Any]:
    """Connect to Ray, or use the connection there is.

    Raises:
        OptionError: If Ray is not installed, or no cluster answers.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read at import: nothing is sent to anybody
    try:
        import ray
    except ImportError as error:
        raise OptionError("--engine ray needs Ray: pip install 'medseg[ray]'.") from error
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    own = {f"{name}": workers * amount for name, amount in needs.items() if amount}
    own |= {"include_dashboard": False, "object_store_memory": STORE}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address,
            logging_level=logging.ERROR,
            log_to_driver=False,
            **(own if address == "local" else {}),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise OptionError(
            f"no Ray cluster answers at {address!r} ({error}). `ray status` shows where one runs."
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray has put its own there
    try:
        yield ray
    finally:
        ray.shutdown()
