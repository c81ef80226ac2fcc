"""Phantoms: small synthetic MR and CT data sets whose truth is known exactly.

The label of a voxel is the shape at its centre, so labels are exact on any grid; its intensity is
the mean over eight points in it, and then what a scanner makes of that. Plates, rods and vessels
have the intensities of the structures, so that shape and surroundings have to be learned.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from medseg.core.errors import OptionError
from medseg.core.geometry import Grid
from medseg.core.manifest import Case, Manifest
from medseg.data.anatomy import (
    BODY,
    LABELS,
    PLATE,
    Anatomy,
    Points,
    draw_anatomy,
    world_points,
)
from medseg.data.convert import manifest_text, save_manifest
from medseg.data.options import Modality, PhantomOptions
from medseg.io import write_label_map, write_volume

log = logging.getLogger("medseg")

FOLDS = 4


@dataclass(frozen=True)
class Scanner:
    """How one scanner sees an anatomy.

    Attributes:
        shape: Voxels along the array axes.
        spacing: Their distances, mm.
        orientation: Anatomical direction of each array axis, such as `RAS`.
        noise: Standard deviation; MR: as a share of the brightest tissue, CT: HU.
        tilt_deg: Mean angle between the array axes and the patient's.
        bias: MR: logarithm of the largest change by the bias field.
        contrast: Factor on the difference of each tissue from the body's.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    orientation: str
    noise: float
    tilt_deg: float = 0.0
    bias: float = 0.0
    contrast: float = 1.0


SCANNERS: Mapping[Modality, Mapping[str, Scanner]] = {
    "mr": {
        "a": Scanner((44, 44, 44), (1.0, 1.0, 1.0), "RAS", 0.05, bias=0.2),
        "b": Scanner((46, 46, 36), (0.95, 0.95, 1.25), "LPS", 0.07, bias=0.4, contrast=1.1),
        "c": Scanner((40, 40, 40), (1.1, 1.1, 1.1), "PIR", 0.06, 14.0, bias=0.3, contrast=0.9),
        "d": Scanner((44, 28, 44), (1.0, 1.6, 1.0), "LAI", 0.05, 7.0, bias=0.5),
    },
    "ct": {
        "a": Scanner((44, 44, 20), (1.5, 1.5, 3.5), "LPS", 14.0),
        "b": Scanner((48, 48, 24), (1.4, 1.4, 3.0), "RAS", 20.0),
        "c": Scanner((44, 44, 20), (1.5, 1.5, 3.5), "LPI", 16.0, 10.0, contrast=1.15),
        "d": Scanner((40, 40, 36), (1.7, 1.7, 2.0), "LAS", 22.0, 5.0),
    },
}

_REACH_MM: Mapping[Modality, float] = {"mr": 22.0, "ct": 33.0}
"""Half of the field of view; every length of an anatomy is a multiple of it."""

_LEVELS: Mapping[Modality, tuple[float, ...]] = {
    "mr": (0.0, 0.45, 0.12, 0.65, 0.80, 0.95, 0.65, 0.80, 0.95),
    "ct": (-1000.0, 20.0, 600.0, 60.0, 90.0, 120.0, 60.0, 90.0, 120.0),
}
"""Mean intensity of each tissue of an anatomy; MR in shares of full brightness, CT in HU."""

_SPREAD: Mapping[Modality, float] = {"mr": 0.04, "ct": 10.0}
"""Standard deviation of a tissue's level between cases, and of the texture within one."""

_CORNERS = tuple(itertools.product((-0.25, 0.25), repeat=3))


class Phantom(NamedTuple):
    """One case: intensities in array order, labels of `LABELS`, and where both lie."""

    image: NDArray[np.uint16] | NDArray[np.int16]
    label: NDArray[np.uint8]
    grid: Grid


def make_phantom(seed: int, index: int, modality: Modality) -> Phantom:
    """Make one case; equal arguments give equal voxels.

    Args:
        seed: Seed of the data set.
        index: Place of the case in it; the scanners take turns.
        modality: `mr` or `ct`.
    """
    rng = np.random.default_rng([seed, index, list(SCANNERS).index(modality)])
    scanner, reach = SCANNERS[modality][scanner_of(index)], _REACH_MM[modality]
    centre = rng.uniform(-40.0, 40.0, 3)
    anatomy = draw_anatomy(rng, reach, centre)
    grid = _draw_grid(rng, scanner, centre + rng.uniform(-0.05, 0.05, 3) * reach)
    place = (world_points(grid) - centre) / reach
    signal = _signal(anatomy, grid, _draw_levels(rng, scanner, modality))
    signal += _SPREAD[modality] * _texture(rng, place)
    scan = _mr(rng, signal, place, scanner) if modality == "mr" else _ct(rng, signal, scanner)
    return Phantom(scan, anatomy.label(grid), grid)


def scanner_of(index: int) -> str:
    """Return the name of the scanner of a case."""
    return "abcd"[index % 4]


def _draw_grid(rng: np.random.Generator, scanner: Scanner, centre: Points) -> Grid:
    axes = np.zeros((3, 3))
    for axis, letter in enumerate(scanner.orientation):
        world = ("LR", "PA", "IS")
        row = next(i for i, pair in enumerate(world) if letter in pair)
        axes[row, axis] = 1.0 if letter == world[row][1] else -1.0
    way = rng.normal(size=3)
    angle = np.deg2rad(scanner.tilt_deg * rng.uniform(0.8, 1.2))
    turn = Rotation.from_rotvec(angle * way / np.linalg.norm(way)).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes * scanner.spacing
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(scanner.shape) - 1) / 2)
    # A file holds float32; labels are exact on the grid that is read back.
    return Grid(scanner.shape, affine.astype(np.float32).astype(np.float64))


def _draw_levels(
    rng: np.random.Generator, scanner: Scanner, modality: Modality
) -> NDArray[np.float64]:
    levels = np.array(_LEVELS[modality])
    body = levels[BODY]
    levels[BODY:] = body + scanner.contrast * (levels[BODY:] - body)
    # A structure and what looks like it share their level in every case.
    shared = rng.normal(size=3)
    levels[PLATE:] += _SPREAD[modality] / 2 * np.tile(shared, 2)
    return levels


def _signal(anatomy: Anatomy, grid: Grid, levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean level over eight points of each voxel: partial volume at every border."""
    parts = [levels[anatomy.tissue(world_points(grid, corner))] for corner in _CORNERS]
    mean: NDArray[np.float64] = np.mean(parts, axis=0)
    return mean


def _texture(rng: np.random.Generator, place: Points) -> NDArray[np.float64]:
    """Return a smooth random field of standard deviation 1."""
    waves = 12
    phases = place @ rng.normal(0.0, 7.0, (3, waves)) + rng.uniform(0.0, 2 * np.pi, waves)
    field: NDArray[np.float64] = np.cos(phases).sum(axis=-1) * np.sqrt(2.0 / waves)
    return field


def _mr(
    rng: np.random.Generator, signal: NDArray[np.float64], place: Points, scanner: Scanner
) -> NDArray[np.uint16]:
    """Return Rician magnitudes under a bias field, at an arbitrary scale of the case."""
    slope, curve = rng.uniform(-1.0, 1.0, (2, 3))
    bias = np.exp(scanner.bias * (place @ slope + place**2 @ curve) / 2)
    real, imaginary = rng.normal(0.0, scanner.noise, (2, *signal.shape))
    magnitude = np.hypot(np.maximum(signal, 0.0) * bias + real, imaginary)
    scale = 10.0 ** rng.uniform(2.0, 4.0)
    image: NDArray[np.uint16] = np.rint(scale * magnitude).clip(0, 65535).astype(np.uint16)
    return image


def _ct(
    rng: np.random.Generator, signal: NDArray[np.float64], scanner: Scanner
) -> NDArray[np.int16]:
    """Return HU with noise."""
    noisy = signal + rng.normal(0.0, scanner.noise, signal.shape)
    image: NDArray[np.int16] = np.rint(noisy).clip(-1024, 3071).astype(np.int16)
    return image


def phantom_manifest(cases: int, modality: Modality, seed: int, path: Path) -> Manifest:
    """Return the manifest of a data set of phantoms, as written into its folder."""
    training = []
    for index in range(cases):
        # Turned by one from scanner to scanner: folds of equal size, each scanner in each fold.
        fold = (index // 4 + index) % FOLDS
        case_id = f"phantom_{scanner_of(index)}{index // 4:02d}"
        name = f"{case_id}.nii.gz"
        training.append(Case(case_id, (f"images/{name}",), f"labels/{name}", fold))
    command = f"medseg phantoms --output phantoms/{modality} --cases {cases} --modality {modality}"
    return Manifest(
        path=path,
        root=path.parent,
        name=f"phantoms_{modality}",
        channel_names=(modality.upper(),),
        labels=LABELS,
        training=tuple(training),
        description="Synthetic volumes of known truth; the letter in a case id is its scanner.",
        licence="CC0-1.0",
        source=f"Make the files with `{command} --seed {seed}`; the root is the output folder.",
    )


def write_phantoms(options: PhantomOptions) -> None:
    """Write images, labels and manifest.json.

    Raises:
        OptionError: If the options are out of range, or the folder holds something else.
    """
    if options.cases < 1 or options.seed < 0:
        raise OptionError(
            f"--cases must be at least 1 and --seed at least 0; "
            f"got {options.cases} and {options.seed}."
        )
    path = options.output / "manifest.json"
    manifest = phantom_manifest(options.cases, options.modality, options.seed, path)
    _require_own_folder(options.output, path, manifest_text(manifest))
    # The manifest comes first: what an interruption leaves is completed by the same command.
    save_manifest(manifest, path)
    for index, case in enumerate(manifest.training):
        image, label, grid = make_phantom(options.seed, index, options.modality)
        write_volume(manifest.file(case.images[0]), image, grid)
        write_label_map(manifest.file(str(case.label)), label, grid)
    log.info("%d cases written: %s", options.cases, path)


def _require_own_folder(folder: Path, path: Path, text: str) -> None:
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"--output {folder} is a file. Name a folder.")
    same = path.is_file() and path.read_text(encoding="utf-8") == text
    if folder.is_dir() and any(folder.iterdir()) and not same:
        raise OptionError(
            f"--output {folder} is not empty and was not made with these options. "
            "Remove it, or choose another folder."
        )
