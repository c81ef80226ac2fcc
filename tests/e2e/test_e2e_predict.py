"""Folder inference through the command line."""

import gzip
import json
import os
import shutil
import threading

import highdicom
import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from medseg.cli import main
from medseg.core.manifest import load_manifest
from medseg.inference.predictor import Predictor
from medseg.io import read_volume, write_volume


def journal(folder):
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    return {record["case_id"]: record for record in map(json.loads, lines)}


def predict(run, source, output, *more):
    # In this process: what workers add is tested where it is the subject.
    flags = ["--run", run, "--input", source, "--output", output, "--workers", 0, *more]
    return main(["predict", *map(str, flags)])


@pytest.fixture(scope="module")
def images(phantoms):
    return load_manifest(phantoms).root / "images"


def test_label_maps_lie_on_the_images_own_grid_with_the_tables_values(
    tiny_run, phantoms, images, tmp_path
):
    assert predict(tiny_run, images, tmp_path) == 0
    values = set(load_manifest(phantoms).labels.values())
    sources = sorted(images.glob("*.nii.gz"))
    assert len(sources) == 8
    for source in sources:
        image, label = nib.load(source), nib.load(tmp_path / source.name)
        assert label.shape == image.shape
        np.testing.assert_array_equal(label.affine, image.affine)
        assert set(np.unique(np.asarray(label.dataobj))) <= values
        assert label.get_data_dtype() == np.uint8


def test_no_thread_outlives_the_work(tiny_run, images, tmp_path):
    before = set(threading.enumerate())
    assert predict(tiny_run, next(images.glob("*.nii.gz")), tmp_path) == 0
    assert not [thread.name for thread in set(threading.enumerate()) - before if thread.is_alive()]


def test_label_values_are_mapped_back(tiny_run, images):
    predictor = Predictor.from_run(tiny_run, "last")
    source = next(images.glob("*.nii.gz"))
    plain = predictor.predict([source]).label
    predictor.label_values = predictor.label_values * 100
    np.testing.assert_array_equal(predictor.predict([source]).label, plain.astype(np.uint16) * 100)


def test_one_bad_case_does_not_stop_the_others(tiny_run, images, tmp_path, capsys):
    source = tmp_path / "in"
    shutil.copytree(images, source)
    good = sorted(source.glob("*.nii.gz"))
    (source / "0_text.nii.gz").write_text("not an image")
    (source / "[b]=cmd().nii.gz").write_bytes(good[0].read_bytes()[:-500])
    assert predict(tiny_run, source, tmp_path / "out") == 3
    told = capsys.readouterr().err
    records = journal(tmp_path / "out")
    assert [r["status"] for r in records.values()].count("ok") == len(good)
    for name in ("0_text", "[b]=cmd()"):
        assert records[name]["status"] == "failed"
        assert name in told
        assert not (tmp_path / "out" / f"{name}.nii.gz").exists()
    assert "truncated" in records["[b]=cmd()"]["message"]


def test_hostile_names_and_headers_take_only_their_own_case_along(
    tiny_run, images, tmp_path, capsys
):
    source, good = tmp_path / "in", next(images.glob("*.nii.gz"))
    source.mkdir()
    bad = ["new\nline.nii.gz", os.fsdecode(b"caf\xe9.nii.gz"), "-dash.nii.gz"]
    for name in [*bad, "good.nii.gz"]:
        shutil.copy(good, source / name)
    (source / "long.mhd").write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\n"
        f"ElementDataFile = {'x' * 300}\n"
    )
    (source / "bomb.nii.gz").write_bytes(
        b"\x93NUMPY\x01\x00\x00\x10{'descr': '<i2', 'fortran_order': False, 'shape': ("
        + b"-" * 4000
    )
    (tmp_path / "linked").mkdir()
    shutil.copy(good, tmp_path / "linked" / "far.nii.gz")
    (source / "link").symlink_to(tmp_path / "linked")
    (source / "link" / "back").symlink_to(source)
    (source / "notes.txt").touch()
    assert predict(tiny_run, source, tmp_path / "out") == 3
    told = capsys.readouterr().err
    assert "1 files are no volumes by their names: 'notes.txt'" in told
    records = journal(tmp_path / "out")
    failed = {name for name, record in records.items() if record["status"] == "failed"}
    assert failed == {*(name.removesuffix(".nii.gz") for name in bad), "long", "bomb"}
    assert set(records) - failed == {"good", "far"}
    assert predict(tiny_run, source, tmp_path / "out") == 3


def test_the_journal_says_where_a_case_comes_from(tiny_run, phantoms, tmp_path):
    assert predict(tiny_run, phantoms, tmp_path) == 0
    records = journal(tmp_path)
    roles = [record["role"] for record in records.values()]
    assert (roles.count("validation"), roles.count("training")) == (2, 6)
    record = next(iter(records.values()))
    assert record["reference"].endswith(".nii.gz")
    assert record["checkpoint"] == "best"
    assert record["seconds"] >= 0


def test_what_is_done_is_skipped_until_something_changes(tiny_run, images, tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    shutil.copytree(images, source)
    first = sorted(source.glob("*.nii.gz"))

    def lines():
        journals = (output / ".medseg").glob("journal-*.jsonl")
        return sum(len(path.read_text().splitlines()) for path in journals)

    def run(*more):
        before = lines()
        assert predict(tiny_run, source, output, *more) == 0
        assert len(journal(output)) == 8
        return lines() - before

    assert run() == 8
    assert run() == 0
    (output / first[0].name).write_bytes(b"damaged")
    (output / first[1].name).unlink()
    os.utime(first[2], ns=(1, 1))
    for path in (output / ".medseg").glob("journal-*.jsonl"):
        with path.open("a") as file:
            file.write('{"output": "torn')
    assert run() == 3
    assert run("--checkpoint", "last", "--overlap", "0.25") == 8
    assert run("--checkpoint", "last", "--overlap", "0.25", "--overwrite") == 8


def test_single_slices_and_large_volumes_are_labelled(tiny_run, images, tmp_path):
    volume = read_volume(next(images.glob("*.nii.gz")))
    grid = type(volume.grid)
    flat = volume.array[:, :, :1].astype(np.float32)
    write_volume(tmp_path / "in" / "flat.nii.gz", flat, grid(flat.shape, volume.grid.affine))
    tall = np.concatenate([volume.array] * 3, axis=2).astype(np.float32)
    write_volume(tmp_path / "in" / "tall.nii.gz", tall, grid(tall.shape, volume.grid.affine))
    assert predict(tiny_run, tmp_path / "in", tmp_path / "out") == 0
    assert read_volume(tmp_path / "out" / "flat.nii.gz").array.shape == flat.shape
    assert read_volume(tmp_path / "out" / "tall.nii.gz").array.shape == tall.shape


@pytest.fixture(scope="module")
def series(images, tmp_path_factory):
    """Return a folder with one phantom as a DICOM series; the patient's name is a canary."""
    volume = read_volume(next(images.glob("*.nii.gz")))
    folder = tmp_path_factory.mktemp("dicom") / "series"
    folder.mkdir()
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = MRImageStorage
    file.PatientName, file.PatientID, file.PatientBirthDate, file.PatientSex = (
        "PHI^CANARY",
        "PHI-7",
        "",
        "",
    )
    file.StudyInstanceUID, file.SeriesInstanceUID, file.FrameOfReferenceUID = (
        generate_uid() for _ in range(3)
    )
    file.StudyID, file.StudyDate, file.StudyTime, file.AccessionNumber = "", "20200101", "", ""
    file.ReferringPhysicianName, file.Manufacturer, file.Modality, file.SeriesNumber = (
        "",
        "",
        "MR",
        1,
    )
    file.ImageOrientationPatient, file.PixelSpacing, file.SliceThickness = (
        [1, 0, 0, 0, 1, 0],
        [1.5, 1.2],
        2.0,
    )
    file.Columns, file.Rows, slices = volume.array.shape
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    for k in range(slices):
        file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid()
        file.InstanceNumber, file.ImagePositionPatient = k + 1, [5, 7, 2.0 * k]
        file.PixelData = volume.array[..., k].T.astype("<u2").tobytes()
        file.save_as(folder / f"{k:03d}.dcm", enforce_file_format=True)
    return folder


def test_a_dicom_series_is_labelled_and_nothing_of_the_patient_travels(tiny_run, series, tmp_path):
    assert predict(tiny_run, series, tmp_path) == 0
    source, label = read_volume(series), read_volume(tmp_path / "series.nii.gz")
    assert label.grid.is_same(source.grid)
    assert label.array.shape == source.array.shape
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert b"PHI" not in (
            gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        )


def test_dicom_seg_has_a_frame_for_every_slice_and_says_what_it_copies(
    tiny_run, series, phantoms, tmp_path, capsys
):
    assert predict(tiny_run, series, tmp_path / "nifti") == 0
    assert predict(tiny_run, series, tmp_path / "seg", "--format", "dicom_seg") == 0
    assert "copies the name and the study of each patient" in capsys.readouterr().err
    written = highdicom.seg.segread(tmp_path / "seg" / "series.dcm")
    names = list(load_manifest(phantoms).labels)
    assert [
        written.get_segment_description(n).SegmentLabel for n in written.segment_numbers
    ] == names[1:]
    assert str(written.PatientName) == "PHI^CANARY"
    label = read_volume(tmp_path / "nifti" / "series.nii.gz").array
    values = np.array(list(load_manifest(phantoms).labels.values()))
    volume = written.get_volume(combine_segments=True).to_patient_orientation("HPL")
    assert volume.spatial_shape == label.T.shape
    np.testing.assert_array_equal(values[volume.array], label.T)


def test_dicom_seg_of_other_inputs_is_refused_case_by_case(tiny_run, images, tmp_path, capsys):
    source = next(images.glob("*.nii.gz"))
    assert predict(tiny_run, source, tmp_path, "--format", "dicom_seg") == 3
    assert "refers to the slices of a DICOM series" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ending", "written"), [(".mha", ".mha"), (".mhd", ".mha"), (".nrrd", ".nrrd")]
)
def test_metaimage_and_nrrd_go_out_where_they_came_in(tiny_run, images, tmp_path, ending, written):
    nifti = next(images.glob("*.nii.gz"))
    image = SimpleITK.ReadImage(str(nifti))
    (tmp_path / "in").mkdir()
    SimpleITK.WriteImage(image, str(tmp_path / "in" / f"x{ending}"))
    assert predict(tiny_run, tmp_path / "in", tmp_path / "out") == 0
    assert predict(tiny_run, nifti, tmp_path / "nifti") == 0
    source, result = tmp_path / "in" / f"x{ending}", tmp_path / "out" / f"x{written}"
    affines = [read_volume(path).grid.affine for path in (source, result)]
    np.testing.assert_array_equal(*affines)
    label = SimpleITK.ReadImage(str(result))
    np.testing.assert_allclose(label.GetDirection(), image.GetDirection())
    same = (
        read_volume(tmp_path / "nifti" / nifti.name).array == SimpleITK.GetArrayFromImage(label).T
    )
    assert same.mean() > 0.9999


def test_a_contradicting_header_fails_where_that_is_asked_for(tiny_run, images, tmp_path, capsys):
    image = nib.load(next(images.glob("*.nii.gz")))
    moved = image.affine.copy()
    moved[0, 3] += 50
    image.set_qform(moved, code=1)
    image.set_sform(image.affine, code=1)
    (tmp_path / "in").mkdir()
    nib.save(image, tmp_path / "in" / "x.nii.gz")
    assert predict(tiny_run, tmp_path / "in", tmp_path / "out", "--on_conflict", "error") == 3
    assert "x.nii.gz: conflict: form-conflict" in capsys.readouterr().err
    assert predict(tiny_run, tmp_path / "in", tmp_path / "out") == 0
    assert "form-conflict" in journal(tmp_path / "out")["x"]["warnings"][0]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--checkpoint", "bset"], "has no checkpoint 'bset'"),
        (["--overlap", "1.5"], "overlap must be in [0, 1)"),
        (["--device", "tpu9"], "--device"),
        (["--input", "/nowhere"], "no such file or folder"),
        (["--run", "/nowhere"], "no such run directory"),
        (["--fold", "0"], "go with a manifest"),
        (["--batchsize", "3"], "no such flag: --batchsize"),
    ],
)
def test_a_wrong_request_is_refused_before_any_work(
    tiny_run, images, tmp_path, capsys, flags, told
):
    output = tmp_path / "out"
    assert predict(tiny_run, images, output, *flags) == 2
    assert told in capsys.readouterr().err
    assert not output.exists() or list(output.iterdir()) == []


def test_an_output_that_cannot_be_written_is_refused(tiny_run, images, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert predict(tiny_run, images, tmp_path / "file" / "out") == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_an_output_named_like_a_file_is_refused(tiny_run, images, tmp_path, capsys):
    image, output = next(images.glob("*.nii.gz")), tmp_path / "lab.nii.gz"
    assert predict(tiny_run, image, output) == 2
    assert f"the label map will be {image.name} in it" in capsys.readouterr().err
    assert not output.exists()


def test_windows_is_refused_in_words(tiny_run, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")
    assert predict(tiny_run, images, tmp_path) == 2
    assert "Windows" in capsys.readouterr().err
