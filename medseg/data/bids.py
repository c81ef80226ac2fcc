"""From a BIDS data set to a manifest: raw images, and segmentations among its derivatives."""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from medseg.core.errors import ManifestError, problems
from medseg.core.manifest import Manifest
from medseg.data.bids_names import BidsFile, parse_name, session_images
from medseg.data.bids_tables import class_names, participant_sites
from medseg.data.labels import labelled
from medseg.data.options import ManifestOptions

log = logging.getLogger("medseg")

DESCRIPTION = "dataset_description.json"

_FOLDERS = ("sub-*/*", "sub-*/ses-*/*")
_NO_CHANNEL = ("dseg", "mask", "probseg", "defacemask")
_SERIES = ("func", "dwi", "fmap", "perf")
"""Folders of time series and calibrations: their images are channels only if asked for."""

_RAW_SPACES = ("orig", "individual", "scanner", "native")
"""Values of the entity `space` that mean the grid of the raw image."""


@dataclass(frozen=True)
class _Job:
    """A case in the making: its name, its session, and its label if it has one."""

    case_id: str
    session: str
    label: BidsFile | None


def read_bids(options: ManifestOptions) -> Manifest:
    """Read a BIDS data set as a manifest; see docs/manifest.md for the rules.

    Raises:
        ManifestError: If it is no BIDS data set, names are ambiguous, or no case is complete.
    """
    source, home = options.source, options.root or options.source
    files = _volumes(source, "")
    images = [file for file in files if file.suffix not in _NO_CHANNEL]
    if not images:
        raise ManifestError(f"{source}: no BIDS image (sub-01/anat/sub-01_T1w.nii.gz) is there.")
    channels = options.channels or tuple(
        sorted({image.suffix for image in images if image.path.parent.name not in _SERIES})
    )
    inner = [*_volumes(source, "derivatives/"), *_volumes(source, "derivatives/*/")]
    labels = _labels([*files, *inner], options, {image.suffix for image in images})
    cases = _cases(_jobs(images, labels, source), images, channels, source)
    used = [label for _, label, _ in cases if label is not None]
    names = class_names(used, source)
    sites = participant_sites(source)
    entries = [_entry(*case, home=home, sites=sites) for case in cases]
    manifest = labelled(entries, options, home, channels, names)
    return _described(manifest, source)


def _volumes(source: Path, prefix: str) -> list[BidsFile]:
    paths = [p for folder in _FOLDERS for p in source.glob(f"{prefix}{folder}/*.nii*")]
    parsed = {path: parse_name(path) for path in sorted(paths) if not path.name.startswith(".")}
    if strange := [str(path.relative_to(source)) for path, file in parsed.items() if file is None]:
        log.warning("no BIDS names, left out: %s", _some(strange))
    return [file for file in parsed.values() if file is not None]


def _labels(
    files: Sequence[BidsFile], options: ManifestOptions, suffixes: set[str]
) -> list[BidsFile]:
    """Return the segmentations on the raw images' grids: dseg, or else masks of one label.

    Raises:
        ManifestError: If there are masks of several labels.
    """
    spaces = {None, *_RAW_SPACES, *suffixes}
    kept: list[BidsFile] = []
    moved: list[BidsFile] = []
    for file in files:
        name = file.path.relative_to(options.source).as_posix()
        wanted = file.suffix == "dseg" or (file.suffix == "mask" and "label" in file.entities)
        if wanted and fnmatch(name, options.labels or "*"):
            (kept if file.entities.get("space") in spaces else moved).append(file)
    if moved:
        names = [file.path.name for file in moved]
        log.warning(
            "labels that are not in the space of the raw images, left out: %s", _some(names)
        )
    if segmentations := [file for file in kept if file.suffix == "dseg"]:
        return segmentations
    masked = sorted({file.entities["label"] for file in kept})
    if len(masked) > 1:
        raise ManifestError(
            f"{options.source}: there are masks of several labels ({', '.join(masked)}) and no "
            f"dseg. Choose with --labels '*_label-{masked[0]}_*', or merge them into dseg files."
        )
    return kept


def _jobs(images: Sequence[BidsFile], labels: Sequence[BidsFile], source: Path) -> list[_Job]:
    """Return one job per label, and one per session without.

    Raises:
        ManifestError: With the cases that have more than one label.
    """
    of_session: dict[str, dict[str, list[BidsFile]]] = defaultdict(lambda: defaultdict(list))
    for label in labels:
        of_session[label.session][label.case_id].append(label)
    found, jobs = [], []
    for session, cases in of_session.items():
        for case_id, rivals in cases.items():
            if len(rivals) > 1:
                names = ", ".join(str(rival.path.relative_to(source)) for rival in rivals)
                found.append(f"{case_id}: more than one label: {names}")
            jobs.append(_Job(case_id if len(cases) > 1 else session, session, rivals[0]))
    if found:
        cure = "Choose with --labels and a pattern, such as 'derivatives/manual/*' or '*_seg-x_*'."
        raise ManifestError(f"{problems(source, found)}\n{cure}")
    bare = sorted({image.session for image in images} - of_session.keys())
    jobs += [_Job(session, session, None) for session in bare]
    return sorted(jobs, key=lambda job: job.case_id)


def _cases(
    jobs: Sequence[_Job], images: Sequence[BidsFile], channels: Sequence[str], source: Path
) -> list[tuple[str, BidsFile | None, list[BidsFile]]]:
    """Find the images of each job.

    Raises:
        ManifestError: If a labelled case's images are ambiguous, or no labelled case is complete.
    """
    of_session: dict[str, list[BidsFile]] = defaultdict(list)
    for image in images:
        of_session[image.session].append(image)
    cases, found, left_out, bare = [], [], [], []
    for job in jobs:
        wanted = {} if job.label is None else job.label.source_entities
        chosen, lacking, ambiguous = session_images(of_session[job.session], channels, wanted)
        if lacking or (ambiguous and job.label is None):
            left_out.append(f"{job.case_id} ({', '.join([*lacking, *ambiguous])})")
        elif ambiguous:
            found += [f"{job.case_id}: {words}" for words in ambiguous]
        else:
            cases.append((job.case_id, job.label, chosen))
            bare += [job.case_id] if job.label is None else []
    how = f"channels are {' '.join(channels)}; choose others with --channels"
    if found:
        cure = f"The {how}, such as acq-x_{channels[0]}."
        raise ManifestError(f"{problems(source, found)}\n{cure}")
    if left_out:
        log.warning("left out, for channels lacking or unclear: %s (%s)", _some(left_out), how)
    if all(label is None for _, label, _ in cases):
        raise ManifestError(
            f"{source}: no session has a label (derivatives/NAME/sub-01/anat/sub-01_dseg.nii.gz) "
            f"and every channel ({how})."
        )
    if bare:
        log.warning("sessions without a label become test cases: %s", _some(bare))
    return cases


def _entry(
    case_id: str, label: BidsFile | None, images: list[BidsFile], home: Path, sites: dict[str, str]
) -> dict[str, Any]:
    subject = f"sub-{images[0].entities['sub']}"
    entry: dict[str, Any] = {
        "case_id": case_id,
        "image": [os.path.relpath(image.path, home) for image in images],
        "group": subject,
        "site": sites.get(subject),
    }
    if label is not None:
        entry["label"] = os.path.relpath(label.path, home)
    return entry


def _described(manifest: Manifest, source: Path) -> Manifest:
    """Return the manifest with the data set's own name and licence."""
    path = source / DESCRIPTION
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path}: cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        return manifest
    name, licence = (str(content.get(key) or "") for key in ("Name", "License"))
    return replace(manifest, name=name or manifest.name, licence=licence)


def _some(names: Sequence[str]) -> str:
    """List names, the first ten of many."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more
