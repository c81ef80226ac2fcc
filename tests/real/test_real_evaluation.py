"""Evaluation of a known rule on real volumes."""

import json

import nibabel as nib
import numpy as np
import pytest

from medseg.evaluation.evaluate import evaluate
from medseg.evaluation.options import EvaluateOptions
from medseg.io import read_volume, write_label_map

pytestmark = pytest.mark.real_data


def test_threshold_rule_on_pet_has_the_dice_that_numpy_finds(medseg_data, tmp_path):
    folder = medseg_data / "sarcoma" / "pet"
    images = sorted((folder / "images").glob("*.nii.gz"))
    expected = []
    for path in images:
        volume = read_volume(path)
        label = (volume.array > 2).astype(np.uint8)
        write_label_map(tmp_path / "predictions" / path.name, label, volume.grid)
        reference = np.asarray(nib.load(folder / "labels" / path.name).dataobj) > 0
        expected.append(2 * (label * reference).sum() / (label.sum() + reference.sum()))
    options = EvaluateOptions(
        predictions=tmp_path / "predictions",
        references=folder / "labels",
        output=tmp_path / "out",
        workers=1,
    )
    assert evaluate(options) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    dice = summary["classes"]["1"]["metrics"]["dice"]
    assert dice["n"] == len(images) == 35
    assert dice["mean"] == pytest.approx(np.mean(expected), abs=1e-9)
    assert dice["ci_method"] == "BCa bootstrap"
    assert len(summary["cases"]["spacing_above_tolerance"]) == 35, "3.27 mm slices, 2 mm tolerance"
