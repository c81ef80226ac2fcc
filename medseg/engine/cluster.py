"""Jobs in Ray actors: on one machine without any set-up, or on a cluster."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from medseg.core.errors import OptionError
from medseg.engine.actors import Actor, Remote, talking
from medseg.engine.crew import Crew
from medseg.engine.interrupts import Interrupts
from medseg.engine.outcome import Job, Outcome, Result, Start
from medseg.engine.source import Source

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
) -> Generator[Outcome[Job, Result], None, None]:
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
    cpus = math.ceil(workers * cpus_per_worker)
    with Interrupts() as interrupts, _connected(address, cpus, gpus_per_worker) as ray:
        source = Source(jobs, claim, (interrupts.none, may_go_on or interrupts.none))
        # Neither restarted nor tried again by Ray, which would not count jobs but processes.
        options = {"max_restarts": 0, "max_task_retries": 0}
        remote = ray.remote(num_cpus=cpus_per_worker, num_gpus=gpus_per_worker, **options)(Remote)
        crew = Crew[Job, Result](
            partial(Actor[Job], ray, remote, start), partial(talking, ray), source, attempts
        )
        yield from crew.run(workers)
        if interrupts.count:
            raise KeyboardInterrupt


@contextmanager
def _connected(address: str | None, cpus: int, gpus_per_worker: float) -> Iterator[Any]:
    """Connect to Ray, or use the connection there is.

    Raises:
        OptionError: If Ray is not installed, no cluster answers, or this machine has no such GPU.
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
    own = {"include_dashboard": False, "object_store_memory": STORE, "num_cpus": max(cpus, 1)}
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, **quiet, **(own if address == "local" else {}))
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise OptionError(
            f"no Ray cluster answers at {address!r} ({error}). `ray status` shows where one runs."
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray has put its own there
    try:
        if address == "local" and ray.cluster_resources().get("GPU", 0) < gpus_per_worker:
            raise OptionError(f"Ray finds no {gpus_per_worker:g} GPU for a worker on this machine.")
        yield ray
    finally:
        ray.shutdown()
