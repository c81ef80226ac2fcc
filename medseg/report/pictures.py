"""Pictures of the cases to look at, from their volumes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from medseg.core.errors import MedsegError
from medseg.io import Volume, read_volume
from medseg.report.choices import Choice, choose
from medseg.report.preview import Preview, preview
from medseg.report.slices import draw, error_centre
from medseg.report.sources import Source


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
        error: What kind of error prevails.
        preview: What the viewer loads, or None where it cannot be opened.
    """

    case_id: str
    reason: str
    scores: str
    place: str = ""
    image: str = ""
    note: str = ""
    error: str = ""
    preview: Preview | None = None


@dataclass(frozen=True)
class Gallery:
    """The pictures of one run.

    Attributes:
        run: Name of the run.
        pictures: The cases.
        hidden: Cases with a lost structure that are not among them.
        left_out: Other cases that were chosen, but are too many.
    """

    run: str
    pictures: Sequence[Picture]
    hidden: int
    left_out: int


def gallery(source: Source, worst: int, viewer_cases: int = 0) -> Gallery:
    """Return pictures of lost structures, the largest first, and of the worst cases of a run.

    Args:
        source: The run.
        worst: Cases of lowest Dice shown for each class.
        viewer_cases: Pictures, the first that can, that carry data for the viewer.
    """
    chosen, hidden, left_out = choose(source, worst)
    pictures: list[Picture] = []
    for case_id, choice in chosen.items():
        carried = sum(picture.preview is not None for picture in pictures)
        pictures.append(_picture(source, case_id, choice, carried < viewer_cases))
    return Gallery(source.name, pictures, hidden, left_out)


def _picture(source: Source, case_id: str, choice: Choice, in_viewer: bool) -> Picture:
    values = {name: source.value(case_id, name, "dice") for name in source.class_names}
    scores = ", ".join(f"{n} {v:.2f}" for n, v in values.items() if not math.isnan(v))
    try:
        image, reference, prediction = _volumes(source, case_id)
    except MedsegError as error:
        return Picture(case_id, choice.words, scores, note=f"No picture. {error}")
    labels = [reference.array, prediction.array]
    value = source.class_value(choice.class_name)
    if value is not None:
        labels = [array == value for array in labels]
    centre = error_centre(labels[0], labels[1], image.grid.spacing)
    return Picture(
        case_id,
        choice.words,
        scores,
        str(centre),
        draw(image, reference, prediction, centre),
        error=error_words(reference.array, prediction.array),
        preview=preview(image, reference, prediction, centre) if in_viewer else None,
    )


def error_words(reference: NDArray[Any], prediction: NDArray[Any]) -> str:
    """Say what kind of error prevails, over all classes."""
    wrong = reference != prediction
    if not wrong.any():
        return "no error"
    counts = {
        "missing": int((wrong & (prediction == 0)).sum()),
        "too much": int((wrong & (reference == 0)).sum()),
        "of the wrong class": int((wrong & (prediction != 0) & (reference != 0)).sum()),
    }
    total = sum(counts.values())
    kind = max(counts, key=counts.__getitem__)
    return f"{total:,} wrong voxels, {100 * counts[kind] / total:.0f} % of them {kind}"


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
