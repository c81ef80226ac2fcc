"""Simulations: do intervals cover, do verdicts stay silent under the null, does power hold?

The fast tests repeat little and allow much; the slow ones give the figures of docs/statistics.md.
"""

import sys

import numpy as np
import pytest
from scipy import stats

from medseg.core.endpoints import PRIMARY_ENDPOINT, Design, Variant
from medseg.core.paired import cases_needed, difference_interval, power, signed_rank
from medseg.core.pairs import compare_family
from medseg.core.runs import Score
from medseg.core.statistics import mean_interval
from medseg.core.verdicts import judge

ORGAN_MEAN, LESION_MEAN, FAILURE_RATE = 14 / 15, 2 / 3, 0.08


def organ(rng, n):
    return rng.beta(14, 1, n)


def lesion(rng, n):
    return rng.beta(2, 1, n)


def failing(rng, n):
    return organ(rng, n) * (rng.random(n) >= FAILURE_RATE)


POPULATIONS = {
    "organ": (organ, ORGAN_MEAN),
    "lesion": (lesion, LESION_MEAN),
    "failing": (failing, ORGAN_MEAN * (1 - FAILURE_RATE)),
}


def tell(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\n")


def mean_coverage(population, n, repetitions):
    draw, truth = POPULATIONS[population]
    rng, covered = np.random.default_rng(n), 0
    for seed in range(repetitions):
        interval = mean_interval(draw(rng, n), seed)
        covered += interval.low <= truth <= interval.high
    return covered / repetitions


def difference_coverage(population, n, repetitions):
    """Cover the mean difference of two equal variants that err independently; ours, Student's."""
    draw, _ = POPULATIONS[population]
    rng, covered, covered_by_t = np.random.default_rng(n), 0, 0
    for seed in range(repetitions):
        first, second = draw(rng, (1, n)), draw(rng, (1, n))
        interval = difference_interval(first, second, seed)
        covered += interval.low <= 0 <= interval.high
        covered_by_t += stats.ttest_1samp((second - first)[0], 0).pvalue > 0.05
    return covered / repetitions, covered_by_t / repetitions


def seeded(rng, n, seeds, seed_sd, case_sd=0.02, shift=0.0):
    """Return one variant: a shift, its seeds' own levels, and noise of each seed in each case."""
    levels = rng.normal(shift, seed_sd, (seeds, 1))
    return levels + rng.normal(0, case_sd, (seeds, n))


def seed_coverage(n, seeds, seed_sd, repetitions):
    rng, covered = np.random.default_rng(n), 0
    for seed in range(repetitions):
        first, second = (seeded(rng, n, seeds, seed_sd) for _ in range(2))
        interval = difference_interval(first, second, seed)
        covered += interval.low <= 0 <= interval.high
    return covered / repetitions


def verdicts(tables):
    """Return the outcomes of all pairs of variants given as arrays of shape (seeds, cases)."""
    cases = [f"case_{i}" for i in range(tables[0].shape[1])]
    variants = tuple(
        Variant(str(v), tuple([Score(c, "", "organ", "dice", float(x)) for c, x in zip(cases, seed, strict=True)]
                              for seed in table))
        for v, table in enumerate(tables)
    )  # fmt: skip
    design = Design(variants, {c: c for c in cases}, ("organ",))
    pairs = compare_family(design, [PRIMARY_ENDPOINT])
    return [judge(pair, design.difference).outcome for pair in pairs]


def alarms(n, variants, repetitions, seeds=1, seed_sd=0.0):
    """Return how often any verdict is given among variants that do not differ."""
    rng, found = np.random.default_rng(n), 0
    for _ in range(repetitions):
        difficulty = organ(rng, n)
        noise = [seeded(rng, n, seeds, seed_sd) for _ in range(variants)]
        # The harder the case the wider it scatters, as Dice does.
        tables = [difficulty + (1.05 - difficulty) * 5 * table for table in noise]
        found += bool({"better", "worse"} & set(verdicts(tables)))
    return found / repetitions


def test_intervals_cover_in_few_repetitions():
    assert mean_coverage("lesion", 10, 150) >= 0.88
    assert difference_coverage("organ", 30, 150)[0] >= 0.88
    assert 0.90 <= seed_coverage(20, 3, 0.02, 150) <= 1.0


def test_false_alarms_are_rare_in_few_repetitions():
    assert alarms(12, 3, 60) <= 0.12


@pytest.mark.parametrize("n", [20, 40])
def test_power_is_near_the_prediction_in_few_repetitions(n):
    assert simulated_power(n, 0.02, 0.03, 5, 300) == pytest.approx(power(n, 0.02, 0.03, 5), abs=0.1)


def simulated_power(n, difference, sd, comparisons, repetitions):
    rng = np.random.default_rng(n)
    p = [signed_rank(rng.normal(difference, sd, n)).p for _ in range(repetitions)]
    return float(np.mean(np.array(p) <= 0.05 / comparisons))


MEAN_FLOORS = {
    ("organ", 10): 0.90, ("organ", 20): 0.90, ("organ", 50): 0.92,
    ("lesion", 10): 0.92, ("lesion", 20): 0.91, ("lesion", 50): 0.93,
    ("failing", 10): 0.0, ("failing", 20): 0.0, ("failing", 50): 0.90,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("population", "n"), MEAN_FLOORS)
def test_intervals_of_a_mean_cover(population, n):
    rate = mean_coverage(population, n, 1500)
    tell(f"mean of {population}, n = {n}: covered {rate:.3f}")
    assert MEAN_FLOORS[population, n] <= rate <= 0.98


DIFFERENCE_FLOORS = {
    ("organ", 10): 0.93, ("organ", 20): 0.88, ("organ", 50): 0.92,
    ("lesion", 10): 0.93, ("lesion", 20): 0.91, ("lesion", 50): 0.92,
    ("failing", 10): 0.93, ("failing", 20): 0.0, ("failing", 50): 0.89,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("population", "n"), DIFFERENCE_FLOORS)
def test_intervals_of_a_difference_cover(population, n):
    rate, by_t = difference_coverage(population, n, 1500)
    tell(f"difference, {population}, n = {n}: covered {rate:.3f}, by t alone {by_t:.3f}")
    assert rate >= DIFFERENCE_FLOORS[population, n]


@pytest.mark.slow
@pytest.mark.parametrize("seed_sd", [0.0, 0.005, 0.02])
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("n", [10, 20, 50])
def test_intervals_over_cases_and_seeds_cover(n, seeds, seed_sd):
    rate = seed_coverage(n, seeds, seed_sd, 600)
    tell(f"difference, n = {n}, {seeds} seeds of SD {seed_sd}: covered {rate:.3f}")
    assert rate >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 20, 50])
def test_verdicts_on_five_equal_variants_are_rarely_wrong(n):
    rate = alarms(n, 5, 500)
    tell(f"five equal variants, n = {n}: any false verdict {rate:.3f}")
    assert rate <= 0.07  # 0.05 and two standard errors


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_verdicts_over_seeds_are_rarely_wrong(seeds):
    rate = alarms(50, 2, 500, seeds, seed_sd=0.01)
    tell(f"two equal variants of {seeds} seeds of SD 0.01, n = 50: false verdict {rate:.3f}")
    assert rate <= 0.07


@pytest.mark.slow
def test_one_seed_each_judges_networks_and_not_variants():
    rate = alarms(50, 2, 500, seeds=1, seed_sd=0.01)
    tell(f"two equal variants of one seed of SD 0.01, n = 50: verdict {rate:.3f}")
    assert rate >= 0.2, "if this were rare, the note on single trainings could go"


@pytest.mark.slow
@pytest.mark.parametrize("difference", [0.01, 0.02])
@pytest.mark.parametrize("n", [10, 20, 40, 80])
def test_power_of_the_test_is_as_predicted(n, difference):
    predicted = power(n, difference, 0.03, 5)
    found = simulated_power(n, difference, 0.03, 5, 2000)
    tell(
        f"+{difference}, SD 0.03, five comparisons, n = {n}: predicted {predicted:.2f}, found {found:.2f}"
    )
    assert found == pytest.approx(predicted, abs=0.04)


@pytest.mark.slow
@pytest.mark.parametrize(("difference", "sd"), [(0.01, 0.02), (0.005, 0.012)])
def test_the_number_of_cases_needed_gives_the_verdict_four_times_of_five(difference, sd):
    n = cases_needed(difference, sd)
    rng, found = np.random.default_rng(1), 0
    for _ in range(500):
        base = rng.normal(0.8, 0.05, (1, n))
        found += verdicts([base, base + rng.normal(difference, sd, (1, n))]) == ["better"]
    tell(f"+{difference}, SD {sd}: {n} cases, verdict in {found / 500:.2f}")
    assert found / 500 == pytest.approx(0.8, abs=0.05)
