"""The numbers of the report, against numbers made by hand."""

import json
import math

import numpy as np
import pytest

from medseg.core.statistics import mean_interval
from medseg.report.cost import cost_rows
from medseg.report.metric_table import metric_groups, metric_rows
from medseg.report.sources import read_source
from medseg.report.tables import (
    case_rows,
    class_groups,
    definition_note,
    definitions,
    foreground_dice,
    number,
    run_rows,
)

T_2 = 4.302653
"""Student's t of 2 degrees of freedom, 97.5 %."""

NAN = math.nan


def rows_of(source, class_name):
    return dict(class_groups([source]))[class_name]


def test_the_foreground_mean_is_over_cases_then_classes(make_source):
    estimate = foreground_dice(make_source())
    assert estimate.mean == pytest.approx((0.8 + 0.4) / 2)
    cases = np.array([0.7, 0.7, 0.4])
    half = T_2 * cases.std(ddof=1) / math.sqrt(3)
    assert estimate.low == pytest.approx(0.6 - half, abs=1e-5)
    assert 0.6 + half > 1
    assert estimate.high == 1


def test_from_twenty_cases_the_interval_is_a_bootstrap_of_the_cases(make_source):
    dice = {f"{i:02d}": (0.95 - 0.02 * i, 0.9 - 0.01 * i) for i in range(20)}
    estimate = foreground_dice(make_source(cases=dice))
    by_core = mean_interval([sum(pair) / 2 for pair in dice.values()])
    assert by_core.method == "BCa bootstrap"
    assert estimate.low == pytest.approx(by_core.low, abs=0.005)


def test_a_class_that_few_cases_have_moves_the_interval_with_the_mean(make_source):
    dice = {"a": (0.90, 0.1), "b": (0.92, 0.3), "c": (0.91, NAN), "d": (0.93, NAN), "e": (NAN, NAN)}
    estimate = foreground_dice(make_source(cases=dice))
    assert estimate.mean == pytest.approx((0.915 + 0.2) / 2)
    # each case's share in that mean: liver weighs 4/4, lesion 4/2; case e has no share
    shares = 0.5575 + np.array([-0.015 - 0.1 * 2, 0.005 + 0.1 * 2, -0.005, 0.015]) / 2
    assert shares.mean() == pytest.approx(estimate.mean)
    half = 3.182446 * shares.std(ddof=1) / 2  # Student's t of 3 degrees of freedom
    assert estimate.low == pytest.approx(estimate.mean - half, abs=1e-5)


def test_the_row_of_a_run_counts_what_it_lost(make_source):
    (row,) = run_rows([make_source()])
    assert row["dice"].startswith("0.600 [")
    assert (row["missed"], row["invented"]) == ("1", "0")


def test_the_table_of_costs_shows_what_is_known(make_run, write_score_file):
    run = make_run()
    journal = run / "predictions" / "predictions.jsonl"
    lines = [{"case_id": c, "status": "ok", "seconds": s} for c, s in (("a", 1.0), ("b", 4.0))]
    journal.write_text("\n".join(map(json.dumps, lines)))
    (row,) = cost_rows([read_source(run)])
    assert row["parameters"] == "1,234,567"
    assert row["seconds"] == "61"
    assert row["rate"] == "0.122"
    assert row["memory"] == "800"
    assert row["batch"] == "–"
    assert (row["predicted"], row["median"], row["slowest"]) == ("2", "2.50", "4.00")
    assert cost_rows([read_source(write_score_file("scores_alone.csv"))]) == []


def test_every_metric_has_its_mean_quartiles_and_range(make_source):
    rows = {(r.class_name, r.metric): r for r in metric_rows([make_source()])}
    dice, distance = rows["liver", "dice"], rows["lesion", "hd95_mm"]
    assert (dice.lowest, dice.summary.median, dice.highest) == (0.7, 0.8, 0.9)
    assert (distance.lowest, distance.highest) == (3.0, math.inf)
    assert distance.summary.n == 2
    name, label, (cells,) = metric_groups([distance])[0]
    assert (name, label) == ("lesion", "HD95, mm")
    assert cells["range"] == "3.000 to ∞"


def test_a_missed_structure_is_counted_and_keeps_its_zero(make_source):
    (row,) = rows_of(make_source(), "lesion")
    assert row["dice"].startswith("0.400 [")
    assert row["n"] == "3"
    assert row["missed"] == "1 of 3 [6, 79]"  # Wilson: 0.4269 ± 0.3654
    assert row["invented"] == "–"
    assert row["hd95"] == "3.00"


def test_structures_are_missed_among_those_that_are_there(make_source):
    (row,) = rows_of(make_source(cases={"a": (1, 0.5), "b": (1, 0), "c": (1, NAN)}), "lesion")
    assert row["n"] == "2"
    assert row["missed"] == "1 of 2 [9, 91]"
    assert row["invented"] == "0 of 1 [0, 79]"


def test_a_median_is_infinite_if_most_structures_are_lost(make_source):
    (row,) = rows_of(make_source(cases={"a": (1, 0), "b": (1, 0), "c": (1, 0.5)}), "lesion")
    assert row["hd95"] == "∞"
    assert row["nsd"] == "0.167"


def test_cases_that_trained_the_network_enter_no_figure(make_source):
    source = make_source(trained=("a",))
    assert source.case_ids == ("b", "c")
    assert source.trained == 1
    assert foreground_dice(source).mean == pytest.approx((0.75 + 0.35) / 2)
    assert {row["case"] for row in case_rows([source])} == {"b", "c"}


def test_without_volumes_a_dice_of_zero_is_neither_missed_nor_present(write_score_file):
    source = read_source(write_score_file("dice.csv", metrics=("dice",)))
    assert source.status("a", "lesion") == "present"
    assert source.status("c", "lesion") == "unknown"
    assert rows_of(source, "lesion")[0]["missed"] == "–"
    assert rows_of(source, "liver")[0]["missed"] == "0 of 3 [0, 56]"


def test_a_case_has_a_row_for_each_class(make_source):
    rows = {(row["case"], row["class"]): row for row in case_rows([make_source()])}
    assert len(rows) == 6
    assert rows["c", "lesion"]["status"] == "missed"
    assert rows["c", "lesion"]["hd95"] == "∞"
    assert rows["c", "lesion"]["difference"] == "−2.000"
    assert rows["a", "liver"]["dice"] == "0.900"


def test_definitions_are_those_of_the_scores(make_source):
    theirs = make_source(summary={"definitions": {"nsd": "their own NSD"}})
    assert dict(definitions([theirs]))["NSD"] == "their own NSD"
    assert dict(definitions([theirs]))["Dice"] == "2 |R ∩ P| / (|R| + |P|)"
    assert definition_note([theirs]) == ""


def test_scores_without_a_definition_are_said_to_be(write_score_file):
    alone = read_source(write_score_file("other_tool.csv"))
    assert "do not say by which definitions" in definition_note([alone])


@pytest.mark.parametrize(
    ("value", "text"),
    [(NAN, "–"), (None, "–"), ("x", "–"), (math.inf, "∞"), (-1.25, "−1.2"), (12345.6, "12,345.6")],
)
def test_numbers_are_written_for_people(value, text):
    assert number(value, 1) == text
