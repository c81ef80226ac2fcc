"""The benchmark measures what it says."""

import json

import pytest

from medseg.core.errors import OptionError
from medseg.study import scoring
from medseg.study.benchmark import benchmark
from medseg.study.options import BenchmarkOptions


def test_a_table_of_bare_and_lightning_steps_is_written(tmp_path):
    options = BenchmarkOptions(("none", "group"), (8, 16), (8, 8, 8), 1, 2, tmp_path / "b.json")
    assert benchmark(options) == 0
    content = json.loads((tmp_path / "b.json").read_text())
    assert [row["norm"] for row in content["timings"]] == ["none", "group"]
    for row in content["timings"]:
        assert row["bare"] > 0
        assert row["overhead"] == pytest.approx(row["lightning"] / row["bare"] - 1)
    assert content["timings"][1]["parameters"] > content["timings"][0]["parameters"]


def test_wrong_requests_are_refused():
    with pytest.raises(OptionError, match="grup"):
        benchmark(BenchmarkOptions(("grup",)))
    with pytest.raises(OptionError, match="patch_size"):
        benchmark(BenchmarkOptions(patch_size=(8, 8)))


def test_reading_is_timed_against_nibabel(caplog):
    with caplog.at_level("INFO", logger="medseg"):
        assert benchmark(BenchmarkOptions(what="reading", steps=1)) == 0
    words = caplog.messages[-1].split()
    assert words[:2] == ["read_volume", "takes"]
    assert 0.1 < float(words[2]) < 10


def test_metrics_are_timed_against_monai_and_simpleitk(caplog, monkeypatch):
    monkeypatch.setattr(scoring, "SHAPE", (16, 32, 32))
    monkeypatch.setattr(scoring, "_RADIUS_MM", 9.0)
    with caplog.at_level("INFO", logger="medseg"):
        assert benchmark(BenchmarkOptions(what="metrics", steps=1)) == 0
    rows = {message.split()[0]: message.split() for message in caplog.messages}
    assert {"medseg", "MONAI", "SimpleITK"} <= set(rows)
    assert rows["medseg"][3:] == ["1.0", "times"]


def test_backends_are_timed_against_the_network_as_trained(tmp_path, caplog):
    options = BenchmarkOptions(("batch", "instance"), (8, 16), (8, 8, 8), 2, 2, tmp_path / "b.json",
                               what="backends")  # fmt: skip
    with caplog.at_level("INFO", logger="medseg"):
        assert benchmark(options) == 0
    rows = json.loads((tmp_path / "b.json").read_text())["windows"]
    assert {(row["norm"], row["backend"]) for row in rows} >= {
        (norm, backend) for norm in ("batch", "instance") for backend in ("as trained", "torch")
    }
    torch_ms = {row["norm"]: row["milliseconds"] for row in rows if row["backend"] == "torch"}
    for row in rows:
        assert row["milliseconds"] > 0
        assert row["speed"] == pytest.approx(torch_ms[row["norm"]] / row["milliseconds"])
        assert row["agreement"] >= 0.9999
    assert len([m for m in caplog.messages if m.startswith(("batch ", "instance "))]) == len(rows)
