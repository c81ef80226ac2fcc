"""The data set doctor on real data: planted faults found, good cases left in peace."""

import json
import time

import numpy as np
import pytest

from medseg.check.dataset import check
from medseg.check.options import CheckOptions
from medseg.check.pairing import measure_fit
from medseg.io import read_volume

pytestmark = pytest.mark.real_data

SECONDS = 20
"""For 208 cases on two cores; it takes about 5."""


def report(manifest, tmp_path, **options):
    output = tmp_path / "out.json"
    status = check(CheckOptions(manifest, output=output, **options))
    return status, json.loads(output.read_text(encoding="utf-8"))["findings"]


def test_208_good_cases_have_no_error_and_hardly_a_warning(repository, medseg_data, tmp_path):
    started = time.monotonic()
    status, found = report(
        repository / "data_manifests/hippocampus.json", tmp_path, root=medseg_data / "hippocampus"
    )
    assert time.monotonic() - started < SECONDS
    assert status == 0
    assert sorted(f["code"] for f in found) == ["absent-cases"]


def test_good_pet_has_no_error_and_hardly_a_warning(repository, medseg_data, tmp_path):
    manifest = repository / "data_manifests/sarcoma_pet.json"
    status, found = report(manifest, tmp_path, root=medseg_data / "sarcoma")
    assert status == 0
    assert found == []


def test_every_fault_of_the_public_copy_is_found(medseg_data, tmp_path):
    status, found = report(medseg_data / "hippocampus_bad", tmp_path)
    assert status == 3
    assert {(f["severity"], f["code"], f["case_id"]) for f in found} == {
        ("error", "label-without-image", "hippocampus_010"),
        ("error", "label-without-image", "hippocampus_281"),
        ("warning", "image-without-label", "hippocampus_118"),
        ("warning", "duplicate-label", "hippocampus_010"),
        ("warning", "spacing-outlier", "hippocampus_281"),
        ("warning", "size-outlier", "hippocampus_281"),
    }


def test_they_are_found_beside_a_manifest_that_does_not_list_them(
    repository, medseg_data, tmp_path
):
    manifest = repository / "data_manifests/hippocampus.json"
    _, found = report(manifest, tmp_path, root=medseg_data / "hippocampus_bad")
    unlisted = {f["case_id"] for f in found if f["code"] == "unlisted-file"}
    assert unlisted == {"hippocampus_010", "hippocampus_118", "hippocampus_281"}
    assert [f["case_id"] for f in found if f["code"] == "duplicate-label"] == ["hippocampus_010"]


def test_every_mirrored_hippocampus_fits_worse_than_the_true_one(medseg_data):
    folder = medseg_data / "hippocampus"
    for path in sorted((folder / "labels").iterdir())[:20]:
        image = read_volume(folder / "images" / path.name).array
        label = read_volume(path).array
        assert measure_fit(image, label).mirror > 0
        for axis in range(3):
            fit = measure_fit(image, np.flip(label, axis))
            assert fit.mirror < 0
            assert fit.mirrored == (axis,)
