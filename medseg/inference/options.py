"""The flags of `medseg predict` and `medseg export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Format = Literal["source", "nifti", "dicom_seg"]


@dataclass(frozen=True)
class PredictOptions:
    """Options of `medseg predict`.

    Attributes:
        run: Run directory of a training.
        input: A volume, a folder of volumes (with its subfolders), or a manifest (JSON). Volumes
            are NIfTI, MetaImage and NRRD files, and folders with a DICOM series.
        output: Folder of the label maps, one for each case, subfolders as in the input.
        checkpoint: best, last, or the path of a checkpoint.
        root: Folder a manifest's paths are relative to; the manifest's own if not given.
        fold: Only the cases of this fold of a manifest.
        overlap: Overlap of the sliding window, in [0, 1); as in training if not given.
        format: source writes MetaImage and NRRD where they came in, and .nii.gz for all else; nifti
            always .nii.gz; dicom_seg writes DICOM-SEG for DICOM series. DICOM-SEG copies the name
            and the study of the patient, as the standard wants it; the others hold no such thing.
        on_conflict: What a header that contradicts itself does: warn, or error (the case fails).
        series_uid: The DICOM series to label where a folder holds several.
        device: cpu, cuda or cuda:N; a GPU if there is one.
        overwrite: Predict again what is already there; otherwise cases whose label map exists and
            is recorded as done by the same weights are skipped.
    """

    run: Path
    input: Path
    output: Path
    checkpoint: str = "best"
    root: Path | None = None
    fold: int | None = None
    overlap: float | None = None
    format: Format = "source"
    on_conflict: Literal["warn", "error"] = "warn"
    series_uid: str | None = None
    device: str | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class ExportOptions:
    """Options of `medseg export`.

    Attributes:
        run: Run directory of a training.
        output: Folder of the package; it must not exist.
        checkpoint: best, last, or the path of a checkpoint.
        formats: safetensors is the package itself and always written; onnx and openvino add the
            network in that format, checked against torch, and need the extra of that name.
        licence: What the weights may be used for, an SPDX name or a sentence; goes into the card.
        overwrite: Replace a package that is there.
    """

    run: Path
    output: Path
    checkpoint: str = "best"
    formats: tuple[Literal["safetensors", "onnx", "openvino"], ...] = ("safetensors",)
    licence: str | None = None
    overwrite: bool = False
