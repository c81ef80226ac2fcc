"""Options of `medseg phantoms` and `medseg manifest`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Modality = Literal["mr", "ct"]
Format = Literal["auto", "msd", "nnunet", "csv", "folders"]


@dataclass(frozen=True)
class PhantomOptions:
    """Options of `medseg phantoms`.

    Attributes:
        output: Folder to write images, labels and manifest.json into; new, empty, or of an earlier
            run with the same options.
        cases: Number of cases. They come from four scanners in turn, and lie in four folds.
        modality: Look of the volumes: mr (any intensity scale, Rician noise, bias field) or ct (HU,
            thick slices).
        seed: Seed of everything random; equal options give equal bytes.
    """

    output: Path
    cases: int = 20
    modality: Modality = "mr"
    seed: int = 0


@dataclass(frozen=True)
class ManifestOptions:
    """Options of `medseg manifest`.

    Attributes:
        source: An MSD dataset.json, an nnU-Net raw folder, a manifest, a CSV file with the columns
            image (image_1, image_2, … for more channels), label, and if wanted case_id, fold and
            group, or a folder with one folder of images and one of labels.
        output: Manifest to write (JSON).
        format: What the source is; auto tells by its name and content.
        root: Folder that the paths are relative to. With it paths stay as they are, and every
            command that reads the manifest needs the same --root; without it they are made relative
            to the folder of the output.
        folds: Number of cross-validation folds to draw. Cases of one group share a fold. Without
            it, folds stay as they are in the source.
        seed: Seed of the draw.
        images: Format folders: the folder of images, within the source.
        labels: Format folders: the folder of labels, within the source; pairs have equal names.
        channels: Names of the image channels, such as T1w or CT; the source's own if not given.
        name: Name of the data set, for run directories and reports; the source's own if not given.
        overwrite: Replace the output if it exists.
    """

    source: Path
    output: Path
    format: Format = "auto"
    root: Path | None = None
    folds: int | None = None
    seed: int = 0
    images: str = "images"
    labels: str = "labels"
    channels: tuple[str, ...] = ()
    name: str | None = None
    overwrite: bool = False
