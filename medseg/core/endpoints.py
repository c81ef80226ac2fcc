"""What is compared: variants with their seeds, and one number per case of each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medseg.core.metrics import METRICS
from medseg.core.runs import Score
from medseg.core.statistics import NAN

PRIMARY = "dice"

DIFFERENCE = 0.005
"""The mean difference of Dice worth seeing, unless another is named."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Variant:
    """One thing that is compared.

    Attributes:
        name: Unique within the comparison.
        seeds: The scores of each of its trainings.
    """

    name: str
    seeds: tuple[Sequence[Score], ...]

    @cached_property
    def _values(self) -> list[Mapping[tuple[str, str, str], float]]:
        return [{(s.case_id, s.class_name, s.metric): s.value for s in seed} for seed in self.seeds]

    def values(self, cases: Sequence[str], class_name: str, metric: str) -> Array:
        """Return one score of each case, NaN where there is none, shape (seeds, cases)."""
        rows = [[seed.get((c, class_name, metric), NAN) for c in cases] for seed in self._values]
        return np.array(rows, dtype=np.float64).reshape(len(self.seeds), len(cases))


@dataclass(frozen=True)
class Endpoint:
    """One number per case.

    Attributes:
        metric: Name in score files.
        class_name: A class, or "" for the mean over the foreground classes of the case.
    """

    metric: str
    class_name: str = ""

    @property
    def label(self) -> str:
        """Name for people."""
        return f"{METRICS[self.metric].label}, {self.class_name or 'mean of classes'}"

    @property
    def sign(self) -> int:
        """1 if higher is better, -1 if lower is."""
        return 1 if METRICS[self.metric].better == "higher" else -1

    @property
    def limits(self) -> tuple[float, float]:
        """Between which values it lies."""
        return METRICS[self.metric].limits

    @property
    def difference_limits(self) -> tuple[float, float]:
        """Between which values a difference of two lies."""
        lowest, highest = self.limits
        return lowest - highest, highest - lowest


PRIMARY_ENDPOINT = Endpoint(PRIMARY)


@dataclass(frozen=True)
class Design:
    """What is compared, on what.

    Attributes:
        variants: Two or more.
        units: The independent unit (a patient, or the case itself) of each case.
        class_names: Foreground classes; the endpoint of a case is the mean over them.
        regions: Unions of classes, described beside them.
        metrics: Names of metrics with a better direction.
        difference: The mean difference of Dice worth seeing.
    """

    variants: tuple[Variant, ...]
    units: Mapping[str, str]
    class_names: tuple[str, ...]
    metrics: tuple[str, ...] = (PRIMARY,)
    difference: float = DIFFERENCE
    regions: tuple[str, ...] = ()

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Places of the first and the second variant of each pair."""
        return list(itertools.combinations(range(len(self.variants)), 2))

    @cached_property
    def unit_names(self) -> tuple[str, ...]:
        """Every unit once, in order."""
        return tuple(dict.fromkeys(self.units.values()))

    @cached_property
    def _unit_places(self) -> NDArray[np.int64]:
        places = {name: place for place, name in enumerate(self.unit_names)}
        return np.array([places[unit] for unit in self.units.values()], dtype=np.int64)

    @property
    def families(self) -> list[list[Endpoint]]:
        """The descriptive endpoints, those of one metric together."""
        found = []
        for metric in dict.fromkeys((PRIMARY, *self.metrics)):
            classes = [Endpoint(metric, name) for name in (*self.class_names, *self.regions)]
            if metric == PRIMARY:
                found.append(classes if len(classes) > 1 else [])
            else:
                found.append([Endpoint(metric), *classes] if len(classes) > 1 else classes)
        return [family for family in found if family]

    def values(self, variant: Variant, endpoint: Endpoint) -> Array:
        """Return the endpoint of each case, shape (seeds, cases).

        NaN is left out of the mean over classes. Where a seed has NaN and others have not, it gets
        their mean, so that every seed has the same cases.
        """
        cases, metric = list(self.units), endpoint.metric
        names = [endpoint.class_name] if endpoint.class_name else self.class_names
        table = np.stack([variant.values(cases, name, metric) for name in names])
        value = mean_known(table)
        return np.where(np.isnan(value), mean_known(value), value)

    def by_unit(self, values: Array, known: NDArray[np.bool_]) -> Array:
        """Return the mean over the known cases of each unit that has some.

        Args:
            values: Shape (seeds, cases).
            known: Which cases to take; they hold no NaN.
        """
        places = self._unit_places[known]
        counts = np.bincount(places, minlength=len(self.unit_names))
        sums = [np.bincount(places, row, len(counts)) for row in values[:, known]]
        return np.stack(sums)[:, counts > 0] / counts[counts > 0]


def mean_known(table: Array) -> Array:
    """Return the mean along the first axis, NaN left out; NaN where there is nothing else."""
    known = ~np.isnan(table)
    counts = known.sum(axis=0)
    sums = np.where(known, table, 0.0).sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), NAN)
