"""The flags of `medseg evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medseg.core.geometry import SAME_GRID
from medseg.core.lesions import LesionRule
from medseg.engine.parallel import default_workers


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `medseg evaluate`.

    Attributes:
        predictions: Folder of label maps (NIfTI, MetaImage or NRRD), subfolders included; a file
            belongs to the case it is named after, or to the folder it lies in where all files have
            one name.
        output: Folder of scores.csv, cases.csv and summary.json, or the path of the first, ending
            in .csv. Cases that were scored there before, with equal files and options, are not
            scored again.
        references: Folder of reference label maps; every value above 0 is a class. Give this or
            --manifest.
        manifest: Data set manifest that names the references, classes and ignored label.
        root: Folder the manifest's paths are relative to; the manifest's own if not given.
        fold: Score only this fold of the manifest; all folds if not given.
        tolerance_mm: Tolerance of the normalized surface distance, mm; also by class or region, as
            in `2 tumour=3`.
        regions: Unions of classes to score besides the classes, as in `whole=1,2,3 core=1,3`, by
            name or value; or a JSON file of such lists.
        lesions: Classes and regions whose connected components are counted and matched; `all` for
            every one.
        lesion_connectivity: Neighbours of a voxel that belong to its lesion.
        lesion_min_ml: Components below this volume are no lesions, on both sides.
        lesion_iou: IoU from which two lesions match; with 0 one common voxel suffices.
        empty_dice: Dice and IoU of a class that is in neither map.
        grid_tolerance: How far the corners of two grids may lie apart, as a share of the smallest
            spacing.
        workers: Processes that score cases side by side.
        overwrite: Score every case again.
    """

    predictions: Path
    output: Path
    references: Path | None = None
    manifest: Path | None = None
    root: Path | None = None
    fold: int | None = None
    tolerance_mm: tuple[str, ...] = ("2",)
    regions: tuple[str, ...] = ()
    lesions: tuple[str, ...] = ()
    lesion_connectivity: Literal[6, 18, 26] = 26
    lesion_min_ml: float = LesionRule.min_ml
    lesion_iou: float = LesionRule.iou
    empty_dice: Literal["nan", "one"] = "nan"
    grid_tolerance: float = SAME_GRID
    workers: int = default_workers()
    overwrite: bool = False
