"""What a step takes: the reckoning against the measurement, and memory that does not suffice."""

import os
import signal
from dataclasses import replace

import pytest

from medseg.networks.unet import Architecture
from medseg.training import measure as module
from medseg.training.measure import (
    PROCESS_BYTES,
    StepCost,
    StepJob,
    measure,
    measure_within,
    reckon,
)

JOB = StepJob(
    Architecture(channels=[16, 32, 64]), "instance", 8, 1, 3, (48, 48, 48), 2, "cpu", "32-true"
)


def test_the_reckoning_is_near_the_measurement():
    cost = measure(JOB)
    assert cost.seconds > 0
    assert cost.bytes - PROCESS_BYTES == pytest.approx(reckon(JOB) - PROCESS_BYTES, rel=0.3)


def test_reckoning_takes_no_memory_for_what_no_machine_has():
    huge = replace(JOB, patch_size=(1024, 1024, 1024), batch_size=64)
    assert reckon(huge) > 1 << 40


@pytest.mark.parametrize("norm", ["none", "batch", "instance", "group", "layer"])
def test_memory_grows_with_the_batch(norm):
    one, two, three = (reckon(replace(JOB, norm=norm, batch_size=n)) for n in (1, 2, 3))
    assert two - one == pytest.approx(three - two, rel=0.01)
    assert 80e6 < two - one < 160e6


def test_activation_checkpointing_saves_memory():
    saving = replace(JOB, architecture=replace(JOB.architecture, activation_checkpointing=True))
    assert reckon(saving) < 0.9 * reckon(JOB)


def test_mixed_precision_saves_memory():
    assert reckon(replace(JOB, precision="bf16-mixed")) < reckon(JOB)


def test_a_process_that_the_system_kills_did_not_fit(monkeypatch):
    monkeypatch.setattr(module, "_start", _deadly)
    assert measure(JOB) == StepCost(None, None)


def _deadly():
    return _killed


def _killed(jobs):
    for _ in jobs:
        os.kill(os.getpid(), signal.SIGKILL)
    yield


def test_memory_that_cannot_be_had_did_not_fit():
    assert measure(replace(JOB, patch_size=(65536, 4096, 4096))) == StepCost(None, None)


def test_several_steps_share_a_process_and_the_first_is_always_measured():
    small = StepJob(Architecture([4, 8]), "batch", 4, 1, 2, (8, 8, 8), 1, "cpu", "32-true")
    jobs = [small, replace(small, batch_size=2)]
    assert [job for job, seconds in measure_within(jobs, 60, 1) if seconds > 0] == jobs
    assert [job for job, _ in measure_within(jobs, 0, 1)] == jobs[:1]
