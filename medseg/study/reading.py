"""What strict reading costs: `read_volume` against nibabel on one file, in turns."""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Grid
from medseg.io import read_volume, write_volume

SHAPE = (256, 256, 160)
_SEED = 0

log = logging.getLogger("medseg")


def benchmark_reading(rounds: int) -> float:
    """Read a .nii.gz of 256 x 256 x 160 int16 by both, in turns, and log their times.

    Args:
        rounds: Readings by each.

    Returns:
        Median time of `read_volume` as a share of nibabel's.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii.gz"
        write_volume(path, _head(), Grid.from_spacing(SHAPE, (1.0, 1.0, 1.2)))
        readers: dict[str, Callable[[], object]] = {
            "nibabel": lambda: np.asarray(nib.load(path).dataobj),
            "read_volume": lambda: read_volume(path).array,
        }
        seconds: dict[str, list[float]] = {name: [] for name in readers}
        for number in range(rounds + 1):
            for name, read in readers.items():
                started = time.perf_counter()
                read()
                if number:  # the first round fills the file cache
                    seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        log.info("%-12s %8.1f ms (fastest %.1f)", name, 1e3 * median, 1e3 * min(seconds[name]))
    ratio = medians["read_volume"] / medians["nibabel"]
    log.info("read_volume takes %.2f times nibabel's time, every byte's checksum verified", ratio)
    return ratio


def _head() -> NDArray[np.int16]:
    """Return a bright ball with noise in a dark surrounding, as an MRI of a head compresses."""
    axes = (np.linspace(-1, 1, n) for n in SHAPE)
    distance = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij", sparse=True))
    values = 1500 * np.exp(-4 * np.asarray(distance))
    noise = np.random.default_rng(_SEED).normal(0, 20, SHAPE)
    return np.asarray(values + noise * (values > 30)).astype(np.int16)
