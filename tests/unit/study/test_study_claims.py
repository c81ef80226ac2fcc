"""Each claim of the literature against hand-made outcomes: supported, not supported, undecided."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from outcomes_builder import changed, curve, noisy, outcome, probed, study

from medseg.core.runs import strict_json
from medseg.study.claim_intervals import (
    SHARE,
    bootstrap_ratio_row,
    difference_row,
    mean_row,
    sd_ratio_row,
    sd_row,
)
from medseg.study.claim_rows import Row, conclude, decide
from medseg.study.claims import CLAIMS, judge_claims
from medseg.study.claims_dropout import with_dropout
from medseg.study.claims_network import batch_statistics, differs_from_peers, regularizes
from medseg.study.claims_scores import more_accurate
from medseg.study.claims_speed import faster
from medseg.study.claims_stability import less_sensitive, stabler
from medseg.study.claims_training import higher_rates, smoother
from medseg.study.curve_reading import at_common_count, first_reached, mean_until
from medseg.study.measurements import Curve, Probes
from medseg.study.recommendation import recommend

EMPTY = Row("quantity", "batch", 2, math.nan, against="none", primary=True)


def row_of(claim, quantity, norm="batch", against=""):
    (row,) = [r for r in claim.rows if (r.quantity, r.norm, r.against) == (quantity, norm, against)]
    return row


def trained(norm, curves, **others):
    return [outcome(norm, seed=s, curve=c, **others) for s, c in enumerate(curves)]


FAST, SLOW = (0.2, 0.6, 0.8, 0.8), (0.1, 0.3, 0.5, 0.8)


def test_a_level_is_reached_between_two_validations():
    assert first_reached(curve(FAST), 0.72, "samples") == pytest.approx(26.0)
    assert first_reached(curve(FAST), 0.72, "steps") == pytest.approx(13.0)
    assert first_reached(curve(FAST), 0.9, "samples") == math.inf
    assert first_reached(None, 0.1, "samples") == math.inf


def test_the_mean_of_a_curve_starts_at_0_and_counts_a_broken_one_as_0_afterwards():
    assert mean_until(curve((0.4, 0.8)), 20.0, "samples") == pytest.approx((2 + 6) / 20)
    assert mean_until(curve((0.4,)), 20.0, "samples") == pytest.approx(2 / 20)
    assert mean_until(curve((0.4, 0.8)), 15.0, "samples") == pytest.approx((2 + 2.5) / 15)


def jittered(dice, count=4):
    """Return curves that differ a little in when they rise."""
    return [curve(dice, every=10 + 0.1 * s) for s in range(count)]


def test_faster_training_is_a_ratio_of_times_to_the_level():
    claim = faster(study([*trained("batch", jittered(FAST)), *trained("none", jittered(SLOW))]))
    row = row_of(claim, "speed-up in samples to 90 % of the final Dice", against="none")
    assert row.value == pytest.approx((30 + 10 * 0.22 / 0.3) / 26, rel=1e-6)
    assert 1.1 < row.low < row.value < row.high
    assert claim.verdict == "supported"
    seconds = row_of(claim, "speed-up in seconds to 90 % of the final Dice", against="none")
    assert (seconds.value, seconds.low) == pytest.approx((row.value, row.low))


def test_the_unit_of_time_changes_no_ratio():
    slow, fast = (study([*trained("batch", [replace(c, seconds=tuple(k * x for x in c.seconds)) for c in jittered(FAST)]),
                         *trained("none", [replace(c, seconds=tuple(k * x for x in c.seconds)) for c in jittered(SLOW)])])
                  for k in (1.0, 3600.0))  # fmt: skip
    for a, b in zip(faster(slow).rows, faster(fast).rows, strict=True):
        if a.against:
            assert (a.value, a.low, a.high, a.decision) == pytest.approx((b.value, b.low, b.high, b.decision))  # fmt: skip


def test_a_level_that_is_not_reached_is_censored_and_the_speed_up_a_lower_bound():
    claim = faster(study([*trained("batch", jittered(FAST)), *trained("none", jittered((0.1, 0.2, 0.3, 0.4)))]))  # fmt: skip
    name = "samples to 90 % of the final Dice"
    assert row_of(claim, name, "none").value == pytest.approx(40)  # the end of the shortest curve
    assert row_of(claim, name, "none").method == "0 of 4 reached it; others count 40"
    contrast = row_of(claim, f"speed-up in {name}", against="none")
    assert contrast.method.startswith("at least: none never reached it")
    assert contrast.decision == "supported"


AT_ONCE = (0.79, 0.8, 0.8, 0.8)


@pytest.mark.parametrize(
    ("batch", "none", "method", "decision"),
    [
        (AT_ONCE, AT_ONCE, "none: both", "not decidable"),
        (AT_ONCE, SLOW, "at least: batch", "supported"),
        (SLOW, AT_ONCE, "at most: none", "not supported"),
        # Their time is an upper bound: how much faster batch norm is not known.
        ((0.1, 0.8, 0.8, 0.8), AT_ONCE, "at most: none", "not supported"),
    ],
)
def test_what_is_reached_before_the_first_validation_bounds_the_speed_up(
    batch, none, method, decision
):
    claim = faster(study([*trained("batch", jittered(batch)), *trained("none", jittered(none))]))
    row = row_of(claim, "speed-up in samples to 90 % of the final Dice", against="none")
    assert row.method.startswith(f"{method} reached it before the first validation")
    assert row.decision == decision


def test_a_speed_up_that_could_be_larger_is_not_called_too_small():
    early, late = [curve(AT_ONCE, every=40)] * 4, jittered((0.4, 0.6, 0.8, 0.8))
    found = {}
    for ours, theirs in ((early, late), (late, early)):
        claim = faster(study([*trained("batch", ours), *trained("none", theirs)]))
        row = row_of(claim, "speed-up in samples to 90 % of the final Dice", against="none")
        assert math.isfinite(row.value)
        found[row.method.split(":")[0]] = (row.value < 1, row.decision)
    assert found == {"at least": (True, "not decidable"), "at most": (False, "not decidable")}


def test_a_diverged_run_is_censored_too():
    broken = trained("none", [curve((0.1,))] * 4, status="diverged")
    claim = faster(study([*trained("batch", jittered(FAST)), *broken]))
    assert row_of(claim, "samples to 90 % of the final Dice", "none").value == pytest.approx(40)


def test_one_seed_decides_no_speed_and_the_setting_is_named():
    claim = faster(study([*trained("batch", jittered(FAST, 1)), *trained("none", jittered(SLOW, 1))]))  # fmt: skip
    assert claim.verdict == "not decidable with n = 1 seed"
    assert "grid.seed" in claim.because


def test_batch_sizes_are_read_at_the_largest_count_they_share_one_view_at_a_time():
    small = curve((0.4, 0.8), every=10, batch_size=1)
    large = curve((0.4, 0.8), every=40, batch_size=8)
    table = study([outcome("batch", batch_size=1, curve=small), outcome("batch", batch_size=8, curve=large)])  # fmt: skip
    by_samples = {r.batch_size: r.value for r in at_common_count(table, "samples")}
    assert by_samples == pytest.approx({1: 0.8, 8: 0.4})  # at 20: before large's first validation
    by_steps = {r.batch_size: r.value for r in at_common_count(table, "steps")}
    assert by_steps == pytest.approx({1: 0.4, 8: 0.8})  # at 10
    assert {r.quantity for r in at_common_count(table, "steps")} == {"validation Dice at 10 steps"}


def grid(norm, limit, *, rates=(0.01, 0.1, 1.0, 10.0), seeds=3, good=0.8, cases=1):
    """Return runs that diverge above a learning rate."""
    return [
        outcome(norm, [good + 0.01 * s] * cases, rate=rate, seed=s, choosing=good - 0.001 * i if rate <= limit else None,
                status="finished" if rate <= limit else "diverged")
        for i, rate in enumerate(rates) for s in range(seeds)
    ]  # fmt: skip


def test_divergence_is_counted_over_learning_rates_and_seeds_with_exact_intervals():
    claim = stabler(study([*grid("batch", 10.0), *grid("none", 0.1)]))
    ours, theirs = (row_of(claim, "rate of divergence", n) for n in ("batch", "none"))
    assert (ours.value, ours.low, ours.n) == (0, 0, 12)
    assert ours.high == pytest.approx(1 - 0.025 ** (1 / 12))  # Clopper-Pearson of 0 of 12
    assert theirs.value == 0.5
    contrast = row_of(claim, "difference in rate of divergence", against="none")
    assert contrast.p == pytest.approx(0.01373, abs=1e-4)  # Fisher: 0 of 12 against 6 of 12
    assert claim.verdict == "supported"


def test_only_learning_rates_that_both_norms_were_tried_at_are_compared():
    claim = stabler(study([*grid("batch", 1.0, rates=(0.01, 0.1, 1.0)), *grid("none", 1.0)]))
    contrast = row_of(claim, "difference in rate of divergence", against="none")
    assert (contrast.value, contrast.n) == (0.0, 9)


def test_the_spread_over_seeds_has_its_interval():
    row = sd_row("SD", "batch", 2, [0.8, 0.81, 0.82])
    assert row.value == pytest.approx(0.01)
    assert (row.low, row.high) == pytest.approx((0.00521, 0.06285), abs=1e-4)  # chi-squared, 2 df
    equal = [0.1 + 0.2, 0.3, 0.3]  # they differ by rounding only
    assert math.isnan(sd_ratio_row(EMPTY, equal, [0.7, 0.8, 0.9], -1).value)
    ratio = sd_ratio_row(EMPTY, [0.8, 0.81, 0.82], [0.7, 0.8, 0.9], -1)
    assert ratio.value == pytest.approx(0.1)
    assert (ratio.low, ratio.high) == pytest.approx((0.1 / math.sqrt(39), 0.1 * math.sqrt(39)))


def test_the_highest_stable_learning_rate_is_compared():
    claim = higher_rates(study([*grid("batch", 1.0), *grid("none", 0.01)]))
    row = row_of(claim, "ratio of the highest stable learning rate", against="none")
    assert row.value == pytest.approx(100)
    assert claim.verdict == "supported"
    assert row_of(claim, "tolerance in decades").value == pytest.approx(2)


def test_the_same_highest_learning_rate_does_not_support_the_claim():
    assert higher_rates(study([*grid("batch", 1.0), *grid("none", 1.0)])).verdict == "not supported"


def test_a_grid_that_ends_too_early_decides_nothing():
    claim = higher_rates(study([*grid("batch", 10.0), *grid("none", 10.0)]))
    assert claim.verdict == "not decidable with n = 3 seeds"
    assert "grid.learning_rate" in claim.because


def test_two_learning_rates_are_too_few():
    rates = (0.01, 0.1)
    table = study([*grid("batch", 0.1, rates=rates), *grid("none", 0.01, rates=rates)])
    assert higher_rates(table).verdict.startswith("not decidable")


def test_a_lead_that_hangs_on_one_seed_is_not_decided():
    rows = [
        replace(o, status="diverged", choosing=None) if (o.learning_rate, o.seed) == (1.0, 2) else o
        for o in grid("none", 1.0)
    ]
    claim = higher_rates(study([*grid("batch", 1.0), *rows]))
    assert row_of(claim, "ratio of the highest stable learning rate", against="none").value == pytest.approx(10)  # fmt: skip
    assert claim.verdict.startswith("not decidable")


def test_learning_rates_that_were_halved_away_decide_nothing():
    rows = [replace(o, status="halved") if o.status == "diverged" else o for o in grid("none", 0.1)]
    claim = higher_rates(study([*grid("batch", 1.0), *rows]))
    assert claim.verdict.startswith("not decidable")


def test_more_accurate_needs_test_and_interval_and_reports_the_loss_as_well():
    assert more_accurate(noisy({"batch": 0.03, "none": 0.0, "group": 0.0})).verdict == "supported"
    lost = more_accurate(noisy({"batch": 0.0, "none": 0.03}))
    assert lost.verdict == "not supported"
    row = row_of(lost, "difference in Dice", against="none")
    assert row.value == pytest.approx(-0.03, abs=0.006)
    assert row.high < 0
    assert (row.n, row.of) == (40, "cases")


def test_accuracy_that_is_the_same_within_what_matters_is_no_support():
    claim = more_accurate(noisy({"batch": 0.0, "none": 0.0}, case_sd=0.001, seed_sd=0.0002))
    assert claim.verdict == "not supported"


def test_accuracy_with_noise_larger_than_what_matters_is_not_decidable():
    claim = more_accurate(noisy({"batch": 0.0, "none": 0.0}, case_sd=0.03))
    assert claim.verdict == "not decidable with n = 40 cases"
    assert "more reporting cases" in claim.because


def test_one_seed_decides_no_accuracy():
    claim = more_accurate(noisy({"batch": 0.1, "none": 0.0}, seeds=1))
    assert claim.verdict.startswith("not decidable")


def test_the_verdict_is_about_the_network_without_a_norm_where_there_is_one():
    table = noisy({"batch": 0.02, "none": 0.0, "group": 0.04})
    assert more_accurate(table).verdict == "supported"
    without = replace(table, outcomes=tuple(o for o in table.outcomes if o.norm != "none"))
    assert more_accurate(without).verdict == "not supported"
    assert row_of(more_accurate(table), "difference in Dice", against="group").decision == "not supported"  # fmt: skip


def test_smoother_is_a_ratio_of_roughness():
    rows = [*probed("batch", [1, 1.1, 0.9], name="roughness"), *probed("none", [4, 4.4, 3.6], name="roughness")]  # fmt: skip
    claim = smoother(study(rows))
    row = row_of(claim, "ratio of roughness of the loss at a learning rate of 0.01", against="none")
    assert row.value == pytest.approx(0.25)
    assert row.high < 1 / 1.1
    assert claim.verdict == "supported"


def test_smoothness_is_compared_at_one_learning_rate():
    """At its own larger rate batch norm is as rough; at that of the other it is smoother."""
    rough = {("batch", 0.1): 4.0, ("batch", 0.01): 1.0, ("none", 0.01): 4.0, ("none", 0.1): 90.0}
    best = {("batch", 0.1), ("none", 0.01)}
    rows = [
        outcome(norm, seed=s, rate=rate, choosing=0.8 if (norm, rate) in best else 0.5,
                probes=Probes(roughness=r * x))
        for (norm, rate), r in rough.items() for s, x in enumerate((1.0, 1.1, 0.9))
    ]  # fmt: skip
    claim = smoother(study(rows))
    row = row_of(claim, "ratio of roughness of the loss at a learning rate of 0.01", against="none")
    assert row.value == pytest.approx(0.25)
    assert claim.verdict == "supported"


def test_of_two_numbers_that_disagree_one_against_the_claim_is_enough():
    table = study([
        outcome(norm, seed=s, probes=Probes(roughness=r * x, effective_beta=x / r))
        for norm, r in (("batch", 1.0), ("none", 4.0)) for s, x in enumerate((1.0, 1.1, 0.9))
    ])  # fmt: skip
    claim = smoother(table)
    assert claim.verdict == "not supported"
    assert "roughness" in claim.because
    assert "effective beta" in claim.because


def test_a_study_without_probes_names_the_setting():
    claim = smoother(noisy({"batch": 0.0, "none": 0.0}))
    assert claim.verdict == "not decidable with n = 0 seeds"
    assert (
        claim.because == "The study did not measure it: probes: true, and more values of grid.seed."
    )


def scales(norm, finals):
    return [
        outcome(norm, [dice + 0.001 * s], seed=s, init_scale=scale)
        for scale, dice in zip((0.25, 1.0, 4.0), finals, strict=True) for s in range(3)
    ]  # fmt: skip


def test_sensitivity_to_the_start_is_a_spread_over_seeds_and_scales():
    claim = less_sensitive(study([*scales("batch", (0.80, 0.80, 0.80)), *scales("none", (0.2, 0.8, 0.5))]))  # fmt: skip
    assert row_of(claim, "range of the final Dice over seeds and initial scales at a learning rate of 0.01", "none").value == pytest.approx(0.602)  # fmt: skip
    assert claim.verdict == "supported"
    assert "grid.init_scale" in less_sensitive(noisy({"batch": 0.0, "none": 0.0})).because


def test_regularization_is_a_smaller_gap_at_the_end():
    rows = [
        outcome(norm, seed=s, choosing=0.80 + 0.001 * s, probes=Probes(train_dice=train))
        for norm, train in (("batch", 0.82), ("none", 0.95)) for s in range(3)
    ]  # fmt: skip
    claim = regularizes(study(rows))
    row = row_of(claim, "final gap of training to validation Dice", against="none")
    assert row.value == pytest.approx(-0.13)
    assert claim.verdict == "supported"


def test_the_gap_is_read_at_matched_training_dice_where_curves_tell_it():
    # none trains further, so its final gap is larger; at the same training Dice both are alike
    ours = [curve((0.5 + 0.001 * s, 0.7), train=(0.6, 0.8)) for s in range(3)]
    theirs = [curve((0.5 + 0.001 * s, 0.7, 0.72), train=(0.6, 0.8, 0.99)) for s in range(3)]
    claim = regularizes(study([*trained("batch", ours), *trained("none", theirs)]))
    row = row_of(claim, "gap of training to validation Dice at training Dice 0.8", against="none")
    assert row.value == pytest.approx(0)
    assert claim.verdict == "not supported"


def two_by_two(costs, case_sd=0.002):
    """Return a study with dropout 0 and 0.2, which costs each norm some Dice."""
    plain = noisy(dict.fromkeys(costs, 0.0), case_sd=case_sd)
    dropped = noisy({n: -cost for n, cost in costs.items()}, case_sd=case_sd, dropout=0.2)
    return replace(plain, outcomes=(*plain.outcomes, *dropped.outcomes))


def test_dropout_is_judged_by_its_interaction_with_the_norm():
    harmful = with_dropout(two_by_two({"batch": 0.05, "none": 0.0}))
    row = row_of(harmful, "interaction with dropout 0.2 at a learning rate of 0.01", against="none")
    assert row.value == pytest.approx(-0.05, abs=0.003)
    assert harmful.verdict == "not supported"
    assert row_of(harmful, "Dice with dropout 0.2 minus without at a learning rate of 0.01").value == pytest.approx(-0.05, abs=0.003)  # fmt: skip
    # that it costs all norms the same does not speak against batch norm
    assert with_dropout(two_by_two({"batch": 0.05, "none": 0.05})).verdict == "supported"
    assert "grid.dropout" in with_dropout(noisy({"batch": 0.0, "none": 0.0})).because


def test_batch_statistics_are_seen_in_the_noise_of_batch_mates():
    rows = [
        outcome("batch", seed=s, probes=Probes(batch_mate_noise=0.3, gamma_sd=0.1))
        for s in range(3)
    ]
    assert batch_statistics(study(rows)).verdict == "supported"
    silent = changed(study(rows), batch={"probes": Probes(batch_mate_noise=0.0, gamma_sd=0.1)})
    assert batch_statistics(silent).verdict == "not supported"
    alone = [replace(o, batch_size=1) for o in rows]
    assert batch_statistics(study(alone)).verdict.startswith("not decidable")


def test_one_difference_is_enough_to_differ_from_instance_and_layer_norm():
    rows = [
        outcome(norm, seed=s, probes=Probes(batch_mate_noise=noise, window_sensitivity=0.0))
        for norm, noise in (("batch", 0.3), ("instance", 0.0), ("layer", 0.0)) for s in range(3)
    ]  # fmt: skip
    assert differs_from_peers(study(rows)).verdict == "supported"
    half = [replace(o, probes=rows[0].probes) if o.norm == "layer" else o for o in rows]
    assert differs_from_peers(study(half)).verdict == "not supported"  # it is like layer norm
    alike = changed(study(rows), batch={"probes": Probes(batch_mate_noise=0.0)})
    assert differs_from_peers(alike).verdict == "not supported"
    # What is the same for sure says nothing against a difference that is not sure yet.
    noise = {0: 0.1, 1: 0.0, 2: -0.09}
    unsure = [
        replace(o, probes=replace(o.probes, batch_mate_noise=noise[o.seed]))
        if o.norm == "batch"
        else o
        for o in rows
    ]
    assert differs_from_peers(study(unsure)).verdict.startswith("not decidable")


@pytest.mark.parametrize(
    ("low", "high", "decision"),
    [(0.1, 0.3, "supported"), (-0.3, -0.1, "not supported"), (-0.1, 0.3, "not decidable"),
     (-0.04, 0.05, "not supported"), (math.nan, math.nan, "not decidable"), (0.01, 0.02, "supported")],
)  # fmt: skip
def test_an_interval_decides_only_where_it_excludes_something(low, high, decision):
    assert decide(low, high, 1, margin=0.05) == decision
    assert decide(-high, -low, -1, margin=0.05) == decision


def test_intervals_over_seeds_are_welchs():
    row = difference_row(EMPTY, [0.80, 0.82, 0.84], [0.70, 0.70, 0.73], 1, 0.0)
    assert row.value == pytest.approx(0.11)
    assert (row.low, row.high) == pytest.approx((0.0663, 0.1537), abs=2e-3)
    constant = difference_row(EMPTY, [0.3, 0.3], [0.0, 0.0], 1, 0.0)
    assert (constant.low, constant.high) == pytest.approx((0.3, 0.3))


def test_a_resampled_ratio_covers_more_than_the_range_of_few_seeds():
    row = bootstrap_ratio_row(EMPTY, [20.0, 22.0, 24.0], [10.0, 11.0, 12.0], 1)
    assert row.value == pytest.approx(2.0)
    assert row.low < 20 / 12
    assert row.high > 24 / 10


def test_a_claim_that_one_batch_size_refutes_is_not_supported():
    rows = [replace(EMPTY, value=1.0, n=3, batch_size=b, decision=d) for b, d in ((1, "not supported"), (8, "supported"))]  # fmt: skip
    claim = conclude("name", "statement", rows, "setting")
    assert claim.verdict == "not supported"
    assert "batch size 8" in claim.because


def test_every_claim_stands_in_json_whatever_was_measured():
    for table in (noisy({"batch": 0.0, "none": 0.0}), noisy({"group": 0.0}), study([])):
        claims = judge_claims(table)
        assert len({claim.name for claim in claims}) == len(CLAIMS) == 10
        assert all(claim.because for claim in claims)
        json.dumps(strict_json([asdict(claim) for claim in claims]), allow_nan=False)


def test_a_study_without_the_baseline_says_what_is_missing():
    for claim in judge_claims(noisy({"group": 0.0, "none": 0.0})):
        assert claim.verdict.startswith("not decidable")
        assert claim.because == "The study has no network with batch norm: grid.norm must name it."


def test_the_order_of_outcomes_changes_no_claim():
    table = two_by_two({"batch": 0.05, "none": 0.0})
    table = replace(table, outcomes=(*table.outcomes, *grid("layer", 0.1, cases=40)))
    order = np.random.default_rng(0).permutation(len(table.outcomes))
    again = replace(table, outcomes=tuple(table.outcomes[i] for i in order))
    assert json.dumps(strict_json([asdict(c) for c in judge_claims(again)])) == json.dumps(
        strict_json([asdict(c) for c in judge_claims(table)])
    )


def test_a_curve_is_read_in_each_of_its_units():
    read = Curve((10, 20), (5, 10), (3.0, 6.0), (0.0, 1.0))
    assert [first_reached(read, 0.5, view) for view in ("samples", "steps", "seconds")] == [15, 7.5, 4.5]  # fmt: skip


def test_networks_that_all_diverged_do_not_lack_cases():
    table = changed(noisy({"batch": 0.0, "none": 0.0}), batch={"status": "diverged", "scores": None})  # fmt: skip
    claim = more_accurate(table)
    assert claim.because == (
        "The study did not measure it: scores of batch norm at batch size 2 (3 of 3 seeds diverged "
        "at 0.01, its best learning rate)."
    )
    lonely = changed(table, batch={"status": "finished", "scores": table.outcomes[-1].scores}, none={"scores": None})  # fmt: skip
    assert "scores of any other norm at batch size 2" in more_accurate(lonely).because


def test_what_norms_do_at_their_own_rate_is_open_while_that_rate_may_be_another():
    table = noisy({"batch": 0.03, "none": 0.0})
    lost = replace(table.outcomes[-1], learning_rate=0.1, status="failed", scores=None)
    assert more_accurate(table).verdict == "supported"
    claim = more_accurate(replace(table, outcomes=(*table.outcomes, lost)))
    row = row_of(claim, "difference in Dice", against="none")
    assert row.method.endswith("; not all learning rates are known")
    assert claim.verdict.startswith("not decidable")
    assert "To decide it: the runs that failed or are missing, more reporting" in claim.because


def test_a_run_that_diverged_keeps_its_dice_where_all_are_read_at_one_count():
    """Left out, it would leave the mean to the seeds that survived."""
    whole = trained("group", [curve((0.5, 0.8))] * 2)
    for broken in (curve((0.4, 0.0)), curve((0.4, math.nan)), curve((0.4,)), None):
        lost = outcome("group", seed=2, status="diverged", choosing=0.0, curve=broken)
        (row,) = at_common_count(study([*whole, lost]), "samples")
        assert row.value == pytest.approx(1.6 / 3)
        assert (row.n, row.low, row.high) == (3, 0, 1)
        assert row.method == "t; 1 diverged"


def test_norms_of_which_a_finished_run_has_no_curve_are_read_at_no_count():
    rows = [*trained("group", [curve((0.5, 0.8)), None]), *trained("batch", [curve((0.5, 0.8))])]
    assert [row.norm for row in at_common_count(study(rows), "samples")] == ["batch"]


def test_a_probe_of_a_run_that_diverged_counts_where_there_is_one():
    rows = probed("batch", [1.0, 1.2, 9.0, math.nan], name="roughness")
    rows[2], rows[3] = (replace(o, status="diverged") for o in rows[2:])
    row = row_of(smoother(study(rows)), "roughness of the loss")
    assert (row.value, row.n) == (pytest.approx(11.2 / 3), 3)
    assert row.method == "t; 1 diverged"
    unmeasured = replace(rows[0], probes=Probes())
    assert smoother(study([unmeasured, *rows[1:]])).rows == ()


def test_a_run_that_diverged_does_not_lower_the_training_dice_that_gaps_are_matched_at():
    ours = [curve((0.5, 0.7), train=(0.6, 0.8))] * 3
    theirs = trained("none", [curve((0.5, 0.6), train=(0.6, 0.8))] * 3)
    theirs[2] = replace(theirs[2], status="diverged", curve=curve((0.0, 0.0), train=(0.1, 0.0)))
    claim = regularizes(study([*trained("batch", ours), *theirs]))
    row = row_of(claim, "gap of training to validation Dice at training Dice 0.8", against="none")
    assert (row.value, row.n) == (pytest.approx(-0.1), 2)


def test_no_interval_reaches_where_its_quantity_cannot_be():
    share = mean_row("Dice", "batch", 2, [0.2, 0.85], SHARE)
    assert (share.low, share.high) == (0, 1)
    wide = trained("none", [curve(FAST), curve((0.1, 0.1, 0.1, 0.1))])
    claim = faster(study([*trained("batch", jittered(FAST, 2)), *wide]))
    times = row_of(claim, "samples to 90 % of the final Dice", "none")
    assert (times.low, times.high) == (0, 40)
    assert row_of(claim, "mean validation Dice over samples", "none").low == 0
    gap = difference_row(EMPTY, [0.9, 0.0], [0.0, 0.3], 1, 0.0, SHARE)
    assert (gap.low, gap.high) == (-1, 1)
    sd = sd_row("SD", "batch", 2, [0.8, 0.6], SHARE)
    assert sd.high == 0.5  # the widest scatter of shares: half of them 0, half 1


def test_differences_in_dice_end_where_dice_does():
    base = np.linspace(0.7, 0.9, 20)
    rows = [
        outcome(norm, base * worth, seed=s, dropout=dropout)
        for norm, dropout, seeds in (
            ("batch", 0.0, (1.0, 1.0)), ("none", 0.0, (1.0, 0.0)),
            ("batch", 0.2, (1.0, 1.0)), ("none", 0.2, (0.0, 1.0)),
        )
        for s, worth in enumerate(seeds)
    ]  # fmt: skip
    plain = row_of(more_accurate(study(rows)), "difference in Dice", against="none")
    assert (plain.low, plain.high) == (-1, 1)
    claim = with_dropout(study(rows))
    (effect,) = [row for row in claim.rows if row.norm == "none" and "minus" in row.quantity]
    assert (effect.low, effect.high) == (-1, 1)
    (both,) = [row for row in claim.rows if row.against]
    assert (both.low, both.high) == (-2, 2)
    contrast = recommend(study(rows), 2).standing.contrasts[0]
    assert (contrast.ci_low, contrast.ci_high) == (-1, 1)


def full_profile(best, cost=0.0):
    """Return two norms at three rates, each 0.02 worse a step from its best; variants at 0.003."""
    rates, base, rng = (0.001, 0.003, 0.01), np.linspace(0.7, 0.9, 20), np.random.default_rng(0)
    rows = []
    for norm, place in best.items():
        for i, rate in enumerate(rates):
            variants = ({}, {"dropout": 0.2}, {"init_scale": 0.25}, {"init_scale": 4.0})
            for what in variants[: 4 if i == 1 else 1]:
                lost = 0.02 * abs(i - place) + cost * (norm == "batch" and "dropout" in what)
                rows += [
                    outcome(norm, base - lost + rng.normal(0, 0.001, 20), rate=rate, seed=s, choosing=0.8 - lost, **what)
                    for s in range(3)
                ]  # fmt: skip
    return study(rows)


def test_dropout_is_not_charged_with_another_learning_rate():
    for best in ({"batch": 2, "none": 0}, {"batch": 1, "none": 2}):
        claim = with_dropout(full_profile(best))
        for norm in best:
            row = row_of(claim, "Dice with dropout 0.2 minus without at a learning rate of 0.003", norm)  # fmt: skip
            assert row.value == pytest.approx(0, abs=0.002)
        assert claim.verdict == "supported"
    # none has its best rate elsewhere, and batch norm does lose Dice
    assert with_dropout(full_profile({"batch": 1, "none": 2}, cost=0.01)).verdict == "not supported"


def test_dropout_is_compared_at_the_best_of_the_rates_that_have_it_for_each_norm():
    rows = [
        outcome(norm, [0.8, 0.81], rate=rate, seed=s, dropout=d, choosing=0.8 if rate == best else 0.7)
        for norm, best in (("batch", 0.1), ("none", 0.01)) for rate in (0.01, 0.1) for s in range(2) for d in (0.0, 0.2)
    ]  # fmt: skip
    claim = with_dropout(study(rows))
    name = "interaction with dropout 0.2 at learning rates of 0.1 and 0.01"
    assert row_of(claim, name, against="none").value == 0
    fewer = [o for o in rows if (o.learning_rate, o.seed, o.dropout) != (0.1, 1, 0.2)]
    assert "at a learning rate of 0.01" in with_dropout(study(fewer)).because


def test_initial_scales_are_compared_at_a_rate_that_has_them_all():
    claim = less_sensitive(full_profile({"batch": 2, "none": 0}))
    name = "SD of the final Dice over seeds and initial scales at a learning rate of 0.003"
    assert {row_of(claim, name, norm).n for norm in ("batch", "none")} == {9}
    contrast = row_of(claim, f"ratio of {name}", against="none")
    assert (contrast.n, contrast.of) == (9, "runs")
    table = full_profile({"batch": 2, "none": 0})
    lost = [replace(o, status="failed", scores=None) if (o.norm, o.init_scale) == ("none", 4.0) else o for o in table.outcomes]  # fmt: skip
    rows = less_sensitive(replace(table, outcomes=tuple(lost))).rows
    assert {row.norm for row in rows} == {"batch"}  # its three scales have nothing to stand against
