"""Whether a process of this machine still lives."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
from pathlib import Path

PROCESSES = Path("/proc")

DEAD = "ZX"
"""States of a process that has ended and is only remembered by the kernel; in a container whose
first process collects no children, for as long as the container runs."""

ENDED = "ended"


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


def lives(process: int, started: str = "") -> bool:
    """Return whether a process of this machine still runs.

    Args:
        process: Its id.
        started: What `start_time` returned for it, since another one means that the id was used
            again; "" if that is not known.
    """
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's; its start time may be hidden as well
    now = start_time(process)
    return now != ENDED and (not (now and started) or now == started)


def start_time(process: int) -> str:
    """Return when a process was started, in the words of the system.

    Returns:
        `ENDED` if it has, "" if that is not known.
    """
    try:
        # proc(5): after the name in parentheses, the state is the first word and the start time
        # in clock ticks the 20th.
        words = (PROCESSES / f"{process}/stat").read_bytes().rpartition(b")")[2].split()
        return ENDED if words[0].decode() in DEAD else words[19].decode()
    except OSError:
        pass
    command = ["ps", "-o", "stat=,lstart=", "-p", str(process)]  # macOS
    try:
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    state, _, started = shown.stdout.strip().partition(" ")
    return ENDED if state[:1] in DEAD else started.strip()
