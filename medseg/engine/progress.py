"""Progress of long work: a bar when a person watches, a few log lines when nobody does."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Item = TypeVar("Item")

LINES = 10
"""Log lines over the whole work, where there is no terminal."""

SECONDS = 1.0
"""From one line to the next, at least; the last one always comes."""

log = logging.getLogger("medseg")


def track(
    items: Iterable[Item],
    description: str,
    total: int,
    name: Callable[[Item], str] | None = None,
) -> Iterator[Item]:
    """Yield `items`, showing how many are done and how long the rest takes.

    Args:
        items: An item counts as done when the next one is asked for.
        description: What is being done, for instance `scoring`.
        total: Number of items.
        name: Name of an item, shown while it is the newest.
    """
    if sys.stderr.isatty():
        yield from _with_bar(items, description, total, name)
    else:
        yield from _with_lines(items, description, total)


def _with_bar(
    items: Iterable[Item], description: str, total: int, name: Callable[[Item], str] | None
) -> Iterator[Item]:
    columns = (
        # Names are data: `[/]` in one must not be taken for markup.
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[item]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total, item="")
        for item in items:
            if name is not None:
                bar.update(task, item=printable(name(item)))
            yield item
            bar.advance(task)


def _with_lines(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    started = said = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if done * LINES // max(total, 1) == (done - 1) * LINES // max(total, 1):
            continue
        now = time.monotonic()
        if now - said < SECONDS and done < total:
            continue
        said, spent = now, now - started
        rest = f"about {duration(spent * (total - done) / done)} left"
        end = rest if done < total else f"took {duration(spent)}"
        log.info("%s: %d of %d (%d %%), %s", description, done, total, 100 * done / total, end)


def duration(seconds: float) -> str:
    """Return a time span in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def printable(text: str) -> str:
    """Return text without control characters, which would drive the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
