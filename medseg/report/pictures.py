"""Which cases are shown as pictures, and their volumes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medseg.core.errors import MedsegError
from medseg.io import Volume, read_volume
from medseg.report.slices import draw, error_centre
from medseg.report.sources import Source

MOST_LOST = 5
"""Cases with a missed or invented structure shown for each run, besides the worst."""


@dataclass(frozen=True)
class Picture:
    """One case to look at.

    Attributes:
        case_id: The case.
        reason: Why it is shown.
        scores: Dice of each class, in words.
        place: Voxel the slices cross in, or "" without an image.
        image: PNG as a data URI, or "" where there is none.
        note: Why there is none.
    """

    case_id: str
    reason: str
    scores: str
    place: str = ""
    image: str = ""
    note: str = ""


@dataclass(frozen=True)
class Gallery:
    """The pictures of one run.

    Attributes:
        run: Name of the run.
        pictures: The cases.
        hidden: Cases with a lost structure that are not among them.
    """

    run: str
    pictures: Sequence[Picture]
    hidden: int


@dataclass(frozen=True)
class Lost:
    """What was lost in one case.

    Attributes:
        words: Every lost structure, in words.
        largest: Class of the largest one.
        volume_ml: Volume of that one.
    """

    words: str
    largest: str
    volume_ml: float


def gallery(source: Source, worst: int) -> Gallery:
    """Return pictures of lost structures, the largest first, and of the worst cases of a run."""
    lost = lost_structures(source)
    shown = list(lost)[:MOST_LOST]
    known = [case_id for case_id in source.case_ids if not math.isnan(source.case_dice(case_id))]
    shown += [c for c in sorted(known, key=source.case_dice)[:worst] if c not in shown]
    pictures = [_picture(source, case_id, lost.get(case_id)) for case_id in shown]
    return Gallery(source.name, pictures, len(lost.keys() - set(shown)))


def lost_structures(source: Source) -> Mapping[str, Lost]:
    """Return what was lost in each case that lost something, the largest volume first."""
    found: dict[str, Lost] = {}
    for case_id, name, status in source.lost():
        word, side = ("missed", "ref") if status == "missed" else ("invented", "pred")
        size = source.value(case_id, name, f"volume_{side}_ml")
        new = Lost(f"{name} {word}", name, 0.0 if math.isnan(size) else size)
        old = found.get(case_id)
        if old:
            larger = max(old, new, key=lambda lost: lost.volume_ml)
            new = replace(larger, words=f"{old.words}, {new.words}")
        found[case_id] = new
    return dict(sorted(found.items(), key=lambda item: -item[1].volume_ml))


def _picture(source: Source, case_id: str, lost: Lost | None) -> Picture:
    values = {name: source.value(case_id, name, "dice") for name in source.class_names}
    scores = ", ".join(f"{n} {v:.2f}" for n, v in values.items() if not math.isnan(v))
    reason = lost.words if lost else "among the lowest mean Dice"
    try:
        image, reference, prediction = _volumes(source, case_id)
    except MedsegError as error:
        return Picture(case_id, reason, scores, note=f"No picture. {error}")
    labels = [reference.array, prediction.array]
    value = source.class_value(lost.largest) if lost else None
    if value is not None:
        labels = [array == value for array in labels]
    centre = error_centre(labels[0], labels[1], image.grid.spacing)
    png = draw(image, reference, prediction, centre)
    return Picture(case_id, reason, scores, str(centre), png)


def _volumes(source: Source, case_id: str) -> tuple[Volume, Volume, Volume]:
    """Read image, reference and prediction of a case.

    Raises:
        MedsegError: If one is not known, not there, not readable, or on another grid.
    """
    record = source.journal.get(case_id, {})
    image, output = _file(record, "image"), _file(record, "output")
    reference = source.reference_file(case_id) or _file(record, "reference")
    prediction = source.predictions / output
    absent = [path for path in (image, reference, prediction) if not path.is_file()]
    if absent:
        hint = "" if all(path.is_absolute() for path in absent) else (
            " Paths are relative to the folder `medseg predict` was called in: "
            "write the report there."
        )  # fmt: skip
        raise MedsegError(f"Not there: {', '.join(map(str, absent))}.{hint}")
    background = read_volume(image, non_finite="zero")
    labels = [read_volume(path, channels=1, non_finite="zero") for path in (reference, prediction)]
    for name, volume in zip(("reference", "prediction"), labels, strict=True):
        if not volume.grid.is_same(background.grid):
            raise MedsegError(
                f"The {name} lies on another grid than the image: "
                f"{volume.grid.difference(background.grid)}."
            )
    return background, labels[0], labels[1]


def _file(record: Mapping[str, Any], key: str) -> Path:
    value = record.get(key)
    if isinstance(value, list) and value:
        value = value[0]  # the first channel
    if not isinstance(value, str):
        raise MedsegError(f"predictions.jsonl names no {key} of this case.")
    return Path(value)
