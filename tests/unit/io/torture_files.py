"""What is not a volume at all, and NumPy files, which are one without a place in the world."""

import io
import os
import pickle
import socket
import struct
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
from torture import SHAPE, VOXELS, Row, bomb, file, voxels, zipped
from torture_nifti import FLOATS, PAIR, nifti
from torture_nifti_bad import bad

MARKER = "PWNED"


class Trap:
    """Unpickled, makes a folder named MARKER in the working directory."""

    def __reduce__(self):
        return os.mkdir, (MARKER,)


def npy(array=VOXELS, version=None):
    """Return the bytes of a .npy file."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version)
    return stream.getvalue()


def npy_header(text, content=b""):
    """Return a .npy file with any text as its header."""
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + content


def archive(name, content):
    """Return a zip archive of one file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as out:
        out.writestr(name, content)
    return stream.getvalue()


def made(act, name="scan.nii.gz"):
    """Return a builder that lets `act` put something at a path."""

    def build(folder):
        path = folder / name
        act(path)
        return path

    return build


def odd(name, build):
    """Return a row of something that is no regular file, or not there."""
    return Row(name, build, "reject")


def looped(path):
    """Link two names to each other."""
    other = path.with_name("other.nii.gz")
    path.symlink_to(other)
    other.symlink_to(path)


def bound(path):
    """Leave a Unix socket at a path; its name may be at most 107 characters, so bind from there."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(path.name)
    finally:
        os.chdir(here)


def pair_of_pipe(path):
    """Put a good .hdr beside an .img that is a FIFO."""
    path.write_bytes(PAIR[0])
    os.mkfifo(path.with_suffix(".img"))


def folder_of(path, content=b"no slice"):
    """Make a folder that holds a text file only."""
    path.mkdir()
    (path / "notes.txt").write_bytes(content)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 12345\n"
HTML = b"<!DOCTYPE html>\n<html><head><title>403 Forbidden</title></head><body>no</body></html>\n"
ODD = [
    odd("dangling symlink", made(lambda path: path.symlink_to("nowhere"))),
    odd("symlink loop", made(looped)),
    odd("nothing there", made(lambda path: None)),
    odd("path through a file", lambda folder: file("scan.nii", nifti())(folder) / "scan.nii"),
    odd("name of 300 characters", made(lambda path: None, "x" * 300 + ".nii")),
    odd("NUL in the name", made(lambda path: None, "scan\0.nii")),
    odd("empty directory named .nii.gz", made(Path.mkdir)),
    odd("directory of a text file", made(folder_of, "series")),
    odd("directory of a NIfTI", made(partial(folder_of, content=nifti()), "series")),
    odd("FIFO named .nii.gz (hang?)", made(os.mkfifo)),
    odd("FIFO named .mha", made(os.mkfifo, "scan.mha")),
    odd("FIFO as the .img of a pair", made(pair_of_pipe, "scan.hdr")),
    odd(
        "link to a FIFO",
        made(lambda path: (os.mkfifo(path.with_name("pipe")), path.symlink_to("pipe"))),
    ),
    odd("socket", made(bound, "s.nii")),
    odd("/dev/zero", lambda folder: Path("/dev/zero")),
    odd("/dev/null", lambda folder: Path("/dev/null")),
    odd("link to /dev/zero", made(lambda path: path.symlink_to("/dev/zero"))),
]
TEXT = [
    bad("0-byte file", b"", "scan.nii.gz"),
    bad("1-byte file", b"\x5c", "scan.nii"),
    bad("gzip of nothing", zipped(b""), "scan.nii.gz"),
    bad("text file named .nii.gz", b"hello, world\n" * 100, "scan.nii.gz"),
    bad("git-lfs pointer named .nii.gz", LFS, "scan.nii.gz"),
    bad("html page named .nii.gz", HTML, "scan.nii.gz"),
    bad("html page named .dcm", HTML, "scan.dcm"),
    bad("zeros named .nii", bytes(5000), "scan.nii"),
    bad("random bytes named .nii", voxels((5000,), np.uint8).tobytes(), "scan.nii"),
    bad("pickle named .nii.gz", pickle.dumps(Trap()), "scan.nii.gz"),
    bad("gzipped pickle named .nii.gz", zipped(pickle.dumps(Trap())), "scan.nii.gz"),
    bad("zip of a NIfTI", archive("scan.nii", nifti()), "scan.zip"),
    bad("odd name: newline, brackets, colon", b"no", "a: b (c)\n[bold].nii.gz"),
    bad("gzip bomb without a header", partial(bomb, b"", 2048), "scan.nii.gz"),
]


def placed(name, array, content=None, path="scan.npy", should="warn"):
    """Return a row of a NumPy file: accepted on a grid of 1 mm, with a warning."""
    return Row(name, file(path, content or npy(array)), should, array, np.eye(4))


HOLED = FLOATS.copy()
HOLED[2, 2, 2] = np.nan
OBJECTS = npy(np.array([Trap()], dtype=object))
CLAIM = b"{'descr': '<i2', 'fortran_order': True, 'shape': (30000, 30000, 30000), }\n"
CALL = b"{'descr': __import__('os').mkdir('PWNED'), 'fortran_order': True, 'shape': (9, 8, 7), }\n"
DEEP = b"(" * 60000 + b"\n"
NEGATIVE = b"{'descr': '<i2', 'fortran_order': True, 'shape': (-9, -8, 7), }\n"
NUMPY = [
    placed(".npy (no geometry)", VOXELS),
    placed(".npy, Fortran order", VOXELS, npy(np.asfortranarray(VOXELS))),
    placed(".npy, big-endian", VOXELS, npy(VOXELS.astype(">i2"))),
    placed(".npy, version 2.0", VOXELS, npy(VOXELS, (2, 0))),
    placed(".npy, version 3.0", FLOATS, npy(FLOATS, (3, 0))),
    placed(".npy, int64 > 2^53", VOXELS.astype(np.int64) + 2**60),
    placed(".npy, one slice", VOXELS[:, :, :1]),
    placed(".npy, 4D", voxels((6, 5, 4, 3))),
    placed(".npy with NaN", HOLED),
    placed(".npy, booleans", VOXELS > 0, should="either"),
    placed(".npy, trailing junk", VOXELS, npy() + b"junk" * 9, should="doubt"),
    bad("pickle inside .npy", OBJECTS, "scan.npy"),
    bad("pickle named .npy", pickle.dumps(Trap()), "scan.npy"),
    bad(".npy truncated", npy()[:700], "scan.npy"),
    bad(".npy, one byte missing", npy()[:-1], "scan.npy"),
    bad(".npy, header only", npy()[:128], "scan.npy"),
    bad(".npy, truncated in the header", npy()[:40], "scan.npy"),
    bad(".npy claims 30000^3", npy_header(CLAIM, bytes(99)), "scan.npy"),
    bad(".npy, negative shape", npy_header(NEGATIVE, bytes(9 * 8 * 7 * 2)), "scan.npy"),
    bad(".npy, a call in the header", npy_header(CALL, bytes(1008)), "scan.npy"),
    bad(".npy, brackets without end", npy_header(DEEP), "scan.npy"),
    bad(".npy, header of junk", npy_header(b"\xff" * 100), "scan.npy"),
    bad(".npy, version 9", b"\x93NUMPY\x09\0" + npy()[8:], "scan.npy"),
    bad(".npy, complex", npy(VOXELS.astype(np.complex64)), "scan.npy"),
    bad(".npy, words", npy(np.full(SHAPE, "liver")), "scan.npy"),
    bad(".npy, dates", npy(VOXELS.astype("M8[s]")), "scan.npy"),
    bad(".npy, records", npy(np.zeros(SHAPE, [("a", "i2"), ("b", "f4")])), "scan.npy"),
    bad(".npy, no axis", npy(np.array(5.0)), "scan.npy"),
    bad(".npy, empty axis", npy(np.zeros((9, 0, 7))), "scan.npy"),
    bad(".npy, all NaN", npy(np.full(SHAPE, np.nan)), "scan.npy"),
    bad(".npz archive", archive("a.npy", npy()), "scan.npz"),
]
ROWS = [*ODD, *TEXT, *NUMPY]
