"""The rules of a training plan, as arithmetic: from a fingerprint to spacing, patch and network.

They follow nnU-Net's published ones (Isensee 2021, supplement) where nothing else is said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.core.errors import OptionError
from medseg.data.fingerprint import ChannelFacts, Fingerprint
from medseg.data.mirroring import Mirrored
from medseg.data.sides import sided
from medseg.networks.blocks import UNIT, Triple

ANISOTROPIC = 3.0
"""Ratio of spacings from which the coarsest axis is a matter of its own."""

SMALLEST_BOTTLENECK = 4
"""Voxels an axis keeps at the coarsest level."""

FEWEST_LEVELS, MOST_LEVELS = 3, 6
"""A patch smaller than its image is not made so small that it allows fewer levels."""

MOST_CHANNELS = 320

_SHRINK = 0.95
"""Between one patch that is tried and the next smaller one."""

_HU_AIR = -500.0
"""An image with values below this is taken for CT in HU: no other scale has them."""

SMALL_BATCH, LARGE_BATCH = 4, 16
"""Up to the first instance norm, from the second batch norm, group norm between: conventions read
off Wu & He's curve (arXiv 1803.08494), where batch norm degrades below 8; not a proof."""


@dataclass(frozen=True)
class Layout:
    """Patch and levels of a network.

    Attributes:
        patch_size: Voxels.
        strides: In front of each level.
        kernels: Of each level.
    """

    patch_size: Triple
    strides: tuple[Triple, ...]
    kernels: tuple[Triple, ...]

    @property
    def voxels(self) -> int:
        """Voxels of a patch."""
        return math.prod(self.patch_size)


def target_spacing(facts: Fingerprint) -> tuple[float, ...]:
    """Return the spacing all images are brought to, mm.

    The median along each axis; where the images are anisotropic, the coarsest axis takes the 10th
    percentile, so that fewer slices are made up.
    """
    spacings = np.asarray(facts.spacings)
    chosen = np.median(spacings, axis=0)
    coarsest = int(chosen.argmax())
    if chosen[coarsest] > ANISOTROPIC * np.delete(chosen, coarsest).max():
        finest = np.delete(chosen, coarsest).max()
        chosen[coarsest] = max(np.percentile(spacings[:, coarsest], 10), finest)
    return tuple(float(f"{length:.4g}") for length in chosen)


def levels(spacing: Sequence[float], size: Sequence[float]) -> tuple[tuple[Triple, ...], ...]:
    """Return strides and kernels of each level.

    An axis is halved while it is at most twice as coarse as the finest one that can be, and keeps
    `SMALLEST_BOTTLENECK` voxels; a kernel is 1 along an axis more than twice as coarse as the
    finest, until a level where it is not: one too short to be halved stays fine, and would make
    the others look coarse.

    Args:
        spacing: Of the images, mm.
        size: Voxels of a patch.
    """
    lengths, left = [float(s) for s in spacing], [float(n) for n in size]
    strides: list[Triple] = [UNIT]
    kernels: list[Triple] = [_kernel(lengths, UNIT)]
    while len(strides) < MOST_LEVELS:
        able = [axis for axis in range(3) if math.ceil(left[axis]) >= 2 * SMALLEST_BOTTLENECK]
        if not able:
            break
        finest = min(lengths[axis] for axis in able)
        halved = [axis in able and lengths[axis] < 2 * finest for axis in range(3)]
        i, j, k = (2 if half else 1 for half in halved)
        strides.append((i, j, k))
        left = [n / s for n, s in zip(left, strides[-1], strict=True)]
        lengths = [n * s for n, s in zip(lengths, strides[-1], strict=True)]
        kernels.append(_kernel(lengths, kernels[-1]))
    return tuple(strides), tuple(kernels)


def _kernel(lengths: Sequence[float], finer: Triple) -> Triple:
    i, j, k = (
        3 if before == 3 or length <= 2 * min(lengths) else 1
        for length, before in zip(lengths, finer, strict=True)
    )
    return i, j, k


def layouts(facts: Fingerprint, spacing: Sequence[float]) -> Iterator[Layout]:
    """Yield what could be trained on, the largest patch first: the median image, then smaller ones.

    All keep the median image's aspect and divide by the network's strides.
    """
    median = facts.median_shape(spacing)
    seen: set[Triple] = set()
    factor = 1.0
    while True:
        size = median * factor
        strides, kernels = levels(spacing, [float(n) for n in size])
        if len(strides) < (FEWEST_LEVELS if seen else 2):
            return
        divisors = [math.prod(axis) for axis in zip(*strides, strict=True)]
        i, j, k = (max(1, math.ceil(n / d - 1e-9)) * d for n, d in zip(size, divisors, strict=True))
        if (i, j, k) not in seen:
            seen.add((i, j, k))
            yield Layout((i, j, k), strides, kernels)
        factor *= _SHRINK


def channels(first: int, number: int) -> list[int]:
    """Return the feature channels of each level: doubled at each, up to `MOST_CHANNELS`."""
    return [min(first << level, MOST_CHANNELS) for level in range(number)]


def intensity(channel: ChannelFacts) -> tuple[str | list[float], str]:
    """Return how a channel is scaled, and why."""
    words = set(re.split(r"[^a-z]+", channel.name.lower()))
    low, high = float(f"{channel.low:.3g}"), float(f"{channel.high:.3g}")
    if low < high and ("ct" in words or channel.lowest < _HU_AIR):
        return [low, high], (
            f"{channel.name} has a scale of its own (HU): 0.5th to 99.5th percentile within the "
            "labels"
        )
    if high > 0 and words & {"pet", "suv"}:
        return [0.0, high], (
            f"{channel.name} has a scale of its own (uptake): 0 to the 99.5th percentile within "
            "the labels"
        )
    return "zscore", f"{channel.name} has no scale of its own: each image by itself"


def flip_axes(class_names: Sequence[str], mirrored: Sequence[Mirrored]) -> tuple[list[int], str]:
    """Return the axes that may be mirrored, in RAS order, and why.

    A body is about the same left and right, and mirrored so unless the cases tell otherwise; along
    the other axes it is mirrored only where they look alike.

    Args:
        class_names: Of the foreground.
        mirrored: How alike the cases are along each axis, mirrored or not.
    """
    if names := sided(class_names):
        return [], f"{', '.join(names)}: a mirrored image would carry the wrong class"
    sideways, *others = mirrored
    if not sideways.cases:
        return [0], "no class names left or right; too few cases to tell more"
    axes = [0] if not sideways.is_unlike else []
    axes += [axis for axis, found in enumerate(others, 1) if found.is_alike]
    told = ", ".join(
        f"{name} {found.mirrored:.2f} ({found.own} of {found.cases} cases less alike)"
        for name, found in zip(_MIRRORED, mirrored, strict=True)
    )
    return axes, (
        f"no class names left or right; the classes of a case lie like the others' (similarity "
        f"{sideways.similarity:.2f}); mirrored {told}"
    )


_MIRRORED = ("left and right", "front and back", "head and feet")


def norm_for(batch: int) -> str:
    """Return the norm that conventions give a batch on one device."""
    if batch <= SMALL_BATCH:
        return "instance"
    return "group" if batch < LARGE_BATCH else "batch"


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_seconds(option: str, text: str) -> int:
    """Return the seconds of a duration such as `15m`, `1.5h` or DD:HH:MM:SS.

    Raises:
        OptionError: If it is none.
    """
    if match := re.fullmatch(r"(\d+):(\d+):(\d+):(\d+)", text.strip()):
        days, hours, minutes, seconds = (int(part) for part in match.groups())
        total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    elif match := re.fullmatch(r"(\d+(?:\.\d*)?)\s*([smhd])", text.strip().lower()):
        total = int(float(match[1]) * _UNITS[match[2]])
    else:
        total = 0
    if total < 1:
        raise OptionError(
            f"{option} must be a duration such as 15m, 2h, 1d or DD:HH:MM:SS; got {text!r}."
        )
    return total
