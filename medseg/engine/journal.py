"""What was done, one line per record, by any number of processes that share a folder."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

from medseg.core.errors import OptionError
from medseg.core.runs import atomic_text, strict_json

PATTERN = "journal-*.jsonl"


class Place(NamedTuple):
    """Where the newest record of a key lies; of two places, the larger one is the newer.

    Attributes:
        time: Of the record, seconds since 1970.
        file: Name of its journal, which names host and process.
        offset: Of its line.
        length: Of its line.
    """

    time: float
    file: str
    offset: int
    length: int


class Journal:
    """All journals of a folder, one of which, `journal-HOST-PID.jsonl`, is written by this object.

    Each record is one line that is on disk before `add` returns. A line that its writer was killed
    within is passed over. Only the places of records are kept in memory, about 0.4 kB for each key.

    Over NFS, the newest lines of another host are seen when the client asks the server again: at
    once for journals that are known, after up to a minute (`acdirmax`) for a new one.

    Args:
        folder: Made at the first record.
        key: The field that says what a record is about.
    """

    def __init__(self, folder: Path, key: str = "output") -> None:
        self._folder, self._key = folder, key
        self._own: Path | None = None
        self._read: dict[str, int] = {}
        self._places: dict[str, Place] = {}
        self.refresh()

    def __len__(self) -> int:
        """Return for how many keys there are records."""
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        """Return whether there is a record of `key`."""
        return key in self._places

    def add(self, record: Mapping[str, Any]) -> None:
        """Write a record; one without `time` gets the time of now.

        Raises:
            OptionError: If it cannot be written.
        """
        content = {"time": datetime.now(UTC).isoformat(timespec="microseconds"), **record}
        line = json.dumps(strict_json(content), allow_nan=False).encode("ascii") + b"\n"
        try:
            own = self._own = self._own or self._new()
            _append(own, line)
        except OSError as error:
            raise OptionError(
                f"the journal in {self._folder} cannot be written ({error.strerror or error}). "
                "Make room, and run the same command again."
            ) from error
        self._catch_up(own.name)

    def newest(self, key: str) -> dict[str, Any] | None:
        """Return the newest record of `key` among those seen so far; None if there is none."""
        place = self._places.get(key)
        return None if place is None else dict(json.loads(self._line(place)))

    def refresh(self) -> None:
        """Read what was added since the last time, by anybody."""
        for path in sorted(self._folder.glob(PATTERN)):
            self._catch_up(path.name)

    def merge(self, path: Path) -> None:
        """Write the newest record of each key, in the order of keys, whole or not at all.

        Raises:
            OptionError: If it cannot be written.
        """
        self.refresh()
        with atomic_text(path) as file:
            for key in sorted(self._places):
                file.write(json.dumps(strict_json(self.newest(key))) + "\n")

    def _new(self) -> Path:
        """Make the journal of this object; never one that somebody else has written to."""
        self._folder.mkdir(parents=True, exist_ok=True)
        stem = f"journal-{re.sub(r'[^A-Za-z0-9.-]', '_', socket.gethostname())}-{os.getpid()}"
        names = chain([stem], (f"{stem}-{number}" for number in count(2)))
        path = self._folder / f"{next(names)}.jsonl"
        while not _made(path):
            path = self._folder / f"{next(names)}.jsonl"
        return path

    def _catch_up(self, name: str) -> None:
        """Take in the lines that one journal has got, but not one that is being written."""
        name = sys.intern(name)
        offset = self._read.get(name, 0)
        with suppress(OSError), (self._folder / name).open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._take_in(line, name, offset)
                offset += len(line)
        self._read[name] = offset

    def _take_in(self, line: bytes, name: str, offset: int) -> None:
        try:
            record = json.loads(line)
        except ValueError:
            return
        key = record.get(self._key) if isinstance(record, dict) else None
        if isinstance(key, str):
            place = Place(_seconds(record.get("time")), name, offset, len(line))
            self._places[key] = max(place, self._places.get(key, place))

    def _line(self, place: Place) -> bytes:
        with (self._folder / place.file).open("rb") as file:
            file.seek(place.offset)
            return file.read(place.length)


def _made(path: Path) -> bool:
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _append(path: Path, line: bytes) -> None:
    """Put a line onto the disk, or nothing."""
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            rest = line
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise


def _seconds(time: object) -> float:
    """Return a time as seconds since 1970, 0 for what is none; ISO without a zone is UTC."""
    if isinstance(time, int | float):
        return float(time)
    try:
        found = datetime.fromisoformat(str(time))
    except ValueError:
        return 0.0
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
