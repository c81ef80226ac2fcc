"""What a trained network costs on this machine, as busy as it is."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from medseg.core.errors import CheckpointError
from medseg.networks.fold import folded, folds
from medseg.networks.unet import UNet
from medseg.study.costs_timing import in_turns, peak_mib
from medseg.study.doctor_patient import Examined, Patient
from medseg.study.measurements import Costs


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
            peak_mib=peak_mib(patient.step),
            inference_seconds=seconds[0],
            # What does not fold is not timed twice: two times of one network differ by noise.
            folded_seconds=seconds[-1],
            parameters=sum(parameter.numel() for parameter in network.parameters()),
        )
    )


def _folded(patient: Patient) -> list[UNet]:
    """Return the network with its norms folded; nothing where there is nothing to fold."""
    if not folds(patient.trained.description.norm):
        return []
    try:
        return [folded(patient.network)]
    except CheckpointError:  # statistics of a broken training
        return []


@torch.no_grad()
def _seconds(patient: Patient, networks: Sequence[UNet], cases: Sequence[Examined]) -> list[float]:
    """Return the median time of a case by each network, in turns: other work slows all alike."""
    rows = []
    for case in cases:
        actions = [partial(patient.window, case.image, network) for network in networks]
        rows.append([seconds for (seconds,) in in_turns(actions, 0, 1, patient.device.type)])
    return [statistics.median(times) for times in zip(*rows, strict=True)]
