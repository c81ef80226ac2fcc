"""What both sides of the comparison with nnU-Net are given: cases and network."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medseg.core.errors import OptionError, problems
from medseg.core.geometry import rounded
from medseg.core.manifest import case_id_of
from medseg.data.transforms import Preprocessing
from medseg.inference.inputs import Job, list_jobs
from medseg.io import read_grid
from medseg.networks.checkpoint import Trained
from medseg.study.nnunet_side import FILE_ENDING, NORMS

OVERLAP = 0.5
"""Of the windows of both sides; nnU-Net's default."""

_SEED = 0
_SHOWN = 10


@dataclass(frozen=True)
class Staged:
    """The cases both sides label.

    Attributes:
        folder: Links to the images, named as nnU-Net wants: CASE_0000.nii.gz.
        references: Links to the references of the cases that did not train the network.
        cases: All cases.
        scored: Those in `references`.
        spacing: Of every image, mm along (I, J, K).
    """

    folder: Path
    references: Path
    cases: int
    scored: int
    spacing: tuple[float, ...]


def stage(
    source: Path, root: Path | None, most: int | None, trained: Trained, work: Path
) -> Staged:
    """Link the cases into `work`, if nnU-Net reads them as we do.

    Args:
        source: A folder of images, or a manifest.
        root: Folder a manifest's paths are relative to.
        most: Only so many cases.
        trained: The network they are for.
        work: An empty folder.

    Raises:
        OptionError: If there is none, or nnU-Net would see them in another way.
    """
    task = trained.description.task
    channels = len(task["channel_names"])
    listed = list_jobs(source, channels, root, None, work / "none")
    jobs = [job for job in listed if all(path.exists() for path in job.images)][:most]
    if not jobs:
        raise OptionError(f"--input {source}: none of the {len(listed)} images is there.")
    spacing = _common_spacing(jobs, channels, Preprocessing(**task["preprocessing"]))
    images, references = work / "images", work / "references"
    images.mkdir()
    references.mkdir()
    scored = 0
    for job in jobs:
        for channel, image in enumerate(job.images):
            (images / f"{job.case_id}_{channel:04d}{FILE_ENDING}").symlink_to(image.resolve())
        label = job.reference
        if label and label.exists() and job.case_id not in trained.description.trained_on:
            ending = label.name.removeprefix(case_id_of(label.name))
            (references / f"{job.case_id}{ending}").symlink_to(label.resolve())
            scored += 1
    return Staged(images, references, len(jobs), scored, spacing)


def _common_spacing(
    jobs: list[Job], channels: int, preprocessing: Preprocessing
) -> tuple[float, ...]:
    """Return the spacing of all images; refuse what nnU-Net would see in another way."""
    found = [
        f"{image}: nnU-Net takes one {FILE_ENDING} file per channel ({channels})"
        for job in jobs
        for image in job.images
        if not image.name.endswith(FILE_ENDING) or len(job.images) != channels
    ]
    names = Counter(job.case_id for job in jobs)
    found += [f"{n} cases are named {name!r}" for name, n in names.items() if n > 1]
    if found:
        raise OptionError(problems("--input", found))
    grids = {job.images[0]: read_grid(job.images[0]) for job in jobs}
    wanted = rounded(preprocessing.spacing or grids[jobs[0].images[0]].spacing, 3)
    for path, grid in grids.items():
        if grid.orientation != preprocessing.orientation:
            found.append(f"{path}: is stored {grid.orientation}, not {preprocessing.orientation}")
        if rounded(grid.spacing, 3) != wanted:
            found.append(f"{path}: spacing {rounded(grid.spacing, 3)} mm, not {wanted} mm")
    if found:
        more = [f"… and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        subject = "--input (nnU-Net does not reorient, and resamples in another way)"
        raise OptionError(problems(subject, [*found[:_SHOWN], *more]))
    return wanted


def check_network(trained: Trained) -> None:
    """Check that nnU-Net's plans can describe a network.

    Raises:
        OptionError: If not.
    """
    about = trained.description
    encoder, values = about.architecture.encoder, list(about.task["labels"].values())
    found = []
    if about.norm not in NORMS or encoder != "plain":
        found.append(
            f"norm {about.norm!r} and encoder {encoder!r}; compared are the norms "
            f"{', '.join(NORMS)} with encoder 'plain'"
        )
    if values != list(range(len(values))):
        found.append(f"label values {values}; nnU-Net wants 0, 1, 2, …")
    if found:
        raise OptionError(problems("--run", found))


def described(trained: Trained, spacing: tuple[float, ...]) -> dict[str, Any]:
    """Return what `medseg.study.nnunet_side` needs, tensors and plain values only."""
    about = trained.description
    plan, task = about.architecture, about.task
    network = trained.network()
    channels = len(task["channel_names"])
    generator = torch.Generator().manual_seed(_SEED)
    window = torch.rand((1, channels, *task["patch_size"]), generator=generator)
    with torch.inference_mode():
        logits = network(window)
    # Their heads are counted from the coarsest level, whether ours has it or not.
    shift = len(plan.channels) - 1 - len(network.logits)
    weights = {_shifted(name, shift): value for name, value in trained.weights.items()}
    intensity = task["preprocessing"]["intensity"]
    return {
        "channels": list(plan.channels),
        "strides": [list(row) for row in plan.level_strides],
        "kernels": [list(row) for row in plan.level_kernels],
        "depth": plan.depth,
        "decoder_depth": plan.decoder_depth,
        "norm": about.norm,
        "patch_size": list(task["patch_size"]),
        "spacing": list(spacing),
        "intensity": list(intensity) * (channels if len(intensity) == 1 else 1),
        "classes": len(task["labels"]),
        "weights": weights,
        "window": window,
        "logits": logits,
    }


def _shifted(name: str, shift: int) -> str:
    head, _, rest = name.partition(".")
    if head != "logits":
        return name
    level, _, kind = rest.partition(".")
    return f"logits.{int(level) + shift}.{kind}"
