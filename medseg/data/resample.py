"""Values on one grid brought onto another, through world coordinates."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medseg.core.geometry import Grid
from medseg.io import Volume

Mode = Literal["linear", "nearest"]
Span = tuple[int, int]
"""First index, and one past the last."""

_LATTICE = 9  # points along an axis
_SLAB_VOXELS = 1 << 20
"""Target voxels sampled at once; bounds the memory of the coordinates to about 100 MB."""

_ALIGNED = 1e-3
"""Voxels: below this, a position counts as that of a voxel, and axes as parallel."""


@dataclass(frozen=True)
class AxisMap:
    """Where the voxels of a target axis lie along a source axis that is parallel to it.

    Attributes:
        axis: The source axis.
        scale: Source voxels in one step of the target.
        offset: Source position of the target's first voxel.
        source_length: Voxels of the source axis.
        length: Voxels of the target axis.
    """

    axis: int
    scale: float
    offset: float
    source_length: int
    length: int

    @property
    def is_exact(self) -> bool:
        """Whether every target voxel is a source voxel."""
        far = abs(self.scale - np.sign(self.scale)) * self.length
        return bool(far + abs(self.offset - round(self.offset)) < _ALIGNED)

    def positions(self, span: Span) -> NDArray[np.float64]:
        """Return where the target voxels of a span lie in the source, its border at most."""
        place = self.offset + self.scale * np.arange(*span, dtype=np.float64)
        if self.is_exact:
            place = np.rint(place)
        return np.clip(place, 0, self.source_length - 1)

    def needed(self, span: Span) -> Span:
        """Return the source voxels that the target voxels of a span are made from."""
        place = self.positions(span)
        return int(np.floor(place.min())), int(np.ceil(place.max())) + 1

    def sample(self, values: Tensor, dim: int, first: int, span: Span, mode: Mode) -> Tensor:
        """Return the values at a span of the target, along one dimension.

        Args:
            values: A part of the source that holds what `needed` says.
            dim: The dimension of the source axis.
            first: Index of the part's first voxel in the source.
            span: Wanted voxels of the target.
            mode: How values between two voxels are found.
        """
        place = self.positions(span) - first
        if mode == "nearest":
            place = np.rint(place)
        below = np.floor(place)
        share = torch.from_numpy(place - below).to(values.device, values.dtype)
        low = torch.from_numpy(below.astype(np.int64)).to(values.device)
        if not share.any():
            steps = np.diff(below)
            if np.all(steps == 1):
                return values.narrow(dim, int(below[0]), len(below))
            return values.index_select(dim, low)
        high = (low + 1).clamp_max(values.shape[dim] - 1)
        weight = share.view([-1 if axis == dim else 1 for axis in range(values.ndim)])
        return values.index_select(dim, low).lerp_(values.index_select(dim, high), weight)


class GridMap:
    """Where the voxels of a target grid lie in a source grid; values are brought over box by box.

    Positions are counted in the whole source, so that boxes sampled apart fit without a seam.

    Args:
        source: Where values lie.
        target: Where they are wanted.
    """

    def __init__(self, source: Grid, target: Grid) -> None:
        self.source = source
        self.target = target
        self.to_source: NDArray[np.float64] = np.linalg.inv(source.affine) @ target.affine
        self.axes = _nearest_axes(self.to_source[:3, :3])
        self.parallel = _parallel(self, self.axes)
        """One map for each target axis; None if the grids' axes are not parallel."""

    def ascends(self, axis: int) -> bool:
        """Return whether a target axis runs in the direction of its source axis."""
        return bool(self.to_source[self.axes[axis], axis] > 0)

    def needed(self, box: Sequence[Span]) -> tuple[Span, ...]:
        """Return the box of the source that a box of the target is made from."""
        if self.parallel is not None:
            spans = {m.axis: m.needed(span) for m, span in zip(self.parallel, box, strict=True)}
            return tuple(spans[axis] for axis in range(3))
        corners = np.array(list(itertools.product(*((a, b - 1) for a, b in box))), dtype=float)
        place = corners @ self.to_source[:3, :3].T + self.to_source[:3, 3]
        place = np.clip(place, 0, np.asarray(self.source.shape) - 1)
        low, high = np.floor(place.min(axis=0)), np.ceil(place.max(axis=0))
        return tuple((int(a), int(b) + 1) for a, b in zip(low, high, strict=True))

    def sample(
        self, values: Tensor, first: Sequence[int], box: Sequence[Span], mode: Mode = "linear"
    ) -> Tensor:
        """Return the values in a box of the target.

        Args:
            values: A part of the source, shape (C, …), that holds what `needed` says.
            first: Index of the part's first voxel in the source.
            box: Span of each target axis.
            mode: How values between voxels are found.

        Returns:
            Shape (C, …) of the box, contiguous.
        """
        if self.parallel is None:
            return self._slanted(values, first, box, mode)
        # The axis that loses most comes first, so that the others have less to do.
        order = sorted(zip(self.parallel, box, strict=True), key=lambda pair: -abs(pair[0].scale))
        for m, span in order:
            values = m.sample(values, 1 + m.axis, first[m.axis], span, mode)
        return values.permute(0, *(1 + m.axis for m in self.parallel)).contiguous()

    def _slanted(
        self, values: Tensor, first: Sequence[int], box: Sequence[Span], mode: Mode
    ) -> Tensor:
        index = np.stack(np.meshgrid(*(np.arange(*span) for span in box), indexing="ij"), axis=-1)
        place = index @ self.to_source[:3, :3].T + self.to_source[:3, 3]
        place = np.clip(place, 0, np.asarray(self.source.shape) - 1) - np.asarray(first)
        last = np.maximum(np.asarray(values.shape[1:], dtype=np.float64) - 1, 1)
        # As grid_sample wants it: [-1, 1], the last axis first.
        where = torch.from_numpy((2 * place / last - 1)[..., ::-1].copy()).to(values)
        sampled = F.grid_sample(
            values[None],
            where[None],
            mode="bilinear" if mode == "linear" else "nearest",
            padding_mode="border",
            align_corners=True,
        )
        return sampled[0]


def _nearest_axes(matrix: NDArray[np.float64]) -> tuple[int, int, int]:
    """Return for each target axis the source axis it is most parallel to, each once."""
    axes, free = [0, 0, 0], [0, 1, 2]
    size = np.abs(matrix) / np.linalg.norm(matrix, axis=0)
    for axis in np.argsort(-size.max(axis=0)):
        nearest = max(free, key=lambda row: size[row, axis])
        free.remove(nearest)
        axes[axis] = nearest
    return axes[0], axes[1], axes[2]


def _parallel(grids: GridMap, axes: Sequence[int]) -> tuple[AxisMap, ...] | None:
    """Return how each target axis lies in the source, or None if the axes are not parallel."""
    matrix, offset = grids.to_source[:3, :3], grids.to_source[:3, 3]
    slanted = np.abs(matrix)
    slanted[axes, range(3)] = 0
    if (slanted @ np.asarray(grids.target.shape)).max() > _ALIGNED:
        return None
    return tuple(
        AxisMap(axis, float(matrix[axis, a]), float(offset[axis]), grids.source.shape[axis],
                grids.target.shape[a])
        for a, axis in enumerate(axes)
    )  # fmt: skip


def resample(values: Tensor, source: Grid, target: Grid, mode: Mode = "linear") -> Tensor:
    """Bring values onto another grid; outside the source the nearest edge value is taken.

    Grids that differ only by flipped or swapped axes are rearranged exactly.

    Args:
        values: Shape (C, *source.shape), float32.
        source: Where the values lie.
        target: Where they are wanted.
        mode: How values between voxels are found.

    Returns:
        Shape (C, *target.shape), float32.
    """
    out = values.new_empty((values.shape[0], *target.shape))
    grids = GridMap(source, target)
    thickness = max(1, _SLAB_VOXELS // (target.shape[1] * target.shape[2]))
    for start in range(0, target.shape[0], thickness):
        rows = (start, min(start + thickness, target.shape[0]))
        box = (rows, (0, target.shape[1]), (0, target.shape[2]))
        needed = grids.needed(box)
        part = values[:, *(slice(*span) for span in needed)]
        out[:, slice(*rows)] = grids.sample(part, [span[0] for span in needed], box, mode)
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
