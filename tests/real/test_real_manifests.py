"""The filed manifests against the real files."""

import csv
import json

import numpy as np
import pytest

from medseg.check.dataset import check
from medseg.check.options import CheckOptions
from medseg.core.manifest import load_manifest
from medseg.io import read_volume

pytestmark = pytest.mark.real_data


def findings_of(manifest, root, tmp_path, **options):
    output = tmp_path / "findings.json"
    status = check(CheckOptions(manifest, root=root, json=True, output=output, **options))
    return status, json.loads(output.read_text(encoding="utf-8"))


def test_the_hippocampus_folds_are_nnunets(repository, medseg_data):
    with (medseg_data / "hippocampus" / "folds.csv").open(newline="") as file:
        expected = {row["case_id"]: int(row["fold"]) for row in csv.DictReader(file)}
    manifest = load_manifest(repository / "data_manifests" / "hippocampus.json")
    assert {case.case_id: case.fold for case in manifest.training} == expected
    assert len(expected) == 260


def test_the_hippocampus_set_is_sound_but_for_the_fold_that_is_away(
    repository, medseg_data, tmp_path
):
    manifest = repository / "data_manifests" / "hippocampus.json"
    status, found = findings_of(manifest, medseg_data / "hippocampus", tmp_path)
    assert status == 0
    assert found["cases_checked"] == 208
    (finding,) = found["findings"]
    assert (finding["severity"], finding["code"]) == ("warning", "absent-cases")
    assert "52 cases have no file here (fold 0: 52 of 52)" in finding["message"]


@pytest.mark.parametrize(("name", "cases"), [("sarcoma_pet", 35), ("sarcoma_petct", 12)])
def test_the_sarcoma_sets_are_sound(repository, medseg_data, tmp_path, name, cases):
    status, found = findings_of(
        repository / "data_manifests" / f"{name}.json", medseg_data / "sarcoma", tmp_path
    )
    assert status == 0
    assert found["cases_checked"] == cases
    codes = [finding["code"] for finding in found["findings"]]
    assert codes == (["channel-grids-differ"] * 12 if name == "sarcoma_petct" else [])


@pytest.mark.parametrize(
    ("name", "folder"), [("hippocampus", "hippocampus"), ("sarcoma_pet", "sarcoma")]
)
def test_label_files_hold_every_value_of_the_table(repository, medseg_data, name, folder):
    manifest = load_manifest(repository / f"data_manifests/{name}.json", medseg_data / folder)
    values = set()
    for case in manifest.training:
        if (path := manifest.file(case.label)).exists():
            values |= set(np.unique(read_volume(path).array).tolist())
    assert values == set(manifest.labels.values())


def test_a_damaged_copy_of_the_hippocampus_set_is_seen_through(medseg_data, tmp_path):
    """118 has no label, 010 and 281 have no image; 281's label is of another scan altogether."""
    ids = ["hippocampus_010", "hippocampus_011", "hippocampus_118", "hippocampus_281"]
    pairs = [(case_id, case_id) for case_id in ids] + [("hippocampus_118", "hippocampus_281")]
    training = [
        {
            "case_id": f"{image}_{label[-3:]}",
            "image": f"images/{image}.nii.gz",
            "label": f"labels/{label}.nii.gz",
        }
        for image, label in pairs
    ]
    content = {
        "channel_names": {"0": "T1w"},
        "labels": {"background": 0, "anterior": 1, "posterior": 2},
        "training": training,
    }
    (tmp_path / "m.json").write_text(json.dumps(content))
    status, found = findings_of(tmp_path / "m.json", medseg_data / "hippocampus_bad", tmp_path)
    assert status == 3
    assert found["cases_checked"] == 2
    errors = {
        (f["case_id"], f["code"]): f["message"]
        for f in found["findings"]
        if f["severity"] == "error"
    }
    assert "images/hippocampus_010.nii.gz" in errors["hippocampus_010_010", "incomplete-case"]
    assert "labels/hippocampus_118.nii.gz" in errors["hippocampus_118_118", "incomplete-case"]
    assert "images/hippocampus_281.nii.gz" in errors["hippocampus_281_281", "incomplete-case"]
    wrong_grid = errors["hippocampus_118_281", "label-grid-differs"]
    assert "shape (512, 512, 94) against" in wrong_grid
    assert not any(case_id.startswith("hippocampus_011") for case_id, _ in errors)
