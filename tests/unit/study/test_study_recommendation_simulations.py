"""Simulated studies: does the rule stay silent without a difference, and find one that is there?

The slow tests give the table of the rule; so does `medseg benchmark --what recommendation`.
"""

import json
import math
import sys
from dataclasses import astuple

import numpy as np
import pytest
from outcomes_builder import outcome, study

from medseg.cli import main
from medseg.core.paired import POWER, cases_needed, difference_interval, fewest_cases
from medseg.study.contrasts import Table
from medseg.study.recommendation import recommend
from medseg.study.rule_simulation import (
    BETTER,
    CASE_NORM_SD,
    KINDS,
    SEED_SD,
    behaviour,
    simulated,
)
from medseg.study.sample_size import Spread, needed, spread_of
from medseg.study.standing import stand

STUDIES = 1000


@pytest.mark.slow
@pytest.mark.parametrize(("gain", "cases", "seeds"), KINDS)
def test_the_rule_behaves(gain, cases, seeds):
    found = behaviour(gain, cases, seeds, STUDIES)
    sys.stdout.write(" ".join(f"{value:g}" for value in astuple(found)) + "\n")
    if seeds == 1:
        assert found.clear == found.slight == 0
    if gain == 0:
        assert found.clear <= 0.02
    if (gain, cases, seeds) == (0.02, 40, 3):
        assert found.right >= 0.7
    assert found.wrong <= 0.1


SPREAD = Spread(CASE_NORM_SD * math.sqrt(2), (SEED_SD, SEED_SD))


@pytest.mark.slow
@pytest.mark.parametrize(("difference", "seeds"), [(0.03, 3), (0.02, 3), (0.02, 10), (0.01, 3)])
def test_studies_of_the_size_that_is_said_to_be_needed_show_the_difference(
    difference, seeds, monkeypatch
):
    monkeypatch.setattr("medseg.study.rule_simulation.NORMS", ("batch", BETTER))
    size = needed(SPREAD, difference, (seeds, seeds))
    rng = np.random.default_rng(0)
    lows = []
    for _ in range(400):
        batch, better = simulated(difference, size.cases, size.seeds, rng)
        lows.append(difference_interval(batch.values, better.values).low)
    shown = np.mean(np.array(lows) > 0)
    sys.stdout.write(f"{difference:g} {seeds} {size} {shown:.3f}\n")
    assert shown == pytest.approx(POWER, abs=0.06)


def test_seeds_that_scatter_cannot_be_made_up_for_by_cases():
    assert SPREAD.power(0.005, math.inf, (3, 3)) < 0.2
    size = needed(SPREAD, 0.005, (3, 3))
    assert size.lacks_seeds
    assert size.seeds > 30  # 2 x 0.007 squared over 30 is the variance that 0.8 power allows
    assert SPREAD.power(0.005, size.cases, (size.seeds,) * 2) >= POWER
    assert SPREAD.power(0.005, size.cases - 1, (size.seeds,) * 2) < POWER


def test_seeds_that_do_not_scatter_leave_the_number_of_the_test_over_cases():
    assert needed(Spread(0.01, (0.0, 0.0)), 0.005, (3, 3), 4).cases == cases_needed(0.005, 0.01, 4)
    assert needed(Spread(0.0, (0.0, 0.0)), 0.005, (3, 3)).cases == fewest_cases()
    steady = Table("batch", (0, 1), np.full((2, 5), 0.8))
    assert needed(spread_of(steady, steady), 0.005, (2, 2)).seeds == 2
    one = Table("batch", (0,), np.full((1, 5), 0.8))
    assert spread_of(one, one) is None


def test_what_scatters_is_told_apart():
    """What a seed does to single cases is no effect of the seed on all: more cases even it out."""
    rng = np.random.default_rng(0)

    def table(norm):
        rest = rng.normal(0, 0.03, (4, 50)) + rng.normal(0, 0.01, (4, 1))
        return Table(norm, (0, 1, 2, 3), rng.normal(0, 0.02, 50) + rest)

    found = [spread_of(table("batch"), table("group")) for _ in range(200)]
    parts = [(spread.cases, spread.seeds[1], spread.rest[0]) for spread in found]
    expected = (0.02 * math.sqrt(2), 0.01, 0.03)
    assert np.sqrt(np.mean(np.square(parts), axis=0)) == pytest.approx(expected, rel=0.08)


def test_in_few_studies_a_gain_is_found_and_equal_norms_are_left_alone():
    assert behaviour(0.0, 20, 3, 40).clear == 0
    found = behaviour(0.03, 40, 3, 20)
    assert found.right >= 0.8
    assert found.wrong == 0
    assert found.clear + found.slight + found.undecided == pytest.approx(1)


def test_simulated_studies_have_the_spread_they_are_said_to_have():
    rng = np.random.default_rng(0)
    tables = [simulated(0.02, 50, 4, rng) for _ in range(100)]
    means = {t.norm: np.mean([v.values.mean() for s in tables for v in s if v.norm == t.norm]) for t in tables[0]}  # fmt: skip
    others = [mean for norm, mean in means.items() if norm != BETTER]
    assert means[BETTER] - np.mean(others) == pytest.approx(0.02, abs=0.002)
    seeds = [t.values.mean(axis=1).std(ddof=1) ** 2 for s in tables for t in s]
    assert np.sqrt(np.mean(seeds)) == pytest.approx(0.007, abs=0.0005)


def test_the_simulated_rule_is_the_rule_of_a_study():
    tables = simulated(0.03, 20, 3, np.random.default_rng(3))
    rows = [outcome(t.norm, row, seed=s) for t in tables for s, row in zip(t.seeds, t.values, strict=True)]  # fmt: skip
    assert recommend(study(rows), 2).standing == stand(tables)


def test_benchmark_shows_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("medseg.study.rule_simulation.KINDS", KINDS[:2])
    output = tmp_path / "rule.json"
    flags = ["--what", "recommendation", "--steps", "2", "--output", str(output)]
    assert main(["benchmark", *flags]) == 0
    rows = json.loads(output.read_text())["rows"]
    assert [(row["cases"], row["seeds"], row["studies"]) for row in rows] == [
        (10, 1, 2),
        (20, 3, 2),
    ]
    assert "undecided" in capsys.readouterr().err
