"""Batch norm's statistics: as a training averaged them, measured anew, and of one case alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medseg.networks.norms_batch import as_plain_batch_norm
from medseg.networks.window import SlidingWindow

Estimate = Literal["pooled", "mean_of_batches"]
"""How a variance is put together from batches.

`pooled` is the variance over all values, by the law of total variance. `mean_of_batches` is the
mean of the variances within batches, by which a training normalizes and which PyTorch's `update_bn`
gives; it leaves out how the means of the batches differ, most where batches are small.
"""


@dataclass(frozen=True, eq=False)
class Statistics:
    """What a layer subtracts and what it divides by, per channel, float64 on the CPU.

    Attributes:
        mean: Shape (C,).
        variance: Shape (C,).
    """

    mean: Tensor
    variance: Tensor


ByLayer = Mapping[str, Statistics]
"""Statistics by the name of the layer in its network."""


def layers_with_statistics(network: nn.Module) -> dict[str, _BatchNorm]:
    """Return every layer that keeps running statistics, by name; none of most norms."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Keep the running statistics of every batch norm while training passes go through.

    Recomputing a level for its gradient would otherwise move them a second time.
    """
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    kept = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
        # PyTorch's synchronized layer insists on a counter: it gets one that nobody reads.
        synchronized = isinstance(layer, nn.SyncBatchNorm)
        layer.num_batches_tracked = torch.tensor(0) if synchronized else None
    try:
        yield
    finally:
        for layer, (momentum, tracked) in zip(layers, kept, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, tracked


@contextmanager
def batch_mode(network: nn.Module) -> Iterator[None]:
    """Let norms look at the batch they are given, as in training; running statistics are kept.

    Dropout is off, as in prediction.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    try:
        with frozen_statistics(network):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def running_statistics(network: nn.Module) -> dict[str, Statistics]:
    """Return a copy of what each layer normalizes by in prediction."""
    found = {}
    for name, layer in layers_with_statistics(network).items():
        mean, variance = _buffers(layer)
        found[name] = Statistics(mean.double().cpu(), variance.double().cpu())
    return found


@torch.no_grad()
def use_statistics(network: nn.Module, statistics: ByLayer) -> None:
    """Have layers normalize by other statistics in prediction."""
    layers = layers_with_statistics(network)
    for name, values in statistics.items():
        for buffer, new in zip(_buffers(layers[name]), (values.mean, values.variance), strict=True):
            buffer.copy_(new)


def population_statistics(
    network: nn.Module, batches: Iterable[Tensor], estimate: Estimate = "pooled"
) -> dict[str, Statistics]:
    """Return what each layer sees over batches; see `population_moments`."""
    return statistics_of(population_moments(network, batches), estimate)


@torch.no_grad()
def population_moments(network: nn.Module, batches: Iterable[Tensor]) -> dict[str, Moments]:
    """Collect what each layer sees over batches, each normalized by itself as in training.

    Args:
        network: Left alone.
        batches: Images, each shape (B, C, I, J, K).

    Returns:
        Nothing where there is no batch, or no layer with statistics.
    """
    with _measuring(network) as moments:
        if moments:
            for batch in batches:
                network(batch)
    return {name: seen for name, seen in moments.items() if seen.batches}


def statistics_of(moments: Mapping[str, Moments], estimate: Estimate) -> dict[str, Statistics]:
    """Put what layers saw together.

    Args:
        moments: By layer.
        estimate: How.
    """
    return {name: seen.statistics(estimate) for name, seen in moments.items()}


@torch.no_grad()
def own_statistics(
    network: nn.Module, image: Tensor, window: SlidingWindow
) -> dict[str, Statistics]:
    """Return what each layer sees over all windows of one case.

    The whole case has one mean and one variance, so its windows stay parts of one function; a
    statistic per window would be instance norm, whose windows disagree where they overlap. With
    one window both are the same.

    Args:
        network: Left alone.
        image: Shape (1, C, I, J, K).
        window: How the windows lie; one at a time is looked at, normalized by itself.
    """
    with _measuring(network) as moments:
        if moments:
            for crop in window.crops(image):
                network(crop)
    return {name: seen.statistics("pooled", unbiased=False) for name, seen in moments.items()}


def measure_population(
    network: nn.Module, batches: Iterable[Tensor], estimate: Estimate = "pooled"
) -> int:
    """Replace the running statistics of every batch norm by those of `batches`.

    Args:
        network: Its other parameters are left alone; its mode is kept.
        batches: Images, each shape (B, C, I, J, K).
        estimate: How the batches are put together.

    Returns:
        The number of batches that were used.
    """
    used = 0

    def counted() -> Iterator[Tensor]:
        nonlocal used
        for batch in batches:
            used += 1
            yield batch

    use_statistics(network, population_statistics(network, counted(), estimate))
    return used


@contextmanager
def _measuring(network: nn.Module) -> Iterator[dict[str, Moments]]:
    """Collect what each layer with statistics is given."""
    layers = layers_with_statistics(network)
    moments = {name: Moments(layer.num_features) for name, layer in layers.items()}
    hooks = [layer.register_forward_pre_hook(moments[name].add) for name, layer in layers.items()]
    try:
        with batch_mode(network), as_plain_batch_norm(network):
            yield moments
    finally:
        for hook in hooks:
            hook.remove()


def _buffers(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    mean, variance = layer.running_mean, layer.running_var
    if mean is None or variance is None:
        raise TypeError("a layer without running statistics")
    return mean, variance


class Moments:
    """Count, sum and sum of squares per channel, in float64, and the variances within batches."""

    def __init__(self, channels: int) -> None:
        self.batches = self.count = 0
        self.sum = torch.zeros(channels, dtype=torch.float64)
        self.squares = torch.zeros(channels, dtype=torch.float64)
        self.means = torch.zeros(channels, dtype=torch.float64)
        self.within = torch.zeros(channels, dtype=torch.float64)

    def add(self, _layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Take in one input, shape (B, C, I, J, K)."""
        values: Tensor = inputs[0]
        axes = [0, *range(2, values.ndim)]
        count = values.numel() // values.shape[1]
        variance, mean = torch.var_mean(values.float(), dim=axes, correction=0)
        mean, variance = mean.double().cpu(), variance.double().cpu()
        self.batches += 1
        self.count += count
        self.sum += count * mean
        self.squares += count * (variance + mean**2)
        self.means += mean
        self.within += variance * count / max(count - 1, 1)

    def statistics(self, estimate: Estimate, unbiased: bool = True) -> Statistics:
        """Return what was seen; the variance unbiased as PyTorch keeps it, or as it divides."""
        if estimate == "mean_of_batches":
            return Statistics(self.means / self.batches, self.within / self.batches)
        mean = self.sum / self.count
        biased = (self.squares / self.count - mean**2).clamp_min(0.0)
        return Statistics(
            mean, biased * self.count / max(self.count - 1, 1) if unbiased else biased
        )
