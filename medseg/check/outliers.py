"""Which images are unlike the others: intensities, spacing, size, orientation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medseg.check.facts import CaseFacts, ImageFacts, SetFacts
from medseg.check.findings import Finding, finding
from medseg.core.geometry import Grid, rounded

FEWEST = 5
"""Cases from which the usual spread is known."""

FEW_FACTOR = 2.0
"""Among fewer cases, one is told only if it differs by twice what matters otherwise."""

FAR = 6.0
"""Robust standard deviations (1.4826 MAD) from the median; scanners and sites reach 4 to 5."""

RARE = 0.05
"""Share of the cases that may be outliers in one way; more of them are a kind of their own."""

MAD_TO_SIGMA = 1.4826
"""For a normal distribution (Rousseeuw and Croux 1993)."""

USUAL = 0.8
"""Share of the images that have one orientation, if that is the rule."""

CLIPPED = 0.02
"""Share of the voxels at the largest value; on unclipped volumes a few in a million."""

TINY = 1e-30
"""Instead of 0 where a logarithm is taken."""

_RAS_AXES = ("left-right", "back-front", "foot-head")


def deviations(values: ArrayLike) -> tuple[NDArray[np.float64], float]:
    """Return the distance of each value from the median, and the robust standard deviation."""
    given = np.asarray(values, dtype=np.float64)
    distance = given - np.median(given)
    return distance, MAD_TO_SIGMA * float(np.median(np.abs(distance)))


def outliers(values: ArrayLike, least: float) -> NDArray[np.bool_]:
    """Return which values are far from the others, and by more than `least`.

    None if so many are far that they are a kind of their own. Of few values it is one that is far
    beyond the range of at least two others.
    """
    distance, sigma = deviations(values)
    if len(distance) < FEWEST:
        return _odd_one(np.asarray(values, dtype=np.float64), least)
    far = np.abs(distance) > max(FAR * sigma, least)
    rare = int(far.sum()) <= max(1, RARE * len(far))
    return far if rare else np.zeros_like(far)


def _odd_one(values: NDArray[np.float64], least: float) -> NDArray[np.bool_]:
    odd = np.zeros(len(values), dtype=bool)
    for number, value in enumerate(values):
        others = np.delete(values, number)
        if len(others) >= 2 and np.ptp(others) < least:
            odd[number] = np.abs(others - value).min() > FEW_FACTOR * least
    return odd


def clipped_images(facts: SetFacts) -> Iterator[Finding]:
    """Find images whose bright end is cut off; one finding if the whole set was made so."""
    clipped = [(case, image) for case, image in facts.images if image.largest_share > CLIPPED]
    if len(clipped) >= FEWEST and len(clipped) > len(facts.images) / 2:
        words = (
            f"{len(clipped)} of {len(facts.images)} images have many voxels at the largest value"
        )
        yield finding("warning", "clipped-image", "", words, *_files(clipped))
        return
    for case, image in clipped:
        words = f"{image.file}: {image.largest_share:.1%} of the voxels have the largest value"
        yield finding("warning", "clipped-image", case.job.case_id, words, image.file)


def _spread(image: ImageFacts) -> float:
    return math.log10(max(image.high - image.low, TINY))


def _offset(image: ImageFacts) -> float:
    return image.low / (image.high - image.low) if image.high > image.low else 0.0


def _middle(image: ImageFacts) -> float:
    width = image.high - image.low
    return (image.median - image.low) / width if width > 0 else 0.0


def _roughness(image: ImageFacts) -> float:
    return math.log(max(image.roughness, TINY))


FEATURES: tuple[tuple[str, Callable[[ImageFacts], float], float], ...] = (
    ("the range of its intensities", _spread, math.log10(4.0)),
    ("where its intensities begin, as a share of their range", _offset, 0.3),
    ("where the middle of its intensities lies, as a share of their range", _middle, 0.3),
    ("how rough it is, voxel to voxel", _roughness, math.log(2.5)),
)
"""Name, value, and the least distance from the median that means anything."""


def intensity_outliers(facts: SetFacts) -> Iterator[Finding]:
    """Find images with intensities unlike those of the same channel elsewhere."""
    for channel in sorted({image.channel for _, image in facts.images}):
        listed = [
            (case, image)
            for case, image in facts.images
            if image.channel == channel and image.high > image.low
        ]
        unlike: dict[int, list[str]] = {}
        for name, feature, least in FEATURES:
            far = outliers([feature(image) for _, image in listed], least)
            for place in np.flatnonzero(far):
                unlike.setdefault(int(place), []).append(name)
        for number, names in unlike.items():
            case, image = listed[number]
            words = (
                f"{image.file}: unlike the others in {' and in '.join(names)} "
                f"(1st, 50th, 99th percentile: {rounded([image.low, image.median, image.high])})"
            )
            yield finding("warning", "intensity-outlier", case.job.case_id, words, image.file)


def spacing_outliers(facts: SetFacts) -> Iterator[Finding]:
    """Find images with a spacing unlike that of the others."""
    yield from _sizes(facts, "spacing-outlier", "spacing", np.ones_like, math.log(1.5))


def size_outliers(facts: SetFacts) -> Iterator[Finding]:
    """Find images that cover far more or far less than the others."""
    yield from _sizes(facts, "size-outlier", "size", lambda shape: shape, math.log(1.8))


def _sizes(
    facts: SetFacts,
    code: str,
    name: str,
    count: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    least: float,
) -> Iterator[Finding]:
    """Compare mm along each anatomical axis: of one voxel, or of the whole volume."""
    listed = list(_grids(facts))
    if not listed:
        return
    sizes = np.array([_ras(grid, np.asarray(grid.spacing) * count(np.array(grid.shape, float)))
                      for _, _, grid in listed])  # fmt: skip
    middle = np.median(sizes, axis=0)
    far = np.stack([outliers(column, least) for column in np.log(sizes).T], axis=1)
    for (case_id, file, _), size, flags in zip(listed, sizes, far, strict=True):
        if flags.any():
            words = ", ".join(
                f"{size[axis]:.4g} mm {_RAS_AXES[axis]} where {middle[axis]:.4g} is usual"
                for axis in range(3)
                if flags[axis]
            )
            yield finding("warning", code, case_id, f"{file}: {name} {words}", file)


def _ras(grid: Grid, along: NDArray[np.float64]) -> NDArray[np.float64]:
    """Order one number per array axis by anatomical axis."""
    letters = grid.orientation
    order = [next(i for i, c in enumerate(letters) if c in pair) for pair in ("LR", "PA", "IS")]
    return np.asarray(along[order])


def _grids(facts: SetFacts) -> Iterator[tuple[str, Path, Grid]]:
    """Yield name, file and grid of each case: its first channel's, or the label's without one."""
    for case in facts.cases:
        first = next((image for image in case.images if image.channel == 0), None)
        if first is not None:
            yield case.job.case_id, first.file, first.grid
        elif case.label is not None:
            yield case.job.case_id, case.label.file, case.label.grid


def orientations(facts: SetFacts) -> Iterator[Finding]:
    """Find a rare orientation; tell which there are if they are mixed."""
    listed = list(_grids(facts))
    numbers = Counter(grid.orientation for _, _, grid in listed)
    if len(numbers) < 2:
        return
    words = ", ".join(f"{name}: {n}" for name, n in numbers.most_common())
    yield finding("info", "orientation-mix", "", f"orientations {words}")
    usual, most = numbers.most_common(1)[0]
    for case_id, file, grid in listed:
        name = grid.orientation
        rare = numbers[name] <= max(1, RARE * len(listed))
        if rare and len(listed) >= FEWEST and most >= USUAL * len(listed):
            words = f"{file}: orientation {name}, where {most} of {len(listed)} are {usual}"
            yield finding("warning", "orientation-outlier", case_id, words, file)


def _files(images: Sequence[tuple[CaseFacts, ImageFacts]]) -> list[str]:
    return [str(image.file) for _, image in images]
