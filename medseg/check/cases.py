"""What is looked at in one case: a table of checks, each a function of the opened case."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.check import images, labels
from medseg.check.facts import CaseFacts, measure
from medseg.check.findings import Finding
from medseg.check.opened import CaseJob, OpenedCase
from medseg.core.errors import VolumeError
from medseg.io import Volume, read_volume

CHECKS: tuple[Callable[[OpenedCase], Iterator[Finding]], ...] = (
    images.reader_warnings,
    images.constant_images,
    images.images_of_labels,
    images.equal_channels,
    images.channel_grids,
    images.plausible_sizes,
    labels.label_grid,
    labels.label_values,
)
"""Run on every case, in this order; a new check is a function and a row."""


@dataclass(frozen=True, eq=False)
class CheckedCase:
    """What comes back of one case.

    Attributes:
        findings: What was found in it alone.
        facts: What the checks of the whole set need of it.
    """

    findings: tuple[Finding, ...]
    facts: CaseFacts


def check_case(job: CaseJob) -> CheckedCase:
    """Open the files of a case, run every check on it, and measure it."""
    case, refused = open_case(job)
    found = [*refused, *(finding for check in CHECKS for finding in check(case))]
    if job.part == "unlisted":  # no training would read it, whatever is wrong with it
        found = [replace(f, severity="warning") if f.severity == "error" else f for f in found]
    return CheckedCase(tuple(found), measure(case))


def open_case(job: CaseJob) -> tuple[OpenedCase, list[Finding]]:
    """Open the files of a case that are there; those that are refused are findings."""
    refused: list[Finding] = []

    def opened(path: Path, channels: int, label: bool) -> Volume | None:
        if not path.exists():  # told of the case as a whole, where all that is absent is known
            return None
        try:
            # As a training reads them: an image's NaN become 0, a label's are an error.
            return read_volume(path, channels=channels, non_finite="error" if label else "zero")
        except VolumeError as error:
            found = Finding("error", error.code, job.case_id, str(error), (str(path),))
            refused.append(found)
            return None

    per_file = len(job.channel_names) if len(job.images) == 1 else 1
    volumes = {path: opened(path, per_file, label=False) for path in job.images}
    there = {path: volume for path, volume in volumes.items() if volume is not None}
    label = opened(job.label, 1, label=True) if job.label else None
    return OpenedCase(job, there, label), refused
