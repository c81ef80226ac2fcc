"""The content of a volume in a few bytes, so that copies are found without comparing volumes."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Grid

_RAS = ("LR", "PA", "IS")
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9))  # SplitMix64 (Steele 2014)
_SHIFT = np.uint64(31)

COARSE = 8
"""Blocks along each axis of the coarse picture that near copies share."""


def canonical(array: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Swap and flip the first three axes to the ones nearest to right, anterior, superior."""
    letters = grid.orientation
    axes = [next(i for i, letter in enumerate(letters) if letter in pair) for pair in _RAS]
    moved = np.transpose(array, axes)
    flips = tuple(
        number
        for number, (axis, pair) in enumerate(zip(axes, _RAS, strict=True))
        if letters[axis] == pair[0]
    )
    return np.asarray(np.flip(moved, flips))


def content_hash(array: NDArray[Any]) -> str:
    """Return a hash of the shape and the values, whatever their type."""
    digest = hashlib.blake2b(repr(array.shape).encode(), digest_size=16)
    for part in array:  # slab by slab, so that no second volume is made
        digest.update((part.astype(np.float32) + np.float32(0)).tobytes())  # -0 is 0
    return digest.hexdigest()


def values_hash(array: NDArray[Any]) -> str:
    """Return a hash of the values in any order: the same for a turned or mirrored volume."""
    total = 0
    for part in array:
        bits = np.ascontiguousarray(part + 0.0, dtype=np.float32).view(np.uint32).astype(np.uint64)
        mixed = (bits + _MIX[0]) * _MIX[1]
        mixed = (mixed ^ (mixed >> _SHIFT)) * _MIX[0]
        total += int(np.sum(mixed ^ (mixed >> _SHIFT), dtype=np.uint64))
    return f"{sorted(array.shape)} {total % 2**64:016x}"


def profile_hash(labels: NDArray[Any]) -> str:
    """Return a hash of each class's voxels along each axis, the same if turned or mirrored.

    For label maps, whose few values a `values_hash` would not tell apart.
    """
    values = np.unique(labels)
    profiles = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        counts = [np.count_nonzero(labels == value, axis=others) for value in values]
        columns = [tuple(map(int, column)) for column in zip(*counts, strict=True)]
        profiles.append(min(columns, columns[::-1]))
    text = repr((values.tolist(), sorted(profiles)))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def coarse_picture(array: NDArray[Any]) -> NDArray[np.float32]:
    """Return the means of COARSE blocks along each axis, with mean 0 and norm 1.

    It does not change with the scale and offset of the intensities, and hardly with noise.
    """
    sums: NDArray[Any] = array.astype(np.float32)
    for axis, size in enumerate(array.shape):
        edges = np.linspace(0, size, COARSE + 1)[:-1].astype(int)
        lengths = np.maximum(np.diff([*edges, size]), 1)
        shape = [-1 if other == axis else 1 for other in range(3)]
        sums = np.add.reduceat(sums, edges, axis=axis) / lengths.reshape(shape)
    centred = sums.ravel() - sums.mean()
    norm = float(np.linalg.norm(centred))
    return np.asarray(centred / norm if norm > 0 else centred, dtype=np.float32)


def foreground_box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """Return the smallest box that holds all of a mask that is not empty."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        where = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(where[0]), int(where[-1]) + 1))
    return box[0], box[1], box[2]


def fitted(label: NDArray[Any], shape: tuple[int, ...], centred: bool) -> NDArray[Any]:
    """Crop or pad a label map to another shape, around its middle or its first corner."""
    out = np.zeros(shape, label.dtype)
    source, target = [], []
    for have, want in zip(label.shape, shape, strict=True):
        start = (have - want) // 2 if centred else 0
        first, length = max(start, 0), min(have, want)
        source.append(slice(first, first + length))
        target.append(slice(first - start, first - start + length))
    out[tuple(target)] = label[tuple(source)]
    return out


MIRRORS = tuple(axes for n in (1, 2, 3) for axes in itertools.combinations(range(3), n))
"""Sets of axes to flip: the seven mirrorings and half turns of a volume."""
