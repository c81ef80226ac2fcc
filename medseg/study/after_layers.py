"""What a training has made of a network's norms: gamma, beta, and the variances they are given."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from medseg.networks.population import Moments, frozen_statistics
from medseg.study.doctor_layers import SMALL_GAMMA
from medseg.study.doctor_patient import Patient

SHIFT_PATCHES = 8
"""Training patches behind the variances of `variance_shift`; at least one batch."""


def norm_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Return every layer with a gamma for each channel, by name."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(getattr(module, "weight", None), nn.Parameter) and module.weight.ndim == 1
    }


def parameter_spread(network: nn.Module) -> dict[str, float | None]:
    """Return the spread of gamma and beta over all channels of all norms; None without norms."""
    layers = norm_layers(network).values()
    if not layers:
        return {"gamma_sd": None, "gamma_small": None, "beta_sd": None}
    gamma, beta = (_joined(layer.get_parameter(name) for layer in layers)
                   for name in ("weight", "bias"))  # fmt: skip
    # No share of values that are no numbers: none of them is below anything.
    small = (gamma.abs() < SMALL_GAMMA).double().where(gamma.isfinite(), gamma)
    return {
        "gamma_sd": float(gamma.std()),
        "gamma_small": float(small.mean()),
        "beta_sd": float(beta.std()),
    }


@torch.no_grad()
def variance_shift(patient: Patient) -> float | None:
    """Return how far the variance of a norm's input in evaluation is from that in training.

    The larger over the smaller, at the norm where they differ most. Dropout makes them differ (Li
    2019, arXiv 1801.05134), and so does a norm before that evaluates with other statistics. None
    without norms.
    """
    network = patient.network
    layers = norm_layers(network)
    if not layers:
        return None
    count = max(1, SHIFT_PATCHES // patient.data.batch_size)
    batches = [images.to(patient.device) for images in patient.data.population(count)]
    try:
        devices = [patient.device] if patient.device.type == "cuda" else []
        with frozen_statistics(network), torch.random.fork_rng(devices):
            torch.manual_seed(0)  # dropout draws the same for every run
            network.train()
            training = _input_variances(network, layers, batches)
    finally:
        network.eval()
    evaluation = _input_variances(network, layers, batches)
    pairs = [sorted((evaluation[name], training[name])) for name in layers]
    ratios = [larger / smaller for smaller, larger in pairs if smaller > 0]
    return max((ratio for ratio in ratios if math.isfinite(ratio)), default=math.nan)


def _joined(parameters: Iterable[Tensor]) -> Tensor:
    return torch.cat([each.detach().double().cpu() for each in parameters])


def _input_variances(
    network: nn.Module, layers: Mapping[str, nn.Module], batches: Sequence[Tensor]
) -> dict[str, float]:
    """Return the variance of each layer's input over batches and voxels, mean over channels."""
    seen = {name: Moments(len(layer.get_parameter("weight"))) for name, layer in layers.items()}
    handles = [layer.register_forward_pre_hook(seen[name].add) for name, layer in layers.items()]
    try:
        for images in batches:
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return {name: float(part.statistics("pooled").variance.mean()) for name, part in seen.items()}
