"""What is looked at in the images of one case."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from medseg.check.findings import Finding, Severity
from medseg.check.opened import OpenedCase
from medseg.core.geometry import Grid, rounded

NEARLY_ALL = 0.999
"""Share of the voxels with one value from which an image shows nothing."""

SPACING_MM = (0.005, 25.0)
"""Of human volumes: micro-CT of extracted teeth reaches 0.005, planning scouts stay under 25."""

EXTENT_MM = (2.0, 2600.0)
"""Of a whole volume along an axis of more than one voxel; the tallest table moves 2.6 m."""

_SOME = 100_000


def reader_warnings(case: OpenedCase) -> Iterator[Finding]:
    """Tell what the reader had to resolve, such as a header that contradicts itself."""
    volumes = [*case.images.items()]
    if case.label is not None and case.job.label is not None:
        volumes.append((case.job.label, case.label))
    for path, volume in volumes:
        for warning in volume.warnings:
            code, _, words = warning.partition(": ")
            yield Finding("warning", code, case.job.case_id, f"{path}: {words}", (str(path),))


def constant_images(case: OpenedCase) -> Iterator[Finding]:
    """Find channels that have one value everywhere; an error if there is no other channel."""
    channels = {(path, number): values for path, number, _, values in case.channels()}
    constant = {key for key, values in channels.items() if values.min() == values.max()}
    severity: Severity = "error" if len(constant) == len(channels) else "warning"
    for (path, number), values in channels.items():
        if (path, number) in constant:
            words = f"{path}: every voxel of channel {number} is {values.flat[0]}"
            yield case.found(severity, "constant-image", words, path)
            continue
        usual = np.median(values.ravel()[:: max(values.size // _SOME, 1)])
        share = float((values == usual).mean())
        if share > NEARLY_ALL:
            words = f"{path}: {share:.3%} of the voxels of channel {number} are {usual:g}"
            yield case.found("warning", "nearly-constant-image", words, path)


def images_of_labels(case: OpenedCase) -> Iterator[Finding]:
    """Find images that hold label values alone, or the very label of the case."""
    known = [*case.job.label_values, case.job.ignore_value or 0]
    for path, number, _, values in case.channels():
        if values.min() == values.max() or not np.isin(values.flat[:_SOME], known).all():
            continue
        if np.isin(values, known).all():
            words = f"{path}: channel {number} holds only the label values {known}"
            if case.label is not None and np.array_equal(case.label.array, values):
                words += " and equals the label of the case"
            yield case.found("error", "image-is-label", words, path)


def equal_channels(case: OpenedCase) -> Iterator[Finding]:
    """Find two channels with the same content."""
    for (path, number, _, values), (other, twin, _, same) in itertools.combinations(
        case.channels(), 2
    ):
        if np.array_equal(values, same):
            words = f"channel {number} of {path} equals channel {twin} of {other}"
            yield case.found("warning", "equal-channels", words, path, other)


def channel_grids(case: OpenedCase) -> Iterator[Finding]:
    """Tell which channels will be resampled onto the first one's grid."""
    first = case.first_image
    for path, volume in case.images.items():
        if first is not None and not volume.grid.is_same(first.grid):
            difference = volume.grid.difference(first.grid)
            words = f"{path}: will be resampled onto the first channel's grid: {difference}"
            yield case.found("info", "channel-grids-differ", words, path)


def plausible_sizes(case: OpenedCase) -> Iterator[Finding]:
    """Find voxels and volumes of impossible size, as when mm were taken for m."""
    for path, volume in case.images.items():
        if wrong := _size_problem(volume.grid):
            yield case.found("warning", "implausible-spacing", f"{path}: {wrong}", path)


def _size_problem(grid: Grid) -> str:
    if min(grid.spacing) < SPACING_MM[0] or max(grid.spacing) > SPACING_MM[1]:
        return f"spacing {rounded(grid.spacing)} mm"
    extents = [n * size for n, size in zip(grid.shape, grid.spacing, strict=True) if n > 1]
    if extents and (min(extents) < EXTENT_MM[0] or max(extents) > EXTENT_MM[1]):
        return f"the volume extends over {rounded(extents)} mm"
    return ""
