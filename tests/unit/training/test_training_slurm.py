"""A job is put back into SLURM's queue as Lightning would, and a failure is told."""

import os
import signal
from types import SimpleNamespace

import pytest
from lightning_fabric.plugins.environments import SLURMEnvironment

from medseg.training.slurm import requeue, requeue_signal


def trainer(environment):
    connector = SimpleNamespace(cluster_environment=environment)
    return SimpleNamespace(_accelerator_connector=connector)


def test_only_slurm_that_requeues_has_a_signal_for_it():
    assert requeue_signal(trainer(None)) is None
    assert requeue_signal(trainer(SLURMEnvironment(auto_requeue=False))) is None
    assert requeue_signal(trainer(SLURMEnvironment())) == signal.SIGUSR1
    chosen = SLURMEnvironment(requeue_signal=signal.SIGHUP)
    assert requeue_signal(trainer(chosen)) == signal.SIGHUP


@pytest.mark.parametrize(
    ("names", "job"),
    [
        ({"SLURM_JOB_ID": "7"}, "7"),
        ({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}, "7_3"),
    ],
)
def test_the_job_or_the_task_of_an_array_is_put_back(names, job, tmp_path, monkeypatch, caplog):
    told = tmp_path / "told"
    command = tmp_path / "scontrol"
    command.write_text(f'#!/bin/sh\necho "$@" >> {told}\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    requeue()
    assert told.read_text() == f"requeue {job}\n"
    command.write_text("#!/bin/sh\necho 'not allowed' >&2\nexit 1\n")
    requeue()
    assert "not allowed" in caplog.text
    command.unlink()
    requeue()
    assert caplog.text.count("Submit the job again") == 2
