"""Which process on which machine, so that one can tell whether another one still lives."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

PROCESSES = Path("/proc")

DEAD = "ZX"
"""States of a process that has ended and is only remembered by the kernel."""


@dataclass(frozen=True)
class Owner:
    """Who holds a claim.

    Attributes:
        token: Unique.
        machine: Where its process id means something.
        process: Its id.
        started: When the process was started, in the words of the system.
        time: When the claim was made, seconds since 1970; for people.
    """

    token: str
    machine: str
    process: int
    started: str
    time: float

    @property
    def is_dead(self) -> bool:
        """Whether it was a process of this machine that has ended."""
        return self.machine == machine() and not lives(self.process, self.started)


def this_process(token: str) -> bytes:
    """Return what a claim of this process says."""
    pid = os.getpid()
    return json.dumps(asdict(Owner(token, machine(), pid, start_time(pid), time.time()))).encode()


def read_owner(path: Path) -> Owner | None:
    """Return who holds a claim; None if the file does not say."""
    try:
        return Owner(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return None


@functools.cache
def machine() -> str:
    """Return a name of the space in which process ids of this process mean something.

    Containers may share a host's name but not its process ids; after a reboot they start anew.
    """
    try:
        boot = (PROCESSES / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = (PROCESSES / "self/ns/pid").readlink()
    except OSError:  # no Linux
        return socket.gethostname()
    return f"{socket.gethostname()} {boot} {space}"


def lives(process: int, started: str) -> bool:
    """Return whether a process of this machine still runs.

    Args:
        process: Its id.
        started: What `start_time` returned for it; another one means that the id was used again.
    """
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's; its start time may be hidden as well
    return start_time(process) in (started, "")


def start_time(process: int) -> str:
    """Return when a process was started, in the words of the system.

    Returns:
        `ended` if it has, "" if that is not known.
    """
    try:
        # proc(5): after the name in parentheses, the state is the first word and the start time
        # in clock ticks the 20th.
        words = (PROCESSES / f"{process}/stat").read_bytes().rpartition(b")")[2].split()
        return "ended" if words[0].decode() in DEAD else words[19].decode()
    except OSError:
        pass
    command = ["ps", "-o", "stat=,lstart=", "-p", str(process)]  # macOS
    try:
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    state, _, started = shown.stdout.strip().partition(" ")
    return "ended" if state[:1] in DEAD else started.strip()
