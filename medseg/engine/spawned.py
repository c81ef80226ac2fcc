"""The supervisor's side of one worker process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from medseg.engine.member import Member
from medseg.engine.outcome import Job, Start
from medseg.engine.worker import Message

GRACE = 10.0
"""Seconds that a process may take to end once it has nothing more to do."""


class Spawned(Member[Job]):
    """One worker process.

    A fresh interpreter: a fork breaks threads and CUDA. It imports what the jobs need and never the
    running script, which without a `__main__` guard (as some installers write console commands)
    would start the whole command again.

    Args:
        start: What builds the handler.
        room: How many jobs it may hold.
        environment: Variables added to those of this process.
        tries: How often a worker was started in this place, one after the other, this one included.

    Attributes:
        pipe: Where its messages come from.
    """

    def __init__(
        self, start: Start[Job, Any], room: int, environment: Mapping[str, str], tries: int
    ) -> None:
        super().__init__(room, tries)
        self.pipe: Connection[Any, Message]
        self.pipe, theirs = Pipe()
        with theirs:
            self._process = _spawn(theirs.fileno(), {**os.environ, **environment})
        self._tell(start)

    @property
    def has_ended(self) -> bool:
        """Whether the process is dead, even if one it forked holds the pipe open."""
        return self._process.poll() is not None

    def send(self, key: int, job: Job) -> None:
        """Send a job."""
        self._tell((key, job))

    def receive(self) -> Message:
        """Return the next message.

        Raises:
            EOFError: If the process has died.
        """
        if self.has_ended and not self.pipe.poll():
            raise EOFError
        try:
            return self.pipe.recv()
        except OSError as error:  # it may have died within a message
            raise EOFError from error

    def dismiss(self) -> None:
        """Let the process end by itself, or kill it if it is only starting."""
        if self.ready:
            self._tell(None)
        else:
            self.kill()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def end(self) -> str:
        """Wait for the end of the process, killing it if it lingers; return how it ended."""
        try:
            code = self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        self.pipe.close()
        return _words(code)

    def _tell(self, content: object) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(content)


def talking(workers: Sequence[Spawned[Any]], timeout: float) -> list[Spawned[Any]]:
    """Return the workers that have said something or have died, waiting for one."""
    pipes = wait([worker.pipe for worker in workers], timeout)
    return [worker for worker in workers if worker.pipe in pipes or worker.has_ended]


def _spawn(descriptor: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    path = [entry for entry in sys.path if isinstance(entry, str)]
    code = (
        f"import sys; sys.path[:] = {path!r}; from medseg.engine.worker import main; "
        f"main({descriptor}, {os.getpid()})"
    )
    # Inherited by the worker, which thus never sees a Ctrl-C, not even while it starts.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            env=environment,
            pass_fds=[descriptor],
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _words(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed by signal 9 (out of memory?)"
    if code < 0:
        return f"was killed by signal {-code} ({signal.strsignal(-code)})"
    return f"ended with exit code {code}"
