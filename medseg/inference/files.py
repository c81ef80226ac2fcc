"""The files of one labelled case: their names, and how they are written."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.inference.cuts import Box
from medseg.inference.inputs import Job
from medseg.inference.options import Format
from medseg.inference.predictor import Prediction
from medseg.io import write_label_map, write_volume
from medseg.io.atomic import whole_file
from medseg.io.dicom_seg import write_dicom_seg

LabelWriter = Callable[[Path, Prediction, Job], None]


def label_writer(
    written: Format, class_names: Sequence[str], values: NDArray[Any], series_uid: str | None
) -> LabelWriter:
    """Return what writes the label map of a case."""
    if written != "dicom_seg":
        return lambda path, result, job: write_label_map(
            path, result.label, result.grid, result.label.dtype, like=job.images[0]
        )
    order = np.argsort(values)

    def write(path: Path, result: Prediction, job: Job) -> None:
        classes = order[np.searchsorted(values, result.label, sorter=order)]
        write_dicom_seg(path, classes, job.images[0], list(class_names), series_uid)

    return write


def write_uncertainty(path: Path, result: Prediction, job: Job) -> None:
    """Write the map of the uncertainty as NIfTI."""
    if result.uncertainty is not None:
        write_volume(path, result.uncertainty, result.grid, like=job.images[0])


@contextmanager
def probability_file(
    path: Path, classes: int, shape: tuple[int, int, int]
) -> Iterator[Callable[[Box, NDArray[np.float16]], None]]:
    """Give what writes probabilities into a .npy file box by box; it appears whole, or not at all.

    Boxes are written, not mapped: mapped pages would count as memory of the process.

    Args:
        path: The file.
        classes: Length of the first axis.
        shape: Of the other axes.
    """
    with whole_file(path) as temporary, temporary.open("r+b") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (classes, *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        start = file.tell()
        file.truncate(start + 2 * classes * math.prod(shape))

        def write(box: Box, values: NDArray[np.float16]) -> None:
            for offset, run in _runs(box, np.ascontiguousarray(values, dtype="<f2"), shape):
                _write_at(file.fileno(), start + 2 * offset, run)

        yield write
        file.flush()


def _runs(
    box: Box, values: NDArray[Any], shape: tuple[int, int, int]
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the stretches of a box that lie in one piece in the file, with their first element."""
    (i0, i1), (j0, j1), (k0, k1) = box
    _, rows, columns = shape
    for number, values_of in enumerate(values):
        first = (number * shape[0] + i0) * rows * columns
        if (j1 - j0, k1 - k0) == (rows, columns):
            yield first, values_of
            continue
        for i in range(i1 - i0):
            row = first + i * rows * columns
            if k1 - k0 == columns:
                yield row + j0 * columns, values_of[i]
            else:
                for j in range(j1 - j0):
                    yield row + (j0 + j) * columns + k0, values_of[i, j]


def _write_at(descriptor: int, offset: int, values: NDArray[Any]) -> None:
    rest = memoryview(np.ascontiguousarray(values).data).cast("B")
    while rest:
        done = os.pwrite(descriptor, rest, offset)
        offset, rest = offset + done, rest[done:]
