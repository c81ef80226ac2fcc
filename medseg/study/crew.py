"""Does the commands of a study's runs, each in a process of its own."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

from medseg.core.runs import write_json
from medseg.engine.parallel import default_workers
from medseg.study.options import StudyOptions
from medseg.study.planned import ASKED, Planned

SIGNALS = (signal.SIGINT, signal.SIGTERM)

log = logging.getLogger("medseg")


class Crew:
    """Does the commands of runs, some side by side; a signal ends all of them in good order."""

    def __init__(self, options: StudyOptions) -> None:
        self.options = options
        self.signalled = 0
        self._stopped = threading.Event()
        self._running: set[subprocess.Popen[bytes]] = set()
        threads = options.threads or max(1, default_workers() // max(options.workers, 1))
        self._threads = str(threads)
        self._environment = {**os.environ, "OMP_NUM_THREADS": self._threads}

    def work(self, planned: Sequence[Planned]) -> dict[str, str]:
        """Do all that is left of the runs; return the failed ones with the reason of each."""
        failed: dict[str, str] = {}
        handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            with ThreadPoolExecutor(max(self.options.workers, 1)) as pool:
                for entry, reason in zip(planned, pool.map(self._one, planned), strict=True):
                    if reason:
                        failed[entry.run.name] = reason
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return failed

    def _one(self, entry: Planned) -> str:
        """Do one run; return why it failed, or nothing."""
        if self._stopped.is_set():
            return ""
        asked = {"digest": entry.run.digest, "cell": dict(entry.run.cell)}
        write_json(entry.files.run_dir / ASKED, asked)
        with alone(entry.files.run_dir, self._stopped) as handle:
            return "" if handle is None else self._do(entry, handle)

    def _do(self, entry: Planned, handle: int) -> str:
        if entry.state == "scored":  # meanwhile, by another process
            return ""
        for command in entry.steps():
            log_file = entry.files.run_dir / f"{command[0]}.log"
            # Predict counts its own threads; it does not follow OMP_NUM_THREADS.
            own = ["--threads", self._threads] if command[0] == "predict" else []
            status = self._call([*command, *own], log_file, handle)
            if self.signalled:
                return ""
            if status:
                if self.options.fail_fast:
                    self._stopped.set()
                return f"{command[0]} ended with status {status}; see {command[0]}.log"
            if self._stopped.is_set():
                return ""
        log.info("done        %s", entry.run.name)
        return ""

    def _call(self, command: Sequence[str], path: Path, handle: int) -> int:
        with path.open("ab") as file:
            # A group of its own: Ctrl-C reaches the study alone, which tells its processes.
            process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "medseg", *command],
                stdout=file,
                stderr=file,
                env=self._environment,
                start_new_session=True,
                pass_fds=(handle,),
            )
            self._running.add(process)
            if self.signalled:
                process.send_signal(signal.SIGTERM)
            status = process.wait()
            self._running.discard(process)
        return status

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signalled = number
        self._stopped.set()
        for process in list(self._running):
            process.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def alone(run_dir: Path, stopped: threading.Event) -> Iterator[int | None]:
    """Wait until nobody works on a run, and keep others off it; yield None if stopped meanwhile.

    The processes of the run hold the lock as well: where the study is killed, they go on, and the
    study that is started again waits for them.
    """
    with (run_dir / ".lock").open("a+") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    file.seek(0)
                    holder = file.read().strip() or "another process"
                    log.info("waiting     %s: %s works on it", run_dir.name, holder)
                    told = True
            if stopped.wait(1):
                yield None
                return
        file.truncate(0)
        file.write(f"study {os.getpid()} on {platform.node()}, or a process it started,")
        file.flush()
        yield file.fileno()
