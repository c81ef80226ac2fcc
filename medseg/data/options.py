"""Options of `medseg phantoms` and `medseg manifest`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Modality = Literal["mr", "ct"]
Format = Literal["auto", "msd", "nnunet", "bids", "csv", "folders"]
Target = Literal["medseg", "msd", "nnunet"]


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
        source: An MSD dataset.json, an nnU-Net raw folder (with the folds of a splits_final.json in
            it), a BIDS data set with derivatives, a manifest, a CSV file with the columns image
            (image_1, image_2, … for more channels), label, and if wanted case_id, fold, group and
            site, or a folder with one folder of images and one of labels.
        output: Manifest to write (JSON); with --to msd or nnunet, the folder of the new data set.
        to: What to write: a manifest beside the files as they are, or a whole data set with all
            volumes as .nii.gz in the layout of MSD or of nnU-Net v2.
        format: What the source is; auto tells by its name and content.
        root: Folder that the paths are relative to. With it paths stay as they are, and every
            command that reads the manifest needs the same --root; without it they are made relative
            to the folder of the output.
        folds: Number of cross-validation folds to draw. Cases of one group share a fold, and the
            cases of each site are spread over the folds. Without it, folds stay as they are in the
            source.
        seed: Seed of the draw.
        group_pattern: Regular expression searched in each case id; its first (…), or else the whole
            match, is the case's group, such as the patient. BIDS subjects are groups without it.
        site_pattern: The same for the case's site.
        images: Format folders: the folder of images, within the source.
        labels: Format folders: the folder of labels, within the source (labels if not given); pairs
            have equal names. Format bids: which segmentations count, a pattern for their paths
            within the source, such as 'derivatives/manual/*' (all if not given).
        channels: Names of the image channels, such as T1w or CT; the source's own if not given.
            Format bids: the suffixes to take, in this order, if need be with entities, such as
            ce-gadolinium_T1w.
        name: Name of the data set, for run directories and reports; the source's own if not given.
        overwrite: Replace the output if it exists.
    """

    source: Path
    output: Path
    to: Target = "medseg"
    format: Format = "auto"
    root: Path | None = None
    folds: int | None = None
    seed: int = 0
    group_pattern: str | None = None
    site_pattern: str | None = None
    images: str = "images"
    labels: str | None = None
    channels: tuple[str, ...] = ()
    name: str | None = None
    overwrite: bool = False
