"""Where a file's voxels lie, once its header is checked, and how they are fetched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import GeometryError, VolumeError
from medseg.core.geometry import Grid
from medseg.io.stream import DAMAGED, ByteStream, Packing

MAX_TRAILING_BYTES = 1 << 20
"""More than this after the voxels is no padding: the header and the data do not belong together."""

_SLAB = 1 << 22  # values scaled at once, so that scaling takes no second volume in float64
_TEXT_BYTES = 64  # generous for one number written out
_TEXT_MEMORY = 192  # for one number on its way from text to array

_KINDS = "iuf"  # integers and real numbers; RGB and complex are no intensities
_MAX_ITEM_BYTES = 8  # no float128: its layout depends on the platform

WRITE_AGAIN = "write the file again with a current tool"

Spelling = Literal["binary", "decimal", "hex"]


@dataclass(frozen=True)
class Part:
    """Voxels within one file.

    Attributes:
        path: The file.
        start: First byte of the content, before decompression.
        packing: How it is compressed.
        skip: Bytes of the content before the voxels; -1 if the voxels are its end.
    """

    path: Path
    start: int = 0
    packing: Packing = "raw"
    skip: int = 0


@dataclass(frozen=True, eq=False)
class Layout:
    """A checked header.

    Attributes:
        path: The file that was named.
        sizes: Array dimensions, the fastest first.
        dtype: Stored type, with byte order.
        grid: Where the voxels lie.
        parts: Where they are stored, each holding an equal share.
        warnings: Ambiguities that were resolved, each `code: words`.
        axes: Permutation of `sizes` that puts x, y, z first; None if they are.
        slope: Scaling factor, 1 if none.
        intercept: Scaling offset, 0 if none.
        spelling: Whether numbers are stored in binary or written out.
    """

    path: Path
    sizes: tuple[int, ...]
    dtype: np.dtype[Any]
    grid: Grid
    parts: tuple[Part, ...]
    warnings: tuple[str, ...] = ()
    axes: tuple[int, ...] | None = None
    slope: float = 1.0
    intercept: float = 0.0
    spelling: Spelling = "binary"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array that is read, x first."""
        return self.sizes if self.axes is None else tuple(self.sizes[axis] for axis in self.axes)

    @property
    def data_bytes(self) -> int:
        """Bytes of the voxels, in binary."""
        return math.prod(self.sizes) * self.dtype.itemsize

    @property
    def memory_bytes(self) -> int:
        """Bytes that reading takes."""
        count = math.prod(self.sizes)
        scaled = count * self._scaled_type.itemsize if self._is_scaled else 0
        written = 0 if self.spelling == "binary" else count * _TEXT_MEMORY
        return self.data_bytes + scaled + written

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the volume."""
        return tuple(dict.fromkeys((self.path, *(part.path for part in self.parts))))

    def read(self) -> tuple[NDArray[Any], tuple[str, ...]]:
        """Return the values, x first, and what was found on the way.

        Raises:
            VolumeError: If there are fewer voxels than claimed, or the data are broken.
        """
        buffer = np.empty(math.prod(self.sizes), dtype=self.dtype)
        surplus = 0
        if buffer.size % len(self.parts):
            cause = f"{buffer.size} values in {len(self.parts)} files"
            raise VolumeError(self.path, "bad-header", cause, DAMAGED)
        for part, share in zip(self.parts, np.split(buffer, len(self.parts)), strict=True):
            surplus += _fill(share, part, self.spelling)
        values = self._scaled(buffer).reshape(self.sizes, order="F")
        if self.axes is not None:
            values = values.transpose(self.axes)
        found = f"trailing-data: {surplus} bytes after the voxels are ignored"
        return values, (found,) if surplus else ()

    @property
    def _is_scaled(self) -> bool:
        return (self.slope, self.intercept) != (1.0, 0.0)

    @property
    def _scaled_type(self) -> np.dtype[Any]:
        # float32 holds every integer of 16 bits, and no more than 24 bits of one with 32.
        narrow = self.dtype.itemsize <= 2 or self.dtype == np.dtype(np.float32)
        return np.dtype(np.float32 if narrow else np.float64)

    def _scaled(self, buffer: NDArray[Any]) -> NDArray[Any]:
        if not self._is_scaled:
            return buffer.astype(buffer.dtype.newbyteorder("="), copy=False)
        out = np.empty(buffer.shape, dtype=self._scaled_type)
        for start in range(0, len(buffer), _SLAB):
            piece = slice(start, start + _SLAB)
            with np.errstate(over="ignore"):  # found below
                # In double precision first: a large intercept eats the digits of a small slope.
                out[piece] = buffer[piece].astype(np.float64) * self.slope + self.intercept
            if np.isfinite(buffer[piece]).sum() > np.isfinite(out[piece]).sum():
                cause = f"values leave {out.dtype.name} when scaled by {self.slope:g}"
                raise VolumeError(self.path, "bad-scaling", cause, WRITE_AGAIN)
        return out


def check_type(path: Path, dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    """Return a voxel type if it is one of integers or real numbers.

    Raises:
        VolumeError: `unsupported-type` if not.
    """
    if dtype.kind not in _KINDS or dtype.itemsize > _MAX_ITEM_BYTES:
        raise VolumeError(path, "unsupported-type", f"voxel type {name}",
                          "convert it to integers or real numbers")  # fmt: skip
    return dtype


def grid_of(path: Path, shape: Sequence[int], affine: NDArray[np.float64]) -> Grid:
    """Return the grid of an array's first three axes.

    Raises:
        VolumeError: `bad-geometry` if the affine is not finite, or singular.
    """
    i, j, k = (*shape[:3], 1, 1)[:3]
    try:
        return Grid((i, j, k), affine)
    except GeometryError as error:
        raise VolumeError(path, "bad-geometry", str(error), WRITE_AGAIN) from error


def _fill(target: NDArray[Any], part: Part, spelling: Spelling) -> int:
    """Fill an array from one file; return the bytes that were left over."""
    with ByteStream(part.path, part.start, part.packing) as stream:
        if spelling != "binary":
            return _spelled(target, stream, spelling)
        there = stream.remaining
        skip = part.skip
        if skip < 0:
            if there is None:
                cause = "compressed data counted from their end"
                raise VolumeError(part.path, "unsupported-encoding", cause, WRITE_AGAIN)
            skip = max(there - target.nbytes, 0)
        if there is not None and there < skip + target.nbytes:
            raise _truncated(part.path, target, there - skip)
        if stream.skip(skip) < skip:
            raise _truncated(part.path, target, 0)
        filled = stream.read_into(memoryview(target.view(np.uint8).data))
        if filled < target.nbytes:
            raise _truncated(part.path, target, filled)
        return stream.finish(MAX_TRAILING_BYTES)


def _spelled(target: NDArray[Any], stream: ByteStream, spelling: Spelling) -> int:
    """Fill an array with numbers that are written out."""
    text = stream.read(target.size * _TEXT_BYTES + MAX_TRAILING_BYTES)
    try:
        if spelling == "hex":
            content = bytes.fromhex(text.decode("ascii"))
            values = np.frombuffer(content[: len(content) // target.itemsize * target.itemsize],
                                   dtype=target.dtype)  # fmt: skip
        else:
            words = text.replace(b"_", b"?").decode("ascii").split()  # Python's 1_0 is no number
            values = np.array([target.dtype.type(word) for word in words], dtype=target.dtype)
    except (ValueError, OverflowError) as error:
        cause = f"the numbers cannot be read ({error})"
        raise VolumeError(stream.path, "damaged", cause, DAMAGED) from error
    if len(values) < len(target):
        raise _truncated(stream.path, target, values.nbytes)
    target[:] = values[: len(target)]
    return values.nbytes - target.nbytes


def _truncated(path: Path, target: NDArray[Any], there: int) -> VolumeError:
    cause = f"{max(there, 0)} of {target.nbytes} bytes of voxels are there"
    return VolumeError(path, "truncated", cause, DAMAGED)
