"""Bytes of a file, plain or compressed, read with limits and verified to the last one."""

from __future__ import annotations

import bz2
import os
import stat
import zlib
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from medseg.core.errors import VolumeError

CHUNK = 1 << 17  # small enough that what is inflated stays in the processor's cache
GZIP_MAGIC = b"\x1f\x8b"

_NOTHING = memoryview(b"")

DAMAGED = "fetch or export the file again"

Packing = Literal["auto", "raw", "zlib", "bzip2"]


class _Inflater(Protocol):
    """What the two decompressors share, once zlib keeps its unconsumed tail to itself."""

    def feed(self, data: bytes) -> bytes: ...
    @property
    def hungry(self) -> bool: ...
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


class _Zlib:
    """Gzip or zlib, told apart by their headers; checksums are verified."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def feed(self, data: bytes) -> bytes:
        return self._inflater.decompress(self._inflater.unconsumed_tail + data, CHUNK)

    @property
    def hungry(self) -> bool:
        return not self._inflater.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflater.unused_data


class _Bzip2:
    """Bzip2; checksums are verified."""

    def __init__(self) -> None:
        self._inflater = bz2.BZ2Decompressor()

    def feed(self, data: bytes) -> bytes:
        return self._inflater.decompress(data, CHUNK)

    @property
    def hungry(self) -> bool:
        return self._inflater.needs_input

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflater.unused_data


_INFLATERS: dict[str, Callable[[], _Inflater]] = {"zlib": _Zlib, "bzip2": _Bzip2}


class ByteStream:
    """The content of one regular file from some byte on.

    Args:
        path: The file.
        start: Its first byte that belongs to the content.
        packing: How the content is compressed; `auto` takes gzip for gzip, by content and not by
            name, and all else as it is.

    Raises:
        VolumeError: `not-a-file` or `unreadable`.
    """

    def __init__(self, path: Path, start: int = 0, packing: Packing = "auto") -> None:
        self.path = path
        self._file = open_regular(path)
        self._file.seek(start)
        self._raw = self._file.read(2)
        if packing == "auto":
            packing = "zlib" if self._raw == GZIP_MAGIC else "raw"
        self.packing = packing
        self._buffer = _NOTHING  # a view, so that taking from it copies nothing
        self._ended = False
        self._inflater: _Inflater | None = None
        if packing == "raw":
            self._buffer = memoryview(self._raw)
        else:
            self._inflater = _INFLATERS[packing]()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def remaining(self) -> int | None:
        """Bytes to come, or None if that takes decompression."""
        if self._inflater is not None:
            return None
        return len(self._buffer) + os.fstat(self._file.fileno()).st_size - self._file.tell()

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes; fewer only at the end of the content."""
        out = bytearray(count)
        return bytes(out[: self.read_into(memoryview(out))])

    def skip(self, count: int) -> int:
        """Pass over up to `count` bytes and return how many there were."""
        passed = 0
        while passed < count and (part := self.read(min(count - passed, CHUNK))):
            passed += len(part)
        return passed

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
        self._buffer = _NOTHING
        while surplus <= limit and self._refill(CHUNK):
            surplus += len(self._buffer)
            self._buffer = _NOTHING
        if surplus > limit:
            raise VolumeError(self.path, "trailing-data", "content goes on after the voxels",
                              "check where the file comes from")  # fmt: skip
        if self._inflater is not None:
            if not self._inflater.eof:
                raise VolumeError(self.path, "truncated", "the compressed data have no end",
                                  DAMAGED)  # fmt: skip
            surplus += len(self._raw)  # what follows the compressed data
        return surplus

    def _refill(self, wanted: int) -> bool:
        """Put at least one more byte into the buffer; return whether there was one."""
        if self._inflater is None:
            self._buffer = memoryview(self._file.read(max(min(wanted, 64 * CHUNK), CHUNK)))
            return bool(self._buffer)
        while not self._buffer and self._more_members():
            raw = b""
            if self._inflater.hungry:
                raw = self._raw or self._file.read(CHUNK)
                self._raw = b""
                if not raw:
                    break
            try:
                self._buffer = memoryview(self._inflater.feed(raw))
            except (zlib.error, OSError) as error:
                cause = f"the compressed data are broken ({error})"
                raise VolumeError(self.path, "damaged", cause, DAMAGED) from error
        return bool(self._buffer)

    def _more_members(self) -> bool:
        """Go on to the next gzip member, as bgzip writes them; return whether there is data."""
        if self._inflater is None or not self._inflater.eof:
            return True
        if self._ended:
            return False
        rest = self._inflater.unused_data + self._raw + self._file.read(CHUNK)
        if self.packing == "zlib" and rest.startswith(GZIP_MAGIC):
            self._inflater = _Zlib()
        else:
            self._ended = True
        self._raw = rest
        return not self._ended


def check_name(path: Path) -> None:
    """Refuse a name that SimpleITK cannot take: it would end the whole process.

    Raises:
        VolumeError: `unreadable` if the name is not UTF-8.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise VolumeError(path, "unreadable", "its name is not UTF-8", "rename it") from error


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
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        words = getattr(error, "strerror", None) or str(error)
        raise VolumeError(path, "unreadable", words, "check path and permissions") from error
