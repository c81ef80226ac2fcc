"""Volumes out: whole or not at all, with a fresh header."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import DTypeLike, NDArray

from medseg.core.errors import VolumeError
from medseg.core.geometry import Grid
from medseg.io.atomic import whole_file
from medseg.io.layout import Layout
from medseg.io.metaimage import is_metaimage, parse_metaimage
from medseg.io.nifti import is_nifti, parse_nifti, raw_header
from medseg.io.read import HEAD_BYTES, read_volume
from medseg.io.stream import ByteStream, check_name
from medseg.io.text import LPS_TO_RAS

COMPRESSION = 1
"""Level 1 of noisy masks takes 0.35 s where level 9 takes 56 s, for 1.6 times the size."""

NRRD_FLOATS = {4: "float", 8: "double"}

_GEOMETRY = (
    "pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip


Writer = Callable[[Path, NDArray[Any], Grid, Path | None], None]


def label_dtype(largest: int) -> np.dtype[Any]:
    """Return the smallest unsigned type for label values up to `largest`."""
    return np.dtype(np.uint8 if largest <= 255 else np.uint16 if largest <= 65535 else np.uint32)


def write_label_map(
    path: Path,
    array: NDArray[Any],
    grid: Grid,
    dtype: DTypeLike = np.uint8,
    like: Path | None = None,
) -> None:
    """Write integer labels as .nii, .nii.gz, .mha or .nrrd.

    Args:
        path: Target, replaced only by a complete file; a link there is replaced, not followed.
        array: Labels, shape `grid.shape`.
        grid: Where they lie.
        dtype: Stored type; chosen from the label table, so that it is the same for every case.
        like: The image they belong to; see `write_volume`.

    Raises:
        VolumeError: `write-failed` if the disk refuses, `unrepresentable` if a value does not fit.
    """
    with np.errstate(invalid="ignore"):  # NaN is found below
        stored = array.astype(dtype)
    wrong = array[stored != array]
    if wrong.size:
        raise VolumeError(path, "unrepresentable", f"label {wrong[0]} as {np.dtype(dtype).name}",
                          "choose a wider type, or give whole numbers")  # fmt: skip
    write_volume(path, stored, grid, like)


def write_volume(path: Path, array: NDArray[Any], grid: Grid, like: Path | None = None) -> None:
    """Write values as .nii, .nii.gz, .mha or .nrrd, in the array's own type.

    Args:
        path: Target; see `write_label_map`.
        array: Values, shape `grid.shape`, channels last if there are several.
        grid: Where they lie.
        like: A file on the same grid. If both are NIfTI and it does not contradict itself, its
            geometry is taken over bit by bit, and nothing else of it; a plane stays a plane.

    Raises:
        VolumeError: `write-failed` if the disk refuses.
    """
    if array.shape[:3] != grid.shape:
        cause = f"an array {array.shape} on a grid {grid.shape}"
        raise VolumeError(path, "unrepresentable", cause, "give one with the grid's shape")
    if (
        array.dtype.kind not in "iuf"
        or array.dtype.itemsize not in (1, 2, 4, 8)
        or (array.dtype == np.float16)
    ):
        raise VolumeError(path, "unrepresentable", f"values of type {array.dtype}",
                          "convert them to integers or real numbers")  # fmt: skip
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    writer = _writer(path)
    with whole_file(path, (OSError, RuntimeError)) as temporary:  # RuntimeError is SimpleITK's
        writer(temporary, array, grid, like)
        _read_back(temporary, array, grid)


def _writer(path: Path) -> Writer:
    for ending, writer in _WRITERS.items():
        if path.name.lower().endswith(ending):
            return writer
    known = ", ".join(_WRITERS)
    raise VolumeError(path, "write-failed", "an unknown ending", f"choose one of {known}")


def _write_nifti(path: Path, array: NDArray[Any], grid: Grid, like: Path | None) -> None:
    source = _source_header(like, grid)
    if source is not None and int(source["dim"][0]) < 3 and array.ndim == 3:
        array = array.reshape([int(n) for n in source["dim"][1 : int(source["dim"][0]) + 1]])
    # NIfTI-1 counts voxels in 16 bits and keeps the affine in single precision.
    is_long = max(array.shape) > np.iinfo(np.int16).max
    from_nifti2 = source is not None and source.dtype["srow_x"].base == np.float64
    image = _image(array, grid, is_long or from_nifti2)
    if source is not None:
        for name in _GEOMETRY:
            values = source[name]
            image.header[name] = (
                values if values.ndim == 0 else [*values[:4], *image.header[name][4:]]
            )
    with path.open("wb") as file:
        if path.name.lower().endswith(".gz"):
            # No name and no time in the gzip header: equal volumes give equal bytes.
            with gzip.GzipFile("", "wb", COMPRESSION, file, mtime=0) as packed:
                image.to_stream(packed)
        else:
            image.to_stream(file)


def _image(array: NDArray[Any], grid: Grid, nifti2: bool) -> nib.Nifti1Image:
    """Return an image with a fresh header: nothing of the source's texts travels on."""
    kind = nib.Nifti2Image if nifti2 else nib.Nifti1Image
    image = kind(array, grid.affine, dtype=array.dtype)
    directions = grid.affine[:3, :3] / np.asarray(grid.spacing)
    orthogonal = np.allclose(directions.T @ directions, np.eye(3), atol=1e-4)
    image.set_sform(grid.affine, code=1)
    image.set_qform(grid.affine if orthogonal else None, code=1 if orthogonal else 0)
    if not orthogonal:  # a sheared affine has no quaternion; the spacing is still right
        image.header["pixdim"][1:4] = grid.spacing
    image.header.set_xyzt_units("mm")
    return image


def _source_header(like: Path | None, grid: Grid) -> Any | None:
    """Return the header of a NIfTI file whose geometry is unambiguous and that of `grid`."""
    head = _head(like)
    if like is None or not is_nifti(head) or not _is_clean(parse_nifti(like, head), grid):
        return None
    return raw_header(like, head)


def _head(like: Path | None) -> bytes:
    if like is None or like.is_dir():
        return b""
    with ByteStream(like) as stream:
        return stream.read(HEAD_BYTES)


def _is_clean(layout: Layout, grid: Grid) -> bool:
    same = np.array_equal(layout.grid.affine, grid.affine) and layout.grid.shape == grid.shape
    return same and not layout.warnings


def _write_metaimage(path: Path, array: NDArray[Any], grid: Grid, like: Path | None) -> None:
    import SimpleITK

    check_name(path)
    image = SimpleITK.GetImageFromArray(
        np.moveaxis(array, (0, 1, 2), (2, 1, 0)), isVector=array.ndim > 3
    )
    affine = LPS_TO_RAS @ grid.affine  # its own inverse
    image.SetSpacing(grid.spacing)
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / np.asarray(grid.spacing)).ravel().tolist())
    head = _head(like)
    if like is not None and is_metaimage(head) and _is_clean(parse_metaimage(like, head), grid):
        # The product of spacing and direction can be taken apart only up to rounding.
        check_name(like)
        source = SimpleITK.ImageFileReader()
        source.SetImageIO("MetaImageIO")
        source.SetFileName(str(like))
        source.ReadImageInformation()
        if source.GetDimension() == image.GetDimension():
            image.SetSpacing(source.GetSpacing())
            image.SetOrigin(source.GetOrigin())
            image.SetDirection(source.GetDirection())
    SimpleITK.WriteImage(image, str(path), useCompression=True, compressionLevel=COMPRESSION)


def _write_nrrd(path: Path, array: NDArray[Any], grid: Grid, _: Path | None) -> None:
    """Write NRRD directly: other writers take the affine apart and round it."""
    affine = LPS_TO_RAS @ grid.affine
    vectors = [f"({','.join(map(repr, column))})" for column in affine[:3].T.tolist()]
    channels = array.ndim - 3
    lines = [
        "NRRD0004",
        f"type: {array.dtype.name if array.dtype.kind != 'f' else NRRD_FLOATS[array.itemsize]}",
        f"dimension: {array.ndim}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, array.shape))}",
        f"space directions: {' '.join([*vectors[:3], *['none'] * channels])}",
        f"kinds: {' '.join([*['domain'] * 3, *['list'] * channels])}",
        "endian: little",
        "encoding: gzip",
        f"space origin: {vectors[3]}",
    ]
    voxels = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(order="F")
    with path.open("wb") as file:
        file.write(("\n".join(lines) + "\n\n").encode("ascii"))
        file.write(gzip.compress(voxels, COMPRESSION, mtime=0))


def _read_back(path: Path, array: NDArray[Any], grid: Grid) -> None:
    """A full disk can be silent: compare what lies there with what was meant."""
    try:
        written = read_volume(path)
    except VolumeError as error:
        raise OSError(f"read back, it is {error.code}: {error.cause}") from error
    nan = array.dtype.kind == "f"
    same = np.array_equal(written.array.reshape(array.shape), array, equal_nan=nan)
    if not (same and written.grid.is_same(grid) and written.array.dtype == array.dtype):
        raise OSError("the file read back differs")


_WRITERS: dict[str, Writer] = {
    ".nii.gz": _write_nifti,
    ".nii": _write_nifti,
    ".mha": _write_metaimage,
    ".nrrd": _write_nrrd,
}
"""By ending; MetaImage and NRRD hold header and data in one file."""
