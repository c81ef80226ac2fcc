"""A command with all its processes, measured from outside: wall time and peak memory."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.core.errors import MedsegError, OptionError

INTERVAL_SECONDS = 0.2
"""Between two looks at the memory; what is allocated and freed within one may be missed."""

SHARED_INTERVAL_SECONDS = 2.0
"""At most, between two looks at shared pages; besides, at every new peak of the resident sizes.

For them the kernel walks over all pages, tens of milliseconds for a dozen processes: at every look
the measuring would slow down what it measures.
"""

_PROC = Path("/proc")
_PAGE = mmap.PAGESIZE
_SHOWN_LINES = 15


@dataclass(frozen=True)
class Measured:
    """What one command took, its child processes included.

    Attributes:
        seconds: Wall time from the start of the command to its end.
        processor_seconds: Of all its processes that were waited for; where others use the machine
            too, these tell more than the wall time.
        pss_bytes: Peak of the summed proportional set sizes: a page that several processes share
            counts once.
        rss_bytes: Peak of the summed resident set sizes: such a page counts once per process.
        processes: Most processes at once.
        watching_seconds: Processor time that the looks at its memory took beside it.
    """

    seconds: float
    processor_seconds: float
    pss_bytes: int
    rss_bytes: int
    processes: int
    watching_seconds: float


def measure(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Measured:
    """Run a command to its end and watch all its processes.

    Args:
        command: The program and its arguments.
        log: File that takes what it prints.
        environment: Its environment variables; ours if None.

    Raises:
        MedsegError: If it cannot be started or fails; the message shows the end of the log.
        OptionError: Where the system does not tell the memory of processes.
    """
    if not (_PROC / "self" / "smaps_rollup").exists():
        raise OptionError("memory is measured from /proc/PID/smaps_rollup: run this on Linux.")
    watching, before = time.thread_time(), _children_seconds()
    memory = _Peaks()
    started = time.perf_counter()
    with log.open("wb") as file:
        try:
            # A session of its own tells its processes from others, orphans included.
            process = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                env=environment, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise MedsegError(f"{command[0]} cannot be run ({error.strerror}).") from error
        try:
            while process.poll() is None:
                memory.look(members(process.pid))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(INTERVAL_SECONDS)
            seconds = time.perf_counter() - started
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    if process.returncode:
        raise MedsegError(
            f"`{' '.join(command)}` ended with status {process.returncode}:\n{_end_of(log)}"
        )
    return Measured(
        seconds,
        _children_seconds() - before,
        memory.pss_bytes,
        memory.rss_bytes,
        memory.processes,
        time.thread_time() - watching,
    )


def _children_seconds() -> float:
    """Return the processor time of our ended children and theirs."""
    times = os.times()
    return times.children_user + times.children_system


class _Peaks:
    """The highest sums over a set of processes so far."""

    def __init__(self) -> None:
        self.pss_bytes = self.rss_bytes = self.processes = 0
        self._next = time.monotonic()

    def look(self, processes: Sequence[int]) -> None:
        """Read the memory of these processes."""
        self.processes = max(self.processes, len(processes))
        rss_bytes = sum(map(resident_bytes, processes))
        if rss_bytes <= self.rss_bytes and time.monotonic() < self._next:
            return
        self.rss_bytes = max(self.rss_bytes, rss_bytes)
        self.pss_bytes = max(self.pss_bytes, sum(map(proportional_bytes, processes)))
        self._next = time.monotonic() + SHARED_INTERVAL_SECONDS


def members(leader: int) -> list[int]:
    """Return the processes of a session, and all that descend from its leader."""
    parents: dict[int, int] = {}
    found = {leader}
    for name in filter(str.isdigit, os.listdir(_PROC)):  # noqa: PTH208 - many times a second
        # The program's name, in brackets, may hold anything; then state, parent, group, session.
        fields = _read(name, "stat").rpartition(")")[2].split()
        if not fields:
            continue
        parents[int(name)] = int(fields[1])
        if int(fields[3]) == leader:
            found.add(int(name))
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def resident_bytes(process: int) -> int:
    """Return the resident set size of a process, 0 if it has ended."""
    fields = _read(process, "statm").split()
    return int(fields[1]) * _PAGE if fields else 0


def proportional_bytes(process: int) -> int:
    """Return the proportional set size of a process, 0 if it has ended."""
    for line in _read(process, "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(process: int | str, name: str) -> str:
    """Return a file of /proc, empty if the process has ended meanwhile."""
    try:
        with open(f"{_PROC}/{process}/{name}", errors="replace") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return ""


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(lines[-_SHOWN_LINES:])
