"""Memory and seconds that a study asks for before it starts."""

import pytest

from medseg.core.errors import OptionError
from medseg.networks.unet import Architecture
from medseg.study import needs
from medseg.study.needs import Memory, seconds_by_batch_size
from medseg.training.measure import StepCost, StepJob

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


def test_one_step_of_each_batch_size_is_measured(monkeypatch):
    asked = []
    monkeypatch.setattr(
        needs, "measure", lambda job: asked.append(job) or StepCost(1, job.batch_size / 10)
    )
    assert seconds_by_batch_size([SMALL, LARGE, SMALL]) == {2: 0.2, 4: 0.4}
    assert len(asked) == 2
