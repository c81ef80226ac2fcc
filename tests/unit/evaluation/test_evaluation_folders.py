"""Folders as other tools write them: nnU-Net's output, one folder for each case."""

import json

import nibabel as nib
import numpy as np
import pytest

from medseg.core.errors import MedsegError
from medseg.core.runs import read_scores
from medseg.evaluation.evaluate import evaluate
from medseg.evaluation.options import EvaluateOptions


@pytest.fixture
def dice(tmp_path):
    """Return a function that scores two folders and returns the Dice of each case's class 1."""

    def go():
        folders = {"predictions": tmp_path / "pred", "references": tmp_path / "refs"}
        evaluate(EvaluateOptions(output=tmp_path / "out", workers=1, **folders))
        rows = read_scores(tmp_path / "out" / "scores.csv")
        return {r.case_id: r.value for r in rows if (r.metric, r.class_name) == ("dice", "1")}

    return go


def test_nnunet_output_with_its_json_files(tmp_path, save, cube, dice):
    for name in ("a", "b"):
        save(tmp_path / "refs" / f"{name}.nii.gz", cube())
        save(tmp_path / "pred" / f"{name}.nii.gz", cube(stop=8))
        (tmp_path / "pred" / f"{name}.npz").write_bytes(b"probabilities")
        (tmp_path / "pred" / f"{name}.pkl").write_bytes(b"properties")
    for name in ("dataset", "plans", "predict_from_raw_data_args", "summary"):
        (tmp_path / "pred" / f"{name}.json").write_text("{}")
    assert dice() == {"a": 0.8, "b": 0.8}


@pytest.mark.parametrize("cases", [("s1",), ("s1", "s2")])
def test_one_folder_for_each_case(tmp_path, save, cube, dice, cases):
    for case in cases:
        save(tmp_path / "refs" / f"{case}.nii.gz", cube())
        save(tmp_path / "pred" / case / "segmentations.nii.gz", cube(stop=8))
    assert dice() == dict.fromkeys(cases, 0.8)


def test_one_folder_for_each_case_on_both_sides(tmp_path, save, cube, dice):
    for case in ("s1", "s2"):
        save(tmp_path / "refs" / case / "ct" / "label.nii.gz", cube())
        save(tmp_path / "pred" / case / "segmentations.nii.gz", cube())
    assert dice() == {"s1": 1.0, "s2": 1.0}


def test_one_folder_for_each_case_of_a_manifest(tmp_path, data_set, save, cube):
    manifest = data_set({"a": 0, "b": 0})
    for case in "ab":
        save(tmp_path / "pred" / case / "segmentations.nii.gz", cube())
    options = EvaluateOptions(
        predictions=tmp_path / "pred", output=tmp_path / "out", manifest=manifest, workers=1
    )
    assert evaluate(options) == 0


def test_a_single_file_in_a_folder_keeps_its_name_if_that_is_a_case(tmp_path, save, cube, dice):
    save(tmp_path / "refs" / "a.nii.gz", cube())
    save(tmp_path / "pred" / "sub" / "a.nii.gz", cube())
    assert dice() == {"a": 1.0}


def test_equal_names_in_one_subfolder_stay_ambiguous(tmp_path, save, cube, dice):
    save(tmp_path / "refs" / "a.nii.gz", cube())
    for deep in ("x", "y"):
        save(tmp_path / "pred" / "sub" / deep / "a.nii.gz", cube())
    with pytest.raises(MedsegError, match="2 files could be its prediction"):
        dice()


def test_label_names_in_the_header_do_no_harm(tmp_path, save, cube, dice):
    """TotalSegmentator keeps the names of its labels in a header extension."""
    save(tmp_path / "refs" / "a.nii.gz", cube())
    xml = b'<CaretExtension><VolumeInformation><LabelTable><Label Key="1">spleen</Label></LabelTable></VolumeInformation></CaretExtension>'
    image = nib.Nifti1Image(cube(), np.diag([1.0, 1.5, 2.0, 1.0]))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(0, xml))
    (tmp_path / "pred").mkdir()
    nib.save(image, tmp_path / "pred" / "a.nii.gz")
    assert dice() == {"a": 1.0}
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["classes"]["1"]["value"] == 1


def test_maps_of_the_uncertainty_are_no_predictions(tmp_path, save, cube, dice):
    save(tmp_path / "refs" / "a.nii.gz", cube())
    save(tmp_path / "pred" / "a.nii.gz", cube(stop=8))
    save(tmp_path / "pred" / "a_uncertainty.nii.gz", cube().astype(np.float32))
    files = {"a.nii.gz": "hash", "a_uncertainty.nii.gz": "hash"}
    record = {"case_id": "a", "status": "ok", "output": "a.nii.gz", "files": files}
    (tmp_path / "pred" / "predictions.jsonl").write_text(json.dumps(record))
    assert dice() == {"a": 0.8}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert "a_uncertainty" not in json.dumps(summary)
