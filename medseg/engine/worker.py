"""The worker's side of a spawned process: receive jobs, hand them to the handler, send results."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from queue import SimpleQueue
from typing import Any, Literal

TICK = 1.0
"""Seconds between two looks at whether the other side still lives."""

Message = tuple[Literal["ready", "begun", "done", "failed"], int, Any]
"""What has happened, to the job of which key, with which result or error."""

NO_JOB = -1


def main(descriptor: int, supervisor: int) -> None:
    """Work until the supervisor has no more jobs.

    Args:
        descriptor: Of the pipe to the supervisor.
        supervisor: Process id of the supervisor.
    """
    # Ctrl-C is the supervisor's, which lets running jobs finish. It started us with the signal
    # blocked, so that none comes before this line. So is SIGTERM, which batch systems send to all.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    pipe: Connection[Message, Any] = Connection(descriptor)
    inbox: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, inbox, supervisor), daemon=True).start()
    lock = threading.Lock()  # handlers may read ahead in threads

    def tell(*message: Any) -> None:
        with lock:
            pipe.send(message)

    try:
        handler = ForkingPickler.loads(inbox.get())()
        tell("ready", NO_JOB, None)
        for key, result in handler(_pairs(inbox, tell)):
            tell("done", key, portable(result) if isinstance(result, Exception) else result)
    except Exception as error:  # noqa: BLE001 - told to the supervisor, who decides
        tell("failed", NO_JOB, portable(error))


def _receive(pipe: Connection[Message, Any], inbox: SimpleQueue[bytes], supervisor: int) -> None:
    """Take in messages at once, so that neither side waits to send while the other does.

    The pipe is the lifeline too: where it ends, the supervisor was killed, and so is this process,
    in the middle of a job. A process forked from the supervisor may hold its end of the pipe open,
    so the parent is looked at as well.
    """
    try:
        while True:
            while not pipe.poll(TICK):
                if os.getppid() != supervisor:
                    os._exit(1)
            inbox.put(pipe.recv_bytes())
    except (EOFError, OSError):
        os._exit(1)


def _pairs(inbox: SimpleQueue[bytes], tell: Callable[..., None]) -> Iterator[tuple[int, Any]]:
    while (pair := ForkingPickler.loads(inbox.get())) is not None:
        tell("begun", pair[0], None)
        yield pair


def portable(error: Exception) -> Exception:
    """Return an exception that survives the way to another process, its traceback as a note."""
    lines = "".join(traceback.format_exception(error))
    error.add_note(f"in a worker process:\n{lines}")
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own, just made
    except Exception:  # noqa: BLE001 - whatever its own methods raise
        return RuntimeError(lines)
    return error
