"""Rules that take connected pieces out of a label map, class by class.

Pieces are connected by 26 neighbours, as lesions are in `medseg.core.lesions` unless asked
otherwise. What a rule takes out becomes background and never another class, so that the rules of
different classes do not depend on each other's order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_NEIGHBOURS_26 = np.ones((3, 3, 3), bool)
_WHOLE = 1e-9  # rounding of a size in ml that is meant as a number of voxels

_LARGEST_TABLE = 1 << 16  # a box is kept for every value up to the largest: only for such values

_LAYER = 1 << 20
"""Voxels counted and taken out at once: NumPy indexes with 8 bytes for each."""

_BYTES_A_VOXEL = 8
"""1 of the mask and 4 of the pieces' numbers; the rest for tables, if all voxels are noise."""

_BYTES_ALWAYS = 32 * _LAYER


@dataclass(frozen=True)
class Rule:
    """What is taken out of one class.

    Attributes:
        class_name: The class.
        largest_component: Only the largest piece stays; of equally large ones the first.
        minimum_ml: Pieces below this volume go, ml; so it holds on any grid.
    """

    class_name: str
    largest_component: bool = False
    minimum_ml: float = 0.0

    def keeps(self, sizes_ml: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which pieces stay, from the volumes of all pieces of the class in a case."""
        keep = np.asarray(sizes_ml >= self.minimum_ml * (1 - _WHOLE))
        if self.largest_component and len(keep):
            keep &= np.arange(len(keep)) == np.argmax(sizes_ml)
        return keep

    def __str__(self) -> str:
        """Say it in words."""
        parts = ["only the largest component"] if self.largest_component else []
        parts += [f"no component below {self.minimum_ml:.3g} ml"] if self.minimum_ml else []
        return f"{self.class_name}: {', '.join(parts) or 'as it is'}"


Postprocessing = tuple[Rule, ...]
"""The rules of a trained network; empty if none helps, or none was learned."""


def to_primitives(rules: Postprocessing) -> list[dict[str, Any]]:
    """Return rules as a checkpoint or JSON keeps them."""
    return [asdict(rule) for rule in rules]


def from_primitives(content: Iterable[Mapping[str, Any]]) -> Postprocessing:
    """Read what `to_primitives` gave."""
    return tuple(Rule(**rule) for rule in content)


def apply(
    label: NDArray[Any],
    rules: Iterable[Rule],
    class_values: Mapping[str, int],
    voxel_volume_ml: float,
) -> NDArray[Any]:
    """Take out what the rules say, in place; each class costs memory in its own box only.

    Args:
        label: Integer labels, shape (I, J, K); changed.
        rules: What goes.
        class_values: Value of each class in `label`.
        voxel_volume_ml: Volume of one voxel.

    Returns:
        `label` itself.
    """
    wanted = [(rule, class_values[rule.class_name]) for rule in rules]
    boxes = class_boxes(label, [value for _, value in wanted])
    for rule, value in wanted:
        if value in boxes:
            _take_out(label[boxes[value]], value, rule, voxel_volume_ml)
    return label


def bytes_needed(shape: Sequence[int]) -> int:
    """Return the most memory that `apply` takes beside the label map, whatever the map holds."""
    return math.prod(shape) * _BYTES_A_VOXEL + _BYTES_ALWAYS


def class_boxes(label: NDArray[Any], values: Sequence[int]) -> dict[int, tuple[slice, ...]]:
    """Return a box around each of some values, found in one pass; none where a value is not."""
    small = [value for value in values if value < _LARGEST_TABLE]
    found = ndimage.find_objects(label, max_label=max(small)) if small else []
    boxes = {value: found[value - 1] for value in small}
    whole = (slice(None),) * label.ndim
    return {v: b for v in values if (b := boxes.get(v, whole)) is not None}


def pieces_of(mask: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the number of each voxel's piece from 1 on, 0 for none; and voxels by number."""
    numbers, count = ndimage.label(mask, _NEIGHBOURS_26)
    sizes = np.zeros(count + 1, np.int64)
    for layer in _layers(numbers.shape):
        part = np.bincount(numbers[layer].ravel())
        sizes[: len(part)] += part
    sizes[0] = 0
    return numbers, sizes


def _take_out(label: NDArray[Any], value: int, rule: Rule, voxel_volume_ml: float) -> None:
    numbers, sizes = pieces_of(label == value)
    goes = np.zeros(len(sizes), bool)
    goes[1:] = ~rule.keeps(sizes[1:] * voxel_volume_ml)
    if not goes.any():
        return
    for layer in _layers(label.shape):
        label[layer][goes[numbers[layer]]] = 0


def _layers(shape: Sequence[int]) -> Iterator[slice]:
    """Cut the first axis into parts of at most `_LAYER` voxels, or of one plane."""
    thick = max(1, _LAYER // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], thick):
        yield slice(start, start + thick)
