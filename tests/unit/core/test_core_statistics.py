"""Intervals and summaries over cases."""

import warnings

import numpy as np
import pytest
from scipy import stats

from medseg.core.metrics import METRICS
from medseg.core.statistics import mean_interval, summarize, wilson_interval

NAN, INF = float("nan"), float("inf")


def present(count):
    return ["present"] * count


def test_missed_structure_is_not_dropped_from_the_mean():
    dice = summarize([0.9, 0.8, 0.0], ["present", "present", "missed"], 100.0)
    assert dice.mean == pytest.approx(1.7 / 3)
    assert (dice.n, dice.n_missed) == (3, 1)
    hd95 = summarize([2.0, 4.0, INF], ["present", "present", "missed"], 100.0)
    assert (hd95.mean, hd95.n, hd95.n_missed) == (3.0, 2, 1)
    assert hd95.median == 4.0
    assert hd95.mean_with_penalty == pytest.approx(106.0 / 3)


def test_absent_structure_is_in_no_mean():
    summary = summarize([0.5, NAN, 0.7], ["present", "absent", "present"], 1.0)
    assert (summary.n, summary.n_absent) == (2, 1)
    assert summary.mean == summary.mean_with_penalty == pytest.approx(0.6)


def test_each_case_pays_its_own_penalty():
    summary = summarize([INF, INF, 1.0], ["missed", "fp_only", "present"], [50.0, 70.0, 90.0])
    assert summary.mean_with_penalty == pytest.approx(121.0 / 3)
    assert (summary.n, summary.n_missed, summary.n_invented) == (1, 1, 1)


@pytest.mark.parametrize(
    ("values", "median", "q1", "q3"),
    [
        ([1.0, 2.0, INF], 2.0, 1.0, INF),
        ([1.0, INF, INF], INF, 1.0, INF),
        ([1.0, 2.0, 3.0, INF], 2.5, 1.0, 3.0),
        ([INF, INF], INF, INF, INF),
        ([NAN, 4.0], 4.0, 4.0, 4.0),
    ],
)
def test_order_statistics_keep_infinities_in_order(values, median, q1, q3):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = summarize(values, present(len(values)), 10.0)
    assert (summary.median, summary.q1, summary.q3) == (median, q1, q3)


def test_summary_of_nothing_is_nan_beside_zero():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = summarize([NAN], ["absent"], 10.0)
    assert summary.n == 0
    numbers = (summary.mean, summary.sd, summary.median, summary.ci_low, summary.mean_with_penalty)
    assert np.isnan(numbers).all()


def test_few_cases_have_a_t_interval():
    data = np.random.default_rng(0).normal(0.8, 0.1, 19)
    interval = mean_interval(data)
    expected = stats.t.interval(0.95, 18, data.mean(), stats.sem(data))
    assert interval.method == "t"
    assert (interval.low, interval.high) == pytest.approx(expected)


def test_an_interval_ends_where_the_metric_does():
    dice = summarize([0.0, 0.02, 0.9], ["present"] * 3, 100.0, limits=METRICS["dice"].limits)
    assert (dice.ci_low, dice.ci_high) == (0, 1)
    distance = summarize([0.0, 9.0], ["present"] * 2, 100.0, limits=METRICS["hd95_mm"].limits)
    assert distance.ci_low == 0
    assert distance.ci_high == mean_interval([0.0, 9.0]).high
    change = METRICS["volume_difference_ml"].limits
    assert summarize([-1.0, 1.0], ["present"] * 2, 0.0, limits=change).ci_low < -1


def test_no_interval_stays_none():
    assert np.isnan(mean_interval([0.5]).within(0, 1).low)


def test_many_cases_have_a_bootstrap_interval_that_repeats():
    data = np.random.default_rng(0).beta(8, 1, 40)
    first, again, other = mean_interval(data), mean_interval(data), mean_interval(data, seed=1)
    assert first == again
    assert first != other
    assert first.method == "BCa bootstrap"
    assert first.low < data.mean() < first.high
    assert data.mean() - first.low > first.high - data.mean(), "skewed data, skewed interval"


@pytest.mark.parametrize("count", [2, 19, 20, 50])
def test_constant_data_has_an_interval_of_no_width(count):
    interval = mean_interval([0.7] * count)
    assert (interval.low, interval.high) == (0.7, 0.7)


@pytest.mark.parametrize("data", [[], [0.5]])
def test_one_case_has_no_interval(data):
    interval = mean_interval(data)
    assert np.isnan([interval.low, interval.high]).all()


@pytest.mark.parametrize("count", [10, 30])
def test_intervals_hold_the_true_mean_as_often_as_they_say(count):
    rng, repetitions = np.random.default_rng(7), 200
    covered = 0
    for _ in range(repetitions):
        interval = mean_interval(rng.beta(14, 1, count))
        covered += interval.low <= 14 / 15 <= interval.high
    assert 0.88 <= covered / repetitions <= 0.99


def test_wilson_interval_matches_its_formula():
    k, n, z = 3, 40, stats.norm.ppf(0.975)
    centre = (k / n + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(k / n * (1 - k / n) / n + z**2 / (4 * n**2))
    interval = wilson_interval(k, n)
    assert (interval.low, interval.high) == pytest.approx((centre - half, centre + half))


def test_rate_of_no_failure_still_has_an_upper_end():
    assert wilson_interval(0, 10).low == 0.0
    assert wilson_interval(0, 10).high == pytest.approx(0.2775, abs=1e-4)
    assert np.isnan(wilson_interval(0, 0).high)
