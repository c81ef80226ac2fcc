"""Ctrl-C and SIGTERM during a training: the exit status, and what is left."""

import os
import signal
import subprocess
import sys
import time

import pytest

from medseg.cli import main
from medseg.networks.checkpoint import load_content


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_says_so_and_can_be_resumed(
    sent, status, phantoms, fit_flags, tmp_path
):
    run = tmp_path / "run"
    last = run / "checkpoints" / "last.ckpt"
    flags = fit_flags(phantoms, run, trainer__max_epochs=100000)
    # The parent may have been started in the background, where Ctrl-C is ignored and inherited so.
    code = (
        "import signal, sys\nfrom medseg.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.exit(main({['fit', *flags]!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(sent)
    assert process.wait(timeout=60) == status
    epoch = load_content(last)["epoch"]
    assert not list(run.rglob("*.tmp"))
    resumed = fit_flags(phantoms, run, trainer__max_epochs=epoch + 2)
    assert main(["fit", *resumed, "--ckpt_path", "last"]) == 0
    assert load_content(last)["epoch"] == epoch + 1


def signalled(step, number, group):
    """Return the start of a script whose training sends a signal at a step."""
    send = "os.killpg(os.getpgrp(), number)" if group else "os.kill(os.getpid(), number)"
    return f"""
import os, sys
from medseg.cli import main
from medseg.training.module import SegmentationModule
original, number = SegmentationModule.training_step, {int(number)}
def training_step(self, batch, index):
    if self.trainer.global_step == {step}:
        {send}
    return original(self, batch, index)
SegmentationModule.training_step = training_step
"""


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_whole_group_finds_the_loader_processes_at_work(
    sent, status, phantoms, fit_flags, tmp_path
):
    run = tmp_path / "run"
    flags = fit_flags(phantoms, run, data__num_workers=2, data__steps_per_epoch=50)
    code = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"{signalled(20, sent, group=True)}\nsys.exit(main({['fit', *flags]!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == status, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert load_content(run / "checkpoints" / "last.ckpt")["global_step"] == 21


SLURM = {
    "SLURM_NTASKS": "1",
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "train",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_NODELIST": "localhost",
    "SLURM_NNODES": "1",
    "SLURM_NTASKS_PER_NODE": "1",
}


@pytest.mark.parametrize("sent", [signal.SIGUSR1, signal.SIGTERM])
def test_under_slurm_a_signal_keeps_the_step_and_a_requeued_job_goes_on(
    sent, phantoms, fit_flags, tmp_path
):
    run, told = tmp_path / "run", tmp_path / "told"
    command = tmp_path / "scontrol"
    command.write_text(f'#!/bin/sh\necho "$@" >> {told}\n')
    command.chmod(0o755)
    environment = {**os.environ, **SLURM, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    flags = fit_flags(phantoms, run, data__steps_per_epoch=8)
    code = f"{signalled(3, sent, group=False)}\nsys.exit(main({['fit', *flags]!r}))"
    start = {"capture_output": True, "text": True, "timeout": 120}
    done = subprocess.run([sys.executable, "-c", code], check=False, env=environment, **start)
    assert done.returncode == 143, done.stderr[-3000:]
    assert load_content(run / "checkpoints" / "last.ckpt")["global_step"] == 4
    requeued = ["requeue 7\n"] if sent == signal.SIGUSR1 else []
    assert ([told.read_text()] if told.exists() else []) == requeued
    assert not list(run.glob("*.ckpt"))  # what Lightning would write, and nobody would read
    again = [sys.executable, "-m", "medseg", "fit", *map(str, flags)]
    environment["SLURM_RESTART_COUNT"] = "1"
    done = subprocess.run(again, check=False, env=environment, **start)
    assert done.returncode == 0, done.stderr[-3000:]
    assert load_content(run / "checkpoints" / "last.ckpt")["global_step"] == 16


def test_early_stopping_ends_a_training_that_does_not_improve(
    phantoms, fit_flags, repository, tmp_path
):
    run = tmp_path / "run"
    preset = ["--config", str(repository / "pipelines" / "early_stopping.yaml")]
    flags = fit_flags(phantoms, run, trainer__max_epochs=1000)
    still = ["--model.optimization.learning_rate", "1e-12"]
    assert main(["fit", *preset, *flags, *still]) == 0
    assert load_content(run / "checkpoints" / "last.ckpt")["epoch"] < 200
