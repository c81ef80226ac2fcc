"""Three slices through the largest error of one case, as a picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.geometry import Grid
from medseg.io import Volume

REFERENCE_COLOUR, PREDICTION_COLOUR = "#56B4E9", "#E69F00"

WIDTH, GAP, DPI = 5.2, 0.008, 140
"""Of a picture: inches, share of the width between two slices, dots an inch."""

MARGIN_MM, MARGIN_SHARE = 10.0, 0.25
"""Around all structures: at least so many mm, or that share of their extent."""

PERCENTILES = (1.0, 99.5)
MOST_VALUES = 1_000_000
"""From which the grey window is read."""

VIEWS = (("axial", 2, "R"), ("coronal", 1, "R"), ("sagittal", 0, "A"))
"""Name, axis (right, anterior, superior) looked along, what lies on the left."""

_RAS = ("LR", "PA", "IS")

Voxel = tuple[int, int, int]


def draw(
    image: Volume, reference: Volume, prediction: Volume, centre: Voxel, whole: bool = False
) -> str:
    """Draw axial, coronal and sagittal slices through a voxel, all at one scale.

    Args:
        image: 3-D, or 4-D with the first channel shown.
        reference: Labels on the same grid.
        prediction: Labels on the same grid.
        centre: Where the slices cross, in the axes of the files.
        whole: Show the whole volume instead of the part that holds structures.

    Returns:
        A PNG as a data URI.
    """
    grid = image.grid
    values = image.array[..., 0] if image.array.ndim > 3 else image.array
    axes = _ras_axes(grid)[0]
    spacing = [grid.spacing[axis] for axis in axes]
    arrays = [to_ras(array, grid) for array in (values, reference.array, prediction.array)]
    point = _ras_voxel(centre, grid)
    shown = (arrays[1] > 0) | (arrays[2] > 0)
    box = structure_box(np.ones_like(shown) if whole else shown, spacing, point)
    arrays = [array[box] for array in arrays]
    point = tuple(p - part.start for p, part in zip(point, box, strict=True))
    slices = [
        [np.take(array, point[axis], axis=axis).T for array in arrays] for _, axis, _ in VIEWS
    ]
    with mpl.rc_context({"font.size": 8}):
        figure = _figure(slices, spacing, grey_window(values))
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=DPI, facecolor="black")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def _figure(
    slices: Sequence[Sequence[NDArray[Any]]],
    spacing: Sequence[float],
    window: tuple[float, float],
) -> Figure:
    sizes = []
    for (_, axis, _), (shown, *_) in zip(VIEWS, slices, strict=True):
        across, up = (spacing[other] for other in range(3) if other != axis)
        sizes.append((shown.shape[1] * across, shown.shape[0] * up))
    scale = (1 - 2 * GAP) / sum(width for width, _ in sizes)
    tallest = max(height for _, height in sizes)
    figure = Figure(figsize=(WIDTH, WIDTH * scale * tallest))
    left, halo = 0.0, [withStroke(linewidth=2, foreground="black")]
    for (name, _, side), content, (width, height) in zip(VIEWS, slices, sizes, strict=True):
        share = height / tallest
        axes = figure.add_axes((left, (1 - share) / 2, width * scale, share))
        _panel(axes, content, window)
        for y, text, place in ((0.98, name, "top"), (0.5, side, "center")):
            figure.text(left + 0.01, y, text, va=place, color="white", path_effects=halo)
        left += width * scale + GAP
    return figure


def _panel(axes: Axes, content: Sequence[NDArray[Any]], window: tuple[float, float]) -> None:
    image, reference, prediction = content
    axes.imshow(image, cmap="gray", vmin=window[0], vmax=window[1], origin="lower", aspect="auto",
                interpolation="nearest")  # fmt: skip
    (left, right), vertical = axes.get_xlim(), axes.get_ylim()
    _outline(axes, reference, REFERENCE_COLOUR, "solid")
    _outline(axes, prediction, PREDICTION_COLOUR, "dashed")
    axes.set(xlim=(right, left), ylim=vertical)  # right, and anterior, on the left
    axes.set_axis_off()


def _outline(axes: Axes, labels: NDArray[Any], colour: str, style: str) -> None:
    """Draw the outline of each label, closed also where it touches the edge."""
    padded = np.pad(labels, 1)
    across, up = (np.arange(-1, size - 1) for size in padded.shape[::-1])
    for value in np.unique(labels[labels > 0]):
        lines = axes.contour(across, up, (padded == value).astype(float), levels=[0.5],
                             colors=[colour], linewidths=1.2, linestyles=style)  # fmt: skip
        lines.set_path_effects([withStroke(linewidth=1.9, foreground="#00000070")])


def error_centre(
    reference: NDArray[Any], prediction: NDArray[Any], spacing: Sequence[float] = (1, 1, 1)
) -> Voxel:
    """Return the voxel of the largest connected error that lies deepest in it.

    Where both agree, the middle of the reference, or of the volume.
    """
    wrong = reference != prediction
    if wrong.any():
        parts, _ = ndimage.label(wrong)
        largest = int(np.argmax(np.bincount(parts.ravel())[1:])) + 1
        box = ndimage.find_objects(parts, largest)[largest - 1]
        depth = ndimage.distance_transform_edt(np.pad(parts[box] == largest, 1), spacing)
        deepest = np.unravel_index(int(np.argmax(depth)), depth.shape)
        i, j, k = (int(at) - 1 + part.start for at, part in zip(deepest, box, strict=True))
        return i, j, k
    where = np.argwhere(reference > 0)
    centre = np.median(where, axis=0) if len(where) else np.asarray(reference.shape) // 2
    return int(centre[0]), int(centre[1]), int(centre[2])


def to_ras(array: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Swap and flip axes to the ones nearest to right, anterior, superior."""
    axes, flips = _ras_axes(grid)
    moved = np.transpose(array, axes)
    return np.asarray(np.flip(moved, tuple(axis for axis, flip in enumerate(flips) if flip)))


def _ras_voxel(voxel: Voxel, grid: Grid) -> Voxel:
    """Return where a voxel lies after `to_ras`."""
    i, j, k = (
        grid.shape[axis] - 1 - voxel[axis] if flip else voxel[axis]
        for axis, flip in zip(*_ras_axes(grid), strict=True)
    )
    return i, j, k


def _ras_axes(grid: Grid) -> tuple[list[int], list[bool]]:
    letters = grid.orientation
    axes = [next(i for i, letter in enumerate(letters) if letter in pair) for pair in _RAS]
    return axes, [letters[axis] == pair[0] for axis, pair in zip(axes, _RAS, strict=True)]


def structure_box(
    structures: NDArray[Any], spacing: Sequence[float], centre: Voxel
) -> tuple[slice, ...]:
    """Return the part of a volume that holds all structures, with some room around."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        where = np.flatnonzero(structures.any(axis=others))
        first, last = (where[0], where[-1]) if len(where) else (centre[axis], centre[axis])
        margin = max(MARGIN_MM / spacing[axis], MARGIN_SHARE * (last - first + 1))
        low = max(int(first - margin), 0)
        box.append(slice(low, min(int(np.ceil(last + margin)) + 1, structures.shape[axis])))
    return tuple(box)


def grey_window(values: NDArray[Any]) -> tuple[float, float]:
    """Return the values drawn black and white."""
    some = values.ravel()[:: max(values.size // MOST_VALUES, 1)]
    low, high = np.percentile(some, PERCENTILES)
    return float(low), float(max(high, low + 1e-6))
