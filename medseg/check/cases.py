"""What is looked at in one case: a table of checks, each a function of the opened case."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.check.findings import Finding, Severity
from medseg.core.errors import VolumeError
from medseg.core.manifest import Case, Manifest
from medseg.io import Volume, read_volume

LABEL_ROUNDING = 1e-3
"""Label maps that were saved as real numbers carry this much noise at most."""


@dataclass(frozen=True)
class CaseJob:
    """All that is needed to check one case, also in another process.

    Attributes:
        case_id: Its name.
        images: One file per channel, or one file for all.
        label: Label file, or None.
        channel_names: Name of each channel.
        label_values: Value of each class in the label file, the background first.
        ignore_value: Value of voxels that take part in neither loss nor metrics.
    """

    case_id: str
    images: tuple[Path, ...]
    label: Path | None
    channel_names: tuple[str, ...]
    label_values: tuple[int, ...]
    ignore_value: int | None

    @classmethod
    def of(cls, case: Case, manifest: Manifest) -> CaseJob:
        """Return the job of a listed case."""
        return cls(
            case_id=case.case_id,
            images=tuple(manifest.file(name) for name in case.images),
            label=manifest.file(case.label) if case.label else None,
            channel_names=manifest.channel_names,
            label_values=tuple(manifest.labels.values()),
            ignore_value=manifest.ignore_value,
        )


@dataclass(frozen=True, eq=False)
class OpenedCase:
    """A case with those of its volumes that could be read.

    Attributes:
        job: The case.
        images: Volume by file.
        label: The label, or None.
    """

    job: CaseJob
    images: Mapping[Path, Volume]
    label: Volume | None

    def found(self, severity: Severity, code: str, message: str) -> Finding:
        """Return a finding about this case."""
        return Finding(severity, code, self.job.case_id, message)


def check_case(job: CaseJob) -> list[Finding]:
    """Open the files of a case and run every check on it."""
    refused: list[Finding] = []

    def opened(path: Path, channels: int, label: bool) -> Volume | None:
        try:
            # As a training reads them: an image's NaN become 0, a label's are an error.
            return read_volume(path, channels=channels, non_finite="error" if label else "zero")
        except VolumeError as error:
            refused.append(Finding("error", error.code, job.case_id, str(error)))
            return None

    per_file = len(job.channel_names) if len(job.images) == 1 else 1
    images = {path: opened(path, per_file, label=False) for path in job.images}
    case = OpenedCase(
        job,
        {path: volume for path, volume in images.items() if volume is not None},
        opened(job.label, 1, label=True) if job.label else None,
    )
    return [*refused, *(found for check in CHECKS for found in check(case))]


def reader_warnings(case: OpenedCase) -> Iterator[Finding]:
    """Tell what the reader had to resolve, such as a header that contradicts itself."""
    volumes = [*case.images.items()]
    if case.label is not None and case.job.label is not None:
        volumes.append((case.job.label, case.label))
    for path, volume in volumes:
        for warning in volume.warnings:
            code, _, words = warning.partition(": ")
            yield case.found("warning", code, f"{path}: {words}")


def constant_images(case: OpenedCase) -> Iterator[Finding]:
    """Find channels that have one value everywhere; an error if there is no other channel."""
    channels = {}
    for path, volume in case.images.items():
        values = volume.array if volume.array.ndim == 4 else volume.array[..., None]
        for number in range(values.shape[-1]):
            channels[path, number] = values[..., number]
    constant = {key: array.flat[0] for key, array in channels.items() if array.min() == array.max()}
    severity: Severity = "error" if len(constant) == len(channels) else "warning"
    for (path, number), value in constant.items():
        yield case.found(
            severity, "constant-image", f"{path}: every voxel of channel {number} is {value}"
        )


def channel_grids(case: OpenedCase) -> Iterator[Finding]:
    """Tell which channels will be resampled onto the first one's grid."""
    first = case.images.get(case.job.images[0])
    for path, volume in case.images.items():
        if first is not None and not volume.grid.is_same(first.grid):
            difference = volume.grid.difference(first.grid)
            words = f"{path}: will be resampled onto the first channel's grid: {difference}"
            yield case.found("info", "channel-grids-differ", words)


def label_grid(case: OpenedCase) -> Iterator[Finding]:
    """Find a label that does not lie on its image."""
    image = case.images.get(case.job.images[0])
    if case.label is None or image is None or case.label.grid.is_same(image.grid):
        return
    difference = case.label.grid.difference(image.grid)
    words = f"{case.job.label}: label grid differs from image grid: {difference}"
    yield case.found("error", "label-grid-differs", words)


def label_values(case: OpenedCase) -> Iterator[Finding]:
    """Find label values that are no whole numbers or not in the table, and empty labels."""
    if case.label is None:
        return
    job, array = case.job, case.label.array
    whole = np.rint(array)
    if np.abs(whole - array).max() > LABEL_ROUNDING:
        words = f"{job.label}: values are not whole numbers"
        yield case.found("error", "not-a-label", words)
        return
    foreground = np.isin(whole, job.label_values[1:])
    rest = np.unique(whole[~foreground])
    unknown = [int(value) for value in rest if value not in (job.label_values[0], job.ignore_value)]
    if unknown:
        words = f"{job.label}: values {unknown[:5]} are not in the label table"
        yield case.found("error", "unknown-label", words)
    if not foreground.any():
        yield case.found("warning", "empty-label", f"{job.label}: no voxel of any class")


CHECKS: tuple[Callable[[OpenedCase], Iterator[Finding]], ...] = (
    reader_warnings,
    constant_images,
    channel_grids,
    label_grid,
    label_values,
)
"""Run on every case, in this order; a new check is a function and a row."""
