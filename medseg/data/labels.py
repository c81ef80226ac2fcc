"""Label tables of sources that have none: values from the files, names if someone gives them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg.core.errors import ManifestError, VolumeError, problems
from medseg.core.manifest import Manifest, parse_manifest
from medseg.data.options import ManifestOptions
from medseg.data.progress import track
from medseg.io import read_volume

MAX_VALUES = 255
"""More values than this in a label file: it is an image, or a soft label."""


def labelled(
    cases: Iterable[dict[str, Any]],
    options: ManifestOptions,
    home: Path,
    channels: Sequence[str],
    names: Mapping[int, str] | None = None,
) -> Manifest:
    """Build a manifest of cases whose label values are known only from the files.

    Args:
        cases: Manifest entries; those without a label become test cases.
        options: Tells the source, and the channels' names if given.
        home: Folder the paths are relative to.
        channels: Names of the channels if none are given.
        names: Class names by value; a value without one is called `class_N`.

    Raises:
        ManifestError: With every problem of the entries, or every file that is not a label map.
    """
    listed = list(cases)
    content = {
        "name": options.source.resolve().stem,
        "channel_names": {str(i): name for i, name in enumerate(options.channels or channels)},
        "labels": {"background": 0, "unknown": 1},
        "training": [case for case in listed if "label" in case],
        "test": [case for case in listed if "label" not in case],
    }
    checked = parse_manifest(content, options.source, home)
    values = [value for value in _label_values(checked) if value > 0]
    return replace(checked, labels={"background": 0, **_named(values, names or {}, options.source)})


def _named(values: Sequence[int], names: Mapping[int, str], source: Path) -> dict[str, int]:
    """Return values by name.

    Raises:
        ManifestError: If two values have one name.
    """
    given = {value: names.get(value, f"class_{value}") for value in values}
    uses = Counter(["background", *given.values()])
    twice = [f"{name!r} (value {value})" for value, name in given.items() if uses[name] > 1]
    if twice:
        raise ManifestError(f"{source}: class names must differ; got {', '.join(twice)}.")
    return {name: value for value, name in given.items()}


def _label_values(manifest: Manifest) -> list[int]:
    """Return all values of the label files.

    Raises:
        ManifestError: With every file that is not a label map.
    """
    values: set[int] = set()
    found = []
    for case in track(manifest.training, "reading label values"):
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
