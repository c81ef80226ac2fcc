"""How well a label fits its image: do its borders lie where the intensities change?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.check.content import MIRRORS, foreground_box

MOST_VOXELS = 128
"""Along an axis; larger volumes are judged on every second, third … voxel."""

FEWEST_VOXELS = 30
"""Of a label: fewer have no border to speak of."""

SHORTEST_AXIS = 10
"""Of a volume, voxels: in a thinner one there is no room to move a label."""

RING = 3
"""Voxels around the label whose intensities set the window."""

WINDOW = (5.0, 95.0)
"""Percentiles of the label and its ring between which an intensity step counts."""

SHIFTS = (-5, -3, 3, 5)
"""Voxels by which the label is moved along each axis, to see whether it fits better there."""

Steps = Sequence[NDArray[np.float32]]


@dataclass(frozen=True)
class Fit:
    """How well a label fits; each a logarithm, so 0 is `no better` and larger is better.

    Attributes:
        border: Intensity step across the label's borders against that of the whole image.
        mirror: The border of the label against the best of its mirrorings.
        shift: The border of the label against the best of its shifts.
        mirrored: Axes of the best mirroring.
        shifted: Axis and voxels of the best shift.
    """

    border: float
    mirror: float
    shift: float
    mirrored: tuple[int, ...]
    shifted: tuple[int, int]


def measure_fit(image: NDArray[Any], label: NDArray[Any]) -> Fit | None:
    """Measure how well a label fits its image, both of one shape; None if it cannot be told."""
    image, label = thinned(image), thinned(label)
    if (
        not FEWEST_VOXELS <= np.count_nonzero(label) < label.size
        or min(label.shape) < SHORTEST_AXIS
    ):
        return None
    steps = intensity_steps(image, label)
    average = float(np.mean([step.mean() for step in steps]))
    own = border_step(steps, label)
    if not own > 0 or not average > 0:
        return None
    mirrors = {axes: border_step(steps, np.flip(label, axes)) for axes in MIRRORS}
    shifts = {
        (axis, by): border_step(steps, moved(label, axis, by)) for axis in range(3) for by in SHIFTS
    }
    mirrored, shifted = max(mirrors, key=mirrors.__getitem__), max(shifts, key=shifts.__getitem__)
    return Fit(
        border=math.log(own / average),
        mirror=_log_ratio(own, mirrors[mirrored]),
        shift=_log_ratio(own, shifts[shifted]),
        mirrored=mirrored,
        shifted=shifted,
    )


def thinned(array: NDArray[Any]) -> NDArray[Any]:
    """Return every n-th voxel along an axis that is too long."""
    return array[tuple(slice(None, None, math.ceil(n / MOST_VOXELS)) for n in array.shape)]


def intensity_steps(image: NDArray[Any], label: NDArray[Any]) -> Steps:
    """Return absolute differences of neighbours along each axis, in the label's own window."""
    box = tuple(
        slice(max(part.start - RING - 1, 0), part.stop + RING + 1)
        for part in foreground_box(label > 0)
    )
    near = ndimage.binary_dilation(label[box] > 0, iterations=RING)
    low, high = np.percentile(image[box][near].astype(np.float64), WINDOW)
    width = max(float(high - low), np.finfo(np.float32).tiny)
    seen = np.clip((image.astype(np.float32) - low) / width, 0, 1).astype(np.float32)
    return [np.abs(np.diff(seen, axis=axis)) for axis in range(3)]


def border_step(steps: Steps, label: NDArray[Any]) -> float:
    """Return the mean step between neighbours of different label; 0 without a border."""
    if not label.any():
        return 0.0
    box = [slice(max(p.start - 1, 0), p.stop + 1) for p in foreground_box(label > 0)]
    part = label[tuple(box)]
    total, number = 0.0, 0
    for axis, step in enumerate(steps):
        lower, upper = (
            tuple(cut if other == axis else slice(None) for other in range(3))
            for cut in (slice(None, -1), slice(1, None))
        )
        border = part[lower] != part[upper]
        place = [slice(b.start, b.start + n) for b, n in zip(box, border.shape, strict=True)]
        total += float(step[tuple(place)][border].sum())
        number += int(np.count_nonzero(border))
    return total / max(number, 1)


def moved(label: NDArray[Any], axis: int, by: int) -> NDArray[Any]:
    """Return a label map moved along an axis; what leaves the volume is lost."""
    out = np.zeros_like(label)
    ahead, behind = (
        slice(max(by, 0), label.shape[axis] + min(by, 0)),
        slice(max(-by, 0), label.shape[axis] + min(-by, 0)),
    )
    target, source = (
        tuple(cut if other == axis else slice(None) for other in range(3))
        for cut in (ahead, behind)
    )
    out[target] = label[source]
    return out


def _log_ratio(own: float, other: float) -> float:
    return math.log(own / other) if other > 0 else math.inf
