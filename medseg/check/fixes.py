"""`--fix`: repaired copies of what is safe to repair, links to the rest, never the originals."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from medseg.check.findings import Finding
from medseg.check.output import Result
from medseg.core.errors import OptionError, VolumeError
from medseg.core.geometry import Grid
from medseg.core.manifest import Case, Manifest
from medseg.engine.progress import printable
from medseg.io import read_volume, write_label_map, write_volume
from medseg.io.labels import whole_numbers
from medseg.io.write import label_dtype

log = logging.getLogger("medseg")

HEADER_CODES = ("spacing-conflict", "form-conflict", "units", "trailing-data")
"""Ambiguities that the reader resolves in the one sensible way, and a fresh header ends."""

LABEL_CODES = ("label-grid-close", "label-rounding")

SAFE = (*HEADER_CODES, *LABEL_CODES)

WRITABLE = (".nii", ".nii.gz", ".mha", ".nrrd")
"""Formats that can be written; a file of another stays as it is."""

FOLDER = "fixed"


def require_fix_output(output: Path | None, manifest: Manifest) -> None:
    """Refuse an output into which repaired copies could not be written safely.

    Raises:
        OptionError: If it is no folder, lies in the data set or around it, or holds copies already.
    """
    if output is None or output.suffix in (".json", ".txt", ".html"):
        raise OptionError(
            f"--fix needs --output FOLDER, where FOLDER/{FOLDER} becomes the repaired data set."
        )
    home, target = manifest.root.resolve(), (output / FOLDER).resolve()
    if target.is_relative_to(home) or home.is_relative_to(target):
        raise OptionError(
            f"--output {output} lies within the data set {manifest.root}: originals are never "
            "written to. Choose a folder elsewhere."
        )
    if (output / FOLDER).is_symlink() or (target.exists() and not target.is_dir()):
        raise OptionError(f"{output / FOLDER} is no folder of its own. Choose another --output.")
    if target.is_dir() and any(target.iterdir()):
        raise OptionError(f"{output / FOLDER} is not empty. Remove it, or choose another --output.")


def fix(result: Result, output: Path) -> None:
    """Write the repaired data set, and say what was repaired and what was not.

    Raises:
        OptionError: If it cannot be written.
    """
    target = output / FOLDER
    wanted: dict[str, set[str]] = {}
    for found in result.findings:
        if found.code in SAFE and found.files:
            wanted.setdefault(found.files[0], set()).add(found.code)
    repaired = 0
    try:
        for case in (*result.manifest.training, *result.manifest.test):
            repaired += _fix_case(case, result.manifest, wanted, target)
    except OSError as error:
        raise OptionError(f"{target} cannot be written ({error.strerror or error}).") from error
    log.info("%s: %d files repaired, the others linked", target, repaired)
    for line in _left(result.findings):
        log.info("not safe to repair: %s", printable(line))


def _left(findings: Sequence[Finding]) -> Iterator[str]:
    """Name the errors that stay, by code."""
    codes = dict.fromkeys(f.code for f in findings if f.severity == "error" and f.code not in SAFE)
    for code in codes:
        names = sorted({f.case_id or "the data set" for f in findings if f.code == code})
        yield f"{code}: {', '.join(names)}"


def _fix_case(case: Case, manifest: Manifest, wanted: Mapping[str, set[str]], target: Path) -> int:
    """Write or link each file of a case and return how many were repaired."""
    repaired = 0
    for name in filter(None, (*case.images, case.label)):
        source = manifest.file(name)
        codes = wanted.get(str(source), set())
        if not source.exists():
            continue
        if codes and _repair(case, name, codes, manifest, target):
            repaired += 1
        else:
            _link(source, target / name)
    return repaired


def _repair(case: Case, name: str, codes: set[str], manifest: Manifest, target: Path) -> bool:
    """Write a repaired copy; return whether that was possible."""
    path, source = target / name, manifest.file(name)
    if path.is_symlink() or path.exists():
        return False  # another case lists the same file
    if not name.lower().endswith(WRITABLE):
        log.warning("not repaired, its format is not written: %s", printable(str(source)))
        return False
    try:
        # Values stay as they are: what is not finite is for a person to decide.
        volume = read_volume(source, non_finite="keep")
        grid = volume.grid
        if "label-grid-close" in codes:
            grid = read_volume(manifest.file(case.images[0]), non_finite="keep").grid
        if name == case.label:
            _write_label(path, volume.array.reshape(grid.shape, order="F"), grid, manifest)
        else:
            write_volume(path, volume.array, grid)
    except VolumeError as error:
        log.warning("not repaired: %s", printable(str(error)))
        return False
    log.info("repaired (%s): %s", ", ".join(sorted(codes)), printable(str(path)))
    return True


def _write_label(path: Path, array: NDArray[Any], grid: Grid, manifest: Manifest) -> None:
    """Write labels in the smallest type for the table; what is no label stays as it is."""
    try:
        whole = whole_numbers(path, array)
    except VolumeError:
        write_volume(path, array, grid)
        return
    highest = max(*manifest.labels.values(), manifest.ignore_value or 0, int(whole.max()))
    write_label_map(path, whole, grid, label_dtype(highest))


def _link(source: Path, path: Path) -> None:
    """Link a file, and the .img beside a .hdr."""
    if path.is_symlink() or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(source.resolve())
    for ending in (".img", ".img.gz"):
        twin = source.with_suffix(ending)
        if source.suffix == ".hdr" and twin.exists():
            path.with_suffix(ending).symlink_to(twin.resolve())
