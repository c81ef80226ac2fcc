"""Training within a budget, through the command line."""

import csv
import json
import math
import os
import signal
import sys
import time

import pytest
import torch
import yaml
from pytorch_lightning.plugins.precision import Precision

from medseg.cli import main
from medseg.networks.checkpoint import load_content, load_trained
from medseg.training import budget, rate_finder
from medseg.training.module import SegmentationModule

SECONDS = 4
KINDS = {"data", "augmentation", "forward", "backward", "optimizer", "validation", "other"}


def rows(run):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def record(run):
    return json.loads((run / "fit.json").read_text())


def bounded(phantoms, fit_flags, run, **changes):
    changes = {"trainer__max_time": f"00:00:00:{SECONDS:02d}", "trainer__max_epochs": -1} | changes
    return fit_flags(phantoms, run, model__learn_postprocessing=False, **changes)


def test_a_time_is_kept_and_the_rate_ends_with_it(phantoms, fit_flags, tmp_path, capsys):
    run = tmp_path / "time"
    flags = bounded(phantoms, fit_flags, run, data__steps_per_epoch=10)
    assert main(["fit", *flags]) == 0
    made, curve = record(run), rows(run)
    validation = made["time_shares"]["validation"] * made["seconds"] / len(curve)
    # One step and one validation more, and what a busy machine adds to them.
    assert SECONDS <= made["seconds"] < SECONDS + made["seconds_per_step"] + 3 * validation + 1
    assert made["schedule_done"] == 1.0
    assert float(curve[-1]["learning_rate"]) < 1e-5  # of 1e-3
    assert curve[-1]["val/dice"]
    assert load_content(run / "checkpoints" / "last.ckpt")["global_step"] == made["steps"]
    assert int(curve[-1]["step"]) == made["steps"]
    assert "100 % done" in capsys.readouterr().err
    assert set(made["time_shares"]) == KINDS
    assert sum(made["time_shares"].values()) == pytest.approx(1, abs=0.01)
    assert made["time_shares"]["backward"] > made["time_shares"]["augmentation"]


def test_a_validation_longer_than_the_rest_is_left_out_and_the_last_weights_are_validated(
    phantoms, fit_flags, tmp_path, monkeypatch
):
    run, pause = tmp_path / "slow", 0.55 * SECONDS  # so that only the first and the last fit in
    begin = SegmentationModule.on_validation_epoch_start

    def slow(module):
        time.sleep(pause)
        begin(module)

    monkeypatch.setattr(SegmentationModule, "on_validation_epoch_start", slow)
    assert main(["fit", *bounded(phantoms, fit_flags, run)]) == 0
    curve = rows(run)
    assert record(run)["seconds"] < SECONDS + pause + 1.5
    assert [bool(row["val/dice"]) for row in curve] == [True, *[False] * (len(curve) - 2), True]
    assert len(curve) > 2
    assert float(curve[-1]["learning_rate"]) < 1e-5


@pytest.mark.parametrize("time", ["40", "00:00:40", "2m"])
def test_a_time_that_is_none_is_refused_in_words(phantoms, fit_flags, tmp_path, capsys, time):
    flags = bounded(phantoms, fit_flags, tmp_path / "run", trainer__max_time=time)
    assert main(["fit", *flags]) == 2
    said = capsys.readouterr().err
    assert "--trainer.max_time must be DD:HH:MM:SS" in said
    assert repr(time) in said
    assert "Traceback" not in said


def test_the_last_epoch_is_validated_however_little_time_is_left(
    phantoms, fit_flags, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    monkeypatch.setattr(budget, "_less_left", lambda _trainer, seconds: seconds > 0)
    changes = {"trainer__max_epochs": 4, "trainer__max_time": "01:00:00:00"}
    assert main(["fit", *bounded(phantoms, fit_flags, run, **changes)]) == 0
    # The first tells how long one takes; after it the time left is said to hold none.
    assert [bool(row["val/dice"]) for row in rows(run)] == [True, False, False, True]


def test_a_resumed_run_has_the_time_that_was_left(phantoms, fit_flags, tmp_path, capsys):
    run = tmp_path / "resumed"
    flags = bounded(phantoms, fit_flags, run, data__steps_per_epoch=5)
    assert main(["fit", *flags, "--trainer.max_epochs", "4"]) == 0
    spent = record(run)["seconds"]
    assert spent < SECONDS
    before = len(rows(run))
    assert main(["fit", *flags, "--ckpt_path", "last"]) == 0
    curve = rows(run)
    assert SECONDS <= record(run)["seconds"] < SECONDS + 2
    # The rate goes on from the share of the time that was spent.
    share = float(curve[before]["seconds"]) / SECONDS
    expected = 1e-3 * 0.5 * (1 + math.cos(math.pi * (share - 0.05) / 0.95))
    assert float(curve[before]["learning_rate"]) == pytest.approx(expected, abs=3e-4)
    assert float(curve[-1]["learning_rate"]) < 1e-5
    capsys.readouterr()
    assert main(["fit", *flags, "--ckpt_path", "last"]) == 0
    assert "nothing was left to train" in capsys.readouterr().err
    assert rows(run) == curve


@pytest.mark.parametrize(
    ("bounds", "steps"),
    [
        ({"max_steps": 7, "max_epochs": 100}, 7),
        ({"max_steps": 100, "max_epochs": 3}, 9),
        ({"max_steps": 100, "max_epochs": 3, "max_time": "01:00:00:00"}, 9),
        ({"max_steps": 7, "max_epochs": -1, "max_time": "01:00:00:00"}, 7),
    ],
)
def test_the_first_bound_ends_the_rate(phantoms, fit_flags, tmp_path, capsys, bounds, steps):
    run = tmp_path / "run"
    changes = {f"trainer__{name}": value for name, value in bounds.items()}
    flags = bounded(phantoms, fit_flags, run, **{"trainer__max_time": "null"} | changes)
    assert main(["fit", *flags, "--model.optimization.warmup", "0"]) == 0
    last = rows(run)[-1]
    assert "100 % done, about 0 s left" in capsys.readouterr().err
    assert int(last["step"]) == steps
    expected = 1e-3 * 0.5 * (1 + math.cos(math.pi * (steps - 1) / steps))
    assert float(last["learning_rate"]) == pytest.approx(expected, rel=1e-3)
    assert last["val/dice"]


def test_accumulated_batches_are_counted_as_they_were_seen(phantoms, fit_flags, tmp_path, capsys):
    run = tmp_path / "run"
    flags = bounded(
        phantoms,
        fit_flags,
        run,
        trainer__max_time="null",
        trainer__max_epochs=2,
        trainer__accumulate_grad_batches=2,
    )
    assert main(["fit", *flags]) == 0
    made = record(run)
    # Three batches of two an epoch: two steps, the second of them with one batch.
    assert (made["steps"], made["samples"]) == (4, 12)
    told = capsys.readouterr().err
    assert "accumulated gradients do not enlarge its batch" in told
    assert "gradients of 1 batches only, divided by 2" in told


def test_an_early_stop_is_recorded_and_told(phantoms, fit_flags, tmp_path, repository, capsys):
    run = tmp_path / "run"
    flags = bounded(phantoms, fit_flags, run, trainer__max_time="null", trainer__max_epochs=9)
    preset = str(repository / "pipelines" / "early_stopping.yaml")
    rate = ["--model.optimization.learning_rate", "1e-12", "--model.norm", "instance"]
    patience = ["--trainer.callbacks.init_args.patience", "2"]
    assert main(["fit", "--config", preset, *flags, *rate, *patience]) == 0
    made = record(run)
    assert made["stopped_early"]["monitor"] == "val/dice"
    assert made["stopped_early"]["step"] == made["steps"] == 9
    assert "did not improve" in made["stopped_early"]["reason"]
    assert made["best_chosen_on"] == "fold 0"
    assert made["schedule_done"] == pytest.approx(3 / 9, abs=1e-4)
    assert "high learning rate" in capsys.readouterr().err


def test_a_training_that_diverges_ends_in_words_and_keeps_finite_weights(
    phantoms, fit_flags, tmp_path, monkeypatch, capsys
):
    run, step = tmp_path / "run", SegmentationModule.training_step

    def breaks(module, batch, index):
        out = step(module, batch, index)
        broken = module.trainer.global_step == 4
        return {**out, "loss": out["loss"] * math.nan} if broken else out

    monkeypatch.setattr(SegmentationModule, "training_step", breaks)
    assert main(["fit", *fit_flags(phantoms, run)]) == 2
    told = capsys.readouterr().err
    assert "the loss of step 5 is not finite" in told
    assert "--model.optimization.learning_rate" in told
    assert "Traceback" not in told
    weights = load_trained(run / "checkpoints" / "last.ckpt").weights
    assert all(bool(value.isfinite().all()) for value in weights.values())
    assert load_content(run / "checkpoints" / "last.ckpt")["global_step"] == 3
    assert record(run)["interrupted"] is True


def test_where_the_loss_is_read_now_and_then_broken_weights_are_not_kept_either(
    phantoms, fit_flags, tmp_path, monkeypatch, capsys
):
    run, step, look = tmp_path / "run", SegmentationModule.training_step, budget.FiniteLoss.look

    def breaks(module, batch, index):
        out = step(module, batch, index)
        if module.trainer.global_step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        broken = module.trainer.global_step == 4
        return {**out, "loss": out["loss"] * math.nan} if broken else out

    def look_as_on_a_gpu(self, trainer):
        behind = sys._getframe(1).f_code.co_name
        if behind != "on_before_backward":
            look(self, trainer)

    monkeypatch.setattr(SegmentationModule, "training_step", breaks)
    monkeypatch.setattr(budget.FiniteLoss, "look", look_as_on_a_gpu)
    flags = fit_flags(phantoms, run, data__steps_per_epoch=20)
    assert main(["fit", *flags]) == 2
    assert "the loss of step 5 is not finite" in capsys.readouterr().err
    assert not (run / "checkpoints" / "last.ckpt").exists()


def test_the_range_test_does_not_see_the_scale_of_a_loss_in_float16(
    phantoms, fit_flags, tmp_path, monkeypatch
):
    monkeypatch.setattr(rate_finder.find_learning_rate, "__defaults__", (20,))
    plain = Precision.pre_backward

    def scaled(self, tensor, module):
        return plain(self, 65536 * tensor, module)

    curves = []
    for name, before in (("plain", plain), ("scaled", scaled)):
        monkeypatch.setattr(Precision, "pre_backward", before)
        flags = fit_flags(phantoms, tmp_path / name, trainer__max_epochs=1)
        main(["fit", *flags, "--find_learning_rate", "true"])
        with (tmp_path / name / "learning_rate.csv").open(newline="") as file:
            curves.append([float(row["loss"]) for row in csv.DictReader(file)])
    assert curves[1][:10] == pytest.approx(curves[0][:10], rel=1e-3)


def test_a_learning_rate_is_found_and_the_training_is_as_if_it_had_not_been_looked_for(
    phantoms, fit_flags, tmp_path, monkeypatch
):
    monkeypatch.setattr(rate_finder.find_learning_rate, "__defaults__", (60,))
    plain, looked, used = (tmp_path / name for name in ("plain", "looked", "used"))
    for run, flag in ((plain, "false"), (looked, "true"), (used, "use")):
        flags = fit_flags(phantoms, run, model__learn_postprocessing=False)
        assert main(["fit", *flags, "--find_learning_rate", flag]) == 0
    weights = [load_trained(run / "checkpoints" / "last.ckpt").weights for run in (plain, looked)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not (plain / "learning_rate.csv").exists()
    with (looked / "learning_rate.csv").open(newline="") as file:
        curve = list(csv.DictReader(file))
    assert float(curve[0]["learning_rate"]) == pytest.approx(1e-6)
    found = record(used)["found_learning_rate"]
    assert 1e-5 < found < 0.1
    assert record(looked)["learning_rate"] == 1e-3
    assert record(looked)["found_learning_rate"] == found == record(used)["learning_rate"]
    config = yaml.safe_load((used / "config.yaml").read_text())
    assert config["model"]["optimization"]["learning_rate"] == found
    assert config["find_learning_rate"] is False


def test_a_resumed_run_looks_for_no_learning_rate(tiny_run, phantoms, fit_flags, capsys):
    flags = [*fit_flags(phantoms, tiny_run), "--ckpt_path", "last"]
    assert main(["fit", *flags, "--find_learning_rate", "true"]) == 2
    assert "a resumed one keeps its learning rate" in capsys.readouterr().err
