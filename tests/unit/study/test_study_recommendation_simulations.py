"""Simulated studies: does the rule stay silent without a difference, and find one that is there?

The slow tests give the table of the rule; so does `medseg benchmark --what recommendation`.
"""

import json
import sys
from dataclasses import astuple

import numpy as np
import pytest
from outcomes_builder import outcome, study

from medseg.cli import main
from medseg.study.recommendation import recommend
from medseg.study.rule_simulation import BETTER, KINDS, behaviour, simulated
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
