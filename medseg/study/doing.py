"""Does the commands of one run of a study, in a process of its own."""

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
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from medseg.engine.forking import Forked, ForkServer
from medseg.study.planned import HALVED, Planned

CHAIN = (sys.executable, "-m", "medseg.chain")
FORKS = sys.platform == "linux"
"""Whether a process that has imported PyTorch may fork here; macOS has libraries that forbid it."""

LAST_BYTES = 4096
"""Of a log: enough for its last line."""

log = logging.getLogger("medseg")


class End(NamedTuple):
    """How the work on a run ended.

    Attributes:
        status: As in study.json; empty if nothing was done.
        reason: Why it failed or diverged, in words.
    """

    status: str = ""
    reason: str = ""


class Doer:
    """Does runs; several threads may share one.

    Args:
        threads: CPU threads of each run.
        preloads: Whether its processes are forked from one that has imported what runs need, where
            that can be, instead of starting with an interpreter each.
        begins: Told of each run that begins.

    Attributes:
        stopped: Set once no further run begins.
    """

    def __init__(
        self,
        threads: int,
        preloads: bool = FORKS,
        begins: Callable[[Planned, int | None], None] = lambda *_: None,
    ) -> None:
        self._threads = str(threads)
        self._environment = {**os.environ, "OMP_NUM_THREADS": self._threads}
        self.stopped = threading.Event()
        self._signalled = False
        self._running: set[subprocess.Popen[bytes] | Forked] = set()
        self._preloads = preloads
        self._begins = begins
        self._server: ForkServer | None = None
        self._starting = threading.Lock()

    def do(self, entry: Planned, pause_after: int | None = None) -> End:
        """Do what is left of a run, or only its training up to a pause."""
        if self.stopped.is_set():
            return End()
        entry.files.run_dir.mkdir(parents=True, exist_ok=True)
        with alone(entry.files.run_dir, self.stopped) as handle:
            if handle is None:
                return End()
            # Meanwhile, another process may have scored it.
            return note_end(entry) if entry.is_done else self._do(entry, handle, pause_after)

    def stop(self, interrupt: bool) -> None:
        """Begin no further run; with `interrupt` also end what runs, `last` being kept."""
        self.stopped.set()
        if interrupt:
            self._signalled = True
            if self._server is not None:
                self._server.cancel()
            for process in list(self._running):
                process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """End the process that others were forked from; what runs goes on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _do(self, entry: Planned, handle: int, pause_after: int | None) -> End:
        # Predict counts its own threads; it does not follow OMP_NUM_THREADS.
        own = {"predict": ["--threads", self._threads]}
        commands = [[*command, *own.get(command[0], [])] for command in entry.steps(pause_after)]
        # Of an attempt whose end nobody saw the seconds are not known, nor is their sum.
        spent, since = entry.record.get("seconds") if entry.record else 0.0, time.monotonic()
        entry.note(status="running", seconds=None)
        self._begins(entry, pause_after)
        code, begun = self._call(commands, entry.files.run_dir, handle)
        if spent is not None:
            entry.note(status="running", seconds=round(spent + time.monotonic() - since, 3))
        if self._signalled:
            entry.note(status="interrupted", command=begun)
            return End("interrupted")
        if code:
            said = last_line(entry.files.run_dir / f"{begun}.log")
            entry.note(status="failed", command=begun, exit_code=code, last_line=said)
            return End("failed", f"{begun} ended with status {code}; see {begun}.log: {said}")
        if entry.state == "interrupted" and not entry.divergence:
            entry.note(status="paused")
            return End("paused")
        return note_end(entry)

    def _call(
        self, commands: Sequence[Sequence[str]], run_dir: Path, handle: int
    ) -> tuple[int, str]:
        """Do commands in a process; return its exit status and the last verb that began."""
        reading, telling = os.pipe()
        # What it says before its first command, a broken installation for one, belongs to that.
        with (run_dir / f"{commands[0][0]}.log").open("ab") as log, open(reading, "rb") as told:  # noqa: PTH123
            arguments = [str(run_dir), json.dumps(commands)]
            try:
                process = self._begin(arguments, telling, log.fileno(), handle)
            finally:
                os.close(telling)
            if process is None:
                return 0, commands[0][0]
            self._running.add(process)
            if self._signalled:
                process.send_signal(signal.SIGTERM)
            begun = told.read().decode().split() or [commands[0][0]]  # until it has ended
            code = process.wait()
            self._running.discard(process)
        return code, begun[-1]

    def _begin(
        self, arguments: Sequence[str], out: int, error: int, handle: int
    ) -> subprocess.Popen[bytes] | Forked | None:
        """Start a process in a session of its own: Ctrl-C reaches the study, which tells it.

        Returns:
            None if the study was interrupted before.
        """
        with self._starting:
            if self._preloads and self._server is None and not self._signalled:
                self._server = ForkServer([*CHAIN, "--serve"], self._environment)
        if self._server and (forked := self._server.start(arguments, out, error, handle)):
            return forked
        if self._signalled:
            return None
        return subprocess.Popen(  # noqa: S603 - our own command
            [*CHAIN, *arguments],
            stdout=out,
            stderr=error,
            env=self._environment,
            start_new_session=True,
            pass_fds=(handle,),
        )


def note_end(entry: Planned) -> End:
    """Note how a run without anything left to do came out; nothing where that is noted.

    A study that was killed notes nothing of the run that its processes then came to an end with.
    """
    reason = entry.divergence
    end = End("diverged", reason) if reason else End("scored")
    if entry.state == HALVED or entry.record.get("status") == end.status:
        return End()
    entry.note(status=end.status, **({"reason": reason} if reason else {}))
    return end


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
