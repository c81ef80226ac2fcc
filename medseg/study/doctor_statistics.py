"""Running, precise and own statistics of a network, side by side: how far apart, and what of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from medseg.core.errors import GeometryError
from medseg.networks.population import (
    Moments,
    layers_with_statistics,
    population_moments,
    running_statistics,
    statistics_of,
)
from medseg.study.doctor_layers import LayerFinding, layer_findings
from medseg.study.doctor_modes import ModeScores, own_of_cases, three_modes
from medseg.study.doctor_patient import Examined, Patient


@dataclass(frozen=True, eq=False)
class Compared:
    """What batch norm's statistics are; empty where no layer keeps any.

    Attributes:
        layers: Distances, layer by layer.
        modes: Dice under the three modes.
        moments: What the layers saw of the training patches.
        without_own: Why cases have no statistics of their own, in words; empty where they have.
    """

    layers: Sequence[LayerFinding] = ()
    modes: ModeScores | None = None
    moments: Mapping[str, Moments] = field(default_factory=dict)
    without_own: str = ""


def compare_statistics(
    patient: Patient, cases: Sequence[Examined], usual: Sequence[float]
) -> Compared:
    """Measure the statistics of training patches and of cases, and Dice with each.

    Args:
        patient: Its network is left as it is.
        cases: With labels.
        usual: Dice of these cases with running statistics.
    """
    network, window = patient.network, patient.window
    if not layers_with_statistics(network):
        return Compared()
    moments = population_moments(network, patient.training_batches())
    precise = statistics_of(moments, "pooled")
    without_own = _without_own(patient)
    own = [] if without_own else own_of_cases(network, cases, window)
    layers = layer_findings(network, running_statistics(network), precise, own)
    modes = three_modes(network, cases, window, usual, (precise, own))
    return Compared(layers, modes, moments, without_own)


def _without_own(patient: Patient) -> str:
    """Say why one window, looked at alone, leaves a norm too few values; "" if it does not."""
    try:
        patient.trained.description.check_own_statistics()
    except GeometryError as error:
        return str(error)
    return ""
