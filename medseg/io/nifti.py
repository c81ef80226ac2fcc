"""NIfTI-1 and NIfTI-2: what a header claims, checked before any voxel is read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.quaternions import quat2mat
from numpy.typing import NDArray

from medseg.core.errors import GeometryError, VolumeError
from medseg.core.geometry import SAME_GRID, Grid, rounded
from medseg.io.layout import WRITE_AGAIN, Layout, Part, check_type, grid_of

NIFTI1_BYTES, NIFTI2_BYTES = 348, 540
_MAGIC1, _MAGIC2 = (b"n+1\0", b"ni1\0"), (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")
_LONG_QUATERNION = 1e-4  # float32 rounding makes a unit quaternion longer by 1e-7 at most
_UNITS_TO_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unknown is taken for mm, as everyone does


def is_nifti(head: bytes) -> bool:
    """Return whether a file's first bytes are the length of a NIfTI header, in either order."""
    sizes = {int.from_bytes(head[:4], order) for order in ("little", "big")}
    return bool(sizes & {NIFTI1_BYTES, NIFTI2_BYTES})


def parse_nifti(path: Path, head: bytes) -> Layout:
    """Check the first bytes of a NIfTI-1 or NIfTI-2 file.

    Raises:
        VolumeError: `not-a-volume`, `truncated`, `bad-header`, `bad-dimensions`,
            `unsupported-type`, `bad-scaling`, `bad-geometry` or `incomplete-pair`.
    """
    raw = raw_header(path, head)
    shape = _shape(path, raw)
    slope, intercept = _scaling(path, raw)
    dtype = _dtype(path, raw)
    warnings: list[str] = []
    grid = grid_of(path, shape, _affine(path, raw, shape, warnings))
    is_pair = bytes(raw["magic"].tobytes())[:3] in (b"ni1", b"ni2")
    offset = float(raw["vox_offset"])
    minimum = 0 if is_pair else int(raw["sizeof_hdr"])
    if not (math.isfinite(offset) and offset >= minimum and offset == int(offset)):
        raise VolumeError(path, "bad-header", f"the voxels begin at byte {offset}", WRITE_AGAIN)
    bits = int(raw["bitpix"])
    if bits not in (0, 8 * dtype.itemsize):
        warnings.append(f"bitpix: {bits} bits are told of {dtype.name} values; the type counts")
    layout = Layout(path, shape, dtype, grid, (Part(path, packing="auto", skip=int(offset)),),
                    tuple(warnings), slope=slope, intercept=intercept)  # fmt: skip
    return _with_image(layout, int(offset)) if is_pair else layout


def _with_image(layout: Layout, skip: int) -> Layout:
    """Return the layout of a pair with its voxels in the .img file."""
    image, rivals = _image_of(layout.path)
    warnings = list(layout.warnings)
    if rivals:
        names = ", ".join(path.name for path in rivals)
        warnings.append(f"two-images: {image.name} is read; there is {names} too")
    # Raw voxels may begin as gzip does; they are as long as the header says.
    whole = not image.name.lower().endswith(".gz") and os.path.getsize(image) >= (  # noqa: PTH202
        skip + layout.data_bytes
    )
    part = Part(image, packing="raw" if whole else "auto", skip=skip)
    return replace(layout, parts=(part,), warnings=tuple(warnings))


def header_of(image: Path) -> Path | None:
    """Return the .hdr beside an .img file."""
    stem = image.name.removesuffix(".gz").removesuffix(".GZ")
    if not stem.lower().endswith(".img"):
        return None
    return next(iter(_beside(image, stem[: -len(".img")], (".hdr", ".HDR"))), None)


def _image_of(header: Path) -> tuple[Path, list[Path]]:
    """Return the .img of a header, compressed if the header is, and others that could be it."""
    stem = header.name.removesuffix(".gz").removesuffix(".GZ")
    stem = stem[: -len(".hdr")] if stem.lower().endswith(".hdr") else stem
    images = _beside(header, stem, (".img", ".IMG"))
    if not images:
        raise VolumeError(header, "incomplete-pair", "the .img file is absent",
                          "put it beside the .hdr")  # fmt: skip
    return images[0], images[1:]


def _beside(path: Path, stem: str, endings: tuple[str, ...]) -> list[Path]:
    """Return the partners that are there, those compressed as `path` is first."""
    names = [stem + ending + packed for packed in ("", ".gz", ".GZ") for ending in endings]
    is_packed = path.name.lower().endswith(".gz")
    names.sort(key=lambda name: name.lower().endswith(".gz") != is_packed)
    return [path.with_name(name) for name in names if os.path.isfile(path.with_name(name))]  # noqa: PTH113


def raw_header(path: Path, head: bytes) -> Any:
    """Return the fields of a header, in its own byte order.

    Raises:
        VolumeError: `not-a-volume` or `truncated`.
    """
    sizes = {int.from_bytes(head[:4], order) for order in ("little", "big")}
    for length, magics, kind in (
        (NIFTI1_BYTES, _MAGIC1, nib.Nifti1Header),
        (NIFTI2_BYTES, _MAGIC2, nib.Nifti2Header),
    ):
        if length not in sizes:
            continue
        if len(head) < length:
            raise VolumeError(path, "truncated", "the header is incomplete", "fetch it again")
        header = kind(head[:length], check=False)
        magic = head[344:348] if length == NIFTI1_BYTES else head[4:12]
        if magic in magics:
            return header.structarr
    cause = "an ANALYZE 7.5 header, which tells no orientation, or a damaged NIfTI one"
    raise VolumeError(path, "not-a-volume", cause, "convert it to NIfTI, or leave it out")


def _shape(path: Path, raw: Any) -> tuple[int, ...]:
    dims = [int(n) for n in raw["dim"]]
    count, sizes = dims[0], dims[1 : dims[0] + 1]
    if not 1 <= count <= 7 or min(sizes) < 1:
        raise VolumeError(path, "bad-dimensions", f"dim is {dims}", WRITE_AGAIN)
    return tuple(sizes)


def _dtype(path: Path, raw: Any) -> np.dtype[Any]:
    code = int(raw["datatype"])
    label = f"{nib.nifti1.data_type_codes.label.get(code, 'unknown')} (code {code})"
    known = np.dtype(nib.nifti1.data_type_codes.dtype.get(code, np.void))
    return check_type(path, known.newbyteorder(raw.dtype["sizeof_hdr"].byteorder), label)


def _scaling(path: Path, raw: Any) -> tuple[float, float]:
    slope, intercept = float(raw["scl_slope"]), float(raw["scl_inter"])
    if slope == 0 or math.isnan(slope):  # the standard's way to say "not scaled"
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        cause = f"scl_slope {slope}, scl_inter {intercept}"
        raise VolumeError(path, "bad-scaling", cause, WRITE_AGAIN)
    return slope, intercept


def _affine(
    path: Path, raw: Any, shape: tuple[int, ...], warnings: list[str]
) -> NDArray[np.float64]:
    """Return the affine in mm: sform if coded, else qform, else the spacing alone (method 1)."""
    units = _UNITS_TO_MM.get(int(raw["xyzt_units"]) & 7, 1.0)
    if units != 1.0:
        warnings.append(f"units: lengths are given in units of {units:g} mm")
    flat = np.arange(3) >= len(shape)  # axes that a 1-D or 2-D image lacks
    spacing = np.abs(np.asarray(raw["pixdim"][1:4], dtype=np.float64))
    spacing = np.where(flat & ~(spacing > 0), 1.0, spacing)
    sform = _sform(raw, flat) if int(raw["sform_code"]) > 0 else None
    qform = _qform(raw, spacing) if int(raw["qform_code"]) > 0 else None
    if sform is not None and qform is not None and not sform[:3].any():
        sform = None
        warnings.append("form-conflict: the sform is coded but zero; the qform is used")
    affine = sform if sform is not None else qform
    if affine is None:
        affine = np.diag([*spacing, 1.0])
        warnings.append("no-orientation: neither sform nor qform is set; axes are taken as RAS")
    elif sform is not None:
        used = grid_of(path, shape, sform)
        shown = np.where(flat, used.spacing, spacing)
        warnings += _conflicts(used, qform, shown, _quaternion_noise(raw))
    return np.asarray(np.diag([units, units, units, 1.0]) @ affine, dtype=np.float64)


def _sform(raw: Any, flat: NDArray[np.bool_]) -> NDArray[np.float64]:
    rows = [raw["srow_x"], raw["srow_y"], raw["srow_z"], [0, 0, 0, 1]]
    affine = np.vstack(rows).astype(np.float64)
    if flat[2] and not flat[1] and not affine[:3, 2].any():  # a plane has a normal all the same
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / max(float(np.linalg.norm(normal)), np.finfo(np.float64).tiny)
    return affine


def _qform(raw: Any, spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    b, c, d = (float(raw[f"quatern_{axis}"]) for axis in "bcd")
    rest = 1.0 - (b * b + c * c + d * d)
    affine = np.eye(4)
    if not rest > -_LONG_QUATERNION:  # no rotation at all; NaN included
        return affine * np.nan
    flip = -1.0 if float(raw["pixdim"][0]) < 0 else 1.0
    rotation = quat2mat([math.sqrt(rest) if rest > _rounding(raw) else 0.0, b, c, d])
    affine[:3, :3] = rotation * (spacing * [1.0, 1.0, flip])
    affine[:3, 3] = [float(raw[f"qoffset_{axis}"]) for axis in "xyz"]
    return affine


def _quaternion_noise(raw: Any) -> float:
    """Return the angle that rounding leaves open, radians.

    The fourth component is what the stored three leave of a unit length; near half a turn it is
    the root of a difference of rounded numbers.
    """
    rest = 1.0 - sum(float(raw[f"quatern_{axis}"]) ** 2 for axis in "bcd")
    rounding = _rounding(raw)
    return 2.0 * rounding / math.sqrt(max(rest, rounding))


def _rounding(raw: Any) -> float:
    """Return what rounding does to the length of a quaternion; nibabel's threshold."""
    return 3.0 * float(np.finfo(raw["quatern_b"].dtype).eps)


def _conflicts(
    used: Grid,
    qform: NDArray[np.float64] | None,
    spacing: NDArray[np.float64],
    noise: float,
) -> Iterator[str]:
    """Tell where qform and pixdim contradict the sform, which is used.

    Args:
        used: The grid by the sform.
        qform: The affine by the qform, if coded.
        spacing: pixdim.
        noise: Angle that the qform leaves open, radians.
    """
    stated = np.asarray(used.spacing)
    # float32 header fields agree to about 1e-6; a hundredth of a voxel over the volume matters.
    if not np.all(np.abs(stated - spacing) * used.shape <= SAME_GRID * stated):
        yield (
            f"spacing-conflict: pixdim {rounded(spacing)} mm, sform {rounded(stated)} mm; "
            "the sform is used"
        )
    if qform is None:
        return
    try:
        moved = used.displacement(Grid(used.shape, qform))
    except GeometryError:
        moved = math.inf
    if not moved <= SAME_GRID + noise * used.diagonal_mm / min(used.spacing):
        yield "form-conflict: sform and qform place the volume differently; the sform is used"
