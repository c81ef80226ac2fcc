"""NRRD files: one-file and two-file, spaces and directions, encodings, good and bad."""

import bz2

import numpy as np
from torture import (
    AFFINE,
    LPS,
    OBLIQUE,
    SHEARED,
    VOXELS,
    Row,
    affine_of,
    file,
    files,
    voxels,
    zipped,
)
from torture_itk import COLOURS, FLAT, IDS, LEFT, PLANE, SERIES, SLABS, TURNED, by_simpleitk

TYPES = {"float32": "float", "float64": "double"}
TO_RAS = {
    "left-posterior-superior": LPS,
    "LPS": LPS,
    "right-anterior-superior": np.eye(4),
    "RAS": np.eye(4),
    "left-anterior-superior": np.diag([-1.0, 1.0, 1.0, 1.0]),
    "LAS": np.diag([-1.0, 1.0, 1.0, 1.0]),
}


def vector(values):
    """Write one NRRD vector in full."""
    return "(" + ",".join(repr(float(value)) for value in values) + ")"


def head(array=VOXELS, affine=AFFINE, space="left-posterior-superior", first=0, **fields):
    """Return a NRRD header; `first` axes of the file precede the spatial ones.

    A field given as None is left out; underscores in names stand for spaces.
    """
    inside = TO_RAS.get(space, LPS) @ affine
    axes = min(array.ndim - first, 3)
    around = ["none"] * (array.ndim - first - axes)
    directions = [vector(inside[:axes, axis]) for axis in range(axes)]
    lines = {
        "type": TYPES.get(array.dtype.name, array.dtype.name),
        "dimension": array.ndim,
        "space": space if axes == 3 else None,
        "space dimension": None if axes == 3 else axes,
        "sizes": " ".join(map(str, array.shape)),
        "space directions": " ".join(["none"] * first + directions + around),
        "endian": "little",
        "encoding": "raw",
        "space origin": vector(inside[:axes, 3]),
    }
    lines |= {name.replace("_", " "): value for name, value in fields.items()}
    text = "".join(f"{key}: {value}\n" for key, value in lines.items() if value is not None)
    return b"NRRD0004\n# made by hand\n" + text.encode()


def body(array=VOXELS, order="<"):
    """Return the voxels as they lie in the file: first axis fastest."""
    return array.astype(array.dtype.newbyteorder(order)).tobytes(order="F")


def nrrd(array=VOXELS, affine=AFFINE, order="<", **fields):
    """Return the bytes of a raw .nrrd file."""
    words = {"endian": "big"} if order == ">" else {}
    return head(array, affine, **words | fields) + b"\n" + body(array, order)


def squeezed(content=None, **fields):
    """Return the bytes of a .nrrd file with gzip inside."""
    return (
        head(encoding="gzip", **fields) + b"\n" + (zipped(body()) if content is None else content)
    )


def good(
    name,
    content,
    array=VOXELS,
    affine=AFFINE,
    path="scan.nrrd",
    should="accept",
    peer=by_simpleitk,
    **rest,
):
    """Return a row of one file that must be accepted."""
    return Row(name, file(path, content), should, array, affine, peer=peer, **rest)


def parts(name, contents, should="accept", peer=by_simpleitk, **rest):
    """Return a row of a header named scan.nhdr and its data files."""
    return Row(name, files("scan.nhdr", contents), should, VOXELS, AFFINE, peer=peer, **rest)


def spaced(space, **rest):
    """Return a row in one of the named spaces."""
    return good(f".nrrd, space {space}", nrrd(affine=OBLIQUE, space=space), affine=OBLIQUE, **rest)


def typed(name):
    """Return a row of one voxel type over its whole range, exact."""
    array = voxels(dtype=name)
    return good(f".nrrd, {name}", nrrd(array), array)


def stored_first(array):
    """Return the array as a file with the channels as first axis holds it."""
    return np.moveaxis(array, -1, 0)


def in_metre():
    """Return the same scan with its lengths in metre, and the field that says so."""
    affine = AFFINE.copy()
    affine[:3] /= 1000
    return nrrd(affine=affine, space_units='"m" "m" "m"')


GZ = zipped(body())
TEXT = " ".join(map(str, VOXELS.ravel(order="F"))).encode()
COLOUR_KINDS = {"first": 1, "kinds": "vector domain domain domain"}
SHEARED_LPS = affine_of(rotation=(0.3, -0.2, 0.1)) @ np.array(
    [[1, 0, 0, 0], [0, 1, 0.4, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]
)
GOOD = [
    good(".nrrd", nrrd()),
    good(".nrrd, big-endian", nrrd(order=">")),
    good(".nrrd, gzip", squeezed()),
    good(".nrrd, encoding gz", head(encoding="gz") + b"\n" + GZ),
    good(".nrrd, gzip, big-endian", squeezed(zipped(body(order=">")), endian="big")),
    good(
        ".nrrd, bzip2",
        head(encoding="bzip2") + b"\n" + bz2.compress(body()),
        should="either",
        peer=None,
    ),
    good(".nrrd, text", head(encoding="text") + b"\n" + TEXT, should="either"),
    good(
        ".nrrd, hex",
        head(encoding="hex") + b"\n" + body().hex().encode(),
        should="either",
        peer=None,
    ),
    *(
        spaced(space)
        for space in (
            "left-posterior-superior",
            "LPS",
            "right-anterior-superior",
            "RAS",
            "left-anterior-superior",
            "LAS",
        )
    ),
    good(".nrrd, left-handed", nrrd(affine=LEFT), affine=LEFT),
    good(".nrrd, axes permuted", nrrd(affine=TURNED), affine=TURNED),
    good(".nrrd, sheared directions", nrrd(affine=SHEARED), affine=SHEARED, quiet=False, peer=None),
    good(
        ".nrrd, sheared and oblique, RAS",
        nrrd(affine=SHEARED_LPS, space="RAS"),
        affine=SHEARED_LPS,
        quiet=False,
        peer=None,
    ),
    *map(typed, ("uint8", "int8", "uint16", "int32", "uint32", "float32", "float64")),
    good(".nrrd, type signed short int", nrrd(type="signed short int")),
    good(
        ".nrrd, type unsigned char, no endian",
        nrrd(voxels(dtype=np.uint8), type="unsigned char", endian=None),
        voxels(dtype=np.uint8),
    ),
    good(".nrrd, int64 > 2^24", nrrd(IDS), IDS),
    good(
        ".nrrd, vector axis first (channels last in the array)",
        nrrd(stored_first(COLOURS), **COLOUR_KINDS),
        COLOURS,
    ),
    good(
        ".nrrd, list axis last", nrrd(SERIES, kinds="domain domain domain list"), SERIES, peer=None
    ),
    good(".nrrd, 2D", nrrd(FLAT, PLANE), FLAT, affine=PLANE, should="either", peer=None),
    good(".nrrd, one slice", nrrd(VOXELS[:, :, :1]), VOXELS[:, :, :1]),
    good(".nrrd, space units mm", nrrd(space_units='"mm" "mm" "mm"')),
    good(
        ".nrrd, space units metre (same scan)", in_metre(), quiet=False, peer=None, should="either"
    ),
    good(
        ".nrrd, line skip 2",
        head(line_skip=2) + b"\nfirst line\nsecond\n" + body(),
        should="either",
        peer=None,
    ),
    good(
        ".nrrd, byte skip 10",
        head(byte_skip=10) + b"\n" + b"x" * 10 + body(),
        should="either",
        peer=None,
    ),
    good(
        ".nrrd, byte skip -1 (the end of the file)",
        head(byte_skip=-1) + b"\n" + b"x" * 33 + body(),
        should="either",
        peer=None,
    ),
    good(
        ".nrrd, keys and values, measurement frame, content",
        nrrd(
            kinds="domain domain domain",
            measurement_frame="(1,0,0) (0,1,0) (0,0,1)",
            content="patient: a (b)",
        ).replace(b"\n\n", b"\nDWMRI_b-value:=1000\nmodality:=CT\n\n", 1),
    ),
    good(
        ".nrrd, Windows line ends",
        head().replace(b"\n", b"\r\n") + b"\r\n" + body(),
        quiet=False,
        should="either",
        peer=None,
    ),
    good(".nrrd named .nii", nrrd(), path="scan.nii", quiet=False, should="either", peer=None),
    good(".nrrd, magic NRRD0005", nrrd().replace(b"NRRD0004", b"NRRD0005", 1)),
    parts(".nhdr with .raw", {"scan.nhdr": head(data_file="scan.raw"), "scan.raw": body()}),
    parts(
        ".nhdr, ./ before the name", {"scan.nhdr": head(data_file="./scan.raw"), "scan.raw": body()}
    ),
    parts(
        ".nhdr with .raw.gz",
        {"scan.nhdr": head(encoding="gzip", data_file="scan.raw.gz"), "scan.raw.gz": GZ},
    ),
    parts(".nhdr, the key datafile", {"scan.nhdr": head(datafile="scan.raw"), "scan.raw": body()}),
    parts(
        ".nhdr, byte skip",
        {"scan.nhdr": head(byte_skip=64, data_file="scan.raw"), "scan.raw": b"h" * 64 + body()},
    ),
    parts(
        ".nhdr of a LIST of slices",
        {"scan.nhdr": head(data_file="LIST 2\n" + "\n".join(SLABS)), **SLABS},
        "either",
        None,
    ),
]
