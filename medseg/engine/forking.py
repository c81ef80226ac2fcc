"""Processes forked from one that has imported already what they need: imports cost seconds."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence

TICK = 0.2
"""Seconds between two looks at what has ended."""

LOST = 255
"""Exit status of a process whose server has died: nobody was told the true one."""

_LARGEST = 1 << 17
"""Bytes of a request; longer ones are refused by the socket."""

_ENDING = (signal.SIGINT, signal.SIGTERM)


class Forked:
    """A process that the server has forked; what of `subprocess.Popen` it takes to wait for one.

    Args:
        told: Descriptor from which the server's words come: the process id, then the exit status.
        pid: The process id.
    """

    def __init__(self, told: int, pid: int) -> None:
        self._told, self.pid = told, pid

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, if it has not ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for the end; return the exit status, negative after a signal."""
        status = _line(self._told)
        os.close(self._told)
        return int(status) if status else LOST


class ForkServer:
    """The client's side: starts the server, asks it for processes; several threads may share one.

    Args:
        command: Starts the server; gets the descriptor of its socket as one argument more.
        environment: Of the server and all that it forks.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._answers = False
        self._asking, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # What it fails by is told by whoever then does without it.
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [*command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
                pass_fds=(theirs.fileno(),),
            )

    def start(self, arguments: Sequence[str], out: int, error: int, kept: int) -> Forked | None:
        """Have a process forked, the leader of a session of its own.

        Args:
            arguments: What `serve` returns in it.
            out: Descriptor that becomes its standard output.
            error: Likewise its standard error.
            kept: Descriptor that it is to hold open.

        Returns:
            None if the server could not be started, or has died.
        """
        told, telling = os.pipe()
        request = json.dumps([*arguments]).encode()
        try:
            with self._lock:
                socket.send_fds(self._asking, [request], [telling, out, error, kept])
        except OSError:
            pass
        finally:
            os.close(telling)
        if pid := _line(told):
            self._answers = True
            return Forked(told, int(pid))
        os.close(told)
        return None

    def cancel(self) -> None:
        """End the server if it has not forked yet, as while it imports: nobody is to wait."""
        if not self._answers:
            self._process.kill()

    def close(self) -> None:
        """End the server; processes that still run go on."""
        self.cancel()
        self._asking.close()
        self._process.wait()


def serve(descriptor: int) -> list[str] | None:
    """Fork a process for each request.

    Signals that end things are left to the processes, and to the client, whose end is the server's:
    processes that run then go on.

    Args:
        descriptor: Of the socket to the client.

    Returns:
        In each forked process its arguments; in the server None, once there is no client any more.
    """
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    running: dict[int, int] = {}
    with socket.socket(fileno=descriptor) as asking:
        while True:
            if select.select([asking], [], [], TICK)[0]:
                request, descriptors, *_ = socket.recv_fds(asking, _LARGEST, 4)
                if not request:
                    return None
                if _is_forked(running, descriptors):
                    return [str(word) for word in json.loads(request)]
            _bury(running)


def _is_forked(running: dict[int, int], descriptors: Sequence[int]) -> bool:
    """Fork; return whether this is the new process, which has no descriptors of others then."""
    telling, out, error, kept = descriptors
    # A signal that comes before the new process minds signals again must not be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        for each in (out, error, kept):
            os.close(each)
        _tell(telling, pid)
        running[pid] = telling
        return False
    os.setsid()
    os.dup2(out, 1)
    os.dup2(error, 2)
    for each in (telling, out, error, *running.values()):
        os.close(each)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    return True


def _bury(running: dict[int, int]) -> None:
    """Tell of the processes that have ended how they did."""
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            telling = running.pop(pid)
            _tell(telling, os.waitstatus_to_exitcode(status))
            os.close(telling)


def _tell(telling: int, number: int) -> None:
    with contextlib.suppress(OSError):  # the client may have been killed
        os.write(telling, f"{number}\n".encode())


def _line(descriptor: int) -> str:
    """Return the next line without its end; empty if there is none any more."""
    found = b""
    while (byte := os.read(descriptor, 1)) not in (b"", b"\n"):
        found += byte
    return found.decode()
