"""How far a layer's running statistics are from those of training patches and of single cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medseg.networks.norms import EPS
from medseg.networks.population import ByLayer, Statistics, layers_with_statistics
from medseg.networks.unet import UNet

SMALL_GAMMA = 0.01
"""A channel multiplied by less than this has all but been switched off by the training."""


@dataclass(frozen=True)
class Spread:
    """A layer's gamma or beta over its channels."""

    least: float
    median: float
    most: float


@dataclass(frozen=True)
class LayerFinding:
    """One layer with running statistics.

    A distance is the difference of two means in standard deviations of the training patches; a
    ratio is that of the larger standard deviation to the smaller. Both are means over channels,
    and over cases where a case's own statistics are on one side; NaN where cases have none.

    Attributes:
        name: Of the layer in its network.
        channels: Its channels.
        running_precise: Distance between running statistics and those of training patches.
        running_own: Distance between running statistics and a case's own.
        precise_own: Distance between those of training patches and a case's own.
        ratio_running_precise: Ratio of the same.
        ratio_running_own: Ratio of the same.
        small_gamma: Share of channels with |gamma| below `SMALL_GAMMA`.
        gamma: Scale.
        beta: Shift.
    """

    name: str
    channels: int
    running_precise: float
    running_own: float
    precise_own: float
    ratio_running_precise: float
    ratio_running_own: float
    small_gamma: float
    gamma: Spread
    beta: Spread


def layer_findings(
    network: UNet, running: ByLayer, precise: ByLayer, own: Sequence[ByLayer]
) -> list[LayerFinding]:
    """Compare the statistics of each layer.

    Args:
        network: Whose layers these are.
        running: What they normalize by.
        precise: Of training patches.
        own: Of each case, or none.
    """
    return [
        LayerFinding(
            name=name,
            channels=layer.num_features,
            running_precise=distance(running[name], precise[name], precise[name]),
            running_own=_mean(distance(running[name], c[name], precise[name]) for c in own),
            precise_own=_mean(distance(precise[name], c[name], precise[name]) for c in own),
            ratio_running_precise=ratio(running[name], precise[name]),
            ratio_running_own=_mean(ratio(running[name], c[name]) for c in own),
            small_gamma=float((layer.weight.abs() < SMALL_GAMMA).float().mean()),
            gamma=_spread(layer.weight),
            beta=_spread(layer.bias),
        )
        for name, layer in layers_with_statistics(network).items()
    ]


def distance(one: Statistics, other: Statistics, unit: Statistics) -> float:
    """Return how far two means are apart in standard deviations, mean over channels."""
    return float(((one.mean - other.mean).abs() / (unit.variance + EPS).sqrt()).mean())


def ratio(one: Statistics, other: Statistics) -> float:
    """Return the larger standard deviation over the smaller, geometric mean over channels."""
    logarithms = ((one.variance + EPS) / (other.variance + EPS)).log() / 2
    return float(logarithms.abs().mean().exp())


def _spread(values: Tensor) -> Spread:
    """Return least, median and most of a layer's parameter."""
    ordered = values.detach().double().cpu()
    return Spread(float(ordered.min()), float(ordered.quantile(0.5)), float(ordered.max()))


def _mean(values: object) -> float:
    return float(torch.tensor(list(values), dtype=torch.float64).mean())  # type: ignore[call-overload]
