"""Small label maps on disk."""

import json
import logging

import nibabel as nib
import numpy as np
import pytest

SHAPE = (12, 10, 8)
AFFINE = np.diag([1.0, 1.5, 2.0, 1.0])


@pytest.fixture
def save():
    """Return a function that writes a label map."""

    def write(path, array, affine=AFFINE):
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), path)
        return path

    return write


@pytest.fixture
def cube():
    """Return a function that makes a label map with one cuboid of a value."""

    def make(start=2, stop=6, value=1):
        labels = np.zeros(SHAPE, np.uint8)
        labels[start:stop, 2:6, 2:6] = value
        return labels

    return make


@pytest.fixture
def data_set(tmp_path, save, cube):
    """Return a function that writes references and a manifest for cases with these folds."""

    def make(folds, **more):
        training = []
        for case_id, fold in folds.items():
            save(tmp_path / "labels" / f"{case_id}.nii.gz", cube())
            entry = {"image": f"images/{case_id}.nii.gz", "label": f"labels/{case_id}.nii.gz"}
            training.append(entry | {"fold": fold, "group": f"patient of {case_id}"})
        content = {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, "organ": 1, "tumour": 4},
            "training": training,
        }
        path = tmp_path / "manifest.json"
        path.write_text(json.dumps(content | more))
        return path

    return make


@pytest.fixture
def screen(caplog, monkeypatch):
    """Return what is logged."""
    monkeypatch.setattr(logging.getLogger("medseg"), "propagate", True)
    caplog.set_level(logging.INFO, "medseg")
    return caplog
