"""`--fix`: repaired copies, links to the rest, and never a change of the originals."""

import hashlib
import shutil

import nibabel as nib
import numpy as np
import pytest

from medseg.check.dataset import check
from medseg.check.options import CheckOptions
from medseg.core.errors import OptionError
from medseg.core.geometry import Grid
from medseg.io import read_volume, write_volume


def digests(folder):
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.nii.gz"))
    }


@pytest.fixture
def broken(small_set):
    """Return a set with a shifted label grid, noisy label values, and a header in conflict."""
    close = read_volume(small_set.label("case_a"))
    affine = close.grid.affine.copy()
    affine[0, 3] += 0.2
    write_volume(small_set.label("case_a"), close.array, Grid(close.grid.shape, affine))
    noisy = read_volume(small_set.label("case_b"))
    write_volume(small_set.label("case_b"), noisy.array.astype(np.float32) * 1.0003, noisy.grid)
    path = small_set.image("case_c")
    stored = nib.load(path)
    stored.header.set_qform(stored.affine, code=1)
    stored.header["qoffset_x"] = 7
    stored.header.set_sform(stored.affine, code=1)
    nib.save(nib.Nifti1Image(np.asarray(stored.dataobj), None, stored.header), path)
    return small_set


def test_the_repaired_set_has_none_of_the_findings(broken, tmp_path, caplog):
    before = digests(broken.folder)
    codes = {found["code"] for found in broken.check()[1]["findings"]}
    assert codes == {"label-grid-close", "label-rounding", "form-conflict"}
    options = CheckOptions(broken.save(), output=tmp_path / "doctor", fix=True, workers=1)
    with caplog.at_level("INFO", logger="medseg"):
        assert check(options) == 3
    assert "3 files repaired" in caplog.text
    fixed = tmp_path / "doctor" / "fixed"
    status, found = broken.check(root=fixed)
    assert (status, found["findings"], found["cases_checked"]) == (0, [], 8)
    assert digests(broken.folder) == before
    label = read_volume(fixed / "labels/case_b.nii.gz").array
    assert label.dtype == np.uint8
    assert np.array_equal(label, np.rint(read_volume(broken.label("case_b")).array))
    assert (fixed / "labels/case_d.nii.gz").is_symlink()
    assert not (fixed / "labels/case_b.nii.gz").is_symlink()
    image = read_volume(fixed / "images/case_c.nii.gz")
    assert np.array_equal(image.array, read_volume(broken.image("case_c")).array)


def test_what_is_not_safe_stays_and_is_named(small_set, tmp_path, caplog):
    shutil.copyfile(small_set.label("case_a"), small_set.label("case_c"))
    options = CheckOptions(small_set.save(), output=tmp_path / "doctor", fix=True, workers=1)
    with caplog.at_level("INFO", logger="medseg"):
        assert check(options) == 3
    assert "not safe to repair: duplicate-label: case_c" in caplog.text
    assert (tmp_path / "doctor/fixed/labels/case_c.nii.gz").is_symlink()


@pytest.mark.parametrize("name", [None, "out.json", "out.html"])
def test_a_fix_needs_a_folder(small_set, name):
    output = None if name is None else small_set.folder.parent / name
    with pytest.raises(OptionError, match="--fix needs --output FOLDER"):
        check(CheckOptions(small_set.save(), output=output, fix=True, workers=1))


def test_a_fix_never_goes_into_the_data_set(small_set):
    path = small_set.save()
    with pytest.raises(OptionError, match="lies within the data set"):
        check(CheckOptions(path, output=small_set.folder / "doctor", fix=True, workers=1))
    assert not (small_set.folder / "doctor").exists()


def test_an_earlier_fix_is_not_overwritten(small_set, tmp_path):
    (tmp_path / "doctor/fixed/images").mkdir(parents=True)
    with pytest.raises(OptionError, match="is not empty"):
        check(CheckOptions(small_set.save(), output=tmp_path / "doctor", fix=True, workers=1))
