"""Trainings that are watched, and trainings that diverge, on phantoms."""

import csv
import json

import torch

from medseg.cli import main
from medseg.networks.checkpoint import load_content
from medseg.training.module import SegmentationModule

LONG_ENOUGH = {
    "data__steps_per_epoch": "130",
    "trainer__max_epochs": "1",
    "model__network__dropout": "0.2",
    "model__learn_postprocessing": "false",
}


def test_a_watched_training_has_the_bits_of_one_that_is_not(phantoms, fit_flags, tmp_path):
    weights = []
    for watched in ("true", "false"):
        run_dir = tmp_path / watched
        flags = fit_flags(phantoms, run_dir, probes=watched, **LONG_ENOUGH)
        assert main(["fit", *flags]) == 0
        weights.append(load_content(run_dir / "checkpoints" / "last.ckpt")["state_dict"])
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    seen = json.loads((tmp_path / "true" / "probes.json").read_text())
    assert seen["roughness"] > 0
    assert seen["gradient_spikes"] is not None
    assert [look["step"] for look in seen["series"]] == [125]
    assert seen["loss_range"] == seen["series"][0]["loss_range"] > 0
    rows = list(csv.DictReader((tmp_path / "true" / "metrics.csv").open()))
    assert 0 < float(rows[-1]["train/dice"]) < 1
    assert float(rows[-1]["train_seconds"]) < float(rows[-1]["seconds"])
    assert not (tmp_path / "false" / "probes.json").exists()


def test_a_resumed_training_goes_on_with_what_was_seen(phantoms, fit_flags, tmp_path):
    settings = {**LONG_ENOUGH, "data__steps_per_epoch": "5", "trainer__max_epochs": "2"}
    settings["probes"] = "true"
    whole = fit_flags(phantoms, tmp_path / "whole", **settings)
    assert main(["fit", *whole]) == 0
    run_dir = tmp_path / "halves"
    half = fit_flags(phantoms, run_dir, **settings)
    # Ended by a failure after the first epoch.
    original = SegmentationModule.on_validation_epoch_start

    def broken(self):
        if self.trainer.current_epoch == 1:
            raise ZeroDivisionError
        original(self)

    SegmentationModule.on_validation_epoch_start = broken
    try:
        assert main(["fit", *half]) == 1
    finally:
        SegmentationModule.on_validation_epoch_start = original
    assert json.loads((run_dir / "probes.json").read_text())["steps"] == 10
    assert main(["fit", *half, "--ckpt_path", "last"]) == 0
    first, second = (json.loads((place / "probes.json").read_text()) for place in (
        tmp_path / "whole", run_dir))  # fmt: skip
    assert first["steps"] == second["steps"] == 10
    assert first["series"] == []
    assert first["share"] > 0  # what is noted of every step counts, not the looks alone
    assert first["roughness"] == second["roughness"]


def test_a_divergence_is_recorded_with_its_reason(phantoms, fit_flags, tmp_path, monkeypatch):
    original = SegmentationModule.training_step

    def exploding(self, batch, index):
        out = original(self, batch, index)
        return {**out, "loss": out["loss"] * float("inf")} if self.trainer.global_step else out

    monkeypatch.setattr(SegmentationModule, "training_step", exploding)
    assert main(["fit", *fit_flags(phantoms, tmp_path / "run")]) == 2
    record = json.loads((tmp_path / "run" / "fit.json").read_text())
    assert record["diverged"].startswith("the loss of step 2 is not finite")
    assert record["interrupted"]


def test_a_study_takes_a_divergence_for_a_result(phantoms, fit_flags, tmp_path):
    # A rate that float32 cannot hold: there are no weights to score.
    study = {
        "config": [],
        "fixed": {
            "data.manifest": str(phantoms),
            "data.patch_size": [16, 16, 16],
            "data.steps_per_epoch": 3,
            "model.network.channels": [8, 16],
            "trainer.accelerator": "cpu",
            "trainer.max_epochs": 1,
            "model.learn_postprocessing": False,
            "model.optimization.name": "sgd",
            "model.optimization.warmup": 0.0,
        },
        "grid": {"learning_rate": [1e38]},
    }
    (tmp_path / "study.yaml").write_text(json.dumps(study))
    command = ["study", "--config", str(tmp_path / "study.yaml"), "--output", str(tmp_path / "out")]
    assert main(command) == 0
    (run,) = (tmp_path / "out" / "runs").iterdir()
    record = json.loads((run / "study.json").read_text())
    assert record["status"] == "diverged"
    assert record["reason"].startswith("the loss of step")
    # Nothing is left to do, and what diverged is not tried again.
    before = (run / "fit.log").stat().st_mtime_ns
    assert main(command) == 0
    assert (run / "fit.log").stat().st_mtime_ns == before
