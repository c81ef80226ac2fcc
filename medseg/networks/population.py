"""Batch norm's population statistics, measured instead of averaged on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Keep the running statistics of every batch norm while training passes go through.

    Recomputing a level for its gradient would otherwise move them a second time.
    """
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    kept = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
        layer.num_batches_tracked = None
    try:
        yield
    finally:
        for layer, (momentum, tracked) in zip(layers, kept, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, tracked


@torch.no_grad()
def measure_population(network: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replace the running statistics of every batch norm by those of `batches`.

    The variance is pooled by the law of total variance: PyTorch's `update_bn` averages the
    variances within batches and loses the variance between them.

    Args:
        network: Its other parameters are left alone; its mode is kept.
        batches: Images, each shape (B, C, I, J, K).

    Returns:
        The number of batches that were used.
    """
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    if not layers:
        return 0
    sums = [_Moments(layer.num_features) for layer in layers]
    hooks = [
        layer.register_forward_pre_hook(moments.add)
        for layer, moments in zip(layers, sums, strict=True)
    ]
    mode = network.training
    network.train()
    used = 0
    try:
        with frozen_statistics(network):
            for batch in batches:
                network(batch)
                used += 1
    finally:
        network.train(mode)
        for hook in hooks:
            hook.remove()
    for layer, moments in zip(layers, sums, strict=True):
        if used and layer.running_mean is not None and layer.running_var is not None:
            layer.running_mean.copy_(moments.mean)
            layer.running_var.copy_(moments.variance)
    return used


class _Moments:
    """Count, sum and sum of squares per channel, in float64."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.sum = torch.zeros(channels, dtype=torch.float64)
        self.squares = torch.zeros(channels, dtype=torch.float64)

    def add(self, _layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Take in one input, shape (B, C, I, J, K)."""
        values: Tensor = inputs[0]
        axes = [0, *range(2, values.ndim)]
        count = values.numel() // values.shape[1]
        variance, mean = torch.var_mean(values.float(), dim=axes, correction=0)
        mean, variance = mean.double().cpu(), variance.double().cpu()
        self.count += count
        self.sum += count * mean
        self.squares += count * (variance + mean**2)

    @property
    def mean(self) -> Tensor:
        return self.sum / self.count

    @property
    def variance(self) -> Tensor:
        """Unbiased, as PyTorch keeps it."""
        biased = self.squares / self.count - self.mean**2
        return biased.clamp_min(0.0) * self.count / max(self.count - 1, 1)
