"""How many cases and seeds would show a difference: more cases do not tell seeds apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from medseg.core.endpoints import Array
from medseg.core.paired import ALPHA, POWER, cases_needed
from medseg.study.contrasts import Table

BALANCE = 2
"""Of more seeds so many are told that cases need be no more than so often what they would be if
seeds did not scatter; a convention."""


LARGEST = 30.0
"""Standard errors beyond the limit, where the power is 1, and SciPy's tail loses its digits."""


@dataclass(frozen=True)
class Needed:
    """What would show a difference with a chance of `POWER`, both by test and by interval.

    Attributes:
        cases: Independent units.
        seeds: Of each norm.
        seeds_at_hand: Of the norm with fewer; below `seeds` where no number of cases is enough.
    """

    cases: int
    seeds: int
    seeds_at_hand: int

    @property
    def lacks_seeds(self) -> bool:
        """Whether no number of cases is enough with the seeds at hand."""
        return self.seeds > self.seeds_at_hand


@dataclass(frozen=True)
class Spread:
    """How far the numbers behind the mean difference of two norms scatter: components of variance.

    Attributes:
        cases: SD over cases of the difference between the norms, whatever the seeds.
        seeds: SD over seeds of the mean of each norm, whatever the cases.
        rest: SD of what a seed does to single cases of each norm: more of either even it out.
    """

    cases: float
    seeds: tuple[float, float]
    rest: tuple[float, float] = (0.0, 0.0)

    def over_cases(self, seeds: Sequence[int]) -> float:
        """Return the SD over cases of the differences between means over so many seeds."""
        left = math.fsum(r**2 / n for r, n in zip(self.rest, seeds, strict=True))
        return math.sqrt(self.cases**2 + left)

    def power(self, difference: float, cases: float, seeds: Sequence[int]) -> float:
        """Return the chance that the interval over cases and seeds leaves out 0 on the right side.

        Student's noncentral t at Satterthwaite's degrees of freedom, as that interval has them. It
        sees the rest twice, over cases and over seeds, and is that much too wide.

        Args:
            difference: The true one.
            cases: How many; infinite for the limit.
            seeds: Of each norm, two or more.
        """
        left = [r**2 / (n * cases) for r, n in zip(self.rest, seeds, strict=True)]
        means = [s**2 / n for s, n in zip(self.seeds, seeds, strict=True)]
        parts = [
            self.over_cases(seeds) ** 2 / cases,
            *map(math.fsum, zip(means, left, strict=True)),
        ]
        freedom = [cases - 1, *(n - 1 for n in seeds)]
        seen = math.fsum(parts)
        if seen == 0:
            return 1.0
        unsure = math.fsum(part**2 / of for part, of in zip(parts, freedom, strict=True))
        degrees, true = seen**2 / unsure, seen - math.fsum(left)
        limit = stats.t.ppf(1 - ALPHA / 2, degrees) * math.sqrt(seen / true)
        shift = difference / math.sqrt(true)
        return 1.0 if shift > limit + LARGEST else float(stats.nct.sf(limit, degrees, shift))


def spread_of(first: Table, second: Table) -> Spread | None:
    """Return the spread of two norms; None with one seed or one case, which show none."""
    values = (first.values, second.values)
    count = values[0].shape[1]
    if min(*map(len, values), count) < 2:
        return None
    left = [_left(table) for table in values]
    over_seeds = [np.var(table.mean(axis=1), ddof=1) for table in values]
    over_cases = np.var(values[0].mean(axis=0) - values[1].mean(axis=0), ddof=1)
    cases = over_cases - sum(var / len(table) for var, table in zip(left, values, strict=True))
    seeds = [_sd(var - rest / count) for var, rest in zip(over_seeds, left, strict=True)]
    return Spread(_sd(cases), (seeds[0], seeds[1]), (_sd(left[0]), _sd(left[1])))


def _left(table: Array) -> float:
    """Return the variance that neither the means of cases nor those of seeds explain."""
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    return float((rest**2).sum() / ((len(table) - 1) * (table.shape[1] - 1)))


def _sd(variance: float) -> float:
    """Return the SD of an estimated variance, which may fall below 0 where there is none."""
    return math.sqrt(max(float(variance), 0.0))


def needed(spread: Spread, difference: float, seeds: Sequence[int], comparisons: int = 1) -> Needed:
    """Return how many cases would show a difference, and how many seeds if these are too few.

    Args:
        spread: Of the two norms.
        difference: The true difference, above 0.
        seeds: At hand, of each norm.
        comparisons: Of the best norm with others: the test over cases is corrected for them.
    """

    def cases(spread: Spread, trained: Sequence[int]) -> float:
        if spread.power(difference, math.inf, trained) < POWER:
            return math.inf
        by_test = cases_needed(difference, spread.over_cases(trained), comparisons)
        return _fewest(by_test, lambda n: spread.power(difference, n, trained) >= POWER)

    at_hand = min(seeds)
    if math.isfinite(found := cases(spread, seeds)):
        return Needed(int(found), at_hand, at_hand)
    most = BALANCE * cases(replace(spread, seeds=(0.0, 0.0)), seeds)
    more = _fewest(at_hand + 1, lambda n: cases(spread, (n, n)) <= most)
    return Needed(int(cases(spread, (more, more))), more, at_hand)


def _fewest(low: int, enough: Callable[[int], bool]) -> int:
    """Return the smallest number from `low` on that is enough; all larger ones are."""
    if enough(low):
        return low
    high = 2 * low
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
