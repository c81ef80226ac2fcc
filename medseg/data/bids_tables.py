"""The tables beside BIDS volumes: class names of segmentations, sites of participants."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from medseg.core.errors import ManifestError, problems
from medseg.data.bids_names import BidsFile, entities_of

_TABLE = "dseg.tsv"


def class_names(labels: Iterable[BidsFile], source: Path) -> dict[int, str]:
    """Return class names by value, from the dseg.tsv files that apply to `labels`.

    A table applies to the segmentations in its folder and below whose names hold its entities; the
    nearest folder counts (BIDS, inheritance principle). A mask is named by its `label` entity.

    Raises:
        ManifestError: If tables cannot be read, or contradict each other.
    """
    tables: dict[Path, dict[int, str]] = {}
    names: dict[int, str] = {}
    found = []
    for label in labels:
        if label.suffix == "mask":
            names[1] = label.entities["label"]
            continue
        path = _table_of(label, source)
        if path is None or path in tables:
            continue
        tables[path] = _read_names(path)
        for value, name in tables[path].items():
            if names.setdefault(value, name) != name:
                found.append(f"value {value} is {names[value]!r}, but {name!r} in {path}")
    if found:
        raise ManifestError(problems(source, found))
    return names


def _table_of(label: BidsFile, source: Path) -> Path | None:
    folder = label.path.parent
    while True:
        fitting = {
            path: len(entities)
            for path in sorted(folder.glob(f"*{_TABLE}"))
            if (entities := entities_of(path.name.removesuffix(_TABLE)).items())
            <= label.entities.items()
        }
        if fitting:
            return max(fitting, key=fitting.__getitem__)
        if folder in (source, folder.parent):
            return None
        folder = folder.parent


def _read_names(path: Path) -> dict[int, str]:
    names = {}
    for row in _rows(path, "index", "name"):
        try:
            value = int(row["index"])
        except ValueError as error:
            raise ManifestError(
                f"{path}: `index` must be a whole number; got {row['index']!r}."
            ) from error
        if name := " ".join(row["name"].split()):
            names[value] = name
    return names


def participant_sites(source: Path) -> dict[str, str]:
    """Return the site of each participant (`sub-01`) from participants.tsv, if it has them.

    Raises:
        ManifestError: If there is such a file, but it cannot be read.
    """
    path = source / "participants.tsv"
    if not path.exists():
        return {}
    return {
        row["participant_id"]: row["site"]
        for row in _rows(path, "participant_id")
        if row.get("site") not in (None, "", "n/a")  # BIDS writes n/a for what is not known
    }


def _rows(path: Path, *needed: str) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, delimiter="\t", restval="")
            rows, columns = list(table), table.fieldnames or []
    except (OSError, ValueError, csv.Error) as error:
        raise ManifestError(f"{path}: cannot be read as a table ({error}).") from error
    if absent := [name for name in needed if name not in columns]:
        raise ManifestError(
            f"{path}: column {', '.join(absent)} is missing; columns are separated by tabs."
        )
    return [{k: v.strip() for k, v in row.items() if isinstance(v, str)} for row in rows]
