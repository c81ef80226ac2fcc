"""What the text headers of MetaImage and NRRD share."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medseg.core.errors import VolumeError
from medseg.io.layout import WRITE_AGAIN

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From the patient coordinates of DICOM and ITK to those of NIfTI."""

MOST = 2.0**53
"""Whole numbers beyond are not exact, and nothing is counted so far."""

_UNITS = {
    1.0: ("mm", "millimeter", "millimeters", "millimetre", "millimetres"),
    0.001: ("um", "\u00b5m", "\u03bcm", "micron", "microns", "micrometer", "micrometers"),
    10.0: ("cm", "centimeter", "centimeters", "centimetre", "centimetres"),
    1000.0: ("m", "meter", "meters", "metre", "metres"),
    1e-6: ("nm", "nanometer", "nanometers"),
}
_MAX_FILES = 100_000
_PATTERN = re.compile(r"(%0?\d{0,2}d)")


def numbers(path: Path, name: str, text: str, count: int) -> list[float]:
    """Return the `count` finite numbers of a header field.

    Raises:
        VolumeError: `bad-header` if there are others.
    """
    try:
        values = [
            float(word) for word in text.split() if "_" not in text
        ]  # Python's, no one else's
    except ValueError:
        values = []
    if len(values) != count or not np.isfinite(values).all():
        cause = f"{name} must be {count} finite numbers; got {text[:80]!r}"
        raise VolumeError(path, "bad-header", cause, WRITE_AGAIN)
    return values


def whole(path: Path, name: str, text: str, count: int) -> list[int]:
    """Return the `count` whole numbers of a header field.

    Raises:
        VolumeError: `bad-header` if there are others.
    """
    values = numbers(path, name, text, count)
    if any(value != int(value) or abs(value) >= MOST for value in values):
        cause = f"{name} must be {count} whole numbers; got {text[:80]!r}"
        raise VolumeError(path, "bad-header", cause, WRITE_AGAIN)
    return [int(value) for value in values]


def unit_in_mm(name: str, warnings: list[str]) -> float:
    """Return a unit of length in mm; a warning tells of any other than mm."""
    if not name:
        return 1.0
    factor = next((mm for mm, names in _UNITS.items() if name.lower() in names), None)
    if factor is None:
        warnings.append(f"units: {name[:20]!r} is no known unit of length; mm is assumed")
        return 1.0
    if factor != 1.0:
        warnings.append(f"units: lengths are given in units of {factor:g} mm")
    return factor


def data_files(path: Path, named: str, listed: Sequence[str]) -> list[Path]:
    """Return the data files that a header names: one, a LIST, or a pattern with its numbers.

    Args:
        path: The header.
        named: Its field, such as `x.raw`, `LIST` or `x%03d.raw 1 90 1`.
        listed: The lines after it.

    Raises:
        VolumeError: `outside-folder` if one lies outside of the header's folder, `bad-header` if
            none is named.
    """
    words = named.split()
    if words and words[0].upper() == "LIST":
        names = [line.strip() for line in listed if line.strip()]
    elif len(words) >= 3 and _PATTERN.search(words[0]):
        names = _numbered(path, words[0], words[1:4])
    else:
        names = [named]
    if not names:
        raise VolumeError(path, "bad-header", "no data file is named", WRITE_AGAIN)
    return [_inside(path, name) for name in names]


def _inside(path: Path, name: str) -> Path:
    """Return a data file by its name in the header's folder, links not being followed."""
    folder = Path(os.path.abspath(path.parent))  # noqa: PTH100
    place = Path(os.path.abspath(folder / name))  # noqa: PTH100
    inside = place.is_relative_to(folder) and place != folder
    if not name or "\x00" in name or not inside:
        cause = f"its data lie in {name[:80]!r}"
        raise VolumeError(path, "outside-folder", cause, "put the data beside the header")
    if place.name == path.name and place.parent == folder:
        raise VolumeError(path, "bad-header", "it names itself as its data", WRITE_AGAIN)
    return path.parent / place.relative_to(folder)


def _numbered(path: Path, pattern: str, span: Sequence[str]) -> list[str]:
    first, last, step = whole(path, "the data files", " ".join([*span, "1"][:3]), 3)
    if step == 0 or not 0 <= (last - first) // step < _MAX_FILES:
        cause = f"the data files run from {first} to {last} by {step}"
        raise VolumeError(path, "bad-header", cause, WRITE_AGAIN)
    before, number, after = _PATTERN.split(pattern, maxsplit=1)
    numbers_ = range(first, last + (1 if step > 0 else -1), step)
    return [f"{before}{number % n}{after}" for n in numbers_]
