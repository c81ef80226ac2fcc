"""One strict door for volumes: a wrong file is refused in words, never read as something else."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import VolumeError
from medseg.core.geometry import Grid
from medseg.io.dicom import Series, open_series
from medseg.io.layout import Layout
from medseg.io.memory import check_size
from medseg.io.metaimage import is_metaimage, parse_metaimage
from medseg.io.nifti import header_of, is_nifti, parse_nifti
from medseg.io.npy import is_npy, parse_npy
from medseg.io.nrrd import is_nrrd, parse_nrrd
from medseg.io.stream import DAMAGED, GZIP_MAGIC, ByteStream

Conflicts = Literal["warn", "error"]
NonFinite = Literal["keep", "zero", "error"]

HEAD_BYTES = 1 << 12
"""Tells every format from the others, and holds the binary headers."""

TEXT_HEAD_BYTES = 1 << 22
"""Holds the text headers of MetaImage and NRRD, lists of files and key-value pairs included."""

_CONFLICTS = ("form-conflict", "spacing-conflict")
_PARSERS = (
    (is_nifti, parse_nifti),
    (is_metaimage, parse_metaimage),
    (is_nrrd, parse_nrrd),
    (is_npy, parse_npy),
)


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
    warnings: list[str] = field(default_factory=list)


def read_volume(
    path: Path | str,
    on_conflict: Conflicts = "warn",
    channels: int | None = None,
    non_finite: NonFinite = "keep",
    max_bytes: int | None = None,
    series_uid: str | None = None,
) -> Volume:
    """Read NIfTI, MetaImage, NRRD, .npy or a folder with a DICOM series, told by content.

    Whole files are read and their checksums verified; sizes are checked before memory is taken.

    Args:
        path: A regular file, or the folder of a DICOM series.
        on_conflict: What a header that contradicts itself does: a warning, or an error.
        channels: Channels the file must hold; 1 gives a 3-D array, more a 4-D array with the
            channels last. None takes any shape as it lies.
        non_finite: What NaN and infinite values do: stay, become 0 with a warning, or an error.
        max_bytes: Most memory that the values may take; half of what is available if None.
        series_uid: The DICOM series to read where a folder holds several; files need none.

    Raises:
        VolumeError: With a `code`, if the file is not what it claims to be.
    """
    path = Path(path)
    source = _source(path, series_uid)
    check_size(path, source.memory_bytes, max_bytes)
    conflicts = [text for text in source.warnings if text.startswith(_CONFLICTS)]
    if conflicts and on_conflict == "error":
        raise VolumeError(path, "conflict", "; ".join(conflicts), "repair the header")
    try:
        array, found = source.read()
    except MemoryError as error:
        raise VolumeError(path, "too-big", "the memory does not suffice", "free memory") from error
    warnings = [*source.warnings, *found]
    if channels is not None:
        array = _as_channels(path, array, channels)
    array = _checked_values(path, array, non_finite, warnings)
    if (*array.shape, 1, 1)[:3] != source.grid.shape:
        raise VolumeError(path, "bad-dimensions", f"an array {array.shape} on a grid "
                          f"{source.grid.shape}", "convert it to NIfTI")  # fmt: skip
    return Volume(array, source.grid, warnings)


@dataclass(frozen=True, eq=False)
class Extent:
    """What a volume's headers say.

    Attributes:
        grid: Where its voxels lie.
        memory_bytes: What reading it takes.
    """

    grid: Grid
    memory_bytes: int


def read_extent(
    path: Path | str,
    series_uid: str | None = None,
    channels: int | None = None,
    missing: str = "",
) -> Extent:
    """Read where a volume's voxels lie and what they take, from headers alone.

    Args:
        path: See `read_volume`.
        series_uid: See `read_volume`.
        channels: See `read_volume`.
        missing: What to do if it holds too few channels, where the caller knows.

    Raises:
        VolumeError: If a header is refused, or tells of another number of channels.
    """
    path = Path(path)
    source = _source(path, series_uid)
    if channels is not None:
        _check_channels(path, source.shape, channels, missing)
    return Extent(source.grid, source.memory_bytes)


def read_grid(path: Path | str, series_uid: str | None = None) -> Grid:
    """Read where a volume's voxels lie, from headers alone.

    Raises:
        VolumeError: If a header is refused.
    """
    return read_extent(path, series_uid).grid


def volume_files(path: Path | str) -> tuple[Path, ...]:
    """Return all files that hold a volume: a header and its data, or every file of a folder.

    Raises:
        VolumeError: If a header is refused.
    """
    path = Path(path)
    if os.path.isdir(path):  # noqa: PTH112
        return tuple(sorted(file for file in path.iterdir() if file.is_file()))
    return _layout(path).files


def _source(path: Path, series_uid: str | None) -> Layout | Series:
    """Check the header of a file, or the headers of a folder."""
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises on a name that is too long
        return open_series(path, series_uid)
    return _layout(path)


def _layout(path: Path) -> Layout:
    header = header_of(path)
    if header is not None:  # the voxels of a pair may look like anything
        return _layout(header)
    head = _head(path, HEAD_BYTES)
    if is_metaimage(head) or is_nrrd(head):
        head = _head(path, TEXT_HEAD_BYTES)
    for recognizes, parse in _PARSERS:
        if recognizes(head):
            return parse(path, head)
    if not head:
        raise VolumeError(path, "empty", "the file holds no data", DAMAGED)
    if head[128:132] == b"DICM":
        raise VolumeError(path, "single-dicom", "one file of a DICOM series",
                          "name the folder that holds its series")  # fmt: skip
    packed = head.startswith(GZIP_MAGIC)
    cause = "gzip within gzip" if packed else "no NIfTI, MetaImage, NRRD or DICOM by its content"
    cure = "unpack it once" if packed else "convert it to NIfTI, or leave it out"
    raise VolumeError(path, "not-a-volume", cause, cure)


def _head(path: Path, count: int) -> bytes:
    with ByteStream(path) as stream:
        return stream.read(count)


def _as_channels(path: Path, array: NDArray[Any], channels: int) -> NDArray[Any]:
    _check_channels(path, array.shape, channels)
    spatial = (*array.shape, 1, 1)[:3]
    return array.reshape(spatial if channels == 1 else (*spatial, channels), order="F")


def _check_channels(path: Path, shape: tuple[int, ...], channels: int, missing: str = "") -> None:
    extra = [n for n in shape[3:] if n != 1]
    count = math.prod(extra)
    if len(extra) > 1 or count != channels:
        expected = "a 3-D volume was" if channels == 1 else f"{channels} channels were"
        cause = f"shape {shape}, where {expected} expected"
        cure = "take out one volume, or declare the channels in the manifest"
        if count < channels:
            cure = missing or "list one file for each channel, or one that holds them all"
        raise VolumeError(path, "wrong-channels", cause, cure)


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
