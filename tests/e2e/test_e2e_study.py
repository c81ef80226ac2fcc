"""A study end to end: cross-validation, resuming, runs that cannot be or that fail."""

import csv
import json
import signal
import subprocess
import sys
import time

import pytest
import yaml

from medseg.cli import main

EPOCHS = 12
"""Long enough to be interrupted after the first."""

FIT = {
    "trainer": {"accelerator": "cpu", "devices": 1, "max_epochs": 2},
    "model": {"network": {"channels": [8, 16]}, "learn_postprocessing": False},
    "data": {"patch_size": [16, 16, 16], "steps_per_epoch": 2},
}


@pytest.fixture
def fit_yaml(phantoms, tmp_path):
    content = {**FIT, "data": {**FIT["data"], "manifest": str(phantoms)}}
    path = tmp_path / "fit.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def study_yaml(fit_yaml, grid, **more):
    path = fit_yaml.parent / "study.yaml"
    path.write_text(
        yaml.safe_dump({"config": [fit_yaml.name], "grid": grid, **more}, sort_keys=False)
    )
    return path


def cases_of(path):
    with path.open() as file:
        return [(row["case_id"], row["role"]) for row in csv.DictReader(file)]


def test_a_cross_validation_scores_every_case_by_a_run_that_did_not_see_it(
    phantoms, fit_yaml, tmp_path, capsys
):
    output = tmp_path / "cv"
    command = ["study", "--config", str(fit_yaml), "--output", str(output), "--threads", "1"]
    assert main([*command, "--dry_run"]) == 0
    assert "fold=3" in capsys.readouterr().err
    assert not output.exists()
    assert main([*command, "--shard", "0/2"]) == 0
    told = capsys.readouterr().err
    assert "2 runs are left to other shares" in told
    assert told.index("measuring bare steps") < told.index("predicted hours")
    log = output / "runs" / "fold=0" / "fit.log"
    assert f"started     fold=0, 1 of 2; its log: {log}" in told
    assert "done        fold=0; 1 left, about" in told
    assert main([*command, "--shard", "1/2"]) == 0
    manifest = json.loads(phantoms.read_text())
    rows = cases_of(output / "oof" / "cases.csv")
    assert {case for case, _ in rows} == {
        entry["image"].split("/")[-1].removesuffix(".nii.gz") for entry in manifest["training"]
    }
    assert {role for _, role in rows} == {"validation"}
    assert (output / "report.html").stat().st_size > 10_000
    # Nothing is left to do, and nothing is done again.
    made = (output / "runs" / "fold=0" / "fit.json").stat().st_mtime_ns
    assert main(command) == 0
    assert (output / "runs" / "fold=0" / "fit.json").stat().st_mtime_ns == made
    fit_yaml.write_text(fit_yaml.read_text().replace("max_epochs: 2", "max_epochs: 3"))
    assert main(command) == 2
    assert "asked otherwise: fold=0" in capsys.readouterr().err


@pytest.mark.slow
def test_a_cell_that_cannot_be_built_is_left_out_by_name_and_a_failing_run_stops_no_other(
    fit_yaml, tmp_path, capsys
):
    grid = {
        "norm": ["group", "instance"],
        "model.norm_groups": [8, 16],
        "learning_rate": [1e-3, -1.0],
    }
    more = {"exclude": [{"norm": "instance", "model.norm_groups": 16}], "fixed": {"fold": 0}}
    path = study_yaml(fit_yaml, grid, **more)
    output = tmp_path / "study"
    command = ["study", "--config", str(path), "--output", str(output), "--workers", "2"]
    assert main([*command, "--threads", "1"]) == 2
    assert not output.exists()
    assert main([*command, "--threads", "1", "--skip_impossible"]) == 3
    told = capsys.readouterr().err
    assert (
        "left out norm=group,model.norm_groups=16,learning_rate=0.001: norm 'group' needs" in told
    )
    assert "learning_rate=-1.0 failed: fit ended with status 2; see fit.log" in told
    scored = sorted(file.parent.name for file in output.glob("runs/*/scores.csv"))
    assert scored == [
        "norm=group,model.norm_groups=8,learning_rate=0.001",
        "norm=instance,model.norm_groups=8,learning_rate=0.001",
    ]
    assert (output / "report.html").is_file()
    page = (output / "study.html").read_text()
    assert "another model.norm_groups" in page  # the cell that cannot be built, with its reason
    assert "impossible" in page
    assert json.loads((output / "claims.json").read_text())


def test_an_unknown_flag_is_refused_before_any_work(fit_yaml, tmp_path, capsys):
    path = study_yaml(fit_yaml, {"model.norms": ["batch"]})
    assert main(["study", "--config", str(path), "--output", str(tmp_path / "out")]) == 2
    assert "model.norms" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_study_goes_on(sent, fit_yaml, tmp_path):
    fixed = {"trainer.max_epochs": EPOCHS}
    path = study_yaml(fit_yaml, {"seed": [0, 1]}, fixed=fixed)
    output = tmp_path / "study"
    command = ["study", "--config", str(path), "--output", str(output), "--threads", "1"]
    process = subprocess.Popen([sys.executable, "-m", "medseg", *command])
    last = output / "runs" / "seed=0" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(sent)
    assert process.wait(60) == (143 if sent == signal.SIGTERM else -signal.SIGKILL)
    assert not (output / "report.html").exists()
    assert main(command) == 0
    with (output / "runs" / "seed=0" / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == [str(n) for n in range(EPOCHS)]
    assert (output / "report.html").is_file()


@pytest.mark.slow
def test_learning_rates_that_are_behind_are_halved_away(fit_yaml, tmp_path, capsys):
    content = yaml.safe_load(fit_yaml.read_text())
    for name in ("trainer.max_epochs", "data.steps_per_epoch"):  # the budget's to say
        section, flag = name.split(".")
        del content[section][flag]
    fit_yaml.write_text(yaml.safe_dump(content))
    grid = {"norm": ["batch", "instance"], "learning_rate": [1e-5, 1e-2]}
    more = {"budget": {"steps": 40, "validations": 4}, "fixed": {"fold": 0, "batch_size": 2}}
    path = study_yaml(fit_yaml, grid, halving=[2], **more)
    output = tmp_path / "study"
    command = ["study", "--config", str(path), "--output", str(output), "--workers", "2"]
    assert main([*command, "--threads", "1"]) == 0
    told = capsys.readouterr().err
    assert told.count("halved away") == 2
    for norm in ("batch", "instance"):
        slow, fast = (output / "runs" / f"norm={norm},learning_rate={r}" for r in ("1e-05", "0.01"))
        assert len(slow.joinpath("metrics.csv").read_text().splitlines()) == 3
        assert not slow.joinpath("predictions").exists()
        assert len(fast.joinpath("metrics.csv").read_text().splitlines()) == 5
        assert fast.joinpath("scores.csv").is_file()
    assert "halved" in (output / "study.html").read_text()
    with (output / "cells.csv").open() as file:
        assert sum(row["status"].startswith("halved away") for row in csv.DictReader(file)) == 2
    assert main([*command, "--threads", "1"]) == 0  # nothing is left


@pytest.mark.slow
def test_ray_gives_the_scores_of_local_runs(fit_yaml, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'medseg[ray]')")
    monkeypatch.chdir(tmp_path)
    path = study_yaml(fit_yaml, {"seed": [0, 1], "learning_rate": [1e-3, -1.0]}, fixed={"fold": 0})
    command = ["study", "--config", str(path), "--threads", "1", "--workers", "2"]
    assert main([*command, "--output", "local"]) == 3
    assert main([*command, "--output", "ray", "--engine", "ray"]) == 3
    made = sorted(tmp_path.glob("local/runs/*/scores.csv"))
    assert len(made) == 2
    for scores in made:
        run = scores.parent
        there = tmp_path / "ray" / "runs" / run.name
        assert (there / "scores.csv").read_text() == scores.read_text()
        assert json.loads((there / "study.json").read_text())["status"] == "scored"
    failed = tmp_path / "ray" / "runs" / "seed=1,learning_rate=-1.0" / "study.json"
    assert json.loads(failed.read_text())["status"] == "failed"
    assert (tmp_path / "ray" / "report.html").is_file()


@pytest.mark.slow
def test_an_interrupted_study_on_ray_goes_on(fit_yaml, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'medseg[ray]')")
    path = study_yaml(fit_yaml, {"seed": [0]}, fixed={"trainer.max_epochs": EPOCHS})
    output = tmp_path / "study"
    command = ["study", "--config", str(path), "--output", str(output), "--engine", "ray"]
    process = subprocess.Popen([sys.executable, "-m", "medseg", *command])
    run = output / "runs" / "seed=0"
    deadline = time.monotonic() + 180
    while not (run / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert json.loads((run / "study.json").read_text())["status"] == "interrupted"
    assert main(command) == 0
    assert json.loads((run / "study.json").read_text())["status"] == "scored"
