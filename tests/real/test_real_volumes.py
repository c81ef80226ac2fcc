"""Real volumes: read as nibabel reads the good ones, refused in words otherwise."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from medseg.cli import main
from medseg.core.errors import VolumeError
from medseg.core.manifest import load_manifest
from medseg.data.transforms import Preprocessing, prepare_case
from medseg.io import read_volume

pytestmark = pytest.mark.real_data


def test_good_volumes_are_read_as_nibabel_reads_them(medseg_data):
    files = sorted(medseg_data.glob("hippocampus/*/*.nii.gz"))[::8]
    files += sorted(medseg_data.glob("sarcoma/*/*/*.nii.gz"))[::4]
    assert len(files) > 50
    for file in files:
        volume, reference = read_volume(file), nib.load(file)
        np.testing.assert_array_equal(volume.array, np.asarray(reference.dataobj))
        np.testing.assert_allclose(volume.grid.affine, reference.affine, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "code"),
    [("empty.nii.gz", "empty"), ("not-nifti.nii", "not-a-volume")],
)
def test_odd_files_are_refused_in_words(medseg_data, name, code):
    with pytest.raises(VolumeError) as caught:
        read_volume(medseg_data / "odd" / name)
    assert caught.value.code == code


def test_the_dicom_series_lies_where_simpleitk_puts_it(medseg_data):
    folder = medseg_data / "odd" / "dicom_series"
    volume = read_volume(folder)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    np.testing.assert_array_equal(volume.array, SimpleITK.GetArrayFromImage(image).T)
    last = [n - 1 for n in volume.grid.shape]
    corner = np.array(image.TransformIndexToPhysicalPoint(last)) * (-1, -1, 1)
    np.testing.assert_allclose(volume.grid.corners[-1], corner, atol=1e-6)


def test_either_byte_order_gives_the_same_volume(medseg_data):
    big, little = (read_volume(medseg_data / "odd" / f"{n}.nii.gz") for n in ("big", "little"))
    difference = big.array - little.array[..., 0]
    assert np.nanmax(np.abs(difference)) < 1e-5 * np.nanmax(np.abs(big.array))
    assert big.grid.is_same(little.grid)


def test_pet_and_ct_of_a_patient_meet_on_the_pets_grid(medseg_data, repository):
    manifest = load_manifest(
        repository / "data_manifests/sarcoma_petct.json", medseg_data / "sarcoma"
    )
    assert len(manifest.training) == 12
    case = manifest.training[0]
    preprocessing = Preprocessing(intensity=[[0.0, 15.0], [-1000.0, 1000.0]])
    images = [manifest.file(name) for name in case.images]
    prepared = prepare_case(images, manifest.file(case.label), 2, (0, 1), preprocessing)
    pet = nib.load(images[0])
    assert prepared.image.shape[1:] == prepared.label.shape
    assert sorted(prepared.image.shape[1:]) == sorted(pet.shape)
    # Inside the tumour the CT shows soft tissue, so the two really are the same place.
    hounsfield = prepared.image[1][prepared.label == 1] * 1000
    assert -150 < float(np.median(hounsfield)) < 150


@pytest.mark.slow
def test_a_short_training_on_real_mri_beats_chance_by_far(
    medseg_data, repository, tmp_path, monkeypatch
):
    monkeypatch.chdir(repository)
    configs = [
        f for n in ("base", "cpu", "data/hippocampus") for f in ("--config", f"pipelines/{n}.yaml")
    ]
    place = ["--data.root", str(medseg_data / "hippocampus"), "--run_dir", str(tmp_path / "run")]
    folds = ["--data.fold", "1", "--data.train_folds", "[2, 3, 4]"]
    assert main(["fit", *configs, *place, *folds, "--trainer.max_time", "00:00:01:30"]) == 0
    assert json.loads((tmp_path / "run" / "fit.json").read_text())["best_val_dice"] > 0.6


def test_a_folder_of_odd_files_is_labelled_or_refused_file_by_file(
    medseg_data, tmp_path, repository, monkeypatch
):
    monkeypatch.chdir(repository)
    manifest = "data_manifests/hippocampus.json"
    flags = [
        "--config",
        "pipelines/base.yaml",
        "--config",
        "pipelines/smoke.yaml",
        "--data.manifest",
        manifest,
    ]
    flags += [
        "--data.root",
        str(medseg_data / "hippocampus"),
        "--data.fold",
        "1",
        "--data.train_folds",
        "[2]",
    ]
    flags += [
        "--run_dir",
        str(tmp_path / "run"),
        "--trainer.max_steps",
        "1",
        "--trainer.limit_val_batches",
        "2",
    ]
    assert main(["fit", *flags]) == 0
    source = tmp_path / "in"
    shutil.copytree(medseg_data / "odd", source)
    run = [
        "predict",
        "--run",
        str(tmp_path / "run"),
        "--input",
        str(source),
        "--output",
        str(tmp_path / "out"),
    ]
    assert main(run) == 3
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    status = {record["case_id"]: record["status"] for record in map(json.loads, lines)}
    assert {name for name, word in status.items() if word == "failed"} == {
        "empty",
        "example4d",
        "not-nifti",
    }
    series = read_volume(source / "dicom_series").grid
    assert series.is_same(read_volume(tmp_path / "out" / "dicom_series.nii.gz").grid)
    for name in ("CT_pitch", "anatomical", "resampled_anat_moved", "little"):
        label = nib.load(tmp_path / "out" / f"{name}.nii.gz")
        image = nib.load(next(source.glob(f"{name}.nii*")))
        assert label.shape == image.shape[:3]
        np.testing.assert_array_equal(label.affine, image.affine)
