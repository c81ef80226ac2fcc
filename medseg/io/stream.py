"""Bytes of a file, plain or gzipped, read with limits and verified to the last one."""

from __future__ import annotations

import stat
import zlib
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Self

from medseg.core.errors import VolumeError

CHUNK = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WITH_CRC = 31  # zlib's window argument for "gzip header and trailer, checked"

DAMAGED = "fetch or export the file again"


class ByteStream:
    """The content of one regular file; gzip is recognized by content, not by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_regular(path)
        self._buffer = self._file.read(2)
        self.gzipped = self._buffer == _GZIP_MAGIC
        self._inflater = zlib.decompressobj(_GZIP_WITH_CRC) if self.gzipped else None
        self._raw = self._buffer
        self._buffer = b"" if self.gzipped else self._raw

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes; fewer only at the end of the content."""
        out = bytearray(count)
        return bytes(out[: self.read_into(memoryview(out))])

    def read_into(self, target: memoryview) -> int:
        """Fill `target` and return how many bytes there were.

        Raises:
            VolumeError: `damaged` if the compressed stream is broken.
        """
        filled = 0
        while filled < len(target):
            if not self._buffer and not self._refill(len(target) - filled):
                break
            part = self._buffer[: len(target) - filled]
            target[filled : filled + len(part)] = part
            self._buffer = self._buffer[len(part) :]
            filled += len(part)
        return filled

    def finish(self, limit: int) -> int:
        """Read to the end, so that the checksum is verified; return the bytes that were left.

        Args:
            limit: Surplus content beyond this many bytes is refused unread.

        Raises:
            VolumeError: `damaged`, `truncated`, or `trailing-data` beyond the limit.
        """
        surplus = len(self._buffer)
        self._buffer = b""
        while self._refill(CHUNK):
            surplus += len(self._buffer)
            self._buffer = b""
            if surplus > limit:
                raise VolumeError(self.path, "trailing-data", "content goes on after the voxels",
                                  "check where the file comes from")  # fmt: skip
        if self._inflater is not None:
            if not self._inflater.eof:
                raise VolumeError(self.path, "truncated", "the gzip stream has no end", DAMAGED)
            surplus += len(self._inflater.unused_data) + len(self._file.read(CHUNK))
        return surplus

    def _refill(self, wanted: int) -> bool:
        """Put at least one more byte into the buffer; return whether there was one."""
        if self._inflater is None:
            self._buffer = self._file.read(max(min(wanted, 64 * CHUNK), CHUNK))
            return bool(self._buffer)
        while not self._buffer and not self._inflater.eof:
            raw = self._inflater.unconsumed_tail or self._raw + self._file.read(CHUNK)
            self._raw = b""
            if not raw:
                break
            try:
                self._buffer = self._inflater.decompress(raw, 4 * CHUNK)
            except zlib.error as error:
                cause = f"the gzip stream is broken ({error})"
                raise VolumeError(self.path, "damaged", cause, DAMAGED) from error
        return bool(self._buffer)


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file; a FIFO would block for ever, a folder fails late.

    Raises:
        VolumeError: `not-a-file` or `unreadable`.
    """
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise VolumeError(path, "not-a-file", "is a folder", "name a file")
        if not stat.S_ISREG(kind):
            raise VolumeError(path, "not-a-file", "is a pipe or device", "name a regular file")
        return path.open("rb")
    except OSError as error:
        raise VolumeError(
            path, "unreadable", error.strerror or str(error), "check the path and its permissions"
        ) from error
