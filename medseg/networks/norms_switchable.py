"""Switchable norm: a learned mixture of the statistics of instance, layer and batch norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medseg.networks.norms_batch import move_statistics
from medseg.networks.norms_sample import VOXELS, per_channel, pooled_variance, precise


class SwitchableNorm(nn.BatchNorm3d):
    """Learned mixture of instance, layer and batch statistics (Luo 2018, arXiv 1806.10779)."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps=eps)
        self.mean_weight = nn.Parameter(torch.ones(3))
        self.variance_weight = nn.Parameter(torch.ones(3))

    def forward(self, image: Tensor) -> Tensor:
        """Normalize, shape (B, C, I, J, K)."""
        values = precise(image)
        variance, mean = torch.var_mean(values, VOXELS, correction=0, keepdim=True)
        batch_mean, batch_variance = self._batch_statistics(mean, variance, values[0, 0].numel())
        means = mean, mean.mean(1, keepdim=True), batch_mean
        variances = variance, pooled_variance(mean, variance, 1), batch_variance
        mean = _mixed(means, self.mean_weight)
        scale = (_mixed(variances, self.variance_weight) + self.eps).rsqrt()
        scale = scale * per_channel(self.weight)
        return (values * scale + (per_channel(self.bias) - mean * scale)).to(image.dtype)

    def _batch_statistics(
        self, mean: Tensor, variance: Tensor, voxels: int
    ) -> tuple[Tensor, Tensor]:
        """Return batch norm's mean and variance, shape (1, C, 1, 1, 1)."""
        if self.running_mean is None or self.running_var is None or not self.training:
            return per_channel(self.running_mean), per_channel(self.running_var)
        batch_mean, batch_variance = mean.mean(0, keepdim=True), pooled_variance(mean, variance, 0)
        move_statistics(self, batch_mean.flatten(), batch_variance.flatten(), len(mean) * voxels)
        return batch_mean, batch_variance


def _mixed(parts: tuple[Tensor, ...], weights: Tensor) -> Tensor:
    shares = weights.to(parts[0].dtype).softmax(0)
    return shares[0] * parts[0] + shares[1] * parts[1] + shares[2] * parts[2]
