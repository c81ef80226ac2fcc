"""The benchmarks of what folder inference keeps, on a small scale."""

import json

import pytest

from medseg.cli import main
from medseg.study import limits


@pytest.mark.slow
def test_endurance_counts_cases_memory_and_open_files(tmp_path):
    output = tmp_path / "found.json"
    assert main(["benchmark", "--what", "endurance", "--cases", "12", "--output", str(output)]) == 0
    found = json.loads(output.read_text())
    assert found["cases"] == 12
    assert found["first_rate"] > 0
    assert found["late_rss_bytes"] > 50 << 20
    assert found["early_files"] > 2


@pytest.mark.slow
def test_memory_is_measured_for_a_volume_under_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "HUGE", (96, 96, 128))
    monkeypatch.setattr(limits, "MAX_MEMORY", "1300MiB")
    output = tmp_path / "found.json"
    assert main(["benchmark", "--what", "memory", "--output", str(output)]) == 0
    found = json.loads(output.read_text())
    assert found["windows"] > 8
    assert found["pss_bytes"] < 1300 << 20
    assert found["worker_peak_bytes"] < 1300 << 20
