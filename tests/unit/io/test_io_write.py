"""Writing: whole or not at all, a fresh header, the source's grid."""

import os

import nibabel as nib
import numpy as np
import pytest

from medseg.core.errors import VolumeError
from medseg.core.geometry import Grid
from medseg.io import read_volume, write_label_map, write_volume
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
    assert volume.warnings == ()


def test_a_sheared_grid_is_written_as_sform_alone(tmp_path):
    write_label_map(tmp_path / "x.nii", LABEL, Grid((4, 5, 6), OBLIQUE))
    header = nib.load(tmp_path / "x.nii").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)
    np.testing.assert_allclose(header.get_sform(), OBLIQUE, rtol=1e-6)
    assert read_volume(tmp_path / "x.nii").warnings == ()


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


def test_a_full_disk_is_a_clear_failure_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write_module, "_write_stream", full)
    with pytest.raises(VolumeError, match="write-failed: No space left on device"):
        write_label_map(tmp_path / "x.nii.gz", LABEL, GRID)
    assert list(tmp_path.iterdir()) == []


def test_what_reads_back_differently_never_gets_the_name(tmp_path, monkeypatch):
    def short(file, _path, _image):
        file.write(b"half")

    monkeypatch.setattr(write_module, "_write_stream", short)
    with pytest.raises(VolumeError):
        write_label_map(tmp_path / "x.nii.gz", LABEL, GRID)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_the_file_gets_the_permissions_of_the_umask(tmp_path):
    write_volume(tmp_path / "x.nii", LABEL.astype(np.float32), GRID)
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "x.nii").stat().st_mode & 0o777 == 0o666 & ~umask
