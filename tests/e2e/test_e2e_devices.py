"""Two processes train as one with the same global batch."""

import csv
import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from medseg.cli import main
from medseg.networks.checkpoint import load_content

STEPS = 20
TRAINING = {
    "data__steps_per_epoch": "1",  # a row of the curves is then a step
    "trainer__max_epochs": str(STEPS),
    "trainer__check_val_every_n_epoch": "10",
    "model__learn_postprocessing": "false",
    "model__ema_decay": "0.9",
    "model__network__dropout": "0.2",
    "trainer__precision": "64-true",  # single precision's rounding grows to 2e-5 within 20 steps
}
DDP = {"data__batch_size": "1", "trainer__devices": "2", "trainer__strategy": "ddp"}


def medseg(*arguments):
    """Return the command line of a process of its own."""
    return [sys.executable, "-m", "medseg", *map(str, arguments)]


def alone():
    """Return the environment without what an earlier training of this process left."""
    hidden = ("LOCAL_RANK", "NODE_RANK", "MASTER_PORT", "MASTER_ADDR", "WORLD_SIZE")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**kept, "OMP_NUM_THREADS": "1"}


def rows(run):
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("norm", ["instance", pytest.param("group", marks=pytest.mark.slow)])
def test_two_processes_train_as_one_with_the_same_global_batch(norm, phantoms, fit_flags, tmp_path):
    changes = {**TRAINING, "model__norm": norm}
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(["fit", *fit_flags(phantoms, one, **changes, data__batch_size=2)]) == 0
    command = medseg("fit", *fit_flags(phantoms, two, **changes, **DDP))
    done = subprocess.run(
        command, env=alone(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr
    expected, found = rows(one), rows(two)
    assert len(found) == STEPS
    for left, right in zip(expected, found, strict=True):
        assert float(right["train/loss"]) == pytest.approx(float(left["train/loss"]), rel=1e-5)
        assert right["samples"] == left["samples"]
        for name, close in (("val/loss", {"rel": 1e-4}), ("val/dice", {"abs": 1e-3})):
            assert bool(left[name]) == bool(right[name])
            if left[name]:  # of hardly trained weights: single voxels lie on the edge
                assert float(right[name]) == pytest.approx(float(left[name]), **close)
    weights, others = (load_content(run / "checkpoints" / "last.ckpt") for run in (one, two))
    for name, value in weights["state_dict"].items():
        torch.testing.assert_close(others["state_dict"][name], value, rtol=1e-3, atol=1e-4)
    assert json.loads((two / "fit.json").read_text())["devices"] == 2


def test_synchronized_batch_norm_on_a_cpu_is_refused_in_words(
    phantoms, fit_flags, tmp_path, capsys
):
    flags = fit_flags(phantoms, tmp_path / "run", model__norm="sync_batch", **DDP)
    assert main(["fit", *flags]) == 2
    assert "sync_batch needs GPUs" in capsys.readouterr().err


def test_more_devices_than_validation_cases_are_refused(phantoms, fit_flags, tmp_path, capsys):
    flags = fit_flags(phantoms, tmp_path / "run", **{**DDP, "trainer__devices": "3"})
    assert main(["fit", *flags]) == 2
    assert "at most 2 devices" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_process_is_started_again_and_loses_nothing(phantoms, fit_flags, tmp_path):
    changes = {**TRAINING, "model__norm": "group"}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    plain = fit_flags(phantoms, whole, **changes, **DDP)
    assert subprocess.run(medseg("fit", *plain), env=alone(), check=False).returncode == 0
    flags = fit_flags(phantoms, killed, **changes, **DDP)
    script = tmp_path / "killed_once.py"
    script.write_text(f"""
import os, sys
from medseg.cli import main
from medseg.training.module import SegmentationModule
original = SegmentationModule.training_step
def training_step(self, batch, index):
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first and os.environ["RANK"] == "1" and self.trainer.global_step == 11:
        os.kill(os.getpid(), {int(signal.SIGKILL)})
    return original(self, batch, index)
SegmentationModule.training_step = training_step
sys.exit(main({["fit", *flags]!r}))
""")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["--max-restarts", "1", "--standalone", str(script)]
    # PyTorch 2.13 shares the rendezvous store with the workers: gloo then reads the addresses that
    # the killed attempt left there.
    environment = {**alone(), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    done = subprocess.run(
        torchrun, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "started again" in done.stderr
    one, other = (load_content(run / "checkpoints" / "last.ckpt") for run in (whole, killed))
    assert one["global_step"] == other["global_step"] == STEPS
    for name, value in one["state_dict"].items():
        assert torch.equal(other["state_dict"][name], value)


@pytest.mark.gpu
def test_two_gpus_train_with_synchronized_batch_norm(phantoms, fit_flags, tmp_path):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    changes = {**TRAINING, **DDP, "trainer__accelerator": "gpu", "model__norm": "sync_batch"}
    command = medseg("fit", *fit_flags(phantoms, tmp_path / "run", **changes))
    assert subprocess.run(command, env=alone(), check=False).returncode == 0
