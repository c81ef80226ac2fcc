"""What may change when a training is resumed, and what is refused."""

import json
import shutil

import pytest
import torch

from medseg.cli import main
from medseg.networks.checkpoint import load_content
from medseg.training.fixed import TRAINING_KEY


def copied(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "run")


def record(run):
    return json.loads((run / "fit.json").read_text())


@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("seed_everything", "1", "(seed_everything 0)"),
        ("model__optimization.learning_rate", "0.1", "(learning_rate 0.001)"),
        ("model__optimization.schedule", "poly", "(schedule 'cosine')"),
        ("model__optimization.warmup", "0.2", "(warmup 0.05)"),
        ("model__loss.focal_gamma", "2", "(focal_gamma 0.0)"),
        ("data__steps_per_epoch", "2", "(steps_per_epoch 3)"),
        ("data__foreground", "0.9", "(foreground 0.5)"),
        ("data__augmentation", "null", "(other augmentation)"),
        ("data__augmentation.noise", "0.9", "--data.augmentation.noise 0.9 contradicts"),
        ("trainer__precision", "bf16-mixed", "(precision '32-true')"),
        ("trainer__accumulate_grad_batches", "3", "(accumulate_grad_batches 1)"),
        ("trainer__gradient_clip_val", "1", "(gradient_clip_val None)"),
    ],
)
def test_what_the_training_has_fixed_cannot_be_changed(
    tiny_run, phantoms, fit_flags, tmp_path, capsys, flag, value, told
):
    run = copied(tiny_run, tmp_path)
    before = (run / "config.yaml").read_bytes()
    flags = fit_flags(phantoms, run, **{"trainer__max_epochs": 3, flag: value})
    assert main(["fit", *flags, "--ckpt_path", "last"]) == 2
    said = capsys.readouterr().err
    assert "contradicts the checkpoint" in said
    assert told in said
    assert (run / "config.yaml").read_bytes() == before


def test_a_moved_bound_is_allowed_and_remembered(tiny_run, phantoms, fit_flags, tmp_path, capsys):
    run = copied(tiny_run, tmp_path)
    assert record(run)["reproducible"]
    for epochs in (3, 3):  # the second time nothing changes, and nothing is forgotten
        flags = fit_flags(phantoms, run, trainer__max_epochs=epochs, data__num_workers=1)
        assert main(["fit", *flags, "--ckpt_path", "last"]) == 0
        assert record(run)["irreproducible_because"] == [
            "resumed with a change: trainer.max_epochs was 2 and is 3"
        ]
        assert not record(run)["reproducible"]
    assert "trainer.max_epochs was 2 and is 3; the weights" in capsys.readouterr().err


def test_a_rate_that_follows_no_end_lets_the_end_move(phantoms, fit_flags, tmp_path):
    rate = {"model__optimization.schedule": "constant", "model__optimization.warmup": "0"}
    for epochs, more in ((1, []), (2, ["--ckpt_path", "last"])):
        flags = fit_flags(phantoms, tmp_path, trainer__max_epochs=epochs, **rate)
        assert main(["fit", *flags, *more]) == 0
    assert record(tmp_path)["reproducible"]


def test_a_part_that_was_bounded_by_time_is_not_forgotten(phantoms, fit_flags, tmp_path):
    flags = fit_flags(phantoms, tmp_path, trainer__max_epochs=1, trainer__max_time="01:00:00:00")
    assert main(["fit", *flags]) == 0
    flags = fit_flags(phantoms, tmp_path, trainer__max_epochs=2, trainer__max_time="null")
    assert main(["fit", *flags, "--ckpt_path", "last"]) == 0
    reasons = record(tmp_path)["irreproducible_because"]
    assert "bounded by time" in reasons[0]
    assert any("trainer.max_time was 86400.0 and is none" in reason for reason in reasons)


def test_an_older_checkpoint_without_these_settings_goes_on(
    tiny_run, phantoms, fit_flags, tmp_path, capsys
):
    run = copied(tiny_run, tmp_path)
    path = run / "checkpoints" / "last.ckpt"
    content = load_content(path)
    new = content[TRAINING_KEY]
    content[TRAINING_KEY] = {
        name: new[f"model.{name}"] for name in ("optimization.name", "ema_decay")
    }
    state = content["callbacks"]["Checkpoints"]
    kept = {name: state[name] for name in ("best", "data", "threads")}
    content["callbacks"]["Checkpoints"] = kept
    torch.save(content, path)
    flags = fit_flags(phantoms, run, trainer__max_epochs=3)
    assert main(["fit", *flags, "--ckpt_path", "last", "--model.ema_decay", "0.5"]) == 2
    assert "--model.ema_decay 0.5 contradicts the checkpoint" in capsys.readouterr().err
    assert main(["fit", *flags, "--ckpt_path", "last"]) == 0
    assert record(run)["steps"] == 9


def test_a_training_without_a_seed_keeps_the_draws_it_had(phantoms, fit_flags, tmp_path):
    flags = [*fit_flags(phantoms, tmp_path, trainer__max_epochs=1), "--seed_everything", "false"]
    assert main(["fit", *flags]) == 0
    drawn = record(tmp_path)["seed"]
    torch.seed()  # another process
    assert main(["fit", *flags, "--ckpt_path", "last", "--trainer.max_epochs", "2"]) == 0
    assert record(tmp_path)["seed"] == drawn
    assert record(tmp_path)["epochs"] == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trainer__max_epochs": "-1"}, "--trainer.max_time, or take"),
        (
            {"trainer__max_epochs": "-1", "model__optimization.schedule": "constant"},
            "warmup 0.05",
        ),
        ({"trainer__limit_train_batches": "2"}, "--data.steps_per_epoch for shorter epochs"),
        ({"trainer__limit_train_batches": "0.5"}, "--trainer.limit_train_batches 0.5"),
        ({"trainer__overfit_batches": "2"}, "--trainer.overfit_batches 2"),
    ],
)
def test_trainings_without_an_end_and_of_parts_of_epochs_are_refused(
    phantoms, fit_flags, tmp_path, capsys, changes, told
):
    run = tmp_path / "run"
    assert main(["fit", *fit_flags(phantoms, run, **changes)]) == 2
    assert told in capsys.readouterr().err
    assert not run.exists()


def test_early_stopping_is_no_bound(phantoms, fit_flags, repository, tmp_path, capsys):
    preset = ["--config", str(repository / "pipelines" / "early_stopping.yaml")]
    flags = fit_flags(phantoms, tmp_path / "run", trainer__max_epochs="-1")
    assert main(["fit", *preset, *flags]) == 2
    assert "early stopping is no bound" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_answered_with_one_that_is(tiny_run, tmp_path, capsys):
    copied(tiny_run, tmp_path)
    for verb, flags in (("fit", ["--ckpt_path", "last"]), ("validate", [])):
        assert main([verb, "--run_dir", str(tmp_path / "rnu"), *flags]) == 2
        said = capsys.readouterr().err
        assert "holds no run to go on with" in said
        assert "Did you mean 'run'?" in said
