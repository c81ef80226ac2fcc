"""Metrics of a prediction against its reference: pure functions on label arrays.

Surfaces are voxel borders: voxels of the structure with a face neighbour outside it, where the
outside of the volume counts as background (as in MONAI and in Metrics Reloaded, Maier-Hein et al.,
Nature Methods 2024). Other tools use meshes or pooled percentiles and get other numbers, so
`METRIC_VERSION` belongs beside every result.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from medseg.core.errors import GeometryError

METRIC_VERSION = "medseg voxel-border 1"
"""Changes whenever a definition does."""

Status = Literal["present", "missed", "fp_only", "absent"]
"""A structure is in both, in the reference only, in the prediction only, or in neither."""


@dataclass(frozen=True)
class Metric:
    """What one metric means.

    Attributes:
        label: Name for people.
        unit: `mm`, `ml` or nothing.
        better: Which way is better, if either is.
        definition: One line, for reports.
    """

    label: str
    unit: str
    better: Literal["higher", "lower", ""]
    definition: str

    @property
    def is_distance(self) -> bool:
        """Whether a missed or invented structure makes it infinite."""
        return self.unit == "mm"


METRICS: Mapping[str, Metric] = {
    "dice": Metric("Dice", "", "higher", "2 |R ∩ P| / (|R| + |P|)"),
    "iou": Metric("IoU", "", "higher", "|R ∩ P| / |R ∪ P|"),
    "precision": Metric("precision", "", "higher", "|R ∩ P| / |P|"),
    "recall": Metric("recall", "", "higher", "|R ∩ P| / |R|"),
    "hd_mm": Metric("HD", "mm", "lower", "largest distance from either surface to the other"),
    "hd95_mm": Metric("HD95", "mm", "lower", "larger of the two directed 95th percentiles"),
    "hd95_pooled_mm": Metric(
        "HD95 pooled", "mm", "lower", "95th percentile of both directions' distances together"
    ),
    "assd_mm": Metric("ASSD", "mm", "lower", "mean of both directions' distances together"),
    "masd_mm": Metric("MASD", "mm", "lower", "mean of the two directed mean distances"),
    "nsd": Metric(
        "NSD", "", "higher", "share of both surfaces' voxels within the tolerance of the other"
    ),
    "volume_ref_ml": Metric("reference volume", "ml", "", "voxels of R times the voxel volume"),
    "volume_pred_ml": Metric("predicted volume", "ml", "", "voxels of P times the voxel volume"),
    "volume_difference_ml": Metric("volume difference", "ml", "", "V_P - V_R"),
    "relative_volume_difference": Metric("relative volume difference", "", "", "(V_P - V_R) / V_R"),
}
"""Every metric by its name in score files, in the order of tables."""

_LARGEST_TABLE = 1 << 16
_TOLERANCE_ROUNDING = 1e-6  # spacings come from float32 headers: 0.8 mm reads as 0.80000001


@dataclass(frozen=True)
class ClassScore:
    """One class of one case.

    Attributes:
        status: Where the structure is.
        n_ref: Voxels of the reference.
        n_pred: Voxels of the prediction.
        n_overlap: Voxels of both.
        values: Value of each of `METRICS`.
    """

    status: Status
    n_ref: int
    n_pred: int
    n_overlap: int
    values: Mapping[str, float]


def score_classes(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    values: Sequence[int],
    spacing: ArrayLike,
    tolerance_mm: float = 2.0,
    ignore_value: int | None = None,
) -> tuple[ClassScore, ...]:
    """Score one case, every class of it.

    Args:
        reference: Integer labels.
        prediction: Integer labels, same shape.
        values: Label value of each class to score; all others are background.
        spacing: Distance of neighbouring voxels along each array axis, mm; or the axes themselves,
            the 3 x 3 part of an affine, which also serves axes that are not at right angles.
        tolerance_mm: Of the normalized surface distance.
        ignore_value: Reference voxels of this value count as background on both sides.

    Returns:
        One score for each of `values`.

    Raises:
        GeometryError: If the shapes differ.
    """
    if reference.shape != prediction.shape:
        raise GeometryError(f"reference {reference.shape} and prediction {prediction.shape} differ")
    ref, pred = class_indices(reference, values), class_indices(prediction, values)
    if ignore_value is not None:
        ref[reference == ignore_value] = pred[reference == ignore_value] = 0
    table = confusion(ref, pred, len(values) + 1)
    boxes = zip(*(ndimage.find_objects(a, max_label=len(values)) for a in (ref, pred)), strict=True)
    axes = _axes(spacing)
    scores = []
    for index, (ref_box, pred_box) in enumerate(boxes, start=1):
        distances = None
        if ref_box and pred_box:
            box = tuple(map(_union, ref_box, pred_box))
            distances = surface_distances(ref[box] == index, pred[box] == index, axes)
        n_ref, n_pred = int(table[index].sum()), int(table[:, index].sum())
        overlap, voxel_ml = int(table[index, index]), abs(float(np.linalg.det(axes))) / 1000.0
        scores.append(class_score(n_ref, n_pred, overlap, voxel_ml, distances, tolerance_mm))
    return tuple(scores)


def class_score(
    n_ref: int,
    n_pred: int,
    n_overlap: int,
    voxel_ml: float,
    distances: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
    tolerance_mm: float,
) -> ClassScore:
    """Return all metrics from voxel counts and, if both sides have voxels, surface distances."""
    volumes = n_ref * voxel_ml, n_pred * voxel_ml
    values = {
        "dice": _ratio(2 * n_overlap, n_ref + n_pred),
        "iou": _ratio(n_overlap, n_ref + n_pred - n_overlap),
        "precision": _ratio(n_overlap, n_pred),
        "recall": _ratio(n_overlap, n_ref),
        "volume_ref_ml": volumes[0],
        "volume_pred_ml": volumes[1],
        "volume_difference_ml": volumes[1] - volumes[0],
        "relative_volume_difference": _ratio(n_pred - n_ref, n_ref),
    }
    status = status_of(n_ref, n_pred)
    if distances is not None:
        values |= surface_metrics(*distances, tolerance_mm)
    else:
        names = [name for name, metric in METRICS.items() if metric.is_distance]
        values |= dict.fromkeys(names, np.nan if status == "absent" else np.inf)
        values["nsd"] = np.nan if status == "absent" else 0.0
    return ClassScore(status, n_ref, n_pred, n_overlap, {name: values[name] for name in METRICS})


def status_of(n_ref: int, n_pred: int) -> Status:
    """Say where a structure is, from its voxel counts."""
    if n_ref and n_pred:
        return "present"
    if n_ref:
        return "missed"
    return "fp_only" if n_pred else "absent"


def class_indices(labels: NDArray[Any], values: Sequence[int]) -> NDArray[Any]:
    """Return 1 + the position in `values` of each voxel's value, 0 for all others."""
    smallest, largest = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if smallest < 0 or largest >= _LARGEST_TABLE:
        indices = np.zeros(labels.shape, np.min_scalar_type(len(values)))
        for index, value in enumerate(values, start=1):
            indices[labels == value] = index
        return indices
    table = np.zeros(largest + 1, np.min_scalar_type(len(values)))
    for index, value in enumerate(values, start=1):
        if 0 <= value <= largest:
            table[value] = index
    return np.ascontiguousarray(table[labels])


def confusion(reference: NDArray[Any], prediction: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Count voxels by class index of the reference (rows) and of the prediction (columns)."""
    pairs = reference.ravel().astype(np.int64) * classes + prediction.ravel()
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def surface_distances(
    reference: NDArray[np.bool_], prediction: NDArray[np.bool_], spacing: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measure how far each border voxel is from the nearest border voxel of the other mask.

    Args:
        reference: Mask with at least one voxel.
        prediction: Mask with at least one voxel, same shape.
        spacing: As in `score_classes`.

    Returns:
        Distances from the reference's border and from the prediction's border, mm.
    """
    axes = _axes(spacing)
    ref, pred = border(reference), border(prediction)
    ref_points, pred_points = np.argwhere(ref) @ axes.T, np.argwhere(pred) @ axes.T
    # Points on both borders are at distance 0: only the others ask.
    return (
        _distances(ref_points, pred_points, ~pred[ref]),
        _distances(pred_points, ref_points, ~ref[pred]),
    )


def border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the voxels of a mask that have a face neighbour outside it or outside the array."""
    padded = np.pad(mask, 1)
    inside = mask.copy(order="K")
    for axis, step in itertools.product(range(mask.ndim), (0, 2)):
        neighbour = [slice(1, -1)] * mask.ndim
        neighbour[axis] = slice(step, step + mask.shape[axis])
        inside &= padded[tuple(neighbour)]
    return mask & ~inside


def surface_metrics(
    from_reference: NDArray[np.float64], from_prediction: NDArray[np.float64], tolerance_mm: float
) -> dict[str, float]:
    """Reduce the distances of `surface_distances` to metrics."""
    directed = from_reference, from_prediction
    pooled = np.concatenate(directed)
    within = pooled <= tolerance_mm * (1 + _TOLERANCE_ROUNDING)
    return {
        "hd_mm": float(pooled.max()),
        "hd95_mm": max(float(np.percentile(d, 95)) for d in directed),
        "hd95_pooled_mm": float(np.percentile(pooled, 95)),
        "assd_mm": float(pooled.mean()),
        "masd_mm": float(np.mean([d.mean() for d in directed])),
        "nsd": float(within.mean()),
    }


def _distances(
    points: NDArray[np.float64], others: NDArray[np.float64], asking: NDArray[np.bool_]
) -> NDArray[np.float64]:
    distances = np.zeros(len(points))
    if asking.any():
        # Voxel centres are evenly spread: a tree split at midpoints is as good and built faster.
        tree = KDTree(others, balanced_tree=False, compact_nodes=False)
        distances[asking] = tree.query(points[asking])[0]
    return distances


def _axes(spacing: ArrayLike) -> NDArray[np.float64]:
    axes = np.asarray(spacing, dtype=np.float64)
    return np.diag(axes) if axes.ndim == 1 else axes


def _union(a: slice, b: slice) -> slice:
    return slice(min(a.start, b.start), max(a.stop, b.stop))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
