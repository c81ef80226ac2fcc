"""Which post-processing helps each class, from predictions of cases with a reference.

A class is left alone, or keeps only its largest component, or loses components below a volume.
Every candidate is judged by its Dice over the cases, counted from tables of components, so that
each case is labelled once and only its tables stay in memory.

Mean Dice is that of every score file: a case where the class is in neither map is left out. An
invented structure counts 0 while it is there; once it is taken out altogether the case is left
out, and the mean of the others stands. What a rule wins this way is real, but must not be paid for
by the cases that have the class. So a rule is taken only if

- at least 3 cases have the class in prediction or reference;
- the mean Dice rises by more than 0.001, the last digit that tables show;
- it rises also without the one case that gains most: what one case says may be chance;
- it does not fall over the cases whose reference has the class;
- no case loses the class: where prediction and reference met before, they meet after.

The largest component is a candidate only if the references speak for it: in each of them the class
is one piece, crumbs of up to 5 % aside. A class of several lesions is so never cut down to one,
even if no case at hand shows the harm. Minimum volumes are at most half of what nine out of ten
components of the references have. Of candidates that differ by less than 0.001 the largest
component is preferred, which can never empty a class, and then the smaller volume.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.postprocessing import Postprocessing, Rule, class_boxes, pieces_of

MARGIN = 0.001
"""Smallest gain in mean Dice: the last digit of our tables."""

LEAST_CASES = 3
"""Without its best case a gain must still be a mean, not one case."""

MAIN_SHARE = 0.95
"""Of a reference's volume in its largest piece, for the class to be one structure."""

LADDER_QUANTILE = 0.1
"""Of the reference components' volumes; a few crumbs of the annotation do not move it."""

LADDER_STEPS = 10
"""Halvings of that volume: down to a thousandth of a true component."""

_ROUNDING = 1e-9  # of a mean: less is no gain and no loss

Case = tuple[NDArray[Any], NDArray[Any], float]
"""Prediction and reference (integers, one shape), and the volume of a voxel in ml."""


@dataclass(frozen=True)
class Evidence:
    """What post-processing did for one class.

    Attributes:
        class_name: The class.
        cases: Cases that have it in prediction or reference.
        dice_before: Mean Dice as predicted; NaN if there is no such case.
        dice_after: Mean Dice with the rule; as before if there is none.
        helped: Cases whose Dice rose, or whose invented structure is gone.
        harmed: Cases whose Dice fell.
    """

    class_name: str
    cases: int
    dice_before: float
    dice_after: float
    helped: int
    harmed: int


@dataclass(frozen=True)
class Learned:
    """What was learned.

    Attributes:
        rules: Of the classes that gain from one.
        evidence: Of every class.
    """

    rules: Postprocessing
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, eq=False)
class _Pieces:
    """The components of one class in one case: all that a candidate's Dice depends on.

    Attributes:
        sizes_ml: Volume of each predicted component.
        voxels: Its voxels, ignored ones left out.
        overlap: Those of them that the reference has too.
        n_ref: Voxels of the reference.
        reference_ml: Volume of each component of the reference.
    """

    sizes_ml: NDArray[Any]
    voxels: NDArray[np.int64]
    overlap: NDArray[np.int64]
    n_ref: int
    reference_ml: NDArray[Any]

    def dice(self, keep: NDArray[np.bool_]) -> float:
        """Return Dice if only some components are kept; NaN if nothing is on either side."""
        total = int(self.voxels[keep].sum()) + self.n_ref
        return 2 * int(self.overlap[keep].sum()) / total if total else float("nan")


def learn(
    cases: Iterable[Case], class_values: Mapping[str, int], ignore_value: int | None = None
) -> Learned:
    """Find the rule of each class that helps; the module's text says when one does.

    Args:
        cases: Taken one at a time.
        class_values: Value of each foreground class in both maps.
        ignore_value: Reference voxels of this value count on neither side.
    """
    tables: dict[str, list[_Pieces]] = {name: [] for name in class_values}
    for prediction, reference, voxel_ml in cases:
        found = _tables(prediction, reference, voxel_ml, class_values, ignore_value)
        for name, pieces in found.items():
            tables[name].append(pieces)
    judged = [_judge(name, pieces) for name, pieces in tables.items()]
    rules = tuple(rule for rule, _ in judged if rule is not None)
    return Learned(rules, tuple(evidence for _, evidence in judged))


def _tables(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    voxel_ml: float,
    class_values: Mapping[str, int],
    ignore_value: int | None,
) -> dict[str, _Pieces]:
    """Return the components of every class; each is worked on in its own box."""
    values, nowhere = list(class_values.values()), (slice(0),) * 3
    of_prediction, of_reference = (class_boxes(m, values) for m in (prediction, reference))
    tables = {}
    for name, value in class_values.items():
        box = of_prediction.get(value, nowhere)
        numbers, sizes = pieces_of(prediction[box] == value)
        there, count = reference[box], len(sizes)
        ignored = np.bincount(numbers[there == ignore_value], minlength=count)
        overlap = np.bincount(numbers[there == value], minlength=count)[1:]
        _, true = pieces_of(reference[of_reference.get(value, nowhere)] == value)
        tables[name] = _Pieces(
            sizes[1:] * voxel_ml,
            (sizes - ignored)[1:],
            overlap,
            int(true.sum()),
            true[1:] * voxel_ml,
        )
    return tables


def _judge(name: str, cases: Sequence[_Pieces]) -> tuple[Rule | None, Evidence]:
    """Return the rule of a class, if one helps, and what it does."""
    before = _dice(cases, Rule(name))
    chosen, after = None, before
    for rule in _candidates(name, cases):
        dice = _dice(cases, rule)
        if _mean(dice) > _mean(after) + MARGIN and _holds(cases, before, dice):
            chosen, after = rule, dice
    defined = ~np.isnan(before)
    evidence = Evidence(
        class_name=name,
        cases=int(defined.sum()),
        dice_before=_mean(before),
        dice_after=_mean(after),
        helped=int(np.sum((after > before) | (defined & np.isnan(after)))),
        harmed=int(np.sum(after < before)),
    )
    return chosen, evidence


def _candidates(name: str, cases: Sequence[_Pieces]) -> list[Rule]:
    """Return what may be tried, the preferred first; nothing if no reference has the class."""
    references = [case.reference_ml for case in cases if case.n_ref]
    if not references:
        return []
    single = all(sizes.max() >= MAIN_SHARE * sizes.sum() for sizes in references)
    typical = float(np.quantile(np.concatenate(references), LADDER_QUANTILE))
    ladder = [typical / 2**step for step in range(LADDER_STEPS, 0, -1)]
    largest = [Rule(name, largest_component=True)] if single else []
    return [*largest, *(Rule(name, minimum_ml=volume) for volume in ladder)]


def _holds(
    cases: Sequence[_Pieces], before: NDArray[np.float64], after: NDArray[np.float64]
) -> bool:
    """Return whether a gain does no harm, and is more than the luck of one case."""
    present = np.array([case.n_ref > 0 for case in cases])
    lost = present & (before > 0) & (after == 0)
    steady = bool(np.all(_means_without_each(after) > _means_without_each(before) + _ROUNDING))
    fair = float(np.mean((after - before)[present])) >= -_ROUNDING
    return int(np.sum(~np.isnan(before))) >= LEAST_CASES and steady and fair and not lost.any()


def _dice(cases: Sequence[_Pieces], rule: Rule) -> NDArray[np.float64]:
    return np.array([case.dice(rule.keeps(case.sizes_ml)) for case in cases], np.float64)


def _mean(values: NDArray[np.float64]) -> float:
    """Return the mean over all but NaN; NaN if there is nothing else."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _means_without_each(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over all but NaN, each case left out in turn; NaN if nothing is left."""
    known = ~np.isnan(values)
    left = np.maximum(known.sum() - known, 0).astype(np.float64)
    left[left == 0] = np.nan
    return np.asarray((np.nansum(values) - np.where(known, values, 0.0)) / left)
