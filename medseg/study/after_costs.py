"""What a trained network costs on this machine, as busy as it is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from medseg.core.errors import CheckpointError
from medseg.networks.fold import folded
from medseg.networks.norms import NORMS
from medseg.networks.unet import UNet
from medseg.study.doctor_patient import Examined, Patient
from medseg.study.measurements import Costs
from medseg.training.measure import StepJob, kept_bytes


def costs(patient: Patient, cases: Sequence[Examined]) -> dict[str, Any]:
    """Return the fields of `measurements.Costs`; the training itself tells its time for a step.

    Args:
        patient: Its network is left as it is.
        cases: Each is labelled to be timed.
    """
    network = patient.network
    merged = _folded(patient)
    seconds = _seconds(patient, [network, *merged], cases)
    return asdict(
        Costs(
            peak_mib=_peak_mib(patient.step),
            inference_seconds=seconds[0],
            # What does not fold is not timed twice: two times of one network differ by noise.
            folded_seconds=seconds[-1],
            parameters=sum(parameter.numel() for parameter in network.parameters()),
        )
    )


def _folded(patient: Patient) -> list[UNet]:
    """Return the network with its norms folded; nothing where there is nothing to fold."""
    name = patient.trained.description.norm
    row = NORMS[name]
    if name == "none" or not (row.folds or row.standardizes):
        return []
    try:
        return [folded(patient.network)]
    except CheckpointError:  # statistics of a broken training
        return []


@torch.no_grad()
def _seconds(patient: Patient, networks: Sequence[UNet], cases: Sequence[Examined]) -> list[float]:
    """Return the median time of a case by each network, in turns: other work slows all alike."""
    times: list[list[float]] = [[] for _ in networks]
    for case in cases:
        for network, seen in zip(networks, times, strict=True):
            _wait(patient.device)
            started = time.perf_counter()
            patient.window(case.image, network)
            _wait(patient.device)
            seen.append(time.perf_counter() - started)
    return [statistics.median(seen) for seen in times]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_mib(job: StepJob) -> float:
    """Return what a training step takes: on a CPU what backward keeps, shared memory once."""
    cuda = job.device.startswith("cuda")
    before = torch.cuda.memory_allocated(job.device) if cuda else 0
    network = job.build().to(job.device).train()
    image, label = job.batch(job.device)
    with torch.enable_grad():
        if not cuda:
            return kept_bytes(lambda: job.forward(network, image, label)) / 2**20
        torch.cuda.reset_peak_memory_stats(job.device)
        job.forward(network, image, label).backward()  # type: ignore[no-untyped-call]
    return (torch.cuda.max_memory_allocated(job.device) - before) / 2**20
