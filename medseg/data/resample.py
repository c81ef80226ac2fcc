"""Values on one grid brought onto another, through world coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medseg.core.geometry import Grid
from medseg.io import Volume

_LATTICE = 9  # points along an axis
_SLAB_VOXELS = 1 << 22
"""Target voxels sampled at once; bounds the memory of the coordinates to about 50 MB."""


def resample(values: Tensor, source: Grid, target: Grid) -> Tensor:
    """Bring values onto another grid; outside the source the nearest edge value is taken.

    Grids that differ only by flipped or swapped axes are rearranged exactly; all others are
    interpolated linearly.

    Args:
        values: Shape (C, *source.shape), float32.
        source: Where the values lie.
        target: Where they are wanted.

    Returns:
        Shape (C, *target.shape), float32.
    """
    to_source = np.linalg.inv(source.affine) @ target.affine
    rearranged = _rearranged(values, to_source, target)
    if rearranged is not None:
        return rearranged
    out = values.new_empty((values.shape[0], *target.shape))
    thickness = max(1, _SLAB_VOXELS // (target.shape[1] * target.shape[2]))
    for start in range(0, target.shape[0], thickness):
        stop = min(start + thickness, target.shape[0])
        where = _coordinates(to_source, (start, stop), target.shape, source.shape)
        grid = torch.from_numpy(where).to(values)
        slab = F.grid_sample(values[None], grid[None], padding_mode="border", align_corners=True)
        out[:, start:stop] = slab[0]
    return out


def coverage(source: Grid, target: Grid) -> float:
    """Return the share of a grid that lies within the box of another, from a lattice of points."""
    lines = [np.linspace(0, n - 1, min(n, _LATTICE)) for n in target.shape]
    index = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 3)
    to_source = np.linalg.inv(source.affine) @ target.affine
    place = index @ to_source[:3, :3].T + to_source[:3, 3]
    last = np.asarray(source.shape) - 1
    return float(np.mean(np.all((place >= -0.5) & (place <= last + 0.5), axis=1)))


def on_grid(volume: Volume, grid: Grid) -> NDArray[Any]:
    """Return the values of a 3-D volume on a grid: as they are if it is theirs, else float32."""
    if volume.grid.is_same(grid):
        return volume.array
    values = torch.from_numpy(volume.array.astype(np.float32))
    return np.asarray(resample(values[None], volume.grid, grid)[0].numpy())


def _rearranged(values: Tensor, to_source: NDArray[np.float64], target: Grid) -> Tensor | None:
    """Return the values with axes swapped and flipped, if that is all there is to do."""
    matrix = np.rint(to_source[:3, :3])
    size = np.asarray(target.shape)
    # The error of rounding the mapping, at the far corner, in voxels.
    error = np.abs(to_source[:3, :3] - matrix) @ size + np.abs(
        to_source[:3, 3] - np.rint(to_source[:3, 3])
    )
    if error.max() > 1e-3 or not np.array_equal(np.abs(matrix).sum(axis=0), np.ones(3)):
        return None
    if not np.array_equal(np.abs(matrix).sum(axis=1), np.ones(3)):
        return None
    axes = [int(np.argmax(np.abs(matrix[:, axis]))) for axis in range(3)]
    flips = [axis for axis in range(3) if matrix[axes[axis], axis] < 0]
    offset = np.rint(to_source[:3, 3]) + np.minimum(matrix, 0) @ (size - 1)
    if offset.any() or tuple(values.shape[1 + axis] for axis in axes) != target.shape:
        return None
    moved = values.permute(0, *(1 + axis for axis in axes))
    return moved.flip([1 + axis for axis in flips]).contiguous()


def _coordinates(
    to_source: NDArray[np.float64],
    rows: tuple[int, int],
    shape: tuple[int, int, int],
    source_shape: tuple[int, int, int],
) -> NDArray[np.float64]:
    """Return where target voxels lie in the source, as grid_sample wants it: [-1, 1], (k, j, i)."""
    axes = (np.arange(*rows), np.arange(shape[1]), np.arange(shape[2]))
    index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    position = index @ to_source[:3, :3].T + to_source[:3, 3]
    last = np.maximum(np.asarray(source_shape, dtype=np.float64) - 1, 1)
    return np.asarray((2 * position / last - 1)[..., ::-1].copy(), dtype=np.float64)
