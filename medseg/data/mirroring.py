"""Whether cases look alike mirrored left to right, by the shapes of their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nibabel import orientations
from numpy.typing import NDArray

Outline = NDArray[np.float32]
"""Share of foreground in each cell of a coarse grid over an image, axes in RAS order."""

CELLS = 16
"""Of that grid along each axis."""

FEWEST_CASES = 10
MOST_OF_CASES, UNLIKE = 0.9, 0.9
"""Conventions: a set has a side if nine of ten cases are more like the others than like the others
mirrored, which must be less like it by a tenth. By chance nine of ten are in 1 % of sets."""


@dataclass(frozen=True)
class Mirrored:
    """Each case against the mean of the others, as they are and mirrored left to right.

    Attributes:
        cases: Cases that have any foreground.
        own: Those that are more like the others as they are.
        similarity: Cosine of the angle between outlines, in [0, 1]; the median.
        mirrored: The same with the others mirrored.
    """

    cases: int = 0
    own: int = 0
    similarity: float = 0.0
    mirrored: float = 0.0

    @property
    def is_unlike(self) -> bool:
        """Whether a mirrored image would be unlike all others."""
        return (
            self.cases >= FEWEST_CASES
            and self.own >= MOST_OF_CASES * self.cases
            and self.mirrored < UNLIKE * self.similarity
        )


def outline(inside: NDArray[np.bool_], affine: NDArray[np.float64]) -> Outline:
    """Return the outline of a foreground.

    Args:
        inside: The foreground, shape (I, J, K).
        affine: Voxel index to mm, RAS+.
    """
    share = inside.astype(np.float32)
    for axis in range(3):
        share = np.moveaxis(np.tensordot(_overlaps(share.shape[axis]), share, (1, axis)), 0, axis)
    turned: Outline = orientations.apply_orientation(share, orientations.io_orientation(affine))
    return turned


def _overlaps(length: int) -> NDArray[np.float32]:
    """Return how much of each cell is in each voxel, shape (CELLS, length); rows add up to 1.

    Cells of equal width, whatever the length: their grid is its own mirror image.
    """
    edges = np.linspace(0, length, CELLS + 1)
    voxels = np.arange(length)
    high = np.minimum(edges[1:, None], voxels + 1)
    low = np.maximum(edges[:-1, None], voxels)
    shares: NDArray[np.float64] = np.maximum(high - low, 0) * CELLS / length
    return shares.astype(np.float32)


def compare_mirrored(outlines: Sequence[Outline]) -> Mirrored:
    """Compare each case with the others, as they are and mirrored."""
    known = np.stack([o for o in outlines if o.any()] or [np.zeros((CELLS,) * 3, np.float32)])
    if len(known) < 2:
        return Mirrored()
    others = known.sum(axis=0) - known
    as_they_are = np.array([_cosine(one, rest) for one, rest in zip(known, others, strict=True)])
    mirrored = np.array([_cosine(one, rest[::-1]) for one, rest in zip(known, others, strict=True)])
    return Mirrored(
        cases=len(known),
        own=int(np.count_nonzero(as_they_are > mirrored)),
        similarity=float(np.median(as_they_are)),
        mirrored=float(np.median(mirrored)),
    )


def _cosine(one: Outline, other: Outline) -> float:
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    return float((one * other).sum() / lengths) if lengths else 0.0
