"""What the text headers of MetaImage and NRRD share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from medseg.core.errors import VolumeError
from medseg.io.layout import WRITE_AGAIN

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From the patient coordinates of DICOM and ITK to those of NIfTI."""

_MAX_FILES = 100_000
_PATTERN = re.compile(r"%0?\d*d")


def numbers(path: Path, name: str, text: str, count: int) -> list[float]:
    """Return the `count` finite numbers of a header field.

    Raises:
        VolumeError: `bad-header` if there are others.
    """
    try:
        values = [float(word) for word in text.split()]
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
    if any(value != int(value) for value in values):
        cause = f"{name} must be {count} whole numbers; got {text[:80]!r}"
        raise VolumeError(path, "bad-header", cause, WRITE_AGAIN)
    return [int(value) for value in values]


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
    for name in names:
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts or not name or "\x00" in name:
            cause = f"its data lie in {name[:80]!r}"
            raise VolumeError(path, "outside-folder", cause, "put the data beside the header")
    if not names:
        raise VolumeError(path, "bad-header", "no data file is named", WRITE_AGAIN)
    return [path.parent / name for name in names]


def _numbered(path: Path, pattern: str, span: Sequence[str]) -> list[str]:
    first, last, step = whole(path, "the data files", " ".join([*span, "1"][:3]), 3)
    if step < 1 or not 0 <= (last - first) // step < _MAX_FILES:
        cause = f"the data files run from {first} to {last} by {step}"
        raise VolumeError(path, "bad-header", cause, WRITE_AGAIN)
    number = _PATTERN.search(pattern)
    if number is None:
        return [pattern]
    before, after = pattern[: number.start()], pattern[number.end() :]
    return [f"{before}{number[0] % n}{after}" for n in range(first, last + 1, step)]
