"""Score tables of norms from their outcomes: the same cases for all, one row for each seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.core.endpoints import Array, mean_known
from medseg.core.metrics import METRICS
from medseg.study.contrasts import Table
from medseg.study.measurements import CaseScores
from medseg.study.outcomes import Outcome, Study

Runs = Mapping[str, Sequence[Outcome]]
"""The outcomes of each norm that are compared, one a seed."""


@dataclass(frozen=True)
class Measure:
    """One number per case.

    Attributes:
        name: For people.
        read: Takes it from the scores, None where it was not measured.
        sign: 1 if higher is better, -1 if lower is.
        limits: Between which values it lies.
    """

    name: str
    read: Callable[[CaseScores], Sequence[float] | None]
    sign: int = 1
    limits: tuple[float, float] = METRICS["dice"].limits


DICE = Measure("Dice", lambda scores: scores.dice)
HD95 = Measure("HD95", lambda scores: scores.hd95_mm, -1, METRICS["hd95_mm"].limits)
NSD = Measure("NSD", lambda scores: scores.nsd)


def class_measure(name: str) -> Measure:
    """Return the Dice of one class."""
    return Measure(f"Dice of {name}", lambda scores: (scores.class_dice or {}).get(name))


def worst_class(runs: Runs) -> str | None:
    """Return the class with the lowest mean Dice over all norms; None with fewer than two."""
    scores = [o.scores for group in runs.values() for o in group]
    found = [s.class_dice or {} for s in scores if s is not None]
    names = sorted(set.intersection(*(set(classes) for classes in found))) if found else []
    if len(names) < 2:
        return None
    return min(names, key=lambda name: float(np.nanmean([classes[name] for classes in found])))


def tables(study: Study, runs: Runs, measure: Measure) -> list[Table] | None:
    """Return the table of each norm, higher being better; None if one was not measured.

    A case that one seed leaves undefined (NaN) takes the mean of the norm's other seeds; one that
    a whole norm leaves undefined leaves all tables. Units come by name, each the mean of its
    cases. An infinite distance counts as the largest finite one of any norm.
    """
    found = {norm: _stacked(group, measure) for norm, group in runs.items()}
    values = {norm: table for norm, table in found.items() if table is not None}
    if not values or len(values) < len(found):
        return None
    known = ~np.isnan(np.stack([table[0] for table in values.values()])).any(axis=0)
    limit = max(
        float(np.abs(table[np.isfinite(table)]).max(initial=0)) for table in values.values()
    )
    units = np.array(study.units or study.cases)[known]
    return [
        Table(
            norm=norm,
            seeds=tuple(sorted(outcome.seed for outcome in runs[norm])),
            values=_by_unit(measure.sign * np.clip(table[:, known], -limit, limit), units),
        )
        for norm, table in sorted(values.items())
        if known.any()
    ] or None


def _stacked(group: Sequence[Outcome], measure: Measure) -> Array | None:
    ordered = sorted(group, key=lambda outcome: outcome.seed)
    rows = [None if o.scores is None else measure.read(o.scores) for o in ordered]
    if not rows or any(row is None for row in rows):
        return None
    table = np.array(rows, dtype=np.float64)
    return np.where(np.isnan(table), mean_known(table), table)


def _by_unit(table: Array, units: Array) -> Array:
    """Return the mean over the cases of each unit, units by name."""
    names, places = np.unique(units, return_inverse=True)
    order = np.argsort(places, kind="stable")
    sums = np.stack([np.bincount(places[order], row[order], len(names)) for row in table])
    return np.asarray(sums / np.bincount(places))
