"""Two sets of numbers of the same cases: test, effect sizes, intervals, power.

A difference is always second minus first. Infinite values (distances of a lost structure) stay:
two of them make a tie, one makes the largest difference there is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from medseg.core.statistics import CONFIDENCE, NAN, RESAMPLES, ROUNDING, Interval, mean_interval

ALPHA = 1 - CONFIDENCE
POWER = 0.8

EFFICIENCY = 3 / math.pi
"""Of Wilcoxon's test against Student's for normal differences (Hodges & Lehmann, 1956)."""

EXACT_UP_TO = 200
"""Cases; from there on the normal approximation is as good, and exact counting gets slow."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SignedRank:
    """Wilcoxon's signed-rank test.

    Attributes:
        p: Two-sided; 1 if no case differs, NaN without cases.
        method: How p was computed.
        effect: Matched-pairs rank-biserial correlation: the share of the rank sum for the second
            minus that for the first (Kerby, 2014); 0 if no case differs.
    """

    p: float
    method: str
    effect: float


def difference_of(first: ArrayLike, second: ArrayLike) -> Array:
    """Return second minus first; 0 where both are the same, infinities and rounding included."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    same = np.isclose(a, b, rtol=ROUNDING, atol=ROUNDING)
    return np.where(same, 0.0, b) - np.where(same, 0.0, a)


def signed_rank(differences: ArrayLike) -> SignedRank:
    """Test whether differences are symmetric about 0; those of exactly 0 are left out.

    Exact for the ranks as they are, ties included, since every pattern of signs is counted.

    Args:
        differences: One per independent case, none NaN; infinities share the highest rank.
    """
    given = np.asarray(differences, dtype=np.float64)
    nonzero = given[given != 0]
    if not len(given):
        return SignedRank(NAN, "none: no case", NAN)
    if not len(nonzero):
        return SignedRank(1.0, "none: no case differs", 0.0)
    ranks = stats.rankdata(np.abs(nonzero))
    positive, total = float(ranks[nonzero > 0].sum()), float(ranks.sum())
    effect = (2 * positive - total) / total
    if len(nonzero) <= EXACT_UP_TO:
        return SignedRank(_exact_p(ranks, positive), "exact", effect)
    z = (positive - total / 2) / (math.sqrt(float((ranks**2).sum())) / 2)
    return SignedRank(float(2 * stats.norm.sf(abs(z))), "normal approximation", effect)


def _exact_p(ranks: Array, positive: float) -> float:
    """Return the two-sided p from the distribution of the rank sum over all signs."""
    doubled = np.rint(2 * ranks).astype(int)  # mean ranks of ties end in .5
    chances = np.zeros(int(doubled.sum()) + 1)
    chances[0] = 1.0
    for rank in doubled:
        with_rank = np.zeros_like(chances)
        with_rank[rank:] = chances[:-rank]
        chances = (chances + with_rank) / 2
    place = round(2 * positive)
    tail = min(float(chances[: place + 1].sum()), float(chances[place:].sum()))
    return min(1.0, 2 * tail)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number (Holm, 1979); NaN stays NaN but is counted."""
    given = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(given)  # NaN last
    steps = given[order] * np.arange(len(given), 0, -1)
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(p) for p in corrected]


def fewest_cases(comparisons: int = 1) -> int:
    """Return the fewest cases whose smallest possible p, 2^(1-n), survives Holm's first step."""
    return math.ceil(1 + math.log2(comparisons / ALPHA))


def power(n: float, difference: float, sd: float, comparisons: int = 1) -> float:
    """Return the chance that the test sees a true mean difference among `comparisons`.

    Student's noncentral t with n times `EFFICIENCY` cases, at the first and strictest of Holm's
    levels. Assumes differences near normal; heavier tails are seen with fewer cases.
    """
    if n < fewest_cases(comparisons):
        return 0.0
    return _power_at(difference / sd * math.sqrt(n * EFFICIENCY), n, comparisons)


def _power_at(shift: float, n: float, comparisons: int) -> float:
    largest = 30.0  # standard errors: the power is 1, and SciPy's tail loses its digits
    limit = stats.t.ppf(1 - ALPHA / comparisons / 2, n - 1)
    return 1.0 if shift > largest else float(stats.nct.sf(limit, n - 1, shift))


def cases_needed(difference: float, sd: float, comparisons: int = 1) -> int:
    """Return how many cases see a true mean difference with a chance of `POWER`.

    Args:
        difference: Above 0.
        sd: Of the differences over cases.
        comparisons: Pairs in the family that Holm's correction spans.
    """
    low = fewest_cases(comparisons)
    if power(low, difference, sd or math.ulp(difference), comparisons) >= POWER:
        return low
    high = 2 * low
    while power(high, difference, sd, comparisons) < POWER:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        enough = power(middle, difference, sd, comparisons) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def detectable_difference(n: int, sd: float, comparisons: int = 1) -> float:
    """Return the smallest true mean difference seen with a chance of `POWER`; NaN if none is."""
    if n < fewest_cases(comparisons) or math.isnan(sd):
        return NAN
    shift = optimize.brentq(lambda s: _power_at(s, n, comparisons) - POWER, 0.0, 30.0)
    return float(shift) * sd / math.sqrt(n * EFFICIENCY)


def difference_interval(first: Array, second: Array, seed: int = 0) -> Interval:
    """Return the interval of the mean difference over cases, and over seeds where there are some.

    Args:
        first: Finite numbers, shape (seeds, cases).
        second: Same cases, its own number of seeds.
        seed: Of the bootstrap.
    """
    if first.shape[1] < 2 or len(first) == len(second) == 1:
        return mean_interval(second.mean(axis=0) - first.mean(axis=0), seed)
    return _two_level_interval(first, second, np.random.default_rng(seed))


def _two_level_interval(first: Array, second: Array, rng: np.random.Generator) -> Interval:
    cases = case_weights(first.shape[1], rng)
    replicates = resampled_means(second, cases, rng) - resampled_means(first, cases, rng)
    return two_level_interval(first, second, replicates)


def case_weights(count: int, rng: np.random.Generator) -> Array:
    """Return the weight of each case in each of `RESAMPLES` resamples; a row sums to 1."""
    return np.asarray(rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count)


def resampled_means(values: Array, cases: Array, rng: np.random.Generator) -> Array:
    """Return the mean over resampled cases and newly resampled seeds, one of each resample.

    Args:
        values: Shape (seeds, cases).
        cases: From `case_weights`, so that variants can share them.
        rng: Draws the seeds.
    """
    count = len(values)
    seeds = rng.multinomial(count, np.full(count, 1 / count), len(cases)) / count
    return np.asarray(((cases @ values.T) * seeds).sum(axis=1))


def two_level_interval(first: Array, second: Array, replicates: Array) -> Interval:
    """Widen the replicates of a mean difference for how few cases and seeds there are.

    Resampling S seeds shows only (S - 1) / S of their variance, and has the tails of a normal
    distribution. So the replicates are stretched to the unbiased standard error, times Student's
    quantile at Satterthwaite's degrees of freedom over the normal one.

    Args:
        first: Shape (seeds, cases), two cases or more.
        second: Same cases, its own number of seeds.
        replicates: Of second minus first, over resampled cases, and seeds within each.
    """
    variances, freedom = _variances(first, second)
    estimate = float(second.mean() - first.mean())
    return stretched_interval(estimate, replicates, variances, freedom)


def stretched_interval(
    estimate: float, replicates: Array, variances: Array, freedom: Array
) -> Interval:
    """Return the interval of resampled values, stretched to the standard error that holds.

    Args:
        estimate: Of the data as they are.
        replicates: Of resampled data.
        variances: The unbiased parts of the variance of the estimate.
        freedom: Degrees of freedom of each part.
    """
    total = float(variances.sum())
    if total == 0 or np.ptp(replicates) == 0:
        return Interval(estimate, estimate, "none: all differences are equal")
    degrees = total**2 / float((variances**2 / freedom).sum())
    wider = stats.t.ppf(1 - ALPHA / 2, degrees) / stats.norm.ppf(1 - ALPHA / 2)
    stretch = float(wider) * math.sqrt(total) / float(replicates.std())
    ends = np.quantile(replicates, (ALPHA / 2, 1 - ALPHA / 2)) - estimate
    low, high = estimate + stretch * ends
    return Interval(float(low), float(high), "two-level bootstrap")


def _variances(first: Array, second: Array) -> tuple[Array, Array]:
    """Return the parts of the variance of the mean difference, and their degrees of freedom."""
    n = first.shape[1]
    cases = (np.var(second.mean(axis=0) - first.mean(axis=0), ddof=1) / n, n - 1)
    seeds = [
        (np.var(values.mean(axis=1), ddof=1) / len(values), len(values) - 1)
        for values in (first, second)
        if len(values) > 1
    ]
    variances, freedom = np.array([cases, *seeds], dtype=np.float64).T
    return variances, freedom
