"""One DICOM file: is it an image, what do its tags say, what are its pixels?

SimpleITK (GDCM) decodes; what it would accept silently is refused here before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import VolumeError
from medseg.core.manifest import ENDINGS
from medseg.io.stream import DAMAGED, check_name, open_regular

if TYPE_CHECKING:
    import SimpleITK

_MAGIC = b"DICM"  # after a preamble of 128 bytes
_BARE_START = re.compile(rb"[\x02\x08]\x00[\x00-\x20]\x00")  # group 2 or 8: a file without preamble
_NAMED = (".dcm", ".ima", ".dicom")
_TRIED_FILES = 100
_HEAD_BYTES = 1024  # the file's class stands near its beginning
_PIXEL_DATA: dict[Literal["little", "big"], bytes] = {
    "little": b"\xe0\x7f\x10\x00",
    "big": b"\x7f\xe0\x00\x10",
}
_SERIES_UID = b"\x20\x00\x0e\x00"
_LONGEST_UID = 64
_UNDEFINED = 0xFFFFFFFF  # the length of compressed pixel data
_DEFLATED = b"1.2.840.10008.1.2.1.99"  # a transfer syntax that hides the tags
_WITHOUT_PIXELS = tuple(
    f"1.2.840.10008.{kind}".encode()
    for kind in (
        "1.3.10",  # DICOMDIR
        "5.1.4.1.1.11.",  # presentation states
        "5.1.4.1.1.66",  # raw data, registration, fiducials
        "5.1.4.1.1.88.",  # structured reports, key objects
        "5.1.4.1.1.104.",  # documents
        "5.1.4.1.1.481.",  # radiotherapy structures, plans, records
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
    "kind": "0008|0008",
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


def holds_dicom(folder: Path) -> bool:
    """Return whether a folder holds DICOM files, from its files of that name and some others."""
    files = [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and not path.name.lower().endswith(ENDINGS)
    ]
    named = (path for path in files if path.name.lower().endswith(_NAMED))
    others = islice((path for path in files if path.is_file()), _TRIED_FILES)
    return any(_is_dicom(path) for path in chain(named, others))


def _is_dicom(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD_BYTES)
    except (VolumeError, OSError):
        return False
    return _looks_like_dicom(path, head)


def _looks_like_dicom(path: Path, head: bytes) -> bool:
    by_content = head[128:132] == _MAGIC or _BARE_START.match(head)
    return bool(by_content) or path.name.lower().endswith(_NAMED)


def read_tags(path: Path) -> Tags | None:
    """Return the tags of an image, or None if the file is none.

    Of an image that cannot be decoded they are its series, as far as it is known, and `damaged`.

    Raises:
        VolumeError: `unreadable` if a file named as DICOM cannot be opened.
    """
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD_BYTES)
    except VolumeError:
        if path.name.lower().endswith(_NAMED) and not path.exists():
            raise  # a link that leads nowhere: a slice is missing
        return None
    if not _looks_like_dicom(path, head):
        return None
    reader = _reader(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        if any(kind in head for kind in _WITHOUT_PIXELS):
            return None
        return {"series": _series_in(path.read_bytes()), "damaged": "yes"}
    return {
        name: _text(reader.GetMetaData(tag)) if reader.HasMetaDataKey(tag) else ""
        for name, tag in _TAGS.items()
    }


def _text(value: str) -> str:
    """Return a tag's text; what is not UTF-8 in it must not break whoever writes it down."""
    return value.encode("utf-8", "replace").decode("utf-8").strip(" \0")


def _series_in(content: bytes) -> str:
    """Return the series UID of a file that GDCM cannot read, "" if it is not there whole."""
    place = content.find(_SERIES_UID)
    if place < 0:
        return ""
    explicit = content[place + 4 : place + 6] == b"UI"
    stated = content[place + 6 : place + 8] if explicit else content[place + 4 : place + 8]
    length = min(int.from_bytes(stated, "little"), _LONGEST_UID)
    value = content[place + 8 : place + 8 + length]
    return value.decode("ascii", "replace").strip(" \0") if len(value) == length else ""


def parse_slice(path: Path, tags: Tags) -> Slice:
    """Check the tags of a file of the series.

    Raises:
        VolumeError: `multi-frame`, `unsupported-type`, `no-position`, `bad-scaling` or `truncated`.
    """
    if tags["frames"] not in ("", "1") or "MOSAIC" in tags["kind"]:
        raise VolumeError(path, "multi-frame", "several frames in one file",
                          "convert it to NIfTI, for instance with dcm2niix")  # fmt: skip
    # GDCM would turn MONOCHROME1 round, and leaves the scaling of doses undone.
    if tags["photometric"] != "MONOCHROME2" or tags["modality"] == "RTDOSE":
        kind = f"{tags['modality']}, {tags['photometric']}"
        raise VolumeError(path, "unsupported-type", f"an image of kind {kind}",
                          "leave it out, or convert it to NIfTI")  # fmt: skip
    if tags["slope"] and float(_numbers(path, tags, "slope", 1)[0]) == 0:
        raise VolumeError(path, "bad-scaling", "RescaleSlope is 0", "export the series again")
    if tags["intercept"]:
        _numbers(path, tags, "intercept", 1)
    _check_pixels(path, tags)
    directions = _numbers(path, tags, "orientation", 6)
    down, along = _numbers(path, tags, "spacing", 2)
    (columns,), (rows,) = (_numbers(path, tags, name, 1) for name in ("columns", "rows"))
    lengths = np.linalg.norm(directions.reshape(2, 3), axis=1)
    if np.abs(lengths - 1).max() > _UNIT or min(down, along) <= 0:
        raise _without(path, tags, "orientation" if min(down, along) > 0 else "spacing")
    return Slice(
        path,
        position=_numbers(path, tags, "position", 3),
        row=directions[:3] / lengths[0],
        column=directions[3:] / lengths[1],
        spacing=(float(along), float(down)),
        size=(int(columns), int(rows)),
        thickness=_thickness(tags["thickness"]),
    )


_UNIT = 1e-2  # direction cosines are often written with few digits


def _thickness(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) and value > 0 else None


def value_bytes(tags: Tags) -> int:
    """Return the bytes that one value takes once it is rescaled."""
    if not tags["slope"]:
        return max(int(tags["bits"] or 16) // 8, 1)
    return 4 if float(tags["slope"]).is_integer() else 8


def _numbers(path: Path, tags: Tags, name: str, count: int) -> NDArray[np.float64]:
    try:
        values = np.array([float(word) for word in tags[name].split("\\")])
    except ValueError:
        values = np.array([])
    if len(values) != count or not np.isfinite(values).all():
        raise _without(path, tags, name)
    return values


def _without(path: Path, tags: Tags, name: str) -> VolumeError:
    cause = f"the tag ({_TAGS[name].replace('|', ',')}), {name}, is {tags[name]!r}"
    return VolumeError(path, "no-position", cause, "leave it out, or export the series again")


def _check_pixels(path: Path, tags: Tags) -> None:
    """Refuse a slice whose pixel data are shorter than its tags say: GDCM fills them up.

    Compressed data have no such length; a broken one cannot be decoded.
    """
    (rows,), (columns,), (bits,) = (_numbers(path, tags, n, 1) for n in ("rows", "columns", "bits"))
    expected = int(rows * columns * bits) // 8
    content = path.read_bytes()
    places = [(found.end(), order) for order, tag in _PIXEL_DATA.items()
              for found in re.finditer(re.escape(tag), content)]  # fmt: skip
    if _DEFLATED in content[:_HEAD_BYTES] or not places:
        return
    for place, order in places:
        start = place + (8 if content[place : place + 2] in (b"OW", b"OB") else 4)
        length = int.from_bytes(content[start - 4 : start], order)
        if length == _UNDEFINED or expected <= length <= len(content) - start:
            return
    cause = f"the pixel data are not the {expected} bytes of {columns:g} x {rows:g} pixels"
    raise VolumeError(path, "truncated", cause, DAMAGED)


def read_pixels(path: Path) -> NDArray[Any]:
    """Return the values of one file, rescaled, columns first.

    Raises:
        VolumeError: `damaged` if it cannot be decoded.
    """
    import SimpleITK

    try:
        values = SimpleITK.GetArrayFromImage(_reader(path).Execute())
    except RuntimeError as error:
        raise undecodable(path) from error
    return np.asarray(values.reshape(values.shape[-2:]).T)


def undecodable(path: Path) -> VolumeError:
    """Return the error of a file that cannot be decoded."""
    return VolumeError(path, "damaged", "its DICOM content cannot be decoded", DAMAGED)


def _reader(path: Path) -> SimpleITK.ImageFileReader:
    import SimpleITK

    check_name(path)
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader
