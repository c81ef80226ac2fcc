"""Images and labels that are there twice, by content."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from medseg.check.facts import CaseFacts, ImageFacts, LabelFacts, SetFacts
from medseg.check.findings import Finding, Severity, finding
from medseg.check.opened import CaseJob

Fact = TypeVar("Fact", ImageFacts, LabelFacts)
Listed = tuple[CaseFacts, Fact]

NEARLY_EQUAL = 0.999
"""Correlation of coarse pictures; different subjects, cropped alike, reach 0.91, phantoms 0.988."""

FEWEST_VOXELS = 30
"""Smaller labels can be equal by chance, a single voxel or a cube."""

FEWEST_TURNED = 200
"""The same for labels that are equal only when turned or mirrored."""


def duplicate_images(facts: SetFacts) -> Iterator[Finding]:
    """Find images of equal content: as they lie, re-oriented, of another type, or mirrored."""
    listed = [(case, image) for case, image in facts.images if image.high > image.low]
    told: set[frozenset[str]] = set()
    for key, how in (
        (lambda image: image.content, "equal to"),
        (lambda image: image.values, "a turned or mirrored copy of"),
    ):
        for (case, image), (other, same) in _alike(listed, key):
            pair = frozenset((_identity(case, image), _identity(other, same)))
            if case is not other and pair not in told:
                told.add(pair)
                yield _duplicate(case, image, other, same, how)
    yield from _near(listed, told)


def _alike(
    listed: Sequence[Listed[Fact]], key: Callable[[Fact], object]
) -> Iterator[tuple[Listed[Fact], Listed[Fact]]]:
    """Yield each with the first one that has the same key."""
    first: dict[object, Listed[Fact]] = {}
    for case, fact in listed:
        known = first.setdefault(key(fact), (case, fact))
        if known[1] is not fact:
            yield (case, fact), known


def _identity(case: CaseFacts, image: ImageFacts) -> str:
    return f"{case.job.part} {case.job.case_id} {image.file} {image.channel}"


def _duplicate(
    case: CaseFacts, image: ImageFacts, other: CaseFacts, same: ImageFacts, how: str
) -> Finding:
    words = f"{image.file} ({place(case.job)}) is {how} {same.file} ({place(other.job)})"
    severity = leak(case.job, other.job)
    return finding(severity, "duplicate-image", case.job.case_id, words, image.file, same.file)


def place(job: CaseJob) -> str:
    """Say where a case stands: its name and fold, or part."""
    part = job.part if job.fold is None else f"fold {job.fold}"
    return f"{job.case_id}, {part}" if job.part != "unlisted" else "unlisted"


def leak(job: CaseJob, other: CaseJob) -> Severity:
    """Return `error` if one image in both cases takes a figure's worth: two folds, or test."""
    if "unlisted" in (job.part, other.part):
        return "warning"
    return "error" if (job.part, job.fold) != (other.part, other.fold) else "warning"


def _near(listed: Sequence[Listed[ImageFacts]], told: set[frozenset[str]]) -> Iterator[Finding]:
    """Find images equal but for scale, noise or resampling, by their coarse pictures."""
    for channel in sorted({image.channel for _, image in listed}):
        here = [(case, image) for case, image in listed if image.channel == channel]
        coarse = np.stack([image.coarse for _, image in here])
        rows, columns = np.nonzero(np.triu(coarse @ coarse.T > NEARLY_EQUAL, 1))
        for row, column in zip(rows, columns, strict=True):
            (case, image), (other, same) = here[column], here[row]
            pair = frozenset((_identity(case, image), _identity(other, same)))
            exact = image.content == same.content or image.values == same.values
            if pair in told or exact or case is other:
                continue
            words = (
                f"{image.file} ({place(case.job)}) is equal to {same.file} ({place(other.job)}) "
                "but for the intensities' scale, noise, or resampling"
            )
            yield finding("warning", "near-duplicate-image", case.job.case_id, words,
                          image.file, same.file)  # fmt: skip


def duplicate_labels(facts: SetFacts) -> Iterator[Finding]:
    """Find equal labels of different images: at most one of them is of its image."""
    listed = [(case, case.label) for case in facts.cases if case.label and case.label.content]
    told: set[frozenset[str]] = set()
    for key, fewest, how in (
        (lambda label: label.content, FEWEST_VOXELS, "equal to"),
        (lambda label: label.profile, FEWEST_TURNED, "a turned or mirrored copy of"),
    ):
        large = [(c, label) for c, label in listed if sum(label.voxels.values()) >= fewest]
        for (case, label), (other, same) in map(_odd_one_first, _alike(large, key)):
            pair = frozenset((str(label.file), str(same.file)))
            if pair in told or _same_image(case, other):
                continue
            told.add(pair)
            words = f"{label.file} ({place(case.job)}) is {how} {same.file} ({place(other.job)})"
            unsure = how != "equal to" or "unlisted" in (case.job.part, other.job.part)
            yield finding("warning" if unsure else "error", "duplicate-label", case.job.case_id,
                          words, label.file, same.file)  # fmt: skip


def _odd_one_first(pair: tuple[Listed[Fact], Listed[Fact]]) -> tuple[Listed[Fact], Listed[Fact]]:
    """Put the case without an image first, if just one has none: it is the one to be told."""
    (case, _), (other, _) = pair
    return (pair[1], pair[0]) if case.images and not other.images else pair


def _same_image(case: CaseFacts, other: CaseFacts) -> bool:
    """Return whether both cases hold one image, which then is what is told."""
    pairs = itertools.product(case.images, other.images)
    return any(a.content == b.content or a.values == b.values for a, b in pairs)
