"""Where manifests come from: MSD, nnU-Net, BIDS, tables, pairs of folders."""

from __future__ import annotations

import csv
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medseg.core.errors import ManifestError, OptionError, problems, suggestion
from medseg.core.manifest import VOLUME_ENDINGS, Manifest, case_id_of, load_manifest
from medseg.data.bids import read_bids
from medseg.data.labels import labelled
from medseg.data.options import ManifestOptions
from medseg.io.dicom_files import holds_dicom

log = logging.getLogger("medseg")

SPLITS = "splits_final.json"
"""nnU-Net's folds, beside its dataset.json."""

_CASE_COLUMNS = ("case_id", "fold", "group", "site")


def read_source(options: ManifestOptions) -> Manifest:
    """Read `options.source`, whatever it is, as a manifest.

    Raises:
        OptionError: If it is of no known kind.
        ManifestError: If it is wrong.
    """
    kind = _kind_of(options) if options.format == "auto" else options.format
    manifest = _READERS[kind](options)
    if options.name:
        manifest = replace(manifest, name=options.name)
    if options.channels:
        manifest = replace(manifest, channel_names=options.channels)
    return manifest


def _kind_of(options: ManifestOptions) -> str:
    source = options.source
    if (source / "dataset.json").is_file() or source.suffix == ".json":
        return "msd"
    if source.suffix == ".csv":
        return "csv"
    if (source / "dataset_description.json").is_file():
        return "bids"
    if (source / options.images).is_dir():
        return "folders"
    if not source.exists():
        raise OptionError(f"--source {source}: no such file or folder.")
    raise OptionError(
        f"--source {source} is neither a .json or .csv file nor a folder with dataset.json, "
        f"dataset_description.json or {options.images}/. "
        "Name the folders with --images and --labels."
    )


def _read_json(options: ManifestOptions) -> Manifest:
    manifest = load_manifest(options.source, options.root)
    splits = manifest.path.with_name(SPLITS)
    if manifest.folds or not splits.is_file():
        return manifest
    return _with_splits(manifest, splits)


def _with_splits(manifest: Manifest, splits: Path) -> Manifest:
    """Return the manifest with the folds of nnU-Net's splits_final.json.

    Raises:
        ManifestError: If the splits do not put each training case into one fold.
    """
    try:
        content = json.loads(splits.read_text(encoding="utf-8"))
        folds = [str(name) for split in content for name in split["val"]]
        fold_of = {str(name): fold for fold, split in enumerate(content) for name in split["val"]}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ManifestError(
            f"{splits} is not a list of splits with `train` and `val` ({error}). "
            "Correct it, or move it away."
        ) from error
    if sorted(folds) != sorted(case.case_id for case in manifest.training):
        raise ManifestError(
            f"{splits}: the `val` lists do not name each training case of {manifest.path} once. "
            "Correct the file, or move it away and draw folds with --folds."
        )
    cases = [replace(case, fold=fold_of[case.case_id]) for case in manifest.training]
    return replace(manifest, training=tuple(cases))


def _read_csv(options: ManifestOptions) -> Manifest:
    """Read a table with one row per case."""
    source = options.source
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            rows, columns = list(table), list(table.fieldnames or [])
    except (OSError, ValueError, csv.Error) as error:
        raise ManifestError(f"{source}: cannot be read as CSV ({error}).") from error
    channels = [name for name in columns if name == "image" or _is_channel(name)]
    known = [*channels, "label", *_CASE_COLUMNS]
    found = [
        f"unknown column {name!r}.{suggestion(name, known)}"
        for name in columns
        if name not in known
    ]
    if "image" not in columns or "label" not in columns:
        found.append(f"columns `image` and `label` are needed, separated by commas; got {columns}")
    if found:
        raise ManifestError(problems(source, found))
    home = options.root or source.parent
    cases = [_row_case(row, channels, home) for row in rows]
    return labelled(cases, options, home, channels)


def _is_channel(column: str) -> bool:
    return column.startswith("image_") and column.removeprefix("image_").isdecimal()


def _row_case(row: Mapping[str, str | None], channels: Sequence[str], home: Path) -> dict[str, Any]:
    """Return a manifest entry; empty cells are left out, and a fold is a number if it can be."""
    cells = {name: (cell or "").strip() for name, cell in row.items() if isinstance(name, str)}
    entry: dict[str, Any] = {name: cells[name] for name in _CASE_COLUMNS if cells.get(name)}
    if entry.get("fold", "").isdecimal():
        entry["fold"] = int(entry["fold"])
    images = [_inside(cells[name], home) for name in channels if cells[name]]
    entry["image"] = images if len(images) > 1 else "".join(images)
    if cells["label"]:
        entry["label"] = _inside(cells["label"], home)
    return entry


def _inside(path: str, home: Path) -> str:
    """Return an absolute path that lies in `home` as a relative one, any other as it is."""
    if not Path(path).is_absolute():
        return path
    relative = os.path.relpath(path, home)
    return path if relative.startswith("..") else relative


def _read_folders(options: ManifestOptions) -> Manifest:
    """Pair the files of two folders by their names without endings."""
    home = options.root or options.source
    images = _volumes(options.source / options.images)
    labels = _volumes(options.source / (options.labels or "labels"))
    if stray := sorted(labels.keys() - images.keys()):
        log.warning("labels without an image are left out: %s", ", ".join(stray))
    if bare := sorted(images.keys() - labels.keys()):
        log.warning("images without a label become test cases: %s", ", ".join(bare))
    cases = []
    for case_id, image in images.items():
        entry = {"image": os.path.relpath(image, home)}
        if case_id in labels:
            entry["label"] = os.path.relpath(labels[case_id], home)
        cases.append(entry)
    return labelled(cases, options, home, ["image"])


def _volumes(folder: Path) -> dict[str, Path]:
    """Return the volumes of a folder by case id.

    Raises:
        ManifestError: If there is no such folder, or two files have one case id.
    """
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder. Name it with --images or --labels.")
    files = [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and _is_volume(path)
    ]
    twice = [name for name, n in Counter(case_id_of(path.name) for path in files).items() if n > 1]
    if twice:
        raise ManifestError(f"{folder}: more than one file for {', '.join(twice)}. Keep one.")
    return {case_id_of(path.name): path for path in files}


def _is_volume(path: Path) -> bool:
    return holds_dicom(path) if path.is_dir() else path.name.lower().endswith(VOLUME_ENDINGS)


_READERS: Mapping[str, Callable[[ManifestOptions], Manifest]] = {
    "msd": _read_json,
    "nnunet": _read_json,
    "bids": read_bids,
    "csv": _read_csv,
    "folders": _read_folders,
}
