"""A case made small enough to be sent along: image, reference and prediction for the viewer."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medseg.io import Volume
from medseg.report.slices import Voxel, grey_window, structure_box

MOST_BYTES = 1_500_000
"""Of one case, compressed; 2 MB in the page, where four letters hold three bytes."""

MOST_VOXELS = 8_000_000
"""From which a case is made smaller before compression is tried; 8 bits a voxel seldom halve."""


@dataclass(frozen=True)
class Preview:
    """What the viewer loads of one case.

    Attributes:
        image: Compressed NIfTI of 8-bit greys, base64.
        reference: Compressed NIfTI of labels, base64.
        prediction: The same of the prediction.
        centre: Where the planes cross first, world mm (RAS+).
        note: How it differs from the files, or "".
    """

    image: str
    reference: str
    prediction: str
    centre: tuple[float, ...]
    note: str


def preview(image: Volume, reference: Volume, prediction: Volume, centre: Voxel) -> Preview | None:
    """Return the largest preview within the limit; None if even the coarsest is above it.

    The whole volume if it fits, else the part around the structures, else every second, third,
    ... voxel of that part along the axes of finest spacing.
    """
    affine = image.grid.affine
    grey = image.array[..., 0] if image.array.ndim > 3 else image.array
    low, high = grey_window(grey)
    labels = [_consecutive(reference.array), _consecutive(prediction.array)]
    place = tuple(float(mm) for mm in (affine @ (*centre, 1))[:3])
    around = structure_box((labels[0] > 0) | (labels[1] > 0), image.grid.spacing, centre)
    for box, note in _smaller(image.grid.shape, image.grid.spacing, around):
        if np.prod([len(range(part.start, part.stop, part.step)) for part in box]) > MOST_VOXELS:
            continue
        steps = np.diag([part.step for part in box] + [1]).astype(float)
        steps[:3, 3] = [part.start for part in box]
        shown = np.clip((grey[box].astype(np.float32) - low) / (high - low), 0, 1) * 255
        parts = [_nifti(shown, affine @ steps)]
        parts += [_nifti(array[box], affine @ steps, "label") for array in labels]
        if sum(map(len, parts)) <= MOST_BYTES:
            packed = [base64.b64encode(part).decode() for part in parts]
            return Preview(packed[0], packed[1], packed[2], place, note)
    return None


def _smaller(
    shape: tuple[int, ...], spacing: tuple[float, ...], around: tuple[slice, ...]
) -> Iterator[tuple[tuple[slice, ...], str]]:
    """Yield ever smaller parts of a volume, with what is said of each."""
    yield tuple(slice(0, size, 1) for size in shape), ""
    cut = "cut to the structures and their surroundings"
    yield tuple(slice(part.start, part.stop, 1) for part in around), cut
    for coarse in range(2, 9):
        reach = coarse * min(spacing)
        steps = [max(1, int(reach / length + 1e-3)) for length in spacing]
        box = tuple(
            slice(part.start, part.stop, step) for part, step in zip(around, steps, strict=True)
        )
        every = " × ".join(map(str, steps))
        yield box, f"{cut}, one voxel of {every} kept"


def _consecutive(labels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return labels as 8 bits: 1, 2, ... in the order of their values, from the 255th on 255."""
    values = np.unique(labels[labels > 0])
    places = np.minimum(np.searchsorted(values, labels) + 1, 255)
    return np.where(labels > 0, places, 0).astype(np.uint8)


def _nifti(array: NDArray[Any], affine: NDArray[np.float64], intent: str = "none") -> bytes:
    file = nib.Nifti1Image(array.astype(np.uint8), affine)
    file.header.set_xyzt_units("mm")
    file.header.set_intent(intent)  # NiiVue outlines only what says that it is a label map
    return gzip.compress(file.to_bytes(), compresslevel=6, mtime=0)
