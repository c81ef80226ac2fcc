"""The paired test, its effect size, its correction, its power: against formulas and enumeration."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medseg.core import paired
from medseg.core.statistics import mean_interval, wilson_interval

NAN, INF = float("nan"), float("inf")


def enumerated_p(differences):
    """Count all patterns of signs, with mean ranks for ties."""
    nonzero = [d for d in differences if d]
    ranks = stats.rankdata(np.abs(nonzero))
    sums = np.array(
        [np.dot(signs, ranks) for signs in itertools.product((0, 1), repeat=len(ranks))]
    )
    found = ranks[np.array(nonzero) > 0].sum()
    return min(1.0, 2 * min(np.mean(sums <= found + 1e-9), np.mean(sums >= found - 1e-9)))


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9).filter(any))
def test_p_is_that_of_all_patterns_of_signs_even_with_ties(differences):
    assert paired.signed_rank(differences).p == pytest.approx(enumerated_p(differences))


@pytest.mark.parametrize("n", [6, 25, 50])
def test_p_without_ties_is_that_of_scipy(n):
    data = np.random.default_rng(n).normal(0.3, 1, n)
    assert paired.signed_rank(data).p == pytest.approx(stats.wilcoxon(data, method="exact").pvalue)


def test_many_cases_use_the_normal_approximation():
    data = np.round(np.random.default_rng(0).normal(0.1, 1, 400), 1)
    test = paired.signed_rank(data)
    expected = stats.wilcoxon(data[data != 0], method="approx", correction=False)
    assert test.method == "normal approximation"
    assert test.p == pytest.approx(expected.pvalue)


def test_exact_and_approximate_p_meet_at_their_border():
    data = np.random.default_rng(1).normal(0.1, 1, paired.EXACT_UP_TO)
    exact = paired.signed_rank(data)
    assert exact.method == "exact"
    assert exact.p == pytest.approx(stats.wilcoxon(data, method="approx").pvalue, rel=0.02)


@pytest.mark.parametrize(("n", "comparisons"), [(6, 1), (7, 3), (8, 5), (9, 8)])
def test_fewest_cases_are_those_whose_smallest_p_survives_holm(n, comparisons):
    assert paired.fewest_cases(comparisons) == n
    smallest = [paired.signed_rank(np.arange(1.0, count + 1)).p for count in (n - 1, n)]
    assert smallest == [2.0 ** (2 - n), 2.0 ** (1 - n)]
    assert smallest[1] * comparisons <= 0.05 < smallest[0] * comparisons


def test_no_difference_at_all_has_p_one_and_no_case_has_none():
    assert paired.signed_rank([0.0] * 30).p == 1.0
    assert paired.signed_rank([0.0] * 30).effect == 0.0
    assert math.isnan(paired.signed_rank([]).p)


def test_two_infinities_tie_and_one_is_the_largest_difference():
    differences = paired.difference_of([INF, INF, 2.0, 5.0], [INF, 3.0, INF, 4.0])
    assert differences.tolist() == [0.0, -INF, INF, -1.0]
    # ranks: 1 for -1, 2.5 for each infinity, the tie left out
    assert paired.signed_rank(differences).effect == pytest.approx((2.5 - 3.5) / 6)


def test_what_differs_by_rounding_is_a_tie_and_has_an_interval():
    values = np.linspace(0.1, 0.7, 24)
    assert not paired.difference_of(values, values + 0.1 - 0.1).any()
    interval = mean_interval(values + 0.1 - values)
    assert (interval.low, interval.high) == pytest.approx((0.1, 0.1))


def test_an_infinity_counts_like_any_difference_larger_than_the_rest():
    data = np.array([-0.2, 0.5, 0.1, 0.7, 0.4, INF])
    assert paired.signed_rank(data) == paired.signed_rank(np.where(np.isinf(data), 99.0, data))


@pytest.mark.parametrize(
    ("differences", "effect"),
    [([1, 2, 3], 1.0), ([-1, -2, -3], -1.0), ([1, 2, -3], 0.0), ([1, 2, -4, 5], 0.4)],
)
def test_rank_biserial_is_the_difference_of_the_rank_sums_as_a_share(differences, effect):
    assert paired.signed_rank(differences).effect == pytest.approx(effect)


def test_holm_is_as_in_its_paper():
    assert paired.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert paired.holm([0.6, 0.5]) == [1.0, 1.0]
    assert paired.holm([]) == []


def test_holm_counts_a_test_that_could_not_be_made():
    corrected = paired.holm([0.01, NAN, 0.02])
    assert corrected[0] == pytest.approx(0.03)
    assert corrected[2] == pytest.approx(0.04)
    assert math.isnan(corrected[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_raw_p_and_bonferroni(p_values):
    for raw, corrected in zip(p_values, paired.holm(p_values), strict=True):
        assert raw <= corrected <= min(1.0, raw * len(p_values)) + 1e-12


@pytest.mark.parametrize(
    ("n", "difference", "published"),
    [(40, 0.01, 0.27), (80, 0.01, 0.61), (40, 0.02, 0.92), (80, 0.02, 1.00)],
)
def test_power_is_near_simulated_figures(n, difference, published):
    assert paired.power(n, difference, 0.03, comparisons=5) == pytest.approx(published, abs=0.03)


@pytest.mark.parametrize("comparisons", [1, 10])
def test_needed_cases_are_the_fewest_with_the_power(comparisons):
    n = paired.cases_needed(0.005, 0.012, comparisons)
    assert paired.power(n, 0.005, 0.012, comparisons) >= 0.8
    assert paired.power(n - 1, 0.005, 0.012, comparisons) < 0.8


def test_needed_cases_are_near_the_normal_formula():
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    formula = (z * 0.03 / 0.002) ** 2 * math.pi / 3
    assert paired.cases_needed(0.002, 0.03) == pytest.approx(formula, abs=3)


@pytest.mark.parametrize("sd", [0.0, 1e-9])
def test_cases_that_hardly_scatter_need_as_few_as_can_be_tested(sd):
    assert paired.cases_needed(0.005, sd, 3) == 7


def test_detectable_difference_is_what_the_power_says():
    smallest = paired.detectable_difference(52, 0.02, 6)
    assert paired.power(52, smallest, 0.02, 6) == pytest.approx(0.8)
    assert math.isnan(paired.detectable_difference(5, 0.02))
    assert paired.detectable_difference(52, 0.0) == 0.0


def test_one_seed_each_has_the_interval_of_the_differences():
    rng = np.random.default_rng(0)
    first, second = rng.random((1, 30)), rng.random((1, 30))
    assert paired.difference_interval(first, second) == mean_interval((second - first)[0])


def test_exchanged_variants_have_the_mirrored_interval():
    rng = np.random.default_rng(0)
    first, second = rng.beta(8, 1, (1, 30)), rng.beta(9, 1, (1, 30))
    there, back = (paired.difference_interval(*p) for p in ((first, second), (second, first)))
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_seeds_that_scatter_widen_the_interval():
    case = np.random.default_rng(0).normal(0.8, 0.02, 40)
    calm = paired.difference_interval(np.stack([case] * 3), np.stack([case, case[::-1], case]))
    levels = np.array([[-0.02], [0.0], [0.02]])
    wild = paired.difference_interval(np.stack([case] * 3) + levels, np.stack([case] * 3) + levels)
    assert calm.method == wild.method == "two-level bootstrap"
    assert wild.high - wild.low > 3 * (calm.high - calm.low)
    # Standard error of the two means of three seeds, times t at 4 degrees of freedom.
    assert wild.high - wild.low == pytest.approx(2 * 2.776 * 0.02 * math.sqrt(2 / 3), rel=0.1)


def test_equal_seeds_in_equal_cases_have_an_interval_of_no_width():
    values = np.full((2, 10), 0.7)
    interval = paired.difference_interval(values, values + 0.1)
    assert (interval.low, interval.high) == pytest.approx((0.1, 0.1))


def test_a_tie_counts_as_half_a_success():
    assert wilson_interval(7.5, 15).low == pytest.approx(1 - wilson_interval(7.5, 15).high)
