"""A folder of DICOM files as one volume: exactly one series, whole, even and in order.

SimpleITK (GDCM) decodes the files one by one; which belong together and where they lie is worked
out here from their own tags (PS3.3 C.7.6.2, Image Plane), since a reader of series accepts missing
slices silently.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import VolumeError
from medseg.core.geometry import Grid, rounded
from medseg.core.manifest import ENDINGS
from medseg.io.layout import grid_of
from medseg.io.stream import DAMAGED, open_regular
from medseg.io.text import LPS_TO_RAS

if TYPE_CHECKING:
    import SimpleITK

EVEN_SHARE, EVEN_MM = 0.01, 0.01
"""Distances between slices are even if they differ by no more than 1 % or 0.01 mm."""

_SAME_DIRECTION = 1e-3  # direction cosines are often written with few digits
_UNIT = 1e-2
_BYTES_PER_VALUE = 8 * 2  # the slices as GDCM gives them, and the volume they are put into
_MOST_FILES = 100_000
_MAGIC = b"DICM"  # after a preamble of 128 bytes
_ENDINGS = (".dcm", ".ima", ".dicom")  # of files that may lack the preamble
_TRIED_FILES = 10
_NOTES = ("dicomdir", "thumbs.db")  # files that belong to a folder, not to a series
_META_BYTES = 1024  # the file's class stands near its beginning
_PIXEL_DATA: dict[Literal["little", "big"], bytes] = {
    "little": b"\xe0\x7f\x10\x00",
    "big": b"\x7f\xe0\x00\x10",
}
_UNDEFINED = 0xFFFFFFFF  # the length of compressed pixel data
_DEFLATED = b"1.2.840.10008.1.2.1.99"  # a transfer syntax that hides the tags
_WITHOUT_PIXELS = tuple(
    f"1.2.840.10008.{kind}".encode()
    for kind in (
        "1.3.10",  # DICOMDIR
        "5.1.4.1.1.11.",  # presentation states
        "5.1.4.1.1.66\0",  # raw data
        "5.1.4.1.1.66.1",  # registration
        "5.1.4.1.1.88.",  # structured reports, key objects
        "5.1.4.1.1.104.",  # documents
        "5.1.4.1.1.481.3",  # RT structure set
        "5.1.4.1.1.481.5",  # RT plan
    )
)

_TAGS = {
    "series": "0020|000e",
    "position": "0020|0032",
    "orientation": "0020|0037",
    "spacing": "0028|0030",
    "rows": "0028|0010",
    "columns": "0028|0011",
    "frames": "0028|0008",
    "bits": "0028|0100",
    "slope": "0028|1053",
    "intercept": "0028|1052",
    "thickness": "0018|0050",
    "photometric": "0028|0004",
    "description": "0008|103e",
    "modality": "0008|0060",
}

Tags = Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Slice:
    """What the tags of one file say.

    Attributes:
        path: The file.
        position: Centre of its first pixel, mm, LPS.
        row: Direction along a row, LPS.
        column: Direction along a column, LPS.
        spacing: Distance of neighbouring pixels along a row and along a column, mm.
        size: Pixels along a row and along a column.
        thickness: Slice thickness, mm, or None.
    """

    path: Path
    position: NDArray[np.float64]
    row: NDArray[np.float64]
    column: NDArray[np.float64]
    spacing: tuple[float, float]
    size: tuple[int, int]
    thickness: float | None


@dataclass(frozen=True, eq=False)
class Series:
    """One checked series.

    Attributes:
        paths: Its files, in the order of the third axis.
        grid: Where the voxels lie.
        warnings: Ambiguities that were resolved, each `code: words`.
    """

    paths: tuple[Path, ...]
    grid: Grid
    warnings: tuple[str, ...]

    @property
    def memory_bytes(self) -> int:
        """Bytes that reading takes."""
        i, j, k = self.grid.shape
        return i * j * k * _BYTES_PER_VALUE

    def read(self) -> tuple[NDArray[Any], tuple[str, ...]]:
        """Return the values, columns first; each file's own rescaling is applied.

        Raises:
            VolumeError: `damaged` if a file cannot be decoded.
        """
        slices = [_pixels(path, self.grid.shape[:2]) for path in self.paths]
        # Files of one series may be rescaled differently, as in PET.
        array = np.empty(self.grid.shape, dtype=np.result_type(*slices), order="F")
        for number, pixels in enumerate(slices):
            array[..., number] = pixels
        return array, ()


def open_series(folder: Path, series_uid: str | None = None) -> Series:
    """Check the files of a folder as one DICOM series. Subfolders are not looked into.

    Args:
        folder: With the files of the series; what is no DICOM image is named in a warning.
        series_uid: The series, if there are several.

    Raises:
        VolumeError: `no-dicom`, `several-series`, `no-such-series`, `no-position`, `multi-frame`,
            `unsupported-type`, `mixed-slices`, `duplicate-slice`, `missing-slice`,
            `uneven-slices`, `too-big`, `damaged` or `bad-geometry`.
    """
    by_series, others = _sorted_files(folder)
    slices = [_slice(path, tags) for path, tags in _chosen(folder, by_series, series_uid)]
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
    return Series(tuple(one.path for one in slices), grid, tuple(warnings))


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM by its content."""
    try:
        with open_regular(path) as file:
            return file.read(132)[128:] == _MAGIC
    except (VolumeError, OSError):
        return False


def holds_dicom(folder: Path) -> bool:
    """Return whether a folder holds DICOM files, from a few of its files."""
    files = (
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.lower().endswith(ENDINGS)
    )
    return any(is_dicom(path) for path in islice(files, _TRIED_FILES))


def _sorted_files(folder: Path) -> tuple[dict[str, list[tuple[Path, Tags]]], list[Path]]:
    """Return the images of a folder by series, and its other files."""
    try:
        files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        words = error.strerror or str(error)
        raise VolumeError(folder, "unreadable", words, "check its permissions") from error
    if len(files) > _MOST_FILES:
        raise VolumeError(folder, "too-big", f"{len(files)} files", "name the folder of one series")
    by_series: dict[str, list[tuple[Path, Tags]]] = defaultdict(list)
    others = []
    for path in files:
        if path.is_dir() or path.name.lower() in _NOTES:
            continue
        tags = _tags(path)
        if tags is None:
            others.append(path)
        else:
            by_series[tags["series"]].append((path, tags))
    return by_series, others


def _tags(path: Path) -> Tags | None:
    """Return the tags of an image, or None if the file is none.

    Raises:
        VolumeError: `damaged` if it should be one.
    """
    if not is_dicom(path) and path.suffix.lower() not in _ENDINGS:
        return None
    reader = _reader(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        with path.open("rb") as file:
            head = file.read(_META_BYTES)
        if any(kind in head for kind in _WITHOUT_PIXELS):
            return None
        raise _undecodable(path) from error
    return {
        name: reader.GetMetaData(tag).strip() if reader.HasMetaDataKey(tag) else ""
        for name, tag in _TAGS.items()
    }


def _chosen(
    folder: Path, by_series: dict[str, list[tuple[Path, Tags]]], series_uid: str | None
) -> list[tuple[Path, Tags]]:
    """Return the files of the one series that is meant."""
    if not by_series:
        raise VolumeError(folder, "no-dicom", "the folder holds no DICOM image",
                          "name a volume, or the folder of a DICOM series")  # fmt: skip
    told = "; ".join(
        f"{uid} ({files[0][1]['description'] or files[0][1]['modality']}, {len(files)} files)"
        for uid, files in by_series.items()
    )
    if series_uid is not None and series_uid not in by_series:
        cause = f"no series {series_uid}; there are: {told}"
        raise VolumeError(folder, "no-such-series", cause, "name one of these")
    if series_uid is None and len(by_series) > 1:
        cause = f"{len(by_series)} series: {told}"
        raise VolumeError(folder, "several-series", cause, "choose one with series_uid")
    return by_series[series_uid] if series_uid is not None else next(iter(by_series.values()))


def _slice(path: Path, tags: Tags) -> Slice:
    """Return what the tags of a file of the series say."""
    if tags["frames"] not in ("", "1"):
        raise VolumeError(path, "multi-frame", f"{tags['frames']} frames in one file",
                          "convert it to NIfTI, for instance with dcm2niix")  # fmt: skip
    if tags["photometric"] != "MONOCHROME2":  # GDCM would turn MONOCHROME1 round
        raise VolumeError(path, "unsupported-type", f"a {tags['photometric']} image",
                          "leave it out, or convert it to MONOCHROME2")  # fmt: skip
    _check_pixels(path, tags)
    directions = _numbers(path, tags, "orientation", 6)
    down, along = _numbers(path, tags, "spacing", 2)
    columns, rows, *_ = (*_numbers(path, tags, "columns", 1), *_numbers(path, tags, "rows", 1))
    lengths = np.linalg.norm(directions.reshape(2, 3), axis=1)
    if np.abs(lengths - 1).max() > _UNIT or min(down, along) <= 0:
        raise _without(path, tags, "orientation" if min(down, along) > 0 else "spacing")
    thickness = tags["thickness"]
    return Slice(
        path,
        position=_numbers(path, tags, "position", 3),
        row=directions[:3] / lengths[0],
        column=directions[3:] / lengths[1],
        spacing=(float(along), float(down)),
        size=(int(columns), int(rows)),
        thickness=float(_numbers(path, tags, "thickness", 1)[0]) if thickness else None,
    )


def _numbers(path: Path, tags: Tags, name: str, count: int) -> NDArray[np.float64]:
    try:
        values = np.array([float(word) for word in tags[name].split("\\")])
    except ValueError:
        values = np.array([])
    if len(values) != count or not np.isfinite(values).all():
        raise _without(path, tags, name)
    return values


def _check_pixels(path: Path, tags: Tags) -> None:
    """Refuse a slice whose pixel data are not as long as its tags say: GDCM fills them up.

    Compressed data have no such length; a broken one cannot be decoded.
    """
    for name in ("slope", "intercept"):
        if tags[name]:
            _numbers(path, tags, name, 1)
    (rows,), (columns,), (bits,) = (_numbers(path, tags, n, 1) for n in ("rows", "columns", "bits"))
    expected = int(rows * columns * bits) // 8
    content = path.read_bytes()
    places = [(found.end(), order) for order, tag in _PIXEL_DATA.items()
              for found in re.finditer(re.escape(tag), content)]  # fmt: skip
    if _DEFLATED in content[:_META_BYTES] or not places:
        return
    for place, order in places:
        start = place + (8 if content[place : place + 2] in (b"OW", b"OB") else 4)
        length = int.from_bytes(content[start - 4 : start], order)
        if length == _UNDEFINED:
            return
        if length in (expected, expected + 1) and start + length <= len(content):
            return
    cause = f"the pixel data are not the {expected} bytes of {columns:g} x {rows:g} pixels"
    raise VolumeError(path, "truncated", cause, DAMAGED)


def _without(path: Path, tags: Tags, name: str) -> VolumeError:
    cause = f"the tag ({_TAGS[name].replace('|', ',')}), {name}, is {tags[name]!r}"
    return VolumeError(path, "no-position", cause, "leave it out, or export the series again")


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
    if gaps[closest] < EVEN_MM:
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


def _reader(path: Path) -> SimpleITK.ImageFileReader:
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader


def _pixels(path: Path, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the values of one file, columns first."""
    import SimpleITK

    try:
        values = SimpleITK.GetArrayFromImage(_reader(path).Execute())
    except RuntimeError as error:
        raise _undecodable(path) from error
    return np.asarray(values.reshape(values.shape[-2:]).T.reshape(shape))


def _undecodable(path: Path) -> VolumeError:
    return VolumeError(path, "damaged", "its DICOM content cannot be decoded", DAMAGED)
