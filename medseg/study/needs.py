"""What a training of a study needs: memory, reckoned from shapes, and seconds, measured."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from medseg.core.errors import OptionError
from medseg.core.manifest import Manifest
from medseg.engine.outcome import WorkerDiedError
from medseg.io.memory import size, total_bytes
from medseg.networks.unet import Architecture
from medseg.training.measure import StepJob, measure_within, reckon

MEASURING_SECONDS = 45.0
"""After which no further step is measured; with the last one about a minute."""

log = logging.getLogger("medseg")


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
        key = _key(job)
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


def seconds_of_steps(jobs: Mapping[str, StepJob], threads: int) -> dict[str, float]:
    """Measure bare steps in a process of its own, equal ones once and small batches first.

    What a minute is too short for takes the time of the likest that was measured, by its voxels.

    Args:
        jobs: By the run's name.
        threads: CPU threads of a run.

    Returns:
        Seconds by the run's name; empty if nothing could be measured.
    """
    distinct = {_key(job): job for job in sorted(jobs.values(), key=lambda job: job.batch_size)}
    log.info("measuring bare steps, for up to about a minute")
    try:
        known = [*measure_within([*distinct.values()], MEASURING_SECONDS, threads)]
    except WorkerDiedError:  # no study is to fail by what it cannot foresee
        known = []
    return {name: _likest(job, known) for name, job in jobs.items()} if known else {}


def _likest(job: StepJob, known: Sequence[tuple[StepJob, float]]) -> float:
    def likeness(pair: tuple[StepJob, float]) -> tuple[bool, bool, int, float]:
        other, seconds = pair
        same = other.architecture == job.architecture, other.norm == job.norm
        return *same, -abs(other.batch_size - job.batch_size), seconds

    likest, seconds = max(known, key=likeness)
    return seconds * job.voxels / likest.voxels


def _key(job: StepJob) -> str:
    return json.dumps(asdict(job), sort_keys=True)
