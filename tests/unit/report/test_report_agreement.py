"""Bias and limits of agreement of volumes."""

import math

import numpy as np
import pytest

from medseg.core.runs import Score, write_scores
from medseg.report.agreement import (
    agreement,
    agreement_groups,
    in_percent,
    points,
    volume_pairs,
)
from medseg.report.sources import read_source


@pytest.fixture
def with_volumes(tmp_path):
    """Return a function that reads a score file of given reference and predicted volumes."""

    def make(*pairs):
        write_scores(
            tmp_path / "v.csv",
            [
                Score(f"c{i}", "", "node", f"volume_{side}_ml", value)
                for i, pair in enumerate(pairs)
                for side, value in zip(("ref", "pred"), pair, strict=True)
            ],
        )
        return read_source(tmp_path / "v.csv")

    return make


def test_bias_and_limits_are_those_of_bland_and_altman():
    found = agreement([-1, 0, 1, 2])
    sd = math.sqrt(5 / 3)
    assert found.n == 4
    assert found.bias == 0.5
    assert found.high == pytest.approx(0.5 + 1.96 * sd)
    assert found.low == pytest.approx(0.5 - 1.96 * sd)
    quantile = 3.182446  # Student's t of 3 degrees of freedom
    assert found.bias_half == pytest.approx(quantile * sd / 2, abs=1e-5)
    assert found.limit_half == pytest.approx(
        quantile * sd * math.sqrt(1 / 4 + 1.96**2 / 6), abs=1e-5
    )


def test_limits_cover_95_percent_of_normal_differences():
    found = agreement(np.random.default_rng(0).normal(3, 2, 20_000))
    assert (found.low, found.high) == pytest.approx((3 - 3.92, 3 + 3.92), abs=0.1)


def test_one_difference_has_no_limits():
    assert math.isnan(agreement([1.0]).bias)
    assert agreement([]).n == 0


def test_lost_structures_count_and_absent_ones_do_not(with_volumes):
    source = with_volumes((2, 0), (0, 1), (0, 0), (4, 5))
    pairs = volume_pairs(source, "node")
    assert pairs.tolist() == [[2, 0], [0, 1], [4, 5]]
    assert points(pairs, percent=False).tolist() == [[1, -2], [0.5, 1], [4.5, 1]]
    assert points(pairs, percent=True)[:, 1] == pytest.approx([-200, 200, 200 / 9])


def test_differences_that_grow_with_size_are_read_in_percent(with_volumes):
    growing = with_volumes(*((v, v * (1.1 if i % 2 else 0.9)) for i, v in enumerate(range(1, 20))))
    assert in_percent([growing]) == {"node": True}
    name, (row,) = agreement_groups([growing])[0]
    assert (name, row["unit"], row["n"]) == ("node", "%", "19")
    steady = with_volumes(
        *((v, v + (0.25 if i % 2 else -0.25)) for i, v in enumerate(range(1, 20)))
    )
    assert in_percent([steady]) == {"node": False}
    assert agreement_groups([steady])[0][1][0]["unit"] == "ml"
