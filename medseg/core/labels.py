"""A pair of label maps as class indices: counted in one pass, cut out box by box.

Label maps may be large and classes many: no array of the volume's size is made per class, and the
indices take the fewest bytes that hold them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.errors import GeometryError

_LARGEST_TABLE = 1 << 16
_SLAB = 1 << 20  # voxels counted at once: numbers of pairs take 8 times the bytes of labels

Box = tuple[slice, ...]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class LabelPair:
    """Two label maps of one shape, and what one pass finds in them.

    Attributes:
        reference: 1 + the position of each voxel's value in `values`, 0 for others; only the box
            that holds all but background.
        prediction: Likewise.
        values: Label value of each class, none of them 0.
        confusion: Voxels by class index of the reference (rows) and of the prediction (columns).
        boxes: Smallest box around each class in both; None where it is in neither.
    """

    reference: NDArray[Any]
    prediction: NDArray[Any]
    values: tuple[int, ...]
    confusion: NDArray[np.int64]
    boxes: tuple[Box | None, ...]

    @classmethod
    def of(
        cls,
        reference: NDArray[Any],
        prediction: NDArray[Any],
        values: Sequence[int],
        ignore_value: int | None = None,
    ) -> LabelPair:
        """Index two label maps.

        Args:
            reference: Integer labels.
            prediction: Integer labels, same shape.
            values: Label value of each class, none of them 0; all others are background.
            ignore_value: Reference voxels of this value count as background on both sides.

        Raises:
            GeometryError: If the shapes differ.
        """
        if reference.shape != prediction.shape:
            raise GeometryError(
                f"reference {reference.shape} and prediction {prediction.shape} differ"
            )
        voxels = reference.size
        # Most of a volume is background, and found to be so 20 times faster than counted.
        box = _union([_foreground(reference), _foreground(prediction)]) or ...
        reference, prediction = reference[box], prediction[box]
        ref, pred = class_indices(reference, values), class_indices(prediction, values)
        if ignore_value is not None:
            ignored = reference == ignore_value
            ref[ignored] = pred[ignored] = 0
        found = (
            ndimage.find_objects(a, max_label=len(values)) if values else () for a in (ref, pred)
        )
        boxes = tuple(_union(pair) for pair in zip(*found, strict=True))
        table = confusion(ref, pred, len(values) + 1)
        table[0, 0] += voxels - reference.size
        return cls(ref, pred, tuple(values), table, boxes)

    def counts(self, values: Collection[int]) -> tuple[int, int, int]:
        """Count the voxels of some classes together: reference, prediction, both."""
        member = self._member(values)
        rows = self.confusion[member]
        both = rows[:, member]
        return int(rows.sum()), int(self.confusion[:, member].sum()), int(both.sum())

    def masks(self, values: Collection[int]) -> tuple[Mask, Mask]:
        """Cut out some classes together: reference and prediction in the box around both."""
        member = self._member(values)
        there = zip(self.boxes, member[1:], strict=True)
        box = _union([box for box, inside in there if inside]) or (slice(0),) * self.reference.ndim
        ref, pred = (_in(side[box], member) for side in (self.reference, self.prediction))
        return ref, pred

    def _member(self, values: Collection[int]) -> NDArray[np.bool_]:
        return np.array([False, *(value in values for value in self.values)])


def class_indices(labels: NDArray[Any], values: Sequence[int]) -> NDArray[Any]:
    """Return 1 + the position in `values` of each voxel's value, 0 for all others."""
    smallest, largest = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if smallest < 0 or largest >= _LARGEST_TABLE:
        indices = np.zeros_like(labels, np.min_scalar_type(len(values)))
        for index, value in enumerate(values, start=1):
            indices[labels == value] = index
        return indices
    table = np.zeros(largest + 1, np.min_scalar_type(len(values)))
    for index, value in enumerate(values, start=1):
        if 0 <= value <= largest:
            table[value] = index
    return np.asarray(table[labels])


def label_values(labels: NDArray[Any]) -> set[int]:
    """Return the values that occur."""
    smallest, largest = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if smallest < 0 or largest >= _LARGEST_TABLE:
        return {int(value) for value in np.unique(labels)}
    counts = np.zeros(largest + 1, np.int64)
    for (part,) in _slabs(labels):
        counts += np.bincount(part.astype(np.intp), minlength=largest + 1)
    return {int(value) for value in np.flatnonzero(counts)}


def confusion(reference: NDArray[Any], prediction: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Count voxels by class index of the reference (rows) and of the prediction (columns)."""
    table = np.zeros(classes**2, np.int64)
    for ref, pred in _slabs(reference, prediction):
        table += np.bincount(ref.astype(np.intp) * classes + pred, minlength=classes**2)
    return table.reshape(classes, classes)


def _slabs(*arrays: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """Yield the voxels of arrays of one shape part by part, in the memory order of the first."""
    if arrays[0].flags.f_contiguous:
        arrays = tuple(array.T for array in arrays)
    layer = max(1, _SLAB // max(1, arrays[0][:1].size))
    for start in range(0, len(arrays[0]), layer):
        yield tuple(array[start : start + layer].ravel() for array in arrays)


def _foreground(labels: NDArray[Any]) -> Box | None:
    """Return the smallest box around all values but 0, None if there is no other."""
    there, box = labels != 0, [slice(None)] * labels.ndim
    for axis in range(labels.ndim):
        others = tuple(other for other in range(labels.ndim) if other != axis)
        along = np.flatnonzero(there[tuple(box)].any(axis=others))
        if not len(along):
            return None
        box[axis] = slice(int(along[0]), int(along[-1]) + 1)
    return tuple(box)


def _union(boxes: Sequence[Box | None]) -> Box | None:
    """Return the smallest box around boxes, None if there is none."""
    there = [box for box in boxes if box is not None]
    if not there:
        return None
    sides = zip(*there, strict=True)
    return tuple(slice(min(s.start for s in x), max(s.stop for s in x)) for x in sides)


def _in(indices: NDArray[Any], member: NDArray[np.bool_]) -> Mask:
    """Return where the indices are members, in C order."""
    single = np.flatnonzero(member)
    mask = indices == single[0] if len(single) == 1 else member[indices]
    return np.ascontiguousarray(mask)
