"""Progress over the cases of a data set: a bar on a terminal, a few log lines elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich import progress
from rich.console import Console

Item = TypeVar("Item")

LINES = 10
"""Log lines over the whole work, where there is no terminal."""

log = logging.getLogger("medseg")


def track(items: Sequence[Item], description: str) -> Iterator[Item]:
    """Yield `items`, showing on standard error how many are done."""
    if sys.stderr.isatty():
        yield from progress.track(items, description, console=Console(stderr=True))
        return
    shown = 0
    for done, item in enumerate(items, start=1):
        yield item
        if done * LINES // len(items) > shown:
            shown = done * LINES // len(items)
            log.info("%s: %d of %d", description, done, len(items))
