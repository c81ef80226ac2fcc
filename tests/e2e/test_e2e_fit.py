"""Training through the command line: what it leaves, refuses and resumes."""

import csv
import json
import shutil

import pytest
import torch
import yaml

from medseg.cli import main
from medseg.core.errors import CheckpointError
from medseg.inference.predictor import Predictor
from medseg.networks.checkpoint import load_content, load_trained
from medseg.networks.norms import NORMS


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def refused(arguments, capsys, *parts):
    assert main(arguments) == 2
    told = capsys.readouterr().err
    for part in parts:
        assert part in told
    assert "Traceback" not in told


def test_a_run_leaves_its_files(tiny_run):
    there = {path.relative_to(tiny_run).as_posix() for path in tiny_run.rglob("*.*")}
    expected = {
        "config.yaml",
        "fit.json",
        "metrics.csv",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    }
    assert expected <= there
    assert not [name for name in there if name.endswith(".tmp")]
    record = json.loads((tiny_run / "fit.json").read_text())
    assert record["norm"] == "batch"
    assert record["steps"] == 6
    assert record["samples"] == 12
    assert record["seconds"] > 0
    assert record["versions"]["torch"] == torch.__version__
    config = yaml.safe_load((tiny_run / "config.yaml").read_text())
    assert config["model"]["network"]["channels"] == [8, 16]


def test_curves_have_a_row_an_epoch(tiny_run):
    curve = rows(tiny_run / "metrics.csv")
    assert [row["step"] for row in curve] == ["3", "6"]
    assert all(0 <= float(row["val/dice"]) <= 1 for row in curve)
    assert float(curve[0]["learning_rate"]) > float(curve[1]["learning_rate"])
    assert any(name.startswith("val/dice_") for name in curve[0])


def test_checkpoints_hold_tensors_and_primitives_only(tiny_run):
    content = load_content(tiny_run / "checkpoints" / "last.ckpt")
    assert content["medseg"]["norm"] == "batch"
    assert "hyper_parameters" not in content
    network = load_trained(tiny_run / "checkpoints" / "last.ckpt").network()
    assert not network.training


def test_a_foreign_or_hostile_checkpoint_is_refused(tmp_path):
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    torch.save({"state_dict": {}, "medseg": Bomb()}, tmp_path / "bomb.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    for name in ("bomb", "foreign", "text", "absent"):
        with pytest.raises(CheckpointError):
            load_content(tmp_path / f"{name}.ckpt")
    assert not marker.exists()


def test_a_used_run_dir_is_refused_with_the_way_out(tiny_run, phantoms, fit_flags, capsys):
    refused(["fit", *fit_flags(phantoms, tiny_run)], capsys,
            "already holds a run. Resume with --ckpt_path last, or choose another --run_dir")  # fmt: skip


def test_a_run_resumes_where_it_ended(tiny_run, phantoms, fit_flags, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_run, copy)
    flags = fit_flags(phantoms, copy, trainer__max_epochs=3)
    assert main(["fit", *flags, "--ckpt_path", "last"]) == 0
    assert yaml.safe_load((copy / "config.yaml").read_text())["ckpt_path"] is None
    curve = rows(copy / "metrics.csv")
    assert [row["step"] for row in curve] == ["3", "6", "9"]
    assert curve[:2] == rows(tiny_run / "metrics.csv")
    assert json.loads((copy / "fit.json").read_text())["steps"] == 9


def test_a_run_resumes_from_its_own_config_alone(tiny_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_run, copy)
    text = (copy / "config.yaml").read_text().replace(str(tiny_run), str(copy))
    (copy / "config.yaml").write_text(text.replace("max_epochs: 2", "max_epochs: 3"))
    assert main(["fit", "--run_dir", str(copy), "--ckpt_path", "last"]) == 0
    assert len(rows(copy / "metrics.csv")) == 3


@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("model__norm", "layer", "--model.norm layer contradicts the checkpoint (norm 'batch')"),
        ("model__network.channels", "[8, 24]", "--model.network.channels [8, 24] contradicts"),
        ("data__patch_size", "[8, 16, 16]", "contradicts the checkpoint (patch_size [16, 16, 16])"),
        ("model__optimization.name", "sgd", "--model.optimization.name sgd contradicts"),
        ("model__optimization.weight_decay", "0.5", "--model.optimization.weight_decay 0.5"),
        ("model__ema_decay", "0.5", "--model.ema_decay 0.5 contradicts"),
    ],
)
def test_a_flag_that_contradicts_the_checkpoint_is_refused(
    tiny_run, phantoms, fit_flags, capsys, flag, value, told
):
    flags = fit_flags(phantoms, tiny_run, **{flag: value})
    refused(["fit", *flags, "--ckpt_path", "last"], capsys, told, "Drop the flag")


def test_training_starts_from_another_runs_weights(tiny_run, phantoms, fit_flags, tmp_path):
    run = tmp_path / "b"
    flags = [*fit_flags(phantoms, run, trainer__max_epochs=1), "--init_from", str(tiny_run)]
    # A vanishing learning rate leaves the weights where they started.
    assert main(["fit", *flags, "--model.optimization.learning_rate", "1e-12"]) == 0
    before, after = (load_trained(r / "checkpoints" / "best.ckpt").weights for r in (tiny_run, run))
    key = "encoder.0.0.0.weight"
    torch.testing.assert_close(before[key], after[key], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model__norm": "group"}, "--model.norm group contradicts the checkpoint (norm 'batch')"),
        ({"model__network.channels": "[8, 24]"}, "--model.network.channels [8, 24] contradicts"),
    ],
)
def test_weights_of_another_network_are_refused(
    tiny_run, phantoms, fit_flags, tmp_path, capsys, changes, told
):
    flags = [*fit_flags(phantoms, tmp_path / "c", **changes), "--init_from", str(tiny_run)]
    refused(["fit", *flags], capsys, told)
    assert not (tmp_path / "c").exists()


def test_weights_of_other_groups_or_classes_are_refused(phantoms, fit_flags, tmp_path, capsys):
    first = tmp_path / "first"
    group = {"model__norm": "group", "trainer__max_epochs": 1}
    assert main(["fit", *fit_flags(phantoms, first, **group)]) == 0
    capsys.readouterr()
    flags = fit_flags(phantoms, tmp_path / "b", model__norm_groups=4, **group)
    refused(["fit", *flags, "--init_from", str(first)], capsys, "--model.norm_groups 4 contradicts")
    content = json.loads(phantoms.read_text())
    content["labels"] = {f"{name}_": value for name, value in content["labels"].items()}
    (tmp_path / "m.json").write_text(json.dumps(content))
    flags = fit_flags(tmp_path / "m.json", tmp_path / "c", data__root=phantoms.parent, **group)
    refused(["fit", *flags, "--init_from", str(first)], capsys, "--data.labels")


def test_cases_that_trained_the_first_weights_stay_training_cases(
    tiny_run, phantoms, fit_flags, tmp_path
):
    run = tmp_path / "b"
    flags = fit_flags(phantoms, run, data__fold=1, trainer__max_epochs=1)
    assert main(["fit", *flags, "--init_from", str(tiny_run)]) == 0
    predictor = Predictor.from_run(run, "last")
    task = predictor.descriptions[0].task
    assert {predictor.role(case_id) for case_id in task["val_cases"]} == {"training"}
    resumed = fit_flags(phantoms, run, data__fold=1, trainer__max_epochs=2)
    assert main(["fit", *resumed, "--ckpt_path", "last"]) == 0
    again = Predictor.from_run(run, "last").descriptions[0].task
    assert again["earlier_cases"] == task["earlier_cases"]


def test_best_holds_the_weights_that_were_validated_within_an_epoch(phantoms, fit_flags, tmp_path):
    changes = {"trainer__val_check_interval": "4", "data__steps_per_epoch": "6"}
    assert main(["fit", *fit_flags(phantoms, tmp_path, **changes)]) == 0
    dice = {
        r["step"]: float(r["val/dice"]) for r in rows(tmp_path / "metrics.csv") if r["val/dice"]
    }
    kept = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=False)
    assert str(kept["global_step"]) == max(dice, key=dice.__getitem__)


def test_each_validation_and_each_epoch_has_a_row(phantoms, fit_flags, tmp_path):
    changes = {"trainer__val_check_interval": "2", "data__steps_per_epoch": "6"}
    assert main(["fit", *fit_flags(phantoms, tmp_path, **changes)]) == 0
    curve = rows(tmp_path / "metrics.csv")
    assert [(row["epoch"], row["step"]) for row in curve] == [
        (epoch, str(step))
        for epoch, steps in (("0", (2, 4, 6)), ("1", (8, 10, 12)))
        for step in steps
    ]
    assert all(row["val/dice"] and row["train/loss"] for row in curve)


def test_validate_gives_the_dice_of_the_best_checkpoint(tiny_run, capsys):
    assert main(["validate", "--run_dir", str(tiny_run), "--ckpt_path", "best"]) == 0
    told = capsys.readouterr().err
    best = max(float(row["val/dice"]) for row in rows(tiny_run / "metrics.csv"))
    assert f"{best:.4f}" in told


QUICK = ("sync_batch", "instance", "group", "evonorm_s0")
"""One of each kind of row; a fit and a prediction of every row take minutes."""


@pytest.mark.parametrize(
    "norm",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in NORMS
        if name != "batch"
    ],
)
def test_every_norm_is_fit_and_predicted_by_its_name(norm, phantoms, fit_flags, tmp_path):
    run = tmp_path / norm
    assert main(["fit", *fit_flags(phantoms, run, model__norm=norm, trainer__max_epochs=1)]) == 0
    predict = [
        "predict",
        "--run",
        str(run),
        "--input",
        str(phantoms),
        "--fold",
        "0",
        "--output",
        str(run / "p"),
    ]
    assert main(predict) == 0
    assert len(list((run / "p").glob("*.nii.gz"))) == 2


def test_averaged_weights_are_what_is_kept_and_have_their_own_statistics(
    phantoms, fit_flags, tmp_path
):
    run = tmp_path / "ema"
    assert main(["fit", *fit_flags(phantoms, run, model__ema_decay=0.5)]) == 0
    state = load_content(run / "checkpoints" / "last.ckpt")["state_dict"]
    kept = load_trained(run / "checkpoints" / "last.ckpt").weights
    name = "encoder.0.0.0.weight"
    assert torch.equal(kept[name], state[f"averaged.{name}"])
    assert not torch.equal(state[f"averaged.{name}"], state[f"network.{name}"])
    statistic = "encoder.0.0.1.running_mean"
    assert not torch.equal(state[f"averaged.{statistic}"], state[f"network.{statistic}"])
    assert main(["validate", "--run_dir", str(run)]) == 0


def test_averaged_weights_are_never_kept_with_statistics_of_others(phantoms, fit_flags, tmp_path):
    run = tmp_path / "ema"
    changes = {"trainer__check_val_every_n_epoch": 2, "trainer__max_epochs": 5}
    flags = fit_flags(phantoms, run, model__ema_decay=0.5, **changes)
    assert main(["fit", *flags, "--pause_after_epochs", "3"]) == 0  # of which one is validated
    best, last = (load_trained(run / "checkpoints" / f"{n}.ckpt").weights for n in ("best", "last"))
    assert not torch.equal(best["encoder.0.0.1.running_var"], last["encoder.0.0.1.running_var"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model__norm": "grup"}, ["model.norm must be one of", "Did you mean 'group'?"]),
        (
            {"data__patch_size": "[16, 16, 15]"},
            ["must be divisible by 2", "nearest larger: (16, 16, 16)"],
        ),
        (
            {"model__norm": "group", "model__network.channels": "[12, 24]"},
            ["divisible by 8; got channels (12, 24)"],
        ),
        (
            {"data__patch_size": "[2, 2, 2]", "data__batch_size": "1"},
            ["1 value(s) per statistic", "batch 1"],
        ),
        ({"data__fold": "9"}, ["has no fold 9"]),
        ({"data__train_folds": "[0, 1]"}, ["fold 0 is both validated and trained on"]),
        ({"data__manifest": "absent.json"}, ["absent.json: cannot be read"]),
        ({"data__root": "/nowhere"}, ["no such file", "--data.root"]),
        ({"model__nrm": "batch"}, ["nrm"]),
        pytest.param(
            {"trainer__accelerator": "gpu"},
            ["take --trainer.accelerator cpu"],
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU"),
        ),
        (
            {"model__ema_decay": "0.9", "trainer__precision": "bf16-true"},
            ["bf16-true cannot hold", "--trainer.precision bf16-mixed"],
        ),
        ({"data__preprocessing.intensity": "[zscor]"}, ["zscor"]),
        ({"data__batch_size": "0"}, ["batch_size"]),
        ({"data__num_workers": "-1"}, ["num_workers"]),
        ({"data__preprocessing.orientation": "XYZ"}, ["orientation"]),
        ({"model__norm_groups": "0"}, ["norm_groups must be at least 1"]),
        ({"model__network.dropout": "1.5"}, ["dropout"]),
        ({"model__network.channels": "[0, 8]"}, ["channels"]),
        ({"trainer__devices": "99"}, ["2 validation cases allow at most 2 devices", "got 99"]),
        ({"trainer__devices": "2", "model__norm": "sync_batch"}, ["sync_batch needs GPUs"]),
    ],
)
def test_a_wrong_request_is_refused_before_any_work(
    phantoms, fit_flags, tmp_path, capsys, changes, told
):
    run = tmp_path / "run"
    refused(["fit", *fit_flags(phantoms, run, **changes)], capsys, *told)
    assert not run.exists()


@pytest.mark.parametrize("place", ["file", "file/run", "/proc/run"])
def test_a_run_dir_that_cannot_be_written_is_refused_before_any_work(
    phantoms, fit_flags, tmp_path, capsys, monkeypatch, place
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("medseg.data.cache.Cache.prepare", None)  # would be the work
    refused(["fit", *fit_flags(phantoms, tmp_path / place)], capsys,
            f"--run_dir {tmp_path / place} cannot be written to")  # fmt: skip


def test_print_config_round_trips(phantoms, fit_flags, tmp_path, capsys):
    flags = fit_flags(phantoms, tmp_path / "run")
    assert main(["fit", *flags, "--print_config"]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "all.yaml").write_text(printed)
    assert main(["fit", "--config", str(tmp_path / "all.yaml"), "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(printed)


def test_equal_seeds_give_equal_weights_whatever_the_number_of_workers(
    phantoms, fit_flags, tmp_path
):
    states = []
    for workers in (0, 2):
        run = tmp_path / str(workers)
        assert main(["fit", *fit_flags(phantoms, run, data__num_workers=workers)]) == 0
        states.append(load_content(run / "checkpoints" / "last.ckpt")["state_dict"])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_the_schedule_ends_where_the_steps_end(phantoms, fit_flags, tmp_path):
    run = tmp_path / "steps"
    flags = fit_flags(phantoms, run, trainer__max_epochs=1000, trainer__max_steps=7)
    assert main(["fit", *flags]) == 0
    curve = rows(run / "metrics.csv")
    assert curve[-1]["step"] == "7"
    assert curve[-1]["val/dice"]  # the last weights are validated wherever the training ends
    peak = max(float(row["learning_rate"]) for row in curve)
    assert float(curve[-1]["learning_rate"]) < 0.2 * peak


def test_a_time_budget_ends_the_training_and_its_schedule(phantoms, fit_flags, tmp_path):
    run = tmp_path / "time"
    budget = {"trainer__max_epochs": 100000, "trainer__max_time": "00:00:00:05"}
    assert main(["fit", *fit_flags(phantoms, run, **budget)]) == 0
    assert 4 < json.loads((run / "fit.json").read_text())["seconds"] < 60
    assert float(rows(run / "metrics.csv")[-1]["learning_rate"]) < 2e-4
