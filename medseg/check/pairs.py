"""Wrong-looking pairs: a label of another case, mirrored, shifted, or swapped with another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.check.content import canonical, fitted
from medseg.check.facts import CaseFacts, SetFacts
from medseg.check.findings import Finding, finding
from medseg.check.outliers import MAD_TO_SIGMA
from medseg.check.pairing import Fit, border_step, intensity_steps, thinned
from medseg.core.errors import VolumeError
from medseg.io import read_volume

FEWEST = 6
"""Cases from which the usual fit of the set is known."""

TELLING = 0.1
"""Median logarithm of label against mirrored label, from which borders tell anything in a set."""

LEAST_MIRROR = -0.03
"""A mirrored label that fits 3 % better may do so by chance."""

LEAST_SIGMA = 0.05
"""Of a logarithm: a set cannot be so uniform that 5 % matter."""

FAR = -3.5
"""Robust standard deviations below the set's median (Iglewicz and Hoaglin 1993)."""

CERTAIN_MIRROR, CERTAIN_SHIFT = -0.25, -0.35
"""Logarithms from which a better place is told whatever the set: a quarter, and 40 %, better."""

SHIFT_GAIN = -0.2
"""Less is gained by a shift on good labels, whose borders are drawn a voxel off."""

POOR = -11.0
"""Sum of the three robust scores; on 208 good hippocampi the lowest was -10.7."""

SUSPECT = -4.0
"""The same sum from which a label is tried on the images of other suspects."""

MOST_SUSPECTS = 24

SWAP_GAIN = math.log(1.1)
"""Both borders have to gain a tenth when two labels change places."""

MOST_NAMED = 3

_AXES = ("left-right", "back-front", "foot-head")


def labels_of_others(facts: SetFacts) -> Iterator[Finding]:
    """Find labels off their image's grid, but on that of a few other images."""
    for case in facts.cases:
        if case.label is None or not case.images or case.job.part == "unlisted":
            continue
        grid = case.label.grid
        if grid.agreement(case.images[0].grid) != "different":
            continue
        homes = [
            other for other in facts.cases
            if other is not case and other.images and other.images[0].grid.is_same(grid)
        ]  # fmt: skip
        if 0 < len(homes) <= MOST_NAMED:
            names = " or ".join(other.job.case_id for other in homes)
            words = f"{case.label.file}: lies on the grid of the image of {names}"
            files = (case.label.file, *(other.images[0].file for other in homes))
            yield finding("error", "label-of-another-case", case.job.case_id, words, *files)


def bad_fits(facts: SetFacts) -> Iterator[Finding]:
    """Find labels that fit their image better mirrored or shifted, or badly at all."""
    for case, fit, scores in _scored(facts):
        label = case.label.file if case.label else ""
        border, mirror, shift = scores
        mirrored = fit.mirror < CERTAIN_MIRROR or (fit.mirror < LEAST_MIRROR and mirror < FAR)
        shifted = fit.shift < CERTAIN_SHIFT or (fit.shift < SHIFT_GAIN and shift < FAR)
        if mirrored and not (shifted and fit.shift < fit.mirror):
            axes = " and ".join(_AXES[axis] for axis in fit.mirrored)
            words = f"{label}: its borders fit the image {_percent(fit.mirror)} better if {axes} " \
                    "is mirrored"  # fmt: skip
            code = "mirrored-label"
        elif shifted:
            axis, by = fit.shifted
            words = (
                f"{label}: its borders fit the image {_percent(fit.shift)} better if moved by "
                f"about {by:+d} voxels {_AXES[axis]}"
            )
            code = "shifted-label"
        elif border + mirror + shift < POOR:
            words = f"{label}: its borders follow the image far worse than in the other cases"
            code = "poor-fit"
        else:
            continue
        yield finding("warning", code, case.job.case_id, words, label)


def _percent(logarithm: float) -> str:
    return f"{math.expm1(-logarithm):.0%}"


def _scored(facts: SetFacts) -> list[tuple[CaseFacts, Fit, NDArray[np.float64]]]:
    """Return each case's fit with its robust scores; scores are 0 where the set tells nothing."""
    fits = [(case, case.fit) for case in facts.cases if case.fit is not None]
    if not fits:
        return []
    table = np.array([[fit.border, fit.mirror, fit.shift] for _, fit in fits])
    table = np.where(np.isfinite(table), table, 1.0)
    distance = table - np.median(table, axis=0)
    sigma = np.maximum(MAD_TO_SIGMA * np.median(np.abs(distance), axis=0), LEAST_SIGMA)
    known = len(fits) >= FEWEST and float(np.median(table[:, 1])) > TELLING
    scores = distance / sigma if known else np.zeros_like(table)
    return [(case, fit, row) for (case, fit), row in zip(fits, scores, strict=True)]


def swapped_labels(facts: SetFacts) -> Iterator[Finding]:
    """Find two cases each of whose images fits the other's label better than its own."""
    scored = sorted(_scored(facts), key=lambda item: float(item[2].sum()))
    suspects = [case for case, _, scores in scored if scores.sum() < SUSPECT][:MOST_SUSPECTS]
    opened = [(case, pair) for case in suspects if (pair := _reopened(case)) is not None]
    for (case, pair), (other, twin) in itertools.combinations(opened, 2):
        gain = min(_gain(*pair, twin[1]), _gain(*twin, pair[1]))
        if gain > SWAP_GAIN and case.label and other.label:
            words = (
                f"{case.label.file} and {other.label.file}: each fits the other's image better, "
                f"by {math.expm1(gain):.0%} or more"
            )
            for one in (case, other):
                yield finding("error", "swapped-labels", one.job.case_id, words,
                              case.label.file, other.label.file)  # fmt: skip


Pair = tuple[NDArray[Any], NDArray[Any]]


def _reopened(case: CaseFacts) -> Pair | None:
    """Read image and label once more, in RAS order."""
    if case.label is None:
        return None
    try:
        image, label = (read_volume(path, non_finite="zero")
                        for path in (case.job.images[0], case.label.file))  # fmt: skip
    except VolumeError:
        return None  # changed since it was checked
    values = image.array[..., 0] if image.array.ndim > 3 else image.array
    known = np.where(np.isin(label.array, list(case.label.voxels)), label.array, 0)
    labels = known.reshape(label.grid.shape)
    return thinned(canonical(values, image.grid)), thinned(canonical(labels, label.grid))


def _gain(image: NDArray[Any], label: NDArray[Any], other: NDArray[Any]) -> float:
    """Return the logarithm of how much better another label fits an image than its own."""
    steps = intensity_steps(image, label)
    own = border_step(steps, label)
    best = max(border_step(steps, fitted(other, label.shape, centred)) for centred in (True, False))
    return math.log(best / own) if best > 0 and own > 0 else -math.inf
