"""What a study measures on trained weights: the same numbers as the doctor's, for every norm."""

import json
import math
import shutil
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch

from medseg.cli import main
from medseg.networks.checkpoint import load_content
from medseg.networks.norms import NORMS
from medseg.networks.unet import Architecture, UNet
from medseg.study.after import measure_after
from medseg.study.after_layers import norm_layers, parameter_spread, variance_shift
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
    "model.overlap": "0",
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


FEW = {"batch", "group_ws"}
"""All others take minutes together."""


@pytest.mark.parametrize(
    "norm", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in sorted(NORMS)]
)
def test_every_norm_is_measured_whole(norm, trained):
    checkpoint = trained(norm) / "checkpoints" / "last.ckpt"
    before = checkpoint.read_bytes()
    found = measure_after(trained(norm), cases=1, patches=2)
    assert checkpoint.read_bytes() == before
    wanted = {field.name for field in fields(Probes)} - WATCHED
    assert wanted <= set(found)
    assert set(found["costs"]) == {field.name for field in fields(Costs)}
    stored = json.loads((trained(norm) / "after.json").read_text())
    assert set(stored) == set(found)
    assert stored["dice_running"] == found["dice_running"]
    row = NORMS[norm]
    if row.batch_dependent:
        assert found["batch_mate_noise"] > 0
    else:
        assert found["batch_mate_noise"] == 0.0
    if not row.eval_differs:
        assert found["dice_own"] == found["dice_precise"] == found["dice_running"]
    unknown = {name for name, value in stored.items() if value is None}
    layers = {"gamma_sd", "gamma_small", "beta_sd", "variance_shift"} if norm == "none" else set()
    assert unknown == layers | (set() if row.eval_differs else {"statistics_distance"})
    raw, fast = (found["costs"][f"{kind}_seconds"] for kind in ("inference", "folded"))
    assert (raw == fast) == (norm == "none" or not (row.folds or row.standardizes))
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


class Patches:
    """Training data of random patches."""

    batch_size = 2

    def population(self, batches):
        """Yield batches of patches."""
        generator = torch.Generator().manual_seed(0)
        for _ in range(batches):
            yield torch.randn((2, 1, 16, 16, 16), generator=generator)


def test_dropout_shifts_the_variance_and_nothing_else_does():
    def shift(dropout):
        architecture = Architecture(channels=[8, 16], depth=1, decoder_depth=1, dropout=dropout)
        network = UNet(1, 2, architecture, "instance", seed=0).eval()
        patient = SimpleNamespace(network=network, data=Patches(), device=torch.device("cpu"))
        found = variance_shift(patient)
        assert not any(module.training for module in network.modules())
        return found

    assert shift(0.0) == 1.0
    assert 1.1 < shift(0.5) < 2.5  # half the channels, twice as large: E[x²] doubles
    assert shift(0.5) == shift(0.5)


def test_weights_that_are_no_numbers_are_a_result(trained, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(trained("batch"), run_dir)
    path = run_dir / "checkpoints" / "last.ckpt"
    content = load_content(path)
    content["state_dict"] = {
        name: value * math.nan if value.is_floating_point() else value
        for name, value in content["state_dict"].items()
    }
    torch.save(content, path)
    measure_after(run_dir, cases=1, patches=2)
    stored = json.loads((run_dir / "after.json").read_text())
    assert stored["dice_running"] is not None
    for name in ("gamma_sd", "gamma_small", "batch_mate_noise", "statistics_distance",
                 "variance_shift", "window_sensitivity"):  # fmt: skip
        assert stored[name] is None, name
    assert stored["costs"]["folded_seconds"] == stored["costs"]["inference_seconds"]


def test_where_one_window_has_no_statistics_there_are_no_own_ones(phantoms, tmp_path, capsys):
    run_dir = tmp_path / "run"
    flags = {**SETTINGS, "model.network.strides": "[[1, 1, 1], [16, 16, 16]]"}
    flags |= {"data.batch_size": "4", "data.manifest": phantoms, "run_dir": run_dir}
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    assert main(["fit", *words]) == 0
    found = measure_after(run_dir, cases=1, patches=2)
    assert found["dice_running"] is not None
    assert found["dice_precise"] is not None
    assert found["dice_own"] is None
    assert found["statistics_distance"] is None
    assert found["batch_mate_noise"] > 0
    capsys.readouterr()
    command = ["doctor", "--run", str(run_dir), "--cases_max", "2", "--patches", "4"]
    assert main([*command, "--recalibrate", "pooled"]) == 0
    told = capsys.readouterr().err
    assert "left out: a case has no statistics of its own" in told
    assert "SD away from those of the training patches" in told
    seen = json.loads((run_dir / "doctor.json").read_text())
    assert list(seen["modes"]["dice"]) == ["running", "precise"]
    assert {layer["running_own"] for layer in seen["layers"]} == {None}
    page = (run_dir / "doctor.html").read_text()
    assert "Own statistics are left out: a case has no statistics of its own" in page
    assert "Running to precise" in page
    assert "Running to own" not in page
    copy = load_content(run_dir.with_name("run_pooled") / "checkpoints" / "best.ckpt")
    assert copy["recalibrated"]["training_patches"] == 4


def test_gammas_are_those_of_norms_and_not_of_convolutions():
    network = UNet(1, 2, Architecture(channels=[8, 16]), "batch")
    layers = norm_layers(network)
    assert len(layers) == 2 * 2 + 2  # two levels of the encoder, one of the decoder
    assert all(isinstance(layer, torch.nn.BatchNorm3d) for layer in layers.values())


def test_gamma_and_beta_are_described_over_all_channels():
    network = UNet(1, 2, Architecture(channels=[8, 16], depth=1, decoder_depth=1), "group")
    first, *rest = norm_layers(network).values()
    with torch.no_grad():
        first.weight[:4], first.bias[:] = 0.005, 0.5
    gammas = torch.cat([first.weight, *[layer.weight for layer in rest]]).detach()
    betas = torch.cat([first.bias, *[layer.bias for layer in rest]]).detach()
    found = parameter_spread(network)
    assert found["gamma_small"] == pytest.approx(4 / len(gammas))
    assert found["gamma_sd"] == pytest.approx(float(gammas.std()))
    assert found["beta_sd"] == pytest.approx(float(betas.std()))
