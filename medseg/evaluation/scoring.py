"""One case scored: both label maps read, compared voxel by voxel and checked to be comparable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import GeometryError, VolumeError
from medseg.core.geometry import SAME_GRID
from medseg.core.labels import LabelPair, label_values
from medseg.core.metrics import ClassScore, score_structure
from medseg.evaluation.pairing import Pair
from medseg.evaluation.wanted import Wanted
from medseg.io import Volume, read_volume
from medseg.io.labels import LABEL_ROUNDING

MOST_VALUES = 1000
"""More distinct values than any label table has: an image, given for a label map."""


@dataclass(frozen=True)
class ScoringJob:
    """What a worker needs to score one case.

    Attributes:
        pair: The case.
        wanted: Classes and regions to score.
        ignore_value: Label value of voxels to leave out.
        grid_tolerance: Of the comparison of grids, in spacings.
    """

    pair: Pair
    wanted: Wanted
    ignore_value: int | None
    grid_tolerance: float


@dataclass(frozen=True)
class CaseScores:
    """One scored case.

    Attributes:
        pair: The case.
        scores: Score by class or region, of those that a label map or the label table names.
        confusion: Voxels by label value in the reference and in the prediction, none left out.
        n_voxels: Voxels that were compared.
        spacing: Of the reference, mm.
        diagonal_mm: Of the image, the penalty of an infinite distance.
        warnings: About the files.
    """

    pair: Pair
    scores: Mapping[str, ClassScore]
    confusion: Mapping[tuple[int, int], int]
    n_voxels: int
    spacing: tuple[float, float, float]
    diagonal_mm: float
    warnings: tuple[str, ...]


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
    warnings = [*prediction.warnings, *reference.warnings]
    if not grid.is_same(prediction.grid):
        warnings.append(f"grids differ by more than {SAME_GRID:g} of the spacing, as allowed")
    values = _values(job, reference, prediction)
    labels = LabelPair.of(reference.array, prediction.array, values, job.ignore_value)
    ignored = 0
    if job.ignore_value is not None:
        ignored = int(np.count_nonzero(reference.array == job.ignore_value))
    structures = job.wanted.structures(values).items()
    axes = grid.affine[:3, :3]
    return CaseScores(
        pair=pair,
        scores={name: score_structure(labels, wanted, axes) for name, wanted in structures},
        confusion=_confusion(labels, ignored),
        n_voxels=reference.array.size - ignored,
        spacing=grid.spacing,
        diagonal_mm=grid.diagonal_mm,
        warnings=tuple(warnings),
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
    labels = np.empty_like(array, np.int32)
    for index in range(array.shape[-1]):  # slice by slice: real numbers take memory enough
        whole = np.rint(array[..., index])
        rounding = np.abs(array[..., index] - whole).max(initial=0)
        if rounding > LABEL_ROUNDING or np.abs(whole).max(initial=0) >= 2**31:
            raise VolumeError(path, "not-labels", "holds numbers that are not whole",
                              "give the label map, not an image or probabilities")  # fmt: skip
        labels[..., index] = whole
    return labels


def _values(job: ScoringJob, reference: Volume, prediction: Volume) -> tuple[int, ...]:
    """Return the label values of all classes; refuse values that cannot be meant."""
    ref = _found(job.pair.reference, reference)
    pred = _found(job.pair.prediction, prediction)
    if job.wanted.classes is None:
        known = {value for value in ref | pred if value >= 0}
    else:
        known = {0, *job.wanted.classes.values()}
    _refuse(job.pair.prediction, pred - known)
    _refuse(job.pair.reference, {value for value in ref - known if value != job.ignore_value})
    return tuple(sorted(known - {0}))


def _found(path: Path, volume: Volume) -> set[int]:
    found = label_values(volume.array)
    if len(found) > MOST_VALUES:
        raise VolumeError(path, "not-labels", f"holds {len(found)} different values",
                          "give the label map, not an image")  # fmt: skip
    return found


def _refuse(path: Path, foreign: set[int]) -> None:
    if foreign:
        shown = ", ".join(map(str, sorted(foreign)[:10]))
        raise VolumeError(path, "foreign-label", f"holds values that no class has: {shown}",
                          "use the label table it was made with")  # fmt: skip


def _confusion(labels: LabelPair, ignored: int) -> dict[tuple[int, int], int]:
    """Return the counts above 0 by label value; ignored voxels are background to `labels`."""
    table = labels.confusion.copy()
    table[0, 0] -= ignored
    values = (0, *labels.values)
    there = zip(*np.nonzero(table), strict=True)
    return {(values[ref], values[pred]): int(table[ref, pred]) for ref, pred in there}
