"""How much memory a volume may take."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from medseg.core.errors import OptionError, VolumeError

_CGROUPS = Path("/sys/fs/cgroup")

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def check_size(path: Path, claimed: int, max_bytes: int | None) -> None:
    """Refuse a volume that claims more memory than it may take.

    Args:
        path: The file.
        claimed: Bytes it would take.
        max_bytes: The limit; half of what is available if None.

    Raises:
        VolumeError: `too-big`.
    """
    limit = available_bytes() // 2 if max_bytes is None else max_bytes
    if claimed > limit:
        cause = f"the header claims {size(claimed)}; the limit is {size(limit)}"
        raise VolumeError(path, "too-big", cause, "check the file, or raise max_bytes")


def parse_bytes(option: str, text: str, total: int | None = None) -> int:
    """Return the bytes of a size such as `4GiB`, `900MB` or `4G`, all in powers of 1024.

    A share such as `80%` is that of `total`; of this machine's memory, or of its container's, if
    None is given.

    Raises:
        OptionError: If it is none.
    """
    share = re.fullmatch(r"\s*([0-9]+)\s*%\s*", text)
    if share is not None and 0 < int(share[1]) <= 100:
        return (total_bytes() if total is None else total) * int(share[1]) // 100
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?)\s*([kmgt]?)i?b?\s*", text.lower())
    if match is None or float(match[1]) <= 0:
        raise OptionError(
            f"{option} must be a size such as 4GiB, or a share such as 80%; got {text!r}."
        )
    return int(float(match[1]) * _UNITS[match[2]])


def size(count: int) -> str:
    """Return a number of bytes in words."""
    if count < 1 << 20:
        return f"{count} bytes"
    return f"{count / 2**30:.3g} GiB" if count >= 1 << 30 else f"{count / 2**20:.0f} MiB"


def available_bytes() -> int:
    """Return the memory this process may still take: of the machine, its cgroups and rlimits."""
    return max(min(_limits(), default=sys.maxsize), 0)


def total_bytes() -> int:
    """Return the memory of this machine, or of the container or job this process lies in."""
    limits = [*_physical(), *(limit for limit, _ in _cgroup_limits())]
    return min(limits, default=sys.maxsize)


def peak_bytes() -> int:
    """Return the most memory this process has held so far."""
    with contextlib.suppress(OSError, KeyError, ValueError):
        return _row("/proc/self/status", "VmHWM")  # unlike getrusage's, not the parent's as well
    import resource  # Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


class Room:
    """Memory that threads share: what does not fit beside the others waits for them.

    Args:
        count: Bytes; what this process may still take if None.
    """

    def __init__(self, count: int | None = None) -> None:
        self._count = available_bytes() if count is None else count
        self._taken = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, count: int) -> Iterator[None]:
        """Have so many bytes to oneself; alone where they are more than all there is."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + count <= self._count)
            self._taken += count
        try:
            yield
        finally:
            with self._changed:
                self._taken -= count
                self._changed.notify_all()


def _physical() -> Iterator[int]:
    if hasattr(os, "sysconf"):
        yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _limits() -> Iterator[int]:
    yield from _physical()
    # What a system does not tell (macOS has no /proc) limits nothing.
    with contextlib.suppress(OSError, KeyError, ValueError):
        yield _row("/proc/meminfo", "MemAvailable")
    yield from _rlimits()
    yield from (limit - used for limit, used in _cgroup_limits())


def _cgroup_limits() -> Iterator[tuple[int, int]]:
    """Yield the limit of each cgroup and what is used of it."""
    for folder in _cgroups():
        for limit, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
                yield (
                    int((folder / limit).read_text("ascii")),
                    int((folder / used).read_text("ascii")),
                )


def _rlimits() -> Iterator[int]:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    for kind, row in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        soft = resource.getrlimit(kind)[0]
        if soft != resource.RLIM_INFINITY:
            used = 0
            with contextlib.suppress(OSError, KeyError, ValueError):
                used = _row("/proc/self/status", row)
            yield soft - used


def _cgroups() -> Iterator[Path]:
    """Yield this process's cgroup folders and all above them; each of them limits it."""
    yield _CGROUPS
    yield _CGROUPS / "memory"
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines():
            _, kinds, place = line.split(":", 2)
            home = _CGROUPS if not kinds else _CGROUPS / "memory"
            if not kinds or "memory" in kinds.split(","):
                inner = Path(place.lstrip("/"))
                yield from (home / part for part in (inner, *inner.parents))


def _row(path: str, name: str) -> int:
    """Return a number of kilobytes from a table of /proc, in bytes."""
    rows = dict(line.split(":", 1) for line in Path(path).read_text("utf-8").splitlines())
    return int(rows[name].split()[0]) * 1024
