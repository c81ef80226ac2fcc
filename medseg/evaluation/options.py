"""The flags of `medseg evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medseg.core.geometry import SAME_GRID
from medseg.engine.parallel import default_workers


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `medseg evaluate`.

    Attributes:
        predictions: Folder of label maps (NIfTI, MetaImage or NRRD), subfolders included; a file
            belongs to the case it is named after.
        output: Folder of scores.csv, cases.csv and summary.json, or the path of the first, ending
            in .csv.
        references: Folder of reference label maps; every value above 0 is a class. Give this or
            --manifest.
        manifest: Data set manifest that names the references, classes and ignored label.
        root: Folder the manifest's paths are relative to; the manifest's own if not given.
        fold: Score only this fold of the manifest; all folds if not given.
        tolerance_mm: Tolerance of the normalized surface distance, mm.
        grid_tolerance: How far the corners of two grids may lie apart, as a share of the smallest
            spacing.
        workers: Processes that score cases side by side.
    """

    predictions: Path
    output: Path
    references: Path | None = None
    manifest: Path | None = None
    root: Path | None = None
    fold: int | None = None
    tolerance_mm: float = 2.0
    grid_tolerance: float = SAME_GRID
    workers: int = default_workers()
