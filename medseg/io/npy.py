"""NumPy's .npy: an array without geometry."""

from __future__ import annotations

import io
import tokenize
from pathlib import Path

import numpy as np

from medseg.core.errors import VolumeError
from medseg.io.layout import WRITE_AGAIN, Layout, Part, check_type, grid_of
from medseg.io.text import MOST

_MOST_AXES = 8

# NumPy hands the header to Python's own parser, which answers nonsense in many ways.
_FAILURES = (
    ValueError, TypeError, EOFError, SyntaxError, RecursionError, MemoryError, OverflowError,
    tokenize.TokenError,
)  # fmt: skip


def is_npy(head: bytes) -> bool:
    """Return whether a file's first bytes are those of .npy."""
    return head.startswith(np.lib.format.MAGIC_PREFIX)


def parse_npy(path: Path, head: bytes) -> Layout:
    """Check the header of an .npy file. Nothing is ever unpickled.

    Raises:
        VolumeError: `bad-header`, `bad-dimensions` or `unsupported-type`.
    """
    stream = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0}
        reader = readers.get(version, np.lib.format.read_array_header_2_0)
        shape, fortran, dtype = reader(stream)
        numbers = [int(n) for n in shape if not isinstance(n, bool)]
        if len(numbers) < len(shape) or not 1 <= len(shape) <= _MOST_AXES or max(shape) >= MOST:
            raise ValueError(f"shape {str(shape)[:80]}")
    except _FAILURES as error:
        lines = str(error).splitlines()
        cause = (
            f"the .npy header cannot be read ({lines[0][:200] if lines else type(error).__name__})"
        )
        raise VolumeError(path, "bad-header", cause, WRITE_AGAIN) from error
    check_type(path, dtype, str(dtype))
    if min(shape) < 1:
        raise VolumeError(path, "bad-dimensions", f"shape {shape}", WRITE_AGAIN)
    warning = "no-geometry: .npy holds none; a spacing of 1 mm and RAS axes are assumed"
    return Layout(
        path,
        sizes=shape if fortran else shape[::-1],
        dtype=dtype,
        grid=grid_of(path, shape, np.eye(4)),
        parts=(Part(path, packing="auto", skip=stream.tell()),),
        warnings=(warning,),
        axes=None if fortran else tuple(reversed(range(len(shape)))),
    )
