"""What a run of a study does besides its steps, counted before it is done."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.core.errors import MedsegError
from medseg.core.geometry import Grid
from medseg.core.manifest import Manifest
from medseg.data.transforms import Preprocessing, canonical_grid
from medseg.io.read import read_grid
from medseg.networks.norms import NORMS
from medseg.networks.tiling import window_corners
from medseg.study.after import CASES, PATCHES
from medseg.study.doctor_invariance import ALTERATIONS
from medseg.study.doctor_probes import DRAWS
from medseg.study.flags import PROBES
from medseg.study.planned import LoadManifest, Planned, manifest_of

SEEN = 8
"""Cases of a fold whose windows are counted; the others are taken to have as many."""

LOOKS = 4 + 1 + 1 + len(ALTERATIONS)
"""How often what is measured after a training labels a case: with four kinds of windows, a training
case, to be timed, and altered."""

STATISTICS_LOOKS = 3
"""Besides, where statistics move: by precise ones, to find its own, and by these."""


@dataclass(frozen=True)
class Work:
    """Windows that go through a network forwards, and cases that are read.

    Attributes:
        validated: Windows of one validation.
        labelled: Windows of predict and of what is measured afterwards.
        cases: Cases of the same, each as often as it is labelled.
    """

    validated: float
    labelled: float
    cases: float


def work_of(entry: Planned, load: LoadManifest) -> Work:
    """Return what a run does; the files of its cases are there."""
    manifest = manifest_of(entry.settings["data"], load)
    validated, reported = (len(manifest.in_folds([f])) for f in (entry.fold, entry.reported))
    of_validated = _windows(manifest, entry.fold, entry.settings)
    labelled = reported * _windows(manifest, entry.reported, entry.settings)
    looked = 0
    if entry.run.fixed.get(PROBES):
        row = NORMS[entry.settings["model"]["norm"]]
        looks = LOOKS + row.folds + (STATISTICS_LOOKS if row.eval_differs else 0)
        looked = looks * min(validated, CASES)
        labelled += looked * of_validated + PATCHES + DRAWS
    return Work(validated * of_validated, labelled, reported + looked)


def _windows(manifest: Manifest, fold: int, settings: Mapping[str, Any]) -> float:
    """Return the mean windows of a case of a fold; 1 if no header can be read."""
    preprocessing = Preprocessing(**settings["data"]["preprocessing"])
    patch, overlap = settings["data"]["patch_size"], settings["model"]["overlap"]
    counts = []
    for case in manifest.in_folds([fold])[:SEEN]:
        try:
            grid = _grid(manifest.file(case.images[0]))
        except MedsegError:  # its training will say so
            continue
        shape = canonical_grid(grid, preprocessing).shape
        padded = [max(length, roi) for length, roi in zip(shape, patch, strict=True)]
        counts.append(math.prod(map(len, window_corners(padded, patch, overlap))))
    return sum(counts) / len(counts) if counts else 1.0


@functools.lru_cache(maxsize=1024)
def _grid(path: Path) -> Grid:
    return read_grid(path)
