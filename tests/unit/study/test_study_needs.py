"""Memory and seconds that a study asks for before it starts."""

from dataclasses import replace

import pytest

from medseg.core.errors import OptionError
from medseg.engine.outcome import WorkerDiedError
from medseg.networks.unet import Architecture
from medseg.study import needs
from medseg.study.needs import Memory, seconds_of_steps
from medseg.training.measure import StepJob

SMALL = StepJob(Architecture([8, 16]), "batch", 8, 1, 2, (16, 16, 16), 2, "cpu", "32-true")
LARGE = StepJob(Architecture([32, 64]), "batch", 8, 1, 2, (96, 96, 96), 4, "cpu", "32-true")


def test_equal_steps_are_reckoned_once(monkeypatch):
    asked = []
    monkeypatch.setattr(needs, "reckon", lambda job: asked.append(job) or 100)
    memory = Memory()
    assert [memory.of(job) for job in (SMALL, LARGE, SMALL)] == [100] * 3
    assert asked == [SMALL, LARGE]


def test_a_training_that_the_machine_cannot_hold_is_refused(monkeypatch):
    monkeypatch.setattr(needs, "total_bytes", lambda: 2 << 30)
    Memory().check(SMALL)
    with pytest.raises(OptionError, match=r"needs about \d.* GiB; 2 GiB are there"):
        Memory().check(LARGE)


def test_the_largest_is_named_and_those_side_by_side_are_added(monkeypatch):
    monkeypatch.setattr(needs, "total_bytes", lambda: 2500 << 20)
    monkeypatch.setattr(needs, "reckon", lambda job: 1000 * job.batch_size << 20)
    jobs = {"small": SMALL, "other": SMALL}
    assert Memory().words({"small": SMALL}, 1).endswith("up to 1.95 GiB a training (small)")
    text = Memory().words(jobs, 2)
    assert "3.91 GiB with 2 side by side" in text
    assert "only 2.44 GiB are there: take fewer --workers" in text


def test_a_step_of_each_norm_and_batch_size_is_measured_once_and_small_ones_first(monkeypatch):
    asked = []
    monkeypatch.setattr(needs, "measure_within", lambda jobs, seconds, threads: asked.append(
        (jobs, seconds, threads)) or [(job, job.batch_size / 10) for job in jobs])  # fmt: skip
    group = replace(SMALL, norm="group")
    found = seconds_of_steps({"a": LARGE, "b": SMALL, "c": SMALL, "d": group}, 2)
    assert found == {"a": 0.4, "b": 0.2, "c": 0.2, "d": 0.2}
    ((jobs, seconds, threads),) = asked
    assert jobs == [SMALL, group, LARGE]
    assert seconds < 60
    assert threads == 2


def test_what_a_minute_is_too_short_for_takes_the_time_of_the_likest(monkeypatch):
    slow, more = replace(SMALL, norm="frn"), replace(SMALL, norm="frn", batch_size=8)
    other = replace(SMALL, batch_size=4)
    measured = [(SMALL, 0.1), (slow, 0.3)]
    monkeypatch.setattr(needs, "measure_within", lambda *_: measured)
    jobs = {"small": SMALL, "slow": slow, "more": more, "other": other}
    found = seconds_of_steps(jobs, 1)
    assert found == pytest.approx({"small": 0.1, "slow": 0.3, "more": 1.2, "other": 0.2})
    monkeypatch.setattr(needs, "measure_within", lambda *_: [])
    assert seconds_of_steps(jobs, 1) == {}


def test_a_study_does_not_fail_by_what_it_cannot_foresee(monkeypatch):
    def died(*_):
        raise WorkerDiedError("was killed by signal 9")

    monkeypatch.setattr(needs, "measure_within", died)
    assert seconds_of_steps({"small": SMALL}, 1) == {}
