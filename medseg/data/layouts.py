"""From a manifest to a data set of another tool: MSD's and nnU-Net's folders, written anew."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from medseg.core.errors import GeometryError, ManifestError, OptionError, VolumeError, problems
from medseg.core.manifest import Case, Manifest, load_manifest
from medseg.core.runs import write_json
from medseg.data.listings import BACKGROUND, msd_content, nnunet_content, splits
from medseg.data.progress import track
from medseg.data.sources import SPLITS
from medseg.data.volumes import write_images, write_label

log = logging.getLogger("medseg")

Layout = Literal["msd", "nnunet"]

DATASET = "dataset.json"

_PARTS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs", SPLITS, DATASET)
"""All that a layout consists of; nothing else is ever removed."""

_NNUNET_NAME = re.compile(r"Dataset\d{3}_\w+")


def write_layout(manifest: Manifest, folder: Path, layout: Layout, overwrite: bool) -> None:
    """Write a complete data set: volumes as .nii.gz, then dataset.json, then read the list again.

    Args:
        manifest: What to write; every file it lists must be there.
        folder: The data set's folder: new, empty, or with `overwrite` an earlier one.
        layout: Whose layout.
        overwrite: Replace what an earlier data set left in the folder.

    Raises:
        OptionError: If the folder is taken, or holds files of the source.
        ManifestError: If files are missing, or with every case that cannot be converted.
        VolumeError: If the disk refuses.
    """
    cases = (*manifest.training, *manifest.test)
    manifest.require_files(cases)
    values = _values(manifest, layout)
    _clear(folder, [manifest.path, *(p for c in cases for p in manifest.files(c))], overwrite)
    _write_volumes(manifest, folder, layout, values)
    if layout == "nnunet":
        if len(manifest.folds) > 1:
            write_json(folder / SPLITS, splits(manifest))
        content = nnunet_content(manifest, values)
    else:
        content = msd_content(manifest)
    write_json(folder / DATASET, content)  # last: without it, there is no data set
    written = load_manifest(folder)
    written.require_files((*written.training, *written.test))
    _advise(manifest, folder, layout)


def _clear(folder: Path, sources: Iterable[Path], overwrite: bool) -> None:
    """Make sure that the folder is there and empty of an earlier data set.

    Raises:
        OptionError: If it is a file, holds other things, or anything and `overwrite` is not set.
    """
    if folder.suffix == ".json" or (folder.exists() and not folder.is_dir()):
        raise OptionError(f"--output {folder} must be a folder, since a whole data set is written.")
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if there and not overwrite:
        raise OptionError(
            f"{folder} exists and is not empty. Add --overwrite, or choose another --output."
        )
    if foreign := [name for name in there if name not in _PARTS]:
        raise OptionError(
            f"{folder} holds more than a data set ({', '.join(foreign[:5])}). "
            "Choose another --output."
        )
    place = folder.resolve()
    if inside := [path for path in sources if there and path.resolve().is_relative_to(place)]:
        raise OptionError(
            f"{folder} holds files of the source ({inside[0]}). Choose another --output."
        )
    for name in there:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    folder.mkdir(parents=True, exist_ok=True)


def _values(manifest: Manifest, layout: Layout) -> dict[int, int]:
    """Return the value to write for each value in the label files.

    nnU-Net wants consecutive values with `ignore` as the highest; MSD takes any.

    Raises:
        ManifestError: If a class besides 0 has the name that nnU-Net keeps for 0.
    """
    old = list(manifest.labels.values())
    if manifest.ignore_value is not None:
        old.append(manifest.ignore_value)
    if layout == "msd":
        return {value: value for value in old}
    if manifest.labels.get(BACKGROUND, 0) != 0:
        raise ManifestError(
            f"{manifest.path}: the label {BACKGROUND!r} has the value "
            f"{manifest.labels[BACKGROUND]}, which nnU-Net keeps for 0. Give it another name."
        )
    new = {value: index for index, value in enumerate(old)}
    if changed := [f"{value} → {index}" for value, index in new.items() if value != index]:
        log.info("nnU-Net wants consecutive label values: %s", ", ".join(changed))
    return new


def _write_volumes(
    manifest: Manifest, folder: Path, layout: Layout, values: Mapping[int, int]
) -> None:
    """Write images and labels.

    Raises:
        ManifestError: With every case that cannot be converted.
        VolumeError: At once, if the disk refuses.
    """
    parts = [*((c, "Tr") for c in manifest.training), *((c, "Ts") for c in manifest.test)]
    found: list[str] = []
    resampled: list[str] = []
    for case, part in track(parts, f"writing {layout}"):
        try:
            grid, moved = write_images(
                manifest, case, _targets(manifest, folder, case, part, layout)
            )
            if case.label:
                target = folder / f"labels{part}" / f"{case.case_id}.nii.gz"
                write_label(manifest.file(case.label), target, grid, values)
        except (VolumeError, GeometryError) as error:
            if isinstance(error, VolumeError) and error.code == "write-failed":
                raise
            found.append(f"case {case.case_id!r}: {error}")
        else:
            resampled += [case.case_id] if moved else []
    if found:
        raise ManifestError(problems(manifest.path, found))
    if resampled:
        log.info("channels resampled onto the first one's grid in %d cases", len(resampled))


def _targets(manifest: Manifest, folder: Path, case: Case, part: str, layout: Layout) -> list[Path]:
    """Return the image files to write: one for each channel for nnU-Net, one for all for MSD."""
    images = folder / f"images{part}"
    if layout == "msd":
        return [images / f"{case.case_id}.nii.gz"]
    numbers = range(len(manifest.channel_names))
    return [images / f"{case.case_id}_{number:04d}.nii.gz" for number in numbers]


def _advise(manifest: Manifest, folder: Path, layout: Layout) -> None:
    """Say what the other tool still needs."""
    if layout == "msd":
        return
    if not _NNUNET_NAME.fullmatch(folder.resolve().name):
        log.info("nnU-Net wants the folder's name to be like Dataset501_Name")
    if len(manifest.folds) > 1:
        log.info(
            "nnU-Net reads folds from nnUNet_preprocessed/%s/%s: copy %s there after "
            "nnUNetv2_plan_and_preprocess",
            folder.resolve().name, SPLITS, folder / SPLITS,
        )  # fmt: skip
    if any(case.group or case.site for case in manifest.training):
        log.info("nnU-Net has no place for groups and sites: keep the manifest")
