"""One case scored: both label maps read, compared voxel by voxel and checked to be comparable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import GeometryError, VolumeError
from medseg.core.metrics import ClassScore, class_score, score_classes
from medseg.evaluation.pairing import Pair
from medseg.io import Volume, read_volume

MOST_VALUES = 1000
"""More distinct values than any label table has: an image, given for a label map."""

_INTEGER_ROUNDING = 1e-3  # scaled or resampled label files hold 0.99999994 for 1


@dataclass(frozen=True)
class ScoringJob:
    """What a worker needs to score one case.

    Attributes:
        pair: The case.
        values: Label values to score; None for all above 0 that occur.
        ignore_value: Label value of voxels to leave out.
        tolerance_mm: Of the normalized surface distance.
        grid_tolerance: Of the comparison of grids, in spacings.
    """

    pair: Pair
    values: tuple[int, ...] | None
    ignore_value: int | None
    tolerance_mm: float
    grid_tolerance: float


@dataclass(frozen=True)
class CaseScores:
    """One scored case.

    Attributes:
        pair: The case.
        classes: Score by label value.
        n_voxels: Voxels that were compared.
        spacing: Of the reference, mm.
        voxel_ml: Volume of one voxel.
        diagonal_mm: Of the image, the penalty of an infinite distance.
        warnings: About the files.
    """

    pair: Pair
    classes: Mapping[int, ClassScore]
    n_voxels: int
    spacing: tuple[float, float, float]
    voxel_ml: float
    diagonal_mm: float
    warnings: tuple[str, ...]

    def of(self, value: int) -> ClassScore:
        """Return the score of a label value; one that neither file holds is absent."""
        return self.classes.get(value) or class_score(0, 0, 0, self.voxel_ml, None, 0.0)


def score_case(job: ScoringJob) -> CaseScores:
    """Score one case.

    Raises:
        VolumeError: If a file is refused or holds values outside the label table.
        GeometryError: If the two lie on different grids.
    """
    pair = job.pair
    prediction, reference = read_labels(pair.prediction), read_labels(pair.reference)
    grid = reference.grid
    if not grid.is_same(prediction.grid, job.grid_tolerance):
        raise GeometryError(
            f"reference and prediction lie on different grids: {grid.difference(prediction.grid)}. "
            "Resample the prediction, or relax --grid_tolerance."
        )
    values = _values(job, reference, prediction)
    scores = score_classes(
        reference.array,
        prediction.array,
        values,
        grid.affine[:3, :3],
        job.tolerance_mm,
        job.ignore_value,
    )
    ignored = 0 if job.ignore_value is None else np.sum(reference.array == job.ignore_value)
    return CaseScores(
        pair=pair,
        classes=dict(zip(values, scores, strict=True)),
        n_voxels=reference.array.size - int(ignored),
        spacing=grid.spacing,
        voxel_ml=grid.voxel_volume_ml,
        diagonal_mm=grid.diagonal_mm,
        warnings=(*prediction.warnings, *reference.warnings),
    )


def read_labels(path: Path) -> Volume:
    """Read a label map as integers.

    Raises:
        VolumeError: If the file is refused, or `not-labels` if it holds other numbers.
    """
    volume = read_volume(path, channels=1, non_finite="error")
    return Volume(_as_integers(path, volume.array), volume.grid, volume.warnings)


def _as_integers(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind in "iu":
        return array
    whole = np.rint(array)
    if np.any(np.abs(array - whole) > _INTEGER_ROUNDING) or np.abs(whole).max() >= 2**31:
        raise VolumeError(path, "not-labels", "holds numbers that are not whole",
                          "give the label map, not an image or probabilities")  # fmt: skip
    labels: NDArray[np.int32] = whole.astype(np.int32)
    return labels


def _values(job: ScoringJob, reference: Volume, prediction: Volume) -> tuple[int, ...]:
    """Return the label values to score; refuse values that cannot be meant."""
    ref = _found(job.pair.reference, reference)
    pred = _found(job.pair.prediction, prediction)
    if job.values is None:
        known = {value for value in ref | pred if value >= 0}
    else:
        known = {0, *job.values}
    _refuse(job.pair.prediction, pred - known)
    _refuse(job.pair.reference, {value for value in ref - known if value != job.ignore_value})
    return tuple(sorted(known - {0})) if job.values is None else job.values


def _found(path: Path, volume: Volume) -> set[int]:
    found = {int(value) for value in np.unique(volume.array)}
    if len(found) > MOST_VALUES:
        raise VolumeError(path, "not-labels", f"holds {len(found)} different values",
                          "give the label map, not an image")  # fmt: skip
    return found


def _refuse(path: Path, foreign: set[int]) -> None:
    if foreign:
        shown = ", ".join(map(str, sorted(foreign)[:10]))
        raise VolumeError(path, "foreign-label", f"holds values that no class has: {shown}",
                          "use the label table it was made with")  # fmt: skip
