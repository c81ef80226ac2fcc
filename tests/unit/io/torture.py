"""Crafted files for the strict reader: what a row of the torture table is, and what rows share.

Every file is built from bytes and arrays known here, so that the truth of a row does not come
from another reader.
"""

import gzip
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medseg.core.errors import VolumeError
from medseg.io import read_volume

Should = Literal["accept", "warn", "reject", "doubt", "either"]

MEBI = 1 << 20
SHAPE = (9, 8, 7)
SPACING = (1.0, 1.5, 3.0)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Row:
    """One crafted file, and what a careful user expects of the reader.

    Attributes:
        name: The test id.
        build: Writes the file into a folder and returns the path to read.
        should: `accept`; `warn` is accept with a warning; `reject` is a refusal in words; `doubt`
            is a refusal or a warning; `either` is a refusal or the truth. Accepted is the truth,
            whatever the word.
        array: The voxels, dtype included.
        affine: Voxel index to mm, RAS+.
        quiet: Whether an accepted file is so plainly clean that any warning is wrong.
        code: The code of the refusal, where the promise names it.
        options: Keyword arguments of the reader.
        peer: Reads the same file with another library, to check the builder: array and affine.
    """

    name: str
    build: Callable[[Path], Path]
    should: Should
    array: np.ndarray | None = None
    affine: np.ndarray | None = None
    quiet: bool = True
    code: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    peer: Callable[[Path], tuple[np.ndarray, np.ndarray]] | None = None


def voxels(shape=SHAPE, dtype=np.int16, seed=7):
    """Return random voxels over the whole range of an integer type, or normal floats."""
    random = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return random.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    array = random.integers(info.min, info.max, size=shape, dtype=dtype, endpoint=True)
    array.flat[0], array.flat[-1] = info.min, info.max
    return array


def affine_of(
    spacing=SPACING, rotation=(0.0, 0.0, 0.0), flips=(1, 1, 1), origin=(-20.0, 30.5, 7.25)
):
    """Return an affine: spacing, then flips, then rotations about x, y and z, then the origin."""
    turn = np.eye(3)
    for axis, angle in enumerate(rotation):
        a, b = [other for other in range(3) if other != axis]
        about = np.eye(3)
        about[a, a] = about[b, b] = np.cos(angle)
        about[b, a] = np.sin(angle)
        about[a, b] = -np.sin(angle)
        turn = about @ turn
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(flips) @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


VOXELS = voxels()
AFFINE = affine_of()
OBLIQUE = affine_of(rotation=(0.3, -0.2, 0.1))
SHEARED = AFFINE.copy()
SHEARED[1, 2] = 0.8


def file(name, content):
    """Return a builder that writes one file."""

    def build(folder):
        path = folder / name
        path.write_bytes(content() if callable(content) else content)
        return path

    return build


def files(named, contents):
    """Return a builder that writes several files and names one of them."""

    def build(folder):
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder / named

    return build


def zipped(content, level=6):
    """Return `content` as one gzip member without a time stamp."""
    return gzip.compress(content, level, mtime=0)


def flipped(content, position, mask=0x10):
    """Return `content` with bits of one byte turned over."""
    damaged = bytearray(content)
    damaged[position] ^= mask
    return bytes(damaged)


def bomb(start, mebibytes):
    """Return a valid gzip stream of `start` followed by many mebibytes of zeros.

    A full flush makes the compressed mebibyte independent of what stands before it, so that it
    can be repeated instead of compressed again.
    """
    zeros = bytes(MEBI)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = squeeze.compress(start) + squeeze.flush(zlib.Z_FULL_FLUSH)
    block = squeeze.compress(zeros) + squeeze.flush(zlib.Z_FULL_FLUSH)
    check = zlib.crc32(start)
    for _ in range(mebibytes):
        check = zlib.crc32(zeros, check)
    size = (len(start) + mebibytes * MEBI) & 0xFFFFFFFF
    header = b"\x1f\x8b\x08" + bytes(5) + b"\x02\x03"
    return header + head + block * mebibytes + b"\x03\x00" + struct.pack("<II", check, size)


def attempt(path, **options):
    """Return the volume, or None if it is refused in words; anything else fails the test."""
    try:
        volume = read_volume(path, **options)
    except VolumeError:
        return None
    assert volume.array.dtype.kind in "iufb"
    assert volume.array.size > 0
    assert np.isfinite(volume.grid.affine).all()
    assert np.isfinite(volume.grid.spacing).all()
    assert min(volume.grid.spacing) > 0
    assert volume.grid.shape == (*volume.array.shape, 1, 1)[:3]
    return volume


def attempt_bytes(name, content):
    """Write a file of its own and read it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        return attempt(path)
