"""One strict door for volumes: a wrong file is refused in words, never read as something else."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import VolumeError
from medseg.core.geometry import Grid
from medseg.io.header import NIFTI2_BYTES, Header, parse_header
from medseg.io.stream import DAMAGED, ByteStream

Conflicts = Literal["warn", "error"]
NonFinite = Literal["keep", "zero", "error"]

MAX_TRAILING_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume as it lies in its file.

    Attributes:
        array: Values in the file's own axis order, x first; integers stay integers.
        grid: Shape of the first three axes, and affine in mm.
        warnings: Ambiguities that were resolved, each `code: words`.
    """

    array: NDArray[Any]
    grid: Grid
    warnings: tuple[str, ...] = ()


def read_volume(
    path: Path | str,
    on_conflict: Conflicts = "warn",
    channels: int | None = None,
    non_finite: NonFinite = "keep",
    max_bytes: int | None = None,
) -> Volume:
    """Read a NIfTI-1 or NIfTI-2 volume: .nii, .nii.gz or .hdr/.img, recognized by content.

    The whole stream is read and its checksum verified; sizes are checked before memory is taken.

    Args:
        path: A regular file.
        on_conflict: What a header that contradicts itself does: a warning, or an error.
        channels: Channels the file must hold; 1 gives a 3-D array, more a 4-D array with the
            channels last. None takes any shape as it lies.
        non_finite: What NaN and infinite values do: stay, become 0 with a warning, or an error.
        max_bytes: Largest array to read; half of the free memory if None.

    Raises:
        VolumeError: With a `code`, if the file is not what it claims to be.
    """
    path = Path(path)
    with ByteStream(path) as stream:
        head = stream.read(NIFTI2_BYTES)
        header = parse_header(path, head)
        _check_size(path, header, max_bytes)
        if header.pair:
            raw, surplus = _read_pair(path, header)
        else:
            raw, surplus = _read_voxels(stream, head, header)
    warnings = list(header.warnings)
    if surplus:
        warnings.append(f"trailing-data: {surplus} bytes after the voxels are ignored")
    conflicts = [w for w in warnings if "conflict" in w]
    if conflicts and on_conflict == "error":
        raise VolumeError(path, "conflict", "; ".join(conflicts), "repair the header")
    array = _scaled(raw, header)
    if channels is not None:
        array = _as_channels(path, array, channels)
    array = _checked_values(path, array, non_finite, warnings)
    return Volume(array, header.grid, tuple(warnings))


def read_grid(path: Path | str) -> Grid:
    """Read where a volume's voxels lie, from its header alone.

    Raises:
        VolumeError: If the header is refused.
    """
    path = Path(path)
    with ByteStream(path) as stream:
        return parse_header(path, stream.read(NIFTI2_BYTES)).grid


def available_bytes() -> int:
    """Return the memory this process may still take, as far as the system tells."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        rows = dict(line.split(":", 1) for line in lines)
        limits.append(int(rows["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        pass  # not Linux: the physical memory has to do
    try:
        root = Path("/sys/fs/cgroup")
        limit = (root / "memory.max").read_text(encoding="ascii").strip()
        used = int((root / "memory.current").read_text(encoding="ascii"))
        limits.append(int(limit) - used)
    except (OSError, ValueError):
        pass  # no cgroup, or no limit in it
    return max(min(limits), 0)


def _check_size(path: Path, header: Header, max_bytes: int | None) -> None:
    limit = available_bytes() // 2 if max_bytes is None else max_bytes
    if header.data_bytes > limit:
        raise VolumeError(
            path,
            "too-big",
            f"the header claims {header.data_bytes / 2**30:.3g} GiB, more than {limit / 2**30:.3g}",
            "check the file, or raise max_bytes",
        )


def _read_pair(path: Path, header: Header) -> tuple[NDArray[Any], int]:
    for name in (".img", ".img.gz"):
        image = path.with_name(path.name.removesuffix(".gz").removesuffix(".hdr") + name)
        if image.exists():
            with ByteStream(image) as stream:
                return _read_voxels(stream, b"", header)
    raise VolumeError(path, "incomplete-pair", "the .img file is absent", "put it beside the .hdr")


def _read_voxels(stream: ByteStream, head: bytes, header: Header) -> tuple[NDArray[Any], int]:
    """Return the stored values and the number of bytes after them."""
    if not stream.gzipped:
        there = stream.path.stat().st_size
        if there < header.offset + header.data_bytes:
            raise _truncated(stream.path, header, there - header.offset)
    buffer = np.empty(math.prod(header.shape), dtype=header.dtype)
    target = memoryview(buffer.view(np.uint8).data)
    early = head[header.offset :]  # voxels of a tiny volume that came along with the header
    skip = header.offset - len(head)
    if skip > 0 and len(stream.read(skip)) < skip:
        raise _truncated(stream.path, header, 0)
    early, rest = early[: len(target)], max(len(early) - len(target), 0)
    target[: len(early)] = early
    filled = len(early) + stream.read_into(target[len(early) :])
    if filled < len(target):
        raise _truncated(stream.path, header, filled)
    return buffer.reshape(header.shape, order="F"), rest + stream.finish(MAX_TRAILING_BYTES)


def _truncated(path: Path, header: Header, there: int) -> VolumeError:
    cause = f"{max(there, 0)} of {header.data_bytes} bytes of voxels are there"
    return VolumeError(path, "truncated", cause, DAMAGED)


def _scaled(raw: NDArray[Any], header: Header) -> NDArray[Any]:
    native = raw.astype(raw.dtype.newbyteorder("="), copy=False)
    if (header.slope, header.intercept) == (1.0, 0.0):
        return native
    scaled = native.astype(np.float64) * header.slope + header.intercept
    return scaled if raw.dtype.itemsize > 4 else scaled.astype(np.float32)


def _as_channels(path: Path, array: NDArray[Any], channels: int) -> NDArray[Any]:
    shape = array.shape
    spatial = (*shape[:3], *[1] * (3 - len(shape)))
    extra = [n for n in shape[3:] if n != 1]
    count = math.prod(extra)
    if len(extra) > 1 or count != channels:
        expected = "a 3-D volume" if channels == 1 else f"{channels} channels"
        cause = f"shape {shape}, where {expected} was expected"
        cure = "take out one volume, or declare the channels in the manifest"
        raise VolumeError(path, "wrong-channels", cause, cure)
    return array.reshape(spatial if channels == 1 else (*spatial, channels), order="F")


def _checked_values(
    path: Path, array: NDArray[Any], non_finite: NonFinite, warnings: list[str]
) -> NDArray[Any]:
    if array.dtype.kind != "f":
        return array
    finite = np.isfinite(array)
    wrong = int(array.size - np.count_nonzero(finite))
    if not wrong:
        return array
    if wrong == array.size:
        raise VolumeError(path, "no-finite-value", "every value is NaN or infinite", DAMAGED)
    if non_finite == "error":
        raise VolumeError(path, "non-finite", f"{wrong} values are NaN or infinite",
                          "replace them by numbers")  # fmt: skip
    what = "are set to 0" if non_finite == "zero" else "stay"
    warnings.append(f"non-finite: {wrong} NaN or infinite values {what}")
    return np.where(finite, array, array.dtype.type(0)) if non_finite == "zero" else array
