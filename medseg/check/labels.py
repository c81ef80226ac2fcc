"""What is looked at in the label of one case."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.check.findings import Finding
from medseg.check.opened import OpenedCase
from medseg.core.geometry import Grid
from medseg.io.labels import LABEL_ROUNDING

FULL = 0.95
"""Share of foreground from which a label may be inverted."""

OUTSIDE = 0.01
"""Share of the foreground that may lie outside of the image's box by rounding."""


def label_grid(case: OpenedCase) -> Iterator[Finding]:
    """Find a label that does not lie on its image."""
    image, label = case.first_image, case.label
    if label is None or image is None:
        return
    agreement = label.grid.agreement(image.grid)
    if agreement == "same":
        return
    difference = label.grid.difference(image.grid)
    words = f"{case.job.label}: label grid differs from image grid: {difference}"
    code = "label-grid-close" if agreement == "close" else "label-grid-differs"
    files = (case.job.label, case.job.images[0])
    yield case.found("error", code, words, *files)
    outside = share_outside(label.array > 0, label.grid, image.grid)
    if agreement == "different" and outside > OUTSIDE:
        words = f"{case.job.label}: {outside:.0%} of the foreground lies outside the image's box"
        yield case.found("error", "label-outside-image", words, *files)


def share_outside(foreground: NDArray[np.bool_], grid: Grid, image: Grid) -> float:
    """Return the share of foreground voxels whose centres lie outside an image's box."""
    places = np.argwhere(foreground)[:: max(np.count_nonzero(foreground) // 100_000, 1)]
    if not len(places):
        return 0.0
    world = places @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    index = (world - image.affine[:3, 3]) @ np.linalg.inv(image.affine[:3, :3]).T
    inside = ((index > -0.5) & (index < np.asarray(image.shape) - 0.5)).all(axis=1)
    return float(1 - inside.mean())


def label_values(case: OpenedCase) -> Iterator[Finding]:
    """Find label values that are no whole numbers or not in the table, and empty labels."""
    if case.label is None:
        return
    job, array = case.job, case.label.array
    whole = np.rint(array)
    noise = float(np.abs(whole - array).max()) if array.dtype.kind == "f" else 0.0
    if noise > LABEL_ROUNDING:
        words = f"{job.label}: values are not whole numbers{_like_an_image(array)}"
        yield case.found("error", "not-a-label", words, job.label)
        return
    if noise > 0:
        words = f"{job.label}: values differ from whole numbers by up to {noise:.2g}"
        yield case.found("warning", "label-rounding", words, job.label)
    foreground = np.isin(whole, job.label_values[1:])
    rest = np.unique(whole[~foreground])
    unknown = [int(value) for value in rest if value not in (job.label_values[0], job.ignore_value)]
    if unknown:
        words = (
            f"{job.label}: values {unknown[:5]} are not in the label table{_like_an_image(array)}"
        )
        yield case.found("error", "unknown-label", words, job.label)
    share = float(foreground.mean())
    if share == 0:
        yield case.found("warning", "empty-label", f"{job.label}: no voxel of any class", job.label)
    elif share > FULL:
        words = f"{job.label}: {share:.1%} of the voxels are foreground"
        yield case.found("warning", "full-label", words, job.label)


def _like_an_image(array: NDArray[Any]) -> str:
    """Say so if there are more values than any label table has."""
    number = np.unique(array).size
    return f" ({number} different values: this is an image)" if number > 255 else ""
