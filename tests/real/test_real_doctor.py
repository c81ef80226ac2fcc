"""The doctor on a short training of real MRI: what is known of batch norm is found."""

import json

import pytest

from medseg.cli import main
from medseg.networks.checkpoint import load_trained

pytestmark = [pytest.mark.real_data, pytest.mark.slow]


@pytest.fixture(scope="module")
def examined(repository, medseg_data, tmp_path_factory):
    """Return the run of 30 steps of batch 2 and what the doctor found and recalibrated."""
    run_dir = tmp_path_factory.mktemp("doctor") / "run"
    pipelines = repository / "pipelines"
    words = f"""--config {pipelines}/base.yaml --config {pipelines}/cpu.yaml
        --data.manifest {repository}/data_manifests/hippocampus.json
        --data.root {medseg_data}/hippocampus --data.fold 2 --data.train_folds [3]
        --data.preprocessing.spacing [2,2,2] --data.patch_size [16,24,16] --data.batch_size 2
        --data.steps_per_epoch 30 --trainer.max_epochs 1 --trainer.limit_val_batches 2
        --model.network.channels [8,16,32] --model.network.strides null
        --model.learn_postprocessing false --model.norm batch --run_dir {run_dir}"""
    assert main(["fit", *words.split()]) == 0
    flags = ["--run", str(run_dir), "--checkpoint", "last", "--cases_max", "4", "--patches", "60"]
    assert main(["doctor", *flags, "--recalibrate", "pooled"]) == 0
    return run_dir, json.loads((run_dir / "doctor.json").read_text())


def test_early_running_statistics_are_far_and_precise_ones_near_the_cases_own(examined):
    _, found = examined
    # After 30 steps of momentum 0.1 the running ones remember the last dozen patches at most.
    layers = found["layers"]
    assert len(layers) == 10
    assert sum(layer["running_own"] for layer in layers) > sum(
        layer["precise_own"] for layer in layers
    )


def test_gains_are_scaled_away_and_bias_fields_are_not(examined):
    _, found = examined
    altered = {row["name"]: row["against"]["mean"] for row in found["altered"]}
    assert altered["gain 0.5"] == altered["gain 2"] == 0.0
    assert altered["bias field ±0.3"] != 0.0
    assert found["mates"]["variance"] > 0.0


def test_the_recalibrated_run_predicts_with_the_precise_statistics(examined):
    run_dir, found = examined
    copy = run_dir.with_name("run_pooled")
    old, new = (
        load_trained(folder / "checkpoints/last.ckpt").weights for folder in (run_dir, copy)
    )
    assert any(not old[name].equal(new[name]) for name in old if "running_var" in name)
    again = ["doctor", "--run", str(copy), "--checkpoint", "last", "--cases_max", "4",
             "--patches", "60"]  # fmt: skip
    assert main(again) == 0
    now = json.loads((copy / "doctor.json").read_text())
    precise = found["modes"]["dice"]["precise"]
    assert now["modes"]["dice"]["running"] == pytest.approx(precise, abs=1e-3)
