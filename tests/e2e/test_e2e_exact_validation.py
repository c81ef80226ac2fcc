"""A training cut off in a validation goes on with it, and ends as one nobody disturbed."""

import csv
import json
import os
import signal

import pytest
from test_e2e_exact import EVERYTHING, digest, digest_of, interrupted, trainings

from medseg.cli import main
from medseg.networks.checkpoint import load_content, load_trained
from medseg.training.checkpoints import Checkpoints
from medseg.training.module import SegmentationModule

SHORT = {**EVERYTHING, "trainer__max_epochs": "2"}
TIMES = ("seconds", "train_seconds")


def rows(run):
    """Return the curves, but for the times."""
    with (run / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


def in_validation(number, how):
    """Return a validation step that sends a signal in the training's validation of this number."""
    original, seen = SegmentationModule.on_validation_epoch_start, []

    def begin(self):
        seen.append(1)
        original(self)
        if len(seen) == number:
            os.kill(os.getpid(), how)

    return begin


@pytest.fixture(scope="module")
def undisturbed(phantoms, tmp_path_factory):
    """Return, for each set of changes, digest and curves of a training nobody disturbed."""
    return trainings(phantoms, tmp_path_factory, SHORT, lambda run: (digest_of(run), rows(run)))


WITHIN = {"trainer__val_check_interval": "4"}
ACROSS = {**WITHIN, "trainer__check_val_every_n_epoch": "null"}
STEPS = {"trainer__max_steps": "9"}
CLOCK = {"trainer__val_check_interval": "00:00:00:00"}


@pytest.mark.parametrize(
    ("number", "changes"),
    [
        (1, {}),
        (1, WITHIN),
        (2, STEPS),  # the last one, when no step is left
        *(
            pytest.param(number, changes, marks=pytest.mark.slow)
            for number, changes in (
                (2, {}),
                (2, ACROSS),
                (1, {**STEPS, "trainer__max_epochs": "-1"}),
                (1, {"trainer__max_steps": "12"}),
                (2, {"trainer__max_steps": "12"}),
                (1, {"trainer__max_steps": "4"}),
                (2, {**ACROSS, **STEPS}),
                (3, {**ACROSS, **STEPS}),
                (2, CLOCK),
                (6, CLOCK),
                (1, {"trainer__accumulate_grad_batches": "4"}),
            )
        ),
    ],
)
def test_a_signal_in_a_validation_costs_nothing(
    number, changes, phantoms, fit_flags, undisturbed, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    flags = fit_flags(phantoms, run, **{**SHORT, **changes})
    with monkeypatch.context() as patch:
        begin = in_validation(number, signal.SIGTERM)
        patch.setattr(SegmentationModule, "on_validation_epoch_start", begin)
        assert main(["fit", *flags]) == 143
    assert "--ckpt_path last" in capsys.readouterr().err
    before = len(rows(run)) if (run / "metrics.csv").exists() else 0
    assert main(["fit", *flags, "--ckpt_path", "last"]) == 0
    weights, curve = undisturbed(fit_flags, **changes)
    assert digest(run / "checkpoints" / "last.ckpt") == weights
    assert rows(run) == curve
    assert len(curve) > before
    record = json.loads((run / "fit.json").read_text())
    assert record["reproducible"]
    assert not record["interrupted"]


def test_the_last_validation_of_a_time_is_made_up_for(phantoms, fit_flags, tmp_path, monkeypatch):
    run = tmp_path / "run"
    bounds = {"trainer__max_time": "00:00:00:03", "trainer__max_epochs": "-1"}
    flags = fit_flags(phantoms, run, **{**SHORT, **bounds, "data__steps_per_epoch": "10000"})
    with monkeypatch.context() as patch:
        begin = in_validation(1, signal.SIGINT)
        patch.setattr(SegmentationModule, "on_validation_epoch_start", begin)
        assert main(["fit", *flags]) == 130
    kept = digest(run / "checkpoints" / "last.ckpt")
    assert main(["fit", *flags, "--ckpt_path", "last"]) == 0
    assert len(rows(run)) == 1
    assert rows(run)[0]["val/dice"]
    record = json.loads((run / "fit.json").read_text())
    assert not record["interrupted"]
    assert record["steps"] == int(rows(run)[0]["step"])
    assert digest(run / "checkpoints" / "last.ckpt") == kept


def test_a_run_that_dies_between_its_two_checkpoints_has_its_best_one(
    phantoms, fit_flags, undisturbed, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    flags, written = fit_flags(phantoms, run, **SHORT), []
    write = Checkpoints._write

    def dies(self, trainer, name):
        if len(written) == 2:  # the one before the validation, and the first after it
            raise SystemExit(9)
        write(self, trainer, name)
        written.append(name)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_write", dies)
        assert main(["fit", *flags]) == 9
    assert sorted(written) == ["best", "last"]
    assert main(["fit", *flags, "--ckpt_path", "last"]) == 0
    weights, curve = undisturbed(fit_flags)
    assert digest(run / "checkpoints" / "last.ckpt") == weights
    assert rows(run) == curve
    best = load_content(run / "checkpoints" / "best.ckpt")
    dice = {row["step"]: float(row["val/dice"]) for row in curve}
    assert str(best["global_step"]) == max(dice, key=dice.__getitem__)


def test_a_signal_waits_for_no_statistics_and_the_checkpoint_says_so(
    phantoms, fit_flags, undisturbed, tmp_path, monkeypatch, caplog
):
    run = tmp_path / "run"
    last = run / "checkpoints" / "last.ckpt"
    flags = fit_flags(phantoms, run, **SHORT)

    def killed(self):
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationModule, "training_step", interrupted(3, signal.SIGTERM))
        patch.setattr(SegmentationModule, "settle", killed)
        assert main(["fit", *flags]) == 9
    assert load_content(last)["global_step"] == 3
    load_trained(last)
    assert "before the batch statistics" in caplog.text
    caplog.clear()
    assert main(["fit", *flags, "--ckpt_path", "last"]) == 0
    assert digest(last) == undisturbed(fit_flags)[0]
    load_trained(last)
    assert "before the batch statistics" not in caplog.text
