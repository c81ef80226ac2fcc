"""Comparisons: which cases enter, what is counted, and the words of the verdict."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from medseg.core.comparison import compare_variants
from medseg.core.endpoints import PRIMARY_ENDPOINT, Design, Endpoint, Variant
from medseg.core.paired import signed_rank
from medseg.core.pairs import compare_family, compare_pair
from medseg.core.runs import Score, strict_json
from medseg.core.verdicts import judge

NAN, INF = float("nan"), float("inf")


def variant(name, *seeds, class_name="organ", metric="dice"):
    """Return a variant from the values of its cases, one list a seed."""
    return Variant(name, tuple(
        [Score(f"c{i}", "", class_name, metric, float(v)) for i, v in enumerate(seed)]
        for seed in seeds
    ))  # fmt: skip


def design(*variants, units=None, classes=("organ",), metrics=("dice",), difference=0.005):
    cases = list(dict.fromkeys(s.case_id for s in variants[0].seeds[0]))
    return Design(
        variants, dict(zip(cases, units or cases, strict=True)), classes, metrics, difference
    )


def primary(*variants, **options):
    return compare_variants(design(*variants, **options)).primary


BASE = np.linspace(0.7, 0.9, 24)
NOISE = np.random.default_rng(0).normal(0, 0.004, 24)


def test_a_difference_in_every_case_is_a_verdict_with_its_numbers():
    (pair,) = primary(variant("A", BASE), variant("B", BASE + 0.012 + NOISE))
    assert pair.outcome == "better"
    assert re.fullmatch(
        r"B is better than A by 0\.01\d+ Dice \[0\.01\d+, 0\.01\d+\] \(24 cases, p < 0\.001\)\.",
        pair.verdict,
    )
    assert (pair.wins, pair.ties, pair.losses) == (24, 0, 0)
    assert pair.difference == pytest.approx(0.012 + NOISE.mean())


def test_the_order_of_the_files_decides_nothing_but_the_sign():
    (there,) = primary(variant("A", BASE), variant("B", BASE + 0.012 + NOISE))
    (back,) = primary(variant("B", BASE + 0.012 + NOISE), variant("A", BASE))
    assert back.outcome == "worse"
    assert back.verdict == there.verdict
    assert (back.p, back.rank_biserial) == (there.p, -there.rank_biserial)


def test_no_clear_difference_says_how_many_cases_would_be_needed():
    (pair,) = primary(variant("A", BASE), variant("B", BASE + 5 * NOISE - 5 * NOISE.mean()))
    assert pair.outcome == "unclear"
    assert "A, B: no clear difference (B minus A: " in pair.verdict
    assert f"{pair.needed} cases would be needed to see 0.005, with 80 % power." in pair.verdict
    assert pair.needed > 24


def test_enough_cases_without_a_difference_are_said_to_be_enough():
    (pair,) = primary(
        variant("A", BASE), variant("B", BASE + NOISE - NOISE.mean()), difference=0.02
    )
    assert pair.needed < 24
    assert f"{pair.needed} cases are enough to see 0.02" in pair.verdict


@pytest.mark.parametrize(
    ("count", "n", "outcome"),
    [(2, 5, "too few"), (2, 6, "better"), (3, 6, "too few"), (3, 7, "better")],
)
def test_fewer_cases_than_a_test_can_use_give_no_verdict(count, n, outcome):
    values = [variant(str(k), BASE[:n] + 0.02 * k + 1e-4 * np.arange(n) * k) for k in range(count)]
    pairs = primary(*values)
    assert {pair.outcome for pair in pairs} == {outcome}
    if outcome == "too few":
        assert "too few cases to test" in pairs[0].verdict
        assert "better" not in pairs[0].verdict


def test_equal_scores_are_called_equal():
    (pair,) = primary(variant("A", BASE), variant("B", BASE))
    assert (pair.p, pair.rank_biserial, pair.ties) == (1.0, 0.0, 24)
    assert pair.verdict == "A, B: no clear difference: they are equal in every case."


def test_a_shift_of_most_cases_against_a_few_large_losses_is_no_verdict():
    values = BASE + 0.01 + NOISE / 10
    values[:2] = 0.0
    (pair,) = primary(variant("A", BASE), variant("B", values))
    assert pair.p_holm < 0.05
    assert pair.ci_low < 0 < pair.ci_high
    assert pair.outcome == "unclear"
    assert (
        "the test sees a shift (B is higher in 22, lower in 2), but the interval of the mean includes 0"
        in pair.verdict
    )


def test_an_interval_without_zero_is_no_verdict_where_the_test_does_not_agree():
    # A few large gains, the other cases a hair to the other side.
    values = BASE - 1e-4 * np.arange(1, 25)
    values[:9] = BASE[:9] + 0.05 + NOISE[:9]
    (pair,) = primary(variant("A", BASE), variant("B", values))
    assert pair.ci_low > 0
    assert pair.p_holm > 0.05
    assert pair.outcome == "unclear"
    assert "the interval of the mean excludes 0, but the corrected test does not" in pair.verdict


def test_a_mean_and_ranks_that_point_apart_are_said_to():
    # A quarter gains much and carries the mean, three quarters lose a little, in every rank.
    values = np.linspace(0.2, 0.4, 60)
    change = np.where(np.arange(60) < 14, 0.4, -0.04) + 1e-4 * np.sin(np.arange(60))
    (pair,) = primary(variant("A", values), variant("B", values + change))
    assert pair.ci_low > 0 > pair.rank_biserial
    assert pair.outcome == "unclear"
    assert ("opposite directions" in pair.verdict) == (pair.p_holm <= 0.05)


def test_words_for_a_mean_and_ranks_that_point_apart():
    (pair,) = primary(variant("A", BASE), variant("B", BASE + 0.012 + NOISE))
    apart = judge(replace(pair, rank_biserial=-0.4), 0.005)
    assert apart.outcome == "unclear"
    assert "the mean and the ranks point in opposite directions" in apart.verdict


def test_seeds_are_averaged_before_the_test():
    (equal,) = primary(variant("A", BASE, BASE), variant("B", BASE + 0.25, BASE - 0.25))
    assert equal.difference == pytest.approx(0, abs=1e-12)
    (one,) = primary(variant("A", BASE, BASE), variant("B", BASE + 0.01, BASE + 0.02 + NOISE))
    assert one.difference == pytest.approx(0.015 + NOISE.mean() / 2)
    assert one.p == signed_rank(0.015 + NOISE / 2).p
    assert one.ci_method == "two-level bootstrap"


def test_seeds_that_scatter_as_much_as_the_difference_give_no_verdict():
    first = variant("A", BASE, BASE + 0.02, BASE - 0.02)
    second = variant("B", BASE + 0.01, BASE + 0.035, BASE - 0.012)
    (pair,) = primary(first, second)
    assert pair.p_holm < 0.001
    assert pair.outcome == "unclear"
    assert pair.ci_low < 0


def test_patients_are_the_unit_and_not_their_scans():
    units = [f"p{i // 3}" for i in range(24)]
    (pair,) = primary(variant("A", BASE), variant("B", BASE + 0.012 + NOISE), units=units)
    assert (pair.n, pair.n_cases) == (8, 24)
    means = NOISE.reshape(8, 3).mean(axis=1)
    assert pair.sd == pytest.approx(means.std(ddof=1))
    assert pair.ci_method == "t"
    assert "(8 groups of 24 cases, p = 0.0078)" in pair.verdict


def test_cases_undefined_in_either_are_left_out_and_counted():
    first, second = BASE.copy(), BASE + 0.01
    first[0] = second[0] = second[1] = NAN
    comparison = compare_variants(design(variant("A", first), variant("B", second)))
    (pair,) = comparison.primary
    assert (pair.n, pair.n_undefined, pair.n_one_sided) == (22, 1, 1)
    assert any("invents a structure" in note for note in comparison.notes)
    assert math.isnan(comparison.levels[1].values[1])


def test_the_mean_over_classes_leaves_an_absent_class_out():
    rows = [Score("c0", "", "organ", "dice", 0.8), Score("c0", "", "lesion", "dice", NAN),
            Score("c1", "", "organ", "dice", 0.6), Score("c1", "", "lesion", "dice", 0.2)]  # fmt: skip
    one = Variant("A", (rows,))
    table = design(one, classes=("organ", "lesion")).values(one, PRIMARY_ENDPOINT)
    assert table.tolist() == [[0.8, 0.4]]


def test_a_class_absent_in_one_seed_takes_the_mean_of_the_others():
    one = variant("A", [0.5, NAN], [0.7, 0.4])
    assert design(one).values(one, PRIMARY_ENDPOINT).tolist() == [[0.5, 0.4], [0.7, 0.4]]


def test_a_lost_structure_is_the_worst_distance_and_is_in_no_mean():
    first, second = np.full(12, 3.0), np.full(12, 2.0)
    first[0] = second[0] = second[1] = INF
    scores = (variant(n, v, metric="hd95_mm") for n, v in (("A", first), ("B", second)))
    pair = compare_pair(design(*scores, metrics=("hd95_mm",)), (0, 1), Endpoint("hd95_mm"))
    assert (pair.n, pair.n_finite, pair.infinite_first, pair.infinite_second) == (12, 10, 1, 2)
    assert (pair.mean_first, pair.mean_second, pair.difference) == (3.0, 2.0, -1.0)
    assert (pair.wins, pair.ties, pair.losses) == (10, 1, 1)
    assert pair.median_difference == -1.0
    # Ranks 1 to 10 share 5.5 for the second, rank 11 against it.
    assert pair.rank_biserial == pytest.approx((55 - 11) / 66)


def test_families_are_corrected_apart_from_each_other():
    rng = np.random.default_rng(0)
    names = [variant(k, BASE + rng.normal(0, 0.01, 24)) for k in "ABC"]
    comparison = compare_variants(
        design(*names, classes=("organ", "other"), metrics=("dice", "nsd"))
    )
    assert {pair.comparisons for pair in comparison.primary} == {3}
    sizes = {(p.metric, p.class_name): p.comparisons for p in comparison.descriptive}
    assert sizes == {("dice", "organ"): 6, ("dice", "other"): 6,
                     ("nsd", ""): 9, ("nsd", "organ"): 9, ("nsd", "other"): 9}  # fmt: skip
    assert {pair.outcome for pair in comparison.descriptive} == {"descriptive"}


def test_a_metric_that_nobody_has_gives_rows_without_numbers():
    names = [variant(k, BASE) for k in "AB"]
    (pair,) = compare_family(design(*names, metrics=("nsd",)), [Endpoint("nsd")])
    assert pair.n == 0
    assert math.isnan(pair.p_holm)
    assert math.isnan(pair.detectable)


def test_overall_names_a_variant_only_if_it_beats_all_others():
    best = variant("C", BASE + 0.03 + NOISE)
    middle = variant("B", BASE + NOISE[::-1])
    comparison = compare_variants(design(variant("A", BASE), middle, best))
    assert comparison.overall == "Overall: C is better than each of the other 2 variants."
    unclear = compare_variants(design(variant("A", BASE), middle, variant("D", BASE + NOISE)))
    assert unclear.overall == "Overall: no clear difference between any two of the 3 variants."
    split = compare_variants(design(variant("A", BASE), variant("B", BASE + 0.03 + NOISE),
                                    variant("C", BASE + 0.03 + NOISE[::-1])))  # fmt: skip
    assert split.overall == "Overall: 2 of 3 pairs differ; no variant is better than all others."
    few = compare_variants(design(*(variant(k, BASE[:4]) for k in "ABC")))
    assert few.overall == "Overall: too few cases to test any pair."
    assert compare_variants(design(variant("A", BASE), middle)).overall == ""


def test_cases_with_a_dice_of_0_are_counted_and_warned_of_where_cases_are_few():
    values = BASE.copy()
    values[3] = 0.0
    comparison = compare_variants(design(variant("A", BASE), variant("B", values)))
    assert [level.n_failed for level in comparison.levels] == [0, 1]
    (note,) = (note for note in comparison.notes if "below about 50 cases" in note)
    assert note.startswith(
        "Some cases have a Dice of 0 in a class: a structure was missed, invented or found elsewhere."
    )


def test_single_trainings_are_said_to_be_no_more():
    notes = compare_variants(design(variant("A", BASE), variant("B", BASE, BASE))).notes
    assert any(note.startswith("One training each of A:") for note in notes)


def test_one_case_gives_words_and_valid_json():
    comparison = compare_variants(design(variant("A", [0.5]), variant("B", [0.6])))
    assert comparison.primary[0].verdict == (
        "A, B: too few cases to test (1 case; one comparison needs at least 6); "
        "B minus A: 0.100 Dice."
    )
    assert strict_json(comparison.primary[0].ci_low) is None


def test_no_defined_case_gives_words():
    comparison = compare_variants(design(variant("A", [NAN, NAN]), variant("B", [NAN, NAN])))
    assert comparison.primary[0].outcome == "too few"
    assert comparison.rankings == ()
    assert math.isnan(comparison.levels[0].mean)
