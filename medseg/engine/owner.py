"""Who holds a claim, and whether it still lives."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from medseg.core.processes import lives, machine, start_time


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
