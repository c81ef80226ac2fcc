"""One case on its way through the checks: what is to be opened, and what could be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from medseg.check.findings import Finding, Severity, finding
from medseg.core.manifest import Case, Manifest
from medseg.io import Volume

Part = Literal["training", "test", "unlisted"]


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
        fold: Its fold, or None.
        group: The patient, say, or "".
        part: Which list of the manifest it stands in; `unlisted` for a file that lies beside.
    """

    case_id: str
    images: tuple[Path, ...]
    label: Path | None
    channel_names: tuple[str, ...]
    label_values: tuple[int, ...]
    ignore_value: int | None
    fold: int | None = None
    group: str = ""
    part: Part = "training"

    @classmethod
    def of(cls, case: Case, manifest: Manifest, part: Part = "training") -> CaseJob:
        """Return the job of a listed case, whether its files are there or not."""
        return cls(
            case_id=case.case_id,
            images=tuple(manifest.file(name) for name in case.images),
            label=manifest.file(case.label) if case.label else None,
            channel_names=manifest.channel_names,
            label_values=tuple(manifest.labels.values()),
            ignore_value=manifest.ignore_value,
            fold=case.fold,
            group=case.group,
            part=part,
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

    @property
    def first_image(self) -> Volume | None:
        """The image whose grid the label has to share."""
        return self.images.get(self.job.images[0]) if self.job.images else None

    def channels(self) -> Iterator[tuple[Path, int, Volume, NDArray[Any]]]:
        """Yield file, number, volume and values of every channel."""
        for path, volume in self.images.items():
            values = volume.array if volume.array.ndim == 4 else volume.array[..., None]
            for number in range(values.shape[-1]):
                yield path, number, volume, values[..., number]

    def found(self, severity: Severity, code: str, message: str, *files: Path | None) -> Finding:
        """Return a finding about this case."""
        return finding(severity, code, self.job.case_id, message, *filter(None, files))
