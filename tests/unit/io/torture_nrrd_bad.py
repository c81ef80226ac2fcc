"""NRRD files that must be refused, or read with a warning."""

import os

import numpy as np
from torture import (
    MEBI,
    SHAPE,
    Row,
    bomb,
    file,
    files,
    flipped,
    zipped,
)
from torture_itk import HOLES, SLABS
from torture_nrrd import GZ, body, good, head, nrrd, parts, squeezed


def bad(name, content, path="scan.nrrd"):
    """Return a row of one file that must be refused."""
    return Row(name, file(path, content), "reject")


def outside(folder):
    """Build a header whose whole data file lies beside its folder, not in it."""
    return files(
        "in/scan.nhdr", {"in/scan.nhdr": head(data_file="../secret.raw"), "secret.raw": body()}
    )(folder)


def absolute(folder):
    """Build a header that names a whole data file elsewhere by its absolute path."""
    other = head(data_file=folder / "secret.raw")
    return files("in/scan.nhdr", {"in/scan.nhdr": other, "secret.raw": body()})(folder)


def piped(folder):
    """Build a header whose data file is a FIFO."""
    os.mkfifo(folder / "scan.raw")
    return files("scan.nhdr", {"scan.nhdr": head(data_file="scan.raw")})(folder)


BAD = [
    bad(".nrrd truncated (60 %)", nrrd()[: int(len(nrrd()) * 0.6)]),
    bad(".nrrd, one byte missing", nrrd()[:-1]),
    bad(".nrrd, header only", head() + b"\n"),
    bad(".nrrd, truncated in the header", nrrd()[:70]),
    bad(".nrrd, magic only", b"NRRD0004\n"),
    bad(".nrrd, gzip, truncated", squeezed()[:-200]),
    bad(".nrrd, gzip, trailer missing", squeezed(GZ[:-8])),
    bad(".nrrd, gzip, bit flip", squeezed(flipped(GZ, len(GZ) // 2))),
    bad(".nrrd, gzip, CRC wrong", squeezed(flipped(GZ, -6))),
    bad(".nrrd, gzip, too few voxels", squeezed(zipped(body()[:500]))),
    bad(".nrrd, gzip, junk", squeezed(b"junk" * 50)),
    bad(".nrrd, gzip bomb of 2 GiB", lambda: squeezed(bomb(body(), 2048))),
    bad(".nrrd claims 30000^3", nrrd(sizes="30000 30000 30000")),
    bad(".nrrd, gzip, claims 30000^3", squeezed(sizes="30000 30000 30000")),
    bad(".nrrd, size of 30 digits", nrrd(sizes="9 8 " + "7" * 30)),
    bad(".nrrd, size 0", nrrd(sizes="9 8 0")),
    bad(".nrrd, sizes negative", nrrd(sizes="9 -8 -7")),
    bad(".nrrd, sizes of words", nrrd(sizes="nine eight seven")),
    bad(".nrrd, two sizes of three", nrrd(sizes="9 8")),
    bad(".nrrd without sizes", nrrd(sizes=None)),
    bad(".nrrd without type", nrrd(type=None)),
    bad(".nrrd without dimension", nrrd(dimension=None)),
    bad(".nrrd without encoding", nrrd(encoding=None)),
    bad(".nrrd without endian, two-byte voxels", nrrd(endian=None)),
    bad(".nrrd, type block", nrrd(type="block", block_size=2)),
    bad(".nrrd, unknown type", nrrd(type="quaternion")),
    bad(".nrrd, unknown encoding", nrrd(encoding="lzma")),
    bad(".nrrd, dimension 17", nrrd(dimension=17)),
    bad(".nrrd, dimension 2^40", nrrd(dimension=2**40)),
    bad(".nrrd, NaN in the directions", nrrd(space_directions="(nan,0,0) (0,1,0) (0,0,1)")),
    bad(".nrrd, singular directions", nrrd(space_directions="(1,0,0) (1,0,0) (0,0,1)")),
    bad(".nrrd, two directions of three", nrrd(space_directions="(1,0,0) (0,1,0) none")),
    bad(".nrrd, directions unreadable", nrrd(space_directions="(1,0,0) (0,1 (0,0,1)")),
    bad(".nrrd, origin inf", nrrd(space_origin="(0,0,inf)")),
    bad(".nrrd, an unknown space", nrrd(space="patient-left-of-me")),
    good(
        ".nrrd, scanner-xyz (no anatomical meaning)",
        nrrd(space="scanner-xyz"),
        should="doubt",
        peer=None,
    ),
    good(
        ".nrrd, spacings only",
        nrrd(space=None, space_directions=None, space_origin=None, spacings="1 1.5 3"),
        affine=None,
        should="doubt",
        peer=None,
    ),
    bad(".nrrd, header without end", b"NRRD0004\n" + b"# no\n" * 2 * MEBI),
    bad(".nrrd, all NaN", nrrd(np.full(SHAPE, np.nan, np.float32))),
    good(".nrrd with NaN", nrrd(HOLES), HOLES, should="warn"),
    good(".nrrd, trailing junk", nrrd() + b"junk" * 9, should="doubt", peer=None),
    good(".nrrd, gzip, trailing junk", squeezed() + b"junk" * 9, should="doubt", peer=None),
    bad(".nhdr without its data file", head(data_file="scan.raw"), "scan.nhdr"),
    bad(".nhdr, data name is the folder", head(data_file="."), "scan.nhdr"),
    bad(".nhdr, data from /dev/zero", head(data_file="/dev/zero"), "scan.nhdr"),
    Row(".nhdr, data is a FIFO", piped, "reject"),
    Row(".nhdr, data outside of the folder", outside, "reject"),
    Row(".nhdr, data by an absolute path elsewhere", absolute, "reject"),
    parts(
        ".nhdr, data truncated",
        {"scan.nhdr": head(data_file="scan.raw"), "scan.raw": body()[:-1]},
        "reject",
        None,
    ),
    parts(
        ".nhdr, data too long",
        {"scan.nhdr": head(data_file="scan.raw"), "scan.raw": body() + b"junk"},
        "doubt",
        None,
    ),
    parts(
        ".nhdr, LIST with a slice missing",
        {
            "scan.nhdr": head(data_file="LIST 2\n" + "\n".join(SLABS)),
            **dict(list(SLABS.items())[:5]),
        },
        "reject",
        None,
    ),
]
