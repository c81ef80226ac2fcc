"""Where manifests come from: MSD and nnU-Net, tables, pairs of folders."""

from __future__ import annotations

import csv
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg.core.errors import ManifestError, OptionError, VolumeError, problems, suggestion
from medseg.core.manifest import ENDINGS, Manifest, case_id_of, load_manifest, parse_manifest
from medseg.data.options import ManifestOptions
from medseg.io import read_volume

log = logging.getLogger("medseg")

MAX_VALUES = 255
"""More values than this in a label file: it is an image, or a soft label."""

_CASE_COLUMNS = ("case_id", "fold", "group")


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
    if (source / options.images).is_dir():
        return "folders"
    if not source.exists():
        raise OptionError(f"--source {source}: no such file or folder.")
    raise OptionError(
        f"--source {source} is neither a .json or .csv file nor a folder with dataset.json or "
        f"{options.images}/. Name the folders with --images and --labels."
    )


def _read_json(options: ManifestOptions) -> Manifest:
    return load_manifest(options.source, options.root)


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
    return _labelled(cases, options, home, channels)


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
    labels = _volumes(options.source / options.labels)
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
    return _labelled(cases, options, home, ["image"])


def _volumes(folder: Path) -> dict[str, Path]:
    """Return the volumes of a folder by case id.

    Raises:
        ManifestError: If there is no such folder, or two files have one case id.
    """
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder. Name it with --images or --labels.")
    endings = tuple(ending for ending in ENDINGS if ending != ".img")  # its .hdr stands for it
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.name.lower().endswith(endings) and not path.name.startswith(".")
    ]
    twice = [name for name, n in Counter(case_id_of(path.name) for path in files).items() if n > 1]
    if twice:
        raise ManifestError(f"{folder}: more than one file for {', '.join(twice)}. Keep one.")
    return {case_id_of(path.name): path for path in files}


def _labelled(
    cases: Iterable[dict[str, Any]], options: ManifestOptions, home: Path, channels: Sequence[str]
) -> Manifest:
    """Build a manifest of cases whose label values are known only from the files."""
    listed = list(cases)
    content = {
        "name": options.source.resolve().stem,
        "channel_names": {str(i): name for i, name in enumerate(options.channels or channels)},
        "labels": {"background": 0, "unknown": 1},
        "training": [case for case in listed if "label" in case],
        "test": [case for case in listed if "label" not in case],
    }
    checked = parse_manifest(content, options.source, home)
    values = _label_values(checked)
    names = {f"class_{value}": value for value in values if value > 0}
    return replace(checked, labels={"background": 0, **names})


def _label_values(manifest: Manifest) -> list[int]:
    """Return all values of the label files.

    Raises:
        ManifestError: With every file that is not a label map.
    """
    log.info("reading the label values of %d files", len(manifest.training))
    values: set[int] = set()
    found = []
    for case in manifest.training:
        path = manifest.file(str(case.label))
        try:
            here = np.unique(read_volume(path, channels=1, non_finite="error").array)
        except VolumeError as error:
            found.append(str(error))
            continue
        if len(here) > MAX_VALUES or here[0] < 0 or not np.array_equal(here, np.rint(here)):
            found.append(
                f"{path}: not a label map: {len(here)} values from {here[0]} to {here[-1]}"
            )
            continue
        values.update(int(value) for value in here)
    if found:
        raise ManifestError(problems(manifest.path, found))
    return sorted(values)


_READERS: Mapping[str, Callable[[ManifestOptions], Manifest]] = {
    "msd": _read_json,
    "nnunet": _read_json,
    "csv": _read_csv,
    "folders": _read_folders,
}
