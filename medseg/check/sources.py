"""Which cases are checked: those of a manifest or a pair of folders, and files beside them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg.check.findings import Finding, finding
from medseg.check.leaks import contradictions
from medseg.check.opened import CaseJob
from medseg.core.errors import ManifestError, VolumeError
from medseg.core.manifest import (
    VOLUME_ENDINGS,
    Case,
    Manifest,
    case_id_of,
    load_manifest,
    parse_manifest,
)
from medseg.engine.progress import printable
from medseg.io import read_volume

IMAGES, LABELS = "images", "labels"
"""Folders of a data set without a manifest."""

MOST_VALUES = 255
"""More values than this in a label file: it is an image, or a soft label."""

MOST_UNLISTED = 10
"""Unlisted files of a folder; if there are more, and more than listed ones, it is a selection."""

log = logging.getLogger("medseg")


def open_data_set(path: Path, root: Path | None) -> tuple[Manifest, list[Finding]]:
    """Read a manifest, or build one of a folder with images/ and labels/.

    Returns:
        The data set, and what its list of cases contradicts or lacks.

    Raises:
        ManifestError: If it is no manifest at all.
    """
    if path.is_dir() and not (path / "dataset.json").is_file():
        return _folders(path, root)
    words: list[str] = []
    manifest = load_manifest(path, root, words)
    return manifest, list(contradictions(manifest, words))


def _folders(folder: Path, root: Path | None) -> tuple[Manifest, list[Finding]]:
    """Pair images and labels by name.

    Unlike `medseg manifest` this goes on where a file is bad, since that is what is looked for.
    """
    home = root or folder
    images, labels = (_volumes(folder / name) for name in (IMAGES, LABELS))
    if not images:
        raise ManifestError(
            f"{folder} holds neither a dataset.json nor volumes in {IMAGES}/. "
            "Name a manifest, or build one with `medseg manifest`."
        )
    by_name = {case_id_of(path.name): path for path in labels}
    entries: list[dict[str, Any]] = []
    for image in images:
        label = by_name.get(case_id_of(image.name))
        entry: dict[str, Any] = {"image": os.path.relpath(image, home)}
        entries.append(entry if label is None else entry | {"label": os.path.relpath(label, home)})
    values = {f"class_{value}": value for value in _label_values(labels)}
    content = {
        "name": folder.resolve().name,
        "channel_names": {"0": "image"},
        "labels": {"background": 0, **(values or {"class_1": 1})},
        "training": [entry for entry in entries if "label" in entry],
        "test": [entry for entry in entries if "label" not in entry],
    }
    words: list[str] = []
    manifest = parse_manifest(content, folder, home, words)
    found = list(contradictions(manifest, words))
    names = {case_id_of(path.name) for path in images}
    found += [
        finding("error", "label-without-image", case_id, f"{path}: no image of this name", path)
        for case_id, path in by_name.items()
        if case_id not in names
    ]
    if labels:
        found += [
            finding("warning", "image-without-label", case.case_id,
                    f"{manifest.file(case.images[0])}: no label of this name",
                    manifest.file(case.images[0]))
            for case in manifest.test
        ]  # fmt: skip
    return manifest, found


def _volumes(folder: Path) -> list[Path]:
    """Return the volume files of a folder, a pair .hdr/.img by its .hdr."""
    if not folder.is_dir():
        return []
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name.lower().endswith(VOLUME_ENDINGS) and not path.name.startswith(".")
    ]


def _label_values(labels: Sequence[Path]) -> list[int]:
    """Return the foreground values of all label files that can be read."""
    values: set[int] = set()
    for path in labels:
        try:
            here = np.unique(np.rint(read_volume(path, channels=1, non_finite="zero").array))
        except VolumeError:
            continue  # the check of its case will say why
        if len(here) <= MOST_VALUES:
            values.update(int(value) for value in here if value > 0)
    return sorted(values)[:MOST_VALUES]


def unlisted_jobs(
    manifest: Manifest, known: Sequence[Finding]
) -> tuple[list[CaseJob], list[Finding]]:
    """Find volumes that lie in the folders of listed files, but in no case.

    Args:
        manifest: The data set.
        known: What was found already; a file that is named there is not named again.

    Returns:
        A job for each, so that it is compared with the listed ones, and a finding.
    """
    cases = (*manifest.training, *manifest.test)
    images = {manifest.file(name) for case in cases for name in case.images}
    labels = {manifest.file(case.label) for case in cases if case.label}
    label_folders = {path.parent for path in labels} - {path.parent for path in images}
    told = {name for found in known for name in found.files}
    jobs: list[CaseJob] = []
    found: list[Finding] = []
    for folder, paths in _beside(images | labels):
        listed = sum(path.parent == folder and path.exists() for path in images | labels)
        if len(paths) > max(MOST_UNLISTED, listed):
            log.info("%s: %d volumes are in no case; the manifest is a selection of the folder",
                     printable(str(folder)), len(paths))  # fmt: skip
            continue
        jobs += [_unlisted(path, manifest, folder in label_folders) for path in paths]
        found += [
            finding("warning", "unlisted-file", case_id_of(path.name),
                    f"{path}: in no case of the manifest", path)
            for path in paths
            if str(path) not in told
        ]  # fmt: skip
    return jobs, found


def _unlisted(path: Path, manifest: Manifest, is_label: bool) -> CaseJob:
    job = CaseJob.of(Case(case_id_of(path.name), ()), manifest, "unlisted")
    if any(len(case.images) > 1 for case in (*manifest.training, *manifest.test)):
        job = replace(job, channel_names=("unlisted",))  # one file per channel
    return replace(job, label=path) if is_label else replace(job, images=(path,))


def _beside(listed: set[Path]) -> Iterator[tuple[Path, list[Path]]]:
    """Yield each folder of listed files with the volumes in it that are not listed."""
    known = {path.resolve() for path in listed}
    for folder in sorted({path.parent for path in listed if path.exists()}):
        paths = [path for path in _volumes(folder) if path.resolve() not in known]
        if paths:
            yield folder, paths
