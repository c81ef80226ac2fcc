"""The best of several norms against each other one: intervals, corrected tests, candidates.

A table is the score of each reporting unit by each seed, shape (seeds, units), higher is better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from medseg.core.endpoints import Array
from medseg.core.paired import (
    ALPHA,
    SignedRank,
    difference_interval,
    difference_of,
    holm,
    signed_rank,
    two_level_interval,
)
from medseg.core.statistics import NAN, Interval


@dataclass(frozen=True)
class Table:
    """The scores of one norm.

    Attributes:
        norm: Its name.
        seeds: Of its trainings, ascending.
        values: Shape (seeds, units), finite; all norms have the same units.
    """

    norm: str
    seeds: tuple[int, ...]
    values: Array


@dataclass(frozen=True)
class Contrast:
    """The best norm against another; every difference is best minus other.

    Attributes:
        norm: The other.
        difference: Mean over units and seeds.
        ci_low: Lower end of its 95 % interval over units and seeds.
        ci_high: Upper end.
        ci_method: How it was computed.
        sd: Over units, of the differences between means over seeds.
        p: Wilcoxon's signed-rank test over the units.
        p_holm: Corrected for the number of others.
        rank_biserial: Above 0 favours the best.
        wins: Units in which the best is better.
        ties: Units without a difference.
        losses: Units in which the other is better.
        equivalent: Whether the interval's upper end is below the difference worth seeing.
        candidate: Whether the other may still be as good.
    """

    norm: str
    difference: float
    ci_low: float
    ci_high: float
    ci_method: str
    sd: float
    p: float
    p_holm: float
    rank_biserial: float
    wins: int
    ties: int
    losses: int
    equivalent: bool
    candidate: bool


def without_seed(table: Table, seed: int) -> Table:
    """Return a table without one seed."""
    kept = [place for place, name in enumerate(table.seeds) if name != seed]
    return Table(table.norm, tuple(table.seeds[place] for place in kept), table.values[kept])


def contrasts_of(
    tables: Sequence[Table], replicates: Array, difference: float, largest: float = math.inf
) -> tuple[Contrast, ...]:
    """Contrast the first table with each other one.

    Args:
        tables: The best first.
        replicates: Mean of each in each resample, shape (resamples, tables).
        difference: The mean difference worth seeing.
        largest: Difference that there can be.
    """
    best, others = tables[0], tables[1:]
    differences = [
        difference_of(other.values.mean(axis=0), best.values.mean(axis=0)) for other in others
    ]
    tests = [signed_rank(values) for values in differences]
    corrected = holm([test.p for test in tests])
    intervals = [
        _interval(other.values, best.values, replicates[:, 0] - replicates[:, place]).within(
            -largest, largest
        )
        for place, other in enumerate(others, start=1)
    ]
    rows = zip(others, differences, tests, corrected, intervals, strict=True)
    return tuple(
        _contrast(table.norm, values, test, p, interval, difference)
        for table, values, test, p, interval in rows
    )


def _interval(other: Array, best: Array, replicates: Array) -> Interval:
    if other.shape[1] < 2 or len(other) == len(best) == 1:
        return difference_interval(other, best)
    return two_level_interval(other, best, replicates)


def _contrast(
    norm: str,
    values: Array,
    test: SignedRank,
    p_holm: float,
    interval: Interval,
    difference: float,
) -> Contrast:
    worse = p_holm <= ALPHA and test.effect > 0
    wins, losses = int((values > 0).sum()), int((values < 0).sum())
    equivalent = interval.high < difference
    return Contrast(
        norm=norm,
        difference=float(values.mean()),
        ci_low=interval.low,
        ci_high=interval.high,
        ci_method=interval.method,
        sd=float(values.std(ddof=1)) if len(values) > 1 else NAN,
        p=test.p,
        p_holm=p_holm,
        rank_biserial=test.effect,
        wins=wins,
        ties=len(values) - wins - losses,
        losses=losses,
        equivalent=equivalent,
        candidate=not worse or equivalent,
    )
