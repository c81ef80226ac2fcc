"""The strict door: what must be accepted, warned about or refused."""

import gzip
import os
import subprocess
import sys
import threading

import nibabel as nib
import numpy as np
import pytest

from medseg.core.errors import VolumeError
from medseg.io import read_grid, read_volume

AFFINE = np.array([[0.0, -1.5, 0, 10], [2.0, 0, 0, -20], [0, 0, 3.0, 5], [0, 0, 0, 1]])


def values(shape=(5, 6, 7), dtype=np.int16):
    return np.arange(np.prod(shape)).reshape(shape, order="F").astype(dtype)


def saved(path, array=None, edit=None, affine=AFFINE, kind=nib.Nifti1Image):
    image = kind(values() if array is None else array, affine)
    if edit:
        edit(image.header)
    nib.save(image, path)
    return path


def raw_edit(path, offset, payload):
    content = bytearray(path.read_bytes())
    content[offset : offset + len(payload)] = payload
    path.write_bytes(bytes(content))
    return path


def code_of(path, **options):
    with pytest.raises(VolumeError) as caught:
        read_volume(path, **options)
    assert str(path) in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.img"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_values_type_and_affine_come_back_exactly(tmp_path, name, kind):
    if name.endswith(".img"):
        kind = nib.Nifti1Pair if kind is nib.Nifti1Image else nib.Nifti2Pair
    path = saved(tmp_path / name, kind=kind)
    volume = read_volume(path.with_suffix(".hdr") if name.endswith(".img") else path)
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, values())
    np.testing.assert_allclose(volume.grid.affine, AFFINE)
    assert volume.warnings == []


def test_big_endian_is_read_as_native_values(tmp_path):
    image = nib.Nifti1Image(values(), AFFINE)
    swapped = nib.Nifti1Image(values(), AFFINE, image.header.as_byteswapped(">"))
    nib.save(swapped, tmp_path / "big.nii")
    volume = read_volume(tmp_path / "big.nii")
    np.testing.assert_array_equal(volume.array, values())
    assert volume.array.dtype.isnative


def test_large_labels_stay_exact(tmp_path):
    array = np.full((3, 3, 3), 2**24 + 1, dtype=np.int32)
    assert read_volume(saved(tmp_path / "a.nii", array)).array[0, 0, 0] == 2**24 + 1


@pytest.mark.parametrize(
    ("name", "other"), [("x.nii", "x.nii.gz"), ("x.nii.gz", "x.nii"), ("x.nii", "x")]
)
def test_content_counts_not_the_name(tmp_path, name, other):
    saved(tmp_path / name).rename(tmp_path / other)
    np.testing.assert_array_equal(read_volume(tmp_path / other).array, values())


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.99])
@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_a_truncated_file_is_refused(tmp_path, name, share):
    noise = np.random.default_rng(0).integers(0, 999, (20, 20, 20)).astype(np.int16)
    path = saved(tmp_path / name, noise)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert code_of(path) in {"truncated", "not-a-volume", "damaged"}


def test_no_flipped_bit_of_a_gzip_changes_voxels_silently(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 999, (20, 20, 20)).astype(np.int16)
    path = saved(tmp_path / "x.nii.gz", noise)
    content = path.read_bytes()
    for place in rng.integers(12, len(content), 50):
        broken = bytearray(content)
        broken[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(broken))
        try:
            volume = read_volume(path)
        except VolumeError:
            continue
        np.testing.assert_array_equal(volume.array, noise)
        np.testing.assert_allclose(volume.grid.affine, AFFINE)


def test_a_wrong_checksum_is_refused_though_the_data_are_whole(tmp_path):
    path = saved(tmp_path / "x.nii.gz")
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(bytes(content))
    assert code_of(path) == "damaged"


def test_junk_after_the_gzip_stream_is_a_warning(tmp_path):
    path = saved(tmp_path / "x.nii.gz")
    path.write_bytes(path.read_bytes() + b"junk")
    assert "trailing-data" in read_volume(path).warnings[0]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty"),
        (b"a text file, not an image\n" * 40, "not-a-volume"),
        (b"\x5c\x01\0\0", "truncated"),
    ],
)
def test_what_is_no_nifti_is_refused(tmp_path, content, code):
    (tmp_path / "x.nii").write_bytes(content)
    assert code_of(tmp_path / "x.nii") == code


def test_folders_absent_files_and_pipes_answer_at_once(tmp_path):
    assert code_of(tmp_path) == "no-dicom"
    assert code_of(tmp_path / "absent.nii") == "unreadable"
    os.mkfifo(tmp_path / "pipe.nii.gz")
    done = []
    reader = threading.Thread(
        target=lambda: done.append(code_of(tmp_path / "pipe.nii.gz")), daemon=True
    )
    reader.start()
    reader.join(5)
    assert done == ["not-a-file"]


@pytest.mark.parametrize(
    ("offset", "payload", "code"),
    [
        (40 + 2 * 3, np.int16(0).tobytes(), "bad-dimensions"),
        (40 + 2 * 3, np.int16(-8).tobytes(), "bad-dimensions"),
        (40, np.int16(9).tobytes(), "bad-dimensions"),
        (70, np.int16(999).tobytes(), "unsupported-type"),
        (70, np.int16(128).tobytes(), "unsupported-type"),  # RGB24
        (70, np.int16(32).tobytes(), "unsupported-type"),  # complex64
        (70, np.int16(1536).tobytes(), "unsupported-type"),  # float128
        (112, np.float32(np.inf).tobytes(), "bad-scaling"),
        (280, np.float32(np.nan).tobytes(), "bad-geometry"),
        (312, np.zeros(4, np.float32).tobytes(), "bad-geometry"),
    ],
)
def test_impossible_headers_are_refused(tmp_path, offset, payload, code):
    assert code_of(raw_edit(saved(tmp_path / "x.nii"), offset, payload)) == code


@pytest.mark.parametrize("gzipped", [False, True])
def test_a_claim_of_terabytes_is_refused_before_memory_is_taken(tmp_path, gzipped):
    path = raw_edit(saved(tmp_path / "x.nii"), 42, np.full(3, 30000, np.int16).tobytes())
    if gzipped:
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert code_of(path) == "too-big"


def test_a_claim_that_fits_the_memory_but_not_the_file_is_truncated(tmp_path):
    path = raw_edit(saved(tmp_path / "x.nii"), 42, np.full(3, 300, np.int16).tobytes())
    assert code_of(path) == "truncated"


def test_the_sform_wins_and_a_conflict_is_told(tmp_path):
    def move_qform(header):
        header.set_qform(AFFINE + np.array([[0, 0, 0, 50.0]] + [[0] * 4] * 3), code=1)
        header.set_sform(AFFINE, code=1)

    path = saved(tmp_path / "x.nii", edit=move_qform)
    volume = read_volume(path)
    np.testing.assert_allclose(volume.grid.affine, AFFINE)
    assert "form-conflict" in volume.warnings[0]
    assert code_of(path, on_conflict="error") == "conflict"


def test_pixdim_against_sform_is_told_and_the_sform_wins(tmp_path):
    path = raw_edit(saved(tmp_path / "x.nii"), 80, np.full(3, 9, np.float32).tobytes())
    volume = read_volume(path)
    assert volume.grid.spacing == pytest.approx((2.0, 1.5, 3.0))
    assert any("spacing-conflict" in text for text in volume.warnings)


def test_only_a_qform(tmp_path):
    def only_qform(header):
        header.set_sform(None, code=0)
        header.set_qform(AFFINE, code=1)

    volume = read_volume(saved(tmp_path / "x.nii", edit=only_qform))
    np.testing.assert_allclose(volume.grid.affine, AFFINE, atol=1e-5)


def test_neither_form_means_spacing_alone_with_a_warning(tmp_path):
    path = saved(tmp_path / "x.nii")
    raw_edit(path, 252, np.zeros(2, np.int16).tobytes())
    volume = read_volume(path)
    np.testing.assert_allclose(volume.grid.affine, np.diag([2.0, 1.5, 3.0, 1.0]))
    assert "no-orientation" in volume.warnings[0]


@pytest.mark.parametrize(("units", "factor"), [("meter", 1000.0), ("micron", 0.001)])
def test_lengths_in_other_units_become_mm(tmp_path, units, factor):
    path = saved(tmp_path / "x.nii", edit=lambda header: header.set_xyzt_units(units))
    np.testing.assert_allclose(read_volume(path).grid.affine[:3], AFFINE[:3] * factor)


def test_a_sheared_sform_is_accepted(tmp_path):
    sheared = AFFINE.copy()
    sheared[1, 2] = 0.8
    np.testing.assert_allclose(
        read_volume(saved(tmp_path / "x.nii", affine=sheared)).grid.affine, sheared
    )


def test_scaling_is_applied_and_slope_zero_means_none(tmp_path):
    path = saved(tmp_path / "x.nii")
    raw_edit(path, 112, np.array([0.5, 3.0], np.float32).tobytes())
    np.testing.assert_allclose(read_volume(path).array, values() * 0.5 + 3)
    raw_edit(path, 112, np.array([0.0, 5.0], np.float32).tobytes())
    assert read_volume(path).array.dtype == np.int16


def test_non_finite_values_follow_the_policy(tmp_path):
    array = np.ones((3, 3, 3), np.float32)
    array[0, 0, :2] = np.nan, np.inf
    path = saved(tmp_path / "x.nii", array)
    kept, zeroed = read_volume(path), read_volume(path, non_finite="zero")
    assert np.isnan(kept.array[0, 0, 0])
    assert "non-finite: 2" in kept.warnings[0]
    assert zeroed.array[0, 0, 0] == zeroed.array[0, 0, 1] == 0
    assert code_of(path, non_finite="error") == "non-finite"
    saved(path, array * np.nan)
    assert code_of(path) == "no-finite-value"


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 7, 1), (5, 6, 7, 1, 1)])
def test_one_channel_is_always_three_dimensional(tmp_path, shape):
    volume = read_volume(saved(tmp_path / "x.nii", values(shape)), channels=1)
    assert volume.array.shape == volume.grid.shape == (*shape, 1)[:3]


@pytest.mark.parametrize("shape", [(5, 6, 7, 2), (5, 6, 7, 1, 2)])
def test_declared_channels_come_last(tmp_path, shape):
    path = saved(tmp_path / "x.nii", values(shape))
    volume = read_volume(path, channels=2)
    np.testing.assert_array_equal(volume.array, values((5, 6, 7, 2)))
    assert read_volume(path).array.shape == shape
    assert code_of(path, channels=1) == "wrong-channels"
    assert code_of(path, channels=3) == "wrong-channels"


def test_the_grid_alone_is_read_from_the_header(tmp_path):
    grid = read_grid(saved(tmp_path / "x.nii.gz"))
    assert grid.shape == (5, 6, 7)
    np.testing.assert_allclose(grid.affine, AFFINE)


def test_importing_io_imports_neither_torch_nor_monai():
    code = "import sys, medseg.io; sys.exit(any(m in sys.modules for m in ('torch', 'monai')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
