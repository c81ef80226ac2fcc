"""`medseg benchmark --what training` on a tiny network."""

import json

import pytest

from medseg.study.benchmark import benchmark
from medseg.study.options import BenchmarkOptions


def test_real_steps_stand_beside_the_bare_network(tmp_path, caplog):
    output = tmp_path / "times.json"
    options = BenchmarkOptions(
        what="training",
        norms=("instance",),
        channels=(8, 16),
        patch_size=(16, 16, 16),
        steps=6,
        output=output,
    )
    with caplog.at_level("INFO", logger="medseg"):
        assert benchmark(options) == 0
    (row,) = json.loads(output.read_text())["timings"]
    # A real step holds the bare one; tiny ones are mostly what Lightning adds.
    assert 0 < row["bare"] < 10 * row["plain"]
    assert row["augmented"] > 0.5 * row["plain"]
    for key in ("plain_shares", "augmented_shares"):
        assert sum(row[key].values()) == pytest.approx(1, abs=0.01)
        assert row[key]["validation"] == 0
    assert "instance, augmented: data" in caplog.text
