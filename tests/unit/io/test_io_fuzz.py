"""Random damage and random files: the reader refuses in words, or reads what is there."""

import io
import random
import tempfile
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torture_dicom
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from torture import AFFINE, LPS, VOXELS, affine_of, flipped, voxels, zipped
from torture_files import npy, npy_header
from torture_itk import mha
from torture_itk import squeezed as squeezed_mha
from torture_nifti import body, header, nifti
from torture_nrrd import nrrd
from torture_nrrd import squeezed as squeezed_nrrd

from medseg.core.errors import VolumeError
from medseg.io import read_volume

TIMES = 50
COMPRESSED = min(len(zipped(body(VOXELS))), len(zlib.compress(body(VOXELS))))
# The preamble of a DICOM file and its magic.
DICOM_START = bytes(128) + b"DICM"
bounded = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

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


def attempt(path, **options):
    """Return the volume, or None if it is refused in words; anything else fails the test."""
    try:
        volume = read_volume(path, **options)
    except VolumeError:
        return None
    assert volume.array.dtype.kind in "iufb"
    assert volume.array.size > 0
    assert np.isfinite(volume.grid.affine).all()
    assert np.isfinite(volume.grid.spacing).all()
    assert min(volume.grid.spacing) > 0
    assert volume.grid.shape == (*volume.array.shape, 1, 1)[:3]
    return volume


def attempt_bytes(name, content):
    """Write a file of its own and read it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        return attempt(path)


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


@st.composite
def begun(draw):
    """Draw a file that begins as one of the formats, and goes on at random."""
    rest = draw(st.binary(max_size=2000))
    text = draw(st.text(st.characters(codec="utf-8"), max_size=300)).encode()
    return draw(
        st.sampled_from(
            [
                ("a.nii", b"\x5c\1\0\0" + rest[:340].ljust(340, b"\1") + b"n+1\0" + rest),
                ("a.nii", b"\0\0\1\x5c" + rest[:340].ljust(340, b"\0") + b"n+1\0" + rest),
                ("a.nii", b"\x1c\2\0\0n+2\0\r\n\x1a\n" + rest.ljust(528, b"\0")),
                ("a.hdr", b"\x5c\1\0\0" + rest[:340].ljust(340, b"\1") + b"ni1\0" + rest),
                ("a.nii.gz", b"\x1f\x8b\x08" + rest),
                ("a.nii.gz", zipped(rest)),
                ("a.nii.gz", zipped(nifti())[:20] + rest),
                ("a.nrrd", b"NRRD0004\n" + text + b"\n\n" + rest),
                ("a.nrrd", b"NRRD0004\n" + rest),
                ("a.nrrd", b"NRRD0005\ntype: short\ndimension: 3\n" + text + b"\n\n" + rest),
                ("a.mha", b"ObjectType = Image\nNDims = 3\n" + text + b"\n" + rest),
                (
                    "a.mha",
                    b"ObjectType = Image\nNDims = 3\n" + rest + b"\nElementDataFile = LOCAL\n",
                ),
                ("a.mhd", b"ObjectType = Image\nElementDataFile = " + text),
                ("a.npy", b"\x93NUMPY\1\0" + rest),
                ("a.npy", npy_header(text, rest)),
                ("a.npy", npy()[:10] + rest),
                ("a.dcm", DICOM_START + rest),
                ("a.dcm", DICOM_START + b"\2\0\0\0UL\4\0" + rest),
            ]
        )
    )


@bounded
@given(begun())
def test_random_bytes_after_a_valid_magic_never_crash(made):
    attempt_bytes(*made)


FIELDS = {
    1: nib.Nifti1Header().structarr.dtype,
    2: nib.Nifti2Header().structarr.dtype,
}
WHOLE = [0, 1, -1, 2, 3, 5, 7, 8, 9, 16, 64, 127, -128]
LARGE = [255, 256, 348, 352, 512, 1023, 32767, -32768]
REAL = [0.0, 1.0, -1.0, 0.5, 2.0, 1e-30, 1e30, 1e38, 352.0, np.inf, -np.inf, np.nan]


@st.composite
def wild_fields_of_nifti(draw):
    """Draw a version, a byte order and a few header fields with wild values."""
    version, order = draw(st.sampled_from([1, 2])), draw(st.sampled_from("<>"))
    fields = {}
    for name in draw(st.lists(st.sampled_from(FIELDS[version].names), min_size=1, max_size=4)):
        base, shape = FIELDS[version][name].base, FIELDS[version][name].shape
        size = FIELDS[version][name].itemsize
        if base.kind == "S" or draw(st.booleans()):
            fields[name] = np.frombuffer(
                draw(st.binary(min_size=size, max_size=size)), base
            ).reshape(shape)
            continue
        numbers = REAL if base.kind == "f" else WHOLE if base.itemsize == 1 else WHOLE + LARGE
        numbers = [number for number in numbers if base.kind != "u" or number >= 0]
        one = st.sampled_from(numbers)
        fields[name] = draw(st.lists(one, min_size=shape[0], max_size=shape[0]) if shape else one)
    return version, order, fields


@bounded
@given(wild_fields_of_nifti(), st.booleans())
def test_wild_values_in_a_nifti_header_never_crash(made, packed):
    version, order, fields = made
    content = (
        header(VOXELS, version=version, endian=order, **fields) + bytes(4) + body(VOXELS, order)
    )
    attempt_bytes("wild.nii", zipped(content) if packed else content)


@bounded
@given(
    st.sampled_from("xyz"), st.lists(st.sampled_from(REAL), min_size=4, max_size=4), st.booleans()
)
def test_wild_rows_of_the_sform_never_crash(row, values, alone):
    fields = {f"srow_{row}": values} | ({"qform_code": 0} if alone else {})
    attempt_bytes("wild.nii", nifti(**fields))


VALUES = [
    "",
    "0",
    "-1",
    "1",
    "3",
    "nan",
    "inf",
    "1e400",
    "9 8 7",
    "9 8 7 6",
    "0 0 0",
    "1 0 0 0 1 0 0 0 1",
    "(1,0,0)",
    "none",
    "none none none",
    "True",
    "raw",
    "gzip",
    "LIST",
    "LOCAL",
    "%d 1 9 1",
    "../x",
    "/dev/zero",
    "MET_SHORT",
    "MET_DOUBLE",
    "short",
    "double",
    "left-posterior-superior",
    "99999999999999999999",
    "0x10",
    "é",
    '"mm"',
]
META_FIELDS = [
    "ObjectType",
    "NDims",
    "BinaryData",
    "BinaryDataByteOrderMSB",
    "CompressedData",
    "CompressedDataSize",
    "TransformMatrix",
    "Offset",
    "ElementSpacing",
    "DimSize",
    "ElementNumberOfChannels",
    "ElementType",
    "HeaderSize",
    "ElementDataFile",
]
NRRD_FIELDS = [
    "type",
    "dimension",
    "space",
    "space dimension",
    "sizes",
    "space directions",
    "kinds",
    "endian",
    "encoding",
    "space origin",
    "spacings",
    "thicknesses",
    "space units",
    "byte skip",
    "line skip",
    "data file",
    "axis mins",
    "centers",
]


def wild_fields(fields):
    """Draw values for a few fields of a text header."""
    return st.dictionaries(st.sampled_from(fields), st.sampled_from(VALUES), min_size=1, max_size=3)


@bounded
@given(wild_fields(META_FIELDS))
def test_wild_values_in_a_metaimage_header_never_crash(fields):
    attempt_bytes(
        "wild.mha",
        mha(**fields)
        if "ElementDataFile" not in fields
        else mha().replace(b"LOCAL", fields["ElementDataFile"].encode(), 1),
    )


@bounded
@given(wild_fields(NRRD_FIELDS))
def test_wild_values_in_a_nrrd_header_never_crash(fields):
    start, data = nrrd().split(b"\n\n", 1)
    kept = [line for line in start.splitlines() if line.split(b":")[0].decode() not in fields]
    lines = [*kept, *(f"{key}: {value}".encode() for key, value in fields.items())]
    attempt_bytes("wild.nrrd", b"\n".join(lines) + b"\n\n" + data)


DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]


@st.composite
def valid_file(draw):
    """Draw a valid NIfTI file: its bytes, stored voxels, affine, slope and intercept."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=5)))
    array = voxels(shape, np.dtype(draw(st.sampled_from(DTYPES))), seed=draw(st.integers(0, 999)))
    angle = st.floats(-3, 3)
    affine = affine_of(
        draw(st.tuples(*[st.floats(0.1, 8)] * 3)),
        draw(st.tuples(angle, angle, angle)),
        draw(st.tuples(*[st.sampled_from([-1, 1])] * 3)),
        draw(st.tuples(*[st.floats(-500, 500)] * 3)),
    )
    scale = draw(
        st.sampled_from(
            [(1, 0), (0, 0), (np.nan, np.nan), (0.5, -3), (-2, 0), (0.001, 7), (1, -1024)]
        )
    )
    codes = draw(st.sampled_from([(1, 1), (0, 1), (2, 0), (4, 4)]))
    order = draw(st.sampled_from("<>"))
    content = nifti(
        array,
        affine,
        order,
        version=draw(st.sampled_from([1, 2])),
        sform_code=codes[0],
        qform_code=codes[1],
        scl_slope=scale[0],
        scl_inter=scale[1],
        xyzt_units=draw(st.sampled_from([2, 10])),
    )
    packing = draw(st.sampled_from([lambda c: c, zipped]))
    return packing(content), content, array, scale


@bounded
@given(valid_file())
def test_any_valid_nifti_is_read_as_nibabel_reads_it(made):
    content, plain, array, (slope, inter) = made
    volume = attempt_bytes("valid.nii", content)
    assert volume is not None
    assert volume.warnings == ()
    kind = nib.Nifti1Image if plain[:4] in (b"\x5c\1\0\0", b"\0\0\1\x5c") else nib.Nifti2Image
    peer = kind.from_stream(io.BytesIO(plain))
    np.testing.assert_allclose(volume.grid.affine, peer.affine, rtol=0, atol=1e-3)
    if (slope in (0, 1) and inter == 0) or np.isnan(slope):
        assert volume.array.dtype == array.dtype
        np.testing.assert_array_equal(volume.array, array)
    else:
        truth = np.asarray(peer.dataobj, np.float64)
        assert volume.array.shape == truth.shape
        np.testing.assert_allclose(volume.array, truth, rtol=1e-6, atol=1e-6 * np.abs(truth).max())
