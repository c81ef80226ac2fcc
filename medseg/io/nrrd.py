"""NRRD (.nrrd, .nhdr): what a header claims, checked before any voxel is read.

Format: https://teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import VolumeError
from medseg.io.layout import WRITE_AGAIN, Layout, Part, Spelling, check_type, grid_of
from medseg.io.stream import ByteStream, Packing
from medseg.io.text import LPS_TO_RAS, data_files, numbers, unit_in_mm, whole

_MAGIC = re.compile(rb"NRRD00(0[1-6]|\.01)\r?\n")
_TYPES = {
    "i1": "signed char,int8,int8_t",
    "u1": "uchar,unsigned char,uint8,uint8_t",
    "i2": "short,short int,signed short,signed short int,int16,int16_t",
    "u2": "ushort,unsigned short,unsigned short int,uint16,uint16_t",
    "i4": "int,signed int,int32,int32_t",
    "u4": "uint,unsigned int,uint32,uint32_t",
    "i8": "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t",
    "u8": "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t",
    "f4": "float",
    "f8": "double",
}
_TYPE_OF = {name: dtype for dtype, names in _TYPES.items() for name in names.split(",")}
_ENCODINGS: dict[str, tuple[Packing, Spelling]] = {
    "raw": ("raw", "binary"),
    "gzip": ("zlib", "binary"),
    "gz": ("zlib", "binary"),
    "bzip2": ("bzip2", "binary"),
    "bz2": ("bzip2", "binary"),
    "ascii": ("raw", "decimal"),
    "text": ("raw", "decimal"),
    "txt": ("raw", "decimal"),
    "hex": ("raw", "hex"),
}
_SPATIAL_KINDS = ("domain", "space", "time", "???", "none", "")
_SIGNS = {"left": -1.0, "right": 1.0, "posterior": -1.0, "anterior": 1.0, "superior": 1.0}
_SHORT_SPACES = {
    "LPS": "left-posterior-superior",
    "RAS": "right-anterior-superior",
    "LAS": "left-anterior-superior",
    "LPST": "left-posterior-superior",
    "RAST": "right-anterior-superior",
    "LAST": "left-anterior-superior",
}
_OTHER_SPACES = ("", "scanner-xyz", "3d-right-handed", "3d-left-handed")  # no anatomical axes


def is_nrrd(head: bytes) -> bool:
    """Return whether a file's first bytes are those of NRRD."""
    return bool(_MAGIC.match(head))


def parse_nrrd(path: Path, head: bytes) -> Layout:
    """Check the text header of a NRRD.

    Raises:
        VolumeError: `bad-header`, `bad-dimensions`, `unsupported-type`, `bad-geometry` or
            `outside-folder`.
    """
    fields, listed, start = _fields(path, head)
    (rank,) = whole(path, "dimension", fields.get("dimension", ""), 1)
    sizes = tuple(whole(path, "sizes", fields.get("sizes", ""), rank))
    if not 1 <= rank <= 16 or min(sizes) < 1:
        raise VolumeError(path, "bad-dimensions", f"sizes {sizes}", WRITE_AGAIN)
    encoding = fields.get("encoding", "").lower()
    if encoding not in _ENCODINGS:
        raise VolumeError(path, "unsupported-encoding", f"encoding {encoding!r}", WRITE_AGAIN)
    packing, spelling = _ENCODINGS[encoding]
    warnings: list[str] = []
    vectors = _vectors(path, fields, rank)
    others = _others(fields, rank, vectors)
    axes = (*(axis for axis in range(rank) if axis not in others), *others)
    spatial = [axis for axis in axes if axis not in others][:3]
    if len(spatial) < min(rank, 3):
        cause = f"{len(spatial)} of {rank} axes lie in space"
        raise VolumeError(path, "bad-geometry", cause, "convert it to NIfTI, or leave it out")
    affine = _affine(path, fields, spatial, vectors, warnings)
    return Layout(
        path,
        sizes=sizes,
        dtype=_dtype(path, fields, spelling),
        grid=grid_of(path, [sizes[axis] for axis in spatial], affine),
        parts=_parts(path, fields, listed, start, packing),
        warnings=tuple(warnings),
        axes=None if axes == tuple(range(rank)) else axes,
        spelling=spelling,
    )


def _fields(path: Path, head: bytes) -> tuple[dict[str, str], list[str], int]:
    """Return the header's fields, the lines after `data file: LIST`, and the byte after it."""
    fields: dict[str, str] = {}
    lines = head.splitlines(keepends=True)
    position = len(lines[0])
    for line in lines[1:]:
        position += len(line)
        text = line.decode("utf-8", "surrogateescape").strip()
        if not text:
            return fields, [], position
        key, found, value = text.partition(": ")
        if text.startswith("#") or not found or ":=" in key:  # comments, and others' own keys
            continue
        key = key.strip().lower().replace(" ", "")
        if key in fields:
            raise VolumeError(path, "bad-header", f"{key!r} is given twice", WRITE_AGAIN)
        fields[key] = value.strip()
        if key == "datafile" and value.split()[:1] == ["LIST"]:
            rest = head[position:].decode("utf-8", "surrogateescape").splitlines()
            return fields, rest, position
    if "datafile" not in fields:
        raise VolumeError(path, "truncated", "the file ends within its header", WRITE_AGAIN)
    return fields, [], position


def _dtype(path: Path, fields: Mapping[str, str], spelling: Spelling) -> np.dtype[Any]:
    name = fields.get("type", "").lower()
    dtype = check_type(path, np.dtype(_TYPE_OF.get(name, "V")), repr(name))
    order = fields.get("endian", "").lower()
    if order == "big":
        return dtype.newbyteorder(">")
    if order != "little" and dtype.itemsize > 1 and spelling != "decimal":
        raise VolumeError(path, "bad-header", "the byte order (endian) is not given", WRITE_AGAIN)
    return dtype.newbyteorder("<")


def _vectors(path: Path, fields: Mapping[str, str], rank: int) -> list[list[float] | None] | None:
    """Return the space direction of each axis, None for an axis without; None if not given."""
    given = fields.get("spacedirections")
    if given is None:
        return None
    words = re.findall(r"none|\([^)]*\)", given)
    if len(words) != rank:
        cause = f"space directions {given[:80]!r} for {rank} axes"
        raise VolumeError(path, "bad-header", cause, WRITE_AGAIN)
    return [None if word == "none" else _vector(path, "space directions", word) for word in words]


def _vector(path: Path, name: str, text: str) -> list[float]:
    words = text.strip("() ").replace(",", " ")
    return numbers(path, name, words, len(words.split()))


def _others(
    fields: Mapping[str, str], rank: int, vectors: Sequence[list[float] | None] | None
) -> list[int]:
    """Return the axes that do not lie in space: vector components and the like."""
    kinds = [word.lower() for word in fields.get("kinds", "").split()]
    if vectors is not None:
        is_other = [vector is None for vector in vectors]
    else:
        is_other = [kind not in _SPATIAL_KINDS for kind in kinds] or [False] * rank
    return [axis for axis in range(rank) if axis < len(is_other) and is_other[axis]]


def _affine(
    path: Path,
    fields: Mapping[str, str],
    spatial: Sequence[int],
    vectors: Sequence[list[float] | None] | None,
    warnings: list[str],
) -> NDArray[np.float64]:
    """Return the affine in mm, RAS+."""
    affine = np.eye(4)
    world = _to_ras(path, fields, warnings)
    if vectors is None:
        if fields.get("space"):
            warnings.append("no-orientation: no directions are given; axes run along the space's")
        lengths = fields.get("spacings", "").split()
        for place, axis in enumerate(spatial):
            if axis < len(lengths) and lengths[axis].lower() != "nan":
                affine[place, place] = numbers(path, "spacings", lengths[axis], 1)[0]
            else:
                warnings.append(f"no-geometry: axis {axis} has no spacing; 1 mm is assumed")
        if "axismins" in fields:
            warnings.append("no-geometry: axis mins are not used; the origin is taken as 0")
    else:
        for place, axis in enumerate(spatial):
            affine[:3, place] = _in_space(path, vectors[axis] or [])
        _complete(affine, len(spatial))
    origin = fields.get("spaceorigin", "none")
    if "nan" in origin.lower() or origin == "none":
        if vectors is not None:
            warnings.append("no-geometry: no space origin is given; 0 is assumed")
    else:
        components = _vector(path, "space origin", origin)
        lengths_of = {len(vector) for vector in vectors or () if vector} | {len(components)}
        if len(lengths_of) > 1:
            cause = f"directions and origin have {sorted(lengths_of)} components"
            raise VolumeError(path, "bad-geometry", cause, WRITE_AGAIN)
        affine[:3, 3] = [*components, 0.0, 0.0][:3]
    affine[:3] *= _unit(path, fields, warnings)
    return np.asarray(world @ affine, dtype=np.float64)


def _in_space(path: Path, vector: list[float]) -> list[float]:
    """Return the three components of a direction in space; time may be a fourth one."""
    if any(vector[3:]):
        raise VolumeError(path, "bad-geometry", "space is mixed with another axis", WRITE_AGAIN)
    return [*vector, 0.0, 0.0, 0.0][:3]


def _complete(affine: NDArray[np.float64], given: int) -> None:
    """Give a plane its normal as third direction."""
    if given == 2:
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / max(float(np.linalg.norm(normal)), np.finfo(np.float64).tiny)


def _unit(path: Path, fields: Mapping[str, str], warnings: list[str]) -> float:
    words = re.findall(r'"([^"]*)"', fields.get("spaceunits", ""))[:3]
    if len({word for word in words if word}) > 1:
        cause = f"space units {', '.join(sorted(words))} differ"
        raise VolumeError(path, "bad-geometry", cause, WRITE_AGAIN)
    return unit_in_mm(max(words, default=""), warnings)


def _to_ras(path: Path, fields: Mapping[str, str], warnings: list[str]) -> NDArray[np.float64]:
    given = fields.get("space", "")
    space = given.lower().removesuffix("-time")
    words = _SHORT_SPACES.get(space.upper(), space).split("-")
    if len(words) == 3 and all(word in _SIGNS for word in words):
        return np.diag([*(_SIGNS[word] for word in words), 1.0])
    if space not in _OTHER_SPACES:
        raise VolumeError(path, "bad-geometry", f"an unknown space {given!r}", WRITE_AGAIN)
    told = f"space {given!r} names no anatomical axes" if given else "no space is named"
    warnings.append(f"no-orientation: {told}; it is taken as LPS")
    return LPS_TO_RAS


def _parts(
    path: Path, fields: Mapping[str, str], listed: list[str], start: int, packing: Packing
) -> tuple[Part, ...]:
    (lines,) = whole(path, "line skip", fields.get("lineskip", "0"), 1)
    (skip,) = whole(path, "byte skip", fields.get("byteskip", "0"), 1)
    if lines < 0 or skip < -1:
        raise VolumeError(path, "bad-header", f"line skip {lines}, byte skip {skip}", WRITE_AGAIN)
    named = fields.get("datafile")
    files = [path] if named is None else data_files(path, named, listed)
    first = start if named is None else 0
    return tuple(Part(file, _after_lines(file, first, lines), packing, skip) for file in files)


def _after_lines(path: Path, start: int, lines: int) -> int:
    """Return the first byte after some lines of a file."""
    if not lines:
        return start
    with ByteStream(path, start, "raw") as stream:
        head = stream.read(1 << 20)
    ends = [found.end() for found in re.finditer(b"\n", head)]
    if len(ends) < lines:
        raise VolumeError(path, "truncated", f"{lines} lines to skip", WRITE_AGAIN)
    return start + ends[lines - 1]
