"""Memory shared by the cases that are in one worker at a time."""

from __future__ import annotations

import threading


class Gate:
    """Let cases in as long as the sum of what they take keeps a limit; one alone always.

    Args:
        limit: Bytes; any if None.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._taken = 0
        self._changed = threading.Condition()

    def acquire(self, count: int) -> None:
        """Wait until there is room for `count` bytes, and take it."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(count))
            self._taken += count

    def release(self, count: int) -> None:
        """Give back what was taken."""
        with self._changed:
            self._taken -= count
            self._changed.notify_all()

    def _has_room(self, count: int) -> bool:
        return self._limit is None or not self._taken or self._taken + count <= self._limit
