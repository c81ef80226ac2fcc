"""MetaImage files: one-file and two-file, raw and compressed, good and bad."""

import zlib

import numpy as np
from torture import (
    AFFINE,
    LPS,
    OBLIQUE,
    SHAPE,
    SHEARED,
    VOXELS,
    Row,
    affine_of,
    file,
    files,
    voxels,
)

TYPES = {
    "uint8": "MET_UCHAR", "int8": "MET_CHAR", "uint16": "MET_USHORT", "int16": "MET_SHORT",
    "uint32": "MET_UINT", "int32": "MET_INT", "uint64": "MET_ULONG_LONG", "int64": "MET_LONG_LONG",
    "float32": "MET_FLOAT", "float64": "MET_DOUBLE",
}  # fmt: skip


def by_simpleitk(path):
    """Read as SimpleITK does, channels last, positions turned to RAS: the check of the builders."""
    import SimpleITK

    image = SimpleITK.ReadImage(str(path))
    array = SimpleITK.GetArrayFromImage(image)
    axes = image.GetDimension()
    affine = np.eye(axes + 1)
    affine[:axes, axes] = image.TransformIndexToPhysicalPoint([0] * axes)
    for axis in range(axes):
        step = [int(axis == other) for other in range(axes)]
        affine[:axes, axis] = image.TransformIndexToPhysicalPoint(step) - affine[:axes, axes]
    spatial = np.eye(4)
    keep = [*range(min(axes, 3)), -1]
    spatial[np.ix_(keep, keep)] = affine[
        np.ix_([*range(min(axes, 3)), axes], [*range(min(axes, 3)), axes])
    ]
    order = (*reversed(range(axes)), *range(axes, array.ndim))
    return array.transpose(order), LPS @ spatial


def numbers(values):
    """Write numbers in full, separated by spaces."""
    return " ".join(repr(float(value)) for value in np.ravel(values))


def meta(array=VOXELS, affine=AFFINE, data="LOCAL", channels=1, endian="<", **fields):
    """Return the header of a MetaImage; a field given as None is left out."""
    lps = LPS @ affine
    axes = array.ndim - (channels > 1)
    spatial = min(axes, 3)
    spacing, directions, origin = np.ones(axes), np.eye(axes), np.zeros(axes)
    spacing[:spatial] = np.linalg.norm(lps[:3, :3], axis=0)[:spatial]
    directions[:spatial, :spatial] = (lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0))[
        :spatial, :spatial
    ]
    origin[:spatial] = lps[:spatial, 3]
    lines = {
        "ObjectType": "Image",
        "NDims": axes,
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": str(endian == ">"),
        "CompressedData": "False",
        # The direction of one axis after the other.
        "TransformMatrix": numbers(directions.T),
        "Offset": numbers(origin),
        "ElementSpacing": numbers(spacing),
        "DimSize": " ".join(map(str, array.shape[:axes])),
        "ElementNumberOfChannels": channels if channels > 1 else None,
        "ElementType": TYPES.get(array.dtype.name),
        **fields,
        "ElementDataFile": data,
    }
    return "".join(
        f"{key} = {value}\n" for key, value in lines.items() if value is not None
    ).encode()


def stored(array=VOXELS, endian="<", channels=1):
    """Return the voxels as they lie: channels fastest, then x."""
    array = array.astype(array.dtype.newbyteorder(endian))
    if channels > 1:
        array = np.moveaxis(array, -1, 0)
    return array.tobytes(order="F")


def mha(array=VOXELS, affine=AFFINE, endian="<", channels=1, **fields):
    """Return the bytes of a .mha file."""
    return meta(array, affine, endian=endian, channels=channels, **fields) + stored(
        array, endian, channels
    )


def squeezed(content=None, **fields):
    """Return the bytes of a compressed .mha file."""
    content = zlib.compress(stored()) if content is None else content
    return meta(CompressedData="True", CompressedDataSize=len(content), **fields) + content


def good(
    name,
    content,
    array=VOXELS,
    affine=AFFINE,
    path="scan.mha",
    peer=by_simpleitk,
    should="accept",
    **rest,
):
    """Return a row of one file that must be accepted."""
    return Row(name, file(path, content), should, array, affine, peer=peer, **rest)


def parts(name, contents, should="accept", peer=by_simpleitk, **rest):
    """Return a row of a header named scan.mhd and its data files."""
    return Row(name, files("scan.mhd", contents), should, VOXELS, AFFINE, peer=peer, **rest)


def typed(name):
    """Return a row of one voxel type over its whole range, exact."""
    array = voxels(dtype=name)
    return good(f".mha, {name}", mha(array), array)


FLOATS = voxels(dtype=np.float32)
HOLES = FLOATS.copy()
HOLES[1, 2, 3], HOLES[4, 4, 4] = np.nan, np.inf
COLOURS, SERIES, FLAT = voxels((6, 5, 4, 3)), voxels((6, 5, 4, 2)), voxels((9, 8))
PACKED = zlib.compress(stored())
LEFT = affine_of(flips=(1, 1, -1), rotation=(0.3, -0.2, 0.1))
TURNED = AFFINE[[1, 2, 0, 3]] @ np.diag([-1, -1, 1, 1])
IDS = np.arange(2**24, 2**24 + VOXELS.size).reshape(SHAPE)
PLANE = AFFINE.copy()
PLANE[2] = (0, 0, 1, 0)
PLANE[:3, 2] = (0, 0, 1)
SLABS = {f"s{k}.raw": stored(VOXELS[:, :, k]) for k in range(SHAPE[2])}
GOOD = [
    good(".mha", mha()),
    good(".mha, big-endian", mha(endian=">")),
    good(".mha, compressed", squeezed()),
    good(
        ".mha, compressed, size not given",
        meta(CompressedData="True") + PACKED,
        should="either",
        peer=None,
    ),
    good(".mha, oblique", mha(affine=OBLIQUE), affine=OBLIQUE),
    good(".mha, left-handed", mha(affine=LEFT), affine=LEFT),
    good(".mha, axes permuted", mha(affine=TURNED), affine=TURNED),
    good(".mha, sheared", mha(affine=SHEARED), affine=SHEARED, peer=None, should="either"),
    *map(typed, ("uint8", "int8", "uint16", "int32", "uint32", "float32", "float64")),
    good(".mha, int64 > 2^24", mha(IDS), IDS),
    good(".mha, channels", mha(COLOURS, channels=3), COLOURS),
    good(".mha, 4D", mha(SERIES), SERIES),
    good(".mha, 2D", mha(FLAT, PLANE), FLAT, PLANE),
    good(".mha, one slice", mha(VOXELS[:, :, :1]), VOXELS[:, :, :1]),
    good(
        ".mha, synonyms Position, Orientation, ElementByteOrderMSB",
        mha()
        .replace(b"Offset =", b"Position =")
        .replace(b"TransformMatrix =", b"Orientation =")
        .replace(b"BinaryDataByteOrderMSB", b"ElementByteOrderMSB"),
    ),
    good(
        ".mha, AnatomicalOrientation and a comment",
        mha(AnatomicalOrientation="RAI", Comment="made = by hand"),
        quiet=False,
    ),
    good(
        ".mha, Windows line ends", meta().replace(b"\n", b"\r\n") + stored(), quiet=False, peer=None
    ),
    good(".mha named .nii.gz", mha(), path="scan.nii.gz", quiet=False, peer=None, should="either"),
    good(
        ".mha without spacing or place",
        mha(TransformMatrix=None, Offset=None, ElementSpacing=None),
        affine=LPS,
        quiet=False,
    ),
    parts(".mhd", {"scan.mhd": meta(data="scan.raw"), "scan.raw": stored()}),
    parts(
        ".mhd, big-endian",
        {"scan.mhd": meta(data="scan.raw", endian=">"), "scan.raw": stored(endian=">")},
    ),
    parts(
        ".mhd with .zraw",
        {
            "scan.mhd": meta(
                data="scan.zraw", CompressedData="True", CompressedDataSize=len(PACKED)
            ),
            "scan.zraw": PACKED,
        },
    ),
    parts(
        ".mhd, HeaderSize 100",
        {"scan.mhd": meta(data="scan.raw", HeaderSize=100), "scan.raw": b"h" * 100 + stored()},
    ),
    parts(
        ".mhd, HeaderSize -1 (the end of the file)",
        {"scan.mhd": meta(data="scan.raw", HeaderSize=-1), "scan.raw": b"h" * 77 + stored()},
    ),
    parts(
        ".mhd, data in a folder below",
        {"scan.mhd": meta(data="raw/scan.raw"), "raw/scan.raw": stored()},
        quiet=False,
    ),
    parts(
        ".mhd, data name with spaces",
        {"scan.mhd": meta(data="my scan.raw"), "my scan.raw": stored()},
    ),
    parts(
        ".mhd of a LIST of slices",
        {"scan.mhd": meta(data="LIST\n" + "\n".join(SLABS)), **SLABS},
        "either",
        None,
    ),
    parts(
        ".mhd of a pattern of slices",
        {"scan.mhd": meta(data="s%d.raw 0 6 1"), **SLABS},
        "either",
        None,
    ),
    good(
        ".mha as text numbers",
        meta(BinaryData="False") + " ".join(map(str, VOXELS.ravel(order="F"))).encode(),
        should="either",
        peer=None,
    ),
]
