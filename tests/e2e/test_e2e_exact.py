"""A training that was interrupted and resumed ends with the bits of one that was not."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from medseg.cli import main
from medseg.networks.checkpoint import load_content
from medseg.training.module import SegmentationModule

EVERYTHING = {
    "model__norm": "batch",
    "model__network__dropout": "0.2",
    "model__ema_decay": "0.9",
    "model__learn_postprocessing": "false",
    "data__steps_per_epoch": "6",
    "data__augmentation__elastic": "0.5",
    "data__augmentation__noise": "0.5",
    "trainer__max_epochs": "3",
}


def digest(path):
    """Return a hash of all that a training carries on: weights, averages, optimizer, counters."""
    content = load_content(path)
    found = hashlib.sha256()

    def add(value):
        if isinstance(value, torch.Tensor):
            found.update(value.contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                found.update(str(key).encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for entry in value:
                add(entry)
        else:
            found.update(repr(value).encode())

    for key in ("state_dict", "optimizer_states", "epoch", "global_step", "medseg"):
        add(content[key])
    return found.hexdigest()


def interrupted(step, how):
    """Return a training step that sends a signal at the given batch."""
    original = SegmentationModule.training_step

    def training_step(self, batch, index):
        if self.trainer.fit_loop.epoch_loop.batch_progress.total.ready == step:
            os.kill(os.getpid(), how)
        return original(self, batch, index)

    return training_step


def trainings(phantoms, tmp_path_factory, settings, told):
    """Return what gives, for each set of changes, what is told of a training nobody disturbed."""
    known = {}

    def find(flags, **changes):
        key = tuple(sorted(changes.items()))
        if key not in known:
            run = tmp_path_factory.mktemp("undisturbed") / "run"
            assert main(["fit", *flags(phantoms, run, **{**settings, **changes})]) == 0
            known[key] = told(run)
        return known[key]

    return find


def digest_of(run):
    """Return the digest of a run's last weights."""
    return digest(run / "checkpoints" / "last.ckpt")


@pytest.fixture(scope="module")
def undisturbed(phantoms, tmp_path_factory):
    """Return, for each set of changes, the digest of a training nobody disturbed."""
    return trainings(phantoms, tmp_path_factory, EVERYTHING, digest_of)


@pytest.mark.parametrize(
    ("sent", "status", "step", "changes"),
    [
        (signal.SIGTERM, 143, 9, {}),
        (signal.SIGINT, 130, 8, {"data__num_workers": "2"}),
        (signal.SIGTERM, 143, 9, {"trainer__accumulate_grad_batches": "2"}),
        # The last batch of an epoch.
        pytest.param(signal.SIGTERM, 143, 12, {}, marks=pytest.mark.slow),
        pytest.param(
            signal.SIGTERM,
            143,
            2,
            {"model__network__activation_checkpointing": "true"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_signal_costs_no_bit(
    sent, status, step, changes, phantoms, fit_flags, undisturbed, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    last = run / "checkpoints" / "last.ckpt"
    flags = fit_flags(phantoms, run, **EVERYTHING, **changes)
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationModule, "training_step", interrupted(step, sent))
        assert main(["fit", *flags]) == status
    accumulated = int(changes.get("trainer__accumulate_grad_batches", 1))
    assert load_content(last)["global_step"] == -(-step // accumulated)
    assert main(["fit", *flags, "--ckpt_path", "last"]) == 0
    # Two loader processes change no bit either.
    same = {name: value for name, value in changes.items() if name != "data__num_workers"}
    assert digest(last) == undisturbed(fit_flags, **same)
    assert json.loads((run / "fit.json").read_text())["reproducible"]


def test_kill_9_costs_no_bit(phantoms, fit_flags, undisturbed, tmp_path):
    run = tmp_path / "run"
    flags = fit_flags(phantoms, run, **EVERYTHING)
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
torch.set_num_threads({torch.get_num_threads()})
import test_e2e_exact as exact
exact.SegmentationModule.training_step = exact.interrupted(15, {int(signal.SIGKILL)})
exact.main({["fit", *flags]!r})
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    last = run / "checkpoints" / "last.ckpt"
    assert load_content(last)["global_step"] == 12
    assert main(["fit", *flags, "--ckpt_path", "last"]) == 0
    assert digest(last) == undisturbed(fit_flags)


def test_a_time_bound_says_that_it_cannot_be_repeated(
    phantoms, fit_flags, tmp_path, capsys, monkeypatch
):
    run = tmp_path / "run"
    flags = fit_flags(phantoms, run, **{**EVERYTHING, "trainer__max_time": "00:00:00:08"})
    flags += ["--trainer.max_epochs", "-1"]
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationModule, "training_step", interrupted(9, signal.SIGTERM))
        assert main(["fit", *flags]) == 143
    assert main(["fit", *flags, "--ckpt_path", "last"]) == 0
    assert "not those of an undisturbed run" in capsys.readouterr().err
    record = json.loads((run / "fit.json").read_text())
    assert not record["reproducible"]
    assert "bounded by time" in record["irreproducible_because"][0]


def test_changed_training_data_are_refused_on_resuming(
    phantoms, fit_flags, tmp_path, capsys, monkeypatch
):
    run = tmp_path / "run"
    flags = fit_flags(phantoms, run, trainer__max_epochs="1")
    assert main(["fit", *flags]) == 0
    from medseg.data.datamodule import SegmentationData

    monkeypatch.setattr(SegmentationData, "content_digest", "0123456789abcdef")
    longer = fit_flags(phantoms, run, trainer__max_epochs="2")
    assert main(["fit", *longer, "--ckpt_path", "last"]) == 2
    assert "changed since the checkpoint" in capsys.readouterr().err


def test_a_pause_costs_no_bit(phantoms, fit_flags, undisturbed, tmp_path):
    run = tmp_path / "run"
    last = run / "checkpoints" / "last.ckpt"
    flags = fit_flags(phantoms, run, **EVERYTHING)
    assert main(["fit", *flags, "--pause_after_epochs", "1"]) == 0
    assert load_content(last)["global_step"] == 6
    assert json.loads((run / "fit.json").read_text())["interrupted"]
    assert main(["fit", *flags, "--ckpt_path", "last"]) == 0
    assert digest(last) == undisturbed(fit_flags)
    assert not json.loads((run / "fit.json").read_text())["interrupted"]
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert all(row["val/dice"] for row in rows)
