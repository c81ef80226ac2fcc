"""NIfTI files that must be read, with their truth: layouts, types, units, geometry, names."""

import gzip
import io
import struct
import zlib
from functools import partial

import nibabel as nib
import numpy as np
from torture import (
    AFFINE,
    OBLIQUE,
    SHAPE,
    SHEARED,
    SPACING,
    VOXELS,
    Row,
    affine_of,
    file,
    files,
    voxels,
    zipped,
)

PIXDIM = (1.0, *SPACING, 1.0, 1.0, 1.0, 1.0)


def header(array, affine=AFFINE, version=1, endian="<", single=True, **fields):
    """Return a header; any field may be given as it lies in the file, however wrong."""
    kind = {
        (1, True): nib.Nifti1Header,
        (1, False): nib.nifti1.Nifti1PairHeader,
        (2, True): nib.Nifti2Header,
        (2, False): nib.nifti2.Nifti2PairHeader,
    }[version, single]
    made = kind(endianness=endian)
    made.set_data_dtype(array.dtype)
    made.set_data_shape(array.shape)
    made.set_sform(affine, 1)
    made.set_qform(affine, 1, strip_shears=True)
    made.set_xyzt_units("mm")
    raw = made.structarr
    raw["scl_slope"], raw["scl_inter"] = 1, 0
    # nibabel leaves the offset 0 and writes it with the image; 4 bytes say "no extensions".
    raw["vox_offset"] = (made.sizeof_hdr + 4) if single else 0
    for name, value in fields.items():
        raw[name] = value
    return made.binaryblock


def body(array, endian="<"):
    """Return the voxels as they lie in a NIfTI file: first axis fastest."""
    return array.astype(array.dtype.newbyteorder(endian)).tobytes(order="F")


def nifti(array=VOXELS, affine=AFFINE, endian="<", **fields):
    """Return the bytes of a one-file NIfTI."""
    return header(array, affine, endian=endian, **fields) + bytes(4) + body(array, endian)


def pair(array=VOXELS, affine=AFFINE, endian="<", **fields):
    """Return the bytes of the two files of a NIfTI pair."""
    return header(array, affine, endian=endian, single=False, **fields), body(array, endian)


def by_nibabel(path):
    """Read as nibabel does: the check of the builders."""
    image = nib.load(path)
    raw = np.asanyarray(image.dataobj)
    return raw, image.affine


def good(name, content, array=VOXELS, affine=AFFINE, path="scan.nii", peer=by_nibabel, **rest):
    """Return a row that must be accepted."""
    return Row(name, file(path, content), "accept", array, affine, peer=peer, **rest)


def with_name(content, name):
    """Return a gzip member that carries a file name, as the gzip program writes it."""
    stream = io.BytesIO()
    with gzip.GzipFile(name, "wb", fileobj=stream, mtime=1) as out:
        out.write(content)
    return stream.getvalue()


def blocked(content):
    """Return gzip in blocks with an extra field, as bgzip writes it, and its empty last block."""
    out = b""
    for start in [*range(0, len(content), 400), len(content)]:
        part = content[start : start + 400]
        squeeze = zlib.compressobj(6, zlib.DEFLATED, -15)
        packed = squeeze.compress(part) + squeeze.flush()
        extra = struct.pack("<HBBHH", 6, 66, 67, 2, len(packed) + 25)
        out += b"\x1f\x8b\x08\x04" + bytes(4) + b"\x00\xff" + extra + packed
        out += struct.pack("<II", zlib.crc32(part), len(part))
    return out


def with_extension(size=64):
    """Return a file with one header extension of text."""
    block = struct.pack("<ii", size, 6) + b"a comment".ljust(size - 8, b"\0")
    return header(VOXELS, vox_offset=352 + size) + b"\1\0\0\0" + block + body(VOXELS)


def renamed(name, content=None):
    """Return a row: a clean file under a name that says something else."""
    return good(f"named {name}", content or nifti(), path=name, quiet=False, peer=None)


def linked(folder):
    """Build a link to a good file in another folder."""
    (folder / "store").mkdir()
    (folder / "store" / "blob-17").write_bytes(zipped(nifti()))
    (folder / "scan.nii.gz").symlink_to(folder / "store" / "blob-17")
    return folder / "scan.nii.gz"


def typed(name):
    """Return a row of one voxel type over its whole range, exact."""
    array = voxels(dtype=name)
    return good(f"type {name}", nifti(array), array)


def turned(name, affine):
    """Return a row of one orientation, written in both forms."""
    return good(f"orientation {name}", nifti(affine=affine), affine=affine)


IDS = np.arange(2**24 - 3, 2**24 - 3 + np.prod(SHAPE)).reshape(SHAPE)
LARGE_IDS = IDS.astype(np.int64) + 2**53
FLOATS = voxels(dtype=np.float32)
HU = voxels(dtype=np.uint16) % 4096
HEAD = nifti(version=2)
PAIR, PAIR2, PAIR_BIG = pair(), pair(version=2), pair(endian=">")
ZEROS = np.zeros((160, 160, 160), np.uint8)


def unscaled(name, **fields):
    """Return a row whose scaling fields mean: no scaling."""
    return good(name, nifti(**fields), quiet=False, peer=None)


def scaled(name, stored, slope, inter):
    """Return a row whose voxels are scaled; the truth is float64, compared to rounding."""
    truth = stored * np.float64(np.float32(slope)) + np.float64(np.float32(inter))
    return good(name, nifti(stored, scl_slope=slope, scl_inter=inter), truth)


def shaped(name, *shape, **rest):
    """Return a row of an unusual number of axes, as it lies in the file."""
    array = voxels(shape)
    return good(name, nifti(array), array, **rest)


LAYOUT = [
    good("plain .nii", nifti()),
    good(".nii.gz", zipped(nifti()), path="scan.nii.gz"),
    good("gz without compression", zipped(nifti(), 0), path="scan.nii.gz"),
    good("gz with a file name inside", with_name(nifti(), "scan.nii"), path="scan.nii.gz"),
    good("gz of two members", zipped(nifti()[:500]) + zipped(nifti()[500:]), path="scan.nii.gz"),
    good("gz in blocks (bgzip)", blocked(nifti()), path="scan.nii.gz"),
    good("big-endian .nii", nifti(endian=">")),
    good("big-endian .nii.gz", zipped(nifti(endian=">")), path="scan.nii.gz"),
    good("NIfTI-2", HEAD),
    good("NIfTI-2 .nii.gz", zipped(HEAD), path="scan.nii.gz"),
    good("NIfTI-2 big-endian", nifti(version=2, endian=">")),
    good("a constant volume (1000 : 1)", zipped(nifti(ZEROS), 9), ZEROS, path="empty.nii.gz"),
    good("header extension", with_extension()),
    good(
        "text fields of any bytes",
        nifti(descrip=b"\xff\xfe" * 40, intent_name=b"\xe9" * 16, aux_file=b"/etc/passwd"),
    ),
    good("dim beyond dim[0] is zero", nifti(dim=(3, *SHAPE, 0, 0, 0, 0)), quiet=False),
    good("cal_max, slice_code and time fields set", nifti(cal_max=1e9, slice_code=3, toffset=5.0)),
    Row(
        "pair, .hdr named",
        files("s.hdr", {"s.hdr": PAIR[0], "s.img": PAIR[1]}),
        "accept",
        VOXELS,
        AFFINE,
        peer=by_nibabel,
    ),
    Row(
        "pair, .img named",
        files("s.img", {"s.hdr": PAIR[0], "s.img": PAIR[1]}),
        "accept",
        VOXELS,
        AFFINE,
        peer=by_nibabel,
    ),
    Row(
        "pair, gz, .hdr.gz named",
        files("s.hdr.gz", {"s.hdr.gz": zipped(PAIR[0]), "s.img.gz": zipped(PAIR[1])}),
        "accept",
        VOXELS,
        AFFINE,
        peer=by_nibabel,
    ),
    Row(
        "pair, gz, .img.gz named",
        files("s.img.gz", {"s.hdr.gz": zipped(PAIR[0]), "s.img.gz": zipped(PAIR[1])}),
        "accept",
        VOXELS,
        AFFINE,
        peer=by_nibabel,
    ),
    Row(
        "pair, NIfTI-2",
        files("s.hdr", {"s.hdr": PAIR2[0], "s.img": PAIR2[1]}),
        "accept",
        VOXELS,
        AFFINE,
        peer=by_nibabel,
    ),
    Row(
        "pair, big-endian",
        files("s.hdr", {"s.hdr": PAIR_BIG[0], "s.img": PAIR_BIG[1]}),
        "accept",
        VOXELS,
        AFFINE,
        peer=by_nibabel,
    ),
    Row("link to a good file", linked, "accept", VOXELS, AFFINE, quiet=False),
    good(
        "name with spaces, brackets and umlauts", zipped(nifti()), path="Späte Serie [1] (b).nii.gz"
    ),
    Row(
        "plain nii named .nii.gz",
        file("scan.nii.gz", nifti()),
        "accept",
        VOXELS,
        AFFINE,
        quiet=False,
    ),
    Row("gz named .nii", file("scan.nii", zipped(nifti())), "accept", VOXELS, AFFINE, quiet=False),
    Row("no extension", file("scan", zipped(nifti())), "accept", VOXELS, AFFINE, quiet=False),
    renamed("scan.NII.GZ", zipped(nifti())),
    renamed("scan.mha"),
    renamed("scan.dcm", zipped(nifti())),
]
SHAPES = [
    shaped("one slice (x,y,1)", 9, 8, 1),
    shaped("2D image", 9, 8, peer=None),
    shaped("one voxel (1,1,1)", 1, 1, 1),
    shaped("4D", 6, 5, 4, 3),
    shaped("4D of one volume", 6, 5, 4, 1, peer=None),
    shaped("5D vector (x,y,z,1,3)", 6, 5, 4, 1, 3),
]
TYPES = [
    *map(
        typed,
        ("uint8", "int8", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"),
    ),
    good("int64 > 2^24", nifti(IDS.astype(np.int64)), IDS.astype(np.int64)),
    good("int64 > 2^53", nifti(LARGE_IDS), LARGE_IDS),
    good("int32 > 2^24", nifti(IDS.astype(np.int32)), IDS.astype(np.int32)),
    unscaled("scl_slope 0, inter 5 (= ignore)", scl_slope=0, scl_inter=5),
    unscaled("scl_slope and inter NaN, as nibabel writes", scl_slope=np.nan, scl_inter=np.nan),
    unscaled("scl_slope 0 and inter 0", scl_slope=0, scl_inter=0),
    scaled("scl_slope 1, inter -1024", HU, 1, -1024),
    scaled("scl_slope 0.1, inter -3.7", HU, 0.1, -3.7),
    scaled("scl_slope negative", HU, -2, 10),
    scaled("scl_slope 2 of float voxels", FLOATS, 2, 0),
    scaled("scl_slope 2 of float64 voxels beyond float32", FLOATS.astype(np.float64) * 1e100, 2, 0),
    scaled("scl_slope 1e30 of int32 (beyond float32)", voxels(dtype=np.int32), 1e30, 0),
]


def metric(name, units, factor):
    """Return a row of the same scan with its lengths in another unit."""
    affine = AFFINE.copy()
    affine[:3] /= factor
    content = partial(nifti, affine=affine, xyzt_units=units)
    return good(name, content, quiet=units == 10, peer=None)


LEFT = affine_of(flips=(-1, 1, 1), rotation=(0.3, -0.2, 0.1))
HALF_TURN = affine_of(rotation=(np.pi, 0, 0))
GEOMETRY = [
    turned("LAS", affine_of(flips=(-1, 1, 1))),
    turned("LPS", affine_of(flips=(-1, -1, 1))),
    turned("PIR", AFFINE[[1, 2, 0, 3]] @ np.diag([-1, -1, 1, 1])),
    turned("SAL", AFFINE[[2, 1, 0, 3]] @ np.diag([1, 1, -1, 1])),
    turned("oblique", OBLIQUE),
    turned("oblique and left-handed (qfac -1)", LEFT),
    turned("half turn (quaternion a = 0)", HALF_TURN),
    good(
        "sheared sform (gantry tilt), qform 0",
        nifti(affine=SHEARED, qform_code=0),
        affine=SHEARED,
        quiet=False,
    ),
    good("sform only", nifti(affine=OBLIQUE, qform_code=0), affine=OBLIQUE),
    good("qform only", nifti(affine=OBLIQUE, sform_code=0), affine=OBLIQUE),
    good("qform only, left-handed", nifti(affine=LEFT, sform_code=0), affine=LEFT),
    good("qform only, half turn", nifti(affine=HALF_TURN, sform_code=0), affine=HALF_TURN),
    good("sform code 4 (MNI) only", nifti(sform_code=4, qform_code=0)),
    good(
        "sform and qform differ by float noise",
        nifti(affine=OBLIQUE, qoffset_x=-20.00002),
        affine=OBLIQUE,
    ),
    good("sform code 2, qform code 1, the same", nifti(sform_code=2)),
    good("qform only, qfac 0 (= 1)", nifti(sform_code=0, pixdim=(0, *PIXDIM[1:])), quiet=False),
    metric("xyzt_units = metre (same scan)", 1, 1000),
    metric("xyzt_units = micron (same scan)", 3, 0.001),
    metric("xyzt_units = mm and seconds", 10, 1),
    metric("xyzt_units unknown (= mm)", 0, 1),
    metric("xyzt_units = metre, qform only", 1, 1000),
]
ROWS = [*LAYOUT, *SHAPES, *TYPES, *GEOMETRY]
