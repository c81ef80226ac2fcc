"""Worst cases as pictures: three slices through the largest error, both contours."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.errors import VolumeError
from medseg.core.geometry import Grid
from medseg.io import Volume, read_volume
from medseg.report.sources import Source

REFERENCE_COLOUR, PREDICTION_COLOUR = "#56B4E9", "#E69F00"
MOST_LOST = 4
"""Pictures of missed or invented structures for each run, besides the worst cases."""

_RAS = ("LR", "PA", "IS")


@dataclass(frozen=True)
class Picture:
    """One case to look at.

    Attributes:
        run: Name of the run.
        case_id: The case.
        reason: Why it is shown.
        image: PNG as a data URI, or "" where there is none.
        note: Why there is none.
    """

    run: str
    case_id: str
    reason: str
    image: str
    note: str = ""


def pictures(source: Source, worst: int) -> list[Picture]:
    """Return pictures of the lost structures and of the worst cases of a run."""
    reasons: dict[str, str] = {}
    for case_id in source.case_ids:
        for name in source.class_names:
            status = source.status(case_id, name)
            if status in ("missed", "fp_only") and len(reasons) < MOST_LOST:
                reasons.setdefault(
                    case_id, f"{name} {'missed' if status == 'missed' else 'invented'}"
                )
    known = [case_id for case_id in source.case_ids if not math.isnan(source.case_dice(case_id))]
    for case_id in sorted(known, key=source.case_dice)[:worst]:
        reasons.setdefault(case_id, "among the lowest mean Dice")
    return [_picture(source, case_id, reason) for case_id, reason in reasons.items()]


def _picture(source: Source, case_id: str, reason: str) -> Picture:
    shown = f"{reason}; mean Dice {source.case_dice(case_id):.3f}"
    try:
        image, reference, prediction = _volumes(source, case_id)
    except (VolumeError, _NoPictureError) as error:
        return Picture(source.name, case_id, shown, "", str(error))
    png = draw(image, reference, prediction)
    return Picture(source.name, case_id, shown, png)


class _NoPictureError(Exception):
    """A file is not known, or does not lie on the others' grid."""


def _volumes(source: Source, case_id: str) -> tuple[Volume, Volume, Volume]:
    record = source.journal.get(case_id, {})
    image, reference, output = (record.get(key) for key in ("image", "reference", "output"))
    if not image or not reference or not output:
        raise _NoPictureError("The files of this case are not recorded, so there is no picture.")
    paths = [Path(image if isinstance(image, str) else image[0]), Path(reference)]
    volumes = [
        read_volume(path, non_finite="zero") for path in [*paths, source.predictions / output]
    ]
    for volume in volumes[1:]:
        if volume.array.shape != volumes[2].array.shape or not volume.grid.is_same(volumes[0].grid):
            raise _NoPictureError("Image, reference and prediction lie on different grids.")
    return volumes[0], volumes[1], volumes[2]


def draw(image: Volume, reference: Volume, prediction: Volume) -> str:
    """Draw axial, coronal and sagittal slices through the largest error.

    Args:
        image: 3-D, or 4-D with the first channel shown.
        reference: Labels on the same grid.
        prediction: Labels on the same grid.

    Returns:
        A PNG as a data URI.
    """
    values = image.array[..., 0] if image.array.ndim > 3 else image.array
    arrays = [to_ras(array, image.grid) for array in (values, reference.array, prediction.array)]
    spacing = _ras_spacing(image.grid)
    centre = error_centre(arrays[1], arrays[2])
    low, high = np.percentile(arrays[0], (1, 99.5))
    with mpl.rc_context({"font.size": 7, "contour.negative_linestyle": "solid"}):
        figure = Figure(figsize=(6.6, 2.35), layout="constrained", facecolor="black")
        panels = figure.subplots(1, 3)
        for axes, (axis, title) in zip(
            panels, ((2, "axial"), (1, "coronal"), (0, "sagittal")), strict=True
        ):
            slices = [np.take(array, centre[axis], axis=axis).T for array in arrays]
            across, up = (spacing[other] for other in range(3) if other != axis)
            axes.imshow(slices[0], cmap="gray", vmin=low, vmax=max(high, low + 1e-6),
                        origin="lower", aspect=up / across, interpolation="nearest")  # fmt: skip
            _outline(axes, slices[1], REFERENCE_COLOUR, "solid")
            _outline(axes, slices[2], PREDICTION_COLOUR, "dashed")
            axes.set_title(f"{title}, slice {centre[axis] + 1}", color="white")
            axes.set_axis_off()
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=120)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def _outline(axes: Any, labels: NDArray[Any], colour: str, style: str) -> None:
    if min(labels.shape) < 2:
        return  # a single slice seen from its side has no outline
    for value in np.unique(labels[labels > 0]):
        axes.contour(labels == value, levels=[0.5], colors=[colour], linewidths=1.1,
                     linestyles=style)  # fmt: skip


def error_centre(reference: NDArray[Any], prediction: NDArray[Any]) -> tuple[int, int, int]:
    """Return the voxel of the largest connected error that lies deepest in it.

    Where both agree, the middle of the reference, or of the volume.
    """
    wrong = reference != prediction
    if wrong.any():
        parts, _ = ndimage.label(wrong)
        largest = np.argmax(np.bincount(parts.ravel())[1:]) + 1
        depth = ndimage.distance_transform_edt(parts == largest)
        i, j, k = np.unravel_index(int(np.argmax(depth)), depth.shape)
        return int(i), int(j), int(k)
    where = np.argwhere(reference > 0)
    centre = np.median(where, axis=0) if len(where) else np.asarray(reference.shape) // 2
    return int(centre[0]), int(centre[1]), int(centre[2])


def to_ras(array: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Swap and flip axes to the ones nearest to right, anterior, superior."""
    axes, flips = _ras_axes(grid)
    moved = np.transpose(array, axes)
    return np.asarray(np.flip(moved, tuple(axis for axis, flip in enumerate(flips) if flip)))


def _ras_axes(grid: Grid) -> tuple[list[int], list[bool]]:
    letters = grid.orientation
    axes = [next(i for i, letter in enumerate(letters) if letter in pair) for pair in _RAS]
    return axes, [letters[axis] == pair[0] for axis, pair in zip(axes, _RAS, strict=True)]


def _ras_spacing(grid: Grid) -> Sequence[float]:
    return [grid.spacing[axis] for axis in _ras_axes(grid)[0]]
