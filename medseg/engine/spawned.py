"""The supervisor's side of one worker process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import Any, Generic

from medseg.engine.outcome import Job
from medseg.engine.source import Task
from medseg.engine.worker import Message

GRACE = 10.0
"""Seconds that a process may take to end once it has nothing more to do."""


class Worker(Generic[Job]):
    """One worker process, and the jobs it holds.

    A fresh interpreter: a fork breaks threads and CUDA. It imports what the jobs need and never the
    running script, which without a `__main__` guard (as some installers write console commands)
    would start the whole command again.

    Args:
        start: What builds the handler.
        room: How many jobs it may hold.
        environment: Variables added to those of this process.
        tries: How often a worker was started in this place, one after the other, this one included.

    Attributes:
        ready: The handler is built.
        held: Jobs it was given and has not answered, by key.
    """

    def __init__(
        self,
        start: Callable[[], Any],
        room: int,
        environment: Mapping[str, str],
        tries: int = 1,
    ) -> None:
        self.room, self.tries = room, tries
        self.ready = self._isolated = False
        self.held: dict[int, Task[Job]] = {}
        self.pipe: Connection[Any, Message]
        self.pipe, theirs = Pipe()
        with theirs:
            self._process = _spawn(theirs.fileno(), {**os.environ, **environment})
        self._send(start)

    @property
    def has_room(self) -> bool:
        """Whether it may be given another job."""
        return self.ready and not self._isolated and len(self.held) < self.room

    @property
    def has_ended(self) -> bool:
        """Whether the process is dead, even if one it forked holds the pipe open."""
        return self._process.poll() is not None

    def give(self, task: Task[Job], *, alone: bool = False) -> None:
        """Send a job; one that is to be alone keeps others away until it is answered."""
        self.held[task.key] = task
        self._isolated = alone
        self._send((task.key, task.job))

    def receive(self) -> Message:
        """Return the next message.

        Raises:
            EOFError: If the process has died.
        """
        if self.has_ended and not self.pipe.poll():
            raise EOFError
        try:
            return self.pipe.recv()
        except ConnectionResetError as error:
            raise EOFError from error

    def answered(self, key: int) -> Task[Job]:
        """Return the task that was answered; it is no longer held."""
        self._isolated = False
        return self.held.pop(key)

    def dismiss(self) -> None:
        """Let the process end by itself, or kill it if it is only starting."""
        if self.ready:
            self._send(None)
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

    def _send(self, content: object) -> None:
        # A dead process is noticed where messages are received; the job is among those it held.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(content)


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
