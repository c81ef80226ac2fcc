"""What is remembered of a case for the comparison with all others: small, and picklable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.check.content import (
    canonical,
    coarse_picture,
    content_hash,
    foreground_box,
    profile_hash,
    values_hash,
)
from medseg.check.opened import CaseJob, OpenedCase
from medseg.check.pairing import Fit, measure_fit
from medseg.core.geometry import Grid
from medseg.core.manifest import Manifest
from medseg.io import Volume

PERCENTILES = (1.0, 50.0, 99.0)
MOST_VALUES = 1_000_000
"""From which the percentiles are read."""


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """One channel of an image.

    Attributes:
        file: Its file.
        channel: Which of the channels of the data set it is.
        grid: Where its voxels lie.
        low: 1st percentile.
        median: 50th percentile.
        high: 99th percentile.
        largest_share: Share of the voxels that have the largest value.
        roughness: Mean step between neighbours, as a share of `high - low`.
        content: Hash in RAS order, whatever the stored type and orientation.
        values: Hash of the values in any order.
        coarse: Block means, mean 0 and norm 1.
    """

    file: Path
    channel: int
    grid: Grid
    low: float
    median: float
    high: float
    largest_share: float
    roughness: float
    content: str
    values: str
    coarse: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LabelFacts:
    """One label.

    Attributes:
        file: Its file.
        grid: Where its voxels lie.
        voxels: Number of voxels of each class value.
        pieces: Sizes of the connected pieces (26 neighbours) of each class, the largest first.
        gaps: Of each class: how far its pieces but the largest lie from that, voxels; the most.
        content: Hash of the box around the foreground, in RAS order; "" without foreground.
        profile: Hash of the same that is equal for turned and mirrored copies.
    """

    file: Path
    grid: Grid
    voxels: Mapping[int, int]
    pieces: Mapping[int, tuple[int, ...]]
    gaps: Mapping[int, float]
    content: str
    profile: str


@dataclass(frozen=True, eq=False)
class CaseFacts:
    """One case, or one unlisted file.

    Attributes:
        job: Its names and files.
        images: Every channel that could be read.
        label: The label, if it could be read and holds labels.
        fit: How well the label fits the image, where both lie on one grid.
    """

    job: CaseJob
    images: tuple[ImageFacts, ...]
    label: LabelFacts | None
    fit: Fit | None


@dataclass(frozen=True, eq=False)
class SetFacts:
    """All cases that were checked.

    Attributes:
        manifest: The data set.
        cases: Facts of each, unlisted files last.
    """

    manifest: Manifest
    cases: tuple[CaseFacts, ...]

    @property
    def labelled(self) -> list[tuple[CaseFacts, LabelFacts]]:
        """The listed cases with a label that could be read."""
        return [
            (case, case.label)
            for case in self.cases
            if case.label is not None and case.job.part != "unlisted"
        ]

    @property
    def images(self) -> list[tuple[CaseFacts, ImageFacts]]:
        """Every image channel with its case."""
        return [(case, image) for case in self.cases for image in case.images]


def measure(case: OpenedCase) -> CaseFacts:
    """Return the facts of a case."""
    images = tuple(
        _image_facts(path, case.job.images.index(path) + number, volume, values)
        for path, number, volume, values in case.channels()
    )
    labels = clean_labels(case)
    if labels is None or case.label is None or case.job.label is None:
        return CaseFacts(case.job, images, None, None)
    label = _label_facts(case.job.label, case.label.grid, labels)
    first, fit = case.first_image, None
    if first is not None and first.grid.shape == labels.shape:
        values = first.array[..., 0] if first.array.ndim > 3 else first.array
        fit = measure_fit(canonical(values, first.grid), canonical(labels, first.grid))
    return CaseFacts(case.job, images, label, fit)


def clean_labels(case: OpenedCase) -> NDArray[Any] | None:
    """Return the label with all that is no class as background; None if it holds no labels."""
    if case.label is None:
        return None
    whole = np.rint(case.label.array)
    known = np.isin(whole, case.job.label_values[1:])
    if not known.any() and np.unique(whole).size > len(case.job.label_values):
        return None
    return np.where(known, whole, 0).astype(np.int32)


def _image_facts(path: Path, number: int, volume: Volume, values: NDArray[Any]) -> ImageFacts:
    some = values.ravel()[:: max(values.size // MOST_VALUES, 1)].astype(np.float64)
    low, median, high = (float(value) for value in np.percentile(some, PERCENTILES))
    steps = np.abs(np.diff(values.astype(np.float32), axis=0))
    step = float(steps.mean()) if steps.size else 0.0
    ras = canonical(values, volume.grid)
    return ImageFacts(
        file=path,
        channel=number,
        grid=volume.grid,
        low=low,
        median=median,
        high=high,
        largest_share=float((values == values.max()).mean()),
        roughness=step / (high - low) if high > low else 0.0,
        content=content_hash(ras),
        values=values_hash(ras),
        coarse=coarse_picture(ras),
    )


def _label_facts(path: Path, grid: Grid, labels: NDArray[Any]) -> LabelFacts:
    classes = [int(value) for value in np.unique(labels) if value]
    voxels, pieces, gaps = {}, {}, {}
    content = profile = ""
    if classes:
        inside = canonical(labels, grid)
        inside = inside[foreground_box(inside > 0)]
        content, profile = content_hash(inside), profile_hash(inside)
        for value in classes:
            voxels[value] = int(np.count_nonzero(inside == value))
            pieces[value], gaps[value] = _pieces(inside == value)
    return LabelFacts(path, grid, voxels, pieces, gaps, content, profile)


def _pieces(mask: NDArray[np.bool_]) -> tuple[tuple[int, ...], float]:
    """Return the sizes of the pieces, the largest first, and the widest gap to the largest."""
    numbered, number = ndimage.label(mask, np.ones((3, 3, 3)))
    if number < 2:
        return (int(np.count_nonzero(mask)),), 0.0
    sizes = np.bincount(numbered.ravel())[1:]
    largest = int(sizes.argmax()) + 1
    distance = ndimage.distance_transform_edt(numbered != largest)
    nearest = ndimage.minimum(distance, numbered, [n for n in range(1, number + 1) if n != largest])
    return tuple(sorted(map(int, sizes), reverse=True)), float(np.max(nearest))
