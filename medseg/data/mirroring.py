"""Whether cases look alike mirrored along an axis, by where their classes lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nibabel import orientations
from numpy.typing import NDArray
from scipy import ndimage

Outline = NDArray[np.float16]
"""Share of each class in each cell of a coarse grid over an image, shape (CELLS, CELLS, CELLS,
classes), axes in RAS order."""

CELLS = 8
"""Of that grid along each axis."""

FEWEST_CASES = 10
MOST_OF_CASES, UNLIKE = 0.9, 0.9
"""Conventions: a set has a side if nine of ten cases are more like the others than like the others
mirrored, which must be less like it by a tenth. By chance nine of ten are in 1 % of sets."""


@dataclass(frozen=True)
class Mirrored:
    """Each case against the mean of the others, as they are and mirrored along one axis.

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
        """Whether a mirrored image would surely be unlike all others."""
        return self.cases >= FEWEST_CASES and self._mostly_own and self._less_similar

    @property
    def is_alike(self) -> bool:
        """Whether nothing tells a mirrored image from the others."""
        return self.cases > 0 and not self._mostly_own and not self._less_similar

    @property
    def _mostly_own(self) -> bool:
        return self.own >= MOST_OF_CASES * self.cases

    @property
    def _less_similar(self) -> bool:
        return self.mirrored < UNLIKE * self.similarity


def outline(label: NDArray[np.integer], classes: int, affine: NDArray[np.float64]) -> Outline:
    """Return where the classes of a label lie.

    Args:
        label: 1 to `classes`, shape (I, J, K); all other values are left out.
        classes: Foreground classes.
        affine: Voxel index to mm, RAS+.
    """
    shares = np.zeros((CELLS, CELLS, CELLS, classes), np.float16)
    cells = [_overlaps(length) for length in label.shape]
    boxes: Sequence[tuple[slice, ...] | None] = ndimage.find_objects(label, classes)
    for number, box in enumerate(boxes):
        if box is None:
            continue
        share = (label[box] == number + 1).astype(np.float32)
        for axis, place in enumerate(box):
            share = np.moveaxis(np.tensordot(cells[axis][:, place], share, (1, axis)), 0, axis)
        shares[..., number] = share
    turned: Outline = orientations.apply_orientation(shares, orientations.io_orientation(affine))
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


def compare_mirrored(outlines: Sequence[Outline]) -> tuple[Mirrored, Mirrored, Mirrored]:
    """Compare each case with the others, as they are and mirrored along each axis in RAS order."""
    known = [one for one in outlines if one.any()]
    if len(known) < 2:
        return Mirrored(), Mirrored(), Mirrored()
    total = np.sum(known, axis=0, dtype=np.float32)
    found = np.array([_similarities(one, total - one) for one in known])
    own, *mirrored = found.T
    along_i, along_j, along_k = (
        Mirrored(
            cases=len(known),
            own=int(np.count_nonzero(own > axis)),
            similarity=float(np.median(own)),
            mirrored=float(np.median(axis)),
        )
        for axis in mirrored
    )
    return along_i, along_j, along_k


def _similarities(one: Outline, others: NDArray[np.float32]) -> list[float]:
    """Return the similarity of a case to others as they are, and mirrored along each axis."""
    case = one.astype(np.float32)
    length = np.linalg.norm(case) * np.linalg.norm(others)
    turned = [others, *(np.flip(others, axis) for axis in range(3))]
    return [float((case * other).sum() / length) if length else 0.0 for other in turned]
