"""Random headers and random valid files: refused in words, or read as they are."""

import io

import nibabel as nib
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torture import VOXELS, affine_of, attempt_bytes, voxels, zipped
from torture_files import npy, npy_header
from torture_itk import mha
from torture_nifti import body, header, nifti
from torture_nrrd import nrrd

# The preamble of a DICOM file and its magic.
DICOM_START = bytes(128) + b"DICM"
bounded = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


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
    assert volume.warnings == []
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
