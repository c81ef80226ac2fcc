"""A folder of DICOM files as one volume: exactly one series, whole, even and in order.

Which files belong together and where they lie is worked out here from their own tags (PS3.3
C.7.6.2, Image Plane), since a reader of series accepts missing slices silently.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import VolumeError
from medseg.core.geometry import Grid, rounded
from medseg.io.dicom_files import (
    Slice,
    Tags,
    parse_slice,
    read_pixels,
    read_tags,
    undecodable,
    value_bytes,
)
from medseg.io.layout import grid_of
from medseg.io.text import LPS_TO_RAS

EVEN_SHARE, EVEN_MM = 0.01, 0.01
"""Distances between slices are even if they differ by no more than 1 % or 0.01 mm."""

_SAME_DIRECTION = 1e-3  # direction cosines are often written with few digits
_COPY = 0.1  # share of a pixel: slices nearer to each other are copies of one
_MOST_FILES = 100_000
_NOTES = ("dicomdir", "thumbs.db")  # files that belong to a folder, not to a series

Files = list[tuple[Path, Tags]]


@dataclass(frozen=True, eq=False)
class Series:
    """One checked series.

    Attributes:
        paths: Its files, in the order of the third axis.
        grid: Where the voxels lie.
        memory_bytes: Bytes that reading takes.
        warnings: Ambiguities that were resolved, each `code: words`.
    """

    paths: tuple[Path, ...]
    grid: Grid
    memory_bytes: int
    warnings: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array that is read, columns first."""
        return self.grid.shape

    def read(self) -> tuple[NDArray[Any], tuple[str, ...]]:
        """Return the values, columns first; each file's own rescaling is applied.

        Raises:
            VolumeError: `damaged` if a file cannot be decoded, or not to its own size.
        """
        array = np.empty(self.grid.shape, dtype=np.uint8, order="F")
        for number, path in enumerate(self.paths):
            pixels = read_pixels(path)
            if pixels.shape != self.grid.shape[:2]:
                raise undecodable(path)
            if number == 0:
                array = np.empty(self.grid.shape, dtype=pixels.dtype, order="F")
            # Files of one series may be rescaled differently, as in PET.
            array = array.astype(np.result_type(array, pixels), copy=False)
            array[..., number] = pixels
        return array, ()


def open_series(folder: Path, series_uid: str | None = None) -> Series:
    """Check the files of a folder as one DICOM series. Subfolders are not looked into.

    Args:
        folder: With the files of the series; what is no DICOM image is named in a warning.
        series_uid: The series, if there are several.

    Raises:
        VolumeError: `no-dicom`, `several-series`, `no-such-series`, `no-position`, `multi-frame`,
            `unsupported-type`, `bad-scaling`, `mixed-slices`, `duplicate-slice`, `missing-slice`,
            `uneven-slices`, `too-big`, `truncated`, `damaged`, `unreadable` or `bad-geometry`.
    """
    images, damaged, others = _sorted_files(folder)
    uid, chosen = _chosen(folder, images, damaged, series_uid)
    for path, tags in damaged:
        if tags["series"] in ("", uid):
            raise undecodable(path)
        others.append(path)  # of another series, or no image at all
    slices = [parse_slice(path, tags) for path, tags in chosen]
    _check_alike(folder, slices)
    first = slices[0]
    normal = np.cross(first.row, first.column)
    slices.sort(key=lambda one: float(one.position @ normal))
    warnings = []
    if others:
        names = ", ".join(path.name for path in others[:3])
        warnings.append(f"other-files: {len(others)} files are no DICOM images: {names}")
    affine = np.eye(4)
    affine[:3, 0] = first.row * first.spacing[0]
    affine[:3, 1] = first.column * first.spacing[1]
    affine[:3, 2] = _step(folder, slices, normal, warnings)
    affine[:3, 3] = slices[0].position
    grid = grid_of(folder, (*first.size, len(slices)), LPS_TO_RAS @ affine)
    memory = math.prod(grid.shape) * max(value_bytes(tags) for _, tags in chosen)
    return Series(tuple(one.path for one in slices), grid, memory, tuple(warnings))


def _sorted_files(folder: Path) -> tuple[dict[str, Files], Files, list[Path]]:
    """Return the images of a folder by series, those that cannot be decoded, and other files."""
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        words = error.strerror or str(error)
        raise VolumeError(folder, "unreadable", words, "check its permissions") from error
    if len(paths) > _MOST_FILES:
        raise VolumeError(folder, "too-big", f"{len(paths)} files", "name the folder of one series")
    images: dict[str, Files] = defaultdict(list)
    damaged, others = [], []
    for path in paths:
        if path.is_dir() or path.name.lower() in _NOTES:
            continue
        tags = read_tags(path)
        if tags is None:
            others.append(path)
        elif "damaged" in tags:
            damaged.append((path, tags))
        else:
            images[tags["series"]].append((path, tags))
    return images, damaged, others


def _chosen(
    folder: Path, images: dict[str, Files], damaged: Files, series_uid: str | None
) -> tuple[str, Files]:
    """Return the one series that is meant: its UID and files."""
    if not images and damaged:
        raise undecodable(damaged[0][0])
    if not images:
        raise VolumeError(folder, "no-dicom", "the folder holds no DICOM image",
                          "name a volume, or the folder of a DICOM series")  # fmt: skip
    told = "; ".join(
        f"{uid} ({files[0][1]['description'] or files[0][1]['modality']}, {len(files)} files)"
        for uid, files in images.items()
    )
    if series_uid is not None and series_uid not in images:
        cause = f"no series {series_uid}; there are: {told}"
        raise VolumeError(folder, "no-such-series", cause, "name one of these")
    if series_uid is None and len(images) > 1:
        cause = f"{len(images)} series: {told}"
        raise VolumeError(folder, "several-series", cause, "choose one with series_uid")
    uid = next(iter(images)) if series_uid is None else series_uid
    return uid, images[uid]


def _check_alike(folder: Path, slices: Sequence[Slice]) -> None:
    """Refuse slices that differ in orientation, spacing or size."""
    first = slices[0]
    for other in slices[1:]:
        turned = max(np.abs(other.row - first.row).max(), np.abs(other.column - first.column).max())
        if turned > _SAME_DIRECTION:
            differs = "orientation"
        elif not np.allclose(other.spacing, first.spacing, rtol=_SAME_DIRECTION, atol=0):
            differs = "pixel spacing"
        elif other.size != first.size:
            differs = "size"
        else:
            continue
        cause = f"{other.path.name} differs from {first.path.name} in {differs}"
        raise VolumeError(folder, "mixed-slices", cause, "keep the slices of one volume")


def _step(
    folder: Path, slices: Sequence[Slice], normal: NDArray[np.float64], warnings: list[str]
) -> NDArray[np.float64]:
    """Return the way from one slice to the next, mm; slices are in order along the normal."""
    if len(slices) == 1:
        thickness = slices[0].thickness or 1.0
        warnings.append(f"single-slice: its thickness, {thickness:g} mm, is taken for the spacing")
        return normal * thickness
    positions = np.array([one.position for one in slices])
    gaps = np.diff(positions @ normal)
    _check_gaps(folder, slices, gaps)
    step = np.asarray((positions[-1] - positions[0]) / (len(slices) - 1))
    even = positions[0] + np.arange(len(slices))[:, None] * step
    tolerance = max(EVEN_SHARE * float(np.median(gaps)), EVEN_MM)
    if np.abs(positions - even).max() > tolerance * 2:
        cause = "the slices are shifted against each other unevenly"
        raise VolumeError(folder, "uneven-slices", cause, "resample them with a registration tool")
    shift = float(np.linalg.norm(step - (step @ normal) * normal))
    if shift > tolerance:
        angle = np.degrees(np.arctan2(shift, step @ normal))
        warnings.append(
            f"gantry-tilt: each slice is shifted by {shift:.3g} mm against the one before "
            f"({angle:.1f} degrees); the affine is sheared accordingly"
        )
    return step


def _check_gaps(folder: Path, slices: Sequence[Slice], gaps: NDArray[np.float64]) -> None:
    usual = float(np.median(gaps))
    tolerance = max(EVEN_SHARE * usual, EVEN_MM)
    closest, widest = int(np.argmin(gaps)), int(np.argmax(gaps))
    if gaps[closest] < min(EVEN_MM, _COPY * min(slices[0].spacing)):
        names = f"{slices[closest].path.name} and {slices[closest + 1].path.name}"
        raise VolumeError(folder, "duplicate-slice", f"{names} lie in one place",
                          "keep one time point, echo or copy")  # fmt: skip
    if gaps[widest] - gaps[closest] <= tolerance:
        return
    between = f"between {slices[widest].path.name} and {slices[widest + 1].path.name}"
    lost = round(float(gaps[widest]) / usual) - 1
    if lost >= 1:
        cause = f"{lost} of the slices {between} are missing ({rounded(gaps[widest])[0]} mm apart)"
        raise VolumeError(folder, "missing-slice", cause, "fetch the whole series")
    cause = (
        f"distances run from {rounded(gaps[closest])[0]} to {rounded(gaps[widest])[0]} mm, "
        f"the largest {between}"
    )
    raise VolumeError(folder, "uneven-slices", cause, "fetch the whole series, or resample it")
