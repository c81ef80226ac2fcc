"""What a training of a study needs: memory, reckoned from shapes, and seconds, measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from medseg.core.errors import OptionError
from medseg.core.manifest import Manifest
from medseg.io.memory import size, total_bytes
from medseg.networks.unet import Architecture
from medseg.training.measure import StepJob, measure, reckon


def step_of(settings: Mapping[str, Any], manifest: Manifest) -> StepJob:
    """Return the training step of a configuration."""
    model, data, trainer = settings["model"], settings["data"], settings["trainer"]
    i, j, k = data["patch_size"]
    on_gpu = trainer.get("accelerator", "auto") != "cpu" and torch.cuda.is_available()
    return StepJob(
        architecture=Architecture(**model["network"]),
        norm=model["norm"],
        norm_groups=model["norm_groups"],
        channels=len(manifest.channel_names),
        classes=len(manifest.labels),
        patch_size=(i, j, k),
        batch_size=data["batch_size"],
        device="cuda" if on_gpu else "cpu",
        precision=str(trainer.get("precision") or "32-true"),
    )


class Memory:
    """Reckons steps; equal ones once."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def of(self, job: StepJob) -> int:
        """Return the bytes that a training takes."""
        key = json.dumps(asdict(job), sort_keys=True)
        if key not in self._known:
            self._known[key] = reckon(job)
        return self._known[key]

    def check(self, job: StepJob) -> None:
        """Refuse a training that this machine cannot hold.

        Raises:
            OptionError: With both sizes.
        """
        needed, there = self.of(job), _there(job.device)
        if needed > there:
            raise OptionError(
                f"its training needs about {size(needed)}; {size(there)} are there. Take a smaller "
                "data.batch_size, data.patch_size or network."
            )

    def words(self, jobs: Mapping[str, StepJob], workers: int) -> str:
        """Say how much memory trainings take.

        Args:
            jobs: The step of each run, by the run's name; at least one.
            workers: Runs side by side.
        """
        needs = sorted(((self.of(job), name) for name, job in jobs.items()), reverse=True)
        most, name = needs[0]
        text = f"predicted memory: up to {size(most)} a training ({name})"
        if workers > 1:
            together = sum(need for need, _ in needs[:workers])
            text += f", {size(together)} with {workers} side by side"
            there = _there(jobs[name].device)
            if together > there:
                text += f"; only {size(there)} are there: take fewer --workers"
        return text


def _there(device: str) -> int:
    """Return the bytes of a device, or of this machine or its container."""
    if device != "cuda":
        return total_bytes()
    return int(torch.cuda.get_device_properties(0).total_memory)


def seconds_by_batch_size(jobs: Sequence[StepJob]) -> dict[int, float]:
    """Measure the bare step of the first job of each batch size, in processes of their own."""
    first: dict[int, StepJob] = {}
    for job in jobs:
        first.setdefault(job.batch_size, job)
    found = {batch_size: measure(job).seconds for batch_size, job in sorted(first.items())}
    return {batch_size: seconds for batch_size, seconds in found.items() if seconds is not None}
