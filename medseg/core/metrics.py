"""Metrics of a prediction against its reference: pure functions on label arrays.

Surfaces are voxel borders (`medseg.core.surfaces`). Other tools use meshes or pooled percentiles
and get other numbers, so `METRIC_VERSION` belongs beside every result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medseg.core.labels import LabelPair
from medseg.core.lesions import LesionCounts, LesionRule, count_lesions
from medseg.core.surfaces import axes_of, surface_distances, surface_metrics

METRIC_VERSION = "medseg voxel-border 1, lesions one-to-one 1"
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
        lowest: No value is below it.
    """

    label: str
    unit: str
    better: Literal["higher", "lower", ""]
    definition: str
    lowest: float = 0.0

    @property
    def limits(self) -> tuple[float, float]:
        """Between which values it lies: shares end at 1."""
        return self.lowest, 1.0 if self.better == "higher" else np.inf

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
    "volume_difference_ml": Metric("volume difference", "ml", "", "V_P - V_R", -np.inf),
    "relative_volume_difference": Metric(
        "relative volume difference", "", "", "(V_P - V_R) / V_R", -1.0
    ),
    "lesion_f1": Metric("lesion F1", "", "higher", "2 matches / (lesions of R + lesions of P)"),
    "lesions_missed": Metric("lesions missed", "", "lower", "lesions of R without match"),
    "lesions_false": Metric("false lesions", "", "lower", "lesions of P without match"),
}
"""Every metric by its name in score files, in the order of tables."""

LESION_METRICS = ("lesion_f1", "lesions_missed", "lesions_false")
"""Those that only structures with a lesion rule have."""


@dataclass(frozen=True)
class Structure:
    """What is scored: a class, or a region of several.

    Attributes:
        values: Label values that belong to it.
        tolerance_mm: Of the normalized surface distance.
        lesions: What its lesions are; None to count none.
    """

    values: tuple[int, ...]
    tolerance_mm: float = 2.0
    lesions: LesionRule | None = None


@dataclass(frozen=True)
class ClassScore:
    """One structure of one case.

    Attributes:
        status: Where the structure is.
        n_ref: Voxels of the reference.
        n_pred: Voxels of the prediction.
        n_overlap: Voxels of both.
        values: Value of each of `METRICS`, of lesions only where they are counted.
        lesions: The lesions, where they are counted.
    """

    status: Status
    n_ref: int
    n_pred: int
    n_overlap: int
    values: Mapping[str, float]
    lesions: LesionCounts | None = None


def score_structures(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    structures: Sequence[Structure],
    spacing: ArrayLike,
    ignore_value: int | None = None,
) -> tuple[ClassScore, ...]:
    """Score one case, every structure of it; structures may overlap.

    Args:
        reference: Integer labels.
        prediction: Integer labels, same shape.
        structures: Classes and regions; label values of none are background.
        spacing: Distance of neighbouring voxels along each array axis, mm; or the axes themselves,
            the 3 x 3 part of an affine, which also serves axes that are not at right angles.
        ignore_value: Reference voxels of this value count as background on both sides.

    Returns:
        One score for each of `structures`.

    Raises:
        GeometryError: If the shapes differ.
    """
    values = list(dict.fromkeys(value for s in structures for value in s.values))
    pair = LabelPair.of(reference, prediction, values, ignore_value)
    return tuple(score_structure(pair, structure, spacing) for structure in structures)


def score_structure(pair: LabelPair, structure: Structure, spacing: ArrayLike) -> ClassScore:
    """Score one structure of a pair of label maps; spacing as in `score_structures`."""
    axes = axes_of(spacing)
    voxel_ml = abs(float(np.linalg.det(axes))) / 1000.0
    counts = pair.counts(structure.values)
    masks = pair.masks(structure.values)
    distances = surface_distances(*masks, axes) if counts[0] and counts[1] else None
    lesions = count_lesions(*masks, voxel_ml, structure.lesions) if structure.lesions else None
    return class_score(counts, voxel_ml, distances, structure.tolerance_mm, lesions)


def score_classes(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    values: Sequence[int],
    spacing: ArrayLike,
    tolerance_mm: float = 2.0,
    ignore_value: int | None = None,
) -> tuple[ClassScore, ...]:
    """Score one case, each of the label `values` for itself; see `score_structures`."""
    structures = [Structure((value,), tolerance_mm) for value in values]
    return score_structures(reference, prediction, structures, spacing, ignore_value)


def class_score(
    counts: tuple[int, int, int],
    voxel_ml: float,
    distances: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    tolerance_mm: float = 2.0,
    lesions: LesionCounts | None = None,
) -> ClassScore:
    """Return all metrics of a structure.

    Args:
        counts: Voxels of the reference, of the prediction and of both.
        voxel_ml: Volume of a voxel.
        distances: Of the surfaces, if both sides have voxels.
        tolerance_mm: Of the normalized surface distance.
        lesions: If they are counted.
    """
    n_ref, n_pred, n_overlap = counts
    values = {
        "dice": _ratio(2 * n_overlap, n_ref + n_pred),
        "iou": _ratio(n_overlap, n_ref + n_pred - n_overlap),
        "precision": _ratio(n_overlap, n_pred),
        "recall": _ratio(n_overlap, n_ref),
        "volume_ref_ml": n_ref * voxel_ml,
        "volume_pred_ml": n_pred * voxel_ml,
        "volume_difference_ml": n_pred * voxel_ml - n_ref * voxel_ml,
        "relative_volume_difference": _ratio(n_pred - n_ref, n_ref),
    }
    status = status_of(n_ref, n_pred)
    if distances is not None:
        values |= surface_metrics(*distances, tolerance_mm)
    else:
        names = [name for name, metric in METRICS.items() if metric.is_distance]
        values |= dict.fromkeys(names, np.nan if status == "absent" else np.inf)
        values["nsd"] = np.nan if status == "absent" else 0.0
    if lesions is not None:
        values |= lesions.values
    ordered = {name: values[name] for name in METRICS if name in values}
    return ClassScore(status, n_ref, n_pred, n_overlap, ordered, lesions)


def status_of(n_ref: int, n_pred: int) -> Status:
    """Say where a structure is, from its voxel counts."""
    if n_ref and n_pred:
        return "present"
    if n_ref:
        return "missed"
    return "fp_only" if n_pred else "absent"


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
