"""The subjects of the phantoms: shapes in world coordinates (mm), known exactly everywhere."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from medseg.core.geometry import Grid

Points = NDArray[np.float64]
"""World coordinates, shape (..., 3), mm."""

LABELS = {"background": 0, "shell": 1, "core": 2, "nodule": 3}

AIR, BODY, BONE, PLATE, ROD, VESSEL, SHELL, CORE, NODULE = range(9)
"""Tissues. Plates are as bright as the shell, rods as the core, vessels as the nodule."""

_LABEL_OF = np.array([0, 0, 0, 0, 0, 0, 1, 2, 3], dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class Blob:
    """An ellipsoid, bent like a banana; its volume is that of the ellipsoid.

    Attributes:
        centre: World coordinates, mm.
        axes: Directions of the radii in columns, shape (3, 3).
        radii: Half axes, mm.
        bend: Sideways shift of the third axis' ends, as a share of the first radius.
    """

    centre: Points
    axes: NDArray[np.float64]
    radii: NDArray[np.float64]
    bend: float = 0.0

    def coordinates(self, points: Points) -> Points:
        """Return where points lie in the blob's own frame, in which it is the unit ball."""
        own: Points = (points - self.centre) @ (self.axes / self.radii)
        own[..., 0] += self.bend * own[..., 2] ** 2
        return own

    def holds(self, points: Points) -> NDArray[np.bool_]:
        """Return which points lie inside."""
        return _in_ball(self.coordinates(points))

    @property
    def volume_ml(self) -> float:
        """Volume, ml."""
        return float(4.0 / 3.0 * math.pi * np.prod(self.radii) / 1000.0)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """One subject.

    Attributes:
        body: What holds all the rest.
        organ: Shell and core together.
        core_offset: Centre of the core in the organ's own frame.
        core_scale: Size of the core in the organ's own frame.
        nodule: The small structure.
        around: Other shapes and their tissue, cut off at the body, the later ones on top.
    """

    body: Blob
    organ: Blob
    core_offset: NDArray[np.float64]
    core_scale: float
    nodule: Blob
    around: tuple[tuple[Blob, int], ...]

    def tissue(self, points: Points) -> NDArray[np.uint8]:
        """Return the tissue at each point, shape `points.shape[:-1]`."""
        inside = self.body.holds(points)
        tissue = np.where(inside, BODY, AIR).astype(np.uint8)
        for blob, kind in self.around:
            tissue[blob.holds(points) & inside] = kind
        own = self.organ.coordinates(points)
        tissue[_in_ball(own)] = SHELL
        tissue[_in_ball((own - self.core_offset) / self.core_scale)] = CORE
        tissue[self.nodule.holds(points)] = NODULE
        return tissue

    def label(self, grid: Grid) -> NDArray[np.uint8]:
        """Return the label at each voxel centre of a grid."""
        labels: NDArray[np.uint8] = _LABEL_OF[self.tissue(world_points(grid))]
        return labels


def world_points(grid: Grid, offset: tuple[float, ...] = (0.0, 0.0, 0.0)) -> Points:
    """Return the world coordinates of each voxel's centre, or of a point beside it.

    Args:
        grid: The voxels.
        offset: Place in the voxel, in voxels from its centre.
    """
    index = np.moveaxis(np.indices(grid.shape, dtype=np.float64), 0, -1) + offset
    points: Points = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return points


def draw_anatomy(rng: np.random.Generator, reach: float, centre: Points) -> Anatomy:
    """Draw a subject that fills a field of view of 2 `reach` mm around `centre`."""
    turns = iter(Rotation.from_quat(rng.normal(size=(8, 4))).as_matrix())

    def blob(spread: float, *radii: float, bend: float = 0.0) -> Blob:
        where = centre + reach * spread * rng.uniform(-1.0, 1.0, 3)
        return Blob(where, next(turns), reach * np.array(radii) * rng.uniform(0.85, 1.15, 3), bend)

    body = Blob(centre, np.eye(3), reach * rng.uniform(0.85, 0.95, 3))
    spine = Blob(centre - [0.0, 0.62 * reach, 0.0], np.eye(3), reach * np.array([0.1, 0.1, 2.0]))
    organ = blob(0.15, 0.34, 0.40, 0.55, bend=float(rng.uniform(0.2, 0.5)))
    around = [
        *[(blob(0.5, 0.09, 0.40, 0.55), PLATE) for _ in range(2)],
        *[(blob(0.5, 0.16, 0.18, 0.70), ROD) for _ in range(2)],
        *[(blob(0.4, 0.08, 0.09, 0.90), VESSEL) for _ in range(2)],
        (spine, BONE),
    ]
    nodule = blob(0.0, 0.17, 0.18, 0.19)
    taken = [organ, *(other for other, _ in around)]
    place = _free_place(rng, body, taken, 1.1 * float(nodule.radii.max()))
    way = rng.normal(size=3)
    return Anatomy(
        body=body,
        organ=organ,
        core_offset=0.25 * way / np.linalg.norm(way),
        core_scale=float(rng.uniform(0.55, 0.65)),  # at most 0.9 from the centre: always inside
        nodule=replace(nodule, centre=place),
        around=tuple(around),
    )


def _free_place(rng: np.random.Generator, body: Blob, taken: list[Blob], radius: float) -> Points:
    """Return where a ball of `radius` mm lies in the body and off the rest, if there is room."""
    candidates = body.centre + rng.uniform(-0.75, 0.75, (1024, 3)) * body.radii
    around = np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=3)))
    around /= np.maximum(np.linalg.norm(around, axis=1, keepdims=True), 1.0)
    balls = candidates[:, None] + radius * around
    wrong = ~body.holds(balls)
    for blob in taken:
        wrong |= blob.holds(balls)
    place: Points = candidates[int(np.argmin(wrong.sum(axis=1)))]
    return place


def _in_ball(points: Points) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = np.einsum("...i,...i", points, points) < 1.0
    return inside
