"""The volumes of one case, from any readable file to .nii.gz, values and grid kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from medseg.core.errors import GeometryError, VolumeError
from medseg.core.geometry import Grid
from medseg.core.manifest import Case, Manifest
from medseg.io import read_volume, write_label_map, write_volume
from medseg.io.labels import whole_numbers
from medseg.io.write import label_dtype


def write_images(manifest: Manifest, case: Case, targets: Sequence[Path]) -> tuple[Grid, bool]:
    """Write the channels of a case, one file each or one 4-D file for all.

    Values and types stay as they are; a channel on another grid than the first one's is resampled
    onto it, as float32.

    Returns:
        The grid of the first channel, and whether a channel was resampled.

    Raises:
        VolumeError: If a file is refused, or cannot be written.
    """
    count = len(manifest.channel_names)
    per_file = count if len(case.images) == 1 else 1
    files = [read_volume(manifest.file(name), channels=per_file) for name in case.images]
    grid = files[0].grid
    same = [file.grid.is_same(grid) for file in files]
    if per_file > 1:
        channels = [files[0].array[..., index] for index in range(count)]
    elif all(same):
        channels = [file.array for file in files]
    else:
        from medseg.data.resample import on_grid  # torch, which is needed only here

        channels = [on_grid(file, grid) for file in files]
    if len(targets) < count:
        channels = [np.stack(channels, axis=-1)]
    for target, channel in zip(targets, channels, strict=True):
        write_volume(target, channel, grid, like=manifest.file(case.images[0]))
    return grid, not all(same)


def write_label(source: Path, target: Path, grid: Grid, values: Mapping[int, int]) -> None:
    """Write a label map on its image's grid, with its values exchanged.

    Args:
        source: The label file.
        target: Where to write it.
        grid: The image's grid; nnU-Net refuses labels whose spacing is not the very same.
        values: The value to write for each value that may occur.

    Raises:
        VolumeError: If the file is refused, or holds other values.
        GeometryError: If it lies on another grid than the image.
    """
    volume = read_volume(source, channels=1, non_finite="error")
    if not volume.grid.is_same(grid):
        raise GeometryError(
            f"{source}: label grid differs from image grid: {volume.grid.difference(grid)}. "
            "Resample the label, fix its header, or name the channel it was drawn on first."
        )
    whole = whole_numbers(source, volume.array)
    there = [int(value) for value in np.unique(whole)]
    if unknown := [value for value in there if value not in values]:
        raise VolumeError(source, "unknown-label",
                          f"values {unknown[:5]} are not in the label table",
                          "add them to `labels`, or correct the file")  # fmt: skip
    kept = all(old == new for old, new in values.items()) and volume.array.dtype.kind in "iu"
    dtype = volume.array.dtype if kept else label_dtype(max(values.values()))
    stored = np.zeros(whole.shape, dtype=dtype)
    for value in there:
        stored[whole == value] = values[value]
    write_label_map(target, stored, grid, dtype, like=source)
