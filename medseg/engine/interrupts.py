"""Ctrl-C and SIGTERM noted instead of raised, so that running jobs can finish."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

log = logging.getLogger("medseg")


class Interrupts:
    """While entered, the first Ctrl-C is only noted; the second one interrupts as usual.

    Nothing changes outside the main thread, or where Ctrl-C is ignored or has another handler.

    Attributes:
        count: How often Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.count = 0
        self._is_installed = self._is_told = False

    def __enter__(self) -> Self:
        usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if usual and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._note)
            self._is_installed = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def none(self) -> bool:
        """Return whether there was no Ctrl-C; say so at the first one."""
        if self.count and not self._is_told:
            self._is_told = True
            log.warning("stopping: what is running finishes first; Ctrl-C again ends it at once")
        return not self.count

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt


@contextmanager
def terminations() -> Iterator[threading.Event]:
    """Give what is set at SIGTERM, so that running jobs can finish. Main thread only."""
    noted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return

    def note(_number: int, _frame: FrameType | None) -> None:
        noted.set()

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGTERM, before)
