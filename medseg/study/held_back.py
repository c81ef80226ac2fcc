"""Folds that runs train on: without those that are not here, and without their own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from medseg.core.manifest import Manifest, load_manifest
from medseg.study.flags import FOLD
from medseg.study.grid import Run
from medseg.study.roles import FLAGS


def without_held_back(data: Mapping[str, Any], manifest: Manifest) -> list[int] | None:
    """Return the folds that a run trains on, if some are held back and it names none itself.

    Args:
        data: The configuration's section `data`.
        manifest: Its data set. A fold without a single file on this disk is held back.

    Returns:
        All others but the validated one; None if the configuration can stay as it is.
    """
    if data["train_folds"] is not None:
        return None
    present = manifest.present_folds()
    # Without any file it is the root that is wrong, which is said by `require_files`.
    if present in ((), manifest.folds):
        return None
    return [fold for fold in present if fold != data["fold"]]


def of_another_fold(run: Run, data: Mapping[str, Any], varied: Collection[int]) -> bool:
    """Return whether a configuration's training folds were made for one of the folds of a study.

    A plan names them for the fold it validates on; in a cross-validation each run has its own.

    Args:
        run: Its own flags always hold.
        data: The configuration's section `data`.
        varied: Folds that the study's runs validate on.
    """
    flags = {**run.fixed, **run.cell}
    if FOLD not in run.cell or FLAGS["train"] in flags or data["train_folds"] is None:
        return False
    return not set(varied).isdisjoint(data["train_folds"])


def require_files(needs: Iterable[tuple[Mapping[str, Any], int]]) -> None:
    """Check that every file is there that runs train on, choose by or report on.

    Args:
        needs: Of each run the configuration's section `data` and the fold that is reported.

    Raises:
        ManifestError: If not; it says of which folds, and where to get them.
    """
    wanted: dict[tuple[Path, Path | None], set[int] | None] = {}
    for data, reported in needs:
        place = Path(data["manifest"]), data["root"] and Path(data["root"])
        known = wanted.setdefault(place, set())
        if data["train_folds"] is None or known is None:
            wanted[place] = None  # all folds
        else:
            known.update([data["fold"], reported, *data["train_folds"]])
    for place, folds in wanted.items():
        manifest = load_manifest(*place)
        manifest.require_files(manifest.in_folds(manifest.folds if folds is None else folds))
