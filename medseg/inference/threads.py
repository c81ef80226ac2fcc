"""How many threads suit this process: physical cores, within what it was given."""

from __future__ import annotations

import math
import os
from pathlib import Path

_TOPOLOGY = "devices/system/cpu/cpu{}/topology/thread_siblings_list"
_QUOTA_V1 = Path("fs/cgroup/cpu/cpu.cfs_quota_us"), Path("fs/cgroup/cpu/cpu.cfs_period_us")


def default_threads(sys: Path = Path("/sys"), proc: Path = Path("/proc")) -> int:
    """Return the number of physical cores this process may use, at least 1.

    Convolutions keep a core's arithmetic units busy with one thread; the second hardware thread of
    a core only takes its cache away.

    Args:
        sys: Where the kernel describes the processors and the control groups.
        proc: Where it describes processes.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = {_siblings(sys, number) for number in os.sched_getaffinity(0)}
    return max(1, min(len(cores), _quota(sys, proc)))


def _siblings(sys: Path, number: int) -> str:
    """Return what names the physical core of a hardware thread."""
    return _text(sys / _TOPOLOGY.format(number)) or str(number)


def _quota(sys: Path, proc: Path) -> int:
    """Return the cores that the control groups of this process grant; a container's limit."""
    granted = [_share(*_text(place / "cpu.max").split()[:2]) for place in _groups(sys, proc)]
    granted.append(_share(*(_text(sys / name) for name in _QUOTA_V1)))
    return min(granted)


def _groups(sys: Path, proc: Path) -> list[Path]:
    """Return the folders of this process's control group (version 2) and of those around it."""
    root = sys / "fs/cgroup"
    lines = _text(proc / "self/cgroup").splitlines()
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    place = root / own.strip("/")
    return [place, *(parent for parent in place.parents if parent.is_relative_to(root))]


def _share(quota: str = "", period: str = "") -> int:
    """Return whole cores of a quota; very many where there is none (`max`, -1, no file)."""
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return 1 << 30
    return math.ceil(int(quota) / int(period))


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
