"""The findings as one self-contained HTML page, with pictures of the cases concerned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.check.cases import open_case
from medseg.check.codes import CODES
from medseg.check.facts import CaseFacts
from medseg.check.findings import SEVERITIES, Finding
from medseg.check.opened import OpenedCase
from medseg.check.output import Result
from medseg.core.geometry import Grid
from medseg.engine.progress import printable
from medseg.io import Volume
from medseg.report.slices import REFERENCE_COLOUR, draw, error_centre
from medseg.report.templating import asset, environment, still_page

MOST_PICTURES = 30
"""Cases that are drawn, errors first; more would make the page heavy, and nobody scrolls so far."""

MOST_BYTES = 512 * 2**20
"""Of an image that is drawn; a larger one would take longer than its check."""


@dataclass(frozen=True)
class Picture:
    """One case to look at.

    Attributes:
        case_id: The case.
        codes: What was found in it.
        image: PNG as a data URI, or "" where there is none.
        note: Where the slices cross, or why there is no picture.
    """

    case_id: str
    codes: str
    image: str
    note: str


def render(result: Result) -> str:
    """Return the page."""
    templates = environment("medseg.check")
    templates.filters["printable"] = printable
    style = f":root {{ --reference: {REFERENCE_COLOUR}; }}\n{asset('style.css')}"
    style += asset("check.css", "medseg.check")
    flagged = _flagged(result)
    return still_page(
        templates,
        "check.html",
        style,
        manifest=result.manifest,
        facts=_facts(result),
        groups=_groups(result.findings),
        pictures=[_picture(case, found) for case, found in flagged[:MOST_PICTURES]],
        hidden=max(len(flagged) - MOST_PICTURES, 0),
    )


def _facts(result: Result) -> list[tuple[str, str]]:
    """Return the numbers above the findings."""
    numbers = Counter(found.severity for found in result.findings)
    manifest = result.manifest
    return [
        ("Cases checked", str(result.checked)),
        *((f"{name.capitalize()}s" if name != "info" else "Notes", str(numbers[name]))
          for name in SEVERITIES),
        ("Channels", ", ".join(manifest.channel_names)),
        ("Classes", ", ".join(manifest.class_names[1:])),
        ("Folds", ", ".join(map(str, manifest.folds)) or "none"),
        ("Data digest", manifest.digest),
    ]  # fmt: skip


def _groups(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return the findings by severity and code, with what each code means."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for found in findings:
        groups.setdefault((found.severity, found.code), []).append(found)
    return [
        {
            "severity": severity,
            "code": code,
            "meaning": CODES[code].meaning if code in CODES else "told by the strict reader",
            "rows": rows,
        }
        for (severity, code), rows in groups.items()
    ]


def _flagged(result: Result) -> list[tuple[CaseFacts, list[Finding]]]:
    """Return the cases with an error or a warning, errors first."""
    by_name: dict[str, list[Finding]] = {}
    for found in result.findings:
        if found.case_id and found.severity != "info":
            by_name.setdefault(found.case_id, []).append(found)
    cases = {case.job.case_id: case for case in reversed(result.facts.cases)}
    return [(cases[name], found) for name, found in by_name.items() if name in cases]


def _picture(facts: CaseFacts, findings: Sequence[Finding]) -> Picture:
    codes = ", ".join(dict.fromkeys(found.code for found in findings))
    voxels = sum(int(np.prod(image.grid.shape)) for image in facts.images)
    if voxels * np.dtype(np.float32).itemsize > MOST_BYTES:
        return Picture(facts.job.case_id, codes, "", "Too large for a picture.")
    case, _ = open_case(facts.job)
    image = next(iter(case.images.values()), None)
    if image is None:
        return Picture(facts.job.case_id, codes, "", "No image that could be read.")
    label = _label_on(image.grid, case)
    centre = error_centre(label, np.zeros_like(label), image.grid.spacing)
    volumes = [Volume(array, image.grid) for array in (label, np.zeros_like(label))]
    png = draw(image, volumes[0], volumes[1], centre, whole=not label.any())
    note = f"Slices through voxel {centre}." if label.any() else "No label to be drawn."
    return Picture(facts.job.case_id, codes, png, note)


def _label_on(grid: Grid, case: OpenedCase) -> NDArray[np.uint8]:
    """Return the classes of the label as they lie on an image's grid, in world space."""
    if case.label is None:
        return np.zeros(grid.shape, dtype=np.uint8)
    values = case.job.label_values
    classes = np.zeros(case.label.grid.shape, dtype=np.uint8)
    for number, value in enumerate(values[1:], start=1):
        classes[np.rint(case.label.array) == value] = number
    if case.label.grid.agreement(grid) != "different":
        return classes
    between = np.linalg.inv(case.label.grid.affine) @ grid.affine
    return np.asarray(
        ndimage.affine_transform(
            classes, between[:3, :3], between[:3, 3], output_shape=grid.shape, order=0
        )
    )
