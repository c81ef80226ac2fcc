"""Two variants on one endpoint: the figures, their corrected tests, and what they could show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from medseg.core.endpoints import PRIMARY, Array, Design, Endpoint
from medseg.core.paired import (
    cases_needed,
    detectable_difference,
    difference_interval,
    difference_of,
    holm,
    signed_rank,
)
from medseg.core.statistics import NAN, wilson_interval

Outcome = Literal["better", "worse", "unclear", "too few", "descriptive"]


@dataclass(frozen=True)
class Pair:
    """Two variants on one endpoint; every difference is second minus first.

    Attributes:
        first: Name of a variant.
        second: Name of another.
        metric: Name in score files.
        class_name: A class, or "" for the mean over the foreground classes of each case.
        n: Independent units compared (patients, or cases).
        n_cases: Cases within them.
        n_undefined: Cases left out, undefined (NaN) in both.
        n_one_sided: Cases left out, undefined in one of the two only.
        infinite_first: Units with an infinite value in the first variant.
        infinite_second: Likewise in the second.
        n_finite: Units with neither; only these enter means, intervals and power.
        mean_first: Mean of the first variant.
        mean_second: Mean of the second.
        difference: Mean difference.
        ci_low: Lower end of its 95 % interval.
        ci_high: Upper end.
        ci_method: How the interval was computed.
        median_difference: Over all units, infinities in order.
        sd: Standard deviation of the differences.
        standardized: Mean difference divided by `sd`.
        p: Wilcoxon's signed-rank test over all units, infinities in order.
        p_method: How it was computed.
        rank_biserial: Of matched pairs; above 0 favours the second variant.
        wins: Units in which the second variant is better.
        ties: Units without a difference.
        losses: Units in which the first variant is better.
        p_better: Share of units in which the second variant is better, ties counted half.
        p_better_low: Lower end of its 95 % interval.
        p_better_high: Upper end.
        comparisons: Size of the family.
        p_holm: p, corrected within the family.
        detectable: Smallest mean difference that this many units show with 80 % power.
        needed: Units that show the difference worth seeing with 80 % power; Dice only.
        outcome: What may be said of the second variant.
        verdict: The same in words.
    """

    first: str
    second: str
    metric: str
    class_name: str
    n: int
    n_cases: int
    n_undefined: int
    n_one_sided: int
    infinite_first: int
    infinite_second: int
    n_finite: int
    mean_first: float
    mean_second: float
    difference: float
    ci_low: float
    ci_high: float
    ci_method: str
    median_difference: float
    sd: float
    standardized: float
    p: float
    p_method: str
    rank_biserial: float
    wins: int
    ties: int
    losses: int
    p_better: float
    p_better_low: float
    p_better_high: float
    comparisons: int = 1
    p_holm: float = NAN
    detectable: float = NAN
    needed: int | None = None
    outcome: Outcome = "descriptive"
    verdict: str = ""

    @property
    def endpoint(self) -> Endpoint:
        """The number per case that is compared."""
        return Endpoint(self.metric, self.class_name)


@dataclass(frozen=True)
class Sample:
    """The values of two variants in the units where both are defined.

    Attributes:
        first: Shape (seeds, units).
        second: The same units.
        n_cases: Cases within the units.
        n_undefined: Cases left out, undefined in both.
        n_one_sided: Cases left out, undefined in one only.
    """

    first: Array
    second: Array
    n_cases: int
    n_undefined: int
    n_one_sided: int

    @property
    def means(self) -> tuple[Array, Array]:
        """Both variants, mean over seeds."""
        return self.first.mean(axis=0), self.second.mean(axis=0)


def sample_pair(design: Design, places: tuple[int, int], endpoint: Endpoint) -> Sample:
    """Return the values of two variants, given by their places."""
    first, second = (design.values(design.variants[place], endpoint) for place in places)
    absent = np.isnan(np.stack([first.mean(axis=0), second.mean(axis=0)]))
    known = ~absent.any(axis=0)
    return Sample(
        first=design.by_unit(first, known),
        second=design.by_unit(second, known),
        n_cases=int(known.sum()),
        n_undefined=int(absent.all(axis=0).sum()),
        n_one_sided=int((absent[0] != absent[1]).sum()),
    )


def compare_pair(design: Design, places: tuple[int, int], endpoint: Endpoint) -> Pair:
    """Return the figures of a pair; correction, power and verdict are still to come."""
    names = [design.variants[place].name for place in places]
    sample = sample_pair(design, places, endpoint)
    first, second = sample.means
    differences = difference_of(first, second)
    finite = np.isfinite(first) & np.isfinite(second)
    interval = difference_interval(sample.first[:, finite], sample.second[:, finite])
    interval = interval.within(*endpoint.difference_limits)
    test = signed_rank(differences * endpoint.sign)
    n, mean, sd = len(differences), _mean(differences[finite]), _sd(differences[finite])
    wins, losses = (int((differences * endpoint.sign * way > 0).sum()) for way in (1, -1))
    better = wilson_interval(wins + (n - wins - losses) / 2, n)
    return Pair(
        first=names[0],
        second=names[1],
        metric=endpoint.metric,
        class_name=endpoint.class_name,
        n=n,
        n_cases=sample.n_cases,
        n_undefined=sample.n_undefined,
        n_one_sided=sample.n_one_sided,
        infinite_first=int(np.isinf(first).sum()),
        infinite_second=int(np.isinf(second).sum()),
        n_finite=int(finite.sum()),
        mean_first=_mean(first[finite]),
        mean_second=_mean(second[finite]),
        difference=mean,
        ci_low=interval.low,
        ci_high=interval.high,
        ci_method=interval.method,
        median_difference=_median(differences),
        sd=sd,
        standardized=mean / sd if sd > 0 else NAN,
        p=test.p,
        p_method=test.method,
        rank_biserial=test.effect,
        wins=wins,
        ties=n - wins - losses,
        losses=losses,
        p_better=(wins + (n - wins - losses) / 2) / n if n else NAN,
        p_better_low=better.low,
        p_better_high=better.high,
    )


def compare_family(design: Design, endpoints: Sequence[Endpoint]) -> list[Pair]:
    """Compare every pair on some endpoints, and correct for their number together."""
    found = [compare_pair(design, places, e) for e in endpoints for places in design.pairs]
    corrected = holm([pair.p for pair in found])
    return [
        replace(
            pair,
            comparisons=len(found),
            p_holm=p_holm,
            detectable=detectable_difference(pair.n_finite, pair.sd, len(found)),
            needed=_needed(pair, design.difference, len(found)),
        )
        for pair, p_holm in zip(found, corrected, strict=True)
    ]


def _needed(pair: Pair, difference: float, comparisons: int) -> int | None:
    if pair.metric != PRIMARY or math.isnan(pair.sd):
        return None
    return cases_needed(difference, pair.sd, comparisons)


def _mean(data: Array) -> float:
    return float(data.mean()) if len(data) else NAN


def _sd(data: Array) -> float:
    return float(data.std(ddof=1)) if len(data) > 1 else NAN


def _median(data: Array) -> float:
    """Return the median; NaN between infinities of both signs."""
    if not len(data):
        return NAN
    ordered = np.sort(data)
    low, high = float(ordered[(len(data) - 1) // 2]), float(ordered[len(data) // 2])
    return low if low == high else (low + high) / 2
