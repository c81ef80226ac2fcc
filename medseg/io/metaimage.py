"""MetaImage (.mha, .mhd): what a header claims, checked before any voxel is read.

Keys and defaults: https://itk.org/Wiki/MetaIO/Documentation. The world is LPS, as ITK has it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import VolumeError
from medseg.io.layout import WRITE_AGAIN, Layout, Part, check_type, grid_of
from medseg.io.stream import Packing
from medseg.io.text import LPS_TO_RAS, data_files, numbers, unit_in_mm, whole

_FIRST_LINE = re.compile(rb"\s*[A-Z][A-Za-z]*[ \t]*[=:][ \t]*\S")
_SIGN = re.compile(r"[=:]")
_TYPES = {
    "CHAR": "i1", "UCHAR": "u1", "SHORT": "i2", "USHORT": "u2", "INT": "i4", "UINT": "u4",
    "LONG": "i4", "ULONG": "u4", "LONG_LONG": "i8", "ULONG_LONG": "u8", "FLOAT": "f4",
    "DOUBLE": "f8",
}  # fmt: skip


def is_metaimage(head: bytes) -> bool:
    """Return whether a file begins as a MetaImage header does."""
    return bool(_FIRST_LINE.match(head)) and b"NDims" in head


def parse_metaimage(path: Path, head: bytes) -> Layout:
    """Check the text header of a MetaImage.

    Raises:
        VolumeError: `bad-header`, `bad-dimensions`, `unsupported-type`, `bad-geometry` or
            `outside-folder`.
    """
    fields, listed, start = _fields(path, head)
    (rank,) = whole(path, "NDims", fields.get("NDims", ""), 1)
    shape = tuple(whole(path, "DimSize", fields.get("DimSize", ""), rank))
    (channels,) = whole(path, "channels", fields.get("ElementNumberOfChannels", "1"), 1)
    if not 1 <= rank <= 7 or min(*shape, channels) < 1:
        raise VolumeError(path, "bad-dimensions", f"DimSize {shape}, {channels} channels",
                          WRITE_AGAIN)  # fmt: skip
    warnings: list[str] = []
    affine = _affine(path, fields, rank, warnings)
    binary = _is_true(fields.get("BinaryData", "True"))
    if channels > 1:
        shape = (*shape, 1, 1)[: max(rank, 3)]  # channels come after three axes of space
    return Layout(
        path,
        sizes=(channels, *shape) if channels > 1 else shape,
        dtype=_dtype(path, fields),
        grid=grid_of(path, shape, affine),
        parts=_parts(path, fields, listed, start),
        warnings=tuple(warnings),
        axes=(*range(1, len(shape) + 1), 0) if channels > 1 else None,
        spelling="binary" if binary else "decimal",
    )


def _fields(path: Path, head: bytes) -> tuple[dict[str, str], list[str], int]:
    """Return the header's fields, the lines after it, and the first byte after it."""
    fields: dict[str, str] = {}
    position = 0
    for line in head.splitlines(keepends=True):
        position += len(line)
        key, *value = _SIGN.split(line.decode("utf-8", "surrogateescape"), maxsplit=1)
        if value:
            fields[key.strip()] = value[0].strip()
        if value and key.strip() == "ElementDataFile":
            rest = head[position:].decode("utf-8", "surrogateescape").splitlines()
            return fields, rest, position
    raise VolumeError(path, "bad-header", "the text header has no end", WRITE_AGAIN)


def _is_true(text: str) -> bool:
    return text[:1] in ("T", "t", "1")


def _dtype(path: Path, fields: Mapping[str, str]) -> np.dtype[Any]:
    given = fields.get("ElementType", "")
    name = given.removeprefix("MET_").removesuffix("_ARRAY")
    big = _is_true(fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False")))
    dtype = np.dtype(_TYPES.get(name, "V")).newbyteorder(">" if big else "<")
    return check_type(path, dtype, repr(given))


def _affine(
    path: Path, fields: Mapping[str, str], rank: int, warnings: list[str]
) -> NDArray[np.float64]:
    """Return the affine in mm, RAS+; rows of the matrix are the directions of the axes."""
    wide = max(rank, 3)
    spacing, offset, matrix = np.ones(wide), np.zeros(wide), np.eye(wide)
    stated = fields.get("ElementSpacing", fields.get("ElementSize"))
    if stated is None:
        warnings.append("no-geometry: no spacing is given; 1 mm is assumed")
    else:
        spacing[:rank] = numbers(path, "ElementSpacing", stated, rank)
    directions = _first(fields, "TransformMatrix", "Rotation", "Orientation")
    if directions is None:
        warnings.append("no-orientation: no directions are given; axes are taken as LPS")
    else:
        given = numbers(path, "TransformMatrix", directions, rank * rank)
        matrix[:rank, :rank] = np.reshape(given, (rank, rank))
    origin = _first(fields, "Offset", "Position", "Origin")
    if origin is not None:
        offset[:rank] = numbers(path, "Offset", origin, rank)
    if matrix[3:, :3].any() or matrix[:3, 3:].any():
        cause = "space is mixed with another axis"
        raise VolumeError(path, "bad-geometry", cause, WRITE_AGAIN)
    units = unit_in_mm(fields.get("DistanceUnits", "").strip("?"), warnings)
    affine = np.eye(4)
    affine[:3, :3] = matrix[:3, :3].T * spacing[:3] * units
    affine[:3, 3] = offset[:3] * units
    return np.asarray(LPS_TO_RAS @ affine, dtype=np.float64)


def _first(fields: Mapping[str, str], *names: str) -> str | None:
    return next((fields[name] for name in names if name in fields), None)


def _parts(
    path: Path, fields: Mapping[str, str], listed: list[str], start: int
) -> tuple[Part, ...]:
    named = fields["ElementDataFile"]
    packed = _is_true(fields.get("CompressedData", "False"))
    (skip,) = whole(path, "HeaderSize", fields.get("HeaderSize", "0"), 1)
    packing: Packing = "zlib" if packed else "raw"
    if named.upper() == "LOCAL" and skip == -1:
        return (Part(path, start, packing, skip),)
    if named.upper() == "LOCAL":
        return (Part(path, max(skip, start), packing),)
    files = data_files(path, named, listed)
    return tuple(Part(file, 0, packing, skip) for file in files)
