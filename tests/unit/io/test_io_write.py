"""Writing: whole or not at all, a fresh header, the source's grid."""

import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from scipy.spatial.transform import Rotation

from medseg.core.errors import VolumeError
from medseg.core.geometry import Grid
from medseg.io import Volume, read_volume, write_label_map, write_volume
from medseg.io import write as write_module
from medseg.io.write import label_dtype

OBLIQUE = np.array([[1.9, 0.3, 0, 1.0], [-0.3, 1.4, 0.2, 2.0], [0.1, -0.2, 3.0, 3.0], [0, 0, 0, 1]])
GRID = Grid((4, 5, 6), np.diag([1.0, 2.0, 3.0, 1.0]))
LABEL = np.arange(120).reshape(4, 5, 6) % 3


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_labels_and_grid_come_back(tmp_path, name):
    write_label_map(tmp_path / name, LABEL, GRID)
    volume = read_volume(tmp_path / name)
    assert volume.array.dtype == np.uint8
    np.testing.assert_array_equal(volume.array, LABEL)
    np.testing.assert_array_equal(volume.grid.affine, GRID.affine)
    assert volume.warnings == []


def test_a_sheared_grid_is_written_as_sform_alone(tmp_path):
    write_label_map(tmp_path / "x.nii", LABEL, Grid((4, 5, 6), OBLIQUE))
    header = nib.load(tmp_path / "x.nii").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)
    np.testing.assert_allclose(header.get_sform(), OBLIQUE, rtol=1e-6)
    assert read_volume(tmp_path / "x.nii").warnings == []


def test_a_single_slice_stays_three_dimensional(tmp_path):
    write_label_map(tmp_path / "x.nii.gz", LABEL[..., :1], Grid((4, 5, 1), GRID.affine))
    assert read_volume(tmp_path / "x.nii.gz").array.shape == (4, 5, 1)


def test_equal_labels_give_equal_bytes_under_any_name(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_label_map(tmp_path / name, LABEL, GRID)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_value_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(VolumeError, match="unrepresentable: label 300 as uint8"):
        write_label_map(tmp_path / "x.nii.gz", np.where(LABEL == 2, 300, LABEL), GRID)
    assert list(tmp_path.iterdir()) == []


def test_the_type_follows_the_label_table():
    assert [label_dtype(n) for n in (2, 255, 256, 65536)] == [
        np.uint8,
        np.uint8,
        np.uint16,
        np.uint32,
    ]


def test_a_link_at_the_target_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "precious").write_text("keep me")
    (tmp_path / "x.nii.gz").symlink_to(tmp_path / "precious")
    write_label_map(tmp_path / "x.nii.gz", LABEL, GRID)
    assert (tmp_path / "precious").read_text() == "keep me"
    assert not (tmp_path / "x.nii.gz").is_symlink()


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ".nrrd"])
def test_a_full_disk_is_a_clear_failure_and_leaves_nothing(tmp_path, ending):
    # A limit on the size of files fails as a full disk does: some writers do not notice.
    code = f"""
import resource, numpy as np
from pathlib import Path
from medseg.core.errors import VolumeError
from medseg.core.geometry import Grid
from medseg.io import write_label_map
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
noise = np.random.default_rng(0).integers(0, 255, (40, 40, 40))
try:
    write_label_map(Path({str(tmp_path)!r}) / "x{ending}", noise, Grid((40, 40, 40), np.eye(4)))
except VolumeError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith(f"{tmp_path / 'x'}{ending}: write-failed: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_what_reads_back_differently_never_gets_the_name(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(write_module, "read_volume", lambda _: Volume(LABEL + 1, GRID))
    with pytest.raises(VolumeError, match=f"x{ending}: write-failed: .*differs"):
        write_label_map(tmp_path / f"x{ending}", LABEL, GRID)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_metaimage_and_nrrd_are_what_simpleitk_reads(tmp_path, ending):
    grid = Grid((4, 5, 6), OBLIQUE)
    write_label_map(tmp_path / f"x{ending}", LABEL * 150, grid, np.uint16)
    image = SimpleITK.ReadImage(str(tmp_path / f"x{ending}"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image).T, LABEL * 150)
    corner = np.array(image.TransformIndexToPhysicalPoint((3, 4, 5))) * (-1, -1, 1)
    np.testing.assert_allclose(corner, grid.corners[-1])
    np.testing.assert_allclose(read_volume(tmp_path / f"x{ending}").grid.affine, OBLIQUE)


def test_an_unknown_ending_is_refused(tmp_path):
    with pytest.raises(VolumeError, match=r"an unknown ending \(choose one of \.nii\.gz"):
        write_label_map(tmp_path / "x.png", LABEL, GRID)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("coded", ["sform", "qform", "both"])
def test_the_geometry_of_the_image_is_taken_over_bit_for_bit(tmp_path, kind, coded):
    rotation = Rotation.from_euler("xyz", [0.3, -0.2, 0.1]).as_matrix()
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation * [1.1, 2.2, 3.3], [1 / 3, -7.7, 0.1]
    image = kind(LABEL.astype(np.int16), affine)
    image.set_sform(None if coded == "qform" else affine, code=0 if coded == "qform" else 2)
    image.set_qform(None if coded == "sform" else affine, code=0 if coded == "sform" else 3)
    image.header["descrip"] = b"PHI-CANARY"
    nib.save(image, tmp_path / "image.nii")
    grid = read_volume(tmp_path / "image.nii").grid
    write_label_map(tmp_path / "x.nii", LABEL, grid, like=tmp_path / "image.nii")
    source, written = nib.load(tmp_path / "image.nii"), nib.load(tmp_path / "x.nii")
    np.testing.assert_array_equal(written.affine, source.affine)
    for code in ("sform_code", "qform_code"):
        assert int(written.header[code]) == int(source.header[code])
    assert b"PHI-CANARY" not in (tmp_path / "x.nii").read_bytes()


def test_a_contradicting_header_is_not_taken_over(tmp_path):
    image = nib.Nifti1Image(LABEL.astype(np.int16), GRID.affine)
    shifted = GRID.affine.copy()
    shifted[0, 3] = 50
    image.set_qform(shifted, code=1)
    image.set_sform(GRID.affine, code=1)
    nib.save(image, tmp_path / "image.nii")
    write_label_map(tmp_path / "x.nii", LABEL, GRID, like=tmp_path / "image.nii")
    written = read_volume(tmp_path / "x.nii")
    assert written.warnings == []
    np.testing.assert_array_equal(written.grid.affine, GRID.affine)


def test_the_labels_of_a_plane_are_a_plane(tmp_path):
    nib.save(nib.Nifti1Image(LABEL[..., 0].astype(np.int16), GRID.affine), tmp_path / "image.nii")
    grid = read_volume(tmp_path / "image.nii").grid
    write_label_map(tmp_path / "x.nii", LABEL[..., :1], grid, like=tmp_path / "image.nii")
    assert nib.load(tmp_path / "x.nii").shape == (4, 5)


def test_an_image_of_another_format_lends_only_its_grid(tmp_path):
    write_label_map(tmp_path / "image.nrrd", LABEL, GRID)
    write_label_map(tmp_path / "x.nii.gz", LABEL, GRID, like=tmp_path / "image.nrrd")
    np.testing.assert_array_equal(nib.load(tmp_path / "x.nii.gz").affine, GRID.affine)


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_the_file_gets_the_permissions_of_the_umask(tmp_path):
    write_volume(tmp_path / "x.nii", LABEL.astype(np.float32), GRID)
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "x.nii").stat().st_mode & 0o777 == 0o666 & ~umask
