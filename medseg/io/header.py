"""What a NIfTI header claims, checked before any voxel is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.quaternions import quat2mat
from numpy.typing import NDArray

from medseg.core.errors import GeometryError, VolumeError
from medseg.core.geometry import Grid, rounded

NIFTI1_BYTES, NIFTI2_BYTES = 348, 540
_MAGIC1, _MAGIC2 = (b"n+1\0", b"ni1\0"), (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")
_UNITS_TO_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unknown is taken for mm, as everyone does
_KINDS = "iuf"  # integers and real numbers; RGB and complex are no intensities
_MAX_ITEM_BYTES = 8  # no float128: its layout depends on the platform

WRITE_AGAIN = "write the file again with a current tool"


@dataclass(frozen=True)
class Header:
    """A checked header.

    Attributes:
        shape: All array dimensions as stored.
        dtype: Stored type, with byte order.
        offset: First byte of the voxels.
        slope: Scaling factor, 1 if none.
        intercept: Scaling offset, 0 if none.
        grid: Where the voxels lie.
        warnings: Ambiguities that were resolved, in words.
        pair: Whether the voxels lie in a separate .img file.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    grid: Grid
    warnings: tuple[str, ...]
    pair: bool

    @property
    def data_bytes(self) -> int:
        """Bytes of the voxels."""
        return math.prod(self.shape) * self.dtype.itemsize


def parse_header(path: Path, head: bytes) -> Header:
    """Check the first bytes of a NIfTI-1 or NIfTI-2 file.

    Raises:
        VolumeError: `not-nifti`, `truncated`, `bad-dimensions`, `unsupported-type`, `bad-scaling`
            or `bad-geometry`.
    """
    raw = _raw_header(path, head)
    shape = _shape(path, raw)
    slope, intercept = _scaling(path, raw)
    warnings: list[str] = []
    affine = _affine(path, raw, warnings)
    spatial = (*shape[:3], *[1] * (3 - len(shape)))[:3]
    try:
        grid = Grid((spatial[0], spatial[1], spatial[2]), affine)
    except GeometryError as error:
        raise VolumeError(path, "bad-geometry", str(error), WRITE_AGAIN) from error
    pair = bytes(raw["magic"].tobytes())[:3] in (b"ni1", b"ni2")
    offset = float(raw["vox_offset"])
    minimum = 0 if pair else int(raw["sizeof_hdr"])
    if not (math.isfinite(offset) and offset >= minimum and offset == int(offset)):
        raise VolumeError(path, "bad-header", f"the voxels begin at byte {offset}", WRITE_AGAIN)
    dtype = _dtype(path, raw)
    return Header(shape, dtype, int(offset), slope, intercept, grid, tuple(warnings), pair)


def _raw_header(path: Path, head: bytes) -> Any:
    if not head:
        raise VolumeError(path, "empty", "the file holds no data", "fetch the file again")
    size = {order: int.from_bytes(head[:4], order) for order in ("little", "big")}
    for length, magics, kind in (
        (NIFTI1_BYTES, _MAGIC1, nib.Nifti1Header),
        (NIFTI2_BYTES, _MAGIC2, nib.Nifti2Header),
    ):
        if length not in size.values():
            continue
        if len(head) < length:
            raise VolumeError(path, "truncated", "the header is incomplete", "fetch it again")
        header = kind(head[:length], check=False)
        magic = head[344:348] if length == NIFTI1_BYTES else head[4:12]
        if magic in magics:
            return header.structarr
    raise VolumeError(path, "not-nifti", "the content is not a NIfTI volume",
                      "convert it to NIfTI, or leave it out")  # fmt: skip


def _shape(path: Path, raw: Any) -> tuple[int, ...]:
    dims = [int(n) for n in raw["dim"]]
    count, sizes = dims[0], dims[1 : dims[0] + 1]
    if not 1 <= count <= 7 or min(sizes) < 1:
        raise VolumeError(path, "bad-dimensions", f"dim is {dims}", WRITE_AGAIN)
    return tuple(sizes)


def _dtype(path: Path, raw: Any) -> np.dtype[Any]:
    code = int(raw["datatype"])
    try:
        known = np.dtype(nib.nifti1.data_type_codes.dtype[code])
        dtype: np.dtype[Any] = known.newbyteorder(raw.dtype["sizeof_hdr"].byteorder)
    except KeyError:
        dtype = np.dtype(np.void)
    if dtype.kind not in _KINDS or dtype.itemsize > _MAX_ITEM_BYTES:
        label = nib.nifti1.data_type_codes.label.get(code, "unknown") if dtype.kind != "V" else code
        raise VolumeError(path, "unsupported-type", f"voxel type {label} (code {code})",
                          "convert it to integers or real numbers")  # fmt: skip
    return dtype


def _scaling(path: Path, raw: Any) -> tuple[float, float]:
    slope, intercept = float(raw["scl_slope"]), float(raw["scl_inter"])
    if slope == 0 or math.isnan(slope):  # the standard's way to say "not scaled"
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        cause = f"scl_slope {slope}, scl_inter {intercept}"
        raise VolumeError(path, "bad-scaling", cause, WRITE_AGAIN)
    return slope, intercept


def _affine(path: Path, raw: Any, warnings: list[str]) -> NDArray[np.float64]:
    """Return the affine in mm: sform if coded, else qform, else the spacing alone (method 1)."""
    units = _UNITS_TO_MM.get(int(raw["xyzt_units"]) & 7, 1.0)
    if units != 1.0:
        warnings.append(f"units: lengths are given in units of {units:g} mm")
    spacing = np.abs(np.asarray(raw["pixdim"][1:4], dtype=np.float64))
    rows = [raw["srow_x"], raw["srow_y"], raw["srow_z"], [0, 0, 0, 1]]
    sform = np.vstack(rows).astype(np.float64)
    has_sform, has_qform = int(raw["sform_code"]) > 0, int(raw["qform_code"]) > 0
    qform = _qform(raw, spacing) if has_qform else None
    if has_sform:
        affine = sform
        _note_conflicts(sform, qform, spacing, raw, warnings)
    elif qform is not None:
        affine = qform
    else:
        affine = np.diag([*np.where(spacing > 0, spacing, 1.0), 1.0])
        warnings.append("no-orientation: neither sform nor qform is set; axes are taken as RAS")
    if not np.isfinite(affine).all():
        raise VolumeError(path, "bad-geometry", "the affine is not finite", WRITE_AGAIN)
    return np.asarray(np.diag([units, units, units, 1.0]) @ affine, dtype=np.float64)


def _qform(raw: Any, spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    b, c, d = (float(raw[f"quatern_{axis}"]) for axis in "bcd")
    a = math.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    rotation = quat2mat([a, b, c, d])
    flip = -1.0 if float(raw["pixdim"][0]) < 0 else 1.0
    affine = np.eye(4)
    affine[:3, :3] = rotation * (spacing * [1.0, 1.0, flip])
    affine[:3, 3] = [float(raw[f"qoffset_{axis}"]) for axis in "xyz"]
    return affine


def _note_conflicts(
    sform: NDArray[np.float64],
    qform: NDArray[np.float64] | None,
    spacing: NDArray[np.float64],
    raw: Any,
    warnings: list[str],
) -> None:
    stated = np.sqrt((sform[:3, :3] ** 2).sum(axis=0))
    dims = np.maximum(np.asarray(raw["dim"][1:4], dtype=np.float64), 1.0)
    # float32 header fields agree to about 1e-6; a hundredth of a voxel over the volume matters.
    if np.any(np.abs(stated - spacing) * dims > 0.01 * stated):
        warnings.append(
            f"spacing-conflict: pixdim {rounded(spacing)} mm, sform {rounded(stated)} mm; "
            "the sform is used"
        )
    if qform is None or not np.isfinite(qform).all() or not np.isfinite(sform).all():
        return
    i, j, k = (int(n) for n in dims)
    try:
        moved = Grid((i, j, k), sform).displacement(Grid((i, j, k), qform))
    except GeometryError:
        moved = math.inf
    if moved > 0.01:
        warnings.append("form-conflict: sform and qform place the volume differently; "
                        "the sform is used")  # fmt: skip
