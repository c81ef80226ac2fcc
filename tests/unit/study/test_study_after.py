"""What a study measures on trained weights: the same numbers as the doctor's, for every norm."""

import json
from dataclasses import fields

import pytest
import torch

from medseg.cli import main
from medseg.networks.norms import NORMS
from medseg.study.after import measure_after, norm_layers
from medseg.study.doctor import examine
from medseg.study.doctor_options import DoctorOptions
from medseg.study.doctor_patient import admit
from medseg.study.measurements import Costs, Probes

WATCHED = {"roughness", "gradient_spikes", "loss_range", "gradient_change", "effective_beta"}
SETTINGS = {
    "data.patch_size": "[16, 16, 16]",
    "data.steps_per_epoch": "3",
    "model.network.channels": "[8, 16]",
    "model.network.dropout": "0.3",
    "model.norm_groups": "4",
    "model.learn_postprocessing": "false",
    "trainer.accelerator": "cpu",
    "trainer.devices": "1",
    "trainer.max_epochs": "1",
    "trainer.limit_val_batches": "1",
}


@pytest.fixture(scope="module")
def trained(phantoms, tmp_path_factory):
    """Return the function that trains a norm for three steps, once."""
    folder = tmp_path_factory.mktemp("after")

    def train(norm):
        run_dir = folder / norm
        if not run_dir.exists():
            flags = {"data.manifest": phantoms, "run_dir": run_dir, "model.norm": norm, **SETTINGS}
            words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
            assert main(["fit", *words]) == 0
        return run_dir

    return train


FEW = {"none", "batch", "group_ws"}
"""All others take minutes together."""


@pytest.mark.parametrize(
    "norm", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in sorted(NORMS)]
)
def test_every_norm_is_measured_whole(norm, trained):
    found = measure_after(trained(norm), cases=1, patches=2)
    wanted = {field.name for field in fields(Probes)} - WATCHED
    assert wanted <= set(found)
    assert set(found["costs"]) == {field.name for field in fields(Costs)}
    stored = json.loads((trained(norm) / "after.json").read_text())
    assert stored["dice_running"] == found["dice_running"]
    mixes = NORMS[norm].batch_dependent
    assert (found["batch_mate_noise"] > 0) == mixes
    if not NORMS[norm].eval_differs:
        assert found["dice_own"] == found["dice_precise"] == found["dice_running"]
    assert all(found["costs"][name] > 0 for name in ("peak_mib", "inference_seconds", "parameters"))


def test_the_numbers_are_the_doctors(trained):
    run_dir = trained("batch")
    found = measure_after(run_dir, cases=2, patches=8)
    options = DoctorOptions(run=run_dir, checkpoint="last", cases_max=2, patches=8)
    seen, _ = examine(options, admit(options))
    for mode in ("running", "precise", "own"):
        assert found[f"dice_{mode}"] == seen.modes.mean(mode)
    assert found["batch_mate_noise"] == seen.mates.variance
    assert found["statistics_distance"] == pytest.approx(
        sum(layer.running_own for layer in seen.layers) / len(seen.layers)
    )
    assert found["invariance"]["gain 2"] == pytest.approx(0, abs=1e-6)  # z-scored away
    assert set(found["invariance"]) == {altered.name for altered in seen.altered}


def test_dropout_shifts_the_variance_and_nothing_else_does(trained, phantoms, tmp_path):
    assert measure_after(trained("batch"), cases=1, patches=2)["variance_shift"] != 1
    flags = {**SETTINGS, "model.network.dropout": "0", "data.manifest": phantoms}
    flags |= {"run_dir": tmp_path / "run", "model.norm": "instance"}
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    assert main(["fit", *words]) == 0
    assert measure_after(tmp_path / "run", cases=1, patches=2)["variance_shift"] == 1.0


def test_the_run_is_left_as_it_was(trained):
    checkpoint = trained("batch") / "checkpoints" / "last.ckpt"
    before = checkpoint.read_bytes()
    measure_after(trained("batch"), cases=1, patches=2)
    assert checkpoint.read_bytes() == before


def test_gammas_are_those_of_norms_and_not_of_convolutions(trained):
    options = DoctorOptions(run=trained("batch"), checkpoint="last")
    network = admit(options).network
    layers = norm_layers(network)
    assert len(layers) == 2 * 2 + 2  # two levels of the encoder, one of the decoder
    assert not any(isinstance(layer, torch.nn.Conv3d) for layer in layers.values())
