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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from medseg.study.planned import HALVED, Planned

CHAIN = (sys.executable, "-m", "medseg.chain")
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

    Attributes:
        stopped: Set once no further run begins.
    """

    def __init__(self, threads: int) -> None:
        self._threads = str(threads)
        self._environment = {**os.environ, "OMP_NUM_THREADS": self._threads}
        self.stopped = threading.Event()
        self._signalled = False
        self._running: set[subprocess.Popen[bytes]] = set()

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
            for process in list(self._running):
                process.send_signal(signal.SIGTERM)

    def _do(self, entry: Planned, handle: int, pause_after: int | None) -> End:
        entry.note(status="running")
        # Predict counts its own threads; it does not follow OMP_NUM_THREADS.
        own = {"predict": ["--threads", self._threads]}
        commands = [[*command, *own.get(command[0], [])] for command in entry.steps(pause_after)]
        code, begun = self._call(commands, entry.files.run_dir, handle)
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
            if self._signalled:
                process.send_signal(signal.SIGTERM)
            told, _ = process.communicate()
            self._running.discard(process)
        begun = told.decode().split() or [commands[0][0]]
        return process.returncode, begun[-1]


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
