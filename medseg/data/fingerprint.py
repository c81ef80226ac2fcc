"""The fingerprint of a data set: what a training plan is made from, and nothing else is."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import ManifestError, MedsegError, problems
from medseg.core.geometry import Grid
from medseg.core.manifest import Case, Manifest
from medseg.data.mirroring import Mirrored, Outline, compare_mirrored, outline
from medseg.data.transforms import (
    IGNORE_INDEX,
    Preprocessing,
    Reading,
    canonical_grid,
    read_channels,
    read_label,
)
from medseg.io import read_grid
from medseg.io.memory import Room

SAMPLES = 10_000
"""Foreground values of a channel taken from each case; nnU-Net's number."""

MOST_THREADS = 8
"""Readers at work at once; each holds a whole case."""

_BYTES = 12
"""Of a voxel that reading a case takes, beside 8 a channel; 17 in all were measured for one."""

_PERCENTILES = (0.5, 50.0, 99.5)

Track = Callable[[Iterable["CaseFacts"], int], Iterable["CaseFacts"]]
"""Shows how far the reading is: of an iterable and its length."""


@dataclass(frozen=True, eq=False)
class CaseFacts:
    """What is kept of one case.

    Attributes:
        case_id: The case.
        grid: Of its image, axes in RAS order.
        voxels: Voxels of each class, the background first.
        inside: A sample of each channel's values within the foreground, shape (C, n).
        lowest: The smallest value of each channel.
        outline: Where its classes lie.
    """

    case_id: str
    grid: Grid
    voxels: tuple[int, ...]
    inside: NDArray[np.float32]
    lowest: tuple[float, ...]
    outline: Outline


@dataclass(frozen=True)
class ChannelFacts:
    """One channel over all cases.

    Attributes:
        name: As in the manifest.
        lowest: The smallest value, the median over the cases.
        low: 0.5th percentile of the values within the foreground.
        median: Their median.
        high: Their 99.5th percentile.
        mean: Their mean.
        deviation: Their standard deviation.
    """

    name: str
    lowest: float
    low: float
    median: float
    high: float
    mean: float
    deviation: float


@dataclass(frozen=True)
class ClassFacts:
    """One foreground class over all cases.

    Attributes:
        name: As in the manifest.
        cases: Cases that have it.
        median_ml: Its median volume in those.
        share: Its share of all voxels.
    """

    name: str
    cases: int
    median_ml: float
    share: float


@dataclass(frozen=True)
class Fingerprint:
    """A data set in numbers. Axes are in RAS order.

    Attributes:
        cases: Ids of the cases that were read.
        shapes: Voxels of each image.
        spacings: Spacing of each image, mm.
        channels: Intensities.
        classes: Sizes.
        mirrored: The cases against each other mirrored along each axis.
    """

    cases: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    spacings: tuple[tuple[float, ...], ...]
    channels: tuple[ChannelFacts, ...]
    classes: tuple[ClassFacts, ...]
    mirrored: tuple[Mirrored, Mirrored, Mirrored]

    def shapes_at(self, spacing: Sequence[float]) -> NDArray[np.float64]:
        """Return each image's shape at another spacing, shape (cases, 3)."""
        lengths = np.asarray(self.shapes) * np.asarray(self.spacings, dtype=np.float64)
        shapes: NDArray[np.float64] = lengths / np.asarray(spacing, dtype=np.float64)
        return shapes

    def median_shape(self, spacing: Sequence[float]) -> NDArray[np.float64]:
        """Return the median length of each axis at another spacing, voxels."""
        shape: NDArray[np.float64] = np.median(self.shapes_at(spacing), axis=0)
        return shape


def fingerprint(
    manifest: Manifest, cases: Sequence[Case], track: Track | None = None
) -> Fingerprint:
    """Read cases and return their fingerprint.

    Args:
        manifest: The data set.
        cases: Those to read; a plan must not see the cases it will be judged on.
        track: Shows how far the reading is.

    Raises:
        ManifestError: If cases cannot be read (all are named), or none has any foreground.
    """
    failed: list[str] = []
    room = Room()
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        found = pool.map(partial(_attempt, manifest, failed, room), cases)
        whole = (facts for facts in found if facts is not None)
        known = list(track(whole, len(cases)) if track else whole)
    if failed:
        raise ManifestError(
            f"{problems(manifest.path, sorted(failed))}\nmedseg check tells more, and how to mend."
        )
    if not any(sum(facts.voxels[1:]) for facts in known):
        raise ManifestError(f"{manifest.path}: no case has any foreground: nothing can be learned.")
    return Fingerprint(
        cases=tuple(facts.case_id for facts in known),
        shapes=tuple(facts.grid.shape for facts in known),
        spacings=tuple(facts.grid.spacing for facts in known),
        channels=tuple(
            _channel(name, number, known) for number, name in enumerate(manifest.channel_names)
        ),
        classes=tuple(
            _class(name, number, known)
            for number, name in enumerate(manifest.class_names)
            if number > 0
        ),
        mirrored=compare_mirrored([facts.outline for facts in known]),
    )


def _attempt(manifest: Manifest, failed: list[str], room: Room, case: Case) -> CaseFacts | None:
    try:
        voxels = math.prod(read_grid(manifest.files(case)[0]).shape)
        with room.taken((_BYTES + 8 * len(manifest.channel_names)) * voxels):
            return case_facts(manifest, case)
    except MedsegError as error:
        failed.append(f"{case.case_id}: {error}")
        return None


def case_facts(manifest: Manifest, case: Case) -> CaseFacts:
    """Read one case.

    Raises:
        MedsegError: If a file is refused, or image and label do not belong together.
    """
    *images, label = manifest.files(case)
    values, grid, _ = read_channels(images, len(manifest.channel_names), Reading())
    classes = read_label(label, grid, list(manifest.labels.values()), manifest.ignore_value)
    array, image = classes.numpy(), values.numpy()
    inside = (array > 0) & (array != IGNORE_INDEX)
    counts = np.bincount(array.ravel(), minlength=IGNORE_INDEX + 1)[: len(manifest.labels)]
    return CaseFacts(
        case_id=case.case_id,
        grid=canonical_grid(grid, Preprocessing()),
        voxels=tuple(int(count) for count in counts),
        inside=_sample(image[:, inside]),
        lowest=tuple(float(channel.min()) for channel in image),
        outline=outline(array, len(manifest.labels) - 1, grid.affine),
    )


def _sample(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return at most `SAMPLES` of each channel's values, evenly spread."""
    count = values.shape[1]
    places = np.linspace(0, max(count - 1, 0), min(count, SAMPLES)).astype(int)
    return values[:, places]


def _channel(name: str, number: int, known: Sequence[CaseFacts]) -> ChannelFacts:
    values = np.concatenate([facts.inside[number] for facts in known]).astype(np.float64)
    low, median, high = np.percentile(values, _PERCENTILES)
    return ChannelFacts(
        name=name,
        lowest=float(np.median([facts.lowest[number] for facts in known])),
        low=float(low),
        median=float(median),
        high=float(high),
        mean=float(values.mean()),
        deviation=float(values.std()),
    )


def _class(name: str, number: int, known: Sequence[CaseFacts]) -> ClassFacts:
    there = [facts for facts in known if facts.voxels[number]]
    volumes = [facts.voxels[number] * facts.grid.voxel_volume_ml for facts in there]
    return ClassFacts(
        name=name,
        cases=len(there),
        median_ml=float(np.median(volumes)) if volumes else 0.0,
        share=sum(facts.voxels[number] for facts in known)
        / sum(sum(facts.voxels) for facts in known),
    )
