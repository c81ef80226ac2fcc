"""What counts as a label map: whole numbers, but for the noise of having been real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import VolumeError

LABEL_ROUNDING = 1e-3
"""Label maps that were saved as real numbers carry this much noise at most."""


def whole_numbers(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    """Return labels as whole numbers; integers as they are.

    Raises:
        VolumeError: `not-a-label` if a value is further from one than rounding explains.
    """
    if array.dtype.kind != "f":
        return array
    whole: NDArray[Any] = np.rint(array)
    if np.abs(whole - array).max() > LABEL_ROUNDING:
        raise VolumeError(path, "not-a-label", "values are not whole numbers", "write integers")
    return whole
