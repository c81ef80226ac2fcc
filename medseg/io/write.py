"""Volumes out: whole or not at all, with a fresh header."""

from __future__ import annotations

import gzip
import os
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import DTypeLike, NDArray

from medseg.core.errors import VolumeError
from medseg.core.geometry import Grid
from medseg.core.runs import usual_mode
from medseg.io.read import read_volume

GZIP_LEVEL = 1
"""Level 1 of noisy masks takes 0.35 s where level 9 takes 56 s, for 1.6 times the size."""


def label_dtype(largest: int) -> np.dtype[Any]:
    """Return the smallest unsigned type for label values up to `largest`."""
    return np.dtype(np.uint8 if largest <= 255 else np.uint16 if largest <= 65535 else np.uint32)


def write_label_map(
    path: Path, array: NDArray[Any], grid: Grid, dtype: DTypeLike = np.uint8
) -> None:
    """Write integer labels as .nii or .nii.gz.

    Args:
        path: Target, replaced only by a complete file; a link there is replaced, not followed.
        array: Labels, shape `grid.shape`.
        grid: Where they lie.
        dtype: Stored type; chosen from the label table, so that it is the same for every case.

    Raises:
        VolumeError: `write-failed` if the disk refuses, `unrepresentable` if a value does not fit.
    """
    stored = array.astype(dtype)
    if not np.array_equal(stored, array):
        raise VolumeError(path, "unrepresentable", f"label {array.max()} as {np.dtype(dtype).name}",
                          "choose a wider type")  # fmt: skip
    write_volume(path, stored, grid)


def write_volume(path: Path, array: NDArray[Any], grid: Grid) -> None:
    """Write values as .nii or .nii.gz, in the array's own type; see `write_label_map`."""
    if array.shape[:3] != grid.shape:
        raise VolumeError(path, "write-failed", f"array {array.shape}, grid {grid.shape}", "a bug")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            _write_stream(file, path, _image(array, grid))
            file.flush()
            os.fsync(file.fileno())
        _read_back(temporary, array, grid)
        temporary.chmod(usual_mode())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise VolumeError(path, "write-failed", error.strerror or str(error),
                          "free space, or choose another --output") from error  # fmt: skip
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _image(array: NDArray[Any], grid: Grid) -> nib.Nifti1Image:
    """Return an image with a fresh header: nothing of the source's texts travels on."""
    image = nib.Nifti1Image(array, grid.affine, dtype=array.dtype)
    directions = grid.affine[:3, :3] / np.asarray(grid.spacing)
    orthogonal = np.allclose(directions.T @ directions, np.eye(3), atol=1e-4)
    image.set_sform(grid.affine, code=1)
    image.set_qform(grid.affine if orthogonal else None, code=1 if orthogonal else 0)
    if not orthogonal:  # a sheared affine has no quaternion; the spacing is still right
        image.header["pixdim"][1:4] = grid.spacing
    image.header.set_xyzt_units("mm")
    return image


def _write_stream(file: Any, path: Path, image: nib.Nifti1Image) -> None:
    if not path.name.endswith(".gz"):
        image.to_stream(file)
        return
    # No name and no time in the gzip header: equal volumes give equal bytes.
    with gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as packed:
        image.to_stream(packed)


def _read_back(path: Path, array: NDArray[Any], grid: Grid) -> None:
    """A full disk can be silent: compare what lies there with what was meant."""
    written = read_volume(path)
    nan = array.dtype.kind == "f"
    if not (written.grid.is_same(grid) and np.array_equal(written.array, array, equal_nan=nan)):
        raise VolumeError(path, "write-failed", "the file read back differs", "check the disk")
