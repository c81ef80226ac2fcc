"""The flags of `medseg predict`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PredictOptions:
    """Options of `medseg predict`.

    Attributes:
        run: Run directory of a training.
        input: A NIfTI file, a folder of them (with its subfolders), or a manifest (JSON).
        output: Folder of the label maps; one CASE_ID.nii.gz each, subfolders as in the input.
        checkpoint: best, last, or the path of a checkpoint.
        root: Folder a manifest's paths are relative to; the manifest's own if not given.
        fold: Only the cases of this fold of a manifest.
        overlap: Overlap of the sliding window, in [0, 1); as in training if not given.
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
    device: str | None = None
    overwrite: bool = False
