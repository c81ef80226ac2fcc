"""The fingerprint: numbers of a data set whose truth is known, in RAS order."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from medseg.core.errors import ManifestError
from medseg.core.geometry import Grid
from medseg.core.manifest import parse_manifest
from medseg.data.fingerprint import fingerprint
from medseg.io import write_volume

LAS_SAGITTAL = np.array([[0, 0, -2.0, 9], [3.0, 0, 0, 0], [0, 4.0, 0, 0], [0, 0, 0, 1]])
"""Axes of the array: A, S, L with 3, 4 and 2 mm."""


def data_set(tmp_path, affine=LAS_SAGITTAL, shape=(6, 8, 10), labels=None):
    """Two cases: the value of every voxel of class 1 is 5 and 15, of class 2 it is -700."""
    rows = []
    for number in range(2):
        image = np.full(shape, -1000.0, dtype=np.float32)
        label = np.zeros(shape, dtype=np.uint8)
        label[:2, :2, :2] = 1
        label[4:, 4:, 5:] = 2 if number else 0
        image[label == 1] = 5 + 10 * number
        image[label == 2] = -700
        for name, array in (("image", image), ("label", label if labels is None else labels)):
            write_volume(tmp_path / f"{name}{number}.nii.gz", array, Grid(shape, affine))
        rows.append(
            {"image": f"image{number}.nii.gz", "label": f"label{number}.nii.gz", "fold": number}
        )
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "a": 1, "b": 2},
        "training": rows,
    }
    return parse_manifest(content, tmp_path / "m.json", tmp_path)


def test_shapes_and_spacings_are_in_ras_order(tmp_path):
    manifest = data_set(tmp_path)
    facts = fingerprint(manifest, manifest.training)
    assert facts.shapes == ((10, 6, 8),) * 2
    np.testing.assert_allclose(facts.spacings, [(2, 3, 4)] * 2)
    np.testing.assert_allclose(facts.shapes_at((1, 1, 1)), [(20, 18, 32)] * 2)


def test_classes_are_counted_and_weighed(tmp_path):
    manifest = data_set(tmp_path)
    first, second = fingerprint(manifest, manifest.training).classes
    assert (first.name, first.cases, second.name, second.cases) == ("a", 2, "b", 1)
    assert first.median_ml == pytest.approx(8 * 24 / 1000)
    assert second.share == pytest.approx(2 * 4 * 5 / 960)


def test_intensities_are_those_within_the_labels(tmp_path):
    manifest = data_set(tmp_path)
    (channel,) = fingerprint(manifest, manifest.training).channels
    values = np.repeat([5.0, 15.0, -700.0], [8, 8, 40])
    assert channel.mean == pytest.approx(values.mean())
    assert channel.deviation == pytest.approx(values.std())
    assert (channel.low, channel.median, channel.high) == pytest.approx((-700, -700, 15))
    assert channel.lowest == -1000


def test_only_the_cases_asked_for_are_read(tmp_path):
    manifest = data_set(tmp_path)
    (tmp_path / "image1.nii.gz").unlink()
    facts = fingerprint(manifest, manifest.in_folds([0]))
    assert len(facts.cases) == 1
    assert facts.classes[1].cases == 0


def test_all_cases_that_cannot_be_read_are_named(tmp_path):
    manifest = data_set(tmp_path)
    for number in range(2):
        (tmp_path / f"image{number}.nii.gz").write_bytes(b"")
    with pytest.raises(ManifestError, match=r"(?s)image0.*image1.*medseg check"):
        fingerprint(manifest, manifest.training)


def test_a_data_set_without_foreground_is_refused(tmp_path):
    manifest = data_set(tmp_path, labels=np.zeros((6, 8, 10), dtype=np.uint8))
    with pytest.raises(ManifestError, match="no case has any foreground"):
        fingerprint(manifest, manifest.training)


def test_it_is_json(tmp_path):
    manifest = data_set(tmp_path)
    facts = fingerprint(manifest, manifest.training)
    assert json.loads(json.dumps(asdict(facts)))["classes"][0]["name"] == "a"
