"""MetaImage files that must be refused, or read with a warning."""

import os
import zlib

import numpy as np
from torture import (
    AFFINE,
    MEBI,
    SHAPE,
    VOXELS,
    Row,
    file,
    files,
    flipped,
)
from torture_itk import HOLES, PACKED, SLABS, good, meta, mha, parts, squeezed, stored


def bad(name, content, path="scan.mha"):
    """Return a row of one file that must be refused."""
    return Row(name, file(path, content), "reject")


def outside(link=False, absolute=False):
    """Return a builder of a header whose whole data file lies beside its folder, not in it."""

    def build(folder):
        target = folder / "secret.raw"
        target.write_bytes(stored())
        (folder / "in").mkdir()
        name = "link.raw" if link else str(target) if absolute else "../secret.raw"
        if link:
            (folder / "in" / name).symlink_to(target)
        (folder / "in" / "scan.mhd").write_bytes(meta(data=name))
        return folder / "in" / "scan.mhd"

    return build


def piped(folder):
    """Build a header whose data file is a FIFO."""
    os.mkfifo(folder / "scan.raw")
    return files("scan.mhd", {"scan.mhd": meta(data="scan.raw")})(folder)


def zlib_bomb(mebibytes):
    """Return a valid zlib stream of zeros, built from one repeated block."""
    squeeze = zlib.compressobj(9)
    start = squeeze.compress(bytes(MEBI)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    block = squeeze.compress(bytes(MEBI)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    # Adler-32 of n zero bytes: the low half stays 1, the high half counts n.
    check = ((mebibytes * MEBI) % 65521 << 16 | 1).to_bytes(4, "big")
    return start + block * (mebibytes - 1) + b"\x03\x00" + check


BAD = [
    bad(".mha truncated (60 %)", mha()[: int(len(mha()) * 0.6)]),
    bad(".mha, one byte missing", mha()[:-1]),
    bad(".mha, header only", meta()),
    bad(".mha, truncated in the header", meta()[:60]),
    bad(".mha, compressed, truncated", squeezed()[:-200]),
    bad(".mha, compressed, its check missing", squeezed(PACKED[:-4])),
    bad(".mha, compressed, bit flip", squeezed(flipped(PACKED, len(PACKED) // 2))),
    bad(".mha, compressed, check wrong", squeezed(flipped(PACKED, -1))),
    bad(".mha, compressed, too few voxels", squeezed(zlib.compress(stored()[:500]))),
    bad(".mha, compressed, junk", squeezed(b"junk" * 50)),
    bad(".mha, compressed bomb of 1 GiB", lambda: squeezed(zlib_bomb(1024))),
    bad(".mha claims 30000^3", mha(DimSize="30000 30000 30000")),
    bad(".mha, compressed, claims 30000^3", squeezed(DimSize="30000 30000 30000")),
    bad(".mha, size of 30 digits", mha(DimSize="9 8 " + "7" * 30)),
    bad(".mha, DimSize 0", mha(DimSize="9 8 0")),
    bad(".mha, DimSize negative", mha(DimSize="9 -8 -7")),
    bad(".mha, DimSize of words", mha(DimSize="nine eight seven")),
    bad(".mha, DimSize of two numbers", mha(DimSize="9 8")),
    bad(".mha without DimSize", mha(DimSize=None)),
    bad(".mha without ElementType", mha(ElementType=None)),
    bad(".mha, unknown ElementType", mha(ElementType="MET_COLOUR")),
    bad(".mha without NDims", mha(NDims=None)),
    bad(".mha, NDims 0", mha(NDims=0)),
    bad(".mha, NDims 99", mha(NDims=99)),
    bad(".mha, NDims 2^31", mha(NDims=2**31)),
    bad(".mha, channels 0", mha(ElementNumberOfChannels=0)),
    bad(".mha, channels 10^9", mha(ElementNumberOfChannels=10**9)),
    bad(".mha, spacing 0", mha(ElementSpacing="1 1.5 0")),
    bad(".mha, spacing NaN", mha(ElementSpacing="1 1.5 nan")),
    bad(".mha, singular matrix", mha(TransformMatrix="1 0 0 1 0 0 0 0 1")),
    bad(".mha, matrix NaN", mha(TransformMatrix="1 0 0 0 nan 0 0 0 1")),
    bad(".mha, matrix of 4 numbers", mha(TransformMatrix="1 0 0 1")),
    bad(".mha, offset inf", mha(Offset="0 0 inf")),
    bad(".mha, header without end", b"ObjectType = Image\nNDims = 3\n" + b"Comment = x\n" * MEBI),
    bad(".mha, all NaN", mha(np.full(SHAPE, np.nan, np.float32))),
    good(".mha with NaN", mha(HOLES), HOLES, should="warn"),
    good(".mha, trailing junk", mha() + b"junk" * 9, should="doubt", peer=None),
    good(
        ".mha, zero padding of the compressed size",
        squeezed() + b"junk" * 9,
        should="doubt",
        peer=None,
    ),
    bad(".mhd without its data file", meta(data="scan.raw"), "scan.mhd"),
    bad(".mhd, data name empty", meta(data=""), "scan.mhd"),
    bad(".mhd, data name is the folder", meta(data="."), "scan.mhd"),
    bad(".mhd, data from /dev/zero", meta(data="/dev/zero"), "scan.mhd"),
    Row(".mhd, data is a FIFO", piped, "reject"),
    Row(".mhd, data outside of the folder", outside(), "reject"),
    Row(".mhd, data by an absolute path elsewhere", outside(absolute=True), "reject"),
    Row(
        ".mhd, data is a link that leaves the folder", outside(link=True), "either", VOXELS, AFFINE
    ),
    parts(
        ".mhd, data truncated",
        {"scan.mhd": meta(data="scan.raw"), "scan.raw": stored()[:-1]},
        "reject",
        None,
    ),
    parts(
        ".mhd, data too long",
        {"scan.mhd": meta(data="scan.raw"), "scan.raw": stored() + b"junk"},
        "doubt",
        None,
    ),
    parts(
        ".mhd, HeaderSize beyond the file",
        {"scan.mhd": meta(data="scan.raw", HeaderSize=10**9), "scan.raw": stored()},
        "reject",
        None,
    ),
    parts(
        ".mhd, LIST with a slice missing",
        {"scan.mhd": meta(data="LIST\n" + "\n".join(SLABS)), **dict(list(SLABS.items())[:5])},
        "reject",
        None,
    ),
]
