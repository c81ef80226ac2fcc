"""Random damage: the reader refuses in words, or reads what is there."""

import random
import zlib

import numpy as np
import pytest
import torture_dicom
from pydicom import dcmread
from torture import AFFINE, LPS, VOXELS, attempt, attempt_bytes, flipped, zipped
from torture_files import npy
from torture_itk import mha
from torture_itk import squeezed as squeezed_mha
from torture_nifti import body, nifti
from torture_nrrd import nrrd
from torture_nrrd import squeezed as squeezed_nrrd

TIMES = 50
COMPRESSED = min(len(zipped(body(VOXELS))), len(zlib.compress(body(VOXELS))))

PLAIN = {
    "scan.nii": nifti(),
    "scan2.nii": nifti(version=2),
    "scan.mha": mha(),
    "scan.nrrd": nrrd(),
    "scan.npy": npy(),
}
PACKED = {
    "packed.nii.gz": zipped(nifti()),
    "packed.mha": squeezed_mha(),
    "packed.nrrd": squeezed_nrrd(),
}


def assert_whole(volume, array=VOXELS, affine=AFFINE):
    """Require the truth, bit for bit."""
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.grid.affine, affine, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", PLAIN | PACKED)
def test_the_undamaged_file_is_read(name):
    volume = attempt_bytes(name, (PLAIN | PACKED)[name])
    assert volume is not None
    assert_whole(volume, affine=np.eye(4) if name == "scan.npy" else AFFINE)


@pytest.mark.parametrize("name", PACKED)
def test_bit_flip_in_a_compressed_file_is_refused_or_harmless(name):
    content = PACKED[name]
    # MetaImage and NRRD have no sum over the header; only what is compressed can tell.
    start = 0 if name == "packed.nii.gz" else len(content) - COMPRESSED
    dice = random.Random(0)
    refused = 0
    for _ in range(TIMES):
        damaged = flipped(content, dice.randrange(start, len(content)), 1 << dice.randrange(8))
        volume = attempt_bytes(name, damaged)
        refused += volume is None
        if volume is not None:
            assert_whole(volume)
    assert refused > TIMES * 0.8


@pytest.mark.parametrize("name", PLAIN | PACKED)
def test_truncated_file_is_refused(name):
    content = (PLAIN | PACKED)[name]
    dice = random.Random(1)
    for _ in range(TIMES):
        assert attempt_bytes(name, content[: dice.randrange(len(content))]) is None


@pytest.mark.parametrize("name", PLAIN)
def test_bit_flip_in_a_header_is_refused_or_another_valid_header(name):
    content = PLAIN[name]
    size = len(content) - VOXELS.nbytes
    dice = random.Random(2)
    for _ in range(TIMES * 4):
        attempt_bytes(name, flipped(content, dice.randrange(size), 1 << dice.randrange(8)))


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    """Return the folder of a good DICOM series."""
    return torture_dicom.series()(tmp_path_factory.mktemp("dicom"))


def with_slice(folder, content):
    """Read the series with the content of its fourth slice replaced."""
    path = folder / "IM0003.dcm"
    good = path.read_bytes()
    path.write_bytes(content)
    try:
        return attempt(folder)
    finally:
        path.write_bytes(good)


def test_undamaged_dicom_series_is_read(slices):
    volume = attempt(slices)
    assert volume is not None
    assert_whole(volume, torture_dicom.STORED, LPS @ torture_dicom.AXIAL)


def test_bit_flip_in_a_dicom_header_is_refused_or_the_same_place(slices):
    good = (slices / "IM0003.dcm").read_bytes()
    size = len(good) - len(dcmread(slices / "IM0003.dcm").PixelData)
    dice = random.Random(3)
    for _ in range(TIMES):
        volume = with_slice(slices, flipped(good, dice.randrange(size), 1 << dice.randrange(8)))
        if volume is not None:
            np.testing.assert_allclose(volume.grid.affine, LPS @ torture_dicom.AXIAL, atol=0.5)


def test_truncated_dicom_slice_is_refused(slices):
    good = (slices / "IM0003.dcm").read_bytes()
    dice = random.Random(4)
    for _ in range(TIMES):
        assert with_slice(slices, good[: dice.randrange(len(good))]) is None
