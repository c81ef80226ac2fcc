"""Several processes or hosts share one folder of work: who does what."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Self

from medseg.core.errors import OptionError
from medseg.engine.owner import read_owner, this_process

HEARTBEAT = 20.0
"""Seconds between two signs of life; each touches as many files as this process works on."""

STALE = 300.0
"""Seconds without a sign of life after which a claim is free. NFS servers that restart let their
clients wait 90 s, and clients may see a file's time 60 s late (`acregmax`)."""

LOOKS, PAUSE = 50, 0.01
"""How often, and with which pause in seconds, a claim is looked at that is just changing hands."""


class Claims:
    """Files that say who works on what, one per key, in a folder that all can see.

    A claim is held until it is released, its process has ended on this host, or nothing was heard
    of it for five minutes. A process that was held up for longer (suspended, cut off) may find its
    work done twice; so results must be written whole, and the same by whoever writes them.

    Over NFS: exclusive creation needs version 3 or later. Times are taken from the server. Another
    host may see a new or released claim late, never a claim as its own.

    Args:
        folder: Made if absent.
        heartbeat: Seconds between two signs of life.
        stale: Seconds without one after which a claim is free.
    """

    def __init__(self, folder: Path, heartbeat: float = HEARTBEAT, stale: float = STALE) -> None:
        self._folder, self._heartbeat, self._stale = folder, heartbeat, stale
        self._token = uuid.uuid4().hex
        self._held: set[Path] = set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_written(folder, error) from error
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self, key: str) -> bool:
        """Return whether `key` is now ours; False if somebody has it, this object included.

        Raises:
            OptionError: If the folder cannot be written to.
        """
        try:
            return self._take(self._path(key))
        except OSError as error:
            raise _not_written(self._folder, error) from error

    def release(self, key: str) -> None:
        """Let others have `key`."""
        self._release(self._path(key))

    def close(self) -> None:
        """Release all that is held, and clear away what others have left who are gone."""
        self._closing.set()
        self._thread.join()
        for path in list(self._held):
            self._release(path)
        with suppress(OSError):
            for path in self._folder.glob("*.json"):
                with suppress(FileNotFoundError):
                    if gone := self._who_is_gone(path):
                        self._succeed(path, gone, take=False)

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:32]
        return self._folder / f"{name}.json"

    def _take(self, path: Path) -> bool:
        for _ in range(LOOKS):
            if self._create(path):
                break
            try:
                gone = self._who_is_gone(path)
            except FileNotFoundError:
                continue  # just released
            if gone is None:
                return False
            if self._succeed(path, gone, take=True):
                break
            time.sleep(PAUSE)  # somebody else succeeds, and takes it or clears it away
        else:
            return False
        self._held.add(path)
        return True

    def _create(self, path: Path) -> bool:
        me = this_process(self._token)
        try:
            file = path.open("xb", buffering=0)
        except FileExistsError:
            return False
        try:
            with file:
                file.write(me)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return True

    def _succeed(self, path: Path, gone: str, *, take: bool) -> bool:
        """Take the claim of an owner who is gone, or clear it away; of several, one succeeds.

        The right to do so with this one claim, known by its token, is itself a claim, and so passes
        on when its holder is killed. Who gets it afterwards sees that the claim is another one.
        """
        right = path.with_name(f"{path.stem}-{gone[:12]}.json")
        if not self._take(right):
            return False
        try:
            if self._who_is_gone(path) != gone:
                return False
            if take:
                new = path.with_name(f"{path.stem}-by-{self._token[:12]}.json")
                self._create(new)
                new.replace(path)
            else:
                path.unlink()
        except FileNotFoundError:
            return False
        finally:
            self._release(right)
        return True

    def _who_is_gone(self, path: Path) -> str | None:
        """Return the token of a claim whose owner is gone; None if it is not.

        Raises:
            FileNotFoundError: If there is no claim.
        """
        changed = path.stat()
        owner = read_owner(path)
        if not (owner and owner.is_dead) and self._now() - changed.st_mtime < self._stale:
            return None
        # One that was killed before it could write its name is known by the file.
        return owner.token if owner else f"{changed.st_ino}"

    def _now(self) -> float:
        """Return the time by the clock that stamps files, the server's for a network folder."""
        os.utime(self._folder)
        return self._folder.stat().st_mtime

    def _release(self, path: Path) -> None:
        self._held.discard(path)
        if self._is_ours(path):
            path.unlink(missing_ok=True)

    def _is_ours(self, path: Path) -> bool:
        try:
            owner = read_owner(path)
        except OSError:
            return False
        return owner is not None and owner.token == self._token

    def _beat(self) -> None:
        while not self._closing.wait(self._heartbeat):
            for path in list(self._held):
                with suppress(OSError):
                    if self._is_ours(path):
                        os.utime(path)


def _not_written(folder: Path, error: OSError) -> OptionError:
    return OptionError(
        f"{folder} cannot be written to ({error.strerror or error}). Choose another place, or "
        "make room."
    )
