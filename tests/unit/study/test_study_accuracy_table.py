"""Every norm beside the baseline: differences, what they rest on, and the drop-in view."""

import math
from dataclasses import replace

import numpy as np
import pytest
from outcomes_builder import changed, noisy, outcome, study

from medseg.core.paired import difference_interval
from medseg.study.accuracy_table import accuracies, drop_in
from medseg.study.cost_table import costs
from medseg.study.measurements import CaseScores, Costs

BASE = np.linspace(0.7, 0.9, 20)


def test_differences_are_the_norm_minus_the_baseline():
    table = noisy({"group": 0.03, "batch": 0.0, "none": -0.03})
    baseline, group, none = accuracies(table, 2)
    assert [row.norm for row in (baseline, group, none)] == ["batch", "group", "none"]
    assert math.isnan(baseline.difference)
    assert math.isnan(baseline.p_holm)
    assert group.difference == pytest.approx(group.dice - baseline.dice)
    assert group.difference_low < group.difference < group.difference_high
    assert none.difference == pytest.approx(-0.03, abs=0.006)
    assert none.rank_biserial < 0 < group.rank_biserial
    assert group.wins + group.ties + group.losses == group.n == 40
    values = {n: np.array([o.scores.dice for o in table.outcomes if o.norm == n]) for n in ("batch", "group")}  # fmt: skip
    interval = difference_interval(values["batch"], values["group"])
    assert (group.difference_low, group.difference_high) == pytest.approx((interval.low, interval.high))  # fmt: skip


def test_p_values_are_corrected_for_all_norms_but_the_baseline():
    one = accuracies(noisy({"batch": 0.0, "group": 0.002}, seed=4), 2)[1]
    table = noisy({"batch": 0.0, "group": 0.002}, seed=4)
    alike = [replace(o, norm="layer") for o in table.outcomes if o.norm == "group"]
    two = accuracies(replace(table, outcomes=(*table.outcomes, *alike)), 2)
    assert [row.p_holm for row in two[1:]] == pytest.approx([min(1, 2 * one.p_holm)] * 2)


def test_ties_count_half_and_lost_structures_are_counted_by_seed():
    ours = CaseScores(tuple(BASE), missed=(1, *[0] * 19), class_dice={"organ": tuple(BASE)})
    theirs = CaseScores(tuple(BASE + np.where(np.arange(20) < 10, 0.01, 0.0)), missed=(0,) * 20)
    rows = [
        outcome("batch", ours, seed=0),
        outcome("batch", replace(ours, missed=(0,) * 20), seed=1),
        outcome("group", theirs, seed=0),
        outcome("group", theirs, seed=1),
    ]
    baseline, group = accuracies(study(rows), 2)
    assert (group.wins, group.ties, group.losses, group.p_better) == (10, 10, 0, 0.75)
    assert (baseline.missed, group.missed, group.invented) == (0.5, 0.0, None)
    assert baseline.class_dice == pytest.approx({"organ": 0.8})
    assert group.class_dice == {}


def test_a_diverged_network_keeps_its_dice_in_the_table():
    rows = [outcome("batch", BASE), outcome("none", 0 * BASE, status="diverged", choosing=0.0)]
    assert accuracies(study(rows), 2)[1].dice == 0


def test_intervals_end_where_no_dice_is():
    rows = [
        outcome(norm, BASE * worth, seed=s)
        for norm, seeds in (("batch", (1.0, 1.0)), ("group", (1.0, 0.0)))
        for s, worth in enumerate(seeds)
    ]
    _, group = accuracies(study(rows), 2)
    assert (group.ci_low, group.ci_high) == (0, 1)  # two seeds apart: the interval is very wide
    assert (group.difference_low, group.difference_high) == (-1, 1)


def test_drop_in_takes_the_rate_of_the_baseline_for_all():
    rows = [
        outcome(norm, BASE + gain, rate=rate, choosing=choosing)
        for norm, rate, choosing, gain in (
            ("batch", 0.1, 0.9, 0.0), ("batch", 0.01, 0.5, -0.1), ("group", 0.1, 0.5, -0.05), ("group", 0.01, 0.9, 0.05),
        )
    ]  # fmt: skip
    assert [row.learning_rate for row in accuracies(study(rows), 2)] == [0.1, 0.01]
    (baseline, group) = drop_in(study(rows), 2)
    assert baseline.learning_rate == group.learning_rate == 0.1
    assert group.difference == pytest.approx(-0.05)


def test_without_the_baseline_norms_stand_by_themselves():
    instance, layer = accuracies(noisy({"layer": 0.0, "instance": 0.02}), 2)
    assert (instance.norm, layer.norm) == ("instance", "layer")
    assert instance.ci_low < instance.dice < instance.ci_high
    assert math.isnan(instance.difference)
    assert math.isnan(layer.p_holm)
    assert len(accuracies(noisy({"group": 0.0}), 2)) == 1
    assert drop_in(noisy({"group": 0.0}), 2) == ()


def test_a_baseline_that_could_not_be_built_leaves_the_others_in_the_table():
    table = changed(noisy({"batch": 0.0, "none": 0.0}), batch={"status": "impossible", "scores": None})  # fmt: skip
    (none,) = accuracies(table, 2)
    assert none.norm == "none"


def test_costs_are_those_of_the_fastest_run_at_any_rate():
    measured = [
        Costs(seconds_per_step=t, folded_seconds=2 * t, peak_mib=m, parameters=7)
        for t, m in ((3.0, 10.0), (5.0, 12.0), (2.0, 11.0))
    ]
    rows = [outcome("batch", seed=s, costs=c) for s, c in enumerate((*measured, Costs()))]
    rows.append(outcome("batch", batch_size=8, costs=Costs(seconds_per_step=100.0)))
    rows.append(outcome("batch", rate=0.1, costs=Costs(seconds_per_step=1.5)))
    assert costs(study(rows), 2) == {
        "batch": Costs(seconds_per_step=1.5, folded_seconds=4.0, peak_mib=11.0, parameters=7)
    }
