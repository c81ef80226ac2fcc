"""Rows over seeds: means, differences, ratios and standard deviations with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from medseg.core.endpoints import PRIMARY_ENDPOINT, Array
from medseg.core.paired import ALPHA, resampled_means, stretched_interval
from medseg.core.statistics import (
    CONFIDENCE,
    NAN,
    RESAMPLES,
    ROUNDING,
    Interval,
    mean_interval,
)
from medseg.study.claim_rows import Row, decide

Limits = tuple[float, float]
"""Between which values a quantity lies, and so its interval."""

SHARE: Limits = PRIMARY_ENDPOINT.limits
CHANGE: Limits = PRIMARY_ENDPOINT.difference_limits
SIZE: Limits = (0.0, math.inf)

SAME_FACTOR = 1.1
"""Ratios between its inverse and this are no difference worth seeing; a convention."""


def apart(limits: Limits) -> Limits:
    """Return between which values a difference of two such quantities lies."""
    lowest, highest = limits
    return lowest - highest, highest - lowest


def within(row: Row, limits: Limits) -> Row:
    """Return a row whose interval ends where its quantity does."""
    ends = Interval(row.low, row.high, row.method).within(*limits)
    return replace(row, low=ends.low, high=ends.high)


def mean_row(
    quantity: str, norm: str, batch_size: int, values: Sequence[float], limits: Limits
) -> Row:
    """Return the mean over seeds with its interval, which ends where the quantity does."""
    interval = mean_interval(values).within(*limits)
    mean = math.fsum(values) / len(values)
    return Row(quantity, norm, batch_size, mean, interval.low, interval.high, len(values),
               method=interval.method)  # fmt: skip


def difference_row(
    base: Row,
    values: Sequence[float],
    others: Sequence[float],
    claimed: int,
    margin: float,
    limits: Limits = (-math.inf, math.inf),
) -> Row:
    """Return a contrast: the difference of means over seeds, by Welch's t.

    Args:
        base: Names what is contrasted; its numbers are replaced.
        values: Of the norm's seeds.
        others: Of the other norm's.
        claimed: 1 if the claim is that the norm has more, -1 if less.
        margin: Difference that does not matter.
        limits: Of both quantities.
    """
    estimate, interval = _welch(values, others)
    interval = interval.within(*apart(limits))
    return replace(
        base,
        value=estimate,
        low=interval.low,
        high=interval.high,
        n=min(len(values), len(others)),
        method=interval.method,
        decision=decide(interval.low, interval.high, claimed, margin),
    )


def ratio_row(base: Row, values: Sequence[float], others: Sequence[float], claimed: int) -> Row:
    """Return a contrast: the ratio of geometric means over seeds, by Welch's t of logarithms.

    Values must be above 0. The other arguments are as in `difference_row`.
    """
    logs = [[math.log(value) for value in group] for group in (values, others)]
    row = difference_row(base, logs[0], logs[1], claimed, math.log(SAME_FACTOR))
    return exponential(row)


def bootstrap_ratio_row(
    base: Row, values: Sequence[float], others: Sequence[float], claimed: int
) -> Row:
    """Return a contrast: the ratio of means over seeds, resampled within each norm.

    Stretched as differences over seeds are, on the logarithmic scale. Arguments as in `ratio_row`.
    """
    ends = _bootstrap_of_logs(np.array(values), np.array(others))
    row = replace(
        base,
        value=math.log(math.fsum(values) / len(values) / (math.fsum(others) / len(others))),
        low=ends.low,
        high=ends.high,
        n=min(len(values), len(others)),
        method=ends.method,
        decision=decide(ends.low, ends.high, claimed, math.log(SAME_FACTOR)),
    )
    return exponential(row)


def sd_ratio_row(base: Row, values: Sequence[float], others: Sequence[float], claimed: int) -> Row:
    """Return a contrast: the ratio of standard deviations, with the interval of Fisher's F."""
    sds = [float(np.std(group, ddof=1)) if len(group) > 1 else NAN for group in (values, others)]
    n = min(len(values), len(others))
    if n < 2 or not all(sd > ROUNDING for sd in sds):
        return replace(base, value=NAN, n=n, method="none: too few runs, or all are equal")
    ratio = sds[0] / sds[1]
    freedom = (len(values) - 1, len(others) - 1)
    low, high = (ratio / math.sqrt(stats.f.ppf(q, *freedom)) for q in (1 - ALPHA / 2, ALPHA / 2))
    decision = decide(math.log(low), math.log(high), claimed, math.log(SAME_FACTOR))
    return replace(base, value=ratio, low=low, high=high, n=n, method="F", decision=decision)


def sd_row(
    quantity: str,
    norm: str,
    batch_size: int,
    values: Sequence[float],
    limits: Limits = (-math.inf, math.inf),
) -> Row:
    """Return a standard deviation with the interval of the chi-squared distribution.

    Half the width of the limits is the largest there is.
    """
    count = len(values)
    if count < 2:
        return Row(quantity, norm, batch_size, NAN, n=count, method="none: fewer than 2 runs")
    sd = float(np.std(values, ddof=1))
    quantiles = ((1 + CONFIDENCE) / 2, ALPHA / 2)
    low, high = (sd * math.sqrt((count - 1) / stats.chi2.ppf(q, count - 1)) for q in quantiles)
    high = min(high, max(sd, (limits[1] - limits[0]) / 2))
    return Row(quantity, norm, batch_size, sd, low, high, count, method="chi-squared")


def exponential(row: Row) -> Row:
    """Return a contrast of logarithms as one of ratios."""
    return replace(row, value=math.exp(row.value), low=math.exp(row.low), high=math.exp(row.high))


def _welch(values: Sequence[float], others: Sequence[float]) -> tuple[float, Interval]:
    estimate = math.fsum(values) / len(values) - math.fsum(others) / len(others)
    if min(len(values), len(others)) < 2:
        return estimate, Interval(NAN, NAN, "none: one seed")
    if np.ptp(values) == np.ptp(others) == 0:
        return estimate, Interval(estimate, estimate, "none: seeds do not differ")
    ends = stats.ttest_ind(values, others, equal_var=False).confidence_interval(CONFIDENCE)
    return estimate, Interval(float(ends.low), float(ends.high), "Welch t over seeds")


def _bootstrap_of_logs(values: Array, others: Array) -> Interval:
    if min(len(values), len(others)) < 2:
        return Interval(NAN, NAN, "none: one seed")
    rng, whole = np.random.default_rng(0), np.ones((RESAMPLES, 1))
    logs = [np.log(resampled_means(group[:, None], whole, rng)) for group in (values, others)]
    estimate = math.log(values.mean() / others.mean())
    variances = [group.var(ddof=1) / len(group) / group.mean() ** 2 for group in (values, others)]
    freedom = [len(group) - 1 for group in (values, others)]
    ends = stretched_interval(estimate, logs[0] - logs[1], np.array(variances), np.array(freedom))
    return replace(ends, method=ends.method.replace("two-level bootstrap", "bootstrap over seeds"))
