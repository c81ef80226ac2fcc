"""Folds that are not here, such as a held-back test fold, and files that must be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medseg.core.manifest import Manifest, load_manifest


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
