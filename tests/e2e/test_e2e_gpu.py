"""Training and prediction on GPUs; skipped where there is none."""

import json

import nibabel
import numpy as np
import pytest
from test_e2e_exact import EVERYTHING, digest, interrupted

from medseg.cli import main
from medseg.networks.checkpoint import load_trained
from medseg.training.module import SegmentationModule

pytestmark = pytest.mark.gpu

GPU = {"trainer__accelerator": "gpu"}


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_one_gpu_trains_in_mixed_precision(precision, phantoms, fit_flags, tmp_path):
    run = tmp_path / "run"
    flags = fit_flags(phantoms, run, **GPU, trainer__precision=precision)
    assert main(["fit", *flags]) == 0
    record = json.loads((run / "fit.json").read_text())
    assert record["precision"] == precision
    assert record["device"] != "cpu"
    assert record["irreproducible_because"] == ["on a GPU without --trainer.deterministic true"]
    weights = load_trained(run / "checkpoints" / "last.ckpt").weights
    assert all(bool(value.isfinite().all()) for value in weights.values())


@pytest.mark.parametrize("encoder", ["plain", "residual"])
def test_a_deterministic_training_is_resumed_to_the_same_weights(
    encoder, phantoms, fit_flags, tmp_path, monkeypatch
):
    network = {"model__network.encoder": encoder, "trainer__deterministic": "true"}
    changes = {**EVERYTHING, **GPU, **network, "trainer__max_epochs": "2"}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(["fit", *fit_flags(phantoms, whole, **changes)]) == 0
    flags = fit_flags(phantoms, cut, **changes)
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationModule, "training_step", interrupted(8, 15))
        assert main(["fit", *flags]) == 143
    assert main(["fit", *flags, "--ckpt_path", "last"]) == 0
    assert digest(cut / "checkpoints" / "last.ckpt") == digest(whole / "checkpoints" / "last.ckpt")
    assert json.loads((cut / "fit.json").read_text())["reproducible"]


def test_a_gpu_labels_as_the_cpu_does(tiny_run, phantoms, tmp_path):
    labels = []
    for device in ("cpu", "cuda"):
        output = tmp_path / device
        flags = ["--run", str(tiny_run), "--input", str(phantoms), "--fold", "0"]
        assert main(["predict", *flags, "--device", device, "--output", str(output)]) == 0
        labels.append(
            {path.name: np.asarray(nibabel.load(path).dataobj) for path in output.glob("*.nii.gz")}
        )
    assert set(labels[0]) == set(labels[1])
    for name, label in labels[0].items():
        same = np.mean(label == labels[1][name])
        assert same > 0.999, name  # voxels on the edge between two classes
