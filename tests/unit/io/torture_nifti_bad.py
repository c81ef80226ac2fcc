"""NIfTI files that must be refused, or read with a warning."""

import bz2
import lzma
import zlib
from functools import cache, partial

import nibabel as nib
import numpy as np
from torture import (
    AFFINE,
    OBLIQUE,
    SHAPE,
    VOXELS,
    Row,
    affine_of,
    bomb,
    file,
    files,
    flipped,
    voxels,
    zipped,
)
from torture_nifti import FLOATS, PAIR, PIXDIM, body, header, nifti

HUGE = (3, 30000, 30000, 30000, 1, 1, 1, 1)
PLAIN = nifti()
ZIPPED = zipped(PLAIN)
CONFLICT = {"on_conflict": "error"}
HOLES = FLOATS.copy()
HOLES[0, 0, 0], HOLES[1, 2, 3], HOLES[-1, -1, -1] = np.nan, np.inf, -np.inf
FILLED = np.nan_to_num(HOLES, nan=0.0, posinf=0.0, neginf=0.0)


def bad(name, content, path="scan.nii", **rest):
    """Return a row that must be refused."""
    return Row(name, file(path, content), "reject", **rest)


def doubtful(name, content, array=VOXELS, affine=AFFINE, should="warn", path="scan.nii", **rest):
    """Return a row that must not pass in silence."""
    return Row(name, file(path, content), should, array, affine, **rest)


def either(name, content, **rest):
    """Return a row that may be refused or read, but not read wrongly."""
    return doubtful(name, content, should="either", **rest)


def with_qform(affine, **fields):
    """Return a file whose sform is AFFINE and whose qform is `affine`, both coded."""
    form = nib.Nifti1Header()
    form.set_qform(affine, 1)
    names = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "pixdim")
    return nifti(**{name: form[name] for name in names} | fields)


SHIFTED = with_qform(affine_of(origin=(30.0, 30.5, 7.25)))
TURNED = with_qform(affine_of(rotation=(0, 0, np.pi / 2)))
STRETCHED = nifti(pixdim=(1, 2, 2, 2, 1, 1, 1, 1))
# Method 1 of the NIfTI standard: the spacing, and nothing else.
METHOD_1 = np.diag([*PIXDIM[1:4], 1.0])
FORMS = [
    doubtful("sform != qform (50 mm shift), both coded", SHIFTED),
    doubtful("sform != qform (90 deg), both coded", TURNED),
    doubtful("sform != qform (left and right swapped)", with_qform(affine_of(flips=(-1, 1, 1)))),
    doubtful("pixdim 2 mm vs sform 1/1.5/3 mm, both coded", STRETCHED),
    doubtful(
        "pixdim 2 mm vs sform, sform only", nifti(pixdim=(1, 2, 2, 2, 1, 1, 1, 1), qform_code=0)
    ),
    doubtful("pixdim[3] = 0 (sform valid)", nifti(pixdim=(*PIXDIM[:3], 0, *PIXDIM[4:]))),
    doubtful("neither form coded (method 1)", nifti(sform_code=0, qform_code=0), affine=METHOD_1),
    doubtful("qform NaN, sform valid, both coded", nifti(quatern_b=np.nan), should="doubt"),
    doubtful(
        "pixdim NaN, sform only",
        nifti(pixdim=(1, np.nan, 1.5, 3, 1, 1, 1, 1), qform_code=0),
        should="doubt",
    ),
    either("pixdim negative, sform valid", nifti(pixdim=(1, -1, 1.5, 3, 1, 1, 1, 1))),
    bad("shift under on_conflict=error", SHIFTED, code="conflict", options=CONFLICT),
    bad("90 deg under on_conflict=error", TURNED, code="conflict", options=CONFLICT),
    bad("pixdim under on_conflict=error", STRETCHED, code="conflict", options=CONFLICT),
    Row(
        "clean file under on_conflict=error",
        file("scan.nii", nifti(affine=OBLIQUE)),
        "accept",
        VOXELS,
        OBLIQUE,
        options=CONFLICT,
    ),
    bad("NaN in sform", nifti(srow_x=(np.nan, 0, 0, 0))),
    bad("inf in the offset of the sform", nifti(srow_z=(0, 0, 3, np.inf))),
    bad("singular sform (zero z row)", nifti(srow_z=(0, 0, 0, 0))),
    bad("singular sform (equal columns)", nifti(srow_x=(1, 1, 0, 0), srow_y=(1, 1, 0, 0))),
    bad("qform only, NaN quaternion", nifti(sform_code=0, quatern_b=np.nan)),
    bad("qform only, quaternion of length 2", nifti(sform_code=0, quatern_b=2)),
    bad("qform only, pixdim 0", nifti(sform_code=0, pixdim=(1, 0, 1.5, 3, 1, 1, 1, 1))),
    bad("neither form coded, pixdim 0", nifti(sform_code=0, qform_code=0, pixdim=(0,) * 8)),
    bad("neither form coded, pixdim NaN", nifti(sform_code=0, qform_code=0, pixdim=(np.nan,) * 8)),
]
HEADERS = [
    bad("dim[3] = 0", nifti(dim=(3, 9, 8, 0, 1, 1, 1, 1))),
    bad("dim[3] = -8", nifti(dim=(3, 9, 8, -7, 1, 1, 1, 1))),
    bad("two negative axes", nifti(dim=(3, 9, -8, -7, 1, 1, 1, 1))),
    bad("dim[0] = 9", nifti(dim=(9, 9, 8, 7, 1, 1, 1, 1))),
    bad("dim[0] = 0", nifti(dim=(0, 9, 8, 7, 1, 1, 1, 1))),
    bad("dim[0] = -3", nifti(dim=(-3, 9, 8, 7, 1, 1, 1, 1))),
    bad(
        "NIfTI-2, dims whose product wraps to 0",
        nifti(version=2, dim=(3, 2**32, 2**32, 1, 1, 1, 1, 1)),
    ),
    bad(
        "NIfTI-2, dims whose product wraps to 504",
        nifti(version=2, dim=(4, 2**62 + 126, 4, 1, 1, 1, 1, 1)),
    ),
    bad("NIfTI-2, dim[0] = 2^40", nifti(version=2, dim=(2**40, 9, 8, 7, 1, 1, 1, 1))),
    bad("scl_slope inf", nifti(scl_slope=np.inf)),
    bad("scl_slope -inf", nifti(scl_slope=-np.inf)),
    bad("scl_inter NaN of slope 2", nifti(scl_slope=2, scl_inter=np.nan)),
    bad("scl_inter inf of slope 1", nifti(scl_slope=1, scl_inter=np.inf)),
    bad("complex64", nifti(np.zeros(SHAPE, np.complex64))),
    bad("complex128", nifti(np.zeros(SHAPE, np.complex128))),
    bad(
        "RGB24",
        nifti(voxels((9, 8, 7, 3), np.uint8), dim=(3, *SHAPE, 1, 1, 1, 1), datatype=128, bitpix=24),
    ),
    bad(
        "RGBA32",
        nifti(
            voxels((9, 8, 7, 4), np.uint8), dim=(3, *SHAPE, 1, 1, 1, 1), datatype=2304, bitpix=32
        ),
    ),
    bad(
        "float128 / datatype 1536",
        nifti(
            voxels((9, 8, 7, 2), np.float64), dim=(3, *SHAPE, 1, 1, 1, 1), datatype=1536, bitpix=128
        ),
    ),
    bad("unknown datatype 999", nifti(datatype=999)),
    bad("datatype 0", nifti(datatype=0)),
    bad("datatype 1 (bits)", nifti(datatype=1, bitpix=1)),
    bad("datatype -4", nifti(datatype=-4)),
    either("bitpix contradicts the datatype", nifti(bitpix=32)),
    bad("vox_offset inside the header", nifti(vox_offset=100)),
    bad("vox_offset negative", nifti(vox_offset=-352)),
    bad("vox_offset NaN", nifti(vox_offset=np.nan)),
    bad("vox_offset inf", nifti(vox_offset=np.inf)),
    bad("vox_offset beyond the file", nifti(vox_offset=1e9)),
    either("vox_offset 0", nifti(vox_offset=0)),
    either(
        "vox_offset not a multiple of 16",
        header(VOXELS, vox_offset=353) + bytes(5) + body(VOXELS),
        quiet=False,
    ),
    either(
        "extension longer than the file",
        header(VOXELS, vox_offset=384)
        + b"\1\0\0\0\xf0\xff\xff\x7f\6\0\0\0"
        + bytes(24)
        + body(VOXELS),
    ),
    either(
        "extension of size 0",
        header(VOXELS, vox_offset=384) + b"\1\0\0\0" + bytes(32) + body(VOXELS),
    ),
    bad("magic of a pair in one file", nifti(magic=b"ni1")),
    bad("magic unknown", nifti(magic=b"xx1")),
    bad("no magic (Analyze)", nifti(magic=b"")),
    bad("sizeof_hdr 0", nifti(sizeof_hdr=0)),
    bad("sizeof_hdr of NIfTI-2, rest of NIfTI-1", nifti(sizeof_hdr=540)),
    bad("header claims 30000^3, 2 kB file", nifti(dim=HUGE)),
    bad("same, .nii.gz", zipped(nifti(dim=HUGE)), "scan.nii.gz"),
    bad("32767^7 voxels", nifti(dim=(7,) + (32767,) * 7)),
    bad("larger than max_bytes", PLAIN, options={"max_bytes": 500}),
    bad(
        "larger than max_bytes, .nii.gz",
        zipped(nifti(np.zeros((90, 80, 70), np.int16))),
        "scan.nii.gz",
        options={"max_bytes": 500_000},
    ),
]


@cache
def noise():
    """Return a compressed 96^3 of noise."""
    return zipped(nifti(voxels((96, 96, 96))), 1)


def share(content, part):
    """Return the first part of a file, as a broken transfer leaves it."""
    return content[: int(len(content) * part)]


DAMAGED = [
    bad("truncated .nii (60 %)", share(PLAIN, 0.6)),
    bad("truncated .nii, one byte missing", PLAIN[:-1]),
    bad("truncated .nii, in the header", PLAIN[:100]),
    bad("truncated .nii, header only", PLAIN[:352]),
    bad("truncated .nii.gz (60 %)", share(ZIPPED, 0.6), "scan.nii.gz"),
    bad("truncated .nii.gz, one byte missing", ZIPPED[:-1], "scan.nii.gz"),
    bad("truncated .nii.gz, trailer missing", ZIPPED[:-8], "scan.nii.gz"),
    bad("truncated .nii.gz, gzip header only", ZIPPED[:10], "scan.nii.gz"),
    bad("truncated .nii.gz, magic only", ZIPPED[:2], "scan.nii.gz"),
    bad("truncated before it was compressed", zipped(share(PLAIN, 0.6)), "scan.nii.gz"),
    bad("bit flip inside .nii.gz", flipped(ZIPPED, len(ZIPPED) // 2), "scan.nii.gz"),
    bad("gzip CRC wrong, data whole", flipped(ZIPPED, -6), "scan.nii.gz"),
    bad("gzip length wrong, data whole", flipped(ZIPPED, -2), "scan.nii.gz"),
    bad("truncated .nii.gz, 96^3 noise (60 %)", lambda: share(noise(), 0.6), "scan.nii.gz"),
    bad(
        "bit flip in .nii.gz, 96^3 noise",
        lambda: flipped(noise(), len(noise()) // 2),
        "scan.nii.gz",
    ),
    bad(
        "second gzip member truncated",
        zipped(PLAIN[:500]) + zipped(PLAIN[500:])[:-9],
        "scan.nii.gz",
    ),
    bad(
        "second gzip member, CRC wrong",
        zipped(PLAIN[:500]) + flipped(zipped(PLAIN[500:]), -6),
        "scan.nii.gz",
    ),
    doubtful("trailing junk after gz", ZIPPED + b"junk" * 30, path="scan.nii.gz"),
    doubtful("trailing junk inside gz", zipped(PLAIN + b"junk" * 30), path="scan.nii.gz"),
    doubtful("trailing junk after .nii", PLAIN + b"junk" * 30),
    doubtful(
        "a second, broken gzip member after the volume",
        ZIPPED + ZIPPED[:60],
        should="doubt",
        path="scan.nii.gz",
    ),
    Row(
        "gz padded with zeros",
        file("scan.nii.gz", ZIPPED + bytes(512)),
        "accept",
        VOXELS,
        AFFINE,
        quiet=False,
    ),
    either("compressed twice", zipped(ZIPPED), path="scan.nii.gz"),
    bad("bzip2 named .nii.gz", bz2.compress(PLAIN), "scan.nii.gz"),
    bad("xz named .nii.gz", lzma.compress(PLAIN), "scan.nii.gz"),
    bad("zlib named .nii.gz", zlib.compress(PLAIN), "scan.nii.gz"),
    bad("pair without its .img", PAIR[0], "s.hdr"),
    bad("pair without its .hdr", PAIR[1], "s.img"),
    Row(
        "pair, .img truncated", files("s.hdr", {"s.hdr": PAIR[0], "s.img": PAIR[1][:-1]}), "reject"
    ),
    Row("pair, .img empty", files("s.hdr", {"s.hdr": PAIR[0], "s.img": b""}), "reject"),
    Row(
        "pair, .img too long",
        files("s.hdr", {"s.hdr": PAIR[0], "s.img": PAIR[1] + b"junk"}),
        "warn",
        VOXELS,
        AFFINE,
    ),
]
VALUES = [
    doubtful("NaN/inf voxels", nifti(HOLES), HOLES),
    doubtful(
        "NaN/inf voxels, float64, .nii.gz",
        zipped(nifti(HOLES.astype(np.float64))),
        HOLES.astype(np.float64),
        path="scan.nii.gz",
    ),
    doubtful(
        "NaN/inf voxels, non_finite=zero", nifti(HOLES), FILLED, options={"non_finite": "zero"}
    ),
    bad("NaN/inf voxels, non_finite=error", nifti(HOLES), options={"non_finite": "error"}),
    bad("all NaN", nifti(np.full(SHAPE, np.nan, np.float32))),
    bad("all inf", nifti(np.full(SHAPE, -np.inf, np.float32))),
    bad(
        "all NaN, non_finite=zero",
        nifti(np.full(SHAPE, np.nan, np.float32)),
        options={"non_finite": "zero"},
    ),
    bad("scaled beyond float64", nifti(np.full(SHAPE, 1e300), scl_slope=1e30)),
]


def exploding(dim, mebibytes):
    """Return a builder of a valid gzip stream that says little and gives much, or says much."""
    return partial(bomb, header(VOXELS, dim=dim) + bytes(4), mebibytes)


BOMBS = [
    # 4 GiB more than said: the 32 bits of length in the trailer agree with the header all the same.
    bad(
        "gzip bomb: 1 kB said, 4 GiB come", exploding((3, *SHAPE, 1, 1, 1, 1), 4096), "scan.nii.gz"
    ),
    bad(
        "gzip bomb: 12 GB said, 12 GB come",
        exploding((3, 2000, 2000, 1573, 1, 1, 1, 1), 12001),
        "scan.nii.gz",
        options={"max_bytes": 2**31},
    ),
    bad("gzip bomb: 54 TB said, 4 GiB come", exploding(HUGE, 4096), "scan.nii.gz"),
]
ROWS = [*FORMS, *HEADERS, *DAMAGED, *VALUES, *BOMBS]
