"""Lesions: the connected components of a structure, matched between reference and prediction.

The rule is panoptica's (Kofler et al., arXiv 2312.02608): pairs of components are taken in the
order of falling IoU, each component at most once, and a pair matches if its IoU reaches a
threshold. The usual 0.5 of natural images is too strict for small lesions, where one voxel layer
halves the IoU; 0.1 is what nnDetection uses in 3D (Baumgartner et al., MICCAI 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

NEIGHBOURS = {6: 1, 18: 2, 26: 3}
"""Connectivities of voxels, and the rank that SciPy knows them by."""

_WHOLE = 1e-9  # rounding of a size in ml that is meant as a number of voxels


@dataclass(frozen=True)
class LesionRule:
    """What a lesion is, and when two are the same.

    Attributes:
        connectivity: 6, 18 or 26 neighbours of a voxel belong to its lesion.
        min_ml: Smaller components are none, on both sides.
        iou: Smallest IoU of a match; with 0 one common voxel suffices.
    """

    connectivity: int = 26
    min_ml: float = 0.0
    iou: float = 0.1


@dataclass(frozen=True)
class LesionCounts:
    """Lesions of one structure in one case.

    Attributes:
        n_ref: In the reference.
        n_pred: In the prediction.
        n_matched: Pairs of one of each.
    """

    n_ref: int
    n_pred: int
    n_matched: int

    @property
    def values(self) -> dict[str, float]:
        """Metrics by name; F1 is NaN where there is no lesion at all."""
        lesions = self.n_ref + self.n_pred
        return {
            "lesion_f1": 2 * self.n_matched / lesions if lesions else float("nan"),
            "lesions_missed": float(self.n_ref - self.n_matched),
            "lesions_false": float(self.n_pred - self.n_matched),
        }


def count_lesions(
    reference: NDArray[np.bool_], prediction: NDArray[np.bool_], voxel_ml: float, rule: LesionRule
) -> LesionCounts:
    """Count the lesions of two masks of one shape, and those they share."""
    ref, ref_sizes = _lesions(reference, voxel_ml, rule)
    pred, pred_sizes = _lesions(prediction, voxel_ml, rule)
    matched = _matches(ref, pred, ref_sizes, pred_sizes, rule.iou)
    n_ref, n_pred = (int(np.count_nonzero(sizes)) for sizes in (ref_sizes, pred_sizes))
    return LesionCounts(n_ref, n_pred, matched)


def _lesions(
    mask: NDArray[np.bool_], voxel_ml: float, rule: LesionRule
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the number of each voxel's lesion, and voxels by lesion; 0 is none, of size 0."""
    structure = ndimage.generate_binary_structure(mask.ndim, NEIGHBOURS[rule.connectivity])
    labels, count = ndimage.label(mask, structure)
    sizes = np.bincount(labels[mask], minlength=count + 1)
    small = sizes * voxel_ml < rule.min_ml * (1 - _WHOLE)
    sizes[small] = 0
    if small[1:].any():
        labels[small[labels]] = 0
    return labels, sizes


def _matches(
    ref: NDArray[Any],
    pred: NDArray[Any],
    ref_sizes: NDArray[np.int64],
    pred_sizes: NDArray[np.int64],
    threshold: float,
) -> int:
    """Count pairs of lesions, the best first, each lesion in one pair only.

    Of pairs with equal IoU the first in the arrays' order is taken.
    """
    common = (ref > 0) & (pred > 0)
    pairs = ref[common].astype(np.int64) * len(pred_sizes) + pred[common]
    found, shared = np.unique(pairs, return_counts=True)
    ones, others = np.divmod(found, len(pred_sizes))
    iou = shared / (ref_sizes[ones] + pred_sizes[others] - shared)
    taken_ref: set[int] = set()
    taken_pred: set[int] = set()
    for index in np.argsort(-iou, kind="stable"):
        if iou[index] < threshold:
            break
        one, other = int(ones[index]), int(others[index])
        if one not in taken_ref and other not in taken_pred:
            taken_ref.add(one)
            taken_pred.add(other)
    return len(taken_ref)
