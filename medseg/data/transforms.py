"""From files to network input, and MONAI's transforms on patches: the only file that names them.

The order of the axes is the array's own until `canonical`; from there on it is the target
orientation, at the target spacing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nibabel import orientations
from numpy.typing import NDArray
from torch import Tensor

from medseg.core.errors import GeometryError, OptionError, VolumeError
from medseg.core.geometry import Grid
from medseg.data.resample import coverage, resample
from medseg.io import read_volume
from medseg.io.labels import whole_numbers
from medseg.io.read import Conflicts

IGNORE_INDEX = 255
"""Class index of voxels that take part in neither loss nor metrics."""

OUTLIER_PERCENTILES = (0.5, 99.5)
"""Per-image z-scoring clips beyond these; nnU-Net's percentiles for CT."""


Transforms = Any
"""MONAI's Compose; MONAI itself is imported only where it is used, since that takes seconds."""

_AXES = ("LR", "PA", "IS")


@dataclass(frozen=True)
class Preprocessing:
    """How files become network input; stored with the weights.

    Attributes:
        spacing: Target spacing, mm along the axes of `orientation`; None keeps each image's own.
        orientation: Anatomical directions of the axes.
        intensity: One entry for all channels or one per channel: `zscore` (MR: mean 0 and standard
            deviation 1 over the image's own nonzero voxels, outliers clipped), or a window
            [lower, upper] (CT in HU, PET in SUV) brought to [-1, 1].
    """

    spacing: list[float] | None = None
    orientation: str = "RAS"
    intensity: list[str | list[float]] = field(default_factory=lambda: ["zscore"])

    def __post_init__(self) -> None:
        if self.spacing is not None and (len(self.spacing) != 3 or min(self.spacing) <= 0):
            raise OptionError(f"spacing must be three lengths in mm; got {self.spacing}.")
        axes = {next((p for p in _AXES if c in p), c) for c in self.orientation}
        if len(self.orientation) != 3 or axes != set(_AXES):
            raise OptionError(
                "orientation must name one of L/R, P/A and I/S each, such as 'RAS'; "
                f"got {self.orientation!r}."
            )
        for entry in self.intensity:
            window = isinstance(entry, list | tuple) and len(entry) == 2 and entry[0] < entry[1]
            if entry != "zscore" and not window:
                raise OptionError(
                    f"intensity must be 'zscore' or a window [lower, upper]; got {entry!r}."
                )


@dataclass(frozen=True)
class Reading:
    """What the reader is told about image files; see `medseg.io.read_volume`.

    Attributes:
        on_conflict: What a header that contradicts itself does: a warning, or an error.
        series_uid: The DICOM series to read where a folder holds several; files need none.
    """

    on_conflict: Conflicts = "warn"
    series_uid: str | None = None


@dataclass(frozen=True)
class Prepared:
    """A case as the network sees it.

    Attributes:
        image: Shape (C, I, J, K), float32.
        label: Class indices, shape (I, J, K), uint8, or None.
        grid: Where the voxels lie.
        original: The grid of the (first) image file.
        warnings: What the readers had to resolve.
    """

    image: NDArray[np.float32]
    label: NDArray[np.uint8] | None
    grid: Grid
    original: Grid
    warnings: tuple[str, ...]


def prepare_case(
    images: Sequence[Path],
    label: Path | None,
    channels: int,
    label_values: Sequence[int],
    preprocessing: Preprocessing,
    ignore_value: int | None = None,
    reading: Reading | None = None,
) -> Prepared:
    """Read one case and bring it to the network's orientation, spacing and intensities.

    Args:
        images: One file per channel, or one file that holds all.
        label: Label file, or None.
        channels: Image channels.
        label_values: Value of each class in the label file.
        preprocessing: How.
        ignore_value: Value of voxels to be left out of loss and metrics.
        reading: What the reader is told about the image files.

    Raises:
        VolumeError: If a file is refused, or the label holds an unknown value.
        GeometryError: If label and image lie on different grids.
    """
    values, original, warnings = read_channels(images, channels, reading or Reading())
    grid = canonical_grid(original, preprocessing)
    values = resample(values, original, grid)  # the same name: the volume as read is freed
    scale_intensity(values, preprocessing.intensity)
    target = None
    if label is not None:
        classes = read_label(label, original, label_values, ignore_value)
        placed = resample(classes[None].float(), original, grid, "nearest")
        target = placed[0].to(torch.uint8).numpy()
    return Prepared(values.numpy(), target, grid, original, warnings)


def read_channels(
    paths: Sequence[Path], channels: int, reading: Reading
) -> tuple[Tensor, Grid, tuple[str, ...]]:
    """Read the image of one case; channels on other grids are brought onto the first one's.

    Returns:
        The image, shape (C, I, J, K), float32; its grid; the readers' warnings.
    """
    per_file = channels_per_file(paths, channels)
    volumes = [
        read_volume(
            path,
            on_conflict=reading.on_conflict,
            channels=per_file,
            non_finite="zero",
            series_uid=reading.series_uid,
        )
        for path in paths
    ]
    first = volumes[0].grid
    image = np.empty((channels, *first.shape), dtype=np.float32)
    for index, volume in enumerate(volumes):
        array = volume.array[None] if per_file == 1 else np.moveaxis(volume.array, -1, 0)
        there = image[index : index + 1] if per_file == 1 else image
        if volume.grid.is_same(first):
            np.copyto(there, array, casting="same_kind" if array.dtype.kind == "f" else "unsafe")
        else:
            values = torch.from_numpy(array.astype(np.float32))
            there[:] = resample(values, volume.grid, first).numpy()
    notes = tuple(
        f"{path.name}: {text}"
        for path, volume in zip(paths, volumes, strict=True)
        for text in (*volume.warnings, *_moved(path, volume.grid, first))
    )
    return torch.from_numpy(image), first, notes


def channels_per_file(paths: Sequence[Path], channels: int) -> int:
    """Return how many channels each file of an image must hold.

    Raises:
        GeometryError: If there are neither one file nor as many as channels.
    """
    if len(paths) not in (1, channels):
        raise GeometryError(f"{len(paths)} files for {channels} channels: {paths[0]}, …")
    return channels if len(paths) == 1 else 1


def _moved(path: Path, grid: Grid, first: Grid) -> Iterator[str]:
    """Tell that a channel is brought onto the first one's grid.

    Raises:
        GeometryError: If the two have no place in common.
    """
    if grid.is_same(first):
        return
    covered = coverage(grid, first)
    if not covered:
        raise GeometryError(
            f"{path}: this channel and the first one have no place in common. "
            "Check whether they belong together."
        )
    yield f"channel-grid: resampled onto the first channel's grid, of which it covers {covered:.0%}"


def read_label(
    path: Path, grid: Grid, label_values: Sequence[int], ignore_value: int | None = None
) -> Tensor:
    """Read a label file as class indices, shape `grid.shape`, uint8.

    Raises:
        VolumeError: If it holds values that are not whole, or not in the label table.
        GeometryError: If it lies on another grid than its image.
    """
    volume = read_volume(path, channels=1, non_finite="error")
    if not volume.grid.is_same(grid):
        raise GeometryError(
            f"{path}: label grid differs from image grid: {volume.grid.difference(grid)}. "
            "Resample the label, or fix its header."
        )
    whole = whole_numbers(path, volume.array)
    classes = np.full(whole.shape, IGNORE_INDEX, dtype=np.uint8)
    known = np.zeros(whole.shape, dtype=bool)
    for index, value in enumerate(label_values):
        here = whole == value
        classes[here] = index
        known |= here
    if ignore_value is not None:
        known |= whole == ignore_value
    if not known.all():
        values = sorted({int(value) for value in whole[~known]})[:5]
        raise VolumeError(path, "unknown-label", f"values {values} are not in the label table",
                          "add them to `labels`, or correct the file")  # fmt: skip
    return torch.from_numpy(classes)


def canonical_grid(grid: Grid, preprocessing: Preprocessing) -> Grid:
    """Return the grid of the target orientation and spacing that covers `grid`.

    The result is that of MONAI's `Orientation` and `Spacing` (a test compares them), found without
    importing MONAI, which takes seconds, and without moving values.
    """
    turned = _turned(grid, preprocessing.orientation)
    spacing = preprocessing.spacing
    if spacing is None or np.allclose(turned.spacing, spacing, rtol=1e-3):
        return turned
    # The axes without scale and shear; a gantry tilt is taken out by resampling.
    matrix = turned.affine[:3, :3]
    rotation = matrix @ np.linalg.inv(np.linalg.cholesky(matrix.T @ matrix).T)
    affine = turned.affine.copy()
    affine[:3, :3] = rotation * spacing
    corners = np.linalg.solve(affine[:3, :3], (turned.corners - turned.affine[:3, 3]).T)
    low, high = corners.min(axis=1), corners.max(axis=1)
    i, j, k = np.rint(high - low + 1).astype(int)
    affine[:3, 3] += affine[:3, :3] @ low
    return Grid((i, j, k), affine)


def _turned(grid: Grid, orientation: str) -> Grid:
    """Return the grid with its axes swapped and flipped towards an orientation."""
    now = orientations.io_orientation(grid.affine)
    moves = orientations.ornt_transform(now, orientations.axcodes2ornt(orientation))
    i, j, k = (grid.shape[int(np.flatnonzero(moves[:, 0] == axis)[0])] for axis in range(3))
    return Grid((i, j, k), grid.affine @ orientations.inv_ornt_aff(moves, grid.shape))


def scale_intensity(image: Tensor, intensity: Sequence[str | list[float]]) -> None:
    """Scale each channel of an image, shape (C, I, J, K), in place.

    Args:
        image: float32.
        intensity: As in `Preprocessing`.

    Raises:
        OptionError: If the entries are not one, nor one per channel.
    """
    entries = list(intensity) * (image.shape[0] if len(intensity) == 1 else 1)
    if len(entries) != image.shape[0]:
        raise OptionError(
            f"intensity has {len(entries)} entries for {image.shape[0]} channels; "
            "give one for all, or one each."
        )
    for channel, entry in zip(image, entries, strict=True):
        if isinstance(entry, str):
            _zscore(channel)
        else:
            _window(channel, entry)


def _zscore(channel: Tensor) -> None:
    """Scale in place, with one copy of the voxels that are not zero."""
    values = channel.numpy()
    foreground = values[values != 0]  # by NumPy: PyTorch holds 24 bytes of indices for each
    if not foreground.size:
        return
    low, high = np.percentile(foreground, OUTLIER_PERCENTILES, overwrite_input=True)
    np.clip(foreground, low, high, out=foreground)
    mean = float(foreground.mean(dtype=np.float64))
    foreground -= np.float32(mean)
    np.square(foreground, out=foreground)
    spread = float(np.sqrt(foreground.sum(dtype=np.float64) / max(foreground.size - 1, 1)))
    channel.clamp_(min(low, 0.0), high).sub_(mean).mul_(1 / spread if spread > 0 else 0.0)


def _window(channel: Tensor, window: Sequence[float]) -> None:
    """Bring a window to [-1, 1] in place."""
    lower, upper = window
    channel.clamp_(lower, upper).sub_(lower).mul_(2 / (upper - lower)).sub_(1)


def transformed(
    transforms: Transforms, image: Tensor, label: Tensor, seed: int
) -> tuple[Tensor, Tensor]:
    """Apply MONAI's dictionary transforms to one patch; the draws depend on `seed` alone.

    Args:
        transforms: A `monai.transforms.Compose` over the keys image and label.
        image: Shape (C, I, J, K), float32.
        label: Class indices, shape (I, J, K), uint8.
        seed: Of all draws.

    Returns:
        Image and label in the same shapes and types.

    Raises:
        OptionError: If the transforms change the shape, which a patch has to keep.
    """
    transforms.set_random_state(seed=seed)
    with _plain_tensors():
        out = transforms({"image": image, "label": label[None].float()})
    varied, target = out["image"].float(), out["label"][0].round().to(torch.uint8)
    if varied.shape != image.shape or target.shape != label.shape:
        raise OptionError(
            f"data.transforms must keep the shape of a patch: image {tuple(image.shape)} became "
            f"{tuple(varied.shape)}, label {tuple(label.shape)} became {tuple(target.shape)}."
        )
    return varied, target


@contextmanager
def _plain_tensors() -> Iterator[None]:
    """Keep MONAI from tracking metadata nobody reads; it costs more than the smaller transforms."""
    from monai.data.meta_obj import get_track_meta, set_track_meta

    tracked = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(tracked)
