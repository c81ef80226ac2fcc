"""Does the commands of a study's runs, each in a process of its own."""

from __future__ import annotations

import contextlib
import fcntl
import json
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

from medseg.engine.parallel import default_workers
from medseg.study.options import StudyOptions
from medseg.study.planned import Planned

CHAIN = (sys.executable, "-m", "medseg.chain")
LAST_BYTES = 4096
"""Of a log: enough for its last line."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)

log = logging.getLogger("medseg")


class Crew:
    """Does the commands of runs, some side by side; a signal ends all of them in good order."""

    def __init__(self, options: StudyOptions) -> None:
        self.options = options
        self.signalled = 0
        self._stopped = threading.Event()
        self._failures: dict[str, str] = {}
        self._running: set[subprocess.Popen[bytes]] = set()
        threads = options.threads or max(1, default_workers() // max(options.workers, 1))
        self._threads = str(threads)
        self._environment = {**os.environ, "OMP_NUM_THREADS": self._threads}

    def work(self, planned: Sequence[Planned]) -> dict[str, str]:
        """Do all that is left of the runs; return why some failed, the first failure first."""
        handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            with ThreadPoolExecutor(max(self.options.workers, 1)) as pool:
                list(pool.map(self._one, planned))
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return self._failures

    def _one(self, entry: Planned) -> None:
        if self._stopped.is_set():
            return
        entry.files.run_dir.mkdir(parents=True, exist_ok=True)
        with alone(entry.files.run_dir, self._stopped) as handle:
            # Meanwhile, another process may have scored it.
            if handle is not None and not entry.is_done:
                self._do(entry, handle)

    def _do(self, entry: Planned, handle: int) -> None:
        entry.note(status="running")
        # Predict counts its own threads; it does not follow OMP_NUM_THREADS.
        own = {"predict": ["--threads", self._threads]}
        commands = [[*command, *own.get(command[0], [])] for command in entry.steps()]
        code, begun = self._call(commands, entry.files.run_dir, handle)
        if self.signalled:
            entry.note(status="interrupted", command=begun)
        elif code:
            self._fail(entry, begun, code, last_line(entry.files.run_dir / f"{begun}.log"))
        elif reason := entry.divergence:
            entry.note(status="diverged", reason=reason)
            log.info("diverged    %s", entry.run.name)
        else:
            entry.note(status="scored")
            log.info("done        %s", entry.run.name)

    def _fail(self, entry: Planned, command: str, code: int, said: str) -> None:
        entry.note(status="failed", command=command, exit_code=code, last_line=said)
        reason = f"{command} ended with status {code}; see {command}.log: {said}"
        log.error("failed      %s: %s", entry.run.name, reason)
        if self.options.fail_fast:
            self._stopped.set()
        self._failures[entry.run.name] = reason

    def _call(
        self, commands: Sequence[Sequence[str]], run_dir: Path, handle: int
    ) -> tuple[int, str]:
        """Do commands in a process; return its exit status and the last verb that began."""
        # What it says before its first command, a broken installation for one, belongs to that.
        with (run_dir / f"{commands[0][0]}.log").open("ab") as file:
            # A group of its own: Ctrl-C reaches the study alone, which tells its processes.
            process = subprocess.Popen(  # noqa: S603 - our own command
                [*CHAIN, str(run_dir), json.dumps(commands)],
                stdout=subprocess.PIPE,
                stderr=file,
                env=self._environment,
                start_new_session=True,
                pass_fds=(handle,),
            )
            self._running.add(process)
            if self.signalled:
                process.send_signal(signal.SIGTERM)
            told, _ = process.communicate()
            self._running.discard(process)
        begun = told.decode().split() or [commands[0][0]]
        return process.returncode, begun[-1]

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


def last_line(path: Path) -> str:
    """Return the last line of a log that says something."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
