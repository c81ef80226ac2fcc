"""What scoring costs: our metrics against those of other packages on one organ, in turns."""

from __future__ import annotations

import importlib.util
import logging
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import SimpleITK
import torch
from monai import metrics as monai
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.metrics import score_classes

SHAPE = (128, 256, 256)
SPACING = (3.0, 0.8, 0.8)
TOLERANCE_MM = 2.0
MOST_ROUNDS = 5
_RADIUS_MM, _BUMPS_MM, _BUMP_VOXELS = 85.0, 2.0, 3.0
_SEED = 0

Labels = NDArray[np.uint8]
Scorer = Callable[[Labels, Labels], object]

log = logging.getLogger("medseg")


def benchmark_scoring(rounds: int) -> dict[str, float]:
    """Score a bumpy ball, then noise in its place, by all packages, and log their times.

    Args:
        rounds: Scorings of the ball by each, at most 5; the noise is scored once.

    Returns:
        Fastest time of each package on the ball, seconds.
    """
    threads = torch.get_num_threads(), SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads()
    _set_threads(1, 1)
    try:
        reference, prediction = _organ(0), _organ(1)
        seconds = _in_turns(min(rounds, MOST_ROUNDS), reference, prediction)
        _tell("a bumpy ball", seconds)
        # The worst case for a search tree; MONAI takes minutes over it.
        noise = np.random.default_rng(_SEED).integers(0, 2, SHAPE, dtype=np.uint8)
        _tell("noise against it", _in_turns(1, reference, noise, {"medseg": _by_medseg}))
    finally:
        _set_threads(*threads)
    return seconds


def _organ(seed: int) -> Labels:
    """Return a ball with a bumpy surface, other bumps for each seed."""
    rng = np.random.default_rng(_SEED + seed)
    bumps = ndimage.gaussian_filter(rng.standard_normal(SHAPE, dtype=np.float32), _BUMP_VOXELS)
    axes = np.ogrid[tuple(slice(n) for n in SHAPE)]
    squares = [(s * (a - n / 2)) ** 2 for a, n, s in zip(axes, SHAPE, SPACING, strict=True)]
    radius = np.sqrt(squares[0] + squares[1] + squares[2])
    return np.asarray(radius < _RADIUS_MM + _BUMPS_MM * bumps / bumps.std()).astype(np.uint8)


def _by_medseg(reference: Labels, prediction: Labels) -> object:
    return score_classes(reference, prediction, [1], SPACING, TOLERANCE_MM)


def _by_monai(reference: Labels, prediction: Labels) -> object:
    """Compute HD95, ASSD and NSD, without Dice."""
    ref, pred = (torch.from_numpy(labels[None, None]) for labels in (reference, prediction))
    common: dict[str, Any] = {"include_background": True, "spacing": SPACING}
    return (
        monai.compute_hausdorff_distance(pred, ref, percentile=95, **common),
        monai.compute_average_surface_distance(pred, ref, symmetric=True, **common),
        monai.compute_surface_dice(pred, ref, [TOLERANCE_MM], **common),
    )


def _by_simpleitk(reference: Labels, prediction: Labels) -> object:
    """Compute Dice and its own HD, between voxel sets."""
    images = [SimpleITK.GetImageFromArray(labels) for labels in (reference, prediction)]
    for image in images:
        image.SetSpacing(SPACING[::-1])
    overlap, distance = (
        SimpleITK.LabelOverlapMeasuresImageFilter(),
        SimpleITK.HausdorffDistanceImageFilter(),
    )
    overlap.Execute(*images)
    distance.Execute(*images)
    return overlap.GetDiceCoefficient(1), distance.GetHausdorffDistance()


def _by_surface_distance(reference: Labels, prediction: Labels) -> object:
    """Compute HD95, ASSD and NSD between surface elements."""
    other = importlib.import_module("surface_distance")

    found = other.compute_surface_distances(reference > 0, prediction > 0, SPACING)
    return (
        other.compute_robust_hausdorff(found, 95),
        other.compute_average_surface_distance(found),
        other.compute_surface_dice_at_tolerance(found, TOLERANCE_MM),
    )


_OPTIONAL = "surface-distance"
_SCORERS: Mapping[str, Scorer] = {
    "medseg": _by_medseg,
    "MONAI": _by_monai,
    "SimpleITK": _by_simpleitk,
    _OPTIONAL: _by_surface_distance,
}


def _in_turns(
    rounds: int, reference: Labels, prediction: Labels, scorers: Mapping[str, Scorer] = _SCORERS
) -> dict[str, float]:
    """Return the fastest time of each scorer that is installed, seconds."""
    absent = {_OPTIONAL} if importlib.util.find_spec("surface_distance") is None else set()
    seconds: dict[str, list[float]] = {name: [] for name in scorers if name not in absent}
    for _ in range(rounds):
        for name, times in seconds.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecations within the packages
                started = time.perf_counter()
                scorers[name](reference, prediction)
                times.append(time.perf_counter() - started)
    return {name: min(times) for name, times in seconds.items()}


def _tell(what: str, seconds: Mapping[str, float]) -> None:
    size = " x ".join(map(str, SHAPE))
    log.info("%s, %s voxels, one thread, fastest of each in turns", what, size)
    for name, fastest in seconds.items():
        log.info("%-18s %8.2f s %8.1f times", name, fastest, fastest / seconds["medseg"])


def _set_threads(of_torch: int, of_itk: int) -> None:
    torch.set_num_threads(of_torch)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(of_itk)
