"""Grids: where the voxels of a volume lie in the world."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medseg.core.errors import GeometryError

SAME_GRID = 0.01
"""Largest corner displacement, as a share of the smallest spacing, of two grids that count as one.

Written by different tools, equal grids differ by rounding; this is far above float noise and far
below anything that moves a voxel's content.
"""

CLOSE_GRID = 0.5
"""The same for two grids that mean the same voxels, one of them noisily: up to half a voxel."""

LONGEST_MM, SHORTEST_MM = 1e9, 1e-9
"""Beyond these, lengths come from a damaged header, and their squares lose their digits."""

_SINGULAR = 1e-6  # volume of the box that the axes' unit vectors span

Agreement = Literal["same", "close", "different"]


@dataclass(frozen=True, eq=False)
class Grid:
    """A shape and an affine; spacing and orientation are read from them.

    Attributes:
        shape: Voxels along (I, J, K).
        affine: Voxel index to mm, RAS+, shape (4, 4), float64.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        affine = np.asarray(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError(f"affine must be 4 x 4 and finite; got {affine.tolist()}.")
        largest = np.abs(affine[:3]).max(axis=0)
        if largest.max() > LONGEST_MM or 0 < largest[:3].min() < SHORTEST_MM:
            raise GeometryError(f"affine has impossible lengths: {affine[:3].tolist()} mm.")
        lengths = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
        if not lengths.all() or abs(np.linalg.det(affine[:3, :3] / lengths)) < _SINGULAR:
            raise GeometryError(f"affine is singular: {affine[:3, :3].tolist()}.")
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "affine", affine)

    @classmethod
    def from_spacing(cls, shape: ArrayLike, spacing: ArrayLike) -> Grid:
        """Return an RAS grid with its first voxel at the origin."""
        i, j, k = (int(n) for n in np.asarray(shape))
        return cls((i, j, k), np.diag([*np.asarray(spacing, dtype=np.float64), 1.0]))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels along each array axis, mm."""
        i, j, k = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(i), float(j), float(k)

    @property
    def orientation(self) -> str:
        """Anatomical direction nearest to each array axis, such as `RAS`."""
        directions = self.affine[:3, :3] / np.asarray(self.spacing)
        letters = [""] * 3
        free = [0, 1, 2]
        # The strongest pairing first, so that oblique grids never get one letter twice.
        for axis in np.argsort(-np.abs(directions).max(axis=0)):
            world = max(free, key=lambda row: abs(directions[row, axis]))
            free.remove(world)
            letters[axis] = ("LR", "PA", "IS")[world][int(directions[world, axis] > 0)]
        return "".join(letters)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel, ml."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000.0)

    @property
    def diagonal_mm(self) -> float:
        """Length of the longest diagonal of the box through the voxel centres, mm."""
        corners = self.corners
        return float(max(np.linalg.norm(a - b) for a, b in itertools.combinations(corners, 2)))

    @property
    def corners(self) -> NDArray[np.float64]:
        """World coordinates of the eight corner voxels, shape (8, 3), mm."""
        last = [(0, max(n - 1, 0)) for n in self.shape]
        index = np.array(list(itertools.product(*last)), dtype=np.float64)
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]

    def displacement(self, other: Grid) -> float:
        """Return the largest corner displacement as a share of the smallest spacing.

        Infinite if the shapes differ.
        """
        if self.shape != other.shape:
            return float("inf")
        moved = np.linalg.norm(self.corners - other.corners, axis=1).max()
        return float(moved / min(*self.spacing, *other.spacing))

    def is_same(self, other: Grid, tolerance: float = SAME_GRID) -> bool:
        """Return whether both grids place their voxels alike, up to `tolerance` spacings."""
        return self.displacement(other) <= tolerance

    def agreement(self, other: Grid) -> Agreement:
        """Return whether both grids are the `same`, `close` (half a voxel) or `different`."""
        moved = self.displacement(other)
        return "same" if moved <= SAME_GRID else "close" if moved <= CLOSE_GRID else "different"

    def difference(self, other: Grid) -> str:
        """Say in words what differs most plainly between this grid and `other`."""
        if self.shape != other.shape:
            return f"shape {self.shape} against {other.shape}"
        if self.orientation != other.orientation:
            return f"orientation {self.orientation} against {other.orientation}"
        if not np.allclose(self.spacing, other.spacing, rtol=0, atol=SAME_GRID * min(self.spacing)):
            return f"spacing {rounded(self.spacing)} mm against {rounded(other.spacing)} mm"
        moved = self.displacement(other) * min(*self.spacing, *other.spacing)
        return f"position or angle: corners up to {moved:.3g} mm apart"


def rounded(numbers: ArrayLike, digits: int = 4) -> tuple[float, ...]:
    """Return numbers rounded to significant digits, for messages."""
    return tuple(float(f"{value:.{digits}g}") for value in np.ravel(np.asarray(numbers)))
